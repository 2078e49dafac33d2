"""Hit ratios on the recorded traces: of Storeroom's backends that evict, Django's, an LRU, and the limit.

    python -m benchmarks.hits [WORD ...]

prints local memory and files beside an LRU and the policy in which writes alone teach: with and without a refill after
a miss, bounded by entries and by bytes, files in one process and in four; of all workloads, or of those whose name has
one of the words.
"""

import heapq
import multiprocessing
import os
import sys
import tempfile
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from random import Random
from typing import Any, Final, Protocol
from zlib import crc32

from benchmarks.goals import Verdict
from benchmarks.hit_ratio import REFERENCE, load, policies, scans, shifting_zipf
from storeroom.backends.db import DatabaseCache
from storeroom.backends.filebased import FileBasedCache
from storeroom.base import BaseCache
from storeroom.eviction import MOST_HITS, BoundedMap

__all__ = ["STORED", "HitRatios", "judge", "limit", "measure", "replay_stored"]

TOLERANCE: Final = 0.3
"""Points by which Storeroom may stay below the reference implementation."""

HitRatios = dict[str, dict[str, float]]
"""Trace and capacity to policy to percent."""

LIMIT: Final = "the limit"


def _name(trace: str, capacity: int) -> str:
    return f"{trace}, {capacity:,} entries"


Open = Callable[[Path, int], BaseCache]
"""Opens a cache in a folder, for so many entries."""


def measure(workloads: Sequence[tuple[str, int]], storages: Mapping[str, Open]) -> HitRatios:
    """Replay traces at capacities, on local memory, its rivals and these storages."""
    ratios: HitRatios = {}
    for trace, capacity in workloads:
        keys = load(trace)
        named = {name: policy(keys, capacity) for name, policy in reversed(policies().items())}
        local = {"Storeroom": named.pop("Storeroom")}
        stored = {name: replay_stored(open_cache, keys, capacity) for name, open_cache in storages.items()}
        ratios[_name(trace, capacity)] = {**local, **stored, **named, LIMIT: limit(keys, capacity)}
    return ratios


def _files(folder: Path, capacity: int) -> BaseCache:
    return FileBasedCache(folder / "cache", {"OPTIONS": {"max_entries": capacity}})


def _sqlite(folder: Path, capacity: int) -> BaseCache:
    return DatabaseCache("hits", {"OPTIONS": {"max_entries": capacity, "url": f"sqlite:///{folder / 'hits.sqlite3'}"}})


STORED: Final[dict[str, Open]] = {
    "Storeroom, files": _files,
    "Storeroom, SQLite": _sqlite,
}


def replay_stored(open_cache: Open, keys: Sequence[str], capacity: int) -> float:
    """Replay keys on a cache, each asked for and set after a miss; return the hits in percent of the requests."""
    misses = 0
    with tempfile.TemporaryDirectory() as folder:
        cache = open_cache(Path(folder), capacity)
        for key in keys:
            if cache.get(key) is None:
                misses += 1
                cache.set(key, 1, timeout=None)
        cache.engine.close()
    return 100 - 100 * misses / len(keys)


def limit(keys: Sequence[str], capacity: int) -> float:
    """Return the highest hit ratio possible: whoever is needed again last is evicted, which takes clairvoyance.

    Source: L. A. Belady, "A study of replacement algorithms for a virtual-storage
    computer", IBM Systems Journal 5 (1966).
    """
    upcoming = _next_uses(keys)
    cached: dict[str, int] = {}
    latest: list[tuple[int, str]] = []
    hits = 0
    for position, key in enumerate(keys):
        if key in cached:
            hits += 1
        elif len(cached) >= capacity:
            while True:
                use, victim = heapq.heappop(latest)
                if cached.get(victim) == -use:
                    del cached[victim]
                    break
        cached[key] = upcoming[position]
        heapq.heappush(latest, (-upcoming[position], key))
    return 100 * hits / len(keys)


