"""The longest wait that an operation on everything causes, for the event loop and for another process that writes.

    python -m benchmarks.bulk [--entries N] [files|memory|sqlite ...]

fills each storage with so many entries, 300,000 if not told, and runs each operation from an event loop beside a task
that does nothing but look at the clock, while another process (for local memory another thread) sets keys. The lines
tell how long the operation took, for how long the loop stood still at most, and how long one set() took at most.
"""

import argparse
import asyncio
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Final, TypeAlias

from storeroom.backends.db import DatabaseCache
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache

__all__ = ["OPERATIONS", "main", "measure"]

MANY: Final = 20_000

LOOK_SECONDS: Final = 0.001


def _files(folder: str, prefix: str) -> Any:
    return FileBasedCache(folder, {"KEY_PREFIX": prefix, "TIMEOUT": None, "OPTIONS": {"max_entries": None}})


def _memory(folder: str, prefix: str) -> Any:
    return LocMemCache(folder, {"KEY_PREFIX": prefix, "TIMEOUT": None, "OPTIONS": {"max_entries": None}})


def _sqlite(folder: str, prefix: str) -> Any:
    options = {"url": f"sqlite:///{folder}/cache.sqlite3", "max_entries": None}
    return DatabaseCache("cache", {"KEY_PREFIX": prefix, "TIMEOUT": None, "OPTIONS": options})


STORAGES: Final[dict[str, Callable[[str, str], Any]]] = {"files": _files, "memory": _memory, "sqlite": _sqlite}


def _entries(first: int, end: int) -> dict[str, str]:
    return {f"key{number}": "v" * 50 for number in range(first, end)}


Parts: TypeAlias = list[dict[str, str]]


async def _expire(cache: Any, parts: Parts) -> None:
    """Let the entries run out."""
    for part in parts:
        await cache.aset_many(part, timeout=0.01)


async def _fill(cache: Any, parts: Parts) -> None:
    for part in parts:
        await cache.aset_many(part)


OPERATIONS: Final[dict[str, Callable[[Any, Parts], Awaitable[Any]]]] = {
    "acount()": lambda cache, _: cache.acount(),
    "akeys()": lambda cache, _: cache.akeys(),
    "astats()": lambda cache, _: cache.astats(),
    "aget_many() of 20,000": lambda cache, parts: cache.aget_many(parts[0]),
    "adelete_many() of 20,000": lambda cache, parts: cache.adelete_many(parts[0]),
    "aset_many() of 20,000": lambda cache, parts: cache.aset_many(parts[0]),
    "aset_many() of all, for a moment": _expire,
    "aprune()": lambda cache, _: cache.aprune(),
    "aset_many() of all": _fill,
    "aclear()": lambda cache, _: cache.aclear(),
}
"""Name -> the operation on a cache of these entries, in the order in which they are run."""


def _set_all_the_time(open_cache: Callable[[], Any], is_over: Any, longest: Any, turn: Any) -> None:
    """Set keys until told to stop; note the longest wait of the operation under way."""
    cache, number = open_cache(), 0
    while not is_over.is_set():
        current, begun = turn.value, time.perf_counter()
        cache.set(f"other{number % 100}", number)
        if turn.value == current:
            longest.value = max(longest.value, time.perf_counter() - begun)
        number += 1
        time.sleep(LOOK_SECONDS)


async def _timed(work: Callable[[], Awaitable[Any]]) -> tuple[float, float]:
    """Run an operation; return the seconds that it took, and the longest of the loop's pauses."""
    stood, is_over = 0.0, False

    async def look() -> None:
        nonlocal stood
        last = time.perf_counter()
        while not is_over:
            await asyncio.sleep(LOOK_SECONDS)
            now = time.perf_counter()
            stood, last = max(stood, now - last), now

    looking = asyncio.ensure_future(look())
    await asyncio.sleep(20 * LOOK_SECONDS)
    stood, begun = 0.0, time.perf_counter()
    await work()
    took = time.perf_counter() - begun
    await asyncio.sleep(2 * LOOK_SECONDS)
    is_over = True
    await looking
    return took, stood - LOOK_SECONDS


def measure(name: str, count: int) -> Iterator[tuple[str, float, float, float]]:
    """Yield each operation, its seconds, and the longest pause and wait that it caused."""
    with tempfile.TemporaryDirectory() as folder:
        cache = STORAGES[name](folder, "measured")
        parts = [_entries(first, min(first + MANY, count)) for first in range(0, count, MANY)]
        asyncio.run(_fill(cache, parts))
        cache.set("other", 1)
        context = multiprocessing.get_context("fork")
        is_over, longest, turn = context.Event(), context.Value("d", 0.0), context.Value("i", 0)
        start: Any = threading.Thread if name == "memory" else context.Process
        other = start(target=_set_all_the_time, args=(partial(STORAGES[name], folder, "other"), is_over, longest, turn))
        other.start()
        try:
            for operation, work in OPERATIONS.items():
                time.sleep(0.1)
                turn.value, longest.value = turn.value + 1, 0.0
                took, stood = asyncio.run(_timed(partial(work, cache, parts)))
                yield operation, took, stood, longest.value
        finally:
            is_over.set()
            other.join()
            cache._engine.close()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bulk", description=__doc__.splitlines()[0])
    parser.add_argument("storages", nargs="*", metavar="STORAGE", help=f"of {', '.join(STORAGES)}; default: all")
    parser.add_argument("--entries", type=int, default=300_000)
    arguments = parser.parse_args()
    print("| storage | operation | took | the loop stood still | another's set() waited |")
    print("| --- | --- | --- | --- | --- |")
    for name in arguments.storages or STORAGES:
        for operation, took, stood, waited in measure(name, arguments.entries):
            figures = " | ".join(f"{seconds * 1e3:,.1f} ms" for seconds in (took, stood, waited))
            print(f"| {name} | {operation} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
