"""Hit ratios on the recorded traces: of Storeroom's backends that evict, Django's, an LRU, and the limit."""

import heapq
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.goals import Verdict
from benchmarks.hit_ratio import REFERENCE, load, policies
from storeroom.backends.db import DatabaseCache
from storeroom.backends.filebased import FileBasedCache
from storeroom.base import BaseCache

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
