"""Several processes on one storage: they see each other's entries, compute a value once, and may be killed.

The jobs are functions of this module, for processes that are started afresh.
"""

import os
import signal
import time
from collections.abc import Callable
from itertools import chain
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest

from storeroom.base import BaseCache
from storeroom.computing import stampede
from storeroom.testing.capabilities import needs
from storeroom.testing.concurrency import eventually, in_threads
from storeroom.testing.contract.suite import Suite
from storeroom.testing.processes import START_METHODS, Child, in_processes

__all__ = ["PROCESSES", "Crowd", "ProcessesContract"]

PROCESSES: Final = 8

LEASE: Final = 0.5
"""Seconds of lease where a leader dies: the shortest that a slow machine does not outlive by itself."""


class Crowd(Suite):
    """A suite whose tests run a job in several processes."""

    crowd: ClassVar[int] = PROCESSES
    """The number of processes that compute one key, and that count."""

    def run(self, location: str, job: Callable[..., Any], *arguments: Any, **options: Any) -> list[Any]:
        """Run a job in eight processes, or in `processes`; return the results in order."""
        params, processes = options.pop("params", {}), options.pop("processes", PROCESSES)
        return in_processes(type(self), location, params, job, [arguments] * processes, **options)


@needs("store", "processes")
class ProcessesContract(Crowd):
    """Entries, computations and the ends of processes that share a storage."""

    @pytest.mark.parametrize("method", START_METHODS)
    def test_processes_see_what_the_others_set(
        self, location: str, open_cache: Callable[..., BaseCache], method: str
    ) -> None:
        """A process, forked or started afresh, sees its parent's entries, and the parent sees its own."""
        cache = open_cache()
        cache.set("parent", ["from the parent"])
        child = Child(type(self), location, {}, see_and_set, method=method)
        assert child.result() == ["from the parent"]
        assert cache.get("child") == {"from": "the child"}

    def test_processes_and_threads_compute_a_cold_key_once(
        self, location: str, open_cache: Callable[..., BaseCache], tmp_path: Path
    ) -> None:
        """Of 8 processes with 25 threads each that ask at the same time, one thread computes."""
        log = tmp_path / "computations"
        results = self.run(location, compute_in_threads, 25, str(log), processes=self.crowd)
        assert results == [["computed"] * 25] * self.crowd
        assert log.read_text() == "x"
        assert open_cache().get("k") == "computed"

    def test_processes_whose_keys_overlap_compute_each_key_once(
        self, location: str, open_cache: Callable[..., BaseCache], tmp_path: Path
    ) -> None:
        """8 processes with 5 threads each that ask for 30 of 65 keys compute none of them twice."""
        log = tmp_path / "computations"
        results = self.run(location, compute_many_in_threads, 5, str(log))
        assert results == [True] * PROCESSES
        assert sorted(map(int, log.read_text().split())) == list(range(65))
        assert open_cache().get_many(range(65)) == {key: f"value of {key}" for key in range(65)}

    @needs("bounds")
    def test_a_computation_is_not_repeated_because_the_cache_is_full(
        self, location: str, open_cache: Callable[..., BaseCache]
    ) -> None:
        """A lease is not evicted, however many entries come and go: a follower waits for its leader."""
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
        """After a process's computation has failed, the next one computes for all others."""
        results = self.run(location, compute_unless_first, str(tmp_path / "first"))
        assert sorted(results) == ["computed"] * (PROCESSES - 1) + ["failed"]
        assert open_cache().get("k") == "computed"

    @pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill a process as a crash does")
    def test_a_killed_leader_delays_the_others_by_at_most_its_lease(
        self, location: str, open_cache: Callable[..., BaseCache], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A leader that is killed delays the others by its lease at most."""
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
        """A leader of many keys that is killed delays those by its lease at most, and no other key at all."""
        monkeypatch.setattr(stampede, "LEASE_SECONDS", LEASE)
        cache, asked = open_cache(), []

        def compute(keys: list[str]) -> dict[str, str]:
            asked.append(sorted(keys))
            return dict.fromkeys(keys, "computed by another")

        leader = Child(type(self), location, {}, compute_many_for_ever, LEASE, talks=True)
        assert leader.pipe.recv() == "computing"
        leader.kill()
        begun = time.monotonic()
        assert cache.get_or_set_many([*"abcd"], compute) == dict.fromkeys("abcd", "computed by another")
        assert time.monotonic() - begun < LEASE + 1.5, "the lease, and what a slow machine takes"
        assert sorted(chain.from_iterable(asked)) == ["a", "b", "c", "d"]
        assert asked[0] in (["c", "d"], ["a", "b", "c", "d"]), "the second where the machine is slower than the lease"

    def test_a_killed_writer_leaves_the_storage_in_order(
        self, location: str, open_cache: Callable[..., BaseCache]
    ) -> None:
        """A writer that is killed at any moment leaves no lock and no half-written value."""
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
        """Entries stay with their timeouts when the process that set them ends."""
        Child(type(self), location, {}, set_and_leave).result()
        cache = open_cache()
        assert cache.get_many(["timed", "endless"]) == {"timed": [1], "endless": None}
        assert cache.ttl("timed") == pytest.approx(500, abs=60)
        assert cache.ttl("endless") is None


# Jobs -----------------------------------------------------------------------------------------


def see_and_set(cache: BaseCache) -> Any:
    """Return what the parent set, and set something for it to see."""
    cache.set("child", {"from": "the child"})
    return cache.get("parent")


def compute_in_threads(cache: BaseCache, _number: int, count: int, log: str) -> list[Any]:
    """Ask for one key in so many threads; each computation leaves a letter in the log."""

    def compute() -> str:
        with Path(log).open("a") as letters:
            letters.write("x")
        time.sleep(0.2)  # work that takes its time, for the others to come and wait
        return "computed"

    return in_threads(count, lambda _: cache.get_or_set("k", compute))


def compute_unless_first(cache: BaseCache, _number: int, flag: str) -> Any:
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

    cache.get_or_set_many([*"ab"], compute)


def write_for_ever(cache: BaseCache, pipe: Connection) -> None:
    """Write until it is killed, or nobody is left to kill it."""
    pipe.send("writing")
    turn, parent = 0, os.getppid()
    while os.getppid() == parent:
        turn += 1
        cache.set_many({"a": [turn] * 1000, "b": [turn] * 1000})
        cache.incr("n")
        if turn == 20:
            pipe.send("still writing")


def set_and_leave(cache: BaseCache) -> None:
    """Set two entries and end."""
    cache.set("timed", [1], timeout=500)
    cache.set("endless", None, timeout=None)
