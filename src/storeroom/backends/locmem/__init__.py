"""A cache in the memory of this process: the fastest, and private to it.

LOCATION is a name. Caches of the same name share their data, as in Django; another process has its own. What is kept
where, and what goes when it is full, is the business of `storeroom.eviction`.
"""

from _pickle import loads  # the C module alone
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Final

from storeroom import config, storage, timeouts
from storeroom.backends.inline import InlineCache
from storeroom.backends.kept_bounds import note_given
from storeroom.backends.locmem.contents import PART, MemoryContents, MemoryEngine
from storeroom.backends.locmem.hot_path import hasten, hot
from storeroom.backends.locmem.values import WITH_CONDITIONS, is_fresh
from storeroom.backends.nested import nested_answer, nesting
from storeroom.base import BaseCache
from storeroom.base.backend_class import declared_as
from storeroom.base.computing import TimeoutOf
from storeroom.config.freshness import AS_CONFIGURED
from storeroom.config.naming import named
from storeroom.engines import shared
from storeroom.eviction import ENCODED, MOST_HITS, Entry
from storeroom.exceptions import ReentrantUseError, SerializationError, ValueTooLargeError
from storeroom.keys import TAG_PREFIX
from storeroom.storage.copies import IMMUTABLE
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import LOOK, MISSING, StorageHooks
from storeroom.storage.steps import parts, run
from storeroom.timeouts import DEFAULT_TIMEOUT, LONGEST_TIMEOUT, NUMBERS, Timeout

__all__ = ["LocMemCache"]

_NUMBERS: Final = frozenset({int, float, bool})
"""Types that are counted under the lock."""


