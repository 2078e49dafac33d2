"""Many callers, one computation: get_or_set() among threads and among tasks."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from storeroom.base import BaseCache
from storeroom.exceptions import ComputationCycleError
from storeroom.testing import concurrency
from storeroom.testing.capabilities import needs
from storeroom.testing.concurrency import Gate, aeventually, eventually, in_threads
from storeroom.testing.contract.suite import Suite

__all__ = ["StampedeContract"]


@needs("store")
class StampedeContract(Suite):
    """One computation per key."""

    def test_fifty_threads_compute_a_cold_key_once(self, open_cache: Callable[..., BaseCache]) -> None:
        """Of fifty threads that ask for an absent key, one computes and all get the result."""
        cache, gate = open_cache(), Gate(["computed"])

        def job(number: int) -> Any:
            if number == 0:
                # Led by the others, ended by this one when they all wait.
                eventually(lambda: cache.engine.flights.followers(cache.make_key("k")) == 48)
                gate.may_end.set()
            return cache.get_or_set("k", gate)

        assert in_threads(50, job) == [["computed"]] * 50
        assert gate.calls == 1

    def test_handles_of_one_storage_compute_a_cold_key_once(self, open_cache: Callable[..., BaseCache]) -> None:
        """Threads with a handle each, as in Django, share one computation."""
        handles, gate = [open_cache() for _ in range(8)], Gate()

        def job(number: int) -> Any:
            if number == 0:
                assert gate.begun.wait(concurrency.PATIENCE)
                gate.may_end.set()
            return handles[number].get_or_set("k", gate)

        assert in_threads(8, job) == ["computed"] * 8
        assert gate.calls == 1

    def test_fifty_tasks_compute_a_cold_key_once(self, open_cache: Callable[..., BaseCache]) -> None:
        """Of fifty tasks that ask for an absent key, one computes and all get the result."""
        cache = open_cache()
        calls = 0

        async def compute() -> list[str]:
            nonlocal calls
            calls += 1
            await aeventually(lambda: cache.engine.flights.followers(cache.make_key("k")) == 49)
            return ["computed"]

        async def main() -> list[Any]:
            async with asyncio.timeout(concurrency.PATIENCE):
                return await asyncio.gather(*(cache.aget_or_set("k", compute) for _ in range(50)))

        assert asyncio.run(main()) == [["computed"]] * 50
        assert calls == 1

    def test_threads_compute_other_keys_meanwhile(self, open_cache: Callable[..., BaseCache]) -> None:
        """A slow computation holds up no other key."""
        cache, gate = open_cache(), Gate()

        def job(number: int) -> Any:
            if number == 0:
                return cache.get_or_set("slow", gate)
            assert gate.begun.wait(concurrency.PATIENCE)
            value = cache.get_or_set(f"fast {number}", lambda: number)
            cache.set("also", value)
            if number == 1:
                gate.may_end.set()
            return value

        assert in_threads(4, job) == ["computed", 1, 2, 3]

    def test_threads_that_wait_get_the_leaders_error(self, open_cache: Callable[..., BaseCache]) -> None:
        """An error is raised to the leader and to all that wait; the next call computes again."""
        cache, gate = open_cache(), Gate(LookupError("no such page"))

        def job(number: int) -> str:
            if number == 0:
                eventually(lambda: cache.engine.flights.followers(cache.make_key("k")) == 8)
                gate.may_end.set()
                return "no such page"
            with pytest.raises(LookupError) as raised:
                cache.get_or_set("k", gate)
            return str(raised.value)

        assert set(in_threads(10, job)) == {"no such page"}
        assert gate.calls == 1
        assert cache.get_or_set("k", lambda: "found") == "found"

    def test_tasks_go_on_when_their_leader_is_cancelled(self, open_cache: Callable[..., BaseCache]) -> None:
        """When the leading task is cancelled, one of those that wait computes for all."""
        cache = open_cache()

        async def main() -> list[Any]:
            begun = asyncio.Event()

            async def endless() -> None:
                begun.set()
                await asyncio.Event().wait()

            leader = asyncio.create_task(cache.aget_or_set("k", endless))
            await begun.wait()
            others = [asyncio.create_task(cache.aget_or_set("k", lambda: "computed")) for _ in range(5)]
            await aeventually(lambda: cache.engine.flights.followers(cache.make_key("k")) == 5)
            leader.cancel()
            async with asyncio.timeout(concurrency.PATIENCE):
                return await asyncio.gather(*others)

        assert asyncio.run(main()) == ["computed"] * 5

    def test_threads_whose_computations_wait_for_each_other_get_an_error(
        self, open_cache: Callable[..., BaseCache]
    ) -> None:
        """Two computations that ask for each other's key raise ComputationCycleError, and do not deadlock."""
        cache, both = open_cache(), threading.Barrier(2)

        def job(number: int) -> Any:
            own, other = ("a", "b") if number == 0 else ("b", "a")

            def compute() -> Any:
                both.wait(concurrency.PATIENCE)
                return cache.get_or_set(other, lambda: "inner")

            try:
                return cache.get_or_set(own, compute)
            except ComputationCycleError:
                return "refused"

        assert "refused" in in_threads(2, job)
        assert cache.get_or_set("a", lambda: "again") is not None

    def test_a_synchronous_call_in_an_event_loop_does_not_block_its_leader(
        self, open_cache: Callable[..., BaseCache]
    ) -> None:
        """A synchronous call in a loop computes itself where a task of that loop would have to answer."""
        cache = open_cache()

        async def main() -> Any:
            begun, may_end = asyncio.Event(), asyncio.Event()

            async def compute() -> str:
                begun.set()
                await may_end.wait()
                return "task's"

            leader = asyncio.create_task(cache.aget_or_set("k", compute))
            await begun.wait()
            at_once = cache.get_or_set("k", lambda: "call's")
            may_end.set()
            return at_once, await leader

        assert asyncio.run(main()) == ("call's", "call's")
