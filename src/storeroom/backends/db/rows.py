"""From an entry to the columns of its row, and back.

====================  ==================================================================
column                holds
====================  ==================================================================
``cache_key``         the storage key in UTF-8; of a long one its beginning and a hash
``value``             the frame, after the storage key where that is a long one; NULL for a plain integer
``number``            the plain integer, which the database increments; 1 beside an envelope, which no statement judges
``expires``           epoch seconds; ENDLESS for an entry that never expires
``size``              bytes of the storage key and of the frame (8 for a plain integer), and ROW_BYTES; 0 for a
                      lock or a lease, which bounds ignore
``growth``            bytes that the last write added to ``size``: all of them for a new entry
``sequence``          microseconds when the entry was last used; the lowest are evicted. Of a lock or a lease
                      2^62 more, and of the counts 2^62
====================  ==================================================================

One row is no entry: COUNTS_NAME holds the number of entries in ``number`` and their bytes
in ``growth``, so that no write has to count; and in ``value`` the time until which a clear()
runs, at most. To empty the table by hand empties the counts with it.
"""

from collections.abc import Collection
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from storeroom import storage
from storeroom.exceptions import ValueTooLargeError
from storeroom.keys import LOCK_PREFIX, TAG_PREFIX
from storeroom.serializers.frames import is_plain_integer
from storeroom.storage import envelope
from storeroom.storage.envelope import is_leased, is_packed
from storeroom.timeouts import NEVER

__all__ = [
    "COUNTS_NAME", "ENDLESS", "KEY_BYTES", "ROW_BYTES", "TAG_NAMES", "Row", "frame_of", "from_column", "head_of",
    "is_hashed", "is_over", "make_row", "name_of", "names_of", "storage_key_of", "value_bytes",
]  # fmt: skip

COUNTS_NAME: Final = b"\x00counts"

TAG_NAMES: Final = (TAG_PREFIX.encode(), TAG_PREFIX[:-1].encode() + b"\x01")
"""The names of tags' versions come from the first on, and before the second."""

KEY_BYTES: Final = 480
"""Length of ``cache_key``. MySQL indexes 767 bytes with its oldest row format, others more."""

_HASH_BYTES: Final = 16
_HEAD_BYTES: Final = KEY_BYTES - 2 * _HASH_BYTES - 1

ENDLESS: Final = 1e15
"""``expires`` of an entry without a timeout: 30 million years, as not every database has an infinity."""

ROW_BYTES: Final = 120
"""Bytes of a row beside its key and value: columns, three indexes, headers."""

_NUMBER_BYTES: Final = 8
_LENGTH_BYTES: Final = 4
_ENVELOPE: Final = 1


_ORDINARY: Final = frozenset(range(0x20)) - envelope.MAY_BEGIN
"""First bytes of frames that are neither plain integers, nor perhaps envelopes."""


class Row(NamedTuple):
    """An entry's columns, but for its expiry and its position in the sequence."""

    name: bytes
    value: bytes | None
    number: int | None
    size: int


def name_of(storage_key: str) -> bytes:
    """Return the ``cache_key`` of a storage key."""
    try:
        name = storage_key.encode()
    except UnicodeEncodeError:
        name = storage_key.encode("utf-8", "surrogatepass")
    if len(name) < KEY_BYTES:
        return name
    # Hashed names alone are exactly as long as the column.
    return name[:_HEAD_BYTES] + b"#" + blake2b(name, digest_size=_HASH_BYTES).hexdigest().encode()


def names_of(storage_keys: Collection[str]) -> list[bytes]:
    """Return the ``cache_key`` of each of some storage keys."""
    names = storage.batches.encoded("", storage_keys, KEY_BYTES - 1, True)
    return list(map(name_of, storage_keys)) if names is None else names


def is_hashed(name: bytes) -> bool:
    """Tell whether the storage key stands before the frame."""
    return len(name) == KEY_BYTES


LONGEST: Final = 10**9 - 2**20
"""Bytes of a value: SQLite's limit is a billion for a row, those of the others are a little larger."""


def make_row(storage_key: str, frame: bytes) -> Row:
    """Return the row of an entry; raise ValueTooLargeError for one that no database's column holds."""
    if len(frame) > LONGEST:
        raise ValueTooLargeError(
            f"The value of key {storage_key!r} takes {len(frame)} bytes; a database's column holds {LONGEST} at most."
        )
    name = name_of(storage_key)
    if frame[0] in _ORDINARY and name[:1] != b"\x00" and len(name) < KEY_BYTES:
        return Row(name, frame, None, len(name) + len(frame) + ROW_BYTES)
    return _special_row(storage_key, name, frame)


def _special_row(storage_key: str, name: bytes, frame: bytes) -> Row:
    """Do as make_row() for any key and frame."""
    value, number, key_bytes = frame, _ENVELOPE if is_packed(frame) else None, len(name)
    if is_hashed(name):
        key = storage_key.encode("utf-8", "surrogatepass")
        key_bytes, value = len(key), len(key).to_bytes(_LENGTH_BYTES, "big") + key + frame
    elif is_plain_integer(frame):
        is_free = storage_key.startswith(LOCK_PREFIX)
        return Row(name, None, int(frame), 0 if is_free else key_bytes + _NUMBER_BYTES + ROW_BYTES)
    # To evict a lock or a lease would let another hold it, or compute, too; a tag's version must not evict an entry.
    is_free = storage_key.startswith((LOCK_PREFIX, TAG_PREFIX)) or (number is not None and is_leased(frame, 0.0))
    return Row(name, value, number, 0 if is_free else key_bytes + len(frame) + ROW_BYTES)


def frame_of(storage_key: str, name: bytes, value: Any) -> bytes:
    """Return the frame in ``value``; no bytes, which no codec can read, where it is another storage key's."""
    frame = bytes(value)
    if not is_hashed(name):
        return frame
    found, frame = _split(frame)
    return frame if found == storage_key else b""


def value_bytes(row: Row | None) -> int:
    """Return the length of a row's value; 0 for an integer, and for no row."""
    return 0 if row is None or row.value is None else len(row.value)


def is_over(name: bytes, head: Any, now: float) -> bool:
    """Tell whether an envelope, of which this is the head, counts as absent: see envelope.is_over()."""
    if head is None:
        return False
    frame = bytes(head)
    return envelope.is_over(_split(frame)[1] if is_hashed(name) else frame, now)


def storage_key_of(name: bytes, value: Any) -> str:
    """Return the storage key of a row; `value` is looked at only where the name is hashed."""
    return _split(bytes(value))[0] if is_hashed(name) and value is not None else _decoded(name)


def _split(value: bytes) -> tuple[str, bytes]:
    end = _LENGTH_BYTES + int.from_bytes(value[:_LENGTH_BYTES], "big")
    return _decoded(value[_LENGTH_BYTES:end]), value[end:]


def _decoded(name: bytes) -> str:
    # A damaged name is nobody's: the replacement of a bad byte makes it match no key.
    try:
        return name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return name.decode("utf-8", "replace")


def from_column(expires: float) -> float:
    """Return the expires_at of an ``expires``, which is the lesser of that and ENDLESS."""
    return NEVER if expires >= ENDLESS else expires


def head_of(start: str) -> bytes:
    """Return the beginning of the names of all storage keys that begin with `start`."""
    return start.encode("utf-8", "surrogatepass")[:_HEAD_BYTES]
