"""Keys and records of a file cache's tree: how an entry is written, and read.

One LMDB tree holds everything, so that a commit touches few pages. Its keys begin with
a letter:

==========================  ===================  =====================================
key                         value                meaning
==========================  ===================  =====================================
``a`` + entry's key         frame                the frame of an entry that is large: it lies aside
``c``                       seven numbers        counters of all processes: see counts.py
``e`` + storage key         header, frame        an entry
``h`` + hash                header, key, frame   an entry whose storage key is too long
``k`` + slot                entry's key          a key too long for its slot: see slots.py
``l`` + key or hash         header, frame        a lock: not counted, never evicted
``t`` + key or hash         header, frame        the version of a tag: counted and bounded apart
==========================  ===================  =====================================

Where a frame lies aside, the entry's record has a byte in its place that no codec reads, and the beginning of the
frame, so that all but its value can be told, and changed, without it.
"""

from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import chain, takewhile
from struct import Struct
from typing import Any, Final

from storeroom.keys import LOCK_PREFIX, TAG_PREFIX, KeySpace
from storeroom.storage.envelope import LEASED_BYTES, MAY_BEGIN, is_leased, is_packed
from storeroom.storage.hooks import Conditional

__all__ = [
    "APART", "ASIDE", "ELSEWHERE", "ENTRY_LETTERS", "HASHED", "HEADER", "LOCK", "LONGEST_FRAME", "TAG", "are_all_owned",
    "bytes_aside", "entry_key_of", "entry_size", "fold", "frame_of", "frame_size", "is_all_under", "is_being_computed",
    "is_conditional", "join_name", "live_keys", "locks", "name_of", "own_frame", "owned", "read_header",
]  # fmt: skip

HEADER: Final = Struct(">dQI")
"""Before each entry's frame: expires_at, the size of a frame that lies aside, else 0, and the entry's slot."""

_TIME_AND_SLOT: Final = Struct(">d8xI")

LONGEST_FRAME: Final = 2**18
"""Bytes of a frame that follows its header: to find a larger one in a record of its own costs a tenth of its copy."""

LARGEST_FRAME: Final = 2**32
"""LMDB's limit. More in a header is the time that stood there once."""

ASIDE: Final = b"a"
"""The first letter, so that no walk over entries comes upon large frames."""

ELSEWHERE: Final = b"\x1b"
"""In place of a frame that lies aside: see serializers.frames."""

_DOUBTFUL: Final = MAY_BEGIN | {ELSEWHERE[0]}
"""First bytes of frames that have to be looked at further."""

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
    return _TIME_AND_SLOT.unpack_from(record) if len(record) >= HEADER.size else (0.0, 0)


def bytes_aside(record: bytes | memoryview) -> int:
    """Return the size of the frame that lies aside; 0 for an entry whose frame follows its header."""
    size = HEADER.unpack_from(record)[1] if len(record) >= HEADER.size else 0
    return size if size < LARGEST_FRAME else 0


def frame_size(record: bytes | memoryview) -> int:
    """Return the size of a record's frame, wherever that lies."""
    return bytes_aside(record) or len(record) - HEADER.size


def fold(entry_key: bytes, frame: bytes) -> bytes:
    """Return what follows an entry's header in place of a frame that lies aside."""
    start = _start(entry_key, frame, 0)
    return frame[:start] + ELSEWHERE + frame[start : start + LEASED_BYTES]


def frame_of(transaction: Any, entry_key: bytes) -> bytes:
    """Return what follows an entry's header, or would if it did not lie aside; b"" if it is damaged.

    Raises:
        KeyError: the entry is not there.
    """
    if (record := transaction.get(entry_key)) is None:
        raise KeyError(entry_key)
    if not (size := bytes_aside(record)):
        return bytes(record[HEADER.size :])
    frame: bytes = transaction.get(ASIDE + entry_key, b"")
    return frame if len(frame) == size else b""


def own_frame(storage_key: str, entry_key: bytes, record: bytes, frame_of: Callable[[bytes], bytes]) -> bytes:
    """Return the frame of a record, or b"" if it is another key's; `frame_of` reads one that lies aside."""
    frame = frame_of(entry_key) if bytes_aside(record) else record[HEADER.size :]
    if entry_key[0] != HASHED:
        return frame
    name, frame = _split_name(frame)
    return frame if name == storage_key else b""


def _split_name(frame: bytes) -> tuple[str, bytes]:
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


def _start(entry_key: bytes, data: bytes | memoryview, start: int) -> int:
    """Return where the frame begins, behind the storage key that there may be."""
    if entry_key[0] == HASHED:
        start += _LENGTH.size + int.from_bytes(data[start : start + _LENGTH.size], "big")
    return start


def _head(entry_key: bytes, data: bytes | memoryview, start: int) -> bytes:
    """Return as much of the frame from `start` on as tells an envelope's lease."""
    start = _start(entry_key, data, start)
    return bytes(data[start : start + 1 + LEASED_BYTES]).removeprefix(ELSEWHERE)


def is_conditional(entry_key: bytes, data: bytes | memoryview, start: int = HEADER.size) -> bool:
    """Tell whether an entry's value is an envelope, by its record or by the part from `start` on."""
    if entry_key[0] != HASHED and len(data) > start and data[start] not in _DOUBTFUL:
        return False  # the case of most writes
    return is_packed(_head(entry_key, data, start))


def is_being_computed(entry_key: bytes, record: bytes, now: float) -> bool:
    """Tell whether a caller computes the entry's value."""
    return is_leased(_head(entry_key, record, HEADER.size), now)


def _records(transaction: Any, start: bytes) -> Iterator[tuple[bytes, bytes]]:
    cursor = transaction.cursor()
    if cursor.set_range(start):
        yield from takewhile(lambda record: record[0].startswith(start), cursor)


def name_of(entry_key: bytes, record: bytes | memoryview) -> str:
    """Return the storage key of an entry."""
    return _split_name(bytes(record[HEADER.size :]))[0] if entry_key[0] == HASHED else _decode(entry_key[1:])


def live_keys(transaction: Any, start: str, now: float) -> Iterator[str]:
    """Yield the storage keys of live entries that begin with `start`; those of envelopes are Conditional."""
    first = b"e" + start.encode("utf-8", "surrogatepass")
    for entry_key, record in chain(_records(transaction, first), _records(transaction, b"h")):
        if read_header(record)[0] > now and (name := name_of(entry_key, record)).startswith(start):
            yield Conditional(name) if is_conditional(entry_key, record) else name


def owned(transaction: Any, key_space: KeySpace) -> list[str]:
    """Return the storage keys of a cache's entries and tags, but for hashed tags, which expire by themselves."""
    names = (name_of(*record) for letter in (b"e", b"h", b"t") for record in _records(transaction, letter))
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
    return all(key_space.owns(name_of(*record)) for record in _records(transaction, b"h"))


def is_all_under(transaction: Any, start: str) -> bool:
    """Tell whether the storage keys of all entries begin with `start`: as a rule by the first and the last of them."""
    cursor, first = transaction.cursor(), b"e" + start.encode("utf-8", "surrogatepass")
    if not (cursor.set_range(b"e") and cursor.key().startswith(first)):
        return False
    is_last = cursor.prev() if cursor.set_range(b"f") else cursor.last()
    return (
        is_last
        and cursor.key().startswith(first)
        and all(name_of(*record).startswith(start) for record in _records(transaction, b"h"))
    )


def locks(transaction: Any) -> list[tuple[bytes, bytes]]:
    """Return the keys and records of all locks."""
    return list(_records(transaction, b"l"))
