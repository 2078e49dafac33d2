"""Values whose bytes do not show that they are quickly made are made under watch.

Hashes of numbers and tuples can be chosen, so that a set of 20,000 compares each of them with each; a tuple is hashed
once more wherever it is a key, and in C, without a look at the stack. So the unpickler asks, before it puts keys into a
table, and the watch counts the time to hash them, to compare those of one hash, and to find slots for them.
"""

import collections
import datetime as dt
import decimal
import fractions
import re
import uuid
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain
from math import prod
from pickle import UnpicklingError
from struct import iter_unpack
from sys import getsizeof
from types import NoneType
from typing import Any, Final, TypeAlias

from storeroom.serializers.bounds import MAX_DEPTH, TOO_DEEP, TooMuchError, require_shallow
from storeroom.serializers.opcodes import (
    FRAME,
    HEADER,
    LENGTH_BYTES,
    LONG_NUMBERS,
    STOP,
    framed,
    skip_unasking,
    skip_unasking_numbers,
)
from storeroom.serializers.slots import FREE_KEYS, Pace

__all__ = ["TABLES", "Watch", "asking"]

TABLES: Final = frozenset(
    {dict, list, tuple, set, frozenset}
    | {collections.deque, collections.OrderedDict, collections.Counter, collections.defaultdict}
)
"""Types of values that have members."""

_ASKED: Final = {
    ord("s"): b"\x87Q",  # TUPLE3 BINPERSID: (table, key, value)
    ord("u"): b"t\x86Q",  # TUPLE TUPLE2 BINPERSID: (table, (key, value, ...))
    0x90: b"t\x86Q",  # (set, (member, ...))
    0x91: b"t\x85Q",  # ((member, ...),)
}
"""Questions in the place of SETITEM, SETITEMS, ADDITEMS and FROZENSET. BINPERSID calls persistent_load()."""

_ITEM: Final = 3
"""Parts of a question about a key and its value."""

_run: Final[Callable[..., Any]] = re.compile(rb"s+|u+|\x90+|\x91+").match


def asking(stream: bytes) -> tuple[bytes, bool]:
    """Return a pickle that asks before it hashes, and whether integers of more than 64 bits are in it.

    Raises:
        UnpicklingError: it has opcodes that are not allowed, or is truncated.
    """
    if not stream.startswith(HEADER):
        raise UnpicklingError("another protocol")
    parts: list[bytes] = []
    skip = skip_unasking
    questions, position, last = 0, len(HEADER), len(stream) - 1
    while position < last:
        skipped = skip(stream, position)
        end = skipped.end() if skipped else position
        parts.append(stream[position:end])
        code = stream[end]
        if code in _ASKED:
            position = end + 1 if stream[end + 1] != code else _run(stream, end).end()
            parts.append(_ASKED[code] * (position - end))
            questions += position - end
        elif code in LENGTH_BYTES:  # a long text
            start = end + 1 + LENGTH_BYTES[code]
            position = start + int.from_bytes(stream[end + 1 : start], "little")
            parts.append(stream[end:position])
            if code in LONG_NUMBERS:
                skip = skip_unasking_numbers
        elif code == FRAME:
            position = end + 9
        elif end > position:
            position = end
        else:
            raise UnpicklingError(f"opcode 0x{code:02x} is not allowed, or cut short")
    if position != last or not stream.endswith(STOP):
        raise UnpicklingError("truncated")
    if _SMALL_QUESTION * questions > _units(len(stream)):
        raise TooMuchError("has too many dicts and sets for its length")
    return framed(b"".join(parts)), skip is skip_unasking_numbers


_UNIT_NS: Final = 20
"""A unit is the time to hash a number."""

_UNITS: Final = 2**21
_UNITS_A_BYTE: Final = 4

_UNITS_ALIKE: Final = 2**20
"""Units of comparing keys of one hash, whatever the length: hardly any are, unless somebody has chosen them."""

_OF_A_UNIT: Final = frozenset(
    (int, float, complex, str, bytes, bool, NoneType, tuple, frozenset, dt.date, dt.time, dt.datetime, dt.timedelta)
)
_UNITS_OF: Final = dict.fromkeys(_OF_A_UNIT, 0) | {decimal.Decimal: 3, uuid.UUID: 7}
"""Units, beyond the first, to hash what is no number."""