def _next_uses(keys: Sequence[str]) -> list[int]:
    """Return for each position the next one with the same key; distinct positions beyond the end if there is none."""
    following: dict[str, int] = {}
    uses = [0] * len(keys)
    for position in reversed(range(len(keys))):
        uses[position] = following.get(keys[position], len(keys) + position)
        following[keys[position]] = position
    return uses


def judge(ratios: HitRatios) -> list[Verdict]:
    """Compare with the reference implementation's figures, where a workload has one."""
    verdicts = []
    for (trace, capacity), reference in REFERENCE.items():
        name, goal = _name(trace, capacity), reference - TOLERANCE
        for storage in sorted(ratios.get(name, {}).keys() & {"Storeroom", "Storeroom, files"}):
            measured = ratios[name][storage]
            verdicts.append(
                Verdict(
                    f"hit ratio, {name}{storage.removeprefix('Storeroom')}",
                    f"≥ {goal:.2f} %",
                    f"{measured:.2f} %",
                    measured >= goal,
                    max(0.0, 1 - measured / goal),
                )
            )
    return verdicts


# Refills or none, entries or bytes, one process or four ---------------------------------------

OVERHEAD: Final = 120
"""Bytes that an entry is taken to need beside its value, about as in files."""
NEAR: Final = 0.5
"""Points below the better of the LRU and the policy before that are marked."""
_PROCESSES: Final = 4
_TURN: Final = 40
"""Requests that a process answers before the next one goes on."""


@dataclass(frozen=True)
class Traffic:
    """Requests for a cache, and its bound.

    Attributes:
        keys: in order of their use.
        capacity: the entries that there is room for, or as many bytes as that many of the mean size need.
        refills: whether each key is read, and written after a miss; else it is written at first and then only read.
        by_bytes: whether sizes differ, and bytes are bounded.
    """

    keys: Sequence[str]
    capacity: int
    refills: bool
    by_bytes: bool

    def weight(self, key: str) -> int:
        """Return the part of the bound that an entry takes."""
        return OVERHEAD + crc32(key.encode()) % 400 if self.by_bytes else 1

    @property
    def bound(self) -> int:
        """The largest sum of weights."""
        keys = set(self.keys)
        return self.capacity * sum(map(self.weight, keys)) // len(keys)

    def requests(self) -> Iterator[tuple[str, bool]]:
        """Yield keys in order, and whether each is written without being read."""
        begun = set[str]()
        for key in self.keys:
            yield key, not self.refills and key not in begun
            begun.add(key)


class Store(Protocol):
    """Entries within a bound."""

    def get(self, key: str) -> bool:
        """Read a key; return whether it is there."""

    def set(self, key: str) -> None:
        """Write a key that is not there."""


