"""A map bounded by entries and by bytes: where local memory keeps its data.

Hits take no lock and move nothing; everything else happens under the caller's lock. An expired
entry goes before a live one: `storeroom.eviction.deadlines` finds it. Among live ones
`storeroom.eviction.s3fifo` decides.

**A hit is written out by the caller**, so that it costs no call, and it needs no lock::

    entry = bounded.entries.get(storage_key)
    if entry is None or entry.expires_at <= now:
        ...  # a miss
    freq = entry.freq
    if freq < MOST_HITS:
        entry.freq = freq + 1
    value = entry.value
    if value is not ENCODED:
        ...  # the object itself
    encoded = entry.encoded
    if encoded is not None:
        ...  # the object's bytes
    ...  # a writer came between: start again, under the lock

Why that is safe: looking a str up in a dict, loading a slot and storing one are atomic, with the
GIL and on free-threaded builds, where each is ordered before the next. A new entry is published
when all its slots are set. An overwrite stores the bytes before `ENCODED`, an object
before it drops the bytes, and both before expires_at: no object is taken for bytes or the other way
round, and no new deadline vouches for an old value. A removed entry is left as `ENCODED` without
bytes. A freq read once, as above, may lose another thread's bump, which is harmless, but stays
between 0 and 2.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from gc import is_tracked
from typing import Any, Final, TypeAlias

from storeroom.eviction.collector import Untrack, untracker
from storeroom.eviction.deadlines import NEVER, NOWHERE, ExpiryIndex
from storeroom.eviction.dropping import DELETED, EVICTED, Dropping
from storeroom.eviction.entry import Entry
from storeroom.eviction.mending import Mending
from storeroom.eviction.s3fifo import MOST_HITS, AdaptiveS3Fifo
from storeroom.eviction.shards import LARGE, Debris, Shards, free
from storeroom.eviction.share import DRIFT

__all__ = ["ENCODED", "MOST_HITS", "BoundedMap", "Entries", "Entry", "Pinned", "entry_size"]

ENCODED: Final = object()
"""The ``value`` of an entry whose object is kept as bytes, in ``encoded``."""

ENTRY_BYTES: Final = sys.getsizeof(0.0) + 104 + 72
"""Bytes of an entry beside key and value: its expiry, its slots, its positions in dict and queue."""

_UNBOUNDED: Final = float("inf")

_SWEEP: Final = 2
"""Expired entries removed by each write, whether room is needed or not: more than one, so that a
backlog shrinks; few, so that no write pays for many."""

_MANY: Final = 10_000
"""Entries from which on the garbage collector is kept from looking at them: at so many it looks in 4 ms."""

ordinary_insert: Callable[..., bool] | None = None
"""Does as a map's insert(), or answers False if that is no ordinary case: compiled, once local memory is loaded."""

Entries: TypeAlias = dict[str, Entry] | Shards[str, Entry]
Within: TypeAlias = AbstractContextManager[Any]


class Pinned(bytes):
    """The bytes of an entry that is not evicted as long as another can be."""

    __slots__ = ()


_HIDDEN: Final = 256
"""Entries that were there before and that each insert keeps from the collector."""

_FREED: Final = 64
"""Objects of a map that was emptied to make room that each insert frees."""

_SPARED: Final = 128
"""Pinned entries that one eviction passes over. Where it finds no other, as many are evicted without looking further:
so an eviction takes two steps on the average, where all are pinned."""


def entry_size(storage_key: str, value: Any, encoded: object) -> int:
    """Estimate the bytes that an entry takes in memory; an object that is shared counts without its parts."""
    return sys.getsizeof(storage_key) + sys.getsizeof(value if encoded is None else encoded) + ENTRY_BYTES


