"""The cost of being watched: processor time of a hit, a miss and a set() with all that counts and records on, and off.

Run it by ``python -m benchmarks.overheads``; it takes a minute. The caches of a storage have their turns of some
milliseconds alternately, so that a busy machine disturbs all alike, and the median of the rounds' ratios is told.
Processor time is that of all threads: the replay of recorded traffic and the writing of shared counts are in it.

"On" is families of keys, ``removals``, ``shared_stats`` where there is a server, and ``advise`` in a pause, in which
most of the time passes. "Recording" is the same in a window, and "on average" the two by their parts of the time.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import servers
from benchmarks.timing import compiled, no_collector, orders, stored_keys
from storeroom.recording import recorder

__all__ = ["OFF", "OVERHEADS", "Overhead", "main", "measure"]

ENTRIES: Final = 1_000
SMALL: Final = "a small string"
TURN_SECONDS: Final = 0.002
ROUNDS: Final = 301

STATEMENTS: Final = {
    "get": "cache.get(key)",
    "get of nothing": "cache.get('nobody:7')",
    "get_or_set, warm": "cache.get_or_set(key, value)",
    "set": "cache.set(key, value)",
}

OFF: Final[Mapping[str, Any]] = {"families": False}
REMOVALS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Overhead:
    """One operation on one storage.

    Attributes:
        seconds: of one operation with everything off.
        on: how many times as long it takes with everything on, while no traffic is recorded.
        recording: the same while it is.
        share: the part of the time in which it is.
    """

    seconds: float
    on: float
    recording: float
    share: float

    @property
    def average(self) -> float:
        """How many times as long it takes over a long time."""
        return self.on * (1 - self.share) + self.recording * self.share

    def line(self, name: str) -> str:
        """Return it as a line of text."""
        figures = f"on {self.on:.3f}×, recording {self.recording:.2f}×, on average {self.average:.3f}×"
        return f"{name:32}{self.seconds * 1e6:8.3f} µs, {figures}"


def _memory(_: Path, name: str, options: Mapping[str, Any]) -> Any:
    from storeroom.backends.locmem import LocMemCache

    return LocMemCache(f"overheads {name}", {"OPTIONS": {"max_entries": 10 * ENTRIES, **options}})


def _files(directory: Path, name: str, options: Mapping[str, Any]) -> Any:
    from storeroom.backends.filebased import FileBasedCache

    return FileBasedCache(str(directory / name), {"OPTIONS": {"max_entries": 10 * ENTRIES, **options}})


def _redis(_: Path, name: str, options: Mapping[str, Any]) -> Any:
    from storeroom.backends.redis import RedisCache

    # A timeout of its own for each, so that none shares a connection's engine with another.
    apart = {"socket_timeout": 5.0 + len(name) / 100}
    return RedisCache(servers.redis(), {"KEY_PREFIX": name, "OPTIONS": {**apart, **options}})


@dataclass(frozen=True, slots=True)
class _Storage:
    make: Callable[[Path, str, Mapping[str, Any]], Any]
    share: float
    is_shared: bool = False


_STORAGES: Final = {
    "local memory": _Storage(_memory, recorder.MEMORY_SHARE),
    "files": _Storage(_files, recorder.FILES_SHARE),
    "Redis": _Storage(_redis, recorder.SERVERS_SHARE, is_shared=True),
}

OVERHEADS: Final = tuple(f"{storage}: {operation}" for storage in _STORAGES for operation in STATEMENTS)
"""The names of what is measured."""


def measure(directory: Path, names: Sequence[str] = OVERHEADS, rounds: int = ROUNDS) -> dict[str, Overhead]:
    """Return what being watched costs, by storage and operation.

    Args:
        directory: an empty one, for files.
        names: those of OVERHEADS that are wanted.
        rounds: how often each cache has its turn.
    """
    measured: dict[str, Overhead] = {}
    for kind, storage in _STORAGES.items():
        wanted = {name: text for name, text in STATEMENTS.items() if f"{kind}: {name}" in names}
        if wanted:
            caches = _opened(storage, directory)
            for name, statement in wanted.items():
                measured[f"{kind}: {name}"] = _compared(caches, statement, rounds, storage.share)
            for cache in caches.values():
                if cache.engine.recorder is not None:
                    cache.engine.recorder.stop()
    return measured


def _opened(storage: _Storage, directory: Path) -> dict[str, Any]:
    """Return a filled cache with everything off, one with everything on, and one that records all the time."""
    on = {"removals": REMOVALS} | ({"shared_stats": True} if storage.is_shared else {})
    by_name = {"off": OFF, "on": {**on, "advise": True}, "recording": {**on, "advise": recorder.ALWAYS}}
    caches = {name: storage.make(directory, name, options) for name, options in by_name.items()}
    for cache in caches.values():
        cache.set_many(dict.fromkeys(stored_keys(ENTRIES), SMALL), timeout=None)
        cache.get("begin to record")
    pausing = caches["on"].engine.recorder
    pausing.close()
    pausing.stop()
    return caches


def _compared(caches: Mapping[str, Any], statement: str, rounds: int, share: float) -> Overhead:
    keys = stored_keys(ENTRIES)
    runs = {
        name: compiled(statement, {"cache": cache, "value": SMALL, "perf_counter": time.process_time})
        for name, cache in caches.items()
    }
    with no_collector():
        number = len(keys)
        for run in runs.values():
            run(keys, 3)
        turn = keys[: max(10, min(number, int(TURN_SECONDS / (runs["off"](keys, 1) / number))))]
        repeats = max(1, int(TURN_SECONDS / runs["off"](turn, 1)))
        taken = [{name: runs[name](turn, repeats) for name in order} for order in orders(list(runs), rounds)]
    operations = len(turn) * repeats
    return Overhead(
        statistics.median(each["off"] for each in taken) / operations,
        statistics.median(each["on"] / each["off"] for each in taken),
        statistics.median(each["recording"] / each["off"] for each in taken),
        share,
    )


def main() -> None:
    """Print all figures."""
    try:
        for name, each in measure(servers.directory()).items():
            print(each.line(name))
    finally:
        servers.stop()


if __name__ == "__main__":
    main()
