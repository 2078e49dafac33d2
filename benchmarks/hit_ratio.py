"""How many requests find their key: local memory's eviction beside other policies.

    python -m benchmarks.hit_ratio

prints the hit ratios on the traces of `benchmarks/traces` and on made-up patterns. Importing this module does nothing.
"""

import lzma
import math
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from random import Random
from sys import byteorder
from typing import Final

from storeroom.eviction import MOST_HITS, BoundedMap

TRACES: Final = Path(__file__).parent / "traces"

REFERENCE: Final = {("web07", 204): 43.96, ("web07", 2048): 58.31, ("web12", 137): 42.55, ("web12", 1375): 72.14}
"""Hit ratio in percent by trace and capacity, of a separate implementation of the policy (traces/README.md)."""

Policy = Callable[[Sequence[str], int], float]
"""Replays keys in order, each asked for and set after a miss; returns the hits in percent of the requests."""


def load(name: str) -> list[str]:
    """Return the keys of a trace, in order."""
    requests = array("I")
    with lzma.open(TRACES / f"{name}.trace.xz") as file:
        requests.frombytes(file.read())
    if byteorder == "little":
        requests.byteswap()
    return list(map(str, requests))


# Policies ---------------------------------------------------------------------------------


def replay(keys: Sequence[str], capacity: int) -> float:
    """Replay on the map of local memory."""
    bounded = BoundedMap(capacity)
    entries = bounded.entries
    misses = 0
    for key in keys:
        entry = entries.get(key)
        if entry is None:
            misses += 1
            bounded.insert(key, None, None, math.inf, 0, 0.0)
        elif entry.freq < MOST_HITS:
            entry.freq += 1
    return 100 - 100 * misses / len(keys)


def replay_lru(keys: Sequence[str], capacity: int) -> float:
    """Replay on an LRU that evicts one entry at a time."""
    return 100 - 100 * _lru_misses(keys, capacity, lambda _size: 1) / len(keys)


def replay_culling_lru(keys: Sequence[str], capacity: int) -> float:
    """Replay on a model of Django's local memory: an LRU that evicts a third when it is full."""
    return 100 - 100 * _lru_misses(keys, capacity, lambda size: size // 3) / len(keys)


def _lru_misses(keys: Sequence[str], capacity: int, evict: Callable[[int], int]) -> int:
    entries: OrderedDict[str, None] = OrderedDict()
    misses = 0
    for key in keys:
        if key in entries:
            entries.move_to_end(key)
            continue
        misses += 1
        if len(entries) >= capacity:
            for _ in range(evict(len(entries))):
                entries.popitem(last=False)
        entries[key] = None
    return misses


def replay_django(keys: Sequence[str], capacity: int) -> float:
    """Replay on Django's own LocMemCache. Slow, as it pickles; needs Django."""
    from django.core.cache.backends.locmem import LocMemCache

    cache = LocMemCache("storeroom.benchmarks.hit_ratio", {"OPTIONS": {"MAX_ENTRIES": capacity}, "TIMEOUT": None})
    cache.clear()
    misses = 0
    for key in keys:
        if cache.get(key) is None:
            misses += 1
            cache.set(key, 1)
    cache.clear()
    return 100 - 100 * misses / len(keys)


def policies() -> dict[str, Policy]:
    """Return the policies by name: Django's own if it is installed, else the model of it."""
    django = {"Django": replay_django} if find_spec("django") else {"Django (a model)": replay_culling_lru}
    return {**django, "LRU": replay_lru, "Storeroom": replay}


# Patterns ---------------------------------------------------------------------------------


def loop(requests: int, keys: int) -> list[str]:
    """All keys in turn, again and again: an LRU that holds fewer never hits."""
    return [str(request % keys) for request in range(requests)]


def scans(requests: int, hot: int, scan: int, seed: int = 1) -> list[str]:
    """A hot set, asked for at random, interrupted by scans of keys that never come back, half of all requests."""
    random = Random(seed)
    result: list[str] = []
    while len(result) < requests:
        result += [str(random.randrange(hot)) for _ in range(scan)]
        result += [f"scan-{len(result)}-{number}" for number in range(scan)]
    return result[:requests]


def zipf(requests: int, keys: int, exponent: float, seed: int = 1) -> list[str]:
    """Keys whose popularity falls with their rank to the power of the exponent."""
    weights = list(accumulate(1 / rank**exponent for rank in range(1, keys + 1)))
    return list(map(str, Random(seed).choices(range(keys), cum_weights=weights, k=requests)))


def shifting_zipf(requests: int, keys: int, exponent: float, phases: int, seed: int = 1) -> list[str]:
    """Zipf, with other keys becoming the popular ones at the start of each phase."""
    return list(_shifting_zipf(requests, keys, exponent, phases, seed))


def _shifting_zipf(requests: int, keys: int, exponent: float, phases: int, seed: int) -> Iterator[str]:
    names = list(range(keys))
    for phase in range(phases):
        Random(seed + phase).shuffle(names)
        for rank in zipf(requests // phases, keys, exponent, seed + phase):
            yield str(names[int(rank)])


def patterns() -> dict[str, tuple[list[str], int]]:
    """Return the made-up patterns by name, each with the capacity to replay it at."""
    return {
        "loop over 1.25 times the capacity": (loop(60_000, 1_250), 1_000),
        "loop over 5 times the capacity": (loop(60_000, 5_000), 1_000),
        "hot set of 0.8 times the capacity, scans": (scans(60_000, 800, 2_000), 1_000),
        "Zipf 0.8": (zipf(60_000, 10_000, 0.8), 1_000),
        "Zipf 1.0": (zipf(60_000, 10_000, 1.0), 1_000),
        "Zipf 1.0, shifting 5 times": (shifting_zipf(60_000, 10_000, 1.0, 6), 1_000),
        "Zipf 1.0, tiny": (zipf(60_000, 10_000, 1.0), 20),
    }


def main() -> None:
    """Print the table."""
    names = policies()
    workloads = {f"{trace}, {capacity}": (load(trace), capacity) for trace, capacity in REFERENCE} | patterns()
    print("| requests, capacity |", " | ".join(names), "|")
    print("| --- |", " | ".join("---:" for _ in names), "|")
    for name, (keys, capacity) in workloads.items():
        print(f"| {name} |", " | ".join(f"{policy(keys, capacity):.2f}" for policy in names.values()), "|")


if __name__ == "__main__":
    main()
