"""Pickles are weighed before they are executed: the memory that the value takes, and whether it has to be watched.

Python hashes tuples without a look at the stack, so that a million tuples within each other, a byte each, end the
process; the same tuple twice in each of forty takes for ever; and 20,000 numbers can be chosen so that each is compared
with each. Most values show that they do nothing of that kind. All others are made under watch (``watching``).
"""

import pickle
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final, NamedTuple

from storeroom.serializers.bounds import MAX_DEPTH, TooMuchError
from storeroom.serializers.keyed import digits_of, keyed
from storeroom.serializers.opcodes import (
    LONG_NUMBERS,
    check_opcodes,
    find_made,
    skip_called,
    skip_tokens,
    skip_unhashed,
    spans,
)

__all__ = ["HARMLESS", "Care", "Weighed", "weigh"]


class Care(Enum):
    """The care that a value takes to make."""

    NONE = auto()
    FIRST_OBJECTS = auto()
    """The objects to which the first 256 references lead may be keys, and have been chosen to have one hash."""
    WATCH = auto()


_SHORT: Final = 2**13
"""In so few bytes, some 200 numbers of one hash may be compared with each other, in several tables: 30 ms."""


class Weighed(NamedTuple):
    """A value, as far as it is known before it is made.

    Attributes:
        containers: their number, or more, if its depth is to be checked when it is there; 0 if it cannot be too deep.
    """

    care: Care
    containers: int


HARMLESS: Final = Weighed(Care.NONE, 0)

_FEW_REFERENCES: Final = 10
"""So many double what a tuple unfolds to ten times at most."""


def weigh(stream: bytes, room: int) -> Weighed:
    """Check the memory that a value takes, and the care.

    Args:
        stream: the pickle.
        room: the bytes of memory that the value may take.

    Raises:
        UnpicklingError: there are opcodes that are not allowed; or none, if the value takes care.
        TooMuchError: it takes too much memory.
    """
    length = len(stream)
    if length <= MAX_DEPTH and stream.count(b"h") + stream.count(b"j") <= _FEW_REFERENCES:
        check_opcodes(stream)
        return HARMLESS
    if _held(stream) > room:
        _require_room(stream, room - length, _MADE_BYTES)
    calls = stream.count(b"R")
    if calls > _FEW_CALLS and _CALL_BYTES * calls > length and _CALL_BYTES * _count_calls(stream) > length:
        raise TooMuchError(f"has more than {_FEW_CALLS} objects, of less than {_CALL_BYTES} bytes each")
    count = length - len(stream.translate(None, b"]}t\x85\x86\x87\x8f\x91"))  # those in texts, too
    containers = count if count > MAX_DEPTH else 0
    grows = _grows(stream)
    is_short = length <= _SHORT and b"new_address" not in stream
    if not grows and (_is_flat(stream, skip_unhashed) or (is_short and _is_flat(stream, skip_called))):
        return Weighed(Care.NONE, containers)
    found = None if grows else keyed(stream)
    if found is None or not _LOOKED_AT.isdisjoint(found.names) or calls * found.digits > _MOST_DIGITS:
        if _held(stream) + _DEQUE_BYTES * calls > room:
            _require_room(stream, room - length, _DEQUE_BYTES if b"deque" in stream else _MADE_BYTES)
        return Weighed(Care.WATCH, containers + calls)
    chosen = length > _SHORT and (found.tuples or not _CHOSEN.isdisjoint(found.names))
    return Weighed(Care.FIRST_OBJECTS if chosen else Care.NONE, containers)


_FEW_CALLS: Final = 2**15

_CALL_BYTES: Final = 8
"""Of a call of a constructor that takes a microsecond or three. Only an empty OrderedDict and the like take less."""


def _count_calls(stream: bytes) -> int:
    tokens = (find_made(stream, start, end) for start, end, is_long in spans(stream, skip_tokens) if not is_long)
    return sum(b"".join(each).count(b"R") for each in tokens)


