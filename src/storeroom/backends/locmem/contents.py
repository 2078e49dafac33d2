"""All that one name holds in this process's memory, and the operations on the whole of it: in parts, as others wait."""

import time
from _pickle import loads  # the C module alone
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from storeroom import config, storage, timeouts
from storeroom.backends.inline import InlineCache
from storeroom.backends.locmem.values import WITH_CONDITIONS, encode, frozen, thawed
from storeroom.backends.process_locks import ProcessLocks
from storeroom.config.naming import named
from storeroom.engines import Engine
from storeroom.eviction import MOST_HITS, BoundedMap, Entry, entry_size, free
from storeroom.exceptions import ReentrantUseError, SerializationError
from storeroom.keys import TAG_PREFIX, KeySpace
from storeroom.storage.copies import alike
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING, Conditional
from storeroom.storage.steps import parts

if TYPE_CHECKING:
    from storeroom.engines.remembered import Remembered
    from storeroom.storage.sightings import Sighting

__all__ = ["PART", "MemoryContents", "MemoryEngine"]

PART: Final = 500
"""Entries that are changed under the lock at once, so that no other writer waits for longer than a millisecond."""


class MemoryEngine(Engine):
    """The data of one name: entries, the versions of their tags, and locks.

    Attributes:
        starts: the beginnings of the keys of all handles that have stored something; None for keys of another form.
        max_entries: the bound of handles that are given none: that which a handle was given last.
        max_bytes: likewise.
        clearing: the key spaces that are being cleared.
    """

    __slots__ = ("max_bytes", "max_entries")  # as in MemoryContents

    def __init__(self) -> None:
        """Begin empty, and with Django's bounds until a handle is given others."""
        super().__init__()
        self.max_entries: int | None = config.DEFAULT_MAX_ENTRIES
        self.max_bytes: int | None = None
        self.entries = BoundedMap(None)
        self.tags = BoundedMap(None)
        self.starts: set[str | None] = set()
        self.locks = ProcessLocks(self.lock, self.alone)
        self.clearing: list[KeySpace] = []

    def remember(self, removals: int) -> "Remembered":
        """Let both maps tell of removals."""
        remembered = super().remember(removals)
        if remembered.limit:
            self.entries.note_removal = self.tags.note_removal = remembered.note
        return remembered

    def look_for_storm(self) -> None:
        """See Engine."""
        entries = self.entries
        self.storms.look(entries.evictions, entries.max_entries or len(entries), self)

    def after_fork_in_child(self) -> None:
        """Begin to count anew; the entries are there."""
        super().after_fork_in_child()
        for bounded in (self.entries, self.tags):
            bounded.evictions = bounded.expirations = 0


