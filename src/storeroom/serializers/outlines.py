"""Pickles that show at the speed of C that they are harmless, as nearly all do, in one of three ways.

1. Nothing in them is hashed: a list of rows that are tuples.
2. All their tuples are the arguments of constructors, which take none that nests: a list of rows that are dicts.
3. They have no tuple twice, and their outline, a byte for each opcode, can be folded up from within in a few rounds.

Nor do they stand for much more memory than they take, or have many integers of one hash.
"""

import pickle
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from storeroom.serializers.bounds import TooMuchError
from storeroom.serializers.opcodes import (
    ATOM,
    HEADER,
    LENGTH_BYTES,
    LONG,
    OTHER,
    REFERENCE,
    STOP,
    long_integers,
    outline,
    skip_called,
    skip_flat,
    skip_opcodes,
    skip_referring,
    skip_tokens,
    skip_unhashed,
    spans,
)

__all__ = [
    "ALIKE", "ATOM_BYTES", "CONTAINER_BYTES", "ENTRY_BYTES", "LONGS", "MAX_ALIKE", "TOO_LARGE", "TUPLE_BYTES",
    "is_harmless", "made_bytes", "tokens",
]  # fmt: skip

LONGS: Final = frozenset({0x8A, 0x8B})
"""Opcodes of integers of many bytes."""

# Bytes of memory, roughly: sys.getsizeof() and the entries in lists, tables and the memo.
ATOM_BYTES: Final = 56
CONTAINER_BYTES: Final = {0x5D: 120, 0x7D: 232, 0x8F: 232, 0x91: 232}  # those of lists, dicts and sets of a few
TUPLE_BYTES: Final = 64
ENTRY_BYTES: Final = 64
_MADE_BYTES: Final = 200
_DEQUE_BYTES: Final = 760  # room for 64 members, if there are none
_BYTE_BYTES: Final = 24  # of a byte in a text or a number: a text of two characters takes 67 for four
_HASHED_BYTES: Final = 16  # more, of a byte in a member of a set or a dict


def made_bytes(stream: bytes) -> int:
    """Return the most that an object takes which a constructor makes, without its members."""
    return _DEQUE_BYTES if b"new_deque" in stream else _MADE_BYTES


tokens: Final = re.compile(
    rb"(?:" + ATOM + rb"|(" + rb"|".join((OTHER, REFERENCE, LONG)) + rb"))(\x94?)", re.DOTALL
).findall
"""Finds (opcode, MEMOIZE) for each that is no mere text or number, and ("", MEMOIZE) for each that is."""


MAX_ALIKE: Final = 500
"""Integers of equal hashes: a set of them takes as many comparisons for each."""

ALIKE: Final = f"has more than {MAX_ALIKE} integers of the same hash"
"""The text of an error."""


def is_harmless(stream: bytes, room: int) -> bool:
    """Tell whether the value takes neither much memory nor long, nor much stack to make; False if that is unknown.

    Raises:
        TooMuchError: it takes too much memory, or too many of its integers have the same hash.
    """
    if _held(stream) > room:
        if ATOM_BYTES * len(stream) > room or _may_fill(stream, room):  # it was compressed, or is hardly more than sets
            _require_room(stream, room - len(stream))
        return False
    if _grows(stream):
        return False
    is_hashed = not _all_cheap(stream, skip_unhashed, uses=b"R")
    if is_hashed and not (_all_cheap(stream, skip_called, uses=b"Rhj") or _is_flat(stream) or _folds(stream)):
        return False
    if is_hashed and len(longs := long_integers(stream)) > MAX_ALIKE:
        _require_unlike(longs)
    return True


def _is_flat(stream: bytes) -> bool:
    """Tell whether its tuples have no tuples within them; a few that are referred to may be."""
    skip = skip_flat() if _takes_texts(stream) else skip_flat(255)
    if _all_cheap(stream, skip, uses=b"Rhj"):
        return True
    return _all_cheap(stream, skip_referring(), uses=b"Rhj") and _repeats(stream, _FEW_FLAT) <= _FEW_FLAT


_FEW_FLAT: Final = 16
"""References to tuples, where none is within another otherwise: one unfolds to 3 ** (16 / 3) of up to 64 members."""


_GROWING: Final = (b"new_deque", b"new_ordered_dict", b"new_counter", b"new_defaultdict", b"new_fraction")


