"""Caches over a connection: their options, their connections, and their answers during an outage.

The alias's ``on_error`` decides on these answers: see docs/outages.md. Only a failure to reach the server is an outage;
a mistake of the program, such as a value that cannot be stored, raises as ever.
"""

import threading
import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final, Generic, NoReturn, TypeVar

from storeroom import config, registry
from storeroom.base import BaseCache
from storeroom.engines import Engine
from storeroom.exceptions import ConfigurationError, StorageError, ValueTypeError
from storeroom.storage.hooks import MISSING
from storeroom.storage.outages import CircuitBreaker, are_answers_refused

__all__ = ["NETWORK_OPTIONS", "Connections", "NetworkCache", "NetworkEngine", "carried", "ignored", "refused"]

C = TypeVar("C")

_ANSWERS: Final[Mapping[str, Callable[..., Any]]] = {
    "get": lambda _storage_key: MISSING,
    **dict.fromkeys(("get_many", "get_dated"), lambda _storage_keys: {}),
    **dict.fromkeys(("set", "add", "delete", "touch", "has", "compare_set", "compare_delete"), lambda *_: False),
    "set_many": lambda values, _expires_at: list(values),
    "delete_many": lambda _storage_keys: 0,
    "swap_many": lambda swaps: dict.fromkeys(swaps, False),
    "expiry": lambda _storage_key: None,
    "usage": lambda: (None, None),
}
"""Hook -> its answer during an outage under "miss": nothing is there, and nothing was stored."""

_WITHOUT_ANSWER: Final = ("incr", "rename", "clear", "scan", "prune")
"""Hooks that raise even under "miss", such as a counter that does not count and a clear() that did not happen."""

_WITHOUT_FALLBACK: Final = ("clear", "usage")
"""Hooks that no other cache answers: it holds entries of its own, which are not to be cleared or counted."""

_ANSWERED: Final = (KeyError, ValueTypeError)
"""Errors of a hook that show an answer of the server: there is no entry, or none that can be counted on."""


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


def refused(instead: str) -> config.Option:
    """Return an option that cannot be given; `instead` names its substitute."""

    def parse(_: Any) -> Any:
        raise ValueError(instead)

    return config.Option(parse, None, "Refused.")


def ignored(origin: str, meaning: str) -> config.Option:
    """Return an option of another backend whose effect is always there, so that nothing is left to be set."""
    return config.Option(config.unchecked, None, f"Accepted from {origin}, without effect: {meaning}.")


class Connections(Generic[C]):
    """The connections of one process to one server: a stack, so that few stay busy and the rest may idle out.

    Args:
        make: returns a connection that is not open yet.
        disconnect: closes one.
        limit: the most there may be.
        patience: seconds to wait for one when all are busy.
        busy_error: raised after that.
    """

    def __init__(
        self,
        make: Callable[[], C],
        disconnect: Callable[[C], None],
        limit: int,
        patience: float,
        busy_error: type[Exception],
    ) -> None:
        self._make, self._disconnect = make, disconnect
        self._limit, self._patience, self._busy_error = limit, patience, busy_error
        # A slot is an open connection, or None for the right to make one, so that the bound costs nothing.
        self._slots: list[C | None] = [None] * limit
        self._waiting = self._leaving = 0
        self._returned = threading.Condition()

    def take(self) -> tuple[C, bool]:
        """Return a connection that nobody else uses, and whether it has been open before."""
        try:
            connection = self._slots.pop()
        except IndexError:
            connection = self._wait()
        if connection is not None:
            return connection, True
        try:
            return self._make(), False
        except BaseException:
            self._vacate()
            raise

    def _wait(self) -> C | None:
        deadline = time.monotonic() + self._patience
        with self._returned:
            self._waiting += 1
            try:
                while True:
                    try:
                        return self._slots.pop()
                    except IndexError:
                        left = deadline - time.monotonic()
                    if left <= 0 or not self._returned.wait(left):
                        raise self._busy_error(
                            f"all {self._limit} connections of this process have been busy for {self._patience:g} s; "
                            "raise OPTIONS['max_connections']"
                        )
            finally:
                self._waiting -= 1

    @property
    def idle(self) -> int:
        """Number of open connections that nobody uses."""
        return sum(connection is not None for connection in self._slots)

    def give_back(self, connection: C) -> None:
        """Keep a connection for the next operation."""
        self._slots.append(connection)
        if self._leaving:
            self._let_one_go()
        if self._waiting:
            self._wake()

    def discard(self, connection: C) -> None:
        """Close a connection that is not fit for another operation."""
        self._disconnect(connection)
        self._vacate()

    def close_idle(self) -> None:
        """Close the connections that nobody uses."""
        while self._close_one():
            pass

    def close(self) -> None:
        """Close the connections that nobody uses now, and as many as are in use when they come back."""
        with self._returned:
            self._leaving = self._limit - len(self._slots)
        self.close_idle()

    def _close_one(self) -> bool:
        """Close an idle connection; return False if there is none."""
        try:
            connection = self._slots.pop()
        except IndexError:
            return False
        if connection is None:  # the open ones lie on top
            self._vacate()
            return False
        self.discard(connection)
        return True

    def _let_one_go(self) -> None:
        with self._returned:
            if not self._leaving:
                return
            self._leaving -= 1
        self._close_one()

    def _vacate(self) -> None:
        self._slots.insert(0, None)
        self._wake()

    def _wake(self) -> None:
        with self._returned:
            self._returned.notify()


