"""BaseCache: the whole public API of a cache, on the hooks of a storage.

Names, order of parameters and defaults are those of Django's BaseCache, async twins included; Storeroom's additions are
keyword-only or have names of their own.
"""

import operator
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar, overload

from storeroom import storage, timeouts
from storeroom.base.backend_class import check_class
from storeroom.base.counters import ignored, key_not_found
from storeroom.base.listing import ListingCache
from storeroom.exceptions import ReentrantUseError, SerializationError, StorageError, ValueTooLargeError
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import LOOK, MISSING, StorageHooks
from storeroom.storage.steps import Steps, arun, run
from storeroom.timeouts import AT_ONCE, DEFAULT_TIMEOUT, LONGEST_TIMEOUT, NEVER, NUMBERS, Moment, Timeout

if TYPE_CHECKING:
    from storeroom.base.explanation import Explanation

__all__ = ["BaseCache"]

D = TypeVar("D")


class BaseCache(ListingCache):
    """A cache: the API of Django's BaseCache over eight hooks.

    A backend is built as ``Class(location, params)``, by Django or by Storeroom, where `params` is an alias's dict
    without BACKEND and LOCATION. An instance is a light handle: tables and pools belong to an engine that outlives it.

    Attributes:
        options: the backend's own, by name; None to pass everything through.
        default_timeout: seconds, None for "never"; used where no timeout is passed.
        key_prefix: put before every key.
        version: the keys' default version.
        key_func: makes a storage key of key, prefix and version.
    """

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        """See that a backend can be used, if it is not `abstract`: to be derived from, or a part of another cache.

        Raises:
            TypeError: a hook is missing, or the constructor does not fit.
        """
        super().__init_subclass__(**kwargs)
        if not abstract:
            check_class(cls)

    @overload
    def get(self, key: object, default: None = ..., version: int | None = ...) -> Any | None: ...
    @overload
    def get(self, key: object, default: D, version: int | None = ...) -> Any | D: ...
    def get(self, key: object, default: Any = None, version: int | None = None) -> Any:
        """Return the value stored under the key, or `default` if there is none."""
        hooks, head = self._overlay or self, self._head
        # As _storage_key(), here and in set(), without the call.
        storage_key = f"{head}{key}" if version is None and head is not None else self._storage_key(key, version)
        value = hooks._get(storage_key)
        if type(value) is Envelope:
            value = run(storage.conditions.opened(hooks, value))
        if value is MISSING:
            return self._counted(key, value, default)
        self._counters.hits += 1  # as _counted(), too
        if (families := self._hit_families) is not None:
            families.of(key).hits += 1
        return value

    @overload
    async def aget(self, key: object, default: None = ..., version: int | None = ...) -> Any | None: ...
    @overload
    async def aget(self, key: object, default: D, version: int | None = ...) -> Any | D: ...
    async def aget(self, key: object, default: Any = None, version: int | None = None) -> Any:
        """Return the value stored under the key, or `default` if there is none. See get()."""
        hooks = self._overlay or self
        value = await hooks._aget(self._storage_key(key, version))
        if type(value) is Envelope:
            value = await arun(storage.conditions.opened(hooks, value))
        return self._counted(key, value, default)

    def _counted(self, key: object, value: Any, default: Any) -> Any:
        if value is MISSING:
            self._counters.misses += 1
            self._pass_by()
            if (families := self._families) is not None:
                families.of(key).misses += 1
            return default
        self._counters.hits += 1
        if (families := self._hit_families) is not None:
            families.of(key).hits += 1
        return value

    def set(
        self, key: object, value: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None, *,
        tags: Iterable[object] = (),
    ) -> None:  # fmt: skip
        """Store the value; with a timeout of zero or less, remove the entry.

        Args:
            key: the key.
            value: the value.
            timeout: for how long it is stored: seconds, a timedelta, words such as "5m", or None for ever.
            version: of the key.
            tags: names by which invalidate_tags() makes it absent.

        Raises:
            SerializationError: the value could not be read back if it were stored. The entry stays as it was.
            ValueTooLargeError: the storage cannot hold the value. The entry is removed, as its value is an older one.
            InvalidTimeoutError: the timeout has no meaning.
        """
        hooks, head = self._overlay or self, self._head
        storage_key = f"{head}{key}" if version is None and head is not None else self._storage_key(key, version)
        # As _expires_at(), too.
        seconds: Any = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        is_plain = type(seconds) in NUMBERS and 0 < seconds < LONGEST_TIMEOUT
        expires_at = timeouts.now() + seconds if is_plain else NEVER if seconds is None else self._expires_at(timeout)
        if expires_at == AT_ONCE:
            hooks._delete(storage_key)
            return
        if tags:
            keys = self._tag_keys(tags)
            try:
                value = run(self._tagged(hooks, storage_key, value, expires_at, keys))
            except ReentrantUseError:
                self._tag_later({storage_key: value}, expires_at, keys)
                return
            if value is MISSING:
                return
        try:
            if hooks._set(storage_key, value, expires_at):
                self._counters.sets += 1  # as _counted_set()
                if (families := self._families) is not None:
                    families.of(key).sets += 1
            else:
                storage.unstored.remember(self.engine, storage_key, storage.unstored.NOT_TAKEN)
        except (SerializationError, ValueTooLargeError) as error:
            run(self._refused(hooks, key, storage_key, value, error))

    async def aset(
        self, key: object, value: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None, *,
        tags: Iterable[object] = (),
    ) -> None:  # fmt: skip
        """Store the value; with a timeout of zero or less, remove the entry. See set()."""
        storage_key, expires_at = self._storage_key(key, version), self._expires_at(timeout)
        hooks = self._overlay or self
        if expires_at == AT_ONCE:
            await hooks._adelete(storage_key)
            return
        if tags:
            value = await arun(self._tagged(hooks, storage_key, value, expires_at, self._tag_keys(tags)))
            if value is MISSING:
                return
        try:
            if not self._counted_set(key, await hooks._aset(storage_key, value, expires_at)):
                storage.unstored.remember(self.engine, storage_key, storage.unstored.NOT_TAKEN)
        except (SerializationError, ValueTooLargeError) as error:
            await arun(self._refused(hooks, key, storage_key, value, error))

    def _refused(self, hooks: StorageHooks, key: object, storage_key: str, value: Any, error: Exception) -> Steps[None]:
        """Raise the error of a set(), unless Django has what it stores a copy of.

        The older value is removed but for a mistake of the program.
        """
        returns = self.settings.options.get("on_unstorable") != "raise"
        is_copy = returns and storage.unstored.note_copy(self._counters, key, value, error)
        storage.unstored.remember(self.engine, storage_key, error)
        if not is_copy:
            self._counters.refuse(storage.unstored.reason_of(error))
        if is_copy or isinstance(error, ValueTooLargeError):
            yield hooks, "_delete", (storage_key,)
        try:
            if not is_copy:
                raise error
        finally:
            del error  # its traceback holds this frame

    def _tagged(
        self, hooks: StorageHooks, storage_key: str, value: Any, expires_at: float, keys: Sequence[str]
    ) -> Steps[Any]:
        """Return the value in an envelope with tags; MISSING, with the older one removed, if they cannot be written."""
        try:
            value = yield from storage.tags.tagged(hooks, value, expires_at, keys)
        except StorageError:
            with suppress(StorageError):
                yield hooks, "_delete", (storage_key,)
            raise
        if value is MISSING:
            yield hooks, "_delete", (storage_key,)
        return value

    def add(self, key: object, value: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Store the value unless the key is live. Atomic. Return whether it was stored.

        With a timeout of zero or less nothing is stored, and the result says whether the key was free.
        """
        storage_key, expires_at = self._storage_key(key, version), self._expires_at(timeout)
        if expires_at == AT_ONCE:
            return not self._is_there(storage_key)
        hooks = self._overlay or self
        try:
            added = hooks._add(storage_key, value, expires_at)
        except (SerializationError, ValueTooLargeError) as error:
            storage.unstored.remember(self.engine, storage_key, error)
            raise
        if added is LOOK or not (added or hooks.sees_envelopes):
            added = run(storage.conditions.add_over(hooks, storage_key, value, expires_at))
        return self._counted_set(key, added)

    async def aadd(
        self, key: object, value: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """Store the value unless the key is live. Atomic. Return whether it was stored. See add()."""
        storage_key, expires_at = self._storage_key(key, version), self._expires_at(timeout)
        if expires_at == AT_ONCE:
            return not await self._ais_there(storage_key)
        hooks = self._overlay or self
        try:
            added = await hooks._aadd(storage_key, value, expires_at)
        except (SerializationError, ValueTooLargeError) as error:
            storage.unstored.remember(self.engine, storage_key, error)
            raise
        if added is LOOK or not (added or hooks.sees_envelopes):
            added = await arun(storage.conditions.add_over(hooks, storage_key, value, expires_at))
        return self._counted_set(key, added)

    def _counted_set(self, key: object, stored: bool) -> bool:
        self._counters.sets += stored
        if stored and (families := self._families) is not None:
            families.of(key).sets += 1
        return stored

    def delete(self, key: object, version: int | None = None) -> bool:
        """Remove the entry. Return whether there was a live one."""
        return self._counted_deletes((self._overlay or self)._delete(self._storage_key(key, version))) > 0

    async def adelete(self, key: object, version: int | None = None) -> bool:
        """Remove the entry. Return whether there was a live one. See delete()."""
        return self._counted_deletes(await (self._overlay or self)._adelete(self._storage_key(key, version))) > 0

    def touch(self, key: object, timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Give a live entry a new timeout. Atomic. Return False, reviving nothing, if there is none."""
        return self._touch_until(self._storage_key(key, version), self._expires_at(timeout))

    async def atouch(self, key: object, timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Give a live entry a new timeout. Atomic. Return False if there is none. See touch()."""
        return await self._atouch_until(self._storage_key(key, version), self._expires_at(timeout))

    def expire_at(self, key: object, when: Moment, version: int | None = None) -> bool:
        """Let a live entry expire at a point in time: epoch seconds, an aware datetime, or None for never.

        A time in the past removes the entry. Atomic. Return False if there is no entry.

        Raises:
            InvalidTimeoutError: the datetime has no time zone, or `when` is no time at all.
        """
        return self._touch_until(self._storage_key(key, version), timeouts.epoch(when))

    async def aexpire_at(self, key: object, when: Moment, version: int | None = None) -> bool:
        """Let a live entry expire at a point in time: epoch seconds, an aware datetime, or None for never.

        See expire_at().
        """
        return await self._atouch_until(self._storage_key(key, version), timeouts.epoch(when))

    # The storage is asked first, as a call: steps cost more than a touch in local memory does.

    def _touch_until(self, storage_key: str, expires_at: float) -> bool:
        hooks = self._overlay or self
        if expires_at <= timeouts.now():
            return hooks._delete(storage_key)
        touched = hooks._touch(storage_key, expires_at) if hooks.sees_envelopes else LOOK
        if type(touched) is bool:
            return touched
        return run(storage.conditions.touch(hooks, storage_key, expires_at, touched))

    async def _atouch_until(self, storage_key: str, expires_at: float) -> bool:
        hooks = self._overlay or self
        if expires_at <= timeouts.now():
            return await hooks._adelete(storage_key)
        touched = await hooks._atouch(storage_key, expires_at) if hooks.sees_envelopes else LOOK
        if type(touched) is bool:
            return touched
        return await arun(storage.conditions.touch(hooks, storage_key, expires_at, touched))

    def has_key(self, key: object, version: int | None = None) -> bool:
        """Tell whether the key is live."""
        return self._is_there(self._storage_key(key, version))

    async def ahas_key(self, key: object, version: int | None = None) -> bool:
        """Tell whether the key is live. See has_key()."""
        return await self._ais_there(self._storage_key(key, version))

    def _is_there(self, storage_key: str) -> bool:
        hooks = self._overlay or self
        there = hooks._has(storage_key) if hooks.sees_envelopes else LOOK
        return there if type(there) is bool else run(storage.conditions.has(hooks, storage_key, there))

    async def _ais_there(self, storage_key: str) -> bool:
        hooks = self._overlay or self
        there = await hooks._ahas(storage_key) if hooks.sees_envelopes else LOOK
        return there if type(there) is bool else await arun(storage.conditions.has(hooks, storage_key, there))

    def __contains__(self, key: object) -> bool:
        """Tell whether the key is live, in the cache's own version."""
        return self.has_key(key)

    def ttl(self, key: object, version: int | None = None) -> float | None:
        """Return the seconds left to the entry: None if it never expires, 0 if it is not there."""
        hooks, storage_key = self._overlay or self, self._storage_key(key, version)
        expires_at: Any = hooks._expiry(storage_key) if hooks.sees_envelopes else LOOK
        return _seconds_left(run(storage.conditions.expiry(hooks, storage_key, expires_at)))

    async def attl(self, key: object, version: int | None = None) -> float | None:
        """Return the seconds left to the entry: None if it never expires, 0 if it is not there. See ttl()."""
        hooks, storage_key = self._overlay or self, self._storage_key(key, version)
        expires_at: Any = await hooks._aexpiry(storage_key) if hooks.sees_envelopes else LOOK
        return _seconds_left(await arun(storage.conditions.expiry(hooks, storage_key, expires_at)))

    def incr_version(self, key: object, delta: int = 1, version: int | None = None) -> int:
        """Move the entry to a version that is higher by delta; its timeout stays. Atomic. Return the new version.

        Raises:
            KeyNotFoundError: there is no entry of that version (a ValueError, as in Django).
        """
        return run(self._moving(key, delta, version))

    async def aincr_version(self, key: object, delta: int = 1, version: int | None = None) -> int:
        """Move the entry to a version that is higher by delta; its timeout stays. See incr_version()."""
        return await arun(self._moving(key, delta, version))

    def _moving(self, key: object, delta: int, version: int | None) -> Steps[int]:
        version = self._version if version is None else version
        old = self._storage_key(key, version)
        moved = operator.index(version) + _whole(delta)
        try:
            if not (yield from storage.conditions.move(self._overlay or self, old, self._storage_key(key, moved))):
                raise key_not_found(key)
        except StorageError as error:
            nothing: int = ignored(error)
            return nothing
        if self._remembers:
            for name in self._names_of(old):
                self.engine.remember(self._remembers).note(name, "moved")
        return moved

    def explain(self, key: object, version: int | None = None) -> "Explanation":
        """Return all that is known of an entry, and why a read would miss it, if it would.

        Nothing changes by it: no hit or miss is counted, and no entry is evicted, or kept for longer. Neither the value
        nor a secret is told. Cost: a read of each tier and tag, and some more reads for a key that is not there.

        Raises:
            InvalidCacheKey: the key is refused, by a validate_key() of the program's own.
        """
        return run(self._explaining(key, version))

    async def aexplain(self, key: object, version: int | None = None) -> "Explanation":
        """Return all that is known of an entry, and why a read would miss it, if it would. See explain()."""
        return await arun(self._explaining(key, version))

    def _explaining(self, key: object, version: int | None) -> "Steps[Explanation]":
        steps: Steps[Explanation] = import_module("storeroom.base.explaining").explaining(self, key, version)
        return steps

    def decr_version(self, key: object, delta: int = 1, version: int | None = None) -> int:
        """Move the entry to a version that is lower by delta. Return that version. See incr_version()."""
        return self.incr_version(key, -_whole(delta), version)

    async def adecr_version(self, key: object, delta: int = 1, version: int | None = None) -> int:
        """Move the entry to a version that is lower by delta. Return that version. See incr_version()."""
        return await self.aincr_version(key, -_whole(delta), version)

    def close(self, **kwargs: Any) -> None:
        """End a unit of work. Django calls this after each request; engines stay open for the next."""
        self._pass_by()

    async def aclose(self, **kwargs: Any) -> None:
        """End a unit of work, as close() does; engines stay open."""
        self.close(**kwargs)


def _whole(delta: int) -> int:
    """Return the delta of a version as a plain number: NumPy's have bounds, and some have no sign."""
    try:
        return operator.index(delta)
    except TypeError:
        raise TypeError(f"The delta of a version is {delta!r}; expected a whole number.") from None


def _seconds_left(expires_at: float | None) -> float | None:
    if expires_at is None:
        return 0
    return None if expires_at == NEVER else max(0.0, expires_at - timeouts.now())
