"""The longest single operation of large caches in memory, by the time that the processor spent on it.

    python -m benchmarks.pauses [ENTRIES ...]

fills local memory and a plain dict with so many entries, a million if not told, uses them, and clears them while
another thread goes on setting keys. All else that the machine does has no part in the figures but those of `clear()`.
"""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from time import perf_counter, thread_time
from typing import Any, Final
from uuid import uuid4

from storeroom.backends.locmem import LocMemCache

__all__ = ["longest", "main"]

TIMEOUT: Final = 3_600.0


class PlainDict:
    """A dict with the operations of a cache, and none of their duties but to make room for a new key when full."""

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.entries: dict[str, Any] = {}

    def set(self, key: str, value: Any) -> None:
        """Store a value; the oldest goes if there is no room."""
        if key not in self.entries and len(self.entries) >= self.bound:
            del self.entries[next(iter(self.entries))]
        self.entries[key] = value

    def touch(self, key: str, timeout: float) -> bool:
        """Look whether a key is there."""
        return key in self.entries

    def delete(self, key: str) -> bool:
        """Remove a key."""
        return self.entries.pop(key, None) is not None

    def clear(self) -> None:
        """Remove everything."""
        self.entries.clear()


def _memory(bound: int) -> LocMemCache:
    return LocMemCache(uuid4().hex, {"TIMEOUT": TIMEOUT, "OPTIONS": {"max_entries": bound}})


CACHES: Final[dict[str, Callable[[int], Any]]] = {"local memory": _memory, "a plain dict": PlainDict}


def key_of(number: int) -> str:
    """Return the key of an entry: neighbours in time are none in a table."""
    return f"user:{number * 2_654_435_761 % 2**32:08x}"


def longest(operation: Callable[[str], object], keys: Iterable[str]) -> float:
    """Run the operation for each key; return the seconds of processor time that the longest took."""
    most = 0.0
    for key in keys:
        started = thread_time()
        operation(key)
        most = max(most, thread_time() - started)
    return most


def _keys(first: int, end: int) -> Iterator[str]:
    return map(key_of, range(first, end))


def _set(cache: Any, key: str) -> None:
    cache.set(key, f"{key:0>100}")


def measure(cache: Any, entries: int) -> Iterator[tuple[str, float]]:
    """Yield what was done, and the seconds of the longest."""
    put = partial(_set, cache)
    yield "set while filling", longest(put, _keys(0, entries))
    yield "set of a key that is there", longest(put, _keys(0, entries))
    yield "set of a new key when full", longest(put, _keys(entries, 2 * entries))
    yield "touch", longest(lambda key: cache.touch(key, TIMEOUT), _keys(entries, 2 * entries))
    yield "delete", longest(cache.delete, _keys(0, 2 * entries))
    for key in _keys(0, entries):
        put(key)
    yield from _clear(cache, put)


def _clear(cache: Any, put: Callable[[str], None]) -> Iterator[tuple[str, float]]:
    """Clear, while a thread sets. Times are those of the clock, as the thread waits for our lock and for Python's."""
    done, waits = threading.Event(), [0.0]

    def others() -> None:
        number = 0
        while not done.is_set():
            started = perf_counter()
            put(f"other{number % 100}")
            waits.append(perf_counter() - started)
            number += 1

    thread = threading.Thread(target=others)
    thread.start()
    started = perf_counter()
    cache.clear()
    elapsed = perf_counter() - started
    done.set()
    thread.join()
    yield "set of another thread during clear(), by the clock", max(waits)
    yield "clear(), by the clock", elapsed


def main(arguments: list[str]) -> None:
    """Print the longest operations, in milliseconds."""
    for entries in map(int, arguments or ["1000000"]):
        for name, open_cache in CACHES.items():
            print(f"{entries:,} entries, {name}")
            for operation, seconds in measure(open_cache(entries), entries):
                print(f"  {operation:<52} {seconds * 1e3:9.2f} ms", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
