"""Keys and records of a file cache's tree: how an entry is written, and read.

One LMDB tree holds everything, so that a commit touches few pages. Its keys begin with
a letter:

==========================  ===================  =====================================
key                         value                meaning
==========================  ===================  =====================================
``a``, ``b``                                     frames of entries that are large: they lie aside (pieces.py)
``c``                       eight numbers        counters of all processes: see counts.py
``c2``                      JSON                 further ones
``d`` + cache's hash        header               a cache whose clear() is under way, and until when that counts
``e`` + storage key         header, frame        an entry
``h`` + hash                header, key, frame   an entry whose storage key is too long
``k`` + slot                entry's key          a key too long for its slot: see slots.py
``l`` + key or hash         header, frame        a lock, or a session: not counted, never evicted
``t`` + key or hash         header, frame        the version of a tag: counted and bounded apart
==========================  ===================  =====================================

Where a frame lies aside, the entry's record has a byte in its place that no codec reads, and the beginning of the
frame, so that all but its value, its tags among it, can be told without it.
"""

import struct
from _blake2 import blake2b  # the C module alone
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice, takewhile
from struct import Struct
from typing import Any, Final

import lmdb

from storeroom import storage
from storeroom.exceptions import StorageError
from storeroom.keys import LOCK_PREFIX, TAG_PREFIX, KeySpace
from storeroom.serializers.frames import TEXT
from storeroom.serializers.parts import WHOLE
from storeroom.storage import envelope
from storeroom.storage.envelope import LEASED_BYTES, MAY_BEGIN, Envelope, is_leased, is_packed, pack, terms_of
from storeroom.storage.hooks import Conditional

__all__ = [
    "APART", "ASIDE", "DOUBTFUL", "ELSEWHERE", "ENTRY_LETTERS", "HASHED", "HAS_TO_BE_SEEN", "HEADER", "LOCK",
    "LONGEST_FRAME", "LONGEST_KEY", "TAG", "are_all_owned", "bytes_aside", "clearing_key", "entry_key_of",
    "entry_keys_of", "entry_size", "envelope_of", "first_of", "fold", "frame_head", "frame_size", "halves",
    "is_all_under", "is_aside", "is_being_computed", "is_conditional", "is_over", "join_name", "live_keys", "load",
    "locks", "name_of", "own_frame", "own_parts", "owned_from", "read_header", "renewed", "start_of_live", "stored",
    "with_terms",
]  # fmt: skip

HEADER: Final = Struct(">dQI")
"""Before each entry's frame: expires_at, the size of a frame that lies aside, else 0, and the entry's slot."""

_TIME_AND_SLOT: Final = Struct(">d8xI")

first_of: Final = Struct(">d8xIB").unpack_from
"""Returns what a read needs of a record: expires_at, the slot, and the first byte of the frame."""

LONGEST_FRAME: Final = 2**18
"""Bytes of a frame that follows its header: to find a larger one in a record of its own costs a tenth of its copy."""

LARGEST_FRAME: Final = 2**32
"""LMDB's limit. More in a header is the time that stood there once."""

ASIDE: Final = b"a"
"""The first letter, so that no walk over entries comes upon large frames."""

ELSEWHERE: Final = b"\x1b"
"""In place of a frame that lies aside: see serializers.frames."""

_RENEWED: Final = b"\x1c"
"""Before the terms that an envelope has by now, and its frame with those that it was signed with. Never stored."""

DOUBTFUL: Final = MAY_BEGIN | {ELSEWHERE[0]}
"""First bytes of frames that have to be looked at further."""

HAS_TO_BE_SEEN: Final = bytes(byte in {*DOUBTFUL, ord("h")} for byte in range(256))
"""For each first byte of a frame or a key, whether entries may not be overwritten where they are without a look."""

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

_TAG_START: Final = TAG_PREFIX.encode()
_terms_of: Final = envelope.TERMS.unpack_from
_version_of: Final = envelope.TAG.unpack_from
_written_of: Final = Struct(">d12x18s").unpack_from  # of a tag's version: its expiry, and itself as a text

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


def entry_keys_of(storage_keys: Sequence[str]) -> list[bytes]:
    """Return the key of each, as entry_key_of() does: all at once, unless one of them is long or odd."""
    names = storage.batches.encoded("e", storage_keys, LONGEST_KEY, True)
    return list(map(entry_key_of, storage_keys)) if names is None else names


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


def is_aside(entry_key: bytes, size: int) -> bool:
    """Tell whether a frame of so many bytes lies aside."""
    return LONGEST_FRAME < size < LARGEST_FRAME and entry_key[0] not in APART


def frame_size(record: bytes | memoryview) -> int:
    """Return the size of a record's frame, wherever that lies."""
    return bytes_aside(record) or len(record) - HEADER.size


