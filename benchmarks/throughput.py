"""How many operations a second several threads get out of one cache: nine gets to one set.

Several processes are measured by ``benchmarks.scale``.
"""

import statistics
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

from benchmarks.goals import Verdict
from benchmarks.libraries import CACHELIB_MEMORY, CACHETOOLS, DJANGO_MEMORY, STOREROOM_MEMORY, Library
from benchmarks.timing import SMALL, Effort, compiled, stored_keys

__all__ = ["THREADS", "Throughput", "by_threads", "judge"]

THREADS: Final = (1, 4, 16)

ENTRIES: Final = 1_000
CHUNK: Final = 100
"""Operations between two looks at the clock."""

LOCKED_CACHETOOLS: Final = Library(
    "cachetools, with a lock",
    "cachetools",
    lambda directory, bound: _Locked(CACHETOOLS.open(directory, bound)),
    {"get": "cache.get(key)", "set": "cache.set(key, value)"},
)
"""As its documentation says for threads: https://cachetools.readthedocs.io/ ("not thread-safe")."""


class _Locked:
    """A cache of cachetools and the lock around it."""

    def __init__(self, cache: Any) -> None:
        self._cache, self._lock = cache, threading.Lock()

    def get(self, key: str) -> Any:
        with self._lock:
            return self._cache.get(key)

    def set(self, key: str, value: Any) -> None:
        with self._lock:
            self._cache[key] = value

    def clear(self) -> None:
        self._cache.clear()


MEMORY: Final = (STOREROOM_MEMORY, DJANGO_MEMORY, LOCKED_CACHETOOLS, CACHELIB_MEMORY)

Throughput = dict[str, dict[int, float]]
"""Library's name to number of threads to operations a second of all together."""


def _mixed(library: Library, cache: Any) -> Callable[[Sequence[str]], None]:
    """Return a function that does a chunk of operations on these keys."""
    names = {"cache": cache, "value": SMALL}
    get = compiled(library.statements["get"], names)
    set_ = compiled(library.statements["set"], names)

    def operate(keys: Sequence[str]) -> None:
        get(keys[10:], 1)
        set_(keys[:10], 1)

    return operate


_Part = tuple[int, float, float]
"""How many operations one thread has done, and when it began and ended."""


def _work(operate: Callable[[Sequence[str]], None], seed: int, seconds: float) -> _Part:
    """Operate for that long."""
    keys = stored_keys(ENTRIES)
    Random(seed).shuffle(keys)
    chunks = [keys[start : start + CHUNK] for start in range(0, ENTRIES, CHUNK)]
    done, started = 0, perf_counter()
    while (now := perf_counter()) - started < seconds:
        operate(chunks[done // CHUNK % len(chunks)])
        done += CHUNK
    return done, started, now


def _rate(parts: Sequence[_Part]) -> float:
    """Return operations a second of all together, from the first beginning to the last end.

    Not the sum of their own rates: threads begin one after the other, and each has some time for itself then.
    """
    done, started, ended = zip(*parts, strict=True)
    return float(sum(done) / (max(ended) - min(started)))


# Threads ----------------------------------------------------------------------------------------


def by_threads(counts: Sequence[int], effort: Effort) -> Throughput:
    """Measure caches shared by threads, in turn."""
    libraries = [library for library in MEMORY if library.is_installed]
    rounds = [
        {
            (library.name, count): _with_threads(library, count, effort.seconds)
            for library in libraries
            for count in counts
        }
        for _ in range(effort.rounds)
    ]
    return _medians(rounds, [library.name for library in libraries], counts)


def _with_threads(library: Library, count: int, seconds: float) -> float:
    with TemporaryDirectory(prefix="storeroom-bench-") as directory, library.opened(Path(directory)) as cache:
        library.fill(cache, dict.fromkeys(stored_keys(ENTRIES), SMALL))
        operate = _mixed(library, cache)
        barrier = threading.Barrier(count)
        parts: list[_Part] = []

        def run(seed: int) -> None:
            barrier.wait()
            parts.append(_work(operate, seed, seconds))

        threads = [threading.Thread(target=run, args=(seed,)) for seed in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return _rate(parts)


def judge(rates: Throughput) -> list[Verdict]:
    """Tell whether four threads get about as much done as one: CPython's lock lets no more."""
    ours, wanted = rates["Storeroom"], 0.9
    share = ours[4] / ours[1]
    goal, measured = f"four ≥ {wanted:g}× the rate of one", f"{share:.2f}×"
    return [Verdict("threads", goal, measured, share >= wanted, max(0.0, 1 - share / wanted))]


def _medians(
    rounds: Sequence[Mapping[tuple[str, int], float]], names: Sequence[str], counts: Sequence[int]
) -> Throughput:
    return {
        name: {count: statistics.median(each[name, count] for each in rounds) for count in counts} for name in names
    }
