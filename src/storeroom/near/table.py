"""The entries of a near tier, and until when each may be believed.

Times are those since the machine's start, ``timeouts.uptime()``: whoever sets the host's clock changes no bound.

Two kinds of staleness are kept from it:

- **An old value that was read before a change and comes after it.** A reader of the storage takes a ticket first. A
  change voids the tickets of its keys, and a value with a void ticket is not kept.
- **A change that nobody told of.** Without a channel an entry is believed for `max_staleness` seconds after its read
  began. With one that hears of every change, it is believed for as long as the storage keeps it, but only up to
  `max_staleness` seconds after the last moment for which the channel vouched.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial, wraps
from pickle import HIGHEST_PROTOCOL, dumps, loads
from time import perf_counter
from typing import Any, NamedTuple

from storeroom import timeouts
from storeroom.engines import Engine
from storeroom.engines.counts import Counters, total
from storeroom.engines.nesting import later
from storeroom.engines.stats import CacheStats
from storeroom.eviction import ENCODED, MOST_HITS, BoundedMap, Debris, Entries, Entry, entry_size, free
from storeroom.exceptions import ReentrantUseError
from storeroom.keys import TAG_PREFIX
from storeroom.storage.copies import IMMUTABLE
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING
from storeroom.storage.interruptions import raise_if_foreign, value_or
from storeroom.timeouts import NEVER

__all__ = ["NearTable", "Ticket", "Tolerance"]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The bounds of a near tier.

    Attributes:
        max_entries: None for no bound; 0 to keep nothing.
        max_bytes: None for no bound.
        cull_frequency: as for local memory.
        copy: whether values are copied in and out.
        max_staleness: seconds for which an entry may differ from the storage.
        max_tags: versions of tags that are kept beside the entries; None for no bound.
    """

    max_entries: int | None
    max_bytes: int | None
    cull_frequency: int | None
    copy: bool
    max_staleness: float
    max_tags: int | None


@dataclass(slots=True, eq=False)
class _Reading:
    """A key that is being read from the storage, and has not changed since the first of its readers began."""

    readers: int = 0


class Ticket(NamedTuple):
    """The right to keep the values that a read of the storage returns, while none of its keys has changed."""

    begun: float
    """Epoch seconds, as storages tell when an entry expires."""
    begun_up: float
    """The same moment by the clock of this table."""
    readings: dict[str, _Reading]


def _soon(change: Callable[..., None]) -> Callable[..., None]:
    """Let another thread make a change that comes in the midst of another one of this thread."""

    @wraps(change)
    def changed(*args: Any) -> None:
        try:
            change(*args)
        except ReentrantUseError:
            later(partial(change, *args))

    return changed