@nesting("set", "set_many", "delete_many", "clear", "prune", "usage", "lease", "lease_many")
class LocMemCache(MemoryContents):
    """A cache in this process's memory.

    Hits take no lock. Immutable scalars are kept as they are; every other value is pickled when it is set and unpickled
    by each get, so that a caller cannot change what is cached, unless ``OPTIONS["copy"]`` is False.

    Args:
        location: the name; caches of one name share their data.
        params: the alias's settings.
    """

    options: ClassVar[Mapping[str, config.Option] | None] = {
        **config.ENTRY_BOUNDS,
        "copy": config.Option(
            config.boolean,
            True,
            "Whether values are copied in and out. False keeps the very object that was set: faster, "
            "but whoever changes it changes the cache.",
        ),
    }
    _engine: MemoryEngine
    is_shared = False
    sees_envelopes = True
    notes_removals = True
    hastens = staticmethod(hasten)

    def __init__(self, location: str, params: Mapping[str, Any]) -> None:
        """Join the entries of this name."""
        super().__init__(params)
        self.engine = shared(MemoryEngine, str(location), MemoryEngine)
        self._bounded, self._tags = self._engine.entries, self._engine.tags
        self._entries = self._bounded.entries
        self._index, self._ghosts = self._bounded.index, self._bounded.ghosts
        self._lock, self._alone = self._engine.lock, self._engine.alone
        options, given = self.settings.options, self.settings.given
        self._max_entries: int | None = options["max_entries"]
        self._max_bytes: int | None = options["max_bytes"]
        # A handle that is given no bounds keeps to those that another was given last.
        self._bounds_entries, self._bounds_bytes = "max_entries" in given, "max_bytes" in given
        note_given(self.engine, self.settings)
        if self._bounds_entries:
            self._engine.max_entries = self._max_entries
        if self._bounds_bytes:
            self._engine.max_bytes = self._max_bytes
            self._bounded.has_sizes = self._bounded.has_sizes or self._max_bytes is not None
        self._cull_frequency, self._max_tags = options["cull_frequency"], options["max_tags"]
        self._copies: bool = options["copy"]
        self._noted: str | None = ""
        self._is_bare = vars(self).get("_overlay") is None

    def _lay(self, overlay: StorageHooks | None) -> None:
        self._is_bare = False  # before there is one, and until there is none: compiled methods ask for nothing else
        super()._lay(overlay)
        self._is_bare = overlay is None

    # The hot path: get(), set() and a hit of get_or_set() are written out, as a call costs as much as all the rest of
    # a hit (benchmarks: "locmem get", "locmem set", "locmem get_or_set, warm").

    @declared_as(BaseCache.get)
    @hot
    def get(self, key: object, default: Any = None, version: int | None = None) -> Any:
        """Return the value stored under the key, or `default` if there is none. Takes no lock."""
        if self._overlay is not None:
            return BaseCache.get(self, key, default, version)
        head = self._head
        storage_key = f"{head}{key}" if version is None and head is not None else self._storage_key(key, version)
        entry = self._entries.get(storage_key)
        if entry is None or entry.expires_at <= timeouts.now():
            if self._entries is not self._bounded.entries:  # there are many, and kept elsewhere by now
                self._entries = self._bounded.entries
                return LocMemCache.get(self, key, default, version)
            self._note_miss(key, storage_key)
            return default
        freq = entry.freq
        if freq < MOST_HITS:
            entry.freq = freq + 1
        value = entry.value
        if value is ENCODED:
            encoded = entry.encoded
            if type(encoded) is bytes:
                try:
                    value = loads(encoded)
                except Exception as error:  # noqa: BLE001 -- as in _thawed()
                    value = self._unreadable(encoded, error)
            else:
                value = encoded if type(encoded) is Envelope else self._decoded(entry)
                if type(value) is Envelope:
                    value = self._opened(value)
            if value is MISSING:
                self._counters.misses += 1
                return default
        self._counters.hits += 1
        return value

    @hot
    def set(
        self, key: object, value: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None, *,
        tags: Iterable[object] = (),
    ) -> None:  # fmt: skip
        """Store the value: see BaseCache.set()."""
        if tags or self._overlay is not None:
            BaseCache.set(self, key, value, timeout, version, tags=tags)
            return
        head = self._head
        storage_key = f"{head}{key}" if version is None and head is not None else self._storage_key(key, version)
        now = timeouts.now()
        seconds: Any = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        is_plain = type(seconds) in NUMBERS and 0 < seconds < LONGEST_TIMEOUT
        expires_at = now + seconds if is_plain else self._expires_at(timeout)
        if expires_at <= now:
            self._delete(storage_key)
            return
        given, encoded, bounded = value, None, self._bounded
        try:
            if type(value) not in IMMUTABLE and self._copies:
                value, encoded = ENCODED, self._encoded(storage_key, value)
            size = self._sized(storage_key, value, encoded) if bounded.has_sizes else 0
            with self._lock:
                entry, alone = self._entries.get(storage_key), self._alone
                if entry is None or size or alone.is_under_way or self._index.due <= now or expires_at < entry.indexed:
                    if alone.is_under_way:
                        alone.look()
                    alone.is_under_way = True
                    self._put(storage_key, value, encoded, size, expires_at, now)
                    alone.is_under_way = False
                else:
                    # BoundedMap.replace() in its order, and no call comes between; old values are freed afterwards.
                    _old, _older = entry.value, entry.encoded
                    if encoded is not None:
                        entry.encoded = encoded
                        entry.value = value
                    else:
                        entry.value = value
                        entry.encoded = None
                    entry.expires_at = expires_at
        except (ReentrantUseError, SerializationError, ValueTooLargeError) as error:
            self._not_put(key, storage_key, given, (value, encoded), expires_at, error)
            return
        if bounded.dropped:
            bounded.let_go()
        written = self._counters.written
        written.number = number = written.number + 1
        if number >= written.due:
            self._sample(key)

    @declared_as(BaseCache.get_or_set)
    @hot
    def get_or_set(
        self,
        key: object,
        default: Any,
        timeout: Timeout | TimeoutOf = DEFAULT_TIMEOUT,
        version: int | None = None,
        tags: Iterable[object] = (),
        stale_while_revalidate: Any = AS_CONFIGURED, stale_if_error: Any = AS_CONFIGURED,
        retry_pause: Any = AS_CONFIGURED, error_timeout: Any = AS_CONFIGURED,
        soft_timeout: Any = AS_CONFIGURED, hard_timeout: Any = AS_CONFIGURED,
        early: float = AS_CONFIGURED, jitter: float = AS_CONFIGURED,
    ) -> Any:  # fmt: skip
        """Return the value stored, or compute, store and return it: see BaseCache.get_or_set()."""
        if version is None and (head := self._head) is not None and self._overlay is None:
            try:
                entry = self._entries[f"{head}{key}"]
            except KeyError:
                self._entries = self._bounded.entries
            else:
                if entry.expires_at > timeouts.now():
                    value = entry.value
                    if value is ENCODED and type(encoded := entry.encoded) is bytes:
                        try:
                            value = loads(encoded)
                        except Exception as error:  # noqa: BLE001 -- not readable, which what follows finds out, too
                            storage.interruptions.raise_if_foreign(error, loads, encoded)
                    if value is not ENCODED:
                        freq = entry.freq
                        if freq < MOST_HITS:
                            entry.freq = freq + 1
                        self._counters.reused += 1
                        return value
        answer: Any = BaseCache.get_or_set
        return answer(
            self, key, default, timeout, version, tags, stale_while_revalidate, stale_if_error, retry_pause,
            error_timeout, soft_timeout, hard_timeout, early, jitter,
        )  # fmt: skip

    aget, aget_or_set = hot(InlineCache.aget), hot(BaseCache.aget_or_set)

    # Values -----------------------------------------------------------------------------------

    def _decoded(self, entry: Entry) -> Any:
        """Return the object of an entry whose bytes are kept, or MISSING."""
        value, encoded = entry.value, entry.encoded
        if encoded is None:
            # Overwritten or removed while being looked at: look again, with no writer about.
            with suppress(ReentrantUseError), self._lock, self._alone:
                value, encoded = entry.value, entry.encoded
            if encoded is None:
                return MISSING if value is ENCODED else value
        return self._thawed(encoded)

    def _store(self, storage_key: str, value: Any, encoded: Any, size: int, expires_at: float, now: float) -> None:
        """Insert or overwrite, under the lock."""
        bounded = self._bounded
        if self._noted is not self._head or self._head is None:
            self._noted = self._head
            self._engine.starts.add(None if self._head is None else self._key_space.start())
        if storage_key.startswith(TAG_PREFIX):
            bounded = self._tags
            if bounded.max_entries != self._max_tags:
                bounded.max_entries = self._max_tags
        else:
            self._entries = bounded.entries
            engine = self._engine
            max_entries = self._max_entries if self._bounds_entries else engine.max_entries
            max_bytes = self._max_bytes if self._bounds_bytes else engine.max_bytes
            if bounded.max_entries != max_entries or bounded.max_bytes != max_bytes:
                bounded.max_entries, bounded.max_bytes = max_entries, max_bytes
            if not bounded.fits(size):
                error = ValueTooLargeError(
                    f"The value of key {storage_key!r} takes {size} bytes, more than OPTIONS['max_bytes'] "
                    f"({bounded.max_bytes}) allows for the whole cache; raise max_bytes or store less."
                )
                raise named(error, self.settings.alias)
            bounded.cull_frequency = self._cull_frequency
        entry = bounded.entries.get(storage_key)
        if entry is None:
            bounded.insert(storage_key, value, encoded, expires_at, size, now)
        else:
            bounded.replace(entry, value, encoded, expires_at, size, now)

    def _not_put(
        self, key: object, storage_key: str, given: Any, kept: tuple[Any, Any], expires_at: float, error: Exception
    ) -> None:
        """Answer set() where the value is refused, or cannot be put now."""
        try:
            if isinstance(error, ReentrantUseError):
                nested_answer(self, "set", (storage_key, self._thaw("", kept), expires_at), error)
                self._counted_set(key, stored=True)
            else:
                run(self._refused(self, key, storage_key, given, error))
        finally:
            del error  # its traceback holds this frame

    # Hooks ------------------------------------------------------------------------------------

    def _get(self, storage_key: str) -> Any:
        entry = self._bounded.entries.get(storage_key) or self._tags.entries.get(storage_key)
        if entry is None or entry.expires_at <= timeouts.now():
            self._missed(storage_key)
            return MISSING
        freq = entry.freq
        if freq < MOST_HITS:
            entry.freq = freq + 1
        value = entry.value
        if value is not ENCODED:
            return value
        encoded = entry.encoded
        if type(encoded) is not bytes:
            return self._decoded(entry)
        try:
            return loads(encoded)
        except Exception as error:  # noqa: BLE001 -- as in _thawed()
            return self._unreadable(encoded, error)

    _get_together = hot(vars(StorageHooks)["_get_together"])

    def _get_many(self, storage_keys: Sequence[str]) -> dict[str, Any]:
        found = ((storage_key, self._get(storage_key)) for storage_key in storage_keys)
        return {storage_key: value for storage_key, value in found if value is not MISSING}

    def _set(self, storage_key: str, value: Any, expires_at: float) -> bool:
        terms = self._kept(storage_key, value)
        with self._lock, self._alone:
            self._put(storage_key, *terms, expires_at, timeouts.now())
        self._bounded.let_go()
        self._engine.look_for_storm()
        return True

    def _set_many(self, values: Mapping[str, Any], expires_at: float) -> Sequence[str]:
        kept = [(storage_key, *self._kept(storage_key, value)) for storage_key, value in values.items()]
        now = timeouts.now()
        for part in parts(kept, PART):
            with self._lock, self._alone:
                for terms in part:
                    self._put(*terms, expires_at, now)
            self._bounded.let_go()
        self._engine.look_for_storm()
        return []

    def _put(self, storage_key: str, *terms: Any) -> None:
        """Do as _store(); if the value is refused, no older one outlives it."""
        try:
            self._store(storage_key, *terms)
        except ValueTooLargeError:
            self._bounded.delete(storage_key)
            raise

    def _add(self, storage_key: str, value: Any, expires_at: float) -> Any:
        kept = self._kept(storage_key, value)
        with self._lock, self._alone:
            live = self._live(storage_key)
            if live is not None:
                return LOOK if type(live.encoded) in WITH_CONDITIONS else False
            self._store(storage_key, *kept, expires_at, timeouts.now())
        self._bounded.let_go()
        return True

    def _delete_many(self, storage_keys: Sequence[str]) -> int:
        live = 0
        for part in parts(storage_keys, PART):
            with self._lock, self._alone:
                found = [entry for storage_key in part if (entry := self._live(storage_key)) is not None]
                live += sum(type(it.encoded) not in WITH_CONDITIONS or is_fresh(it.encoded) for it in found)
                for storage_key in part:
                    self._map_of(storage_key).delete(storage_key)
            self._bounded.let_go()
        return live

    def _touch(self, storage_key: str, expires_at: float) -> Any:
        alone, touched = self._alone, False
        try:
            with self._lock:
                if alone.is_under_way:
                    alone.look()
                alone.is_under_way = True
                entry = self._live(storage_key)
                if entry is not None and (touched := type(entry.encoded) not in WITH_CONDITIONS):
                    self._map_of(storage_key).touch(entry, expires_at)
                alone.is_under_way = False
        except ReentrantUseError as error:
            return nested_answer(self, "touch", (storage_key, expires_at), error)
        return touched or (entry is not None and LOOK)

    def _incr(self, storage_key: str, delta: float) -> float:
        counted: float | None = None
        while True:
            with self._lock:
                if (alone := self._alone).is_under_way:
                    alone.look()
                entry = self._live(storage_key)
                if entry is None:
                    raise KeyError(storage_key)
                alone.is_under_way = True
                value: Any = entry.value
                encoded = entry.encoded
                if type(value) in _NUMBERS:
                    entry.value = counted = value + delta
                    entry.freq = min(entry.freq + 1, MOST_HITS)  # it is read, too
                alone.is_under_way = False
            if counted is not None:
                return counted
            # A subclass of theirs, whose own code runs, or no number at all.
            total = storage.counters.numeric(storage_key, value if encoded is None else self._thawed(encoded)) + delta
            if self._replaced(storage_key, (value, encoded), self._kept(storage_key, total), entry.expires_at):
                return total

    def _expiry(self, storage_key: str) -> Any:
        entry = self._live(storage_key)
        if entry is None:
            return None
        return LOOK if type(entry.encoded) in WITH_CONDITIONS else entry.expires_at

    def _rename(self, storage_key: str, new_storage_key: str) -> Any:
        with self._lock, self._alone:
            entry = self._live(storage_key)
            if entry is None:
                return False
            # A clear() under way may have passed by the new key already.
            is_cleared = any(key_space.owns(storage_key) for key_space in self._engine.clearing)
            if type(entry.encoded) in WITH_CONDITIONS and not is_cleared:
                return LOOK
            value, encoded, size, expires_at = entry.value, entry.encoded, entry.size, entry.expires_at
            self._bounded.delete(storage_key)
            if not is_cleared:
                size += (len(new_storage_key) - len(storage_key)) if size else 0
                self._store(new_storage_key, value, encoded, size, expires_at, timeouts.now())
        self._bounded.let_go()
        return not is_cleared

    def _compare_delete(self, storage_key: str, expected: Any) -> bool:
        seen = self._seen(storage_key, expected)
        with self._lock, self._alone:
            is_removed = self._is_still(storage_key, seen) and self._map_of(storage_key).delete(storage_key)
        self._bounded.let_go()
        return is_removed

    def _compare_set(self, storage_key: str, expected: Any, value: Any, expires_at: float) -> bool:
        kept, seen = self._kept(storage_key, value), self._seen(storage_key, expected)
        return self._replaced(storage_key, seen, kept, expires_at)

    def _replaced(
        self, storage_key: str, seen: tuple[Any, Any] | None, kept: tuple[Any, Any, int], until: float
    ) -> bool:
        """Store over an entry if it is still as it was seen; return whether it was."""
        with self._lock, self._alone:
            if not self._is_still(storage_key, seen):
                return False
            self._store(storage_key, *kept, until, timeouts.now())
        self._bounded.let_go()
        return True

    def _locking(self) -> StorageHooks:
        return self._engine.locks
