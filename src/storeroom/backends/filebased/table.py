"""The entries of a file cache, as one write transaction sees them: put, remove, expire, evict.

One LMDB tree holds everything, so that a commit touches few pages. Its keys begin with
a letter:

==========================  ===================  =====================================
key                         value                what
==========================  ===================  =====================================
``c``                       seven numbers        counters of all processes: see counts.py
``e`` + storage key         header, frame        an entry
``h`` + hash                header, key, frame   an entry whose storage key is too long
``l`` + key or hash         header, frame        a lock: not counted, never evicted
``m``                       four numbers         how much there is: see Table
``x`` + time + entry's key  slot                 the index by expiry
==========================  ===================  =====================================

The index is lazy: an entry that is overwritten with a later expiry keeps its position in
it and is moved when that position comes due, so overwriting touches the entry alone.

Eviction is CLOCK: a hand sweeps the index; an entry that was read since the hand's last
visit gets a second chance, the first that was not goes. A read only sets a byte in
shared memory, so recency is known across processes and a read never writes to the file.
Source: F. J. Corbato, "A Paging Experiment with the Multics System" (1968).
"""

import math
from collections.abc import Callable, Iterator
from hashlib import blake2b
from struct import Struct
from typing import Any, Final, TypeAlias

from storeroom.backends.filebased.counts import COUNTS_KEY
from storeroom.backends.filebased.environment import Environment
from storeroom.backends.filebased.files import SLOTS
from storeroom.keys import LOCK_PREFIX
from storeroom.storage.envelope import LEASED_BYTES, is_leased, is_packed
from storeroom.storage.hooks import Conditional

__all__ = [
    "HASHED", "HEADER", "Bounds", "Table", "check", "entry_key_of", "entry_size", "is_conditional", "join_name",
    "overwrite", "read_header", "read_meta", "split_name", "stored_keys",
]  # fmt: skip

Bounds: TypeAlias = tuple[int | None, int | None, int | None]
"""max_entries, max_bytes and cull_frequency, as an alias's OPTIONS say."""

HEADER: Final = Struct(">ddI")
"""Before each entry's frame: expires_at, the time of its position in the index, its recency slot."""

_EXPIRED: Final = (0.0, 0.0, 0)

LONGEST_KEY: Final = 500
"""Bytes of a storage key that is stored as it is. LMDB's limit is 511, and the index adds eleven."""

HASHED: Final = ord("h")
"""First byte of the key of an entry whose storage key is too long."""

_LOCK: Final = ord("l")

_META: Final = Struct(">QQQd")
_EMPTY: Final = (0, 0, 0, math.inf)
_TIME: Final = Struct(">d")
_SLOT: Final = Struct(">I")
_LENGTH: Final = Struct(">I")

_META_KEY: Final = b"m"
_INDEX: Final = b"x"

_ENTRY_BYTES: Final = HEADER.size + _TIME.size + 1 + _SLOT.size + 2 * 10
"""What an entry takes beside twice its key and once its frame: header, index, LMDB's node and pointer twice."""

_PER_WRITE: Final = 8
"""Expired entries removed by each write beyond what room needs: more than one, so that a backlog
shrinks; few, so that no write pays for many."""

_PATIENCE: Final = 128
"""Entries that the hand spares before it takes the next one all the same: bounds a write's time."""

_SPARED: Final = 1000
"""Entries that the evictions of one transaction pass over because they are being computed, likewise."""


def read_meta(transaction: Any) -> tuple[int, int, int, float]:
    """Return entries, bytes, next slot and earliest expiry."""
    record = transaction.get(_META_KEY)
    return _META.unpack(record) if record else _EMPTY


def entry_key_of(storage_key: str) -> bytes:
    """Return the key under which the entry of a storage key lies in the tree."""
    try:
        name = storage_key.encode()
    except UnicodeEncodeError:
        name = storage_key.encode("utf-8", "surrogatepass")
    if storage_key.startswith(LOCK_PREFIX):
        return b"l" + (name if len(name) <= LONGEST_KEY else blake2b(name, digest_size=32).digest())
    if len(name) <= LONGEST_KEY:
        return b"e" + name
    return b"h" + blake2b(name, digest_size=32).digest()


def _is_lock(entry_key: bytes) -> bool:
    return entry_key[0] == _LOCK


def read_header(record: bytes) -> tuple[float, float, int]:
    """Return expires_at, indexed_at and slot; of a damaged record, those of an expired entry."""
    return HEADER.unpack_from(record) if len(record) >= HEADER.size else _EXPIRED