class Lru:
    """The entry that was not used for longest goes."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic, self._room, self._entries = traffic, traffic.bound, OrderedDict[str, int]()

    def get(self, key: str) -> bool:
        """Read a key."""
        if key not in self._entries:
            return False
        self._entries.move_to_end(key)
        return True

    def set(self, key: str) -> None:
        """Write a key."""
        self._entries[key] = weight = self._traffic.weight(key)
        self._room -= weight
        while self._room < 0:
            self._room += self._entries.popitem(last=False)[1]


class WritesTeach:
    """Windowed, adaptive S3-FIFO as it was at first: a share of a twentieth, and lessons by writes alone.

    The policy to compare with, as decisions/0020 began with it.
    """

    def __init__(self, traffic: Traffic) -> None:
        self._traffic, self._room, self._capacity = traffic, traffic.bound, traffic.capacity
        self._least, self._step = max(1.0, 0.02 * self._capacity), min(max(self._capacity / 100, 1.0), 8.0)
        self._target, self._is_filling = max(self._least, 0.05 * self._capacity), True
        self._hits = dict[str, int]()
        self._young, self._old, self._main = deque[str](), deque[str](), deque[str]()
        self._ghosts: tuple[dict[str, int], dict[str, int]] = {}, {}
        self._evicted = [0, 0]

    def get(self, key: str) -> bool:
        """Read a key."""
        if key not in self._hits:
            return False
        self._hits[key] = min(MOST_HITS, self._hits[key] + 1)
        return True

    def set(self, key: str) -> None:
        """Write a key."""
        returns = self._learn(key)
        self._room -= self._traffic.weight(key)
        while self._room < 0:
            self._evict()
        self._hits[key] = 0
        is_main = returns or (self._is_filling and len(self._young) + len(self._old) >= self._target)
        (self._main if is_main else self._young).append(key)

    def _learn(self, key: str) -> bool:
        ages = [self._evicted[proven] - self._ghosts[proven].pop(key, -(1 << 40)) for proven in (0, 1)]
        step = 0.0
        if ages[0] < 0.05 * self._capacity:
            step = self._step
        elif ages[1] <= 0.05 * self._capacity:
            step = -1.5 * self._step
        self._target = min(max(self._target + step, self._least), max(self._least, 0.5 * self._capacity))
        return ages[0] <= 0.9 * self._capacity

    def _evict(self) -> None:
        young, old, main, hits = self._young, self._old, self._main, self._hits
        self._is_filling = False
        while True:
            proven = len(young) + len(old) < self._target and bool(main)
            if not proven:
                while len(young) > min(0.05 * self._capacity, self._target / 2) or not old:
                    hits[young[0]] = 0
                    old.append(young.popleft())
            key = (main if proven else old).popleft()
            if not hits[key]:
                break
            hits[key] = hits[key] - 1 if proven else 0
            main.append(key)
        del hits[key]
        self._ghosts[proven][key] = self._evicted[proven]
        self._evicted[proven] += 1
        self._room += self._traffic.weight(key)


class Local:
    """The map of local memory."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._map = BoundedMap(*((None, traffic.bound) if traffic.by_bytes else (traffic.bound,)))

    def get(self, key: str) -> bool:
        """Read a key."""
        entry = self._map.entries.get(key)
        if entry is None:
            self._map.miss(key)
            return False
        entry.freq = min(MOST_HITS, entry.freq + 1)
        return True

    def set(self, key: str) -> None:
        """Write a key."""
        self._map.insert(key, None, None, float("inf"), self._traffic.weight(key), 0.0)


class Files:
    """A file cache. Its bound in bytes is for as many entries, of what they take there."""

    def __init__(self, traffic: Traffic, folder: str) -> None:
        self._traffic = traffic
        options: dict[str, Any] = {"max_entries": traffic.capacity}
        if traffic.by_bytes:
            options = {"max_entries": None, "max_bytes": traffic.bound}
        self.cache = FileBasedCache(folder, {"TIMEOUT": None, "OPTIONS": options})

    def get(self, key: str) -> bool:
        """Read a key."""
        return self.cache.get(key) is not None

    def set(self, key: str) -> None:
        """Write a key."""
        size = self._traffic.weight(key) - _ENTRY_BYTES - len(key) if self._traffic.by_bytes else 1
        self.cache.set(key, "x" * size)


_ENTRY_BYTES: Final = 113
"""Bytes that a file cache counts for an entry beside value and key."""


def serve(requests: Iterable[tuple[str, bool]], store: Store, *, refills: bool) -> int:
    """Replay requests; return the hits."""
    hits = 0
    for key, is_written in requests:
        if is_written:
            store.set(key)
        elif store.get(key):
            hits += 1
        elif refills:
            store.set(key)
    return hits


def _percent(traffic: Traffic, hits: int) -> float:
    reads = len(traffic.keys) - (0 if traffic.refills else len(set(traffic.keys)))
    return 100 * hits / reads


def ratio(traffic: Traffic, store: Store) -> float:
    """Replay on a store; return the hits in percent of the reads."""
    return _percent(traffic, serve(traffic.requests(), store, refills=traffic.refills))


