r"""Frames that are large, in pieces of a megabyte, put aside by small transactions before their entry names them.

A frame of more than 256 KiB lies aside of its entry's record. One that is written with others, or where another one is
expected, is one record, ``a`` + the entry's key. Any other is written in pieces.

LMDB keeps all that a transaction writes in memory of its own until the commit. A value of 100 MB would be copied there,
into memory that the system has to clear first, and held up all other writers meanwhile. Pieces of a megabyte are
written through the same memory again and again, and others write between them.

=======================  ==================================  ===================================================
key                      value                               meaning
=======================  ==================================  ===================================================
``a\0`` + name + number  bytes                               a piece; all of one frame in order are its bytes
``b`` + entry's key      name, lengths                       the name of an entry's pieces, and their parts
``b\0`` + name           time                                the pieces of a writer that has not written its entry
=======================  ==================================  ===================================================

The name is drawn by lot for each writing, so that the older value stays whole until the entry is written, in one
transaction with the last pieces. A writer that was killed before leaves its notice; whoever writes in pieces, or
prunes, removes the pieces of one that has been silent for a minute. A frame that is read back is cut into its parts
again, each in memory of its own: see serializers.parts.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import Any, Final, NamedTuple

from storeroom.backends.filebased.records import ASIDE, HEADER, bytes_aside, halves, with_terms
from storeroom.serializers.parts import Part

__all__ = [
    "INDEX", "PIECE", "UNDER_WAY", "Laid", "are_whole", "drop_aside", "drop_unowned", "drop_unwritten", "frame_of",
    "groups_of", "is_whole", "lay", "lay_last", "lengths_of", "new_name", "parts_of", "size_of", "sweep",
]  # fmt: skip

PIECE: Final = b"a\0"
INDEX: Final = b"b"
UNDER_WAY: Final = b"b\0"

_PIECE_BYTES: Final = 2**20 - 16
"""A megabyte of pages, of whose first one LMDB takes some bytes."""

_SILENT_SECONDS: Final = 60.0
"""Many times as long as a writer waits for its turn between two pieces."""

_NAME_BYTES: Final = 8
_NUMBER: Final = Struct(">I")
_LENGTH: Final = Struct(">Q")
_TIME: Final = Struct(">d")


class Laid(NamedTuple):
    """A frame of which all but the last pieces were put aside.

    Attributes:
        name: of its pieces.
        head: the first part, behind a long storage key.
        size: bytes of the frame.
        lengths: of its parts, as they are stored.
        number: of the first of the last pieces.
        last: these.
    """

    name: bytes
    head: bytes
    size: int
    lengths: bytes
    number: int
    last: Sequence[memoryview]


def groups_of(parts: Sequence[Part]) -> Iterator[list[memoryview]]:
    """Yield the pieces of some parts, as many at once as a transaction writes."""
    group, room = list[memoryview](), _PIECE_BYTES
    for part in parts:
        rest = memoryview(part)
        while rest:
            if not room:
                yield group
                group, room = [], _PIECE_BYTES
            group.append(rest[:room])
            rest, room = rest[room:], room - len(group[-1])
    yield group


def size_of(parts: Iterable[Part]) -> int:
    """Return the bytes of all parts."""
    return sum(len(memoryview(part)) for part in parts)


def lengths_of(parts: Sequence[Part]) -> bytes:
    """Return the lengths of parts as they are stored: each doubled, and one more where it may be changed in place."""
    views = [memoryview(part) for part in parts]
    return b"".join(_LENGTH.pack(2 * len(view) + (not view.readonly)) for view in views)


def new_name() -> bytes:
    """Return a name that no other writing has."""
    return os.urandom(_NAME_BYTES)


def lay(transaction: Any, name: bytes, number: int, pieces: Iterable[memoryview], now: float) -> bool:
    """Put pieces aside, and note that their writer is at work; return False if the ones before were removed."""
    if number == 0:
        sweep(transaction, now)
    elif transaction.get(UNDER_WAY + name) is None:
        return False
    transaction.put(UNDER_WAY + name, _TIME.pack(now))
    _put(transaction, name, number, pieces)
    return True


def lay_last(transaction: Any, entry_key: bytes, laid: Laid) -> None:
    """Put the last pieces aside, and note that all are this entry's."""
    drop_aside(transaction, entry_key)
    transaction.delete(UNDER_WAY + laid.name)
    _put(transaction, laid.name, laid.number, laid.last)
    transaction.put(INDEX + entry_key, laid.name + laid.lengths)


def is_whole(transaction: Any, laid: Laid) -> bool:
    """Tell whether the pieces that were put aside are there."""
    return not laid.number or transaction.get(UNDER_WAY + laid.name) is not None


def _put(transaction: Any, name: bytes, number: int, pieces: Iterable[memoryview]) -> None:
    for at, piece in enumerate(pieces, number):
        transaction.put(PIECE + name + _NUMBER.pack(at), piece)


def _pieces(transaction: Any, name: bytes) -> Iterator[Any]:
    """Yield the pieces of a name."""
    cursor, start = transaction.cursor(), PIECE + name
    is_there = cursor.set_range(start)
    while is_there and bytes(cursor.key()).startswith(start):
        yield cursor.value()
        is_there = cursor.next()


def parts_of(transaction: Any, entry_key: bytes) -> list[Any]:
    """Return the parts of an entry's frame, each in memory of its own where the transaction finds values uncopied.

    One that is damaged is b"".

    Raises:
        KeyError: the entry is not there.
    """
    if (record := transaction.get(entry_key)) is None:
        raise KeyError(entry_key)
    if not (size := bytes_aside(record)):
        return [bytes(record[HEADER.size :])]
    if (frame := transaction.get(ASIDE + entry_key)) is not None:
        parts = list(map(bytes, halves(entry_key, frame))) if len(frame) == size else []
    else:
        parts = _read(transaction, entry_key, size)
    return [with_terms(entry_key, record, parts[0]), *parts[1:]] if parts else [b""]


