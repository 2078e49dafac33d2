"""A cache that several processes use at once, each as fast as it can, for a fixed time.

The processes are fresh interpreters: a fork would inherit what is open here. Each opens the cache once, and carries out
one load after the other. All begin a load at the same moment.
"""

import math
import multiprocessing
import statistics
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, chain
from multiprocessing.connection import Connection
from random import Random
from threading import BrokenBarrierError
from time import perf_counter, process_time, sleep
from typing import Any, Final

from benchmarks.scale.measuring import Figures, key_of, value_of

__all__ = [
    "EFFORTS",
    "SPREADS",
    "ByCount",
    "Clients",
    "Load",
    "LoadEffort",
    "Spent",
    "Target",
    "clients",
    "line",
    "median_of",
]

ByCount = dict[str, dict[int, Figures]]
"""Cache's name to number of processes to what was measured."""

PATIENCE: Final = 120.0
"""Seconds after which a process that does not answer is taken for lost."""

PLANNED: Final = 100_000
"""Operations whose keys are chosen before; when they are used up, they come again."""

CHUNK: Final = 100
"""Operations between two looks at the clock: the writes of a load are so many of them."""

WARM_UP: Final = 0.05
"""Seconds of a load that come before it counts."""

LISTENING: Final = 0.5
"""Seconds that a near tier has to begin to listen: it begins empty, see ``server_libraries.read_all``."""

READ, TIMED_READ, WRITE = range(3)


@dataclass(frozen=True, slots=True)
class LoadEffort:
    """How much is measured.

    Attributes:
        counts: numbers of processes.
        rounds: in which each load has its turn.
        seconds: of a load in a round.
        entries: in the cache.
    """

    counts: Sequence[int]
    rounds: int
    seconds: float
    entries: int


EFFORTS: Final = {
    "full": LoadEffort(counts=(1, 2, 4, 8), rounds=3, seconds=0.8, entries=100_000),
    "quick": LoadEffort(counts=(1, 2), rounds=1, seconds=0.05, entries=1_000),
}
"""By the names of ``measuring.EFFORTS``."""


@dataclass(frozen=True, slots=True)
class Load:
    """What each process does.

    Attributes:
        writes: in a hundred operations, evenly spread over all keys; the others are reads.
        spread: how reads choose their keys, by name in SPREADS.
    """

    writes: int
    spread: str = "evenly"


@dataclass(frozen=True, slots=True)
class Target:
    """A cache as each process opens it.

    Attributes:
        open: opens it.
        close: lets go of it.
        statements: of "get" and "set".
        entries: in it, named by key_of().
        is_near: whether a near tier stands before it.
    """

    open: Callable[[], Any]
    close: Callable[[Any], None]
    statements: Mapping[str, str]
    entries: int
    is_near: bool = False


@dataclass(frozen=True, slots=True)
class Spent:
    """What a server has done since its start.

    Attributes:
        seconds: of processor time.
        commands: that it was asked for.
    """

    seconds: float
    commands: int


# Keys ---------------------------------------------------------------------------------------------


def _evenly(random: Random, entries: int, count: int) -> list[int]:
    return random.choices(range(entries), k=count)


def _zipf(random: Random, entries: int, count: int) -> list[int]:
    weights = list(accumulate(1 / rank for rank in range(1, entries + 1)))
    return random.choices(range(entries), cum_weights=weights, k=count)


def _one_key(random: Random, entries: int, count: int) -> list[int]:
    return [0 if random.random() < 0.5 else number for number in _evenly(random, entries, count)]


SPREADS: Final[Mapping[str, Callable[[Random, int, int], list[int]]]] = {
    "evenly": _evenly,
    "Zipf": _zipf,
    "one key": _one_key,
}
"""Name to a function that chooses numbers of entries: the n-th an n-th as often as the first (Zipf's law, with the
exponent 1), or the first in half of all cases."""