def _grows(stream: bytes) -> bool:
    """Tell whether a stream may name constructors whose objects get members, are slow to hash, or may be anything."""
    position = stream.find(b"new_")
    while position >= 0:
        if stream.startswith(_GROWING, position):
            return True
        position = stream.find(b"new_", position + 4)
    # A byte of the name's length comes before it, as it does not in most texts.
    return b"restore" in stream and (b"\x07restore" in stream or b"\x00restore" in stream)


def _held(stream: bytes) -> int:
    """Return a number of bytes that the value takes at most, as if each byte of the stream were an opcode."""
    length = len(stream)
    is_hashed = b"}" in stream or b"\x8f" in stream or b"\x91" in stream
    lists = stream.count(b"]")
    made = length - len(stream.translate(None, b"}\x8f\x91R"))
    tuples = length - len(stream.translate(None, b"t\x85\x86\x87"))
    atoms = _BYTE_BYTES + _HASHED_BYTES * is_hashed
    containers = CONTAINER_BYTES[0x5D] * lists + CONTAINER_BYTES[0x8F] * made
    return atoms * length + containers + (TUPLE_BYTES + ENTRY_BYTES) * tuples


def _may_fill(stream: bytes, room: int) -> bool:
    """Tell whether so many bytes are opcodes of empty containers that these alone may take the room."""
    return sum(size * stream.count(kind) for kind, size in CONTAINER_BYTES.items()) > room // 2


TOO_LARGE: Final = "takes too much memory for its length: see OPTIONS['max_expansion']"
"""The text of an error."""

_containers: Final = re.compile(
    rb"(?:" + ATOM + rb"|([\]}\x8f\x91])|" + rb"|".join((OTHER, REFERENCE, LONG)) + rb")\x94?", re.DOTALL
).findall


def _require_room(stream: bytes, room: int) -> None:
    """Raise TooMuchError if opcodes alone make too much, in a fraction of the time that it takes to follow them."""
    for start, end, is_long in spans(stream, skip_tokens):
        made = [] if is_long else _containers(stream, start, end)
        kinds = b"".join(made)
        room -= ATOM_BYTES * len(made) + sum(size * kinds.count(kind) for kind, size in CONTAINER_BYTES.items())
        if room < 0:
            raise TooMuchError(TOO_LARGE)


def _all_cheap(stream: bytes, skip: Callable[..., object], uses: bytes) -> bool:
    """Tell whether a stream has the opcodes that `skip` matches, and long texts that these `uses` of them cost little.

    A constructor reads its arguments each time, and a key is hashed each time.
    """
    used = len(stream) - len(stream.translate(None, uses))
    is_read = None
    try:
        for start, end, is_long in spans(stream, skip):
            if is_long:
                is_read = bool(_reads_texts(stream)) if is_read is None else is_read  # one look, whatever the texts
                if used * _cost(stream, start, end, is_read=is_read) > _MAX_USED:
                    return False
    except pickle.UnpicklingError:
        return False
    return True


_MAX_USED: Final = 2**24
"""Characters of long numbers that are read or hashed: 50 ms."""

_wordy: Final = re.compile(rb"[b-dghj-mo-ru-xzB-DGHJ-MO-RU-XZ<>]").search
"""Finds what no Decimal has: it is digits, an exponent, Infinity or sNaN."""


def _cost(stream: bytes, start: int, end: int, *, is_read: bool) -> int:
    """Return the length of a text or number that is long, or 0 where nobody reads or hashes it more than once."""
    if stream[start] in LONGS:
        return _MAX_USED
    if end - start > _LONGEST_READ:
        return 0
    return end - start if is_read or not _wordy(stream, start + 1 + LENGTH_BYTES[stream[start]], end) else 0


_LONGEST_READ: Final = 4 * 2**16 + 9
"""Bytes of a text that a constructor may accept, and so be called with it again: see safe_types."""

_takes_texts: Final = re.compile(rb"new_(?:decimal|path|address|zoneinfo)").search
_reads_texts: Final = re.compile(rb"new_(?:path|address|zoneinfo)").search


def _require_unlike(longs: Iterable[bytes]) -> None:
    """Raise TooMuchError if too many integers have one hash; each is behind a byte for its length."""
    hashes = (hash(int.from_bytes(each[1:], "little", signed=True)) for each in set(longs))
    if max(Counter(hashes).values()) > MAX_ALIKE:
        raise TooMuchError(ALIKE)


_TUPLES: Final = (b"t", b"\x85", b"\x86", b"\x87", b"\x91")