class MemoryContents(InlineCache, abstract=True):
    """The operations of local memory on all entries."""

    # Slots are read faster than other attributes, and where they lie, the compiled methods find out.
    __slots__ = (
        "_alone", "_bounded", "_bounds_bytes", "_bounds_entries", "_counters", "_cull_frequency", "_engine", "_entries",
        "_freshness", "_head", "_index", "_is_bare", "_lock", "_max_bytes", "_max_entries", "_noted", "_tags",
        "default_timeout",
    )  # fmt: skip

    _engine: MemoryEngine
    _bounded: BoundedMap
    _ghosts: Any
    _tags: BoundedMap
    _lock: Any
    _alone: Any
    _copies: bool
    _max_bytes: int | None

    def _sample(self, key: object) -> None:
        """Count this key's family for all writes of set() since the last sample."""
        self._pass_by()
        number = self._counters.written.sample()
        if (families := self._families) is not None:
            families.of(key).sets += number
        self._engine.look_for_storm()

    def _note_miss(self, key: object, storage_key: str) -> None:
        missed = self._counters.missed  # as in _count_miss(), and then as in _missed()
        missed.number = number = missed.number + 1
        if number >= missed.due:
            self._sample_miss(key)
        if (hashed := hash(storage_key)) in (ghosts := self._ghosts).recent or hashed in ghosts.previous:
            self._missed(storage_key)

    def _missed(self, storage_key: str) -> None:
        """Let eviction learn of a read that found nothing."""
        hashed, ghosts = hash(storage_key), self._ghosts
        if hashed in ghosts.recent or hashed in ghosts.previous:
            with suppress(ReentrantUseError), self._lock, self._alone:
                self._bounded.miss(storage_key)

    def _encoded(self, storage_key: str, value: Any) -> Any:
        try:
            return encode(value)
        except SerializationError as error:
            named(error, self.settings.alias, storage_key)
            raise

    def _kept(self, storage_key: str, value: Any) -> tuple[Any, Any, int]:
        """Return a value and its bytes as an entry keeps them, and its size."""
        try:
            value, encoded = frozen(value, copies=self._copies)
        except SerializationError as error:
            named(error, self.settings.alias, storage_key)
            raise
        return value, encoded, self._sized(storage_key, value, encoded)

    def _freeze(self, storage_key: str, value: Any) -> tuple[Any, Any]:
        return frozen(value, copies=self._copies)

    def _thaw(self, storage_key: str, kept: tuple[Any, Any]) -> Any:
        value, encoded = kept
        return value if encoded is None else thawed(encoded)

    def _opened(self, envelope: Envelope) -> Any:
        """See InlineCache; the tags' versions are looked up without a call for each."""
        now, versions = timeouts.now(), self._tags.entries
        if envelope.fresh_until <= now:
            return MISSING
        for key, version in envelope.tags:
            entry = versions.get(key)
            if entry is None or entry.expires_at <= now or not storage.tags.is_written(entry.value, version):
                return MISSING
            if entry.freq < MOST_HITS:
                entry.freq += 1
        return envelope.value

    def _map_of(self, storage_key: str) -> BoundedMap:
        return self._tags if storage_key.startswith(TAG_PREFIX) else self._bounded

    def _live(self, storage_key: str) -> Entry | None:
        entry = self._bounded.entries.get(storage_key) or self._tags.entries.get(storage_key)
        return None if entry is None or entry.expires_at <= timeouts.now() else entry

    def _thawed(self, encoded: Any) -> Any:
        try:
            return thawed(encoded)
        except Exception as error:  # noqa: BLE001 -- a class that has changed or gone fails in any way: a counted miss
            return self._unreadable(encoded, error)

    def _unreadable(self, encoded: bytes, error: Exception) -> Any:
        storage.interruptions.raise_if_foreign(error, loads, encoded)
        self._counters.errors += 1
        storage.trials.note_unreadable(storage.trials.names_in(encoded), error)
        return MISSING

    def _seen(self, storage_key: str, expected: Any) -> tuple[Any, Any] | None:
        """Return value and bytes of an entry, if it is the writing expected; without a lock, as values run code."""
        if (entry := self._live(storage_key)) is None:
            return None
        value, encoded = entry.value, entry.encoded  # a mixture, if it is overwritten meanwhile: then as no other
        return (value, encoded) if alike(value if encoded is None else self._thawed(encoded), expected) else None

    def _is_still(self, storage_key: str, seen: tuple[Any, Any] | None) -> bool:
        """Tell, under the lock, whether an entry is as it was seen."""
        entry = self._live(storage_key)
        return entry is not None and seen is not None and entry.value is seen[0] and entry.encoded is seen[1]

    def _sized(self, storage_key: str, value: Any, encoded: Any) -> int:
        """Return the size of an entry, 0 where it does not count. Without the lock: a class's own code may tell it."""
        if (self._engine.max_bytes or self._max_bytes) is None:
            return 0
        if self._bounded.max_bytes is None:
            with suppress(ReentrantUseError):  # then the entry is not stored now, either
                self._learn_sizes()  # none was needed until now
        return entry_size(storage_key, value, encoded)

    def _learn_sizes(self) -> None:
        bounded = self._bounded
        kept = [(it, key, it.value, it.encoded) for part in bounded.parts(self._lock, self._alone) for key, it in part]
        sizes = [(entry, entry_size(*terms)) for entry, *terms in kept]
        with self._lock, self._alone:
            for entry, size in sizes if bounded.max_bytes is None else ():
                bounded.bytes_used += size - entry.size if entry.key else 0
                entry.size = size

    def _clear(self) -> None:
        key_space, clearing, remembered = self._key_space, self._engine.clearing, self._engine.remembered
        try:
            with self._lock, self._alone:
                clearing.append(key_space)
                all_ours = self._engine.starts <= {key_space.start()}
                debris = [*self._bounded.clear(), *self._tags.clear()] if all_ours else []
            free(debris)
            for bounded in () if all_ours else (self._bounded, self._tags):
                self._clear_ours(bounded, key_space.owns)
        finally:
            with self._lock, self._alone:
                clearing[:] = [each for each in clearing if each is not key_space]
            if remembered is not None:
                remembered.note_clear(key_space.owns)

    def _clear_ours(self, bounded: BoundedMap, owns: Callable[[str], bool]) -> None:
        doomed = [key for part in bounded.parts(self._lock, self._alone) for key, _ in part if owns(key)]
        for part in parts(doomed, PART):
            with self._lock, self._alone:
                bounded.delete_many(part)
            bounded.let_go()

    def _scan(self, start: str) -> Iterator[str]:
        now, moving = timeouts.now(), set[str]()
        for number, part in enumerate(self._bounded.parts(self._lock, self._alone)):
            for key, entry in part:
                if entry.expires_at > now and key.startswith(start) and key not in moving:
                    if not number:
                        moving.add(key)  # it may be in another part by then
                    yield Conditional(key) if type(entry.encoded) in WITH_CONDITIONS else key

    def _sight(self, storage_key: str) -> "Sequence[Sighting]":
        entry = self._bounded.entries.get(storage_key) or self._tags.entries.get(storage_key)
        sight: Sighting = import_module("storeroom.backends.locmem.sight").sight(type(self).__name__, entry)
        return [sight]

    def _prune(self) -> int:
        now, removed = timeouts.now(), 0
        for bounded in (self._tags, self._bounded):
            removed, swept = 0, PART
            while swept == PART:
                with self._lock, self._alone:
                    swept = bounded.sweep(now, PART)
                bounded.let_go()
                removed += swept
                time.sleep(0)
        return removed

    def _entries_about(self) -> int:
        return len(self._bounded)

    def _size_at_hand(self) -> tuple[int | None, int | None]:
        bounded = self._bounded
        self._counters.evictions, self._counters.expirations = bounded.evictions, bounded.expirations
        return len(bounded), None if bounded.max_bytes is None else bounded.bytes_used

    def _usage(self) -> tuple[int | None, int | None]:
        with self._lock, self._alone:
            self._counters.evictions = self._bounded.evictions
            self._counters.expirations = self._bounded.expirations
            count, size = len(self._bounded), self._bounded.bytes_used
            is_counted = self._bounded.max_bytes is not None
        return count, size if is_counted else self._bounded.sized(self._lock, self._alone)

    def _check_invariants(self) -> None:
        """Raise AssertionError if the entries and their queues disagree: for tests."""
        with self._lock, self._alone:
            self._bounded.check_invariants()
            self._tags.check_invariants()