def split_name(frame: bytes) -> tuple[str, bytes]:
    """Return storage key and frame of what follows the header where the storage key is hashed."""
    end = _LENGTH.size + int.from_bytes(frame[: _LENGTH.size], "big")
    return _decode(frame[_LENGTH.size : end]), frame[end:]


def _decode(name: bytes) -> str:
    # A damaged name is nobody's: the character in place of a bad byte makes it match no key.
    try:
        return name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return name.decode("utf-8", "replace")


def join_name(storage_key: str, frame: bytes) -> bytes:
    """Return what follows the header where the storage key is hashed."""
    name = storage_key.encode("utf-8", "surrogatepass")
    return _LENGTH.pack(len(name)) + name + frame


def _frame_of(entry_key: bytes, record: bytes) -> bytes:
    """Return the frame of a record, or as much of it as tells an envelope's lease."""
    start = HEADER.size
    if entry_key[0] == HASHED:
        start += _LENGTH.size + int.from_bytes(record[start : start + _LENGTH.size], "big")
    return record[start : start + LEASED_BYTES]


def is_conditional(entry_key: bytes, record: bytes) -> bool:
    """Tell whether an entry's value is an envelope."""
    return is_packed(_frame_of(entry_key, record))


def stored_keys(transaction: Any, start: str = "") -> Iterator[tuple[str, float]]:
    """Yield storage key and expires_at of every entry whose storage key begins with `start`.

    The storage keys of envelopes are Conditional.
    """
    cursor = transaction.cursor()
    first = b"e" + start.encode("utf-8", "surrogatepass")
    found = cursor.set_range(first)
    while found and cursor.key().startswith(first):
        record = cursor.value()
        name = _decode(cursor.key()[1:])
        yield (Conditional(name) if is_conditional(first, record) else name), read_header(record)[0]
        found = cursor.next()
    found = cursor.set_range(b"h")
    while found and cursor.key().startswith(b"h"):
        record = cursor.value()
        name, _ = split_name(record[HEADER.size :])
        if name.startswith(start):
            yield (Conditional(name) if is_conditional(b"h", record) else name), read_header(record)[0]
        found = cursor.next()


def _index_key(expires_at: float, entry_key: bytes) -> bytes:
    # Positive floats sort by their bytes as by their value, infinity last.
    return _INDEX + _TIME.pack(expires_at) + entry_key


def entry_size(entry_key: bytes, frame_size: int) -> int:
    """Return the bytes that an entry takes."""
    return 2 * len(entry_key) + frame_size + _ENTRY_BYTES


def overwrite(transaction: Any, entry_key: bytes, frame: bytes, expires_at: float) -> bool:
    """Overwrite an entry where nothing else changes: its size stays, and it expires no earlier than its position says.

    Return False, having done nothing, where a Table is needed.
    """
    old = transaction.get(entry_key)
    if old is None or len(old) != HEADER.size + len(frame):
        return False
    _, indexed_at, slot = HEADER.unpack_from(old)
    if expires_at < indexed_at:
        return False
    transaction.put(entry_key, HEADER.pack(expires_at, indexed_at, slot) + frame)
    return True


