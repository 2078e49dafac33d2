"""Many threads on one storage: atomic operations are atomic, and nothing breaks under load."""

import random
from collections.abc import Callable
from itertools import chain
from typing import Any

from storeroom.base import BaseCache
from storeroom.exceptions import KeyNotFoundError
from storeroom.testing.capabilities import needs
from storeroom.testing.concurrency import chance_of, in_threads
from storeroom.testing.contract.suite import Suite

__all__ = ["ThreadsContract"]


@needs("store")
class ThreadsContract(Suite):
    """Operations that race."""

    def test_threads_count_exactly(self, open_cache: Callable[..., BaseCache]) -> None:
        """Threads that count lose no increment, and each result is a number of its own."""
        cache = open_cache()
        cache.set("n", 0)

        def job(_: int) -> list[Any]:
            return [cache.incr("n") if turn % 3 else cache.decr("n", -1) for turn in range(100)]

        results = in_threads(8, job)
        assert cache.get("n") == 800
        assert sorted(chain.from_iterable(results)) == list(range(1, 801)), "every result is a number of its own"

    def test_threads_create_a_counter_once(self, open_cache: Callable[..., BaseCache]) -> None:
        """Threads that count absent keys from a default lose no count."""
        cache = open_cache()
        keys = [f"n{number}" for number in range(50)]
        in_threads(8, lambda _: [cache.incr(key, default=10) for key in keys])
        assert cache.get_many(keys) == dict.fromkeys(keys, 18)

    def test_threads_add_a_key_once(self, open_cache: Callable[..., BaseCache]) -> None:
        """Of threads that add the same keys, one wins each, and its value stays."""
        cache = open_cache()
        keys = [f"k{number}" for number in range(100)]
        results = in_threads(8, lambda number: [key for key in keys if cache.add(key, number)])
        assert sorted(chain.from_iterable(results)) == sorted(keys)
        for number, won in enumerate(results):
            assert cache.get_many(won) == dict.fromkeys(won, number)

    def test_threads_delete_a_key_once(self, open_cache: Callable[..., BaseCache]) -> None:
        """Of threads that delete the same keys, one is told True for each."""
        cache = open_cache()
        keys = [f"k{number}" for number in range(100)]
        cache.set_many(dict.fromkeys(keys, 1))
        results = in_threads(8, lambda _: [key for key in keys if cache.delete(key)])
        assert sorted(chain.from_iterable(results)) == sorted(keys)

    @needs("atomic_rename")
    def test_threads_move_an_entry_once(self, open_cache: Callable[..., BaseCache]) -> None:
        """Of threads that move the same entries to another version, one succeeds for each."""
        cache = open_cache()
        keys = [f"k{number}" for number in range(50)]
        cache.set_many(dict.fromkeys(keys, 1))

        def moved(key: str) -> bool:
            try:
                cache.incr_version(key)
            except KeyNotFoundError:
                return False
            return True

        results = in_threads(8, lambda _: [key for key in keys if moved(key)])
        assert sorted(chain.from_iterable(results)) == sorted(keys)
        assert cache.get_many(keys, version=2) == dict.fromkeys(keys, 1)
        assert cache.get_many(keys) == {}

    def test_threads_read_whole_values(self, open_cache: Callable[..., BaseCache]) -> None:
        """A reader beside writers sees a whole value, never a mixture and never nothing."""
        cache = open_cache()
        values: list[Any] = [[letter] * size for letter, size in (("a", 10), ("b", 1000), ("c", 1))]
        values += [7, "text", None]
        cache.set("k", values[0])

        def job(number: int) -> None:
            for turn in range(100):
                if number % 2:
                    cache.set("k", values[turn % len(values)])
                else:
                    assert cache.get("k", "absent") in values

        in_threads(8, job)

    def test_threads_may_do_anything_at_once(self, open_cache: Callable[..., BaseCache]) -> None:
        """A full cache stays within its bounds and agrees with itself whatever threads do."""
        params = {} if "bounds" in self.lacks else {"OPTIONS": {"MAX_ENTRIES": 50}}
        cache = open_cache(**params)

        def job(number: int) -> None:
            chance = chance_of(number)
            for _ in range(200):
                self._do_anything(cache, chance)

        in_threads(8, job)
        live = cache.get_many([f"k{number}" for number in range(100)])
        assert set(map(type, live.values())) <= {int, list}
        if "bounds" not in self.lacks:
            assert len(live) <= 50

    @staticmethod
    def _do_anything(cache: BaseCache, chance: random.Random) -> None:
        key = f"k{chance.randrange(100)}"
        timeout = chance.choice([None, 100, 0.001])
        operation = chance.randrange(10)
        if operation < 4:
            cache.get(key)
        elif operation < 6:
            cache.set(key, chance.choice([1, ["list"]]), timeout)
        elif operation == 6:
            cache.get_or_set(key, lambda: 1, timeout)
        elif operation == 7:
            cache.set_many({key: 1, f"k{chance.randrange(100)}": 2}, timeout)
        elif operation == 8:
            cache.delete(key)
        else:
            cache.touch(key, timeout)