@dataclass(slots=True)
class _Plan:
    """The operations of a process: numbers of entries, their kinds in each hundred, and the first that is to come."""

    numbers: "array[int]"
    kinds: Sequence[int]
    next: int = 0

    @classmethod
    def of(cls, load: Load, random: Random, entries: int) -> "_Plan":
        """Choose the keys; one read in ten is timed, and all writes."""
        reads = CHUNK - load.writes
        kinds = [WRITE] * load.writes + [TIMED_READ] * (reads // 10) + [READ] * (reads - reads // 10)
        random.shuffle(kinds)
        read, written = SPREADS[load.spread](random, entries, PLANNED), _evenly(random, entries, PLANNED)
        pairs = enumerate(zip(read, written, strict=True))
        return cls(array("I", (pair[kinds[at % CHUNK] == WRITE] for at, pair in pairs)), kinds)

    def take(self, count: int) -> "array[int]":
        """Return the next numbers."""
        taken = self.numbers[self.next : self.next + count]
        self.next = (self.next + count) % len(self.numbers)
        return taken


# In each process ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Told:
    """What a process has done in a load: its time, its processor time, and the times of single operations."""

    operations: int = 0
    seconds: float = 0.0
    processor: float = 0.0
    reads: "array[float]" = field(default_factory=lambda: array("d"))
    writes: "array[float]" = field(default_factory=lambda: array("d"))


_LOOP: Final = """
def run(keys, kinds, note_read, note_write):
    for key, kind in zip(keys, kinds):
        if not kind:
            {get}
        elif kind == 1:
            started = perf_counter()
            found = {get}
            note_read(perf_counter() - started)
            if found is None:
                raise LookupError(key)
        else:
            started = perf_counter()
            {set}
            note_write(perf_counter() - started)
"""


class _Client:
    """One process's cache and plans."""

    def __init__(self, target: Target, seed: int) -> None:
        self._target, self._random = target, Random(seed)
        self._keys = list(map(key_of, range(target.entries)))
        self.cache = target.open()
        names = {"cache": self.cache, "perf_counter": perf_counter, "value": value_of(1, target.entries)}
        exec(_LOOP.format_map(target.statements), names)
        self._run: Any = names["run"]
        self._plans: dict[Load, _Plan] = {}
        if target.is_near:
            self.cache.get(self._keys[0])
            sleep(LISTENING)

    def prepare(self, load: Load) -> None:
        """Choose keys, fill a near tier with those that this load reads, and warm up."""
        if load not in self._plans:
            self._plans[load] = _Plan.of(load, self._random, self._target.entries)
        plan = self._plans[load]
        if self._target.is_near:
            for _ in range(0, PLANNED // 5, 1_000):
                self.cache.get_many([self._keys[number] for number in plan.take(1_000)])
        self.carry_out(load, WARM_UP)

    def carry_out(self, load: Load, seconds: float) -> _Told:
        """Operate for that long."""
        plan, keys, run = self._plans[load], self._keys, self._run
        reads, writes = array("d"), array("d")
        done, started, spent = 0, perf_counter(), process_time()
        while (elapsed := perf_counter() - started) < seconds:
            run([keys[number] for number in plan.take(CHUNK)], plan.kinds, reads.append, writes.append)
            done += CHUNK
        return _Told(done, elapsed, process_time() - spent, reads, writes)


def _serve(target: Target, seed: int, seconds: float, pipe: Connection, barrier: Any) -> None:
    """Carry out the loads that come by the pipe, until None comes."""
    try:
        client = _Client(target, seed)
        while (load := pipe.recv()) is not None:
            client.prepare(load)
            barrier.wait(PATIENCE)  # all are ready, and none is at work: servers are looked at
            barrier.wait(PATIENCE)
            pipe.send(client.carry_out(load, seconds))
        target.close(client.cache)
    except BaseException:
        barrier.abort()
        raise


# All of them --------------------------------------------------------------------------------------


class Clients:
    """Processes that have one cache open."""

    def __init__(self, target: Target, count: int, seconds: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._barrier: Any = context.Barrier(count + 1)
        self._pipes, self._processes = [], []
        for seed in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(target, seed, seconds, theirs, self._barrier), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, load: Load, look: Callable[[], Sequence[Spent]] = tuple) -> Figures:
        """Let all carry out a load; look() tells what each server has done, before and after it.

        Raises:
            RuntimeError: a process has failed; it has told why on stderr.
        """
        try:
            for pipe in self._pipes:
                pipe.send(load)
            self._barrier.wait(PATIENCE)
            before = look()
            self._barrier.wait(PATIENCE)
            told = [_answer(pipe) for pipe in self._pipes]
        except (BrokenBarrierError, OSError, EOFError) as error:
            raise RuntimeError(f"a process of {len(self._processes)} has failed at {load}") from error
        return _figures(told, before, look())

    def end(self) -> None:
        """Let all close the cache and end; one that does not is ended."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            if process.is_alive():
                pipe.send(None)
        for process in self._processes:
            process.join(PATIENCE)
            if process.is_alive():
                process.kill()


@contextmanager
def clients(target: Target, count: int, seconds: float) -> Iterator[Clients]:
    """Yield processes while they run, each of whose loads lasts for so many seconds."""
    started = Clients(target, count, seconds)
    try:
        yield started
    finally:
        started.end()


def _answer(pipe: Connection) -> _Told:
    if not pipe.poll(PATIENCE):
        raise EOFError
    told: _Told = pipe.recv()
    return told


def _figures(told: Sequence[_Told], before: Sequence[Spent], after: Sequence[Spent]) -> Figures:
    """Return operations a second of all together, and what one of them took in processor time and at the longest."""
    operations = sum(each.operations for each in told)
    figures = {
        "rate": sum(each.operations / each.seconds for each in told),
        "client": sum(each.processor for each in told) / operations,
    }
    for name, times in (("read", [each.reads for each in told]), ("write", [each.writes for each in told])):
        if ordered := sorted(chain.from_iterable(times)):
            figures[f"{name} p99"] = ordered[math.ceil(len(ordered) * 0.99) - 1]
    if before:
        pairs = list(zip(before, after, strict=True))
        seconds = [later.seconds - earlier.seconds for earlier, later in pairs]
        commands = [later.commands - earlier.commands for earlier, later in pairs]
        figures |= {
            "server": sum(seconds) / operations,
            "share of the busiest": max(commands) / sum(commands),
            "commands": sum(commands) / operations,
        }
    return figures


def median_of(rounds: Sequence[Figures]) -> Figures:
    """Return the median of each figure."""
    return {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}


def line(figures: Figures) -> str:
    """Return figures in a line, as they are told while the others are measured."""
    rest = (f"{name} {value * 1e6:,.1f} µs" for name, value in figures.items() if name not in _WITHOUT_UNIT)
    shares = (f"{name} {figures[name]:.2f}" for name in _WITHOUT_UNIT[1:] if name in figures)
    return ", ".join([f"{figures['rate']:,.0f}/s", *rest, *shares])


_WITHOUT_UNIT: Final = ("rate", "share of the busiest", "commands")