_MOST_DIGITS: Final = 2**24
"""Characters of numbers that are read: 50 ms."""

_GROWING: Final = (b"new_deque", b"new_ordered_dict", b"new_counter", b"new_defaultdict", b"new_fraction")
"""Constructors whose objects get members, or that take long."""

_LOOKED_AT: Final = frozenset({b"address", b"OrderedDict"})
"""Names of those whose objects take long to hash and to compare, or may be made of anything."""

_CHOSEN: Final = frozenset({b"decimal", b"complex", b"range", b"timedelta", b"uuid", b"Decimal"})
"""Names of those of which many objects, or tuples of many arguments, can be chosen to have one hash."""


def _grows(stream: bytes) -> bool:
    """Tell whether a stream may name constructors whose objects get members, or may be anything."""
    position = stream.find(b"new_")
    while position >= 0:
        if stream.startswith(_GROWING, position):
            return True
        position = stream.find(b"new_", position + 4)
    # A byte of the name's length comes before it, as it does not in most texts.
    return b"restore" in stream and (b"\x07restore" in stream or b"\x00restore" in stream)


def _is_flat(stream: bytes, skip: Callable[..., Any]) -> bool:
    """Tell whether a stream has the opcodes that `skip` matches, and no long number, nor reads one again and again."""
    calls = stream.count(b"R")
    try:
        for start, end, is_long in spans(stream, skip):
            if is_long and (stream[start] in LONG_NUMBERS or calls * digits_of(stream, start, end) > _MOST_DIGITS):
                return False
    except pickle.UnpicklingError:
        return False
    return True


# Bytes of memory, roughly: sys.getsizeof() and the entries in lists, tables and the memo.
_ATOM_BYTES: Final = 56
_LIST_BYTES: Final = 120
_TABLE_BYTES: Final = 232  # of a dict or a set of a few
_TUPLE_BYTES: Final = 64
_ENTRY_BYTES: Final = 64  # of a key and its value, or of a member
_MADE_BYTES: Final = 200
_DEQUE_BYTES: Final = 760  # room for 64 members, if there are none
_BYTE_BYTES: Final = 24  # of a byte in a text or a number: a text of two characters takes 67 for four
_HASHED_BYTES: Final = 16  # more, of a byte in a member of a set or a dict


def _held(stream: bytes) -> int:
    """Return a number of bytes that the value takes at most, as if each byte of the stream were an opcode."""
    length = len(stream)
    is_hashed = b"}" in stream or b"\x8f" in stream or b"\x91" in stream
    lists = stream.count(b"]")
    made = length - len(stream.translate(None, b"}\x8f\x91R"))
    tuples = length - len(stream.translate(None, b"t\x85\x86\x87"))
    atoms = _BYTE_BYTES + _HASHED_BYTES * is_hashed
    return atoms * length + _LIST_BYTES * lists + _TABLE_BYTES * made + (_TUPLE_BYTES + _ENTRY_BYTES) * tuples


def _require_room(stream: bytes, room: int, made_bytes: int) -> None:
    """Raise TooMuchError if the opcodes make too much."""
    sizes = dict.fromkeys(b"t\x85\x86\x87", _TUPLE_BYTES) | dict.fromkeys(b"}\x8f\x91", _TABLE_BYTES)
    sizes |= {ord("]"): _LIST_BYTES, ord("R"): made_bytes}
    atom = _ATOM_BYTES + _ENTRY_BYTES // 2 * any(code in stream for code in b"}\x8f\x91")
    for start, end, is_long in spans(stream, skip_tokens):
        made = [b""] if is_long else find_made(stream, start, end)
        kinds = b"".join(made)
        objects = made.count(b"") + len(kinds) - kinds.count(b"\x94")
        room -= atom * objects + sum(size * kinds.count(kind) for kind, size in sizes.items())
        if room < 0:
            raise TooMuchError("takes too much memory for its length: see OPTIONS['max_expansion']")