_DEAR: Final = 50
"""Units of a hash or a comparison by a function in Python: those of addresses, paths and fractions."""

_SIZED: Final[dict[type, Callable[[Any], Iterable[Any]]]] = {
    decimal.Decimal: lambda number: (number,),
    range: lambda given: (given.start, given.stop, given.step),
    fractions.Fraction: lambda number: (number.numerator, number.denominator),
}
"""Types whose hash takes time in proportion to their length, and the numbers that they are made of."""

_NUMBERS: Final = _SIZED | {int: lambda number: (number,)}

_LOOK: Final = 3
"""Units of a look at each member of a tuple."""

_BYTES_A_UNIT: Final = 16


def _units(length: int) -> int:
    return max(_UNITS, _UNITS_A_BYTE * length)


_SMALL_QUESTION: Final = 24
"""Units of any question, four a byte: a set of an integer takes six bytes."""

_QUESTION: Final = 250
"""Units of a question about a large table, which is asked for a thousand keys at a time as a rule."""

_KEYED: Final = frozenset({str, bytes})
"""Types whose hashes nobody can foretell."""

_LIGHT: Final = _KEYED | {int, float, bool, NoneType, dt.date, dt.time, dt.datetime}
"""Types whose values hardly ever have one hash, where integers have no more than 64 bits."""