class Table:
    """The entries under a write transaction, with its bookkeeping; `save()` before the commit.

    Attributes:
        entries: how many there are, expired ones not yet removed included.
        size: bytes that they take, index and headers included.
        expired: how many expired entries this transaction has removed.
        now: epoch seconds; the same for the whole transaction.
    """

    __slots__ = (
        "_environment",
        "_meta",
        "_next_slot",
        "_spared",
        "_transaction",
        "earliest",
        "entries",
        "expired",
        "now",
        "size",
    )

    def __init__(self, environment: Environment, transaction: Any, now: float) -> None:
        """Read the bookkeeping."""
        self._environment = environment
        self._transaction = transaction
        self.now = now
        self.expired = 0
        self._spared = 0
        self._meta = meta = transaction.get(_META_KEY)
        self.entries, self.size, self._next_slot, self.earliest = _META.unpack(meta) if meta else _EMPTY
        if self.earliest <= now:
            self.expire(_PER_WRITE)

    def save(self) -> None:
        """Write the bookkeeping back."""
        meta = _META.pack(self.entries, self.size, self._next_slot, self.earliest)
        if meta != self._meta:
            self._transaction.put(_META_KEY, meta)

    def live(self, entry_key: bytes) -> bytes | None:
        """Return the entry's record, header and all, or None if it is absent or expired."""
        record: bytes | None = self._transaction.get(entry_key)
        return None if record is None or read_header(record)[0] <= self.now else record

    # Writing --------------------------------------------------------------------------------

    def put(self, entry_key: bytes, frame: bytes, expires_at: float, bounds: Bounds) -> None:
        """Insert or overwrite an entry, evicting others where the bounds ask for it.

        Args:
            entry_key: letter and storage key, or its hash.
            frame: what follows the header.
            expires_at: epoch seconds or infinity.
            bounds: max_entries, max_bytes and cull_frequency, each possibly None.
        """
        transaction = self._transaction
        old = transaction.get(entry_key)
        if bounds[1] is not None or (old is None and bounds[0] is not None and self.entries >= bounds[0]):
            self._make_room(old, entry_key, len(frame), bounds)
            old = transaction.get(entry_key)  # it may have been among the expired ones that went
        if old is None:
            slot = self._next_slot % SLOTS
            self._next_slot += 1
            self._environment.recency[slot] = 0
            indexed_at = expires_at
            transaction.put(_index_key(expires_at, entry_key), _SLOT.pack(slot))
            if entry_key[0] != _LOCK:
                self.entries += 1
                self.size += entry_size(entry_key, len(frame))
        else:
            # As read_header(): the call is a twentieth of set_many().
            _, indexed_at, slot = HEADER.unpack_from(old) if len(old) >= HEADER.size else _EXPIRED
            if expires_at < indexed_at:
                transaction.delete(_index_key(indexed_at, entry_key))
                indexed_at = expires_at
                transaction.put(_index_key(expires_at, entry_key), _SLOT.pack(slot))
            if entry_key[0] != _LOCK:
                self.size += len(frame) + HEADER.size - len(old)
        if indexed_at < self.earliest:  # noqa: PLR1730 -- a call of min() costs more than the comparison
            self.earliest = indexed_at
        transaction.put(entry_key, HEADER.pack(expires_at, indexed_at, slot) + frame)

    def remove(self, entry_key: bytes) -> bool:
        """Remove an entry; return whether it was live."""
        record = self._transaction.pop(entry_key)
        if record is None:
            return False
        expires_at, indexed_at, _ = read_header(record)
        self._transaction.delete(_index_key(indexed_at, entry_key))
        if not _is_lock(entry_key):
            self.entries -= 1
            self.size -= entry_size(entry_key, len(record) - HEADER.size)
        return bool(expires_at > self.now)

    def remove_if(self, is_doomed: Callable[[str], bool]) -> None:
        """Remove the entries whose storage key `is_doomed` says so; no locks."""
        storage_keys = [storage_key for storage_key, _ in stored_keys(self._transaction)]
        doomed = [storage_key for storage_key in storage_keys if is_doomed(storage_key)]
        cursor, locks = self._transaction.cursor(), bytes([_LOCK])
        if len(doomed) < len(storage_keys) or (cursor.set_range(locks) and cursor.key().startswith(locks)):
            for storage_key in doomed:
                self.remove(entry_key_of(storage_key))
            return
        counts = self._transaction.get(COUNTS_KEY)
        self._transaction.drop(self._environment.main_database, delete=False)
        if counts is not None:
            self._transaction.put(COUNTS_KEY, counts)
        self.entries, self.size, self.earliest, self._meta = 0, 0, math.inf, None

    # Making room ----------------------------------------------------------------------------

    def prune(self, limit: int) -> int:
        """Remove up to about `limit` expired entries; return how many went in this transaction."""
        self.expire(limit)
        return self.expired

    def expire(self, limit: float = math.inf) -> int:
        """Remove up to `limit` expired entries, the earliest first; return how many."""
        transaction, removed = self._transaction, 0
        cursor = transaction.cursor()
        while removed < limit:
            if not cursor.set_range(_INDEX):
                self.earliest = math.inf
                break
            index_key = cursor.key()
            (indexed_at,) = _TIME.unpack_from(index_key, 1)
            self.earliest = indexed_at
            if indexed_at > self.now:
                break
            entry_key = index_key[1 + _TIME.size :]
            record = transaction.get(entry_key)
            if record is not None and read_header(record)[0] > self.now:
                self._move_in_index(index_key, entry_key, record)
                continue
            self.remove(entry_key)
            transaction.delete(index_key)  # already gone, unless the entry was damaged
            removed += not _is_lock(entry_key)
        self._environment.counters.expirations += removed
        self.expired += removed
        return removed

    def _move_in_index(self, index_key: bytes, entry_key: bytes, record: bytes) -> None:
        """Put an entry, whose expiry was put off, at the position in the index where it now belongs."""
        expires_at, _, slot = read_header(record)
        self._transaction.delete(index_key)
        self._transaction.put(_index_key(expires_at, entry_key), _SLOT.pack(slot))
        self._transaction.put(entry_key, HEADER.pack(expires_at, expires_at, slot) + record[HEADER.size :])

    def _make_room(self, old: bytes | None, entry_key: bytes, frame_size: int, bounds: Bounds) -> None:
        """Evict what the bounds ask for before a put."""
        max_entries, max_bytes, cull_frequency = bounds
        if _is_lock(entry_key):
            return
        if old is None and max_entries is not None and self.entries >= max_entries:
            surplus = self.entries + 1 - max_entries
            if cull_frequency is not None:
                culled = self.entries // cull_frequency if cull_frequency else self.entries
                surplus = max(surplus, culled)
            self._evict(surplus, entry_key)
        if max_bytes is not None:
            taken = 0 if old is None else entry_size(entry_key, len(old) - HEADER.size)
            allowed = max_bytes - entry_size(entry_key, frame_size) + taken
            while self.size > allowed and self._evict(1, entry_key):
                pass

    def _evict(self, count: int, keep: bytes) -> int:
        """Remove `count` entries: expired ones first, then those that the hand finds unread."""
        removed = self.expire(count) if self.earliest <= self.now else 0
        cursor = self._transaction.cursor()
        evicted = 0
        while removed + evicted < count and self._evict_one(cursor, keep):
            evicted += 1
        self._environment.counters.evictions += evicted
        return removed + evicted

    def _evict_one(self, cursor: Any, keep: bytes) -> bool:
        environment = self._environment
        recency = environment.recency
        if not self.entries:
            return False
        if not cursor.set_range(environment.hand or _INDEX) and not cursor.set_range(_INDEX):
            return False
        for step in range(_PATIENCE + SLOTS):
            index_key = cursor.key()
            entry_key = index_key[1 + _TIME.size :]
            slot = int.from_bytes(cursor.value(), "big") % SLOTS
            if (
                entry_key != keep
                and not _is_lock(entry_key)
                and (not recency[slot] or step >= _PATIENCE)
                and not self._spares(entry_key)
            ):
                environment.hand = index_key
                self.remove(entry_key)
                self._transaction.delete(index_key)  # already gone, unless the entry was damaged
                return True
            if entry_key == keep and self.entries <= 1:
                return False
            recency[slot] = 0
            if not cursor.next():
                cursor.set_range(_INDEX)
        return False

    def _spares(self, entry_key: bytes) -> bool:
        """Tell whether somebody computes the entry's value, which another would compute, too, if it were evicted."""
        if self._spared >= _SPARED:
            return False
        record = self._transaction.get(entry_key)
        is_spared = record is not None and is_leased(_frame_of(entry_key, record), self.now)
        self._spared += is_spared
        return is_spared


def check(transaction: Any) -> None:
    """Raise AssertionError if entries, index and bookkeeping disagree: for tests."""
    entries, size, _, earliest = read_meta(transaction)
    positions, sizes, is_early = set(), [], False
    for entry_key, record in transaction.cursor():
        if entry_key[:1] in (b"e", b"h", b"l"):
            expires_at, indexed_at, _ = read_header(record)
            is_early = is_early or expires_at < indexed_at
            positions.add(_index_key(indexed_at, entry_key))
            if not _is_lock(entry_key):
                sizes.append(entry_size(entry_key, len(record) - HEADER.size))
    index = {key for key, _ in transaction.cursor() if key.startswith(_INDEX)}
    faults = {
        "an entry expires before its position in the index": is_early,
        f"{len(index ^ positions)} positions of the index have no entry, or the reverse": index != positions,
        f"{entries} entries are noted and {len(sizes)} are there": entries != len(sizes),
        f"{size} bytes are noted and {sum(sizes)} are there": size != sum(sizes),
        "an entry expires before the earliest": any(_TIME.unpack_from(key, 1)[0] < earliest for key in index),
    }
    found = [fault for fault, is_found in faults.items() if is_found]
    if found:
        raise AssertionError("; ".join(found))
