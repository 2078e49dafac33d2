"""NetworkCache: a cache whose storage can be out of reach, and what it answers then.

During an outage the alias's ``on_error`` decides:

===================  =====================================================================
``"miss"``           (default) reads miss, and writes that can say so say that nothing was
                     stored; what has no honest answer raises StorageError
``"raise"``          every operation raises StorageError
``"fallback:name"``  the cache of that alias answers instead, but for clear(), which raises
===================  =====================================================================

Only a failure to reach the server counts as an outage. A mistake of the program (a value
that cannot be stored, a counter that is not a number) raises as ever.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Final, NoReturn

from storeroom import config
from storeroom.base import BaseCache
from storeroom.engines import Engine
from storeroom.exceptions import ConfigurationError, StorageError, ValueTypeError
from storeroom.registry import caches
from storeroom.storage.hooks import MISSING, Swap
from storeroom.storage.outages import CircuitBreaker, are_answers_refused

__all__ = ["ANSWERS", "NETWORK_OPTIONS", "NetworkCache", "NetworkEngine"]

ANSWERS: Final[Mapping[str, Callable[..., Any]]] = {
    "get_many": lambda _storage_keys: {},
    "get_dated": lambda _storage_keys: {},
    "set_many": lambda values, _expires_at: list(values),
    "add": lambda *_: False,
    "delete_many": lambda _storage_keys: 0,
    "touch": lambda *_: False,
    "expiry": lambda _storage_key: None,
    "get": lambda _storage_key: MISSING,
    "set": lambda *_: False,
    "delete": lambda _storage_key: False,
    "has": lambda _storage_key: False,
    "compare_delete": lambda *_: False,
    "compare_set": lambda *_: False,
    "swap_many": lambda swaps: dict.fromkeys(swaps, False),
    "usage": lambda: (None, None),
}
"""What each hook answers during an outage under "miss": nothing is there, and nothing was stored."""

_WITHOUT_ANSWER: Final = ("incr", "rename", "clear", "scan", "prune")
"""Hooks that raise even under "miss": a counter that does not count, a clear() that did not happen,
a list of keys that is not the list."""

_WITHOUT_FALLBACK: Final = ("clear", "usage")
"""Hooks that no other cache answers: what was to be cleared comes back with the server, and what the
other cache holds beside is not ours to clear or to count."""

_ANSWERED: Final = (KeyError, ValueTypeError)
"""What a hook raises after the server has answered, that there is no entry, or none that can be counted on."""


def _on_error(value: Any) -> str:
    if value in ("miss", "raise") or (isinstance(value, str) and value.partition("fallback:")[2]):
        return str(value)
    raise ValueError('"miss", "raise" or "fallback:<alias>"')


NETWORK_OPTIONS: Final[Mapping[str, config.Option]] = {
    **config.CODEC_OPTIONS,
    "allowed_types": config.Option(
        config.unchecked,
        (),
        "Classes, or their dotted paths, that may be stored without a secret beside plain data. List only "
        "classes that are harmless to build from anything.",
    ),
    "on_error": config.Option(
        _on_error,
        "miss",
        'What happens while the server is out of reach: "miss", "raise" or "fallback:<alias>".',
    ),
    "socket_connect_timeout": config.Option(
        config.number(0.001), 1.0, "Seconds to wait for a connection before it counts as failed."
    ),
    "socket_timeout": config.Option(
        config.number(0.001), 1.0, "Seconds to wait for an answer before it counts as failed."
    ),
}
"""The options of every cache at the other end of a connection; those of the codec among them."""


class NetworkEngine(Engine):
    """An engine with a server behind it, and a circuit breaker before it.

    Attributes:
        breaker: of the server.
        refusals: writes for which the server had no room, which is no outage.
    """

    def __init__(self, name: str) -> None:
        """Note the server's name for the log; without password."""
        super().__init__()
        self.breaker = CircuitBreaker(name)
        self.refusals = 0

    def after_fork_in_child(self) -> None:
        """Forget the parent's connections, and what they said of the server."""
        super().after_fork_in_child()
        self.breaker.reset()


