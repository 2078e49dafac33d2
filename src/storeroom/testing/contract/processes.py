"""Several processes on one storage: what is atomic in one is atomic among all.

The jobs are functions of this module, for processes that are started afresh.
"""
# ruff: noqa: ARG001 -- a job is given the number of its process, whether it needs it or not

import os
import signal
import threading
import time
from collections.abc import Callable
from itertools import chain
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import pytest

from storeroom.base import BaseCache
from storeroom.computing import stampede
from storeroom.testing.capabilities import needs
from storeroom.testing.concurrency import eventually, in_threads
from storeroom.testing.contract.suite import Suite
from storeroom.testing.processes import START_METHODS, Child, in_processes

__all__ = ["ProcessesContract"]

PROCESSES: Final = 8

LEASE: Final = 0.5
"""Seconds of lease where a leader dies: the shortest that a slow machine does not outlive by itself."""


@needs("store", "processes")
class ProcessesContract(Suite):
    """Operations that race among processes."""

    def run(self, location: str, job: Callable[..., Any], *arguments: Any, **options: Any) -> list[Any]:
        """Run a job in eight processes; return the results in order."""
        params = options.pop("params", {})
        return in_processes(type(self), location, params, job, [arguments] * PROCESSES, **options)

    @pytest.mark.parametrize("method", START_METHODS)
    def test_processes_see_what_the_others_set(
        self, location: str, open_cache: Callable[..., BaseCache], method: str
    ) -> None:
        """However they are started: as a copy of this process, or afresh."""
        cache = open_cache()
        cache.set("parent", ["from the parent"])
        child = Child(type(self), location, {}, see_and_set, method=method)
        assert child.result() == ["from the parent"]
        assert cache.get("child") == {"from": "the child"}

    def test_processes_add_a_key_once(self, location: str, open_cache: Callable[..., BaseCache]) -> None:
        """8 processes want 300 keys: 300 winners, and the winner's value stays."""
        cache = open_cache(OPTIONS=self.room_for(1000))
        results = self.run(location, add_all, 300, params={"OPTIONS": self.room_for(1000)})
        assert sum(len(won) for won in results) == 300
        for number, won in enumerate(results):
            assert cache.get_many(won) == dict.fromkeys(won, number)

    def test_processes_count_exactly(self, location: str, open_cache: Callable[..., BaseCache]) -> None:
        """8 processes count to 200: no increment is lost."""
        cache = open_cache()
        cache.set("n", 0, timeout=None)
        results = self.run(location, count_up, 200)
        assert cache.get("n") == PROCESSES * 200
        assert sorted(chain.from_iterable(results)) == list(range(1, PROCESSES * 200 + 1))

    def test_processes_create_a_counter_once(self, location: str, open_cache: Callable[..., BaseCache]) -> None:
        """8 processes count 50 absent keys at the same time: no count is lost, and each result is one of its own."""
        cache = open_cache()
        results = self.run(location, count_from_nothing, 50)
        assert cache.get_many(map(str, range(50))) == {str(turn): PROCESSES for turn in range(50)}
        for numbers in zip(*results, strict=True):
            assert sorted(numbers) == list(range(1, PROCESSES + 1))

    def test_processes_hold_a_lock_in_turn(self, location: str, open_cache: Callable[..., BaseCache]) -> None:
        """What 8 processes read and write within loses nothing, and their fencing tokens never go back."""
        cache = open_cache()
        cache.set("n", (0, 0), timeout=None)
        self.run(location, read_and_write, 5)
        assert cache.get("n")[0] == PROCESSES * 5

    def test_a_dead_owner_delays_by_its_timeout_at_most(
        self, location: str, open_cache: Callable[..., BaseCache]
    ) -> None:
        """It does not have to give the lock back."""
        cache = open_cache()
        child = Child(type(self), location, {}, hold_until_killed, 0.5, talks=True)
        assert child.pipe.poll(30), child.result(0)
        assert child.pipe.recv() == "held"
        child.kill()
        with cache.lock("l", timeout=100, blocking_timeout=30, sleep=0.01):
            pass

    def test_processes_lose_no_first_set(self, location: str, open_cache: Callable[..., BaseCache]) -> None:
        """8 processes set 100 keys that nobody had set before, each at the same time: all are there."""
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
        """At no time does anybody see more entries than allowed."""
        params = {"OPTIONS": {"MAX_ENTRIES": 100}}
        cache = open_cache(**params)
        assert max(self.run(location, set_many_keys, 200, params=params)) <= 100
        keys = [f"{number} {turn}" for number in range(PROCESSES) for turn in range(200)]
        assert 50 <= len(cache.get_many(keys)) <= 100

    @needs("byte_bounds", "statistics")
    def test_bounds_in_bytes_hold_under_writers_of_many_processes(
        self, location: str, open_cache: Callable[..., BaseCache]
    ) -> None:
        """As do those in entries."""
        params = {"OPTIONS": {"MAX_ENTRIES": None, "max_bytes": 200_000}}
        cache = open_cache(**params)
        assert max(self.run(location, set_large_values, 50, params=params)) <= 200_000
        assert 100_000 <= (cache.stats().bytes or 0) <= 200_000

    def test_processes_and_threads_compute_a_cold_key_once(
        self, location: str, open_cache: Callable[..., BaseCache], tmp_path: Path
    ) -> None:
        """8 processes with 25 threads each ask at the same time: one of the 200 computes."""
        log = tmp_path / "computations"
        results = self.run(location, compute_in_threads, 25, str(log))
        assert results == [["computed"] * 25] * PROCESSES
        assert log.read_text() == "x"
        assert open_cache().get("k") == "computed"

    def test_processes_whose_keys_overlap_compute_each_key_once(
        self, location: str, open_cache: Callable[..., BaseCache], tmp_path: Path
    ) -> None:
        """8 processes with 5 threads each ask for 30 of 65 keys, at the same time: none is computed twice."""
        log = tmp_path / "computations"
        results = self.run(location, compute_many_in_threads, 5, str(log))
        assert results == [True] * PROCESSES
        assert sorted(map(int, log.read_text().split())) == list(range(65))
        assert open_cache().get_many(range(65)) == {key: f"value of {key}" for key in range(65)}

    @needs("bounds")
    def test_a_computation_is_not_repeated_because_the_cache_is_full(
        self, location: str, open_cache: Callable[..., BaseCache]
    ) -> None:
        """A lease is nothing that may be evicted, however many entries come and go meanwhile."""
        params = {"OPTIONS": {"MAX_ENTRIES": 10}}
        cache = open_cache(**params)
        leader = Child(type(self), location, params, compute_when_told, talks=True)
        assert leader.pipe.recv() == "computing"
        for number in range(100):
            cache.set(f"k{number}", number)
        follower = Child(type(self), location, params, ask_for_value)
        assert not follower.pipe.poll(0.2), "it waits for the leader"
        leader.pipe.send("go on")
        assert leader.result() == follower.result() == "computed by the leader"

    def test_an_error_of_one_process_is_not_the_others(
        self, location: str, open_cache: Callable[..., BaseCache], tmp_path: Path
    ) -> None:
        """The next one computes as soon as the lease is given back."""
        results = self.run(location, compute_unless_first, str(tmp_path / "first"))
        assert sorted(results) == ["computed"] * (PROCESSES - 1) + ["failed"]
        assert open_cache().get("k") == "computed"

    @pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill a process as a crash does")
    def test_a_killed_leader_delays_the_others_by_at_most_its_lease(
        self, location: str, open_cache: Callable[..., BaseCache], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody waits for a process that is no more."""
        monkeypatch.setattr(stampede, "LEASE_SECONDS", LEASE)
        cache = open_cache()
        leader = Child(type(self), location, {}, compute_for_ever, LEASE, talks=True)
        assert leader.pipe.recv() == "computing"
        leader.kill()
        begun = time.monotonic()
        assert cache.get_or_set("k", lambda: "computed by another") == "computed by another"
        assert time.monotonic() - begun < LEASE + 1.5, "the lease, and what a slow machine takes"

    @pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill a process as a crash does")
    def test_a_killed_leader_of_many_keys_delays_the_others_by_at_most_its_lease(
        self, location: str, open_cache: Callable[..., BaseCache], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What it did not compute is not held up at all: it is computed first."""
        monkeypatch.setattr(stampede, "LEASE_SECONDS", LEASE)
        cache, asked = open_cache(), []

        def compute(keys: list[str]) -> dict[str, str]:
            asked.append(sorted(keys))
            return dict.fromkeys(keys, "computed by another")

        leader = Child(type(self), location, {}, compute_many_for_ever, LEASE, talks=True)
        assert leader.pipe.recv() == "computing"
        leader.kill()
        begun = time.monotonic()
        assert cache.get_or_set_many("abcd", compute) == dict.fromkeys("abcd", "computed by another")
        assert time.monotonic() - begun < LEASE + 1.5, "the lease, and what a slow machine takes"
        assert sorted(chain.from_iterable(asked)) == ["a", "b", "c", "d"]
        assert asked[0] in (["c", "d"], ["a", "b", "c", "d"]), "the second where the machine is slower than the lease"

    def test_a_killed_writer_leaves_the_storage_in_order(
        self, location: str, open_cache: Callable[..., BaseCache]
    ) -> None:
        """Whatever it was doing at that moment: no lock stays, no value is half written."""
        cache = open_cache()
        cache.set("n", 0, timeout=None)
        for _ in range(5):
            writer = Child(type(self), location, {}, write_for_ever, talks=True)
            assert writer.pipe.recv() == "writing"
            eventually(writer.pipe.poll)
            writer.kill()
            for value in cache.get_many(["a", "b"]).values():
                assert value == value[:1] * 1000
            assert cache.incr("n") > 0
            cache.set("after", "the crash")
            assert cache.get("after") == "the crash"

    @needs("persistence")
    def test_entries_outlive_the_process_that_set_them(
        self, location: str, open_cache: Callable[..., BaseCache]
    ) -> None:
        """With their timeouts."""
        Child(type(self), location, {}, set_and_leave).result()
        cache = open_cache()
        assert cache.get_many(["timed", "endless"]) == {"timed": [1], "endless": None}
        assert cache.ttl("timed") == pytest.approx(500, abs=60)
        assert cache.ttl("endless") is None


@needs("store", "fork")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
class ForkContract(Suite):
    """A cache that was used before a fork, as under a server that loads the program first."""

    def test_parent_and_child_both_go_on(self, location: str, open_cache: Callable[..., BaseCache]) -> None:
        """The child uses the very handle that it inherits."""
        cache = open_cache()
        cache.set("k", "before")
        child = Child(_Inherited.of(cache), location, {}, use, "in the child", method="fork")
        assert child.result() == ("before", "in the child", 2)
        cache.set("k", "in the parent")
        assert cache.get("k") == "in the parent"
        assert cache.get_or_set("m", lambda: "computed") == "computed"
        if "processes" not in self.lacks:
            assert cache.get("set") == "in the child"

    def test_a_child_may_be_forked_at_any_moment(self, location: str, open_cache: Callable[..., BaseCache]) -> None:
        """Threads of the parent hold whatever locks they may: none of them is locked for ever in the child."""
        cache = open_cache()
        done = threading.Event()

        def job(number: int) -> list[Any]:
            if number == 0:
                try:
                    inherited = _Inherited.of(cache)
                    children = [Child(inherited, location, {}, use, number, method="fork") for number in range(10)]
                    return [child.result()[1] for child in children]
                finally:
                    done.set()
            turn = 0
            while not done.is_set():
                turn += 1
                cache.set(f"{number} {turn % 10}", ["busy"] * 50)
                cache.get_or_set(f"computed {turn % 10}", lambda: 1, timeout=0.001)
            return []

        cache.set("k", "before")
        assert in_threads(4, job)[0] == list(range(10))
        assert cache.get("k") is not None


class _Inherited(Suite):
    """Not a suite that runs: it hands a forked child the parent's own handle."""

    handle: BaseCache

    @classmethod
    def of(cls, cache: BaseCache) -> type["_Inherited"]:
        return type("Inherited", (cls,), {"handle": cache})

    def make_cache(self, location: str, params: Any) -> BaseCache:
        return self.handle


# Jobs -----------------------------------------------------------------------------------------


def use(cache: BaseCache, value: Any) -> tuple[Any, Any, Any]:
    """Do a bit of everything; return what the parent set, what this process set, and a count."""
    before = cache.get("k")
    own, count = f"set by {os.getpid()}", f"counted by {os.getpid()}"
    cache.set(own, value)
    cache.set("set", value)
    cache.set(count, 1)
    cache.get_or_set("computed", lambda: [1])
    return before, cache.get(own), cache.incr(count)


def see_and_set(cache: BaseCache) -> Any:
    """Return what the parent set, and set something for it to see."""
    cache.set("child", {"from": "the child"})
    return cache.get("parent")


def add_all(cache: BaseCache, number: int, count: int) -> list[str]:
    """Add so many keys; return those that were won."""
    return [key for key in (f"k{turn}" for turn in range(count)) if cache.add(key, number)]


def count_up(cache: BaseCache, number: int, count: int) -> list[Any]:
    """Count, up by up; return the numbers on the way."""
    return [cache.incr("n") for _ in range(count)]


def count_from_nothing(cache: BaseCache, number: int, keys: int) -> list[Any]:
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


def compute_in_threads(cache: BaseCache, number: int, count: int, log: str) -> list[Any]:
    """Ask for one key in so many threads; each computation leaves a letter in the log."""

    def compute() -> str:
        with Path(log).open("a") as letters:
            letters.write("x")
        time.sleep(0.2)  # work that takes its time, for the others to come and wait
        return "computed"

    return in_threads(count, lambda _: cache.get_or_set("k", compute))


def compute_unless_first(cache: BaseCache, number: int, flag: str) -> Any:
    """Ask for one key; the first computation of all fails."""

    def compute() -> str:
        try:
            Path(flag).touch(exist_ok=False)
        except FileExistsError:
            return "computed"
        raise LookupError("first")

    try:
        return cache.get_or_set("k", compute)
    except LookupError:
        return "failed"


def compute_when_told(cache: BaseCache, pipe: Connection) -> Any:
    """Begin to compute, say so, and end when told."""

    def compute() -> str:
        pipe.send("computing")
        pipe.recv()
        return "computed by the leader"

    return cache.get_or_set("k", compute)


def ask_for_value(cache: BaseCache) -> Any:
    """Ask for the value that another process computes."""
    return cache.get_or_set("k", lambda: "computed once more")


def compute_for_ever(cache: BaseCache, lease: float, pipe: Connection) -> None:
    """Begin to compute, say so, and never end."""
    stampede.LEASE_SECONDS = lease

    def compute() -> None:
        pipe.send("computing")
        pipe.poll(None)

    cache.get_or_set("k", compute)


def compute_many_in_threads(cache: BaseCache, number: int, threads: int, log: str) -> bool:
    """Ask for many keys in so many threads; each computation leaves its keys in the log. Return whether all came."""

    def compute(keys: list[int]) -> dict[int, str]:
        with Path(log).open("a") as lines:
            lines.write("".join(f"{key}\n" for key in keys))
        time.sleep(0.05)  # work that takes its time, for the others to come and wait
        return {key: f"value of {key}" for key in keys}

    def job(thread: int) -> bool:
        keys = range(5 * number, 5 * number + 30) if thread % 2 else range(5 * (7 - number), 5 * (7 - number) + 30)
        return cache.get_or_set_many(keys, compute) == {key: f"value of {key}" for key in keys}

    return all(in_threads(threads, job))


def compute_many_for_ever(cache: BaseCache, lease: float, pipe: Connection) -> None:
    """Begin to compute, say so, and never end."""
    stampede.LEASE_SECONDS = lease

    def compute(_: list[str]) -> dict[str, str]:
        pipe.send("computing")
        pipe.poll(None)
        return {}

    cache.get_or_set_many("ab", compute)


def write_for_ever(cache: BaseCache, pipe: Connection) -> None:
    """Write until the end."""
    pipe.send("writing")
    turn = 0
    while True:
        turn += 1
        cache.set_many({"a": [turn] * 1000, "b": [turn] * 1000})
        cache.incr("n")
        if turn == 20:
            pipe.send("still writing")


def set_and_leave(cache: BaseCache) -> None:
    """Set two entries and end."""
    cache.set("timed", [1], timeout=500)
    cache.set("endless", None, timeout=None)


def read_and_write(cache: BaseCache, _: int, turns: int) -> None:
    """Count by reading and writing, under a lock."""
    for _turn in range(turns):
        with cache.lock("l", timeout=100, sleep=0.005) as lock:
            number, highest = cache.get("n")
            token = lock.fence()
            assert token > highest
            cache.set("n", (number + 1, token), timeout=None)


def hold_until_killed(cache: BaseCache, timeout: float, pipe: Connection) -> None:
    """Take the lock, and do not come back."""
    cache.lock("l", timeout=timeout).acquire()
    pipe.send("held")
    time.sleep(100)
