"""A cache that misbehaves by plan: for tests of code that caches, against what networks, servers and users do to it.

``ChaosCache`` stands before another cache. Each of its operations asks the plan: a list of rules, of which the first
that concerns the operation, and whose turn it is, acts. Rules act on the hooks of a storage (``storage.hooks``), so
that `get_or_set()`, locks, tags and transactions meet a failure in the midst of their work, as they do in life.
"""

import asyncio
import random
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Final, Literal

from storeroom import config, registry
from storeroom.backends.policies import ANSWERS
from storeroom.base import BaseCache
from storeroom.engines.stats import CacheStats
from storeroom.exceptions import ConfigurationError, StorageError
from storeroom.registry.aliases import Alias, read_alias
from storeroom.storage.clocks import Clock
from storeroom.storage.hooks import StorageHooks
from storeroom.storage.overlay import HOOKS, Relay
from storeroom.storage.steps import Steps, arun, pause, run
from storeroom.testing.concurrency import Flag

__all__ = ["Chaos", "ChaosCache", "Rule"]

_READS: Final = frozenset({"get", "get_many", "get_dated", "expiry", "has", "scan", "tally", "usage"})
_GROUPS: Final[Mapping[str, frozenset[str]]] = {
    "any": frozenset(HOOKS),
    "read": _READS,
    "write": frozenset(HOOKS) - _READS,
}

_INHERITED: Final = ("timeout", "key_prefix", "version", "key_function")


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a plan.

    Attributes:
        do: "delay" the operation; "fail" by `error`; "lose" it, and answer as during an outage; "hang" until
            `Chaos.release()`, or for `seconds`; "cancel" the task that waits for it, or in a synchronous program raise
            KeyboardInterrupt as Ctrl-C does.
        on: names of hooks, such as "get", "set" or "swap_many", or "read", "write" or "any".
        seconds: of a delay; of a hang, None for no end.
        when: "before" the storage is asked, or "after": it has done its part then, and nobody knows.
        keys: a pattern that one of the operation's storage keys has to match, with * and ?.
        chance: with which it acts, from 0 to 1.
        skip: operations that it lets pass first.
        times: the most times that it acts; None for always.
        error: the class of error.
    """

    do: Literal["delay", "fail", "lose", "hang", "cancel"]
    on: str | Sequence[str] = "any"
    seconds: float | None = None
    when: Literal["before", "after"] = "before"
    keys: str = "*"
    chance: float = 1.0
    skip: int = 0
    times: int | None = None
    error: type[Exception] = StorageError

    @property
    def hooks(self) -> frozenset[str]:
        """The hooks that it concerns."""
        named = [self.on] if isinstance(self.on, str) else self.on
        return frozenset[str]().union(*(_GROUPS.get(name, frozenset({name})) for name in named))


_ACTS: Final = ("delay", "fail", "lose", "hang", "cancel")
_MEMBERS: Final = tuple(field.name for field in fields(Rule))


def _plan(value: Any) -> tuple[Rule, ...]:
    """Parse OPTIONS["plan"]."""
    expected = ValueError(
        f'a list of dicts, each with "do", one of {", ".join(_ACTS)}, and any of {", ".join(_MEMBERS[1:])}; "on" is of '
        f"{', '.join([*_GROUPS, *HOOKS])}"
    )
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise expected
    rules = []
    for written in value:
        if not isinstance(written, Rule) and not (isinstance(written, Mapping) and {*written} <= {*_MEMBERS}):
            raise expected
        with suppress(TypeError):  # without "do", or with a name that is none
            rule = written if isinstance(written, Rule) else Rule(**written)
            if rule.do in _ACTS and rule.when in ("before", "after") and rule.hooks <= _GROUPS["any"]:
                rules.append(rule)
                continue
        raise expected
    return tuple(rules)


class Chaos:
    """The plan, as it is carried out.

    Attributes:
        rules: in the order in which they are asked.
        acted: the hook and the act of each time that one has acted.
        is_on: whether any acts at all.
    """

    def __init__(self, rules: Sequence[Rule], seed: int) -> None:
        self.rules = tuple(rules)
        self.acted: list[tuple[str, str]] = []
        self.is_on = True
        self._chance = random.Random(seed)
        self._seen, self._done = [0] * len(rules), [0] * len(rules)
        self._lock, self._released = threading.RLock(), Flag()

    def release(self) -> None:
        """Let those go on that hang, and all that would from now on."""
        self._released.set()

    def next(self, name: str, args: tuple[Any, ...]) -> Rule | None:
        """Return the rule that acts on a hook, or None."""
        keys = [args[0]] if args and isinstance(args[0], str) else [*args[0]] if args else [""]
        with self._lock:
            for number, rule in enumerate(self.rules if self.is_on else ()):
                if name not in rule.hooks or not any(fnmatchcase(str(key), rule.keys) for key in keys):
                    continue
                self._seen[number] += 1
                is_spent = rule.times is not None and self._done[number] >= rule.times
                if is_spent or self._seen[number] <= rule.skip or self._chance.random() >= rule.chance:
                    continue
                self._done[number] += 1
                self.acted.append((name, rule.do))
                return rule
        return None

    def steps(self, rule: Rule, below: StorageHooks, name: str, args: tuple[Any, ...]) -> Steps[Any]:
        """Carry a hook out as a rule wants it."""
        if rule.when == "after":
            result = yield below, f"_{name}", args
            yield from self._act(rule, name)
            return ANSWERS[name](*args) if rule.do == "lose" and name in ANSWERS else result
        yield from self._act(rule, name)
        if rule.do != "lose":
            return (yield below, f"_{name}", args)
        if name not in ANSWERS:
            raise StorageError(f"{name}() was lost by the plan, and there is no honest answer.")
        return ANSWERS[name](*args)

    def _act(self, rule: Rule, name: str) -> Steps[None]:
        if rule.do == "fail":
            raise rule.error(f"{name}() has failed by the plan.")
        if rule.do == "delay":
            yield from pause(rule.seconds or 0.0)
        elif rule.do == "hang":
            yield self, "hang", (rule.seconds,)
        elif rule.do == "cancel":
            yield self, "cancel", ()

    def hang(self, seconds: float | None) -> None:
        """Wait for release(), so many seconds at most."""
        self._released.wait(seconds)

    async def ahang(self, seconds: float | None) -> None:
        """See hang(); the event loop goes on."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._released.is_set():
                    await asyncio.sleep(0.001)

    def cancel(self) -> None:
        """Raise KeyboardInterrupt."""
        raise KeyboardInterrupt("by the plan of a ChaosCache")

    async def acancel(self) -> None:
        """Cancel the task that waits."""
        task = asyncio.current_task()
        if task is not None:
            task.cancel("by the plan of a ChaosCache")
        await asyncio.sleep(0)


