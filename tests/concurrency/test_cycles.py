"""Computations that ask for other keys: none waits for itself, directly or through others."""

import asyncio
import contextlib
import contextvars
import random
import threading
import time
from concurrent.futures import Future

import pytest

from storeroom.backends.locmem import LocMemCache
from storeroom.engines import flights
from storeroom.exceptions import ComputationCycleError
from storeroom.testing.concurrency import Gate, eventually, in_background, in_threads


def followers(cache, key: str) -> int:
    return cache.engine.flights.followers(cache.make_key(key))


def test_a_computation_that_asks_for_its_own_key_is_refused(cache):
    """A computation that asks for its own key raises, and the key can be computed afterwards."""
    with pytest.raises(ComputationCycleError):
        cache.get_or_set("k", lambda: cache.get_or_set("k", lambda: 1))
    assert cache.get_or_set("k", lambda: 2) == 2


def test_a_task_that_asks_for_its_own_key_is_refused(cache):
    """A task whose computation awaits its own key raises."""

    async def compute() -> int:
        return await cache.aget_or_set("k", compute)

    with pytest.raises(ComputationCycleError):
        asyncio.run(cache.aget_or_set("k", compute))


def test_a_task_that_asks_for_its_own_key_synchronously_is_refused(cache):
    """A task whose computation asks for its own key by the synchronous API raises."""

    async def compute() -> int:
        return cache.get_or_set("k", lambda: 1)

    with pytest.raises(ComputationCycleError):
        asyncio.run(cache.aget_or_set("k", compute))


def test_a_part_of_a_computation_that_asks_for_its_key_is_refused(cache):
    """A task that a computation gathers is part of it: it raises when it asks for the computation's key."""

    async def part() -> int:
        return await cache.aget_or_set("whole", whole)

    async def whole() -> list[int]:
        return await asyncio.gather(part(), part())

    async def main() -> None:
        async with asyncio.timeout(10):
            await cache.aget_or_set("whole", whole)

    with pytest.raises(ComputationCycleError):
        asyncio.run(main())


def test_two_threads_whose_computations_cross_are_not_left_waiting(cache):
    """Of two threads whose computations ask for each other's keys at least one is refused, and none waits for ever."""
    both = threading.Barrier(2)

    def compute(own: str, other: str) -> str:
        def computation() -> str:
            both.wait(10)
            return f"{own}+{cache.get_or_set(other, lambda: other)}"

        return cache.get_or_set(own, computation)

    results = [in_background(compute, "a", "b"), in_background(compute, "b", "a")]
    errors = [result.exception(10) for result in results]
    refused = [error for error in errors if error is not None]
    assert refused
    assert all(isinstance(error, ComputationCycleError) for error in refused)
    assert cache.get_or_set("a", lambda: 1) is not None
    assert cache.get_or_set("b", lambda: 1) is not None


def test_computations_that_cross_between_two_caches_are_not_left_waiting(tmp_path):
    """Of two computations in two caches that ask for each other's keys at least one is refused."""
    left, right = LocMemCache(f"{tmp_path}/left", {}), LocMemCache(f"{tmp_path}/right", {})
    both = threading.Barrier(2)

    def compute(own, other) -> str:
        def computation() -> str:
            both.wait(10)
            return other.get_or_set("k", lambda: "inner")

        return own.get_or_set("k", computation)

    results = [in_background(compute, left, right), in_background(compute, right, left)]
    assert any(isinstance(result.exception(10), ComputationCycleError) for result in results)


def test_gathered_parts_that_cross_are_not_left_waiting(cache):
    """Computations that cross by tasks they gather are refused as well: the wait of a part is a wait of the whole."""

    async def main() -> list[object]:
        async with asyncio.timeout(10):
            return await asyncio.gather(compute("a", "b"), compute("b", "a"), return_exceptions=True)

    async def compute(own: str, other: str) -> object:
        async def part() -> object:
            return await cache.aget_or_set(other, lambda: other)

        async def computation() -> object:
            await asyncio.sleep(0.01)
            return await asyncio.gather(part())

        return await cache.aget_or_set(own, computation)

    results = asyncio.run(main())
    assert any(isinstance(result, ComputationCycleError) for result in results)


def test_a_task_that_outlives_the_computation_is_part_of_it_no_more(cache):
    """A background task that a computation has started may ask for its key when the computation is over."""

    async def main() -> None:
        late: list[asyncio.Task[str]] = []
        landed = asyncio.Event()

        async def background() -> str:
            await landed.wait()
            return await cache.aget_or_set("k", lambda: "again")

        async def compute() -> str:
            late.append(asyncio.create_task(background()))
            return "first"

        assert await cache.aget_or_set("k", compute) == "first"
        cache.delete("k")
        landed.set()
        assert await late[0] == "again"

    asyncio.run(main())


def test_a_wait_that_was_given_up_is_no_wait(cache):
    """A computation that stopped waiting for a key leaves that key's computation free to wait for its own."""

    async def main() -> None:
        given_up, may_end = asyncio.Event(), asyncio.Event()

        async def compute_a() -> str:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(cache.aget_or_set("b", compute_b), 0.01)
            given_up.set()
            await may_end.wait()
            return "a"

        async def compute_b() -> str:
            await given_up.wait()
            return "b+" + await cache.aget_or_set("a", compute_a)

        b = asyncio.create_task(cache.aget_or_set("b", compute_b))
        await asyncio.sleep(0)
        a = asyncio.create_task(cache.aget_or_set("a", compute_a))
        await given_up.wait()
        while followers(cache, "a") < 1 and not b.done():
            await asyncio.sleep(0)
        may_end.set()
        assert await a == "a"
        assert await b == "b+a"

    asyncio.run(main())