class BoundedMap(Mending, Dropping):
    """Entries by storage key, bounded by their number and by their bytes.

    The caller holds a lock around everything but the hit described above.

    Args:
        max_entries: entries that are kept at most; None for no bound. The entry just inserted is always
            among them, so that a bound below one acts as one.
        max_bytes: the largest sum of sizes; None for no bound.
        cull_frequency: None to evict one entry at a time. Else as Django's CULL_FREQUENCY: when
            full, one entry in that many is evicted at once; 0 evicts all of them.

    Both bounds may be changed at any time, and are met by the next insert.

    Attributes:
        entries: storage key to `Entry`, expired ones included: a dict, or shards when there are many. Not to be changed
            directly. A reader may hold on to it if it looks here again for a key that it does not find there.
        index: the entries that expire. ``index.due <= now`` tells that a write should sweep.
        bytes_used: the sum of the sizes of all entries.
        evictions: entries removed for room, so far.
        expirations: expired entries removed, so far. One that is overwritten does not count.
        has_sizes: whether there is a bound in bytes, or about to be one: told beside max_bytes without a call.
        ghosts: hashes of the keys evicted lately: may be searched without the lock.
        miss: learns from a read that did not find its key; for keys that are among the ghosts.
        note_removal: is told of each removal: see dropping; None where nobody asks.
    """

    __slots__ = (
        "_debris", "_doomed", "_limit", "_max_bytes", "_max_entries", "_tracked", "_untrack", "cull_frequency",
        "dropped", "evictions", "expirations", "ghosts", "has_sizes", "miss", "note_removal",
    )  # fmt: skip

    def __init__(
        self, max_entries: int | None, max_bytes: int | None = None, cull_frequency: int | None = None
    ) -> None:
        self.entries = {}
        self.index = ExpiryIndex()
        self.cull_frequency = cull_frequency
        self.bytes_used = 0
        self.dropped = deque()
        self.note_removal = None
        self.evictions = 0
        self.expirations = 0
        self._doomed = 0
        self._is_torn = False
        self._debris: Debris = []
        self._untrack: Untrack = bool
        self._visible = _MANY
        self._tracked: list[object] = []
        self._policy = AdaptiveS3Fifo(_UNBOUNDED)
        self.miss = self._policy.miss
        self.ghosts = self._policy.ghosts
        self._max_bytes, self.has_sizes = max_bytes, max_bytes is not None
        self.max_entries = max_entries

    def __len__(self) -> int:
        """Return the number of entries, expired ones included."""
        return len(self.entries)

    def parts(self, lock: Within, alone: Within) -> Iterator[Iterator[tuple[str, Entry]]]:
        """Yield keys and entries in small parts. An entry that stays is in one of them, or in the first and another."""
        entries: Iterator[dict[str, Entry]] | None = None
        while True:
            with lock, alone:
                if entries is None:
                    entries = iter([self.entries]) if isinstance(self.entries, dict) else self.entries.parts()
                if (part := next(entries, None)) is None:
                    return
                copied = zip(list(part), list(part.values()), strict=True)
            yield copied

    def sized(self, lock: Within, alone: Within) -> int:
        """Return the bytes of all entries, where they are not counted: linear."""
        parts = [[(key, entry.value, entry.encoded) for key, entry in part] for part in self.parts(lock, alone)]
        return sum(entry_size(*kept) for part in parts for kept in part)  # perhaps by code of a class

    @property
    def max_entries(self) -> int | None:
        """Entries that are kept at most; None for no bound."""
        return self._max_entries

    @max_entries.setter
    def max_entries(self, max_entries: int | None) -> None:
        self._max_entries = max_entries
        self._limit = _UNBOUNDED if max_entries is None else max(1, max_entries)
        self._policy.resize(self._expected_entries())

    @property
    def max_bytes(self) -> int | None:
        """The largest sum of sizes; None for no bound."""
        return self._max_bytes

    @max_bytes.setter
    def max_bytes(self, max_bytes: int | None) -> None:
        self._max_bytes, self.has_sizes = max_bytes, max_bytes is not None
        self._policy.resize(self._expected_entries())

    def fits(self, size: int) -> bool:
        """Return whether a value of this size can be kept at all."""
        return self._max_bytes is None or size <= self._max_bytes

    def insert(self, key: str, value: object, encoded: Any, expires_at: float, size: int, now: float) -> None:
        """Keep a value under a key that is not in `entries`, evicting for it if need be.

        A value that does not fit is not kept; it counts as evicted, and no other entry is evicted for it.

        Args: as the attributes of `Entry`, and the present in epoch seconds. Without a bound in bytes size may be 0.
        """
        if ordinary_insert is None or not ordinary_insert(self, key, value, encoded, expires_at, size, now):
            self._insert(key, value, encoded, expires_at, size, now)

    def _insert(self, key: str, value: object, encoded: Any, expires_at: float, size: int, now: float) -> None:
        self._is_torn = not self._is_torn or self._mended()
        if self.index.due <= now:
            self._sweep(now, _SWEEP)
        entries = self.entries
        count = len(entries)
        entries = self._in_shards() if count > LARGE else entries
        full = count >= self._limit
        if full and (self.cull_frequency is not None or count > self._limit):
            self._cull(now)
            full = False
            entries = self.entries
        if self._max_bytes is not None:
            if size > self._max_bytes:
                self.evictions += 1
                self._is_torn = False
                return
            self._make_room(size, self._max_bytes, now)
            full = len(entries) >= self._limit
        entry = Entry()
        entry.key = key
        entry.value = value
        entry.encoded = encoded
        entry.expires_at = expires_at
        entry.size = size
        entry.freq = 0
        entry.indexed = NEVER
        if count > self._visible:
            self._hide(entry)
        victim = self._policy.admit(entry, full)
        if victim is not None:
            pinned = type(victim.encoded) is not bytes and isinstance(victim.encoded, Pinned)
            self._forget(self._spare(victim, entry) if pinned else victim)
            self.evictions += 1
        entries[key] = entry
        if self._visible < 0:
            self._untrack(id(entries))  # an entry that is added puts it back: at once, or a collection goes over it
        if self._debris:
            free(self._debris, _FREED, self.dropped.append)
        self.bytes_used += size
        if expires_at < NEVER:
            self.index.add(entry)
        self._is_torn = False

    def _in_shards(self) -> Entries:
        if isinstance(self.entries, dict):
            self.entries = Shards(self.entries, self._untrack)
        return self.entries

    def _hide(self, entry: Entry) -> None:
        """Keep an entry from the garbage collector, and what stands in place of its bytes; so with some older ones.

        An object that refers to the map is garbage with the map alone: `_forget` takes it out of a removed entry.
        """
        if self._visible >= 0:
            self._begin_hiding()
        self._untrack(id(entry))
        if entry.encoded is not None and is_tracked(entry.encoded):
            self._untrack(id(entry.encoded))
        if self._tracked:
            for each in self._tracked[-_HIDDEN:]:
                self._untrack(id(each))
                if type(each) is Entry and is_tracked(each.encoded):
                    self._untrack(id(each.encoded))
            del self._tracked[-_HIDDEN:]

    def _begin_hiding(self) -> None:
        self._visible = -1
        self._untrack = untracker()
        self._tracked = [*self.entries.values(), *self.index.begin_untracking(self._untrack)]
        for queue in self._policy.queues:
            self._untrack(id(queue))

    def replace(self, entry: Entry, value: object, encoded: Any, expires_at: float, size: int, now: float) -> None:
        """Overwrite an entry, expired or not; it keeps its position and its counter.

        Nothing is evicted for the number of entries. Others are evicted if the new size needs their
        room; if the new value does not fit at all, the entry itself is, and nothing else.

        Args: as for insert().
        """
        if not self.fits(size):
            self.evictions += self.delete(entry.key)
            return
        self._is_torn = not self._is_torn or self._mended()
        self.bytes_used += size - entry.size
        entry.size = size
        self._drop(entry)
        if value is ENCODED:
            if type(encoded) is not bytes and is_tracked(encoded):
                self._untrack(id(encoded))
            entry.encoded = encoded
            entry.value = value
        else:
            entry.value = value
            entry.encoded = None
        entry.expires_at = expires_at
        if expires_at < entry.indexed:
            self.index.add(entry)
        if self.index.due <= now:
            self._sweep(now, _SWEEP)
        if self._max_bytes is not None:
            self._make_room(0, self._max_bytes, now, entry)
        self._is_torn = False

    def touch(self, entry: Entry, expires_at: float) -> None:
        """Change when an entry expires."""
        if expires_at < entry.indexed:
            self._change(self._index, entry, expires_at)
        else:
            entry.expires_at = expires_at

    def _index(self, entry: Entry, expires_at: float) -> None:
        entry.expires_at = expires_at
        self.index.add(entry)

    def delete(self, key: str) -> bool:
        """Remove a key; return whether it was there, expired or not."""
        entry = self.entries.get(key)
        if entry is None:
            return False
        self._is_torn = not self._is_torn or self._mended()
        self._remove(entry)
        self._is_torn = False
        return True

    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove some of many keys, oldest first as a rule. With the last entry, what is known of evicted keys goes."""
        for key in keys:
            self.delete(key)
        self._change(self._policy.trim)
        self._change(self.index.trim)
        if not len(self):
            self._debris = self.clear()

    def clear(self) -> Debris:
        """Remove everything, and what is known of evicted keys. The counters go on.

        Returns: what there was, for the caller to free() when it has given up the lock.
        """
        return self._change(self._clear)

    def _clear(self) -> Debris:
        debris = [*self._debris, *self.index.clear(), *self._policy.clear()]
        if isinstance(self.entries, dict):
            self.entries.clear()
        else:
            debris += self.entries.clear()
            self.entries = {}
        self.bytes_used, self._visible, self._debris, self._tracked = 0, _MANY, [], []
        return debris

    def sweep(self, now: float, limit: float = _UNBOUNDED) -> int:
        """Remove up to `limit` expired entries; return how many."""
        return self._change(self._sweep, now, limit)

    def _sweep(self, now: float, limit: float) -> int:
        removed = 0
        while removed < limit and (entry := self.index.pop_expired(now)) is not None:
            self._remove(entry)
            removed += 1
        self.expirations += removed
        return removed

    def _cull(self, now: float) -> None:
        """Make room for one entry, and for as many more as cull_frequency asks."""
        if self.cull_frequency == 0:
            self.evictions += len(self.entries)
            self._note_all(self.entries.values())
            self._debris = self._clear()
            return
        count = len(self.entries) - int(self._limit) + 1
        if self.cull_frequency is not None:
            count = max(count, len(self.entries) // self.cull_frequency)
        for _ in range(count):
            self._remove_one(now)

    def _make_room(self, size: int, max_bytes: int, now: float, keep: Entry | None = None) -> None:
        expected = self._expected_entries()
        if not 1 / DRIFT < expected / self._policy.share.capacity < DRIFT:
            self._policy.resize(expected)
        while self.bytes_used + size > max_bytes:
            self._remove_one(now, keep)

    def _expected_entries(self) -> float:
        """Return how many entries fill the map, if the mean size stays as it is."""
        if self._max_bytes is None or not self.bytes_used:
            return self._limit
        return max(1.0, min(self._limit, self._max_bytes * len(self.entries) / self.bytes_used))

    def _remove_one(self, now: float, keep: Entry | None = None) -> None:
        if self.index.due <= now and self._sweep(now, 1):
            return
        victim = self._policy.evict(keep)
        if isinstance(victim.encoded, Pinned) and len(self.entries) > (1 if keep is None else 2):
            victim = self._spare(victim, keep)
        self._forget(victim)
        self.evictions += 1

    def _spare(self, victim: Entry, keep: Entry | None = None) -> Entry:
        """Put a pinned entry back, and return another one that was evicted in its place, if there is one."""
        if self._doomed:
            self._doomed -= 1
            return victim
        for _ in range(_SPARED):
            self._policy.admit(victim, full=False)
            victim = self._policy.evict(keep)
            if not isinstance(victim.encoded, Pinned):
                break
        else:
            self._doomed = _SPARED
        return victim

    def _remove(self, entry: Entry) -> None:
        self._policy.remove(entry)
        self._forget(entry, DELETED)

    def _forget(self, entry: Entry, kind: str = EVICTED) -> None:
        """Let go of all that an entry holds, as queues and index may hold the entry for a while."""
        if self.note_removal is not None:
            self.note_removal(entry.key, kind, entry.expires_at)
        del self.entries[entry.key]
        self.bytes_used -= entry.size
        self._drop(entry)
        entry.key = ""
        entry.value = ENCODED
        entry.encoded = None
        entry.indexed = NOWHERE

    def check_invariants(self) -> None:
        """Raise AssertionError if the map is not as it should be. For tests; linear."""
        self._change(bool)
        entries = list(self.entries.values())
        promises = {
            "an entry knows its key": all(key == entry.key for key, entry in self.entries.items()),
            "bytes are counted": self.bytes_used == sum(entry.size for entry in entries),
            "bytes are kept within an entry or ENCODED": all(
                (entry.value is ENCODED) == (entry.encoded is not None) for entry in entries
            ),
        }
        if broken := [promise for promise, holds in promises.items() if not holds]:
            raise AssertionError(f"The bounded map has broken these promises: {broken}")
        self._policy.check_invariants(entries)
        self.index.check_invariants(entries)