class NetworkEngine(Engine):
    """An engine with a server behind it, and a circuit breaker before it.

    Attributes:
        refusals: writes for which the server had no room, which is no outage.
    """

    can_be_forgotten = True

    def __init__(self, name: str) -> None:
        """Take the server's name, without password, for the log."""
        super().__init__()
        self.breaker = CircuitBreaker(name)
        self.refusals = 0

    def after_fork_in_child(self) -> None:
        """Forget the parent's connections, and the server's health by them."""
        super().after_fork_in_child()
        self.breaker.reset()


def _doubted(name: str, judge: Callable[["NetworkCache", Any], Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return a hook of BaseCache, and its twin, whose result `judge` replaces after a setback meanwhile."""
    derived, derived_twin = getattr(BaseCache, f"_{name}"), getattr(BaseCache, f"_a{name}")

    def hook(self: "NetworkCache", *args: Any) -> Any:
        before = self._setbacks()
        result = derived(self, *args)
        return judge(self, result) if self._is_set_back(before) else result

    async def twin(self: "NetworkCache", *args: Any) -> Any:
        before = self._setbacks()
        result = await derived_twin(self, *args)
        return judge(self, result) if self._is_set_back(before) else result

    return hook, twin


class NetworkCache(BaseCache, abstract=True):
    """BaseCache for storages behind a connection: wraps every hook of a subclass in the outage policy.

    A subclass sets `engine` and `_outage_errors` in its `__init__`.
    """

    _engine: NetworkEngine
    _outage_errors: tuple[type[BaseException], ...] = ()
    """Errors of the driver when the server cannot be reached or does not answer in time."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Put the outage policy around the hooks that this class defines."""
        super().__init_subclass__(**kwargs)
        for name in (*_ANSWERS, *_WITHOUT_ANSWER):
            if hook := cls.__dict__.get(f"_{name}"):
                setattr(cls, f"_{name}", _guarded(name, hook))
            if hook := cls.__dict__.get(f"_a{name}"):
                setattr(cls, f"_a{name}", _guarded_async(name, hook))

    def _unknown(self, leased: Any) -> Any:
        """Return None for False: nobody has a lease that could not be written, to be waited for."""
        if isinstance(leased, dict):
            return {storage_key: is_leased or None for storage_key, is_leased in leased.items()}
        return leased or None

    def _not_invalidated(self, _: int) -> NoReturn:
        """Raise StorageError: entries may be live again when the server is back."""
        self._raise("invalidate_tags", None)

    _lease, _alease = _doubted("lease", _unknown)
    _lease_many, _alease_many = _doubted("lease_many", _unknown)
    _invalidate, _ainvalidate = _doubted("invalidate", _not_invalidated)

    def _setbacks(self) -> int:
        """Return how often the server was out of reach, or had no room."""
        return self._engine.breaker.failures + self._engine.refusals

    def _is_set_back(self, before: int) -> bool:
        """Tell whether the server is out of reach, or was, or had no room, since `before`."""
        return self._engine.breaker.is_open or self._setbacks() > before

    # The policy -----------------------------------------------------------------------------

    def _fallback(self, name: str) -> Any:
        """Return the cache that answers for a hook during an outage, or None if none does."""
        alias = self.settings.options["on_error"].partition("fallback:")[2]
        if not alias or name in _WITHOUT_FALLBACK or are_answers_refused():
            return None
        fallback = registry.caches[alias]
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
        answer = _ANSWERS.get(name)
        if name == "usage" and answer is not None:
            return answer(*args)  # a look at the counters during an outage does not raise them
        self._counters.errors += 1
        if self.settings.options["on_error"] == "raise" or answer is None or are_answers_refused():
            self._raise(name, error)
        return answer(*args)

    def _without_room(self, error: StorageError, count: int = 1) -> bool:
        """Count writes for which the server had no room, which is no outage. Return False: nothing was stored.

        Raises:
            StorageError: `error`: the policy is "raise", or the caller needs the write, as a lock does.
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

    def _is_outage(self, error: Exception) -> bool:
        """Tell whether the server was out of reach, by the error of a hook, and let the breaker know."""
        if isinstance(error, self._outage_errors):
            self._engine.breaker.fail(error)
            return True
        if isinstance(error, _ANSWERED):
            self._engine.breaker.succeed()
        return False


def _guarded(name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(hook)
    def guarded(self: NetworkCache, *args: Any) -> Any:
        breaker, failure = self._engine.breaker, None
        if not breaker.is_open or breaker.allows():
            failures = breaker.failures
            try:
                result = hook(self, *args)
            except Exception as error:
                if not self._is_outage(error):
                    raise
                failure = error
            else:
                if failures and failures == breaker.failures:  # a breaker that never failed has nothing to mend
                    breaker.succeed()
                return result
        fallback = self._fallback(name)
        return self._answer(name, args, failure) if fallback is None else getattr(fallback, f"_{name}")(*args)

    return guarded


def _guarded_async(name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(hook)
    async def guarded(self: NetworkCache, *args: Any) -> Any:
        breaker, failure = self._engine.breaker, None
        if not breaker.is_open or breaker.allows():
            failures = breaker.failures
            try:
                result = await hook(self, *args)
            except Exception as error:
                if not self._is_outage(error):
                    raise
                failure = error
            else:
                if failures and failures == breaker.failures:  # as above
                    breaker.succeed()
                return result
        fallback = self._fallback(name)
        return self._answer(name, args, failure) if fallback is None else await getattr(fallback, f"_a{name}")(*args)

    return guarded


def carried(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return a hook and its twin for the operation of that name, a generator of `_operations` that the engine runs."""

    def hook(self: Any, *args: Any) -> Any:
        return self._engine.run(getattr(self._operations, name)(*args))

    async def twin(self: Any, *args: Any) -> Any:
        return await self._engine.arun(getattr(self._operations, name)(*args))

    return hook, twin
