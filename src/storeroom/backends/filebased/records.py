"""Keys and records of a file cache's tree: how an entry is written, and read.

One LMDB tree holds everything, so that a commit touches few pages. Its keys begin with
a letter:

==========================  ===================  =====================================
key                         value                meaning
==========================  ===================  =====================================
``c``                       seven numbers        counters of all processes: see counts.py
``e`` + storage key         header, frame        an entry
``h`` + hash                header, key, frame   an entry whose storage key is too long
``k`` + slot                entry's key          a key too long for its slot: see slots.py
``l`` + key or hash         header, frame        a lock: not counted, never evicted
``t`` + key or hash         header, frame        the version of a tag: counted and bounded apart
==========================  ===================  =====================================
"""

from collections.abc import Iterator
from hashlib import blake2b
from itertools import chain, takewhile
from struct import Struct
from typing import Any, Final

from storeroom.keys import LOCK_PREFIX, TAG_PREFIX, KeySpace
from storeroom.storage.envelope import LEASED_BYTES, is_leased, is_packed
from storeroom.storage.hooks import Conditional

__all__ = [
    "APART",
    "ENTRY_LETTERS",
    "HASHED",
    "HEADER",
    "LOCK",
    "TAG",
    "are_all_owned",
    "entry_key_of",
    "entry_size",
    "is_being_computed",
    "is_conditional",
    "join_name",
    "live_keys",
    "locks",
    "owned",
    "read_header",
    "split_name",
]

HEADER: Final = Struct(">d8xI")
"""Before each entry's frame: expires_at, eight bytes that are free, the entry's slot."""

LONGEST_KEY: Final = 500
"""Bytes of a storage key that is stored as it is. LMDB's limit is 511."""

ENTRY_LETTERS: Final = b"ehlt"
HASHED: Final = ord("h")
LOCK: Final = ord("l")
TAG: Final = ord("t")
APART: Final = frozenset({LOCK, TAG})
"""First bytes of keys; those apart are of records that are no entries."""

_APART_PREFIXES: Final = (LOCK_PREFIX, TAG_PREFIX)

_LENGTH: Final = Struct(">I")

_ENTRY_BYTES: Final = HEADER.size + 10 + 78
"""Bytes of an entry beside its key and its frame: header, LMDB's node and pointer, slot."""


def entry_key_of(storage_key: str) -> bytes:
    """Return the key under which the entry of a storage key lies in the tree."""
    try:
        name = storage_key.encode()
    except UnicodeEncodeError:
        name = storage_key.encode("utf-8", "surrogatepass")
    if storage_key.startswith(_APART_PREFIXES):
        letter = b"l" if storage_key.startswith(LOCK_PREFIX) else b"t"
        return letter + (name if len(name) <= LONGEST_KEY else blake2b(name, digest_size=32).digest())
    if len(name) <= LONGEST_KEY:
        return b"e" + name
    return b"h" + blake2b(name, digest_size=32).digest()


def entry_size(entry_key: bytes, frame_size: int) -> int:
    """Return the bytes that an entry takes."""
    return len(entry_key) + frame_size + _ENTRY_BYTES


def read_header(record: bytes | memoryview) -> tuple[float, int]:
    """Return expires_at and slot; of a damaged record, those of an expired entry."""
    return HEADER.unpack_from(record) if len(record) >= HEADER.size else (0.0, 0)


def split_name(frame: bytes) -> tuple[str, bytes]:
    """Return storage key and frame from the bytes that follow the header where the storage key is hashed."""
    end = _LENGTH.size + int.from_bytes(frame[: _LENGTH.size], "big")
    return _decode(frame[_LENGTH.size : end]), frame[end:]


def _decode(name: bytes) -> str:
    # A damaged name is nobody's: the character in place of a bad byte makes it match no key.
    try:
        return name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return name.decode("utf-8", "replace")


def join_name(storage_key: str, frame: bytes) -> bytes:
    """Return the bytes that follow the header where the storage key is hashed."""
    name = storage_key.encode("utf-8", "surrogatepass")
    return _LENGTH.pack(len(name)) + name + frame


def _head(entry_key: bytes, data: bytes | memoryview, start: int) -> bytes:
    """Return as much of the frame from `start` on as tells an envelope's lease."""
    if entry_key[0] == HASHED:
        start += _LENGTH.size + int.from_bytes(data[start : start + _LENGTH.size], "big")
    return bytes(data[start : start + LEASED_BYTES])


def is_conditional(entry_key: bytes, data: bytes | memoryview, start: int = HEADER.size) -> bool:
    """Tell whether an entry's value is an envelope, by its record or by the part from `start` on."""
    return is_packed(_head(entry_key, data, start))


def is_being_computed(entry_key: bytes, record: bytes, now: float) -> bool:
    """Tell whether a caller computes the entry's value."""
    return is_leased(_head(entry_key, record, HEADER.size), now)


def _records(transaction: Any, start: bytes) -> Iterator[tuple[bytes, bytes]]:
    cursor = transaction.cursor()
    if cursor.set_range(start):
        yield from takewhile(lambda record: record[0].startswith(start), cursor)


def _name(entry_key: bytes, record: bytes) -> str:
    return split_name(record[HEADER.size :])[0] if entry_key[0] == HASHED else _decode(entry_key[1:])


def live_keys(transaction: Any, start: str, now: float) -> Iterator[str]:
    """Yield the storage keys of live entries that begin with `start`; those of envelopes are Conditional."""
    first = b"e" + start.encode("utf-8", "surrogatepass")
    for entry_key, record in chain(_records(transaction, first), _records(transaction, b"h")):
        if read_header(record)[0] > now and (name := _name(entry_key, record)).startswith(start):
            yield Conditional(name) if is_conditional(entry_key, record) else name


def owned(transaction: Any, key_space: KeySpace) -> list[str]:
    """Return the storage keys of a cache's entries and tags, but for hashed tags, which expire by themselves."""
    names = (_name(*record) for letter in (b"e", b"h", b"t") for record in _records(transaction, letter))
    return [name for name in names if key_space.owns(name)]


def are_all_owned(transaction: Any, key_space: KeySpace) -> bool:
    """Tell whether all entries and tags are one cache's own; as a rule by a look at each version of its keys."""
    cursor = transaction.cursor()
    for letter, prefix in ((b"e", ""), (b"t", TAG_PREFIX)):
        found = cursor.set_range(letter)
        while found and cursor.key().startswith(letter):
            name = _decode(cursor.key()[1:])
            if not key_space.owns(name):
                return False
            family = key_space.family(name.removeprefix(prefix))
            if family is None:
                found = cursor.next()
            else:  # no byte of a key in UTF-8 is as high
                found = cursor.set_range(letter + f"{prefix}{family}".encode("utf-8", "surrogatepass") + b"\xff")
    return all(key_space.owns(_name(*record)) for record in _records(transaction, b"h"))


def locks(transaction: Any) -> list[tuple[bytes, bytes]]:
    """Return the keys and records of all locks."""
    return list(_records(transaction, b"l"))
