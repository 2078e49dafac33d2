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
from storeroom.serializers.slots import FREE_KEYS, Slots

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


# A unit is the time to hash a number, some 20 ns.
_UNITS: Final = 2**21
_UNITS_A_BYTE: Final = 4

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
                self._enter(frozenset(), members)
            return frozenset(members)
        if type(table) is set:
            self._enter(table, members)
            table.update(members)
            return table
        keys = members[::2]
        if type(table) is dict:
            if len(table) + len(keys) > FREE_KEYS or not self._sure.issuperset(map(type, keys)):
                self._enter(table, keys)
            table.update(zip(keys, members[1::2], strict=True))
            return table
        if len(members) % 2 or isinstance(table, (list, tuple, collections.deque)):
            raise UnpicklingError("it has no items")
        self._enter(table, keys)
        for key, value in zip(keys, members[1::2], strict=True):
            table[key] = value
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

    def _enter(self, table: Collection[Any], keys: Sequence[Any]) -> None:
        """Raise TooMuchError if it takes too long to put these keys into a table."""
        is_small = len(table) + len(keys) <= FREE_KEYS
        if is_small and self._sure.issuperset(map(type, keys)):
            return
        kinds = set(map(type, keys))
        is_light = kinds <= _LIGHT and (int not in kinds or self._are_short(keys))
        if kinds <= _KEYED or (is_small and is_light):
            return
        self.spend(_QUESTION * (not is_small))
        known = self._known.get(id(table)) if table else None
        if is_light:
            self.spend(len(keys))
            if known is None:
                known = self._known[id(table)] = _Known(table)
            known.add_light(keys, are_integers=kinds == {int})
            return
        self._cost(keys)
        hashes = _hashes(keys)
        if is_small and not table and len(hashes) == len(keys):
            return
        if known is None:
            known = self._known[id(table)] = _Known(table)
        known.add(self, keys, hashes)

    def _are_short(self, keys: Sequence[Any]) -> bool:
        if not self._has_long_numbers:
            return True
        integers = [key for key in keys if type(key) is int]
        return max(integers) < 2**63 and min(integers) >= -(2**63)

    def compare(self, count: int, key: Any) -> None:
        """Raise TooMuchError if it takes too long to compare a key with so many others of the same hash."""
        units = 1 + getsizeof(key) // 128 if type(key) is int else self._cost((key,))
        self.spend(2 * count * units)

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


def _hashes(keys: Collection[Any]) -> dict[_Hash, int]:
    """Return the different hashes of some keys."""
    hashes = array("q", map(hash, keys))
    return dict(zip(iter_unpack("8s", hashes), hashes, strict=True))


class _Known:
    """The keys of a table, as far as they are needed."""

    def __init__(self, table: Collection[Any]) -> None:
        self._table = table  # kept, so that no other gets its id
        self._counts: dict[_Hash, int] | None = None
        self._slots: Slots | None = None
        self._ends: list[int] | None = None
        if set(map(type, table)) <= {int}:
            self._ends = [min(table), max(table)] if table else []

    def add(self, watch: Watch, keys: Sequence[Any], hashes: dict[_Hash, int]) -> None:
        """Count the time that further keys take, of which these are the different hashes."""
        if self._counts is None:
            self._counts = Counter(_names(self._table))
        counts = self._counts
        fresh = [hashes[name] for name in hashes if name not in counts]
        if len(fresh) == len(keys):
            counts.update(dict.fromkeys(hashes, 1))
        else:
            for key, name in zip(keys, _names(keys), strict=True):
                count = counts.get(name, 0)
                if count:
                    watch.compare(count, key)
                counts[name] = count + 1
        if len(counts) > FREE_KEYS:
            self._take(fresh)

    def add_light(self, keys: Sequence[Any], *, are_integers: bool) -> None:
        """Count the time of keys of which hardly any two have one hash."""
        if self._counts is not None:
            self._counts.update(dict.fromkeys(_names(keys), 1))
        if are_integers and self._ends is not None and len(keys) <= FREE_KEYS:
            self._ends = [min(*self._ends, *keys), max(*self._ends, *keys)]
            # Integers that are close together have a slot each: a table has one and a half times as many.
            if self._ends[1] - self._ends[0] <= len(self._table) + len(keys):
                return
        self._ends = None
        self._take(list(map(hash, keys)))

    def _take(self, hashes: Sequence[int]) -> None:
        if self._slots is None:
            self._slots = Slots(is_set=isinstance(self._table, (set, frozenset)))
            self._slots.add(list(_hashes(self._table).values()))
        self._slots.add(hashes)
