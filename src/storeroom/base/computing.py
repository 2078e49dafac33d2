"""The operations of a cache that compute missing values, once, and those that forget by tag."""

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from storeroom import computing, storage, timeouts
from storeroom.base.handle import Handle
from storeroom.config.freshness import AS_CONFIGURED, Freshness, FreshnessOptions
from storeroom.engines import background
from storeroom.keys import escaped
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING
from storeroom.storage.inline import WouldWaitError
from storeroom.storage.steps import Steps, arun, hand_over_to, run
from storeroom.timeouts import DEFAULT_TIMEOUT, Timeout

if TYPE_CHECKING:
    from storeroom.computing.one_key import Computation
    from storeroom.computing.work import Terms

__all__ = ["ComputedCache", "TimeoutOf"]

T = TypeVar("T")
V = TypeVar("V")

hand_over_to(background.submit)

TimeoutOf = Callable[[Any], Timeout]
"""Decides the timeout of a value that was computed; for get_or_set_many(), of the dict of them."""


class ComputedCache(Handle):
    """The operations that compute, and those on tags."""

    # The options of get_or_set() are plain parameters: an asterisk in the signature would cost a fifth of a hit in
    # memory (benchmarks: "locmem get_or_set, warm"). The storage key is made here for the same reason.

    @overload
    def get_or_set(
        self, key: object, default: Callable[[], V], timeout: Timeout | TimeoutOf = ...,
        version: int | None = ..., tags: Iterable[object] = ..., **freshness: Unpack[FreshnessOptions],
    ) -> V: ...  # fmt: skip
    @overload
    def get_or_set(
        self, key: object, default: V, timeout: Timeout | TimeoutOf = ...,
        version: int | None = ..., tags: Iterable[object] = ..., **freshness: Unpack[FreshnessOptions],
    ) -> V: ...  # fmt: skip
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
        """Return the value stored, or compute, store and return it.

        Among all threads, tasks and processes that share the storage one computes; the others get its result. An entry
        that is deleted or invalidated while it computes is not put back by it.

        Args:
            key: the key.
            default: a callable without arguments that computes the value, or the value itself.
            timeout: for the value that is stored (seconds, a timedelta, words such as "5m", or None for ever), or a
                function of the value that returns it.
            version: of the key.
            tags: of the entry that is stored: see invalidate_tags().
            stale_while_revalidate: this and the next ones bound the value's age: see FreshnessOptions. Give them by
                name.
            stale_if_error: see there.
            retry_pause: see there.
            error_timeout: see there.
            soft_timeout: see there.
            hard_timeout: see there.
            early: see there.
            jitter: see there.

        Raises:
            ComputationCycleError: the computation asks for its own key.
            ComputationTimeoutError: it takes longer than `hard_timeout`.
            Exception: any error of the computation, also where others of this process waited; nothing is stored then.
        """
        hooks = self._overlay or self
        if version is None and self._head is not None:
            storage_key = f"{self._head}{key}"
        else:
            storage_key = self._storage_key(key, version)
        found = hooks._get(storage_key)
        if found is not MISSING and type(found) is not Envelope:
            self._counters.reused += 1
            if (families := self._hit_families) is not None:
                families.of(key).hits += 1
            return found
        options = self._freshness.given(
            stale_while_revalidate, stale_if_error, retry_pause, error_timeout, soft_timeout, hard_timeout, early,
            jitter,
        )  # fmt: skip
        return run(self._answering(storage_key, found, options, key, default, timeout, tags, blocking=True))

    @overload
    async def aget_or_set(
        self, key: object, default: Callable[[], Awaitable[V]], timeout: Timeout | TimeoutOf = ...,
        version: int | None = ..., tags: Iterable[object] = ..., **freshness: Unpack[FreshnessOptions],
    ) -> V: ...  # fmt: skip
    @overload
    async def aget_or_set(
        self, key: object, default: Callable[[], V], timeout: Timeout | TimeoutOf = ...,
        version: int | None = ..., tags: Iterable[object] = ..., **freshness: Unpack[FreshnessOptions],
    ) -> V: ...  # fmt: skip
    @overload
    async def aget_or_set(
        self, key: object, default: V, timeout: Timeout | TimeoutOf = ...,
        version: int | None = ..., tags: Iterable[object] = ..., **freshness: Unpack[FreshnessOptions],
    ) -> V: ...  # fmt: skip
    async def aget_or_set(
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
        """Return the value stored, or compute, store and return it.

        See get_or_set(); `default` may also be a coroutine function, or any callable that returns an awaitable.
        """
        hooks = self._overlay or self
        if version is None and self._head is not None:
            storage_key = f"{self._head}{key}"
        else:
            storage_key = self._storage_key(key, version)
        try:
            found = hooks._get(storage_key) if hooks.async_inline else await hooks._aget(storage_key)
        except WouldWaitError:
            found = await hooks._aget(storage_key)
        if found is not MISSING and type(found) is not Envelope:
            self._counters.reused += 1
            if (families := self._hit_families) is not None:
                families.of(key).hits += 1
            return found
        options = self._freshness.given(
            stale_while_revalidate, stale_if_error, retry_pause, error_timeout, soft_timeout, hard_timeout, early,
            jitter,
        )  # fmt: skip
        return await arun(self._answering(storage_key, found, options, key, default, timeout, tags, blocking=False))

    def _answering(
        self, storage_key: str, found: Any, options: Freshness, key: object, default: Any, timeout: Any,
        tags: Iterable[object], *, blocking: bool,
    ) -> Steps[Any]:  # fmt: skip
        """Serve or compute, for an entry that is absent, or has conditions."""
        decision = yield from computing.serving.judge(self._overlay or self, storage_key, found, options)
        if decision is computing.decision.Decision.SERVE:
            computing.serving.note_served(self._counters, self._hit_families, key, found)
            return found.value
        work = self._computation(storage_key, key, default, timeout, tags, options)
        return (yield from computing.serving.obtain(work, found, decision, blocking=blocking))

    @overload
    def refresh(
        self, key: object, default: Callable[[], V], timeout: Timeout | TimeoutOf = ...,
        version: int | None = ..., *, tags: Iterable[object] = ..., **freshness: Unpack[FreshnessOptions],
    ) -> V: ...  # fmt: skip
    @overload
    def refresh(
        self, key: object, default: V, timeout: Timeout | TimeoutOf = ...,
        version: int | None = ..., *, tags: Iterable[object] = ..., **freshness: Unpack[FreshnessOptions],
    ) -> V: ...  # fmt: skip
    def refresh(
        self, key: object, default: Any, timeout: Timeout | TimeoutOf = DEFAULT_TIMEOUT, version: int | None = None,
        *, tags: Iterable[object] = (), **freshness: Unpack[FreshnessOptions],
    ) -> Any:  # fmt: skip
        """Compute, store and return a value, whatever is stored: get_or_set() that does not look first.

        While it computes, others are served the value that is there, if there is one; it stays if the computation
        fails. An entry that is deleted or invalidated meanwhile is not put back, and one that is set meanwhile is not
        replaced; the caller gets the computed value all the same. A timeout of zero removes the entry.

        The arguments are those of get_or_set(); `soft_timeout` and `hard_timeout` do not apply here.

        Raises:
            ComputationCycleError: it is called within the key's own computation.
            Exception: any error of the computation.
        """
        return run(self._anew(key, default, timeout, version, tags, freshness))

    @overload
    async def arefresh(
        self, key: object, default: Callable[[], Awaitable[V]], timeout: Timeout | TimeoutOf = ...,
        version: int | None = ..., *, tags: Iterable[object] = ..., **freshness: Unpack[FreshnessOptions],
    ) -> V: ...  # fmt: skip
    @overload
    async def arefresh(
        self, key: object, default: Callable[[], V], timeout: Timeout | TimeoutOf = ...,
        version: int | None = ..., *, tags: Iterable[object] = ..., **freshness: Unpack[FreshnessOptions],
    ) -> V: ...  # fmt: skip
    @overload
    async def arefresh(
        self, key: object, default: V, timeout: Timeout | TimeoutOf = ...,
        version: int | None = ..., *, tags: Iterable[object] = ..., **freshness: Unpack[FreshnessOptions],
    ) -> V: ...  # fmt: skip
    async def arefresh(
        self, key: object, default: Any, timeout: Timeout | TimeoutOf = DEFAULT_TIMEOUT, version: int | None = None,
        *, tags: Iterable[object] = (), **freshness: Unpack[FreshnessOptions],
    ) -> Any:  # fmt: skip
        """Compute, store and return a value, whatever is stored: get_or_set() that does not look first.

        See refresh(); `default` may also be a coroutine function, or any callable that returns an awaitable.
        """
        return await arun(self._anew(key, default, timeout, version, tags, freshness))

    def _anew(
        self, key: object, default: Any, timeout: Any, version: int | None, tags: Iterable[object],
        freshness: Mapping[str, Any],
    ) -> Steps[Any]:  # fmt: skip
        options, storage_key = self._freshness.but(freshness), self._storage_key(key, version)
        work = self._computation(storage_key, key, default, timeout, tags, options)
        return computing.stampede.compute_anew(work)

    def get_or_set_many(
        self, keys: Iterable[T], compute_missing: Callable[[list[T]], Mapping[T, V]],
        timeout: Timeout | TimeoutOf = DEFAULT_TIMEOUT, version: int | None = None, *, tags: Iterable[object] = (),
        **freshness: Unpack[FreshnessOptions],
    ) -> dict[T, V]:  # fmt: skip
        """Return the values of the keys, all missing ones computed by one call and stored by one write.

        Each key is computed once, as by get_or_set(): keys that another caller computes already, this one leaves out
        of its call, and waits for. Entries that are deleted or invalidated meanwhile are not put back.

        Args:
            keys: the keys.
            compute_missing: called with the list of missing keys; returns a dict of their values. A key that it leaves
                out has no value, and is asked for again the next time.
            timeout: for the values that are stored, or a function of their dict that returns it.
            version: of the keys.
            tags: of the entries that are stored: see invalidate_tags().
            **freshness: bounds the values' age: see FreshnessOptions.

        Raises:
            As get_or_set(); `soft_timeout` and `hard_timeout` do not apply here.
        """
        return run(self._answering_many(keys, compute_missing, timeout, version, tags, freshness, blocking=True))

    async def aget_or_set_many(
        self, keys: Iterable[T], compute_missing: Callable[[list[T]], Mapping[T, V] | Awaitable[Mapping[T, V]]],
        timeout: Timeout | TimeoutOf = DEFAULT_TIMEOUT, version: int | None = None, *, tags: Iterable[object] = (),
        **freshness: Unpack[FreshnessOptions],
    ) -> dict[T, V]:  # fmt: skip
        """Return the values of the keys, all missing ones computed by one call and stored by one write.

        See get_or_set_many(); `compute_missing` may also be a coroutine function.
        """
        return await arun(
            self._answering_many(keys, compute_missing, timeout, version, tags, freshness, blocking=False)
        )

    def _answering_many(
        self, keys: Iterable[T], compute: Any, timeout: Any, version: int | None, tags: Iterable[object],
        freshness: Mapping[str, Any], *, blocking: bool,
    ) -> Steps[dict[T, Any]]:  # fmt: skip
        typed, terms = self._storage_keys(keys, version), self._terms(timeout, self._freshness.but(freshness), tags)
        batch = computing.many_keys.Batch((self._overlay or self)._computing(), self._counters, terms, typed, compute)
        found = yield from computing.many_keys.obtain_many(batch, blocking=blocking)
        return {key: found[storage_key] for storage_key, key in typed.items() if storage_key in found}

    def _computation(
        self, storage_key: str, key: object, default: Any, timeout: Any, tags: Iterable[object], freshness: Freshness
    ) -> "Computation":
        hooks, terms = (self._overlay or self)._computing(), self._terms(timeout, freshness, tags)
        function = computing.work.Function(default, key)
        return computing.one_key.Computation(hooks, self._counters, terms, storage_key, function)

    def _terms(self, timeout: Any, freshness: Freshness, tags: Iterable[object]) -> "Terms":
        tag_keys = self._tag_keys(tags) if tags else ()
        raises, on_error, slow = map(self.settings.options.get, ("on_unstorable", "on_error", "slow_computation"))
        of_writes = on_error["write"] if isinstance(on_error, Mapping) else on_error
        return computing.work.Terms(
            self._expiry_of(timeout), freshness, tag_keys, raises == "raise", of_writes == "raise", self._families,
            self._hit_families, math.inf if slow is None else slow, self.settings.alias,
        )  # fmt: skip

    def _expiry_of(self, timeout: Any) -> Callable[[Any], float]:
        """Return a function of a value that tells when it expires, if it is stored now."""
        if callable(timeout):
            return lambda value: self._expires_at(timeout(value))
        if type(timeout) is not object and timeout is not DEFAULT_TIMEOUT:
            timeouts.parse_timeout(timeout)  # a mistake is told before the work is done
        return lambda _: self._expires_at(timeout)

    def _tag_keys(self, names: Iterable[object]) -> list[str]:
        return storage.tags.tag_keys(names, lambda tag: escaped(self._make(tag, "", 0)))

    def invalidate_tags(self, *tags: object) -> int:
        """Make all entries with one of these tags absent, in every version, at once: one write per tag.

        Return how many of the tags had a version: entries with them may have been there.

        Raises:
            StorageError: the server is out of reach, and the entries are live still.
        """
        return self._counted_deletes((self._overlay or self)._invalidate(self._tag_keys(tags)))

    async def ainvalidate_tags(self, *tags: object) -> int:
        """Make all entries with one of these tags absent, in every version, at once: one write per tag.

        See invalidate_tags().
        """
        return self._counted_deletes(await (self._overlay or self)._ainvalidate(self._tag_keys(tags)))
