"""One cache of one size, measured in this process.

    python -m benchmarks.scale.measuring CONTENDER PART ENTRIES LOCATION EFFORT

prints figures as JSON. A cache whose entries outlive a process is measured by three of them: the first fills it and
is killed, the second opens what was left, uses it and closes it, and the third opens it again, counts and clears. The
others are measured by one.
"""

import json
import math
import os
import random
import signal
import statistics
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

from benchmarks.scale.contenders import CONTENDERS, Contender
from benchmarks.timing import Effort, compiled

__all__ = ["EFFORTS", "FEW_BYTES_FROM", "PARTS", "Figures", "key_of", "measure", "value_of"]

Figures = dict[str, float]
"""What was measured to seconds, bytes or a number."""

PARTS: Final = ("fill", "use", "end")

CHUNK: Final = 1_000
"""Entries that are stored before it is decided anew how the next are."""

FEW_BYTES_FROM: Final = 10_000_000
"""Entries from which values are small ones."""


@dataclass(frozen=True, slots=True)
class ScaleEffort:
    """How much time a measurement may take.

    Attributes:
        each: of one operation.
        singly: seconds of a fill during which a cache that outlives its process is filled by single sets; they are
            spread over the whole fill, and the other entries are stored by many at once.
        pause: seconds for which the machine itself is watched before each cache.
    """

    each: Effort
    singly: float
    pause: float


EFFORTS: Final = {
    "full": ScaleEffort(Effort(rounds=11, seconds=0.04), singly=6.0, pause=0.5),
    "quick": ScaleEffort(Effort(rounds=3, seconds=0.002), singly=0.01, pause=0.01),
}


def key_of(number: int) -> str:
    """Return the key of an entry: neighbours in time are none in an index, as with the keys of most programs.

    An odd factor makes this one to one for all numbers of 32 bits; it is that of Knuth's multiplicative hashing.
    """
    return f"user:{number * 2_654_435_761 % 2**32:08x}"


def value_of(number: int, entries: int) -> str:
    """Return a value of its own for each entry, of 100 characters, or 16 in the largest caches."""
    return f"{number:016}" if entries >= FEW_BYTES_FROM else f"{number:0100}"


_EACH: Final = """
def run(items, durations, first):
    for position, (key, value) in enumerate(items, first):
        started = perf_counter()
        {statement}
        durations[position] = perf_counter() - started
    return sum(durations[first:first + len(items)])
"""


def _each(statement: str, cache: Any) -> Callable[[Sequence[tuple[str, str]], Any, int], float]:
    """Return a function that runs the statement for each key and value, and notes from a position how long each took.

    It returns the seconds of all. Their places are there before, so that the memory they take is not the entries'.
    """
    namespace: dict[str, Any] = {"cache": cache, "perf_counter": perf_counter}
    exec(_EACH.format(statement=statement), namespace)
    return namespace["run"]  # type: ignore[no-any-return]


def _chunks(run: Callable[[int], float], effort: Effort) -> list[float]:
    """Return the seconds of one operation in each round; run() does that many and returns the seconds of all."""
    count, elapsed = 8, run(8)
    while elapsed < effort.seconds / 2:
        # Ten times at most: the first operations may be slow for reasons of their own.
        count = max(count + 1, int(count * min(10, effort.seconds / max(elapsed, 1e-9))))
        elapsed = run(count)
    return [run(count) / count for _ in range(effort.rounds)]


