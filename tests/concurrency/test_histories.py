"""Histories: threads read, invalidate and refresh at random, and no read returns a value that was replaced before.

A source counts up. A thread that changes it tells the cache; from the moment that this returns nobody may get a value
from before. Each thread draws from its own seed; only the scheduler's turns differ from run to run.
"""

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.testing.concurrency import in_threads

KEYS = 3
THREADS = 6
SECONDS = 0.4


class Shared(LocMemCache):
    """Local memory whose computations compete for a lease, as if other processes shared it."""

    is_shared = True


class Opaque:
    """A value whose copies do not equal it."""

    def __init__(self, number: int) -> None:
        self.number = number


class History:
    """A source, the changes that the cache was told of, and the values read although they had been replaced."""

    def __init__(self, cache: Any, *, tagged: bool, wrap: Callable[[int], Any]) -> None:
        self._cache, self._tagged, self._wrap = cache, tagged, wrap
        self._lock = threading.Lock()
        self._source = [0] * KEYS
        self._told = [0] * KEYS  # the newest number of which the cache was told
        self.wrong: list[tuple[str, int, int]] = []
        self.reads = 0

    def act(self, chance: random.Random, deadline: float) -> None:
        """Read and change at random, as programs do."""
        while time.monotonic() < deadline and not self.wrong:
            key, way = chance.randrange(KEYS), chance.random()
            if way < 0.6:
                self._expect("read", self._told[key], self._read("get_or_set", key))
            elif way < 0.9:
                self._read_many(chance.sample(range(KEYS), chance.randint(1, KEYS)))
            else:
                self._change(chance, key)

    def _change(self, chance: random.Random, key: int) -> None:
        with self._lock:
            self._source[key] += 1
            number = self._source[key]
        way = chance.choice(["delete", "refresh", "invalidate_tags" if self._tagged else "delete"])
        if way == "delete":
            self._cache.delete(key)
        elif way == "refresh":
            self._expect("refresh", number, self._read("refresh", key))
        else:
            self._cache.invalidate_tags(f"tag {key}")
        with self._lock:
            self._told[key] = max(self._told[key], number)

    def _read(self, operation: str, key: int) -> int:
        def compute() -> Any:
            number = self._source[key]
            time.sleep(random.random() * 0.002)
            return self._wrap(number)

        tags = [f"tag {key}"] if self._tagged else []
        found = getattr(self._cache, operation)(key, compute, 60, tags=tags)
        return found.number if isinstance(found, Opaque) else found

    def _read_many(self, keys: list[int]) -> None:
        def compute(missing: list[int]) -> dict[int, Any]:
            numbers = [self._source[key] for key in missing]
            time.sleep(random.random() * 0.002)
            return dict(zip(missing, map(self._wrap, numbers), strict=True))

        told = [self._told[key] for key in keys]
        tags = [f"tag {key}" for key in keys] if self._tagged else []
        found = self._cache.get_or_set_many(keys, compute, 60, tags=tags)
        for key, least in zip(keys, told, strict=True):
            number = found[key].number if isinstance(found[key], Opaque) else found[key]
            self._expect("read of many", least, number)

    def _expect(self, what: str, least: int, found: int) -> None:
        self.reads += 1
        if found < least:
            self.wrong.append((what, least, found))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("wrap", [int, Opaque], ids=["numbers", "opaque"])
@pytest.mark.parametrize("tagged", [False, True], ids=["plain", "tagged"])
@pytest.mark.parametrize("backend", [LocMemCache, Shared, FileBasedCache])
def test_nothing_is_read_that_was_replaced_before(backend, tagged, wrap, seed, tmp_path):
    """No read returns a value that was replaced before the read began."""
    cache = backend(str(tmp_path / "cache"), {})
    history = History(cache, tagged=tagged, wrap=wrap)
    deadline = time.monotonic() + SECONDS
    in_threads(THREADS, lambda number: history.act(random.Random(seed * 1000 + number), deadline))
    assert history.wrong == []
    assert history.reads > 10
    cache.close()