class _ChaoticHooks(Relay):
    """Hooks over those of a storage, which act by the plan."""

    def __init__(self, chaos: Chaos, below: StorageHooks) -> None:
        self.chaos, self._below = chaos, below
        self.is_shared, self.sees_envelopes = below.is_shared, below.sees_envelopes

    def _clock(self, storage_key: str) -> Clock | None:
        return self._below._clock(storage_key)

    async def _aclock(self, storage_key: str) -> Clock | None:
        return await self._below._aclock(storage_key)


def _chaotic(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return a hook and its twin."""
    plain, later = f"_{name}", f"_a{name}"

    def hook(self: Any, *args: Any) -> Any:
        rule = self.chaos.next(name, args)
        if rule is None:
            return getattr(self._below, plain)(*args)
        return run(self.chaos.steps(rule, self._below, name, args))

    async def twin(self: Any, *args: Any) -> Any:
        rule = self.chaos.next(name, args)
        if rule is None:
            return await getattr(self._below, later)(*args)
        return await arun(self.chaos.steps(rule, self._below, name, args))

    return hook, twin


for _name in HOOKS:
    for _form, _hook in zip((f"_{_name}", f"_a{_name}"), _chaotic(_name), strict=True):
        setattr(_ChaoticHooks, _form, _hook)


class ChaosCache(_ChaoticHooks, BaseCache):
    """A cache before another one, which delays, fails, loses, hangs and cancels by plan.

    ``OPTIONS["of"]`` is the alias of that cache, or a dict as of an alias. TIMEOUT, KEY_PREFIX, VERSION and
    KEY_FUNCTION are its own unless they are given.

    Attributes:
        chaos: the plan, as it is carried out.

    Raises:
        ConfigurationError: a setting is wrong.
    """

    options: ClassVar[Mapping[str, config.Option] | None] = {
        "of": config.Option(config.unchecked, None, "The cache to misbehave for: its alias, or a dict as of an alias."),
        "plan": config.Option(_plan, (), "The rules: see docs/testing.md."),
        "seed": config.Option(config.whole_number(0), 0, "Of the chances in the plan: the same in every run."),
    }

    def __init__(self, location: str, params: Mapping[str, Any]) -> None:
        own = config.read_params(params, self.options, backend=type(self).__name__)
        inner = _alias_of(own.options["of"])
        given, settings = {name.lower() for name in params}, inner.settings
        inherited = {name.upper(): getattr(settings, name) for name in _INHERITED if name not in given}
        BaseCache.__init__(self, {**params, **inherited})
        terms = {
            "TIMEOUT": self.default_timeout, "KEY_PREFIX": self.key_prefix, "VERSION": self.version,
            "KEY_FUNCTION": self.key_func,
        }  # fmt: skip
        written = {name: value for name, value in inner.params.items() if name != "timeout"}
        self._inner: BaseCache = replace(inner, params={**written, **terms}).build()
        self.engine = self._inner.engine
        _ChaoticHooks.__init__(
            self, Chaos(own.options["plan"], own.options["seed"]), self._inner._overlay or self._inner
        )
        self._codec = self._inner._codec

    def _locking(self) -> StorageHooks:
        return _ChaoticHooks(self.chaos, self._inner._locking())

    def _freeze(self, storage_key: str, value: Any) -> Any:
        return self._inner._freeze(storage_key, value)

    def _thaw(self, storage_key: str, kept: Any) -> Any:
        return self._inner._thaw(storage_key, kept)

    def stats(self, scope: Literal["process", "all"] | None = None) -> CacheStats:
        """Return those of the cache behind."""
        return self._inner.stats(scope)


def _alias_of(of: Any) -> Alias:
    """Return the alias that OPTIONS["of"] names, or describes."""
    source = registry.caches.source if isinstance(of, str) else None
    if source is not None and of not in source.caches:
        raise ConfigurationError(
            f"OPTIONS['of'] is {of!r}, and there is no such alias. The aliases are "
            f"{', '.join(map(repr, source.caches))}."
        )
    if source is None and not isinstance(of, Mapping):
        raise ConfigurationError(f"OPTIONS['of'] is {of!r}; expected an alias, or a dict as of an alias.")
    alias = read_alias(
        of if source else "of", source.caches[of] if source else of, source.directory if source else None
    )
    if alias.settings is None or issubclass(alias.backend, ChaosCache):
        raise ConfigurationError(f"OPTIONS['of'] leads to a {alias.backend.__name__}; expected a cache of Storeroom's.")
    return alias