def fold(entry_key: bytes, frame: bytes) -> bytes:
    """Return what follows an entry's header in place of a frame that lies aside: all of an envelope but its value."""
    start = _start(entry_key, frame, 0)
    terms_at = start + _signature_bytes(frame, start)
    terms = terms_of(memoryview(frame)[terms_at:])
    length = terms_at - start + terms[1] if terms is not None and terms[1] <= LONGEST_FRAME else LEASED_BYTES
    return frame[:start] + ELSEWHERE + frame[start : start + max(length, LEASED_BYTES)]


def envelope_of(entry_key: bytes, record: bytes | memoryview) -> Envelope | None:
    """Return a record's envelope without its value, or None if that has to be read to know.

    No signature is verified: the time of an entry without conditions is not signed either.
    """
    start = _start(entry_key, record, HEADER.size)
    start += record[start : start + 1] == ELSEWHERE
    start += _signature_bytes(record, start)
    terms = terms_of(memoryview(record)[start:])
    return None if terms is None else terms[0]


def start_of_live(record: bytes, now: float, begin: Callable[[], Any]) -> int:
    """Return how much to cut from the record of an unsigned envelope, for that of its value, if it is live; else 0.

    Its tags are read in one transaction. Where one has a long name, or a byte is damaged, it is as if it were not live.
    """
    try:
        _, fresh_until, grace, cost, leased_until, count = _terms_of(record, HEADER.size + 1)
        is_live = fresh_until > now and grace >= 0 and cost >= 0 and leased_until >= 0
        get, end = begin().get, HEADER.size + 1 + envelope.TERMS.size
        for _ in range(count):
            version, length = _version_of(record, end)
            end += envelope.TAG.size + length
            name = record[end - length : end]
            expires_at, text = _written_of(get(b"t" + name, b""))
            is_live &= expires_at > now and text == b"%b%016x " % (TEXT, version) and name.startswith(_TAG_START)
        return end - HEADER.size if is_live and record[end] not in DOUBTFUL else 0
    except (IndexError, struct.error, StorageError, lmdb.Error):
        return 0


def renewed(entry_key: bytes, record: bytes, envelope: Envelope) -> bytes:
    """Return a record whose frame lies aside, with these terms of its envelope, which take as much room as its own."""
    start = _start(entry_key, record, HEADER.size) + len(ELSEWHERE)
    return record[: start + _signature_bytes(record, start)] + pack(envelope, b"")


def _signature_bytes(data: bytes | memoryview, start: int) -> int:
    """Return the length of the signature that a frame begins with; 0 if it is not signed."""
    return envelope.KIND_BYTES - 1 if data[start : start + 1] == envelope.SIGNED else 0


def with_terms(entry_key: bytes, record: bytes | memoryview, head: bytes) -> bytes:
    """Return the beginning of a frame that lies aside, with the envelope's terms as the record has them now."""
    start = _start(entry_key, head, 0)
    terms = record[HEADER.size + start + len(ELSEWHERE) :]
    length = min(len(terms), len(head) - start)
    if head[start : start + length] == terms[:length]:
        return head
    if signature := _signature_bytes(head, start):  # made with the terms of then
        return b"".join((head[:start], _RENEWED, terms[signature:], head[start:]))
    return b"".join((head[:start], terms, head[start + len(terms) :]))


def halves(entry_key: bytes, frame: bytes | memoryview) -> list[bytes | memoryview]:
    """Return a frame in parts, for a codec's loads_parts(): the beginning, and a value that is one object.

    Any other frame is one part.
    """
    start = _start(entry_key, frame, 0)
    start += _signature_bytes(frame, start)
    terms = terms_of(memoryview(frame)[start:])
    end = start + (0 if terms is None else terms[1]) + 1
    return [frame[:end], memoryview(frame)[end:]] if frame[end - 1 : end] and frame[end - 1] in WHOLE else [frame]


def load(loads: Callable[[bytes, str], Any], frame: bytes, storage_key: str) -> Any:
    """Return the value of a frame, by a codec; an envelope has the terms that a touch has given it since."""
    terms = terms_of(memoryview(frame)[1:]) if frame[:1] == _RENEWED else None
    if terms is None:
        return loads(frame, storage_key)
    now, value = terms[0], loads(frame[1 + terms[1] :], storage_key)
    if type(value) is Envelope:
        value = Envelope(value.value, now.fresh_until, now.grace, value.cost, value.tags, now.leased_until, now.stamp)
    return value


def stored(frame: bytes) -> bytes:
    """Return the frame as it was stored, without the terms that a touch has given it since."""
    terms = terms_of(memoryview(frame)[1:]) if frame[:1] == _RENEWED else None
    return frame if terms is None else frame[1 + terms[1] :]


def own_frame(storage_key: str, entry_key: bytes, record: bytes, frame_of: Callable[[bytes], bytes]) -> bytes:
    """Return the frame of a record, or b"" if it is another key's; `frame_of` reads one that lies aside."""
    frame = frame_of(entry_key) if bytes_aside(record) else record[HEADER.size :]
    if entry_key[0] != HASHED:
        return frame
    name, frame = _split_name(frame)
    return frame if name == storage_key else b""