class NearTable(Engine):
    """The near tier of one storage in this process. It is a Listener of channels.

    Attributes:
        trusted_until: seconds of uptime(); from then on nothing here is to be believed.
        counters: hits and misses of this tier, entries that were kept and that were dropped.
        totals: the counters of the cache as a whole, for caches that have none of their own.
        direct_hits: those that are counted here alone, for both, by a reader on the hot path.
        far: hits and misses of the storage, as far as this tier asked it.
        life: another object after a fork or close(), from which on no channel is listened to any more.
        is_tracked: whether a channel hears of every change.
    """

    # These are read by the compiled get() of tiers: see hot_path in storeroom.backends.locmem.
    __slots__ = ("direct_hits", "trusted_until")

    can_be_forgotten = True

    def __init__(self, tolerance: Tolerance) -> None:
        """Begin empty, without a channel."""
        super().__init__()
        self.max_staleness = tolerance.max_staleness
        self._copies = tolerance.copy
        self._keeps = tolerance.max_entries != 0
        self._bounded = BoundedMap(tolerance.max_entries, tolerance.max_bytes, tolerance.cull_frequency)
        self._tags = BoundedMap(tolerance.max_tags)  # apart, so that they evict no entry
        self.trusted_until = NEVER
        self.totals, self.far = Counters(), Counters()
        self.direct_hits = 0
        self.life = object()
        self.is_tracked = False
        self._is_heard: Callable[[str], bool] | None = None
        self._readings: dict[str, _Reading] = {}

    @property
    def entries(self) -> Entries:
        """Storage key to entry, but for the versions of tags; see ``eviction`` on how to read it without a lock."""
        return self._bounded.entries

    def get(self, storage_key: str) -> Any:
        """Return the value that is kept and may be believed, or MISSING. Takes no lock."""
        value = self.peek(storage_key)
        if value is MISSING:
            self.counters.misses += 1
        return value

    def peek(self, storage_key: str) -> Any:
        """Do as get(), for a caller of that if there is nothing: a miss is not counted."""
        entry = self._bounded.entries.get(storage_key) or self._tags.entries.get(storage_key)
        if entry is not None:
            now = timeouts.uptime()
            if entry.expires_at > now and self.trusted_until > now:
                if (freq := entry.freq) < MOST_HITS:
                    entry.freq = freq + 1
                value = entry.value
                if value is ENCODED:
                    value = self.decoded(entry)
                if value is not MISSING:
                    self.counters.hits += 1
                    return value
        return MISSING

    def kept(self, storage_key: str) -> Entry | None:
        """Return an entry, whether or not it may be believed; nothing is noted."""
        return self._bounded.entries.get(storage_key) or self._tags.entries.get(storage_key)

    def decoded(self, entry: Entry) -> Any:
        """Return the object of an entry whose bytes are kept, or MISSING if it was dropped meanwhile."""
        encoded = entry.encoded
        if encoded is None:
            return MISSING
        if type(encoded) is Envelope:
            return encoded
        try:
            return loads(encoded)
        except Exception as error:  # noqa: BLE001 -- a class that has changed can fail in any way: the storage is asked
            raise_if_foreign(error, loads, encoded)
            self.counters.errors += 1
            return MISSING

    def begin(self, storage_keys: Sequence[str]) -> Ticket:
        """Return the ticket of a read that is about to begin. It has to be given back by end()."""
        ticket = Ticket(timeouts.now(), timeouts.uptime(), {})
        with self.lock:
            for storage_key in storage_keys:
                ticket.readings[storage_key] = reading = self._readings.setdefault(storage_key, _Reading())
                reading.readers += 1
        return ticket

    def fill(self, ticket: Ticket, found: Mapping[str, tuple[Any, float | None]]) -> None:
        """Keep the entries that were read, but for those that have changed since the ticket was taken.

        Args:
            ticket: the read's.
            found: storage key to value and expires_at, None where that is unknown.
        """
        if (moment := perf_counter()) >= self.totals.look_at:
            self.totals.look(moment)
        self.far.hits += len(found)
        self.far.misses += len(ticket.readings) - len(found)
        if not self._keeps:
            return
        now = timeouts.uptime()
        frozen = {}
        for storage_key, (value, expires_at) in found.items():
            believed_until = self._believed_until(ticket, storage_key, value, expires_at)
            if believed_until > now and (kept := self._frozen(value)) is not None:
                # Without the lock, as a class's own code may tell it.
                size = 0 if self._bounded.max_bytes is None else entry_size(storage_key, *kept)
                frozen[storage_key] = (*kept, believed_until, size)
        with suppress(ReentrantUseError), self.lock, self.alone:
            for storage_key, terms in frozen.items():
                if self.is_good(ticket, storage_key):
                    self._store(storage_key, *terms, now)
        self._bounded.let_go()

    def is_good(self, ticket: Ticket, storage_key: str) -> bool:
        """Tell whether a key has not changed since the ticket was taken."""
        return self._readings.get(storage_key) is ticket.readings[storage_key]

    def end(self, ticket: Ticket) -> None:
        """Take a ticket back."""
        with self.lock:
            for storage_key, reading in ticket.readings.items():
                reading.readers -= 1
                if not reading.readers and self._readings.get(storage_key) is reading:
                    self._readings.pop(storage_key, None)  # a finalizer may have changed the key just now

    def _believed_until(self, ticket: Ticket, storage_key: str, value: Any, expires_at: float | None) -> float:
        """Return until when a value may be served from here: a time in the past if not at all."""
        bound = ticket.begun_up + self.max_staleness
        if type(value) is Envelope:
            # Somebody computes its successor, which followers have to see at once.
            if value.leased_until > ticket.begun:
                return ticket.begun_up
            expires_at = value.kept_until if expires_at is None else min(expires_at, value.kept_until)
        if expires_at is None:
            return bound
        until = expires_at - ticket.begun + ticket.begun_up
        is_heard = self._is_heard
        return until if self.is_tracked and (is_heard is None or is_heard(storage_key)) else min(until, bound)

    def _frozen(self, value: Any) -> tuple[Any, Any] | None:
        """Return the value and its bytes as an entry keeps them, or None if it cannot be copied."""
        is_envelope = type(value) is Envelope
        if not self._copies or type(value.value if is_envelope else value) in IMMUTABLE:
            # The hot path has to look at an envelope, whatever it holds.
            return (ENCODED, value) if is_envelope else (value, None)
        encoded = value_or(None, dumps, value, HIGHEST_PROTOCOL)
        if encoded is None:  # the storage's own copy serves
            self.counters.errors += 1
            return None
        return ENCODED, encoded

    def _store(self, storage_key: str, value: Any, encoded: Any, expires_at: float, size: int, now: float) -> None:
        bounded = self._map_of(storage_key)
        entry = bounded.entries.get(storage_key)
        if entry is None:
            bounded.insert(storage_key, value, encoded, expires_at, size, now)
        else:
            bounded.replace(entry, value, encoded, expires_at, size, now)
        self.counters.sets += bounded is self._bounded

    def _map_of(self, storage_key: str) -> BoundedMap:
        return self._tags if storage_key.startswith(TAG_PREFIX) else self._bounded

    @_soon
    def drop(self, storage_keys: Iterable[str]) -> None:
        """See Listener."""
        with self.lock, self.alone:
            for storage_key in storage_keys:
                self._readings.pop(storage_key, None)  # the next reader makes another
                bounded = self._map_of(storage_key)
                self.counters.deletes += bounded.delete(storage_key) and bounded is self._bounded
        self._bounded.let_go()

    @_soon
    def drop_all(self) -> None:
        """See Listener."""
        with self.lock, self.alone:
            debris = self._forget()
        free(debris)

    def begin_tracking(self, heard_until: float, is_heard: Callable[[str], bool] | None = None) -> None:
        """See Listener."""
        with self.lock, self.alone:
            debris = self._forget()
            self.is_tracked, self._is_heard = True, is_heard
            self.trusted_until = heard_until + self.max_staleness
        free(debris)

    def vouch(self, heard_until: float) -> None:
        """See Listener."""
        with self.lock:
            if self.is_tracked:
                self.trusted_until = heard_until + self.max_staleness

    @_soon
    def end_tracking(self) -> None:
        """See Listener."""
        with self.lock, self.alone:
            debris = self._forget()
            self.is_tracked = False
            self.trusted_until = NEVER
        free(debris)

    def _forget(self) -> Debris:
        self.counters.deletes += len(self.entries)
        self._readings.clear()
        return [*self._bounded.clear(), *self._tags.clear()]

    def stats(self) -> CacheStats:
        """Return the counts of this tier, and its size."""
        with self.lock:
            self.counters.evictions = self._bounded.evictions
            self.counters.expirations = self._bounded.expirations
            count = len(self.entries)
        size = self._bounded.sized(self.lock, self.alone)
        return CacheStats.of(total(self.counters.as_dict(), {"hits": self.direct_hits}), entries=count, bytes=size)

    def far_stats(self, entries: int | None, size: int | None) -> CacheStats:
        """Return the counts of the storage."""
        return CacheStats.of(self.far.as_dict(), entries=entries, bytes=size)

    def check_invariants(self) -> None:
        """Raise AssertionError if the entries are not as they should be: for tests."""
        with self.lock:
            self._bounded.check_invariants()
            self._tags.check_invariants()

    def close(self) -> None:
        """Forget everything; the next use asks for a channel again."""
        self.end_tracking()
        self.life = object()

    def after_fork_in_child(self) -> None:
        """Begin anew: the channel's thread is the parent's."""
        super().after_fork_in_child()
        self.totals.reset()
        self.far.reset()
        self.direct_hits = 0
        self.close()
