"""Processes that race on one storage: every change that is atomic in one process is atomic among all.

The jobs are functions of this module, for processes that are started afresh.
"""

import time
from collections.abc import Callable
from itertools import chain
from multiprocessing.connection import Connection
from typing import Any

from storeroom.base import BaseCache
from storeroom.testing.capabilities import needs
from storeroom.testing.contract.processes import PROCESSES, Crowd
from storeroom.testing.processes import Child

__all__ = ["RacesContract"]


@needs("store", "processes")
class RacesContract(Crowd):
    """Operations of eight processes that want the same entries."""

    def test_processes_add_a_key_once(self, location: str, open_cache: Callable[..., BaseCache]) -> None:
        """Of 8 processes that add the same 100 keys, one wins each, and its value stays."""
        cache = open_cache(OPTIONS=self.room_for(1000))
        results = self.run(location, add_all, 100, params={"OPTIONS": self.room_for(1000)})
        assert sum(len(won) for won in results) == 100
        for number, won in enumerate(results):
            assert cache.get_many(won) == dict.fromkeys(won, number)

    def test_processes_count_exactly(self, location: str, open_cache: Callable[..., BaseCache]) -> None:
        """8 processes that count 100 times each lose no increment, and each result is a number of its own."""
        cache = open_cache()
        cache.set("n", 0, timeout=None)
        results = self.run(location, count_up, 100, processes=self.crowd)
        assert cache.get("n") == self.crowd * 100
        assert sorted(chain.from_iterable(results)) == list(range(1, self.crowd * 100 + 1))

    def test_processes_create_a_counter_once(self, location: str, open_cache: Callable[..., BaseCache]) -> None:
        """8 processes that count 50 absent keys at the same time lose no count."""
        cache = open_cache()
        results = self.run(location, count_from_nothing, 50)
        assert cache.get_many(map(str, range(50))) == {str(turn): PROCESSES for turn in range(50)}
        for numbers in zip(*results, strict=True):
            assert sorted(numbers) == list(range(1, PROCESSES + 1))

    def test_processes_hold_a_lock_in_turn(self, location: str, open_cache: Callable[..., BaseCache]) -> None:
        """8 processes that read and write within a lock lose no update, and their fencing tokens grow."""
        cache = open_cache()
        cache.set("n", (0, 0), timeout=None)
        self.run(location, read_and_write, 5)
        assert cache.get("n", [None])[0] == PROCESSES * 5

    def test_a_dead_owner_delays_by_its_timeout_at_most(
        self, location: str, open_cache: Callable[..., BaseCache]
    ) -> None:
        """The lock of an owner that was killed is free after its timeout."""
        cache = open_cache()
        child = Child(type(self), location, {}, hold_until_killed, 0.5, talks=True)
        assert child.pipe.poll(30), child.result(0)
        assert child.pipe.recv() == "held"
        child.kill()
        with cache.lock("l", timeout=100, blocking_timeout=30, sleep=0.01):
            pass

    def test_processes_lose_no_first_set(self, location: str, open_cache: Callable[..., BaseCache]) -> None:
        """8 processes that set the same 100 new keys at the same time lose none."""
        cache = open_cache(OPTIONS=self.room_for(1000))
        self.run(location, set_all, 100, params={"OPTIONS": self.room_for(1000)})
        shared = cache.get_many([f"shared {turn}" for turn in range(100)])
        assert len(shared) == 100
        assert set(shared.values()) <= set(range(PROCESSES))
        own = [f"own {number} {turn}" for number in range(PROCESSES) for turn in range(100)]
        assert len(cache.get_many(own)) == PROCESSES * 100

    @needs("bounds")
    def test_bounds_hold_under_writers_of_many_processes(
        self, location: str, open_cache: Callable[..., BaseCache]
    ) -> None:
        """8 processes that write to a full cache never see more than MAX_ENTRIES."""
        params = {"OPTIONS": {"MAX_ENTRIES": 100}}
        cache = open_cache(**params)
        assert max(self.run(location, set_many_keys, 100, params=params)) <= 100
        keys = [f"{number} {turn}" for number in range(PROCESSES) for turn in range(100)]
        assert 50 <= len(cache.get_many(keys)) <= 100

    @needs("byte_bounds", "statistics")
    def test_bounds_in_bytes_hold_under_writers_of_many_processes(
        self, location: str, open_cache: Callable[..., BaseCache]
    ) -> None:
        """8 processes that write to a full cache never see more than max_bytes."""
        params = {"OPTIONS": {"MAX_ENTRIES": None, "max_bytes": 200_000}}
        cache = open_cache(**params)
        assert max(self.run(location, set_large_values, 50, params=params)) <= 200_000
        assert 100_000 <= (cache.stats().bytes or 0) <= 200_000


# Jobs -----------------------------------------------------------------------------------------


def add_all(cache: BaseCache, number: int, count: int) -> list[str]:
    """Add so many keys; return those that were won."""
    return [key for key in (f"k{turn}" for turn in range(count)) if cache.add(key, number)]


def count_up(cache: BaseCache, _number: int, count: int) -> list[Any]:
    """Count, up by up; return the numbers on the way."""
    return [cache.incr("n") for _ in range(count)]


def count_from_nothing(cache: BaseCache, _number: int, keys: int) -> list[Any]:
    """Count each key once; nobody has created it."""
    return [cache.incr(str(turn), default=0, timeout=100) for turn in range(keys)]


def set_all(cache: BaseCache, number: int, count: int) -> None:
    """Set keys that all processes set, and keys that no other does."""
    for turn in range(count):
        cache.set(f"shared {turn}", number)
        cache.set(f"own {number} {turn}", number)


def set_many_keys(cache: BaseCache, number: int, count: int) -> int:
    """Set keys of one's own; return the most live ones of all processes that were seen at a time."""
    most = 0
    everybodys = [f"{other} {turn}" for other in range(PROCESSES) for turn in range(count)]
    for turn in range(count):
        cache.set(f"{number} {turn}", turn)
        if turn % 7 == 0:
            cache.delete(f"{number} {turn}")  # there is room for one more, for whoever is the first
        if turn % 5 == 0:
            most = max(most, len(cache.get_many(everybodys)))
    return most


def set_large_values(cache: BaseCache, number: int, count: int) -> int:
    """Set values of several kB; return the most bytes that were seen at a time."""
    most = 0
    for turn in range(count):
        cache.set(f"{number} {turn}", bytes(1000 * (turn % 10 + 1)))
        if turn % 7 == 0:
            cache.delete(f"{number} {turn}")
        most = max(most, cache.stats().bytes or 0)
    return most


def read_and_write(cache: BaseCache, _: int, turns: int) -> None:
    """Count by reading and writing, under a lock."""
    for _turn in range(turns):
        with cache.lock("l", timeout=100, sleep=0.005) as lock:
            number, highest = cache.get("n", (0, 0))
            token = lock.fence()
            assert token > highest
            cache.set("n", (number + 1, token), timeout=None)


def hold_until_killed(cache: BaseCache, timeout: float, pipe: Connection) -> None:
    """Take the lock, and do not come back."""
    cache.lock("l", timeout=timeout).acquire()
    pipe.send("held")
    time.sleep(100)