# Read from behind: an opcode comes before that which it takes.
_IN: Final = rb"[N)\x88\x89\]}\x8f]"
_make: Final = re.compile(rb"[t\x91]" + _IN + rb"*\(|\x87" + _IN * 3 + rb"|[\x86\x93R]" + _IN * 2 + rb"|\x85" + _IN).sub
_take: Final = re.compile(rb"[eu\x90]" + _IN + rb"*\(|s" + _IN * 2 + rb"|a" + _IN).sub

_ROUNDS: Final = 25
_LONGEST_PART: Final = 2**17
"""A pickler begins a new frame every 64 KiB."""

_ROUND_BYTES: Final = 2**14
"""Tables fold up to a tenth in the first rounds; what needs more is followed instead."""


def _folds(stream: bytes) -> bool:
    """Tell whether a value nests few tuples within each other, and has few of them twice; False if that is unknown."""
    parts = list(_unframed(stream))
    if max(map(len, parts)) > _LONGEST_PART:
        return False
    try:
        folded = b"".join(map(_outline, parts))[::-1]
    except pickle.UnpicklingError:
        return False
    left = 4 * len(folded) + _ROUND_BYTES
    for _ in range(_ROUNDS):
        if len(folded) == 1:
            return _repeats(stream, _FEW_TUPLES) <= _FEW_TUPLES
        left -= len(folded)
        if left < 0:
            return False
        folded = _take(b"", _make(b"N", folded))
    return False


def _unframed(stream: bytes) -> Iterator[bytes]:
    """Yield the parts of a stream between the headers of frames, if these lie as a pickler has put them."""
    start = position = len(HEADER)
    while stream[position : position + 1] == _FRAME:
        yield stream[start:position]
        start = position + 9
        position = start + int.from_bytes(stream[position + 1 : start], "little")
    yield stream[start : -len(STOP)]


_FRAME: Final = b"\x95"
_begins_long: Final = re.compile(b"[%b]" % re.escape(bytes(LENGTH_BYTES))).search


def _outline(part: bytes) -> bytes:
    """Return the opcodes of a part, those that have arguments as NONE, and without those that memoize."""
    outlined = outline(part)
    if _begins_long(outlined):
        whole = b"%b%b%b" % (HEADER, part, STOP)
        if not _all_cheap(whole, skip_opcodes, uses=b"Rhj"):
            raise pickle.UnpicklingError
        outlined = b"".join(
            b"N" if is_long else outline(whole[start:end]) for start, end, is_long in spans(whole, skip_opcodes)
        )
    return outlined.translate(None, b"\x94")


_FEW_TUPLES: Final = 5
"""Tuples that occur once more. So many double what one unfolds to five times."""

_short_reference: Final = re.compile(rb"h(?=(.))", re.DOTALL).findall
_long_reference: Final = re.compile(rb"j(?=(.{4}))", re.DOTALL).findall
_reference: Final = re.compile(
    rb"(?:[\]aet\x85-\x87}su\x8f-\x91(01\x94\x93RN\x88\x89)]+|" + ATOM + rb"|" + LONG + rb"|\x95.{8}){0,300}"
    rb"(?:h(.)|j(.{4})|)",
    re.DOTALL,
).findall  # with the last alternative it never fails, and so is never tried from each byte


def _repeats(stream: bytes, few: int) -> int:
    """Return how often something refers to a tuple, or more, if it is no more than a few."""
    found = _short_reference(stream) + _long_reference(stream)  # and letters in texts
    repeats = _to_tuples(stream, Counter(found))
    if repeats > few:
        parts = (_reference(stream, start, end) for start, end, is_long in spans(stream) if not is_long)
        repeats = _to_tuples(stream, Counter(short or long for part in parts for short, long in part))
    return repeats


def _to_tuples(stream: bytes, references: Counter[bytes]) -> int:
    most = stream.count(b"\x94")
    counts = Counter[int]()
    for number, count in references.items():
        counts[int.from_bytes(number, "little")] += count if number else 0
    last = max((number for number in counts if number < most), default=-1)
    kinds = zip(range(last + 1), _memoized(stream), strict=False)
    return sum(counts[number] for number, kind in kinds if kind in _TUPLES)


def _memoized(stream: bytes) -> Iterator[bytes]:
    """Yield the opcode of each object that can be referred to, or "" for a text or number."""
    before = b""
    for start, end, is_long in spans(stream, skip_tokens):
        if is_long:
            before = b""
            continue
        for opcode, memoize in tokens(stream, start, end):
            if opcode == b"\x94":  # once more, or apart from what it is of
                yield before
            else:
                before = opcode[:1]
                if memoize:
                    yield before