class NetworkCache(BaseCache):
    """BaseCache for storages behind a connection: every hook of a subclass follows the outage policy.

    A subclass writes its hooks as if the server were always there; their wrapping is done here, when the
    class is made. Its `__init__` sets `_engine` and `_outage_errors`.
    """

    _engine: NetworkEngine
    _outage_errors: tuple[type[BaseException], ...] = ()
    """What the driver raises when the server cannot be reached or does not answer in time."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Put the outage policy around the hooks that this class defines."""
        super().__init_subclass__(**kwargs)
        for name in (*ANSWERS, *_WITHOUT_ANSWER):
            if hook := cls.__dict__.get(f"_{name}"):
                setattr(cls, f"_{name}", _guarded(name, hook))
            if hook := cls.__dict__.get(f"_a{name}"):
                setattr(cls, f"_a{name}", _guarded_async(name, hook))

    def _lease(self, storage_key: str, seen: Any, mark: Any, expires_at: float) -> bool | None:
        """See StorageHooks: without a server, or one that has room, each process computes for itself.

        Nobody has a lease that could not be written, so that to wait for it would be to wait in vain.
        """
        before = self._setbacks()
        leased = super()._lease(storage_key, seen, mark, expires_at)
        return None if not leased and self._is_set_back(before) else leased

    async def _alease(self, storage_key: str, seen: Any, mark: Any, expires_at: float) -> bool | None:
        before = self._setbacks()
        leased = await super()._alease(storage_key, seen, mark, expires_at)
        return None if not leased and self._is_set_back(before) else leased

    def _lease_many(self, swaps: Mapping[str, Swap]) -> dict[str, bool | None]:
        """See _lease()."""
        before = self._setbacks()
        leased = super()._lease_many(swaps)
        return self._unknown_if_set_back(leased, before)

    async def _alease_many(self, swaps: Mapping[str, Swap]) -> dict[str, bool | None]:
        before = self._setbacks()
        leased = await super()._alease_many(swaps)
        return self._unknown_if_set_back(leased, before)

    def _unknown_if_set_back(self, leased: dict[str, bool | None], before: int) -> dict[str, bool | None]:
        if not self._is_set_back(before):
            return leased
        return {storage_key: is_leased or None for storage_key, is_leased in leased.items()}

    def _setbacks(self) -> int:
        """Return how often the server was out of reach, or had no room."""
        return self._engine.breaker.failures + self._engine.refusals

    def _is_set_back(self, before: int) -> bool:
        """Tell whether the server is out of reach, or was, or had no room, since `before`."""
        return self._engine.breaker.is_open or self._setbacks() > before

    def _invalidate(self, storage_keys: Sequence[str]) -> int:
        """See StorageHooks: entries that are live still, when the server is back, are not invalidated."""
        before = self._setbacks()
        removed = super()._invalidate(storage_keys)
        if self._is_set_back(before):
            self._raise("invalidate_tags", None)
        return removed

    async def _ainvalidate(self, storage_keys: Sequence[str]) -> int:
        before = self._setbacks()
        removed = await super()._ainvalidate(storage_keys)
        if self._is_set_back(before):
            self._raise("invalidate_tags", None)
        return removed

    # The policy -----------------------------------------------------------------------------

    def _fallback(self, name: str) -> Any:
        """Return the cache that answers for a hook during an outage, or None if none does."""
        if are_answers_refused():
            return None
        alias = self.settings.options["on_error"].partition("fallback:")[2]
        if not alias or name in _WITHOUT_FALLBACK:
            return None
        fallback = caches[alias]
        if not isinstance(fallback, BaseCache):
            raise ConfigurationError(
                f"OPTIONS['on_error'] is 'fallback:{alias}', and CACHES[{alias!r}] is a {type(fallback).__name__}; "
                "expected the alias of a cache of Storeroom's."
            )
        self._counters.errors += 1
        return fallback

    def _answer(self, name: str, args: tuple[Any, ...], error: BaseException | None) -> Any:
        """Return what the hook answers during an outage.

        Raises:
            StorageError: the policy is "raise", or there is no honest answer.
        """
        answer = ANSWERS.get(name)
        if name == "usage" and answer is not None:
            return answer(*args)  # who looks at the counters during an outage is to see them, and not to raise them
        self._counters.errors += 1
        if self.settings.options["on_error"] == "raise" or answer is None or are_answers_refused():
            self._raise(name, error)
        return answer(*args)

    def _without_room(self, error: StorageError, count: int = 1) -> bool:
        """Note that the server had no room for a write, which is no outage. Return that nothing was stored.

        Raises:
            StorageError: `error`: the policy is "raise", or who writes can do with nothing less, as a lock.
        """
        if self.settings.options["on_error"] == "raise" or are_answers_refused():
            raise error
        self._engine.refusals += count
        self._counters.errors += count
        return False

    def _raise(self, name: str, error: BaseException | None) -> NoReturn:
        cause = f"{type(error).__name__}: {error}" if error else "it failed a moment ago and is asked again soon"
        raise StorageError(
            f"{self._engine.breaker.name} is out of reach ({cause}), and {name}() has no answer without it "
            f"under OPTIONS['on_error'] {self.settings.options['on_error']!r}."
        ) from error


def _guarded(name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(hook)
    def guarded(self: NetworkCache, *args: Any) -> Any:
        breaker = self._engine.breaker
        failure: BaseException | None = None
        if breaker.allows():
            failures = breaker.failures
            try:
                result = hook(self, *args)
            except self._outage_errors as error:
                breaker.fail(error)
                failure = error
            except _ANSWERED:
                breaker.succeed()
                raise
            else:
                if breaker.failures == failures:
                    breaker.succeed()
                return result
        fallback = self._fallback(name)
        return self._answer(name, args, failure) if fallback is None else getattr(fallback, f"_{name}")(*args)

    return guarded


def _guarded_async(name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(hook)
    async def guarded(self: NetworkCache, *args: Any) -> Any:
        breaker = self._engine.breaker
        failure: BaseException | None = None
        if breaker.allows():
            failures = breaker.failures
            try:
                result = await hook(self, *args)
            except self._outage_errors as error:
                breaker.fail(error)
                failure = error
            except _ANSWERED:
                breaker.succeed()
                raise
            else:
                if breaker.failures == failures:
                    breaker.succeed()
                return result
        fallback = self._fallback(name)
        return self._answer(name, args, failure) if fallback is None else await getattr(fallback, f"_a{name}")(*args)

    return guarded
