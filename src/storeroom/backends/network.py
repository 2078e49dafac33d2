"""Caches over a connection: their options, their connections, and their answers during an outage.

The alias's ``on_error`` decides on these answers: see docs/outages.md. Only a failure to reach the server is an outage;
a mistake of the program, such as a value that cannot be stored, raises as ever.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import cache, wraps
from time import perf_counter
from typing import Any, ClassVar, Final, NoReturn, TypeAlias

from storeroom import config, registry
from storeroom.backends.fallbacks import check_fallback
from storeroom.backends.nested import nested_answer
from storeroom.backends.parts import unanswered
from storeroom.backends.policies import ANSWERS, ON_ERROR, answer_of, fallback_of, word_for
from storeroom.backends.recovery import note, settle, written
from storeroom.backends.refusals import is_look_due, refuse
from storeroom.backends.served import NetworkEngine, ServedCache
from storeroom.backends.sessions import is_session, keeping_sessions
from storeroom.base import BaseCache
from storeroom.config.naming import named
from storeroom.engines import Counters
from storeroom.engines.counts import LATENCY_SECONDS
from storeroom.exceptions import (
    PoolTimeoutError,
    ReentrantUseError,
    SerializationError,
    StorageError,
    UnansweredError,
    UnreachableError,
    ValueTooLargeError,
)  # fmt: skip
from storeroom.registry import fallbacks
from storeroom.storage.interruptions import raise_met
from storeroom.storage.outages import are_answers_refused, is_room_needed
from storeroom.storage.steps import arun, run

__all__ = [
    "NETWORK_OPTIONS", "NetworkCache", "NetworkEngine", "busy_answer", "carried", "ignored", "put_around", "refused",
]  # fmt: skip

_Hook: TypeAlias = Callable[..., Any]

_AROUND: Final[list[Callable[[str, _Hook, bool], _Hook]]] = []

_OF_AN_ENTRY: Final = ("incr", "rename")
"""Hooks that raise a ValueError where there is no entry. Under "miss" there is none."""

_WITHOUT_ANSWER: Final = (*_OF_AN_ENTRY, "clock", "sight")
"""Hooks that raise under every policy; of a counter's, a caller makes None if that is the word."""

_NAMES: Final = frozenset({*ANSWERS, *_WITHOUT_ANSWER})
"""The hooks with the policy around them."""

_WITHOUT_FALLBACK: Final = ("clear", "usage", "match", "remove", "sight")
"""Hooks that no other cache answers: it holds entries of its own, which are not to be cleared or counted."""

_CALLED: Final[Mapping[str, str]] = {
    "clock": "lock",
    "sight": "explain",
    "match": "iter_keys",
    "remove": "delete_pattern",
}
"""Hook -> the operation that needs it, where its name is another."""

_COUNTED: Final = ("add", "incr", "rename", "compare_set", "compare_delete", "swap_many", "remove")
"""Hooks that would do or answer something else a second time: they are not repeated once they may have arrived."""

_UNASKED: Final[Mapping[str, Callable[..., Any]]] = {
    **{name: ANSWERS[name] for name in ("get", "get_many", "get_dated", "has", "expiry", "usage")},
    "lease": lambda *_: None,
    "lease_many": dict.fromkeys,
}
"""Hook -> its answer under "miss" where no connection came free. One that changes something has none: it raises, and is
never dropped silently."""


