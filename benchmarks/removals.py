"""The cost of OPTIONS["removals"]: processor time of a set() into a full cache, with and without it, in turns.

Run it by ``python -m benchmarks.removals``. The two caches have their turns of some milliseconds alternately, so that
a busy machine disturbs both alike; the median of the ratios is told. Each set() of a new key evicts one entry, which
is noted.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Final

from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache

__all__ = ["compare", "main"]

BOUND: Final = 1_000
REMEMBERED: Final = 1_000
SETS: Final = 500
ROUNDS: Final = 200


def compare(make: Callable[[int], Any], rounds: int = ROUNDS, sets: int = SETS) -> tuple[float, float]:
    """Return the microseconds of a set() into a full cache without a memory of removals, and the ratio with one."""
    caches = [make(0), make(REMEMBERED)]
    numbers = [count(), count()]
    for cache, keys in zip(caches, numbers, strict=True):
        _turn(cache, keys, 2 * BOUND)
    seconds = [[_turn(cache, keys, sets) for cache, keys in zip(caches, numbers, strict=True)] for _ in range(rounds)]
    return (
        statistics.median(without for without, _ in seconds) / sets * 1e6,
        statistics.median(noted / without for without, noted in seconds),
    )


def _turn(cache: Any, keys: Iterator[int], sets: int) -> float:
    begun = time.process_time()
    for _ in range(sets):
        cache.set(f"user:{next(keys)}:profile", "a small string")
    return time.process_time() - begun


def main() -> None:
    """Print both storages' figures."""
    with tempfile.TemporaryDirectory() as folder:
        kinds: dict[str, Callable[[int], Any]] = {
            "local memory": lambda removals: LocMemCache(f"removals {removals}", _params(removals)),
            "files": lambda removals: FileBasedCache(f"{folder}/{removals}", _params(removals)),
        }
        for name, make in kinds.items():
            microseconds, ratio = compare(make)
            print(f"{name}: {microseconds:.2f} µs without, {ratio:.3f} times as long with {REMEMBERED:,} removals")


def _params(removals: int) -> dict[str, Any]:
    return {"OPTIONS": {"max_entries": BOUND, "removals": removals}}


if __name__ == "__main__":
    main()