def frame_of(transaction: Any, entry_key: bytes) -> bytes:
    """Return what follows an entry's header, or would if it did not lie aside; b"" if it is damaged.

    Raises:
        KeyError: the entry is not there.
    """
    parts = parts_of(transaction, entry_key)
    return b"".join(parts) if len(parts) > 1 else parts[0]


def _read(transaction: Any, entry_key: bytes, size: int) -> list[Any]:
    """Return the parts of a frame in pieces; none if it is not as its entry and its index say."""
    index = bytes(transaction.get(INDEX + entry_key, b""))
    lengths = [length for (length,) in _LENGTH.iter_unpack(index[_NAME_BYTES:])] if len(index) % 8 == 0 else []
    pieces = list(_pieces(transaction, index[:_NAME_BYTES])) if lengths else []
    if sum(map(len, pieces)) != size or sum(length // 2 for length in lengths) != size:
        return []
    return list(_cut(pieces, lengths))


def _cut(pieces: Sequence[Any], lengths: Iterable[int]) -> Iterator[bytes | bytearray]:
    rest, more = memoryview(b""), iter(pieces)
    for doubled in lengths:
        left, views = doubled // 2, []
        while left:
            rest = rest or memoryview(next(more))
            views.append(rest[:left])
            rest, left = rest[left:], left - len(views[-1])
        yield (bytearray() if doubled % 2 else b"").join(views)


def drop_unwritten(transaction: Any, name: bytes) -> None:
    """Remove all pieces of a name whose entry was not written."""
    if transaction.get(UNDER_WAY + name) is not None:
        drop(transaction, name)


def drop(transaction: Any, name: bytes) -> None:
    """Remove all pieces of a name, and its notice."""
    cursor, start = transaction.cursor(), PIECE + name
    transaction.delete(UNDER_WAY + name)
    while cursor.set_range(start) and bytes(cursor.key()).startswith(start):
        cursor.delete()


def drop_aside(transaction: Any, entry_key: bytes) -> None:
    """Remove an entry's frame, in whatever form it lies aside."""
    transaction.delete(ASIDE + entry_key)
    if (index := transaction.get(INDEX + entry_key)) is not None:
        name = bytes(index[:_NAME_BYTES])  # before anything changes, as it may lie in the map
        transaction.delete(INDEX + entry_key)
        drop(transaction, name)


def sweep(transaction: Any, now: float) -> None:
    """Remove the pieces of writers that have been silent for long, or will be."""
    for name, notice in list(_under(transaction, UNDER_WAY)):
        if not 0 <= now - _TIME.unpack(notice)[0] <= _SILENT_SECONDS:
            drop(transaction, name)


def _under(transaction: Any, start: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the records under keys that begin so, by what follows."""
    cursor = transaction.cursor()
    is_there = cursor.set_range(start)
    while is_there and bytes(cursor.key()).startswith(start):
        yield bytes(cursor.key())[len(start) :], bytes(cursor.value())
        is_there = cursor.next()


def _names(transaction: Any) -> Iterator[bytes]:
    """Yield the name of each frame in pieces; of pieces, only the first of each is looked at."""
    cursor, start = transaction.cursor(), PIECE
    while cursor.set_range(start) and bytes(cursor.key()).startswith(PIECE):
        name = bytes(cursor.key())[len(PIECE) :][:_NAME_BYTES]
        yield name
        start = PIECE + name + b"\xff" * _NUMBER.size


def _frames(transaction: Any) -> Iterator[bytes]:
    """Yield the keys of entries whose frame lies aside as it is, which none is read for."""
    cursor = transaction.cursor()
    is_there = cursor.set_range(ASIDE + b"\x01")  # behind all pieces
    while is_there and bytes(cursor.key()).startswith(ASIDE):
        yield bytes(cursor.key())[len(ASIDE) :]
        is_there = cursor.next()


def drop_unowned(transaction: Any) -> None:
    """Remove frames that lie aside, and whose entry is gone or has another: damage, or an older version's writes."""
    for key in list(_frames(transaction)):
        if not bytes_aside(transaction.get(key, b"")):
            transaction.delete(ASIDE + key)
    kept = {name for name, _ in _under(transaction, UNDER_WAY)}
    for entry_key, index in list(_under(transaction, INDEX)):
        if not entry_key.startswith(b"\0"):
            if bytes_aside(transaction.get(entry_key, b"")):
                kept.add(index[:_NAME_BYTES])
            else:
                transaction.delete(INDEX + entry_key)
    for name in list(_names(transaction)):
        if name not in kept:
            drop(transaction, name)


def are_whole(transaction: Any, sizes: dict[bytes, int]) -> bool:
    """Tell whether all that lies aside is of these entries, whose frames have so many bytes: for tests."""
    found, names = dict[bytes, int](), {name for name, _ in _under(transaction, UNDER_WAY)}
    for entry_key in _frames(transaction):
        found[entry_key] = len(transaction.get(ASIDE + entry_key))
    for entry_key, index in _under(transaction, INDEX):
        if not entry_key.startswith(b"\0"):
            names.add(index[:_NAME_BYTES])
            found[entry_key] = found.get(entry_key, 0) + sum(map(len, _pieces(transaction, index[:_NAME_BYTES])))
    return found == sizes and names == names.union(_names(transaction))