class Subject:
    """A contender that is open, filled or to be filled."""

    def __init__(self, contender: Contender, entries: int, location: str, effort: ScaleEffort) -> None:
        self.contender, self.entries, self.location, self.effort = contender, entries, location, effort
        self.figures: Figures = {}
        self.cache: Any = None
        self._random = random.Random(entries)
        self._new = entries

    def load(self) -> None:
        """Load the modules that the cache uses; for one in a directory by another one, which is made and removed."""
        if self.contender.server:
            for module in self.contender.modules:
                import_module(module)
            return
        with TemporaryDirectory(prefix="storeroom-bench-") as directory:
            cache = self.contender.open(directory, 10)
            self.contender.fill(cache, {"first": "x"})
            cache.get("first")
            self.contender.close(cache)

    def open(self, figure: str = "") -> None:
        """Open the cache; note how long that and the first read took, if it is told under which name."""
        started = perf_counter()
        self.cache = self.contender.open(self.location, self.entries)
        found = self.cache.get(key_of(0))
        if figure:
            self.figures[figure] = perf_counter() - started
        expected = value_of(0, self.entries) if figure else None
        if found != expected:
            raise RuntimeError(f"{self.contender.name} returned {found!r} after opening, not {expected!r}")

    def statement(self, operation: str) -> str:
        """Return the statement of an operation, or nothing."""
        return self.contender.statements.get(operation, "")

    # Filling --------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Store all entries; note the single sets that were timed, and the room that was taken."""
        durations, timed = array("d", bytes(8 * self.entries)), 0
        set_each = _each(self.statement("set"), self.cache)
        # What the first set costs, modules and first pages, is not the entries'.
        self.contender.fill(self.cache, {key_of(0): value_of(0, self.entries)})
        before = self.contender.room(self.location)
        spent, started = 0.0, perf_counter()
        chunk = min(CHUNK, self.entries // 10)
        for start in range(0, self.entries, chunk):
            numbers = range(start, min(start + chunk, self.entries))
            items = [(key_of(number), value_of(number, self.entries)) for number in numbers]
            if not self.contender.is_kept or spent <= self.effort.singly * start / self.entries:
                spent += set_each(items, durations, timed)
                timed += len(items)
            else:
                self.contender.fill(self.cache, dict(items))
        self.figures["fill"] = perf_counter() - started
        room = self.contender.room(self.location).since(before, self.entries)
        self.figures |= {f"{place} per entry": size for place, size in room.items()}
        self._note("filling", durations[:timed])

    def _note(self, name: str, durations: Sequence[float]) -> None:
        """Note the mean, the 99.99th percentile and the longest of single operations, and their number."""
        ordered = sorted(durations)
        self.figures[f"{name}: sets"] = len(ordered)
        self.figures[f"{name}: mean"] = statistics.fmean(ordered)
        self.figures[f"{name}: 99.99 %"] = ordered[math.ceil(len(ordered) * 0.9999) - 1]
        self.figures[f"{name}: longest"] = ordered[-1]

    # Using ----------------------------------------------------------------------------------------

    def use(self) -> None:
        """Time the operations on entries that are there, and on new ones when the cache is full."""
        started = perf_counter()
        found = self._count()
        self.figures["count"] = perf_counter() - started
        if found != self.entries:
            raise RuntimeError(f"{self.contender.name} counts {found} of {self.entries} entries")
        for operation, statement in (
            ("get", self.statement("get")),
            ("set", self.statement("set")),
            ("set with a tag", self.statement("set with a tag")),
            ("get with a tag", self.statement("get") if self.statement("set with a tag") else ""),
        ):
            if statement:
                self.figures[operation] = self._time(statement, tagged=operation == "get with a tag")
        with self._full():
            self._time_new()
        # It is looked for when the cache is opened again, and may be evicted by now.
        self.contender.fill(self.cache, {key_of(0): value_of(0, self.entries)})

    def _count(self) -> int:
        return int(eval(self.statement("count"), {"cache": self.cache}))

    def _time(self, statement: str, *, tagged: bool) -> float:
        value = value_of(1, self.entries)
        run = compiled(statement, {"cache": self.cache, "value": value})
        if not tagged:
            return statistics.median(_chunks(lambda count: run(self._some_keys(count), 1), self.effort.each))
        tag = compiled(self.statement("set with a tag"), {"cache": self.cache, "value": value})
        tagged_keys = self._some_keys(min(self.entries, 2_000))
        tag(tagged_keys, 1)

        def read(count: int) -> float:
            return float(run(self._random.choices(tagged_keys, k=count), 1))

        return statistics.median(_chunks(read, self.effort.each))

    def _some_keys(self, count: int) -> list[str]:
        return [key_of(int(self._random.random() * self.entries)) for _ in range(count)]

    @contextmanager
    def _full(self) -> Iterator[None]:
        self.contender.limit(self.cache, self.location)
        yield
        self.contender.unlimit(self.cache, self.location)

    def _time_new(self) -> None:
        """Time sets of new keys into the full cache."""
        set_each, durations = _each(self.statement("set"), self.cache), array("d")

        def run(count: int) -> float:
            numbers = range(self._new, self._new + count)
            self._new += count
            first = len(durations)
            durations.extend([0.0] * count)
            return set_each([(key_of(number), value_of(number, self.entries)) for number in numbers], durations, first)

        self.figures["set when full"] = statistics.median(_chunks(run, self.effort.each))
        self.figures["set when full: longest"] = max(durations)

    # Ending ---------------------------------------------------------------------------------------

    def end(self) -> None:
        """Clear a cache that is still full."""
        started = perf_counter()
        exec(self.statement("clear"), {"cache": self.cache})
        self.figures["clear"] = perf_counter() - started
        if left := self._count():
            raise RuntimeError(f"{self.contender.name} has {left} entries after clear()")

    def close(self) -> None:
        """Close the cache."""
        self.contender.close(self.cache)


def measure(contender: Contender, part: str, entries: int, location: str, effort: ScaleEffort) -> Figures:
    """Measure a part; all of them in one where the entries end with the process."""
    subject = Subject(contender, entries, location, effort)
    subject.load()
    if part == "fill":
        subject.open()
        subject.fill()
        if contender.is_kept:
            return subject.figures  # not closed: it is killed, or stands for one that was
        subject.use()
        subject.end()
    elif part == "use":
        subject.open("open, after kill -9")
        subject.use()
    else:
        subject.open("open")
        subject.end()
    subject.close()
    return subject.figures


def main() -> None:
    """Measure as the arguments say."""
    name, part, entries, location, effort = sys.argv[1:]
    contender = CONTENDERS[name]
    print(json.dumps(measure(contender, part, int(entries), location, EFFORTS[effort])), flush=True)
    if part == "fill" and contender.is_kept:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