class Watch:
    """The time that a value takes to make, counted before it is taken.

    Args:
        length: its bytes, to which the time may be in proportion.
        kinds: types of all that may have members.
        has_long_numbers: whether integers of more than 64 bits are in it.
    """

    def __init__(self, length: int, kinds: frozenset[type], *, has_long_numbers: bool) -> None:
        self._length = length
        self._left = _units(length)
        self._left_alike = _UNITS_ALIKE
        self._kinds = kinds
        self._known: dict[int, _Known] = {}
        self._has_long_numbers = has_long_numbers
        self._sure = _LIGHT - {int} if has_long_numbers else _LIGHT

    def answer(self, asked: tuple[Any, ...]) -> object:
        """Do what an opcode was to do that asks now; return the table."""
        table, members = asked[0], asked[-1]
        if len(asked) == _ITEM:
            key = asked[1]
            if type(table) is dict and type(key) in self._sure and len(table) < FREE_KEYS:  # as most often, of one
                table[key] = members
                return table
            members = asked[1:]
        elif len(asked) == 1:
            if len(members) > FREE_KEYS or not self._sure.issuperset(map(type, members)):
                tried: set[Any] = set()
                self._put(tried, members, lambda start, end: tried.update(members[start:end]))
            return frozenset(members)
        if type(table) is set:
            self._put(table, members, lambda start, end: table.update(members[start:end]))
            return table
        if len(members) % 2 or isinstance(table, (list, tuple, collections.deque)):
            raise UnpicklingError("it has no items")
        keys, values = members[::2], members[1::2]
        if len(table) + len(keys) <= FREE_KEYS and type(table) is dict and self._sure.issuperset(map(type, keys)):
            table.update(zip(keys, values, strict=True))
            return table

        def set_items(start: int, end: int) -> None:
            for key, value in zip(keys[start:end], values[start:end], strict=True):
                table[key] = value

        self._put(table, keys, set_items)
        return table

    def call(self, function: Callable[..., object], *arguments: Any) -> object:
        """Call a constructor that reads all of its arguments each time."""
        sizes = list(map(getsizeof, arguments))
        self.spend(sum(sizes) // 8 + prod(sizes) // 128)
        return function(*arguments)

    def spend(self, units: int) -> None:
        """Raise TooMuchError if all is spent."""
        self._left -= units
        if self._left < 0:
            raise TooMuchError("takes too long to make: keys, members or arguments are many and alike, or shared")

    def _put(self, table: Collection[Any], keys: Sequence[Any], update: Callable[[int, int], object]) -> None:
        """Put keys into a table, those from one position to another at a time.

        Raises:
            TooMuchError: it takes too long.
        """
        pace = self._pace(table, keys)
        if pace is None:
            update(0, len(keys))
        else:
            pace.put(len(keys), update)

    def _pace(self, table: Collection[Any], keys: Sequence[Any]) -> Pace | None:
        """Count the time to hash some keys and to compare them; return a pace if others may be in their way."""
        is_small = len(table) + len(keys) <= FREE_KEYS
        kinds = set(map(type, keys))
        is_light = kinds <= _LIGHT and (int not in kinds or self._are_short(keys))
        if kinds <= _KEYED or (is_small and is_light):
            return None
        self.spend(_QUESTION * (not is_small))
        units = len(keys) if is_light else self._cost(keys)
        known = self._known.get(id(table)) if table else None
        if known is None:
            known = _Known(table)
        if is_light:
            known.add_light(keys)
        elif not known.add(self, keys) and is_small:
            return None
        self._known[id(table)] = known
        known.pace.allow(_UNIT_NS * units)
        return None if is_small else known.pace

    def _are_short(self, keys: Sequence[Any]) -> bool:
        if not self._has_long_numbers:
            return True
        integers = [key for key in keys if type(key) is int]
        return max(integers) < 2**63 and min(integers) >= -(2**63)

    def compare(self, count: int, key: Any) -> None:
        """Raise TooMuchError if it takes too long to compare a key with so many others of the same hash."""
        units = 1 + getsizeof(key) // 128 if type(key) is int else self._cost((key,))
        self._left_alike -= 2 * count * units
        self.spend(0 if self._left_alike >= 0 else self._left + 1)

    def _cost(self, members: Sequence[Any]) -> int:
        """Return the time that it takes to hash some members; raise TooMuchError if it is too long."""
        spent = 0
        for _ in range(MAX_DEPTH):
            kinds = set(map(type, members))
            units = (_LOOK + 1) * len(members)
            if not kinds <= _OF_A_UNIT:
                units += sum(count * _UNITS_OF.get(kind, _DEAR) for kind, count in Counter(map(type, members)).items())
            if self._has_long_numbers or not kinds.isdisjoint(_SIZED):
                numbers = chain.from_iterable(_NUMBERS[type(one)](one) for one in members if type(one) in _NUMBERS)
                units += sum(map(getsizeof, numbers)) // _BYTES_A_UNIT
            if not self._kinds.isdisjoint(kinds - _UNITS_OF.keys()):  # it may hash its own members
                require_shallow(list(members), self._length, kinds=self._kinds)
            spent += units
            self.spend(units)
            if tuple not in kinds:
                return spent
            within = members if len(kinds) == 1 else [one for one in members if type(one) is tuple]
            self.spend(sum(map(len, within)) // 2)  # before as much memory is taken
            members = list(chain.from_iterable(within))
        raise TooMuchError(TOO_DEEP)


_Hash: TypeAlias = tuple[bytes]
"""A hash as bytes, as a dict whose keys are hashes would be slow itself."""


def _names(keys: Iterable[Any]) -> Iterator[_Hash]:
    return iter_unpack("8s", array("q", map(hash, keys)))


class _Known:
    """The hashes of a table's keys, as far as they are needed."""

    def __init__(self, table: Collection[Any]) -> None:
        self._table = table  # kept, so that no other gets its id
        self._counts: dict[_Hash, int] | None = None
        self.pace = Pace(table)

    def add(self, watch: Watch, keys: Sequence[Any]) -> bool:
        """Count the time to compare further keys; tell whether there were any to compare, or to add them to."""
        names = list(_names(keys))
        fresh = dict.fromkeys(names, 1)
        if self._counts is None and not self._table and len(fresh) == len(keys):
            self._counts = fresh
            return False
        if self._counts is None:
            self._counts = Counter(_names(self._table))
        counts = self._counts
        if len(fresh) == len(keys) and counts.keys().isdisjoint(fresh):
            counts.update(fresh)
            return True
        for key, name in zip(keys, names, strict=True):
            count = counts.get(name, 0)
            if count:
                watch.compare(count, key)
            counts[name] = count + 1
        return True

    def add_light(self, keys: Sequence[Any]) -> None:
        """Note keys of which hardly any two have one hash."""
        if self._counts is not None:
            self._counts.update(dict.fromkeys(_names(keys), 1))
