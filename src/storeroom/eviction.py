"""A map bounded by entries and by bytes: what local memory keeps its data in.

Hits take no lock and move nothing; everything else happens under the caller's lock. Which entry
goes when room is needed is decided by `storeroom.s3fifo`, which has expired by `storeroom.expiry`;
an expired entry always goes before a live one.

**A hit is the caller's to write**, so that it costs no call. It needs no lock::

    entry = bounded.entries.get(storage_key)
    if entry is None or entry.expires_at <= now:
        ...  # a miss
    freq = entry.freq
    if freq < 2:
        entry.freq = freq + 1
    value = entry.value
    if value is not ENCODED:
        ...  # the object itself
    encoded = entry.encoded
    if encoded is not None:
        ...  # the object's bytes
    ...  # changed while being looked at: do the same again under the lock

Why it is safe, with the GIL and without: looking up a str in a dict and reading a slot are atomic;
an entry is published after all its slots are set; an overwrite stores the bytes before the mark
`ENCODED` and the value before ``expires_at``, so no old deadline vouches for a value that was not
there, and an object is never taken for bytes nor the other way round; a removed entry is left as
`ENCODED` with no bytes. ``freq`` is read once, so two threads may lose a bump, never exceed 2.
"""

from __future__ import annotations

import math
from typing import Final

from storeroom.expiry import NOWHERE, ExpiryIndex
from storeroom.s3fifo import AdaptiveS3Fifo

ENCODED: Final = object()
"""The ``value`` of an entry whose object is kept as bytes in ``encoded``."""

_SWEEP: Final = 2
"""Expired entries removed by each write, beyond what room needs: more than one, so that a cache
that never fills gets rid of a backlog; few, so that no write pays for many."""

_DRIFT: Final = 1.25
"""How far the expected number of entries may move, as a ratio, before the policy is told."""


class Entry:
    """One cached value. Made by `BoundedMap` alone; read it as the module's description says.

    Attributes:
        key: the storage key; "" once removed.
        value: the object itself, or `ENCODED`.
        encoded: the object's bytes when value is `ENCODED`, else None.
        expires_at: absolute epoch seconds; ``math.inf`` for never.
        size: bytes accounted for, as estimated by the caller.
        freq: hits since it was last looked at, 0 to 2.
        queue: the policy's.
        indexed: the expiry index's.
    """

    # No __init__: setting the slots where an entry is made takes 0.6 of the time of a call.
    __slots__ = ("encoded", "expires_at", "freq", "indexed", "key", "queue", "size", "value")

    key: str
    value: object
    encoded: bytes | None
    expires_at: float
    size: int
    freq: int
    queue: int
    indexed: float