def ratio_of_files(traffic: Traffic, processes: int) -> float:
    """Replay on a file cache that so many processes use in turns."""
    with tempfile.TemporaryDirectory() as folder:
        files, requests = Files(traffic, folder), list(traffic.requests())
        turns = [requests[start : start + _TURN] for start in range(0, len(requests), _TURN)]
        ring, forked = [os.pipe() for _ in range(processes)], multiprocessing.get_context("fork")
        hits = forked.SimpleQueue()

        def work(number: int) -> None:
            mine = 0
            for turn in turns[number::processes]:
                os.read(ring[number][0], 1)
                mine += serve(turn, files, refills=traffic.refills)
                os.write(ring[(number + 1) % processes][1], b".")
            hits.put(mine)

        workers = [forked.Process(target=work, args=(number,)) for number in range(processes)]
        for worker in workers:
            worker.start()
        os.write(ring[0][1], b".")
        for worker in workers:
            worker.join()
        for descriptor in chain.from_iterable(ring):
            os.close(descriptor)
        return _percent(traffic, sum(hits.get() for _ in workers))


def sessions(requests: int, active: int, uses: int, seed: int = 1) -> Iterator[str]:
    """Yield keys of which so many live at a time, in a random order; each is used so many times."""
    random, numbers, living = Random(seed), count(), list[list[Any]]()
    for _ in range(requests):
        if len(living) < active:
            living.append([f"session {next(numbers)}", uses])
        position = random.randrange(len(living))
        key, left = living[position]
        yield key
        living[position][1] = left - 1
        if left == 1:
            living[position] = living[-1]
            living.pop()


def full_of_old(capacity: int) -> list[str]:
    """Return requests that fill a cache with keys that are written, read once, and never needed again."""
    old = [f"old {number}" for number in range(capacity)]
    return old + old


def read_later(writes: int, distance: int) -> Iterator[str]:
    """Yield keys that are used twice each, the second time when so many others have been written."""
    for number in range(writes):
        yield f"new {number}"
        if number >= distance:
            yield f"new {number - distance}"


def workloads() -> dict[str, tuple[Sequence[str], int]]:
    """Return traces and patterns by name, each with its capacity."""
    bound = 1_000
    old = full_of_old(bound)
    later = {
        f"read after {percent} % of the bound": ([*old, *read_later(4_000, bound * percent // 100)], bound)
        for percent in (1, 10, 25, 50)
    }
    return {
        **{_name(trace, capacity): (load(trace), capacity) for trace, capacity in REFERENCE},
        "300 sessions": ([*full_of_old(800), *sessions(15_000, 300, 9)], 800),
        "500 sessions": ([*old, *sessions(15_000, 500, 9)], bound),
        "500 sessions, empty at first": (list(sessions(15_000, 500, 9)), bound),
        "shifting popularity": (shifting_zipf(40_000, 10_000, 1.0, 4), bound),
        "wholly new popularity": (
            [f"{phase} {key}" for phase in range(4) for key in shifting_zipf(10_000, 3_000, 0.9, 1, phase)],
            bound,
        ),
        **{f"hot set of {hot}, scans": (scans(30_000, hot, 2_000), bound) for hot in (500, 800)},
        **later,
    }


def main(words: Sequence[str]) -> None:
    """Print the table."""
    columns = ("LRU", "writes teach", "local", "files", f"files, {_PROCESSES} processes")
    print("| requests | refills | bound |", " | ".join(columns), "|")
    print("| --- | --- | --- |", " | ".join("---:" for _ in columns), "|")
    for name, (keys, capacity) in workloads().items():
        if words and not any(word in name for word in words):
            continue
        for refills in (True, False):
            for by_bytes in (False, True):
                traffic = Traffic(keys, capacity, refills, by_bytes)
                goals = [ratio(traffic, store(traffic)) for store in (Lru, WritesTeach)]
                measured = [ratio(traffic, Local(traffic)), *(ratio_of_files(traffic, n) for n in (1, _PROCESSES))]
                least = max(goals) - NEAR
                cells = [f"{goal:.2f}" for goal in goals]
                cells += [f"{part:.2f}" if part >= least else f"**{part:.2f}**" for part in measured]
                kind = f"{'yes' if refills else 'no'} | {'bytes' if by_bytes else 'entries'}"
                print(f"| {name} | {kind} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
