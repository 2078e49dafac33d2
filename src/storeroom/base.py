"""BaseCache: the whole public API of a cache, on the hooks of a storage.

Names, order of parameters and defaults are those of Django's BaseCache, async twins
included; what Storeroom adds is keyword-only or has a name of its own. The methods
here know keys, versions and timeouts; `hooks.StorageHooks` says what is left to a
backend.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, ClassVar, TypeVar

from storeroom import config, stampede, timeouts
from storeroom.events import CacheStats, Counters
from storeroom.exceptions import KeyNotFoundError, NotSupportedError
from storeroom.hooks import MISSING, StorageHooks
from storeroom.keys import KeySpace, default_key_func
from storeroom.timeouts import AT_ONCE, DEFAULT_TIMEOUT, NEVER, Timeout

__all__ = ["BaseCache"]

T = TypeVar("T")


class BaseCache(StorageHooks):
    """A cache: the API of Django's BaseCache over eight hooks.

    A backend is built as ``Class(location, params)``, by Django or by Storeroom, where
    `params` is an alias's dict without BACKEND and LOCATION. An instance is a light
    handle: what is costly and shared (a table, an environment, a pool) belongs to an
    engine that outlives it.

    Attributes:
        options: what the backend accepts in OPTIONS; None to pass everything through.
        default_timeout: seconds, None for "never"; used where no timeout is passed.
        key_prefix: put before every key.
        version: the keys' default version.
        key_func: makes a storage key of key, prefix and version.
    """

    options: ClassVar[Mapping[str, config.Option] | None] = {}

    def __init__(self, params: Mapping[str, Any]) -> None:
        """Read the alias's settings.

        Raises:
            ConfigurationError: a setting is unknown or wrong.
        """
        settings = config.read_params(params, self.options, backend=type(self).__name__)
        self.settings = settings
        self.default_timeout = settings.timeout
        self._key_prefix = settings.key_prefix
        self._version: int = settings.version
        self.key_func = settings.key_function
        self._counters = Counters()
        self._flights = stampede.Flights()
        self._validates = type(self).validate_key is not BaseCache.validate_key
        self._learn_keys()

    # Keys -----------------------------------------------------------------------------------

    @property
    def key_prefix(self) -> str:
        """KEY_PREFIX of this cache."""
        return self._key_prefix

    @key_prefix.setter
    def key_prefix(self, key_prefix: str) -> None:
        self._key_prefix = key_prefix
        self._learn_keys()

    @property
    def version(self) -> int:
        """VERSION of this cache: the keys' version where none is passed."""
        return self._version

    @version.setter
    def version(self, version: int) -> None:
        self._version = version
        self._learn_keys()

    def _learn_keys(self) -> None:
        self._key_space = KeySpace(self.key_func, self._key_prefix)
        is_plain = (
            self.key_func is default_key_func
            and type(self).make_key is BaseCache.make_key
            and type(self).make_and_validate_key is BaseCache.make_and_validate_key
            and not self._validates
        )
        # Where nothing customises the keys, making one is a single concatenation.
        self._head = self._key_space.head(self._version) if is_plain else None

    def make_key(self, key: object, version: int | None = None) -> str:
        """Return the storage key: by default ``KEY_PREFIX:VERSION:key``."""
        return self.key_func(key, self._key_prefix, self._version if version is None else version)

    def validate_key(self, key: str) -> None:
        """Accept the storage key: every string is valid.

        A hook for subclasses that want to refuse some, by raising InvalidCacheKey.
        """

    def make_and_validate_key(self, key: object, version: int | None = None) -> str:
        """Return the storage key, after validate_key() has seen it."""
        storage_key = self.make_key(key, version=version)
        self.validate_key(storage_key)
        return storage_key

    def _storage_key(self, key: object, version: int | None) -> str:
        if version is None and self._head is not None:
            return f"{self._head}{key!s}"
        return self.make_and_validate_key(key, version)

    def _storage_keys(self, keys: Iterable[T], version: int | None) -> dict[str, T]:
        """Return storage key to the key that the caller typed."""
        return {self._storage_key(key, version): key for key in keys}

    # Timeouts -------------------------------------------------------------------------------

    def get_backend_timeout(self, timeout: Timeout = DEFAULT_TIMEOUT) -> float | None:
        """Return the epoch second at which an entry set now expires, or None for never."""
        expires_at = self._expires_at(timeout)
        return None if expires_at == NEVER else expires_at

    def _expires_at(self, timeout: Timeout) -> float:
        default = self.default_timeout
        if timeout is DEFAULT_TIMEOUT and default is not None and default > 0:
            return timeouts.now() + default  # what most writes ask for
        return timeouts.expires_at(timeout, self.default_timeout)

    # One entry ------------------------------------------------------------------------------

    def get(self, key: object, default: Any = None, version: int | None = None) -> Any:
        """Return the value stored under the key, or `default` if there is none."""
        return self._counted(self._get(self._storage_key(key, version)), default)

    async def aget(self, key: object, default: Any = None, version: int | None = None) -> Any:
        """See get()."""
        return self._counted(await self._aget(self._storage_key(key, version)), default)

    def _counted(self, value: Any, default: Any) -> Any:
        if value is MISSING:
            self._counters.misses += 1
            return default
        self._counters.hits += 1
        return value

    def set(self, key: object, value: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        """Store the value; with a timeout of zero or less, remove what was there.

        Raises:
            SerializationError: the value could not be read back if it were stored.
            InvalidTimeoutError: the timeout has no meaning.
        """
        storage_key, expires_at = self._storage_key(key, version), self._expires_at(timeout)
        if expires_at == AT_ONCE:
            self._delete(storage_key)
            return
        self._counters.sets += self._set(storage_key, value, expires_at)

    async def aset(
        self, key: object, value: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        """See set()."""
        storage_key, expires_at = self._storage_key(key, version), self._expires_at(timeout)
        if expires_at == AT_ONCE:
            await self._adelete(storage_key)
            return
        self._counters.sets += await self._aset(storage_key, value, expires_at)

    def add(self, key: object, value: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Store the value unless the key is live. Atomic. Return whether it was stored.

        With a timeout of zero or less nothing is stored, and the result says whether the
        key was free.
        """
        storage_key, expires_at = self._storage_key(key, version), self._expires_at(timeout)
        if expires_at == AT_ONCE:
            return not self._has(storage_key)
        return self._counted_set(self._add(storage_key, value, expires_at))

    async def aadd(
        self, key: object, value: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """See add()."""
        storage_key, expires_at = self._storage_key(key, version), self._expires_at(timeout)
        if expires_at == AT_ONCE:
            return not await self._ahas(storage_key)
        return self._counted_set(await self._aadd(storage_key, value, expires_at))

    def _counted_set(self, stored: bool) -> bool:
        self._counters.sets += stored
        return stored

    def delete(self, key: object, version: int | None = None) -> bool:
        """Remove the entry. Return whether there was a live one."""
        return self._counted_deletes(self._delete(self._storage_key(key, version))) > 0

    async def adelete(self, key: object, version: int | None = None) -> bool:
        """See delete()."""
        return self._counted_deletes(await self._adelete(self._storage_key(key, version))) > 0

    def _counted_deletes(self, deleted: int) -> int:
        self._counters.deletes += deleted
        return deleted

    def touch(self, key: object, timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Give a live entry a new timeout. Atomic. Return False, reviving nothing, if there is none."""
        return self._touch_until(self._storage_key(key, version), self._expires_at(timeout))

    async def atouch(self, key: object, timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """See touch()."""
        return await self._atouch_until(self._storage_key(key, version), self._expires_at(timeout))

    def expire_at(self, key: object, when: float | datetime | None, version: int | None = None) -> bool:
        """Let a live entry expire at a point in time: epoch seconds, an aware datetime, or None for never.

        A time in the past removes the entry. Atomic. Return False if there is no entry.

        Raises:
            InvalidTimeoutError: the datetime has no time zone, or `when` is no time at all.
        """
        return self._touch_until(self._storage_key(key, version), timeouts.epoch(when))

    async def aexpire_at(self, key: object, when: float | datetime | None, version: int | None = None) -> bool:
        """See expire_at()."""
        return await self._atouch_until(self._storage_key(key, version), timeouts.epoch(when))

    def _touch_until(self, storage_key: str, expires_at: float) -> bool:
        if expires_at <= timeouts.now():
            return self._delete(storage_key)
        return self._touch(storage_key, expires_at)

    async def _atouch_until(self, storage_key: str, expires_at: float) -> bool:
        if expires_at <= timeouts.now():
            return await self._adelete(storage_key)
        return await self._atouch(storage_key, expires_at)

    def has_key(self, key: object, version: int | None = None) -> bool:
        """Tell whether the key is live."""
        return self._has(self._storage_key(key, version))

    async def ahas_key(self, key: object, version: int | None = None) -> bool:
        """See has_key()."""
        return await self._ahas(self._storage_key(key, version))

    def __contains__(self, key: object) -> bool:
        """Tell whether the key is live, in the cache's own version."""
        return self.has_key(key)

    def ttl(self, key: object, version: int | None = None) -> float | None:
        """Return the seconds left to the entry: None if it never expires, 0 if it is not there."""
        return _seconds_left(self._expiry(self._storage_key(key, version)))

    async def attl(self, key: object, version: int | None = None) -> float | None:
        """See ttl()."""
        return _seconds_left(await self._aexpiry(self._storage_key(key, version)))

    # Counting -------------------------------------------------------------------------------

    def incr(self, key: object, delta: float = 1, version: int | None = None) -> Any:
        """Add delta to the number stored; its timeout stays. Atomic. Return the new number.

        Raises:
            KeyNotFoundError: there is no entry (a ValueError, as in Django).
            ValueTypeError: what is stored is not a number.
        """
        try:
            return self._incr(self._storage_key(key, version), delta)
        except KeyError:
            raise _key_not_found(key) from None

    async def aincr(self, key: object, delta: float = 1, version: int | None = None) -> Any:
        """See incr()."""
        try:
            return await self._aincr(self._storage_key(key, version), delta)
        except KeyError:
            raise _key_not_found(key) from None

    def decr(self, key: object, delta: float = 1, version: int | None = None) -> Any:
        """Subtract delta from the number stored: see incr()."""
        return self.incr(key, -delta, version=version)

    async def adecr(self, key: object, delta: float = 1, version: int | None = None) -> Any:
        """See decr()."""
        return await self.aincr(key, -delta, version=version)

    # Versions -------------------------------------------------------------------------------

    def incr_version(self, key: object, delta: int = 1, version: int | None = None) -> int:
        """Move the entry to a version that is higher by delta; its timeout stays. Atomic.

        Return the new version.

        Raises:
            KeyNotFoundError: there is no entry of that version (a ValueError, as in Django).
        """
        version = self._version if version is None else version
        old, new = self._storage_key(key, version), self._storage_key(key, version + delta)
        if not self._rename(old, new):
            raise _key_not_found(key)
        return version + delta

    async def aincr_version(self, key: object, delta: int = 1, version: int | None = None) -> int:
        """See incr_version()."""
        version = self._version if version is None else version
        old, new = self._storage_key(key, version), self._storage_key(key, version + delta)
        if not await self._arename(old, new):
            raise _key_not_found(key)
        return version + delta

    def decr_version(self, key: object, delta: int = 1, version: int | None = None) -> int:
        """Move the entry to a version that is lower by delta: see incr_version()."""
        return self.incr_version(key, -delta, version)

    async def adecr_version(self, key: object, delta: int = 1, version: int | None = None) -> int:
        """See decr_version()."""
        return await self.aincr_version(key, -delta, version)

    # Many entries ---------------------------------------------------------------------------

    def get_many(self, keys: Iterable[T], version: int | None = None) -> dict[T, Any]:
        """Return a dict from the keys given to their values; keys that are not live are absent from it."""
        typed = self._storage_keys(keys, version)
        return self._counted_many(typed, self._get_many(list(typed)))

    async def aget_many(self, keys: Iterable[T], version: int | None = None) -> dict[T, Any]:
        """See get_many()."""
        typed = self._storage_keys(keys, version)
        return self._counted_many(typed, await self._aget_many(list(typed)))

    def _counted_many(self, typed: dict[str, T], values: dict[str, Any]) -> dict[T, Any]:
        self._counters.hits += len(values)
        self._counters.misses += len(typed) - len(values)
        return {typed[storage_key]: value for storage_key, value in values.items()}

    def set_many(
        self, data: Mapping[T, Any], timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[T]:
        """Store all values. Return the list of keys that could not be stored."""
        typed, expires_at = self._storage_keys(data, version), self._expires_at(timeout)
        if expires_at == AT_ONCE:
            self._delete_many(list(typed))
            return []
        failed = self._set_many({storage_key: data[key] for storage_key, key in typed.items()}, expires_at)
        return self._counted_failures(typed, failed)

    async def aset_many(
        self, data: Mapping[T, Any], timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[T]:
        """See set_many()."""
        typed, expires_at = self._storage_keys(data, version), self._expires_at(timeout)
        if expires_at == AT_ONCE:
            await self._adelete_many(list(typed))
            return []
        values = {storage_key: data[key] for storage_key, key in typed.items()}
        return self._counted_failures(typed, await self._aset_many(values, expires_at))

    def _counted_failures(self, typed: dict[str, T], failed: Iterable[str]) -> list[T]:
        failures = [typed[storage_key] for storage_key in failed]
        self._counters.sets += len(typed) - len(failures)
        return failures

    def delete_many(self, keys: Iterable[object], version: int | None = None) -> None:
        """Remove all these entries."""
        self._counted_deletes(self._delete_many(list(self._storage_keys(keys, version))))

    async def adelete_many(self, keys: Iterable[object], version: int | None = None) -> None:
        """See delete_many()."""
        self._counted_deletes(await self._adelete_many(list(self._storage_keys(keys, version))))

    def clear(self) -> None:
        """Remove all entries of this cache: of its prefix, in every version, and nobody else's."""
        self._clear()

    async def aclear(self) -> None:
        """See clear()."""
        await self._aclear()

    # Get or compute -------------------------------------------------------------------------

    def get_or_set(
        self, key: object, default: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        """Return the value stored, or compute, store and return it.

        Among all threads, tasks and processes that share the storage one computes; the
        others get its result.

        Args:
            key: the key.
            default: a callable without arguments that computes the value, or the value itself.
            timeout: for the value that is stored.
            version: of the key.

        Raises:
            ComputationCycleError: the computation asks for its own key.
            Exception: whatever the computation raises, in its caller and in those who waited
                in the same process; nothing is stored then.
        """
        value = self.get(key, MISSING, version)
        if value is not MISSING:
            return value
        return stampede.compute_once(stampede.Computation(self, key, default, timeout, version))

    async def aget_or_set(
        self, key: object, default: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        """See get_or_set(); `default` may also be a coroutine function, or any callable that returns an awaitable."""
        value = await self.aget(key, MISSING, version)
        if value is not MISSING:
            return value
        return await stampede.acompute_once(stampede.Computation(self, key, default, timeout, version))

    # What is in it --------------------------------------------------------------------------

    def keys(self, prefix: str = "", version: int | None = None) -> list[str]:
        """Return the live keys that begin with `prefix`, as callers typed them, in no order.

        Raises:
            NotSupportedError: the storage cannot list its keys, or KEY_FUNCTION cannot be
                turned back (it hashes, say).
        """
        head = self._listing_head(version)
        return self._listed(self._scan(head + prefix), version)

    async def akeys(self, prefix: str = "", version: int | None = None) -> list[str]:
        """See keys()."""
        head = self._listing_head(version)
        return self._listed(await self._ascan(head + prefix), version)

    def count(self, version: int | None = None) -> int:
        """Return how many live entries keys() would list.

        Raises:
            NotSupportedError: as keys().
        """
        return len(self._listed(self._scan(self._listing_head(version)), version))

    async def acount(self, version: int | None = None) -> int:
        """See count()."""
        return len(self._listed(await self._ascan(self._listing_head(version)), version))

    def _listing_head(self, version: int | None) -> str:
        if not self._key_space.is_reversible:
            raise NotSupportedError(
                f"keys() and count() need to turn storage keys back into keys, which KEY_FUNCTION "
                f"{getattr(self.key_func, '__qualname__', self.key_func)!r} does not allow: it must keep prefix, "
                "version and key readable, one after the other."
            )
        return self._key_space.head(self._version if version is None else version)

    def _listed(self, storage_keys: Iterable[str], version: int | None) -> list[str]:
        version = self._version if version is None else version
        found = (self._key_space.caller_key(storage_key, version) for storage_key in storage_keys)
        return [key for key in found if key is not None]

    def prune(self) -> int:
        """Remove all expired entries now. Return how many were removed.

        No program needs to call this: expired entries never show, and go as room is needed.
        """
        return self._prune()

    async def aprune(self) -> int:
        """See prune()."""
        return await self._aprune()

    def stats(self) -> CacheStats:
        """Return what this cache's storage has counted and holds: see CacheStats."""
        entries, size = self._usage()
        return CacheStats(**self._counters.as_dict(), entries=entries, bytes=size)

    async def astats(self) -> CacheStats:
        """See stats()."""
        return await self._run(self.stats)

    def close(self, **kwargs: Any) -> None:
        """End a unit of work. Django calls this after each request; engines stay open for the next."""

    async def aclose(self, **kwargs: Any) -> None:
        """See close()."""
        self.close(**kwargs)


def _key_not_found(key: object) -> KeyNotFoundError:
    return KeyNotFoundError(f"Key {key!r} not found: it was never set, has expired or was evicted.")


def _seconds_left(expires_at: float | None) -> float | None:
    if expires_at is None:
        return 0
    return None if expires_at == NEVER else max(0.0, expires_at - timeouts.now())