NETWORK_OPTIONS: Final[Mapping[str, config.Option]] = {
    **config.CODEC_OPTIONS,
    "allowed_types": config.Option(
        config.unchecked,
        (),
        "Classes, or their dotted paths, that may be stored without a secret beside plain data. List only "
        "classes that are harmless to build from anything.",
    ),
    "on_error": ON_ERROR,
    "socket_connect_timeout": config.Option(
        config.number(0.001), 1.0, "Seconds to wait for a connection before it counts as failed."
    ),
    "socket_timeout": config.Option(
        config.number(0.001), 1.0, "Seconds to wait for an answer before it counts as failed."
    ),
    "pool_timeout": config.Option(
        config.number(0.001),
        30.0,
        "Seconds to wait for a connection while all max_connections are busy, which is no failure of the server.",
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


def _doubted(
    name: str, judge: Callable[["NetworkCache", Any, Collection[str]], Any]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return a hook of BaseCache, and its twin, whose result `judge` replaces after a setback meanwhile, by the keys.

    Where no connection came free, the hook has an answer of its own.
    """
    derived, derived_twin = getattr(BaseCache, f"_{name}"), getattr(BaseCache, f"_a{name}")

    def hook(self: "NetworkCache", *args: Any) -> Any:
        before = self._setbacks(args[0])
        try:
            result = derived(self, *args)
        except (PoolTimeoutError, ReentrantUseError) as error:
            return _unasked(self.settings, name, args, error)
        doubted = self._set_back(before)
        return judge(self, result, doubted) if doubted else result

    async def twin(self: "NetworkCache", *args: Any) -> Any:
        before = self._setbacks(args[0])
        try:
            result = await derived_twin(self, *args)
        except (PoolTimeoutError, ReentrantUseError) as error:
            return _unasked(self.settings, name, args, error)
        doubted = self._set_back(before)
        return judge(self, result, doubted) if doubted else result

    return hook, twin


class NetworkCache(ServedCache, abstract=True):
    """BaseCache for storages behind a connection: wraps every hook of a subclass in the outage policy.

    A subclass sets `engine` and `_outage_errors` in its `__init__`.
    """

    _asking: ClassVar[Mapping[str, _Hook]] = {}
    """The hooks of this class itself, by their names, without the policy around them: each asks the server."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        super().__init__(params)
        check_fallback(self.settings.options)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Put the outage policy around the hooks that this class defines."""
        super().__init_subclass__(**kwargs)
        names = [f"_{twin}{name}" for name in _NAMES for twin in ("", "a")]
        cls._asking = {name: vars(cls)[name] for name in names if name in vars(cls)}
        cls.guard_hooks()

    @classmethod
    def guard_hooks(cls) -> None:
        """Put the policy around the hooks that this class defines, and below it the wrapper that there may be."""
        for hook_name, hook in cls._asking.items():
            name = hook_name[1:] if (is_sync := hook_name[1:] in _NAMES) else hook_name[2:]
            asking = keeping_sessions(hook) if name == "add" else hook
            for wrap in _AROUND:
                asking = wrap(name, asking, is_sync)
            setattr(cls, hook_name, (_guarded if is_sync else _guarded_async)(name, asking))

    def _unknown(self, leased: Any, doubted: Collection[str]) -> Any:
        """Return None for False: nobody has a lease that could not be written, to be waited for."""
        if isinstance(leased, dict):
            return {key: is_leased or (None if key in doubted else False) for key, is_leased in leased.items()}
        return leased or None

    def _not_invalidated(self, _: int, _doubted: Collection[str]) -> NoReturn:
        """Raise StorageError: entries may be live again when the server is back."""
        self._raise("invalidate_tags", None)

    _lease, _alease = _doubted("lease", _unknown)
    _lease_many, _alease_many = _doubted("lease_many", _unknown)
    _invalidate, _ainvalidate = _doubted("invalidate", _not_invalidated)

    def _unserved(self, name: str, args: tuple[Any, ...], error: PoolTimeoutError | ReentrantUseError) -> Any:
        if isinstance(error, ReentrantUseError):
            return nested_answer(self, name, args, error)
        return busy_answer(self.settings, self._counters, name, args, error)

    def _setbacks(self, keyed: str | Iterable[str]) -> dict[str, int]:
        """Return storage key to how often its server was out of reach, or had no room."""
        return {key: self._engine.setbacks(key) for key in ([keyed] if isinstance(keyed, str) else keyed)}

    def _set_back(self, before: Mapping[str, int]) -> set[str]:
        """Return the keys whose server is out of reach, or was, or had no room, since `before`."""
        engine = self._engine
        return {key for key, count in before.items() if engine.is_down_for(key) or engine.setbacks(key) != count}

    # The policy -----------------------------------------------------------------------------

    def _fallback(self, name: str) -> Any:
        """Return the cache that answers for a hook during an outage, or None if none does."""
        fallback = None if name in _WITHOUT_FALLBACK else fallback_of(self.settings)
        self._counters.errors += fallback is not None
        return fallback

    def _stand_in(self) -> Any:
        alias = fallbacks.fallback_of(self.settings.options)
        return None if alias is None else registry.caches[alias]

    def _dropped_write(self, storage_key: str) -> bool:
        return storage_key in self._dropped.keys

    def _answer(self, name: str, args: tuple[Any, ...], error: BaseException | None) -> Any:
        """Return what the hook answers during an outage.

        Raises:
            StorageError: the policy is "raise", or there is no honest answer.
        """
        answer = answer_of(self.settings, name)
        if name == "usage" and answer is not None:
            return answer(*args)  # a look at the counters during an outage does not raise them
        self._counters.errors += 1
        if answer is None or (name == "add" and is_session(args[0])):
            self._raise(name, error)
        return answer(*args)

    async def _arefuse(self, failure: BaseException | None, name: str) -> None:
        """Do as refuse(), in a thread where it may have to look at the server."""
        if failure is not None and is_look_due(self._engine):
            await self._run(refuse, self, failure, name)
        else:
            refuse(self, failure, name)

    def _without_room(self, error: StorageError, count: int = 1) -> bool:
        """Count writes for which the server had no room, which is no outage. Return False: nothing was stored.

        Raises:
            StorageError: `error`: the policy is "raise", or the caller needs the write, as a lock does.
        """
        if is_room_needed():
            raise error  # counted by the caller, who may do without
        self._counters.refuse("full", count)
        if word_for(self.settings, "set") == "raise":
            raise error
        self._engine.refusals += count
        self._counters.errors += count
        return False

    def _withdrawn(self, error: StorageError, storage_keys: Iterable[str]) -> bool:
        """Do as _without_room() about new values of entries, whose old ones are removed: they are known to be old."""
        storage_keys = list(storage_keys)
        with suppress(StorageError):
            self._delete_many(storage_keys)
        return self._without_room(error, len(storage_keys))

    def _name(self, error: Exception) -> None:
        """Let an error of the storage, or about a refused value, name the cache."""
        if isinstance(error, StorageError | SerializationError | ValueTooLargeError):
            named(error, self.settings.alias)

    def _raise(self, name: str, error: BaseException | None) -> NoReturn:
        cause = f"{type(error).__name__}: {error}" if error else "it failed a moment ago and is asked again soon"
        policy = f" under OPTIONS['on_error'] {self.settings.options['on_error']!r}"
        word, others = word_for(self.settings, name), self._driver_errors(error)
        kind = UnansweredError if name in _OF_AN_ENTRY and word != "raise" else UnreachableError
        if name == "add" and word != "raise":  # of a session: Django raises this when it gives up
            others = (RuntimeError, *others)
        told = _also(kind, others)(
            f"{self._engine.breaker.name} is out of reach ({cause}), and {_CALLED.get(name, name)}() has "
            f"no answer without it{'' if are_answers_refused() else policy}. Start the server, or see to LOCATION."
        )
        told.is_ignored = word == "none"
        raise named(told, self.settings.alias) from error


@cache
def _also(kind: type[StorageError], others: tuple[type[Exception], ...]) -> type[StorageError]:
    """Return a class of errors that are also those of a driver."""
    if not others:
        return kind

    def begin(self: StorageError, text: str) -> None:
        for each in (kind, *others):
            each.__init__(self, text)  # drivers keep facts of their own in their errors

    def reduced(self: StorageError) -> tuple[Any, ...]:
        return kind, self.args  # a process without the driver may read it

    own = {"__module__": kind.__module__, "__init__": begin, "__reduce__": reduced}
    return type(kind.__name__, (kind, *others), {**own, "__repr__": kind.__repr__, "__str__": kind.__str__})


def put_around(wrap: Callable[[str, _Hook, bool], _Hook] | None) -> None:
    """Put a wrapper around each hook that asks a server, under the policy, for spans; or take it away, for None.

    Without one an operation pays nothing: the hooks are put together anew.

    Args:
        wrap: called with a hook's name, without the underscore, the hook or its twin, and whether it is the hook;
            returns one to be called in its place.
    """
    _AROUND[:] = [] if wrap is None else [wrap]
    kinds: list[type[NetworkCache]] = [NetworkCache]
    while kinds:
        kind = kinds.pop()
        kind.guard_hooks()
        kinds += kind.__subclasses__()


def _guarded(name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
    attempts = (True,) if name in _COUNTED else (False, True)

    @wraps(hook)
    def guarded(*call: Any) -> Any:  # to pass on what has come together takes 40 % of the time of self and *args
        self: NetworkCache = call[0]
        engine, failure = self._engine, None
        breaker = engine.breaker
        if not breaker.is_open or breaker.allows():
            failures, answers = breaker.failures, engine.answers
            for is_last in attempts:
                try:
                    own = run(settle(self, name, call[1:])) if self._dropped.keys else None
                    begun = perf_counter()
                    result = hook(*call)
                except (PoolTimeoutError, ReentrantUseError) as error:
                    return self._unserved(name, call[1:], error)
                except Exception as error:
                    raise_met(error)
                    if not is_last and self._may_repeat(error):
                        continue
                    if not self._is_outage(error, answers):
                        self._name(error)
                        raise
                    failure = error
                    break
                counters, seconds = self._counters, perf_counter() - begun
                counters.round_trip_seconds += seconds
                counters.round_trips[bisect_left(LATENCY_SECONDS, seconds)] += 1
                if begun >= counters.look_at:
                    counters.look(begun)
                engine.answers += 1
                if own or breaker.failures:  # a server that never failed has nothing to mend
                    written(self, own, name, result)
                    self._succeeded(failures)
                return result
        args, failure, merged = unanswered(call[1:], failure)
        refuse(self, failure, name)
        note(self._dropped, self._counters, name, args)
        fallback = self._fallback(name)
        answer = self._answer(name, args, failure) if fallback is None else getattr(fallback, f"_{name}")(*args)
        return merged(answer)

    return guarded


def _guarded_async(name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
    attempts = (True,) if name in _COUNTED else (False, True)

    @wraps(hook)
    async def guarded(self: NetworkCache, *args: Any) -> Any:
        engine, failure = self._engine, None
        breaker = engine.breaker
        if not breaker.is_open or breaker.allows():
            failures, answers = breaker.failures, engine.answers
            for is_last in attempts:
                try:
                    own = await arun(settle(self, name, args)) if self._dropped.keys else None
                    begun = perf_counter()
                    result = await hook(self, *args)
                except (PoolTimeoutError, ReentrantUseError) as error:
                    return self._unserved(name, args, error)
                except Exception as error:
                    raise_met(error)
                    if not is_last and self._may_repeat(error):
                        continue
                    if not self._is_outage(error, answers):
                        self._name(error)
                        raise
                    failure = error
                    break
                counters, seconds = self._counters, perf_counter() - begun
                counters.round_trip_seconds += seconds
                counters.round_trips[bisect_left(LATENCY_SECONDS, seconds)] += 1
                if begun >= counters.look_at:
                    counters.look(begun)
                engine.answers += 1
                if own or breaker.failures:  # a server that never failed has nothing to mend
                    written(self, own, name, result)
                    self._succeeded(failures)
                return result
        args, failure, merged = unanswered(args, failure)
        await self._arefuse(failure, name)
        note(self._dropped, self._counters, name, args)
        fallback = self._fallback(name)
        answer = self._answer(name, args, failure) if fallback is None else await getattr(fallback, f"_a{name}")(*args)
        return merged(answer)

    return guarded


def _unasked(settings: config.Settings, name: str, args: tuple[Any, ...], error: StorageError) -> Any:
    answer = _UNASKED.get(name)
    if answer is None or word_for(settings, "get" if name == "usage" else name) == "raise":
        raise named(error, settings.alias)
    return answer(*args)


def busy_answer(
    settings: config.Settings, counters: Counters, name: str, args: tuple[Any, ...], error: PoolTimeoutError
) -> Any:
    """Count a hook that no connection came free for, and return its answer.

    Raises:
        PoolTimeoutError: `error`: the hook changes something, or the policy is "raise".
    """
    counters.busy += name != "usage"  # a look at the counters does not raise them
    return _unasked(settings, name, args, error)


def carried(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return a hook and its twin for the operation of that name, a generator of `_operations` that the engine runs."""

    def hook(self: Any, *args: Any) -> Any:
        return self._engine.run(getattr(self._operations, name)(*args))

    async def twin(self: Any, *args: Any) -> Any:
        return await self._engine.arun(getattr(self._operations, name)(*args))

    return hook, twin