def test_nested_keys_are_computed(cache):
    """Computations that ask for other keys are stored, each under its key."""
    value = cache.get_or_set("a", lambda: 1 + cache.get_or_set("b", lambda: 1 + cache.get_or_set("c", lambda: 1)))
    assert value == 3
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (3, 2, 1)


# A synchronous caller in an event loop's thread -------------------------------------------


def test_a_synchronous_call_does_not_block_the_loop_that_its_leader_needs(cache):
    """A synchronous call in a loop's thread computes by itself rather than wait for a task of that loop."""

    async def main() -> None:
        gate = asyncio.Event()

        async def compute() -> str:
            await gate.wait()
            return "task"

        leader = asyncio.create_task(cache.aget_or_set("k", compute))
        await asyncio.sleep(0)
        assert cache.get_or_set("k", lambda: "at once") == "at once"
        gate.set()
        assert await leader == "at once"

    asyncio.run(main())


def test_a_synchronous_call_that_computes_alone_cannot_ask_for_its_own_key(cache):
    """A synchronous call that computes by itself, beside the key's leader, raises when it asks for its own key."""

    def compute() -> object:
        return cache.get_or_set("k", compute)

    async def main() -> None:
        leader = asyncio.create_task(cache.aget_or_set("k", asyncio.Event().wait))
        await asyncio.sleep(0)
        with pytest.raises(ComputationCycleError):
            cache.get_or_set("k", compute)
        leader.cancel()

    asyncio.run(main())


def test_a_synchronous_call_does_not_wait_for_a_thread_that_waits_for_its_loop(cache):
    """A loop's thread computes by itself a key whose leading thread waits for a task of that loop."""

    async def main() -> str:
        gate = asyncio.Event()
        leader = asyncio.create_task(cache.aget_or_set("a", gate.wait))
        await asyncio.sleep(0)
        thread = in_background(cache.get_or_set, "b", lambda: cache.get_or_set("a", lambda: "unused"))
        while followers(cache, "a") < 1:
            await asyncio.sleep(0)
        value = cache.get_or_set("b", lambda: "at once")
        gate.set()
        assert await leader is True
        assert await asyncio.wrap_future(thread) in {True, "at once"}
        return value

    assert asyncio.run(main()) == "at once"


def test_a_thread_does_not_wait_for_a_loop_that_waits_for_it(cache):
    """A thread is refused a key whose leader's loop stands still because it waits for that very thread."""
    gate = Gate()

    def crossing() -> object:
        gate()
        return cache.get_or_set("a", lambda: "unused")

    async def main() -> None:
        leader = asyncio.create_task(cache.aget_or_set("a", asyncio.Event().wait))
        await asyncio.sleep(0)
        thread = in_background(cache.get_or_set, "b", crossing)
        assert gate.begun.wait(10)
        opener = in_background(open_gate)
        with pytest.raises(ComputationCycleError):
            cache.get_or_set("b", lambda: "unused")
        assert isinstance(thread.exception(10), ComputationCycleError)
        opener.result(10)
        leader.cancel()

    def open_gate() -> None:
        eventually(lambda: followers(cache, "b") == 1)
        gate.may_end.set()

    asyncio.run(main())


def test_worker_threads_with_a_copied_context_are_part_of_the_computation(cache):
    """A worker thread with a copy of the context, as of asyncio.to_thread(), is part of the computation."""

    def compute() -> object:
        context = contextvars.copy_context()
        inner: Future[object] = in_background(context.run, cache.get_or_set, "k", lambda: 1)
        return inner.result(10)

    with pytest.raises(ComputationCycleError):
        cache.get_or_set("k", compute)


# Any graph of computations ----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_any_graph_of_computations_ends(cache, seed):
    """In any graph of computations each call gets a value or is told of the circle, and nothing is left behind."""
    chance = random.Random(seed)
    names = [f"k{number}" for number in range(6)]
    asks_for = {name: chance.sample(names, chance.randrange(3)) for name in names}

    def ask(name: str) -> object:
        def compute() -> object:
            time.sleep(0.001)  # work, during which others come to wait
            return [name, *map(ask, asks_for[name])]

        return cache.get_or_set(name, compute, timeout=0)

    async def ask_in_a_task(name: str) -> object:
        async def compute() -> object:
            await asyncio.sleep(0.001)
            return [name, *await asyncio.gather(*map(ask_in_a_task, asks_for[name]))]

        return await cache.aget_or_set(name, compute, timeout=0)

    def job(number: int) -> list[object]:
        start = random.Random(number).choices(names, k=3)
        if number % 2:
            return [value_or_refusal(ask, name) for name in start]
        return asyncio.run(gathered(*map(ask_in_a_task, start)))

    for results in in_threads(8, job):
        assert all(isinstance(result, list | ComputationCycleError) for result in results)
    assert cache.engine.flights._by_key == {}
    assert flights._under_way(flights._stalled) == []


def value_or_refusal(ask, name: str) -> object:
    try:
        return ask(name)
    except ComputationCycleError as refusal:
        return refusal


async def gathered(*calls) -> list[object]:
    async with asyncio.timeout(20):
        return await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.parametrize("seed", range(5))
def test_a_graph_without_circles_is_always_computed(cache, seed):
    """In a graph without circles nobody is refused, however many wait for the same keys."""
    chance = random.Random(seed)
    names = [f"k{number}" for number in range(8)]
    asks_for = {name: chance.sample(names[:index], min(index, 3)) for index, name in enumerate(names)}

    def ask(name: str) -> list[object]:
        def compute() -> list[object]:
            time.sleep(0.001)
            return [name, *map(ask, asks_for[name])]

        return cache.get_or_set(name, compute, timeout=0)

    expected = ask(names[-1])
    assert in_threads(8, lambda _: ask(names[-1])) == [expected] * 8