class BoundedMap:
    """Entries by storage key, bounded by number and by bytes.

    Atomic: nothing, apart from the hit described above; the caller holds a lock around every
    method and property.

    Args:
        max_entries: the most entries kept, None for no bound. The entry just inserted is always
            kept, so a bound below one acts as one. May be changed later; takes effect on the next
            insert.
        max_bytes: the most bytes kept, as the sum of the sizes given; None for no bound. May be
            changed later, as above.
        cull_frequency: None to evict one entry at a time. Otherwise as Django's CULL_FREQUENCY: a
            full map evicts one entry in that many at once, all of them when it is 0.

    Attributes:
        entries: dict from storage key to `Entry`, expired ones included. Read only, from outside.
        bytes_used: the sum of the sizes of all entries.
        evictions: entries removed for room since the start.
        expirations: expired entries removed since the start.
    """

    __slots__ = (
        "_index",
        "_limit",
        "_max_bytes",
        "_max_entries",
        "_policy",
        "bytes_used",
        "cull_frequency",
        "entries",
        "evictions",
        "expirations",
    )

    def __init__(
        self,
        max_entries: int | None,
        max_bytes: int | None = None,
        cull_frequency: int | None = None,
    ) -> None:
        self.entries: dict[str, Entry] = {}
        self.cull_frequency = cull_frequency
        self.bytes_used = 0
        self.evictions = 0
        self.expirations = 0
        self._index: ExpiryIndex[Entry] = ExpiryIndex()
        self._policy = AdaptiveS3Fifo[Entry](math.inf)
        self._max_bytes = max_bytes
        self.max_entries = max_entries

    def __len__(self) -> int:
        """Return the number of entries, expired ones not yet removed included."""
        return len(self.entries)

    @property
    def max_entries(self) -> int | None:
        """The most entries kept; None for no bound."""
        return self._max_entries

    @max_entries.setter
    def max_entries(self, max_entries: int | None) -> None:
        self._max_entries = max_entries
        self._limit = math.inf if max_entries is None else max(1, max_entries)
        self._policy.resize(self._expected_entries())

    @property
    def max_bytes(self) -> int | None:
        """The most bytes kept; None for no bound."""
        return self._max_bytes

    @max_bytes.setter
    def max_bytes(self, max_bytes: int | None) -> None:
        self._max_bytes = max_bytes
        self._policy.resize(self._expected_entries())

    def fits(self, size: int) -> bool:
        """Return whether a value of this many bytes can be kept at all."""
        return self._max_bytes is None or size <= self._max_bytes

    def insert(
        self,
        key: str,
        value: object,
        encoded: bytes | None,
        expires_at: float,
        size: int,
        now: float,
    ) -> None:
        """Keep a value under a key that is not in `entries`, evicting if there is no room.

        Pass `ENCODED` as value to keep bytes. A value that does not fit alone is not kept; that
        counts as an eviction, and nothing else is evicted for it.
        """
        if self._index.due <= now:
            self.sweep(now, _SWEEP)
        policy = self._policy
        returning = policy.recall(hash(key))
        if len(self.entries) >= self._limit:
            self._make_room_for_one(now)
        if self._max_bytes is not None:
            if size > self._max_bytes:
                self.evictions += 1
                return
            self._make_room(size, self._max_bytes, now)
        entry = Entry()
        entry.key = key
        entry.value = value
        entry.encoded = encoded
        entry.expires_at = expires_at
        entry.size = size
        entry.freq = 0
        entry.indexed = math.inf
        policy.admit(entry, returning=returning)
        self.entries[key] = entry
        self.bytes_used += size
        if expires_at < math.inf:
            self._index.add(entry)

    def replace(
        self,
        entry: Entry,
        value: object,
        encoded: bytes | None,
        expires_at: float,
        size: int,
        now: float,
    ) -> None:
        """Overwrite an entry, expired or not; it keeps its place and its counter.

        Never evicts for the number of entries; evicts others when the new size needs it. A value
        that does not fit alone removes the entry, and counts as an eviction.
        """
        if not self.fits(size):
            self.evictions += 1
            self._remove(entry)
            return
        self.bytes_used += size - entry.size
        entry.size = size
        if value is ENCODED:
            entry.encoded = encoded
            entry.value = value
        else:
            entry.value = value
            entry.encoded = None
        self.touch(entry, expires_at)
        if self._index.due <= now:
            self.sweep(now, _SWEEP)
        if self._max_bytes is not None:
            self._make_room(0, self._max_bytes, now, entry)

    def touch(self, entry: Entry, expires_at: float) -> None:
        """Change when an entry expires."""
        entry.expires_at = expires_at
        if expires_at < entry.indexed:
            self._index.add(entry)

    def delete(self, key: str) -> bool:
        """Remove a key; return whether it was there, expired or not."""
        entry = self.entries.get(key)
        if entry is None:
            return False
        self._remove(entry)
        return True

    def clear(self) -> None:
        """Remove everything, and forget what is known about past keys. Counters stay."""
        self.entries.clear()
        self.bytes_used = 0
        self._index.clear()
        self._policy.clear()

    def sweep(self, now: float, limit: float = math.inf) -> int:
        """Remove up to `limit` expired entries; return how many were removed."""
        removed = 0
        while removed < limit and (entry := self._index.pop_expired(now)) is not None:
            self._remove(entry)
            removed += 1
        self.expirations += removed
        return removed

    def _make_room_for_one(self, now: float) -> None:
        excess = int(len(self.entries) - self._limit) + 1
        if self.cull_frequency == 0:
            self.evictions += len(self.entries)
            self.clear()
            return
        if self.cull_frequency is not None:
            excess = max(excess, len(self.entries) // self.cull_frequency)
        for _ in range(excess):
            self._remove_one(now)

    def _make_room(self, size: int, max_bytes: int, now: float, keep: Entry | None = None) -> None:
        while self.bytes_used + size > max_bytes:
            self._remove_one(now, keep)
        expected = self._expected_entries()
        if not 1 / _DRIFT < expected / self._policy.capacity < _DRIFT:
            self._policy.resize(expected)

    def _remove_one(self, now: float, keep: Entry | None = None) -> None:
        if self._index.due <= now and self.sweep(now, 1):
            return
        self._forget(self._policy.evict(keep))
        self.evictions += 1

    def _remove(self, entry: Entry) -> None:
        self._policy.remove(entry)
        self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        """Let go of what a removed entry holds: it may stay in a queue for a while."""
        del self.entries[entry.key]
        self.bytes_used -= entry.size
        entry.key = ""
        entry.value = ENCODED
        entry.encoded = None
        entry.indexed = NOWHERE

    def _expected_entries(self) -> float:
        """Return how many entries there will be when full, going by their mean size so far."""
        if self._max_bytes is None or not self.bytes_used:
            return self._limit
        return max(1.0, min(self._limit, self._max_bytes * len(self.entries) / self.bytes_used))
