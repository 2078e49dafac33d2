"""How long one operation takes: contenders in turn, round after round, so that a noisy machine disturbs all alike.

A machine that others use too, or that changes its clock rate, gives other figures
from one second to the next. What it does within a round it does to all contenders,
so the ratio of two times of one round means something where the times alone do not;
the median over the rounds leaves out the rounds in which it did not.
"""

import asyncio
import gc
import inspect
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

from benchmarks.libraries import BOUND, CALLS, Library
from benchmarks.server_libraries import SERVER_CALLS

__all__ = [
    "BATCH",
    "SMALL",
    "Contender",
    "Effort",
    "Timed",
    "compiled",
    "measure",
    "no_collector",
    "orders",
    "stored_keys",
]

SMALL: Final = "a small string"
"""The value where nothing else is said."""

BATCH: Final = 100
"""Entries in one get_many() or set_many()."""

POOL: Final = 1_000
"""How many different keys are used in turn: enough not to measure the processor's cache alone."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much time a measurement may take.

    Attributes:
        rounds: how often each contender has its turn.
        seconds: how long a turn lasts, unless a single operation takes longer.
    """

    rounds: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Contender:
    """One library doing one operation in one situation.

    Attributes:
        library: whose cache it is.
        operation: which of the library's statements to run.
        entries: how many entries are stored before.
        value: of all of them, or a partial() that makes it: a large one takes no memory while others are measured.
        bound: how many entries the cache may hold.
        keys: the keys used in turn; by default a sample of those that are stored.
        label: name in the tables; by default the library's.
    """

    library: Library
    operation: str
    entries: int = 1_000
    value: Any = SMALL
    bound: int = BOUND
    keys: Sequence[str] = ()
    label: str = ""

    @property
    def name(self) -> str:
        """The name in the tables."""
        return self.label or self.library.name


def stored_keys(entries: int) -> list[str]:
    """Return the keys of that many entries."""
    return [f"user:{number}:profile" for number in range(entries)]


_TEMPLATE: Final = """
{prefix}def run(keys, repeats):
    started = perf_counter()
    for _ in range(repeats):
        for key in keys:
            {statement}
    return perf_counter() - started
"""


def compiled(statement: str, names: Mapping[str, Any]) -> Callable[..., Any]:
    """Return a function that runs the statement for each key, `repeats` times, and returns the seconds.

    As in ``timeit``, the statement stands in the loop itself: calling a function for it
    would cost as much as a lookup in a dict. It is a coroutine function if the statement awaits.
    """
    source = _TEMPLATE.format(prefix="async " if statement.startswith("await") else "", statement=statement)
    namespace = {"perf_counter": perf_counter, **CALLS, **SERVER_CALLS, **names}
    exec(source, namespace)
    return namespace["run"]  # type: ignore[no-any-return]


class Turn:
    """A contender, ready to have its turn again and again."""

    def __init__(self, contender: Contender, cache: Any, runner: asyncio.Runner) -> None:
        """Fill the cache, compile the statement, and learn how often it fits into a turn."""
        keys = stored_keys(contender.entries)
        value = contender.value() if type(contender.value) is partial else contender.value
        contender.library.fill(cache, dict.fromkeys(keys, value))
        pool = list(contender.keys) or random.Random(1).sample(keys, min(POOL, len(keys)))
        names = {
            "cache": cache,
            "value": value,
            "batch": dict.fromkeys(keys[:BATCH], value),
            "keys_of_batch": keys[:BATCH],
            "compute": lambda: value,
        }
        run = compiled(contender.library.statements[contender.operation], names)
        self._run: Callable[[Sequence[str], int], float] = run
        if inspect.iscoroutinefunction(run):
            self._run = lambda keys, repeats: runner.run(run(keys, repeats))
        self._pool, self._next = pool, 0
        self._operations = 1

    def warm_up(self, seconds: float) -> None:
        """Find out how many operations take about that long."""
        elapsed = self.take() * self._operations
        while elapsed < seconds / 2:
            # Ten times at most: the first operations may be slow for reasons of their own.
            self._operations = max(self._operations + 1, int(self._operations * min(10, seconds / max(elapsed, 1e-9))))
            elapsed = self.take() * self._operations

    def take(self) -> float:
        """Run for about as long as a turn lasts; return the seconds of one operation."""
        repeats, rest = divmod(self._operations, len(self._pool))
        if repeats:
            return self._run(self._pool, repeats) / (repeats * len(self._pool))
        keys = (self._pool * 2)[self._next : self._next + rest]
        self._next = (self._next + rest) % len(self._pool)
        return self._run(keys, 1) / rest


@dataclass(frozen=True, slots=True)
class Timed:
    """What a row's contenders took.

    Attributes:
        seconds: contender's name to seconds per operation, one figure for each round.
    """

    seconds: Mapping[str, Sequence[float]]

    @property
    def ours(self) -> str:
        """The name of the first contender, whom the others are compared with."""
        return next(iter(self.seconds))

    def median(self, name: str) -> float:
        """Return the contender's median, in seconds."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str) -> float:
        """Return how many times as long as ours the contender takes: the median of the rounds' ratios."""
        pairs = zip(self.seconds[name], self.seconds[self.ours], strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs)

    def medians(self, name: str) -> Sequence[float]:
        """Return the contender's median in each run: see ``runs``."""
        return [self.median(name)]

    def ratios(self, name: str) -> Sequence[float]:
        """Return the contender's ratio in each run."""
        return [self.ratio(name)]


def measure(contenders: Sequence[Contender], effort: Effort) -> Timed:
    """Let the contenders take turns."""
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        turns: dict[str, Turn] = {}
        for contender in contenders:
            directory = stack.enter_context(TemporaryDirectory(prefix="storeroom-bench-", ignore_cleanup_errors=True))
            cache = stack.enter_context(contender.library.opened(Path(directory), contender.bound))
            turns[contender.name] = Turn(contender, cache, runner)
        with no_collector():
            for turn in turns.values():
                turn.warm_up(effort.seconds)
            rounds = [{name: turns[name].take() for name in order} for order in orders(list(turns), effort.rounds)]
    return Timed({name: [each[name] for each in rounds] for name in turns})


def orders(names: list[str], rounds: int) -> Iterator[list[str]]:
    """Yield the contenders in turn, each round beginning with the next: A B C, B C A, C A B."""
    for number in range(rounds):
        start = number % len(names)
        yield names[start:] + names[:start]


@contextmanager
def no_collector() -> Iterator[None]:
    """Keep the garbage collector away: it would stop whoever happens to allocate."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
