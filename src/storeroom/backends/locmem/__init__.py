"""A cache in the memory of this process: the fastest, and private to it.

LOCATION is a name. Caches of the same name share their data, as in Django; another
process has its own. What is kept where, and what goes when it is full, is the
business of `storeroom.eviction`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pickle import loads
from typing import Any, ClassVar

from storeroom import config, timeouts
from storeroom.backends.inline import InlineCache
from storeroom.backends.locmem.values import WITH_CONDITIONS, encode, frozen, thawed
from storeroom.backends.process_locks import ProcessLocks
from storeroom.base import BaseCache
from storeroom.base.computing import TimeoutOf
from storeroom.config.freshness import AS_CONFIGURED
from storeroom.engines import Engine, shared
from storeroom.eviction import ENCODED, MOST_HITS, BoundedMap, Entry, entry_size
from storeroom.exceptions import ValueTooLargeError, ValueTypeError
from storeroom.keys import TAG_PREFIX
from storeroom.storage import conditions
from storeroom.storage.copies import IMMUTABLE
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import LOOK, MISSING, Conditional, StorageHooks
from storeroom.storage.steps import run
from storeroom.timeouts import DEFAULT_TIMEOUT, Timeout

__all__ = ["LocMemCache"]


class MemoryEngine(Engine):
    """The data of one name: entries, the versions of their tags, and locks."""

    def __init__(self) -> None:
        """Begin empty; each handle brings its own bounds."""
        super().__init__()
        self.entries = BoundedMap(None)
        self.tags = BoundedMap(None)
        self.locks = ProcessLocks(self.lock)


class LocMemCache(InlineCache):
    """A cache in this process's memory.

    Hits take no lock. Immutable scalars are kept as they are; every other value is
    pickled when it is set and unpickled by each get, so that a caller cannot change what
    is cached, unless ``OPTIONS["copy"]`` is False.

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

    def __init__(self, location: str, params: Mapping[str, Any]) -> None:
        """Join the entries of this name."""
        super().__init__(params)
        self.engine = shared(MemoryEngine, str(location), MemoryEngine)
        self._bounded = self._engine.entries
        self._entries = self._bounded.entries
        self._tags = self._engine.tags
        self._index = self._bounded.index
        self._ghosts = self._bounded.ghosts
        self._lock = self._engine.lock
        self._max_entries: int | None = self.settings.options["max_entries"]
        self._max_bytes: int | None = self.settings.options["max_bytes"]
        self._cull_frequency: int | None = self.settings.options["cull_frequency"]
        self._max_tags: int | None = self.settings.options["max_tags"]
        self._copies: bool = self.settings.options["copy"]

    # The hot path: get(), set() and a hit of get_or_set() are written out, as a call costs as much as all the rest of
    # a hit (benchmarks: "locmem get", "locmem set", "locmem get_or_set, warm").

    def get(self, key: object, default: Any = None, version: int | None = None) -> Any:
        """Return the value stored under the key, or `default` if there is none. Takes no lock."""
        if self._overlay is not None:
            return BaseCache.get(self, key, default, version)
        head = self._head
        if version is None and head is not None:
            storage_key = f"{head}{key}"
        else:
            storage_key = self.make_and_validate_key(key, version)
        entry = self._entries.get(storage_key)
        if entry is None or entry.expires_at <= timeouts.now():
            self._counters.misses += 1
            self._missed(storage_key)
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
                except Exception:  # noqa: BLE001 -- as in _decoded()
                    value = self._unreadable()
            else:
                value = self._decoded(entry)
                if type(value) is Envelope:
                    value = run(conditions.opened(self, value))
            if value is MISSING:
                self._counters.misses += 1
                return default
        self._counters.hits += 1
        return value

    def set(
        self,
        key: object,
        value: Any,
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        tags: Iterable[object] = (),
    ) -> None:
        """Store the value: see BaseCache.set()."""
        if tags or self._overlay is not None:
            BaseCache.set(self, key, value, timeout, version, tags=tags)
            return
        head = self._head
        if version is None and head is not None:
            storage_key = f"{head}{key}"
        else:
            storage_key = self.make_and_validate_key(key, version)
        now = timeouts.now()
        if timeout is DEFAULT_TIMEOUT and (default_timeout := self.default_timeout):
            expires_at = now + default_timeout
        else:
            expires_at = self._expires_at(timeout)
        if expires_at <= now:
            self._delete(storage_key)
            return
        encoded = None
        if type(value) not in IMMUTABLE and self._copies:
            value, encoded = ENCODED, encode(value)
        with self._lock:
            entry = self._entries.get(storage_key)
            if entry is None or self._max_bytes is not None or self._index.due <= now:
                self._store(storage_key, value, encoded, expires_at, now)
            else:
                # BoundedMap.replace() without a bound in bytes, in its order.
                if encoded is not None:
                    entry.encoded = encoded
                    entry.value = value
                else:
                    entry.value = value
                    entry.encoded = None
                entry.expires_at = expires_at
                if expires_at < entry.indexed:
                    self._index.add(entry)
        self._counters.sets += 1

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
                if entry.expires_at > timeouts.now():
                    value = entry.value
                    if value is ENCODED and type(encoded := entry.encoded) is bytes:
                        value = loads(encoded)
                    if value is not ENCODED:
                        freq = entry.freq
                        if freq < MOST_HITS:
                            entry.freq = freq + 1
                        self._counters.hits += 1
                        return value
            except Exception:  # noqa: BLE001, S110 -- absent, or not readable, which what follows finds out, too
                pass
        return BaseCache.get_or_set(
            self, key, default, timeout, version, tags, stale_while_revalidate, stale_if_error, retry_pause,
            error_timeout, soft_timeout, hard_timeout, early, jitter,
        )  # fmt: skip

    # Values -----------------------------------------------------------------------------------

    def _decoded(self, entry: Entry) -> Any:
        """Return the object of an entry whose bytes are kept, or MISSING."""
        encoded = entry.encoded
        if encoded is None:
            # Overwritten or removed while being looked at: look again, with no writer about.
            with self._lock:
                value, encoded = entry.value, entry.encoded
            if encoded is None:
                return MISSING if value is ENCODED else value
        try:
            return thawed(encoded)
        except Exception:  # noqa: BLE001 -- a class that has changed or gone can fail in any way: a counted miss
            return self._unreadable()

    def _unreadable(self) -> Any:
        self._counters.errors += 1
        return MISSING

    def _freeze(self, storage_key: str, value: Any) -> tuple[Any, Any]:
        return frozen(value, copies=self._copies)

    def _thaw(self, storage_key: str, kept: tuple[Any, Any]) -> Any:
        value, encoded = kept
        return value if encoded is None else thawed(encoded)

    def _store(self, storage_key: str, value: Any, encoded: Any, expires_at: float, now: float) -> None:
        """Insert or overwrite, under the lock."""
        bounded, size = self._bounded, 0
        if storage_key.startswith(TAG_PREFIX):
            bounded = self._tags
            if bounded.max_entries != self._max_tags:
                bounded.max_entries = self._max_tags
        else:
            if bounded.max_entries != self._max_entries or bounded.max_bytes != self._max_bytes:
                self._impose_bounds()
            if self._max_bytes is not None:
                size = entry_size(storage_key, value, encoded)
                if not bounded.fits(size):
                    raise ValueTooLargeError(
                        f"The value of key {storage_key!r} takes {size} bytes, more than OPTIONS['max_bytes'] "
                        f"({self._max_bytes}) allows for the whole cache; raise max_bytes or store less."
                    )
            bounded.cull_frequency = self._cull_frequency
        entry = bounded.entries.get(storage_key)
        if entry is None:
            bounded.insert(storage_key, value, encoded, expires_at, size, now)
        else:
            bounded.replace(entry, value, encoded, expires_at, size, now)

    def _missed(self, storage_key: str) -> None:
        """Let eviction learn of a read that found nothing."""
        hashed, ghosts = hash(storage_key), self._ghosts
        if hashed in ghosts.recent or hashed in ghosts.previous:
            with self._lock:
                self._bounded.miss(storage_key)

    def _map_of(self, storage_key: str) -> BoundedMap:
        return self._tags if storage_key.startswith(TAG_PREFIX) else self._bounded

    def _impose_bounds(self) -> None:
        """Make the shared entries keep this handle's bounds."""
        bounded = self._bounded
        if self._max_bytes is not None and bounded.max_bytes is None:
            # Sizes were not needed until now.
            for entry in bounded.entries.values():
                size = entry_size(entry.key, entry.value, entry.encoded)
                bounded.bytes_used += size - entry.size
                entry.size = size
        bounded.max_entries, bounded.max_bytes = self._max_entries, self._max_bytes

    def _live(self, storage_key: str) -> Entry | None:
        entry = self._entries.get(storage_key) or self._tags.entries.get(storage_key)
        return None if entry is None or entry.expires_at <= timeouts.now() else entry

    # Hooks ------------------------------------------------------------------------------------

    def _get(self, storage_key: str) -> Any:
        entry = self._entries.get(storage_key) or self._tags.entries.get(storage_key)
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
        except Exception:  # noqa: BLE001 -- as in _decoded()
            return self._unreadable()

    def _get_many(self, storage_keys: Sequence[str]) -> dict[str, Any]:
        found = ((storage_key, self._get(storage_key)) for storage_key in storage_keys)
        return {storage_key: value for storage_key, value in found if value is not MISSING}

    def _set_many(self, values: Mapping[str, Any], expires_at: float) -> Sequence[str]:
        kept = {storage_key: frozen(value, copies=self._copies) for storage_key, value in values.items()}
        now = timeouts.now()
        with self._lock:
            for storage_key, (value, encoded) in kept.items():
                self._store(storage_key, value, encoded, expires_at, now)
        return []

    def _add(self, storage_key: str, value: Any, expires_at: float) -> Any:
        value, encoded = frozen(value, copies=self._copies)
        with self._lock:
            live = self._live(storage_key)
            if live is not None:
                return LOOK if type(live.encoded) in WITH_CONDITIONS else False
            self._store(storage_key, value, encoded, expires_at, timeouts.now())
            return True

    def _delete_many(self, storage_keys: Sequence[str]) -> int:
        with self._lock:
            live = sum(self._live(storage_key) is not None for storage_key in storage_keys)
            for storage_key in storage_keys:
                self._map_of(storage_key).delete(storage_key)
            return live

    def _touch(self, storage_key: str, expires_at: float) -> Any:
        with self._lock:
            entry = self._live(storage_key)
            if entry is None:
                return False
            if type(entry.encoded) in WITH_CONDITIONS:
                return LOOK
            self._map_of(storage_key).touch(entry, expires_at)
            return True

    def _incr(self, storage_key: str, delta: float) -> float:
        with self._lock:
            entry = self._live(storage_key)
            if entry is None:
                raise KeyError(storage_key)
            value = entry.value
            if not isinstance(value, int | float):
                raise ValueTypeError(
                    f"The value of key {storage_key!r} is not a number; incr() and decr() need an int or a float."
                )
            entry.value = value + delta
            return entry.value

    def _expiry(self, storage_key: str) -> Any:
        entry = self._live(storage_key)
        if entry is None:
            return None
        return LOOK if type(entry.encoded) in WITH_CONDITIONS else entry.expires_at

    def _rename(self, storage_key: str, new_storage_key: str) -> Any:
        with self._lock:
            entry = self._live(storage_key)
            if entry is None:
                return False
            if type(entry.encoded) in WITH_CONDITIONS:
                return LOOK
            value, encoded, expires_at = entry.value, entry.encoded, entry.expires_at
            self._bounded.delete(storage_key)
            self._store(new_storage_key, value, encoded, expires_at, timeouts.now())
            return True

    def _compare_delete(self, storage_key: str, expected: Any) -> bool:
        with self._lock:
            return bool(self._get_locked(storage_key) == expected) and self._map_of(storage_key).delete(storage_key)

    def _compare_set(self, storage_key: str, expected: Any, value: Any, expires_at: float) -> bool:
        kept = frozen(value, copies=self._copies)
        with self._lock:
            if self._get_locked(storage_key) != expected:
                return False
            self._store(storage_key, *kept, expires_at, timeouts.now())
            return True

    def _get_locked(self, storage_key: str) -> Any:
        entry = self._live(storage_key)
        if entry is None:
            return MISSING
        return entry.value if entry.encoded is None else self._decoded(entry)

    def _locking(self) -> StorageHooks:
        return self._engine.locks

    def _clear(self) -> None:
        with self._lock:
            for bounded in (self._bounded, self._tags):
                doomed = [storage_key for storage_key in bounded.entries if self._key_space.owns(storage_key)]
                if len(doomed) == len(bounded):
                    bounded.clear()
                for storage_key in doomed:
                    bounded.delete(storage_key)

    def _scan(self, start: str) -> Iterator[str]:
        now = timeouts.now()
        with self._lock:
            live = [
                Conditional(entry.key) if type(entry.encoded) in WITH_CONDITIONS else entry.key
                for entry in self._entries.values()
                if entry.expires_at > now and entry.key.startswith(start)
            ]
        return iter(live)

    def _prune(self) -> int:
        with self._lock:
            now = timeouts.now()
            self._tags.sweep(now)
            return self._bounded.sweep(now)

    def _usage(self) -> tuple[int | None, int | None]:
        with self._lock:
            self._counters.evictions = self._bounded.evictions
            self._counters.expirations = self._bounded.expirations
            if self._bounded.max_bytes is not None:
                return len(self._entries), self._bounded.bytes_used
            sizes = (entry_size(entry.key, entry.value, entry.encoded) for entry in self._entries.values())
            return len(self._entries), sum(sizes)

    def _check_invariants(self) -> None:
        """Raise AssertionError if the entries and their queues disagree: for tests."""
        with self._lock:
            self._bounded.check_invariants()
            self._tags.check_invariants()