def own_parts(storage_key: str, entry_key: bytes, parts: Sequence[Any]) -> tuple[bytes, Sequence[Any]]:
    """Return the first of a frame's parts, without the storage key, and the others; b"" and none if it is another's."""
    head, *more = parts
    if entry_key[0] != HASHED:
        return head, more
    name, head = _split_name(head)
    return (head, more) if name == storage_key else (b"", ())


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


def frame_head(entry_key: bytes, data: bytes | memoryview, start: int = HEADER.size) -> bytes:
    """Return as much of the frame from `start` on as tells an envelope's lease."""
    start = _start(entry_key, data, start)
    return bytes(data[start : start + 1 + LEASED_BYTES]).removeprefix(ELSEWHERE)


def is_conditional(entry_key: bytes, data: bytes | memoryview, start: int = HEADER.size) -> bool:
    """Tell whether an entry's value is an envelope, by its record or by the part from `start` on."""
    if entry_key[0] != HASHED and len(data) > start and data[start] not in DOUBTFUL:
        return False  # the case of most writes
    return is_packed(frame_head(entry_key, data, start))


def is_being_computed(entry_key: bytes, record: bytes, now: float) -> bool:
    """Tell whether a caller computes the entry's value."""
    return is_leased(frame_head(entry_key, record), now)


def is_over(entry_key: bytes, record: bytes | memoryview, now: float) -> bool:
    """Tell whether a live record's value counts as absent: see envelope.is_over()."""
    return is_conditional(entry_key, record) and envelope.is_over(frame_head(entry_key, record), now)


def _records(transaction: Any, start: bytes, position: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    """Yield the records whose keys begin with `start`, from a position on."""
    cursor = transaction.cursor()
    if cursor.set_range(max(start, position)):
        yield from takewhile(lambda record: record[0].startswith(start), cursor)


def name_of(entry_key: bytes, record: bytes | memoryview) -> str:
    """Return the storage key of an entry."""
    return _split_name(bytes(record[HEADER.size :]))[0] if entry_key[0] == HASHED else _decode(entry_key[1:])


def live_keys(transaction: Any, start: str, now: float, position: bytes, limit: int) -> tuple[list[str], bytes]:
    """Return the storage keys of live entries that begin with `start`; those of envelopes are Conditional.

    They are those of the next `limit` records. Also return the position to go on from; b"" at the end.
    """
    first, found = b"e" + start.encode("utf-8", "surrogatepass"), list[str]()
    for entry_key, record in chain(_records(transaction, first, position), _records(transaction, b"h", position)):
        if not limit:
            return found, entry_key
        limit -= 1
        if read_header(record)[0] > now and (name := name_of(entry_key, record)).startswith(start):
            found.append(Conditional(name) if is_conditional(entry_key, record) else name)
    return found, b""


def owned_from(transaction: Any, key_space: KeySpace, position: bytes, limit: int) -> tuple[list[bytes], bytes]:
    """Return the keys of a cache's own entries and tags among the next `limit` records, but for hashed tags.

    And the position to go on from; b"" at the end.
    """
    cursor, found = transaction.cursor(), list[bytes]()
    start = key_space.start().encode("utf-8", "surrogatepass")
    for first in (b"e" + start, b"h", b"t" + TAG_PREFIX.encode() + start):
        is_there = cursor.set_range(max(first, position))
        while is_there and (key := bytes(cursor.key())).startswith(first):
            if not limit:
                return found, key
            limit -= 1
            if key_space.owns(name_of(key, cursor.value() if key[0] == HASHED else b"")):
                found.append(key)
            is_there = cursor.next()
    return found, b""


def clearing_key(key_space: KeySpace) -> bytes:
    """Return the key of the notice that a clear() of this cache is under way."""
    return b"d" + blake2b(key_space.head("").encode("utf-8", "surrogatepass"), digest_size=16).digest()


def are_all_owned(transaction: Any, key_space: KeySpace, limit: int) -> bool:
    """Tell whether all entries and tags are one cache's own, as a rule by a look at each version of its keys.

    False, too, where more than `limit` would have to be looked at.
    """
    cursor = transaction.cursor()
    for letter, prefix in ((b"e", ""), (b"t", TAG_PREFIX)):
        found = cursor.set_range(letter)
        while found and cursor.key().startswith(letter):
            name, limit = _decode(cursor.key()[1:]), limit - 1
            if limit < 0 or not key_space.owns(name):
                return False
            family = key_space.family(name.removeprefix(prefix))
            if family is None:
                found = cursor.next()
            else:  # no byte of a key in UTF-8 is as high
                found = cursor.set_range(letter + f"{prefix}{family}".encode("utf-8", "surrogatepass") + b"\xff")
    hashed = list(islice(_records(transaction, b"h"), limit + 1))
    return len(hashed) <= limit and all(key_space.owns(name_of(*record)) for record in hashed)


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


def locks(transaction: Any, limit: int) -> list[tuple[bytes, bytes]]:
    """Return the keys and records of locks, Django's sessions among them: the first `limit` of them."""
    return list(islice(_records(transaction, b"l"), limit))
