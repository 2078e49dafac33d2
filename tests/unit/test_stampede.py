"""get_or_set() computes once: who leads, who follows, and what happens when a leader does not arrive."""

import asyncio
import contextvars
import gc
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest

from storeroom import stampede, timeouts
from storeroom.backends.locmem import LocMemCache
from storeroom.exceptions import ComputationCycleError, SerializationError
from storeroom.testing import FakeClock


class Leased(LocMemCache):
    """Local memory whose computations compete for a lease, as if other processes shared it."""

    is_shared = True


@pytest.fixture(params=[LocMemCache, Leased])
def cache(request, tmp_path):
    return request.param(str(tmp_path), {})


@pytest.fixture
def leased(tmp_path):
    return Leased(str(tmp_path), {})


@pytest.fixture
def threads():
    with ThreadPoolExecutor(max_workers=16) as pool:
        yield pool


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until another thread has come where it is expected: at most ten seconds."""
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.0005)


def followers(cache, key: str) -> int:
    return cache._flights.followers(cache.make_key(key))


class Gate:
    """A computation that says when it begins, and ends when told."""

    def __init__(self, value: object = "value") -> None:
        self.value = value
        self.calls = 0
        self.begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self) -> object:
        self.calls += 1
        self.begun.set()
        assert self.may_end.wait(10)
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


# Followers --------------------------------------------------------------------------------


def test_followers_get_the_leaders_value(cache, threads):
    gate = Gate()
    callers = [threads.submit(cache.get_or_set, "k", gate) for _ in range(8)]
    eventually(lambda: followers(cache, "k") == 7)
    gate.may_end.set()
    assert {caller.result(10) for caller in callers} == {"value"}
    assert gate.calls == 1


def test_followers_do_not_share_an_object_that_can_be_changed(cache, threads):
    """Each caller may do with the result what it likes, as after a plain get()."""
    gate = Gate(["value"])
    callers = [threads.submit(cache.get_or_set, "k", gate) for _ in range(4)]
    eventually(lambda: followers(cache, "k") == 3)
    gate.may_end.set()
    results = [caller.result(10) for caller in callers]
    assert len({id(result) for result in results}) == 4
    assert results == [["value"]] * 4


def test_followers_get_a_value_that_is_not_stored(cache, threads):
    """With a timeout of 0 nothing is kept, yet those who waited get the result."""
    gate = Gate()
    callers = [threads.submit(cache.get_or_set, "k", gate, 0) for _ in range(4)]
    eventually(lambda: followers(cache, "k") == 3)
    gate.may_end.set()
    assert {caller.result(10) for caller in callers} == {"value"}
    assert gate.calls == 1
    assert "k" not in cache


def test_followers_get_the_leaders_error_and_the_next_call_computes(cache, threads):
    gate = Gate(OSError("source is down"))
    callers = [threads.submit(cache.get_or_set, "k", gate) for _ in range(4)]
    eventually(lambda: followers(cache, "k") == 3)
    gate.may_end.set()
    assert {str(caller.exception(10)) for caller in callers} == {"source is down"}
    assert gate.calls == 1
    assert cache.get_or_set("k", lambda: "mended") == "mended"


def test_followers_begin_anew_when_the_leader_is_interrupted(cache, threads):
    """An interrupt is the leader's own business: the others compute without it."""
    gate = Gate(KeyboardInterrupt())
    leader = threads.submit(cache.get_or_set, "k", gate)
    assert gate.begun.wait(10)
    follower = threads.submit(cache.get_or_set, "k", lambda: "mine")
    eventually(lambda: followers(cache, "k") == 1)
    gate.may_end.set()
    assert follower.result(10) == "mine"
    assert isinstance(leader.exception(10), KeyboardInterrupt)


def test_an_unserializable_result_reaches_everyone_as_an_error(cache, threads):
    gate = Gate(threading.Lock())
    callers = [threads.submit(cache.get_or_set, "k", gate) for _ in range(3)]
    eventually(lambda: followers(cache, "k") == 2)
    gate.may_end.set()
    for caller in callers:
        assert isinstance(caller.exception(10), SerializationError)
    assert "k" not in cache


def test_a_computation_that_raises_stop_iteration_does_not_end_the_call(cache):
    """As in a generator, it becomes a RuntimeError: nothing takes it for a normal end."""

    def compute() -> object:
        raise StopIteration("early")

    with pytest.raises(RuntimeError) as raised:
        cache.get_or_set("k", compute)
    assert isinstance(raised.value.__cause__, StopIteration)
    assert cache.get_or_set("k", lambda: "next") == "next"


def test_other_keys_do_not_wait(cache, threads):
    gate = Gate()
    leader = threads.submit(cache.get_or_set, "slow", gate)
    assert gate.begun.wait(10)
    assert cache.get_or_set("fast", lambda: 1) == 1
    gate.may_end.set()
    assert leader.result(10) == "value"


def test_a_value_stored_while_computing_wins(cache, threads):
    """What another writer stored meanwhile is what everybody gets, the leader included."""
    gate = Gate("computed")
    leader = threads.submit(cache.get_or_set, "k", gate)
    assert gate.begun.wait(10)
    cache.set("k", "written")
    gate.may_end.set()
    assert leader.result(10) == "written"
    assert cache.get("k") == "written"


def test_looks_within_the_computation_are_not_counted_as_reads(cache):
    """One call is one read, however many steps it takes."""
    cache.get_or_set("k", lambda: 1)
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.sets) == (0, 1, 1)


# Tasks ------------------------------------------------------------------------------------


def test_tasks_compute_once(cache):
    calls = 0

    async def compute() -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.01)
        return "value"

    async def main() -> list[str]:
        return await asyncio.gather(*(cache.aget_or_set("k", compute) for _ in range(50)))

    assert set(asyncio.run(main())) == {"value"}
    assert calls == 1


def test_tasks_and_threads_compute_once_together(cache, threads):
    gate = Gate()
    leader = threads.submit(cache.get_or_set, "k", gate)
    assert gate.begun.wait(10)

    async def main() -> list[str]:
        tasks = [asyncio.create_task(cache.aget_or_set("k", gate)) for _ in range(5)]
        while followers(cache, "k") < 5:
            await asyncio.sleep(0)
        gate.may_end.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == ["value"] * 5
    assert leader.result(10) == "value"
    assert gate.calls == 1


def test_a_cancelled_leader_leaves_the_computation_to_the_next(cache):
    async def main() -> str:
        begun = asyncio.Event()

        async def endless() -> str:
            begun.set()
            await asyncio.Event().wait()
            return "never"

        async def prompt() -> str:
            return "mine"

        leader = asyncio.create_task(cache.aget_or_set("k", endless))
        await begun.wait()
        tasks = [asyncio.create_task(cache.aget_or_set("k", prompt)) for _ in range(3)]
        while followers(cache, "k") < 3:
            await asyncio.sleep(0)
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == ["mine"] * 3


def test_a_cancelled_follower_disturbs_nobody(cache):
    async def main() -> None:
        gate = asyncio.Event()

        async def compute() -> str:
            await gate.wait()
            return "value"

        leader = asyncio.create_task(cache.aget_or_set("k", compute))
        impatient = asyncio.create_task(cache.aget_or_set("k", compute))
        patient = asyncio.create_task(cache.aget_or_set("k", compute))
        while followers(cache, "k") < 2:
            await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.sleep(0)
        assert impatient.cancelled()
        assert followers(cache, "k") == 1
        gate.set()
        assert await leader == await patient == "value"

    asyncio.run(main())


def test_a_follower_whose_loop_has_closed_is_forgotten_in_silence(cache, threads, caplog):
    """A thread that leads must not stumble over a loop that ended while a task of it waited."""
    gate = Gate()
    leader = threads.submit(cache.get_or_set, "k", gate)
    assert gate.begun.wait(10)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(cache.aget_or_set("k", gate), 0.01)

    asyncio.run(main())
    with caplog.at_level(logging.DEBUG):
        gate.may_end.set()
        assert leader.result(10) == "value"
    gc.collect()
    assert caplog.records == []


def test_a_cancelled_leader_gives_its_lease_back(leased):
    async def main() -> None:
        leader = asyncio.create_task(leased.aget_or_set("k", asyncio.Event().wait))
        while leased._flights.followers(leased.make_key("k")) or not list(leased._scan("\x00lease")):
            await asyncio.sleep(0)
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader

    asyncio.run(main())
    assert list(leased._scan("\x00lease")) == []


# Cycles -----------------------------------------------------------------------------------


def test_a_computation_that_asks_for_its_own_key_is_refused(cache):
    with pytest.raises(ComputationCycleError):
        cache.get_or_set("k", lambda: cache.get_or_set("k", lambda: 1))
    assert cache.get_or_set("k", lambda: 2) == 2


def test_a_task_that_asks_for_its_own_key_is_refused(cache):
    async def compute() -> int:
        return await cache.aget_or_set("k", compute)

    with pytest.raises(ComputationCycleError):
        asyncio.run(cache.aget_or_set("k", compute))


def test_a_task_that_asks_for_its_own_key_synchronously_is_refused(cache):
    async def compute() -> int:
        return cache.get_or_set("k", lambda: 1)

    with pytest.raises(ComputationCycleError):
        asyncio.run(cache.aget_or_set("k", compute))


def test_a_part_of_a_computation_that_asks_for_its_key_is_refused(cache):
    """Tasks that a computation gathers are part of it."""

    async def part() -> int:
        return await cache.aget_or_set("whole", whole)

    async def whole() -> list[int]:
        return await asyncio.gather(part(), part())

    async def main() -> None:
        async with asyncio.timeout(10):
            await cache.aget_or_set("whole", whole)

    with pytest.raises(ComputationCycleError):
        asyncio.run(main())


def test_two_threads_whose_computations_cross_are_not_left_waiting(cache, threads):
    """One of the two gets an error; the other computes."""
    both = threading.Barrier(2)

    def compute(own: str, other: str) -> str:
        def computation() -> str:
            both.wait(10)
            return f"{own}+{cache.get_or_set(other, lambda: other)}"

        return cache.get_or_set(own, computation)

    results = [threads.submit(compute, "a", "b"), threads.submit(compute, "b", "a")]
    errors = [result.exception(10) for result in results]
    refused = [error for error in errors if error is not None]
    assert refused
    assert all(isinstance(error, ComputationCycleError) for error in refused)
    assert cache.get_or_set("a", lambda: 1) is not None
    assert cache.get_or_set("b", lambda: 1) is not None


def test_computations_that_cross_between_two_caches_are_not_left_waiting(tmp_path, threads):
    left, right = LocMemCache(f"{tmp_path}/left", {}), LocMemCache(f"{tmp_path}/right", {})
    both = threading.Barrier(2)

    def compute(own, other) -> str:
        def computation() -> str:
            both.wait(10)
            return other.get_or_set("k", lambda: "inner")

        return own.get_or_set("k", computation)

    results = [threads.submit(compute, left, right), threads.submit(compute, right, left)]
    assert any(isinstance(result.exception(10), ComputationCycleError) for result in results)


def test_gathered_parts_that_cross_are_not_left_waiting(cache):
    """The wait of a part is a wait of the whole."""

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
    """A task started in the background may ask for the key later."""

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


def test_nested_keys_are_computed(cache):
    value = cache.get_or_set("a", lambda: 1 + cache.get_or_set("b", lambda: 1 + cache.get_or_set("c", lambda: 1)))
    assert value == 3
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (3, 2, 1)


# A synchronous caller in an event loop's thread -------------------------------------------


def test_a_synchronous_call_does_not_block_the_loop_that_its_leader_needs(cache):
    """It computes on its own instead of waiting for a task that could never go on."""

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
    def compute() -> object:
        return cache.get_or_set("k", compute)

    async def main() -> None:
        leader = asyncio.create_task(cache.aget_or_set("k", asyncio.Event().wait))
        await asyncio.sleep(0)
        with pytest.raises(ComputationCycleError):
            cache.get_or_set("k", compute)
        leader.cancel()

    asyncio.run(main())


def test_a_synchronous_call_does_not_wait_for_a_thread_that_waits_for_its_loop(cache, threads):
    """The loop's task leads "a"; a thread leads "b" and waits for "a"; the loop's own thread asks for "b"."""

    async def main() -> str:
        gate = asyncio.Event()
        leader = asyncio.create_task(cache.aget_or_set("a", gate.wait))
        await asyncio.sleep(0)
        thread = threads.submit(cache.get_or_set, "b", lambda: cache.get_or_set("a", lambda: "unused"))
        while followers(cache, "a") < 1:
            await asyncio.sleep(0)
        value = cache.get_or_set("b", lambda: "at once")
        gate.set()
        assert await leader is True
        assert await asyncio.wrap_future(thread) in {True, "at once"}
        return value

    assert asyncio.run(main()) == "at once"


def test_a_thread_does_not_wait_for_a_loop_that_waits_for_it(cache, threads):
    """As above, in the other order: the loop's thread already waits when the thread would begin to."""
    gate = Gate()

    def crossing() -> object:
        gate()
        return cache.get_or_set("a", lambda: "unused")

    async def main() -> None:
        leader = asyncio.create_task(cache.aget_or_set("a", asyncio.Event().wait))
        await asyncio.sleep(0)
        thread = threads.submit(cache.get_or_set, "b", crossing)
        assert gate.begun.wait(10)
        opener = threads.submit(open_gate)
        with pytest.raises(ComputationCycleError):
            cache.get_or_set("b", lambda: "unused")
        assert isinstance(thread.exception(10), ComputationCycleError)
        opener.result(10)
        leader.cancel()

    def open_gate() -> None:
        eventually(lambda: followers(cache, "b") == 1)
        gate.may_end.set()

    asyncio.run(main())


# The lease --------------------------------------------------------------------------------


def test_the_lease_is_given_back(leased):
    leased.get_or_set("k", lambda: 1)
    with pytest.raises(ZeroDivisionError):
        leased.get_or_set("l", lambda: 1 / 0)
    assert list(leased._scan("\x00lease")) == []


def test_a_lease_is_no_key_of_the_cache(leased, threads):
    gate = Gate()
    leader = threads.submit(leased.get_or_set, "k", gate)
    assert gate.begun.wait(10)
    assert len(list(leased._scan("\x00lease"))) == 1
    assert leased.keys() == []
    leased.clear()
    assert len(list(leased._scan("\x00lease"))) == 1, "clear() must not let a second one compute"
    gate.may_end.set()
    assert leader.result(10) == "value"


def hold_lease(cache, key: str, seconds: float) -> None:
    """Do as another process would that computes the key."""
    lease_key = stampede.Computation(cache, key, None, None, None)._lease_key
    assert cache._add(lease_key, "another", timeouts.now() + seconds)


def test_who_finds_the_lease_taken_waits_for_the_value(leased, threads):
    hold_lease(leased, "k", 60)
    waiting = threads.submit(leased.get_or_set, "k", lambda: "unused")
    assert not wait([waiting], timeout=0.02).done
    leased.set("k", "theirs")
    assert waiting.result(10) == "theirs"


def test_a_dead_leader_delays_the_others_by_the_lease(leased, threads):
    with FakeClock() as clock:
        hold_lease(leased, "k", stampede.LEASE_SECONDS)
        waiting = threads.submit(leased.get_or_set, "k", lambda: "mine")
        try:
            clock.advance(stampede.LEASE_SECONDS - 1)
            assert not wait([waiting], timeout=0.1).done, "it looked at least twice, and went on waiting"
            clock.advance(1)
            assert waiting.result(10) == "mine"
        finally:
            leased.set("k", "a value, so that the thread ends in any case")


def test_a_lease_that_ran_out_is_not_taken_from_its_next_owner(leased):
    """A slow leader gives back only a lease that is still its own."""
    with FakeClock() as clock:

        def slow() -> str:
            clock.advance(stampede.LEASE_SECONDS + 1)
            hold_lease(leased, "k", stampede.LEASE_SECONDS)
            return "late"

        assert leased.get_or_set("k", slow) == "late"
        assert len(list(leased._scan("\x00lease"))) == 1


# Fork -------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_does_not_wait_for_a_leader_that_stayed_in_the_parent(tmp_path, threads):
    cache = LocMemCache(str(tmp_path), {})
    gate = Gate()
    leader = threads.submit(cache.get_or_set, "k", gate)
    assert gate.begun.wait(10)
    child = os.fork()
    if child == 0:
        os._exit(0 if cache.get_or_set("k", lambda: "child's") == "child's" else 1)
    assert exit_code(child) == 0
    gate.may_end.set()
    assert leader.result(10) == "value"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_a_computation_starts_is_no_part_of_it(tmp_path):
    """A pool of workers, forked by the first computation, may compute any key later."""
    cache = LocMemCache(str(tmp_path), {})

    def compute() -> int:
        child = os.fork()
        if child == 0:
            os._exit(0 if cache.get_or_set("k", lambda: "child's") == "child's" else 1)
        return exit_code(child)

    assert cache.get_or_set("k", compute) == 0


def exit_code(child: int) -> int:
    """Wait for a child, at most ten seconds: one that hangs is killed, and reads as -9."""
    deadline = time.monotonic() + 10
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, 9)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.001)
    return os.waitstatus_to_exitcode(ended[1])


def test_worker_threads_with_a_copied_context_are_part_of_the_computation(cache, threads):
    """So are those of asyncio.to_thread(), which copies it too."""

    def compute() -> object:
        context = contextvars.copy_context()
        inner: Future[object] = threads.submit(context.run, cache.get_or_set, "k", lambda: 1)
        return inner.result(10)

    with pytest.raises(ComputationCycleError):
        cache.get_or_set("k", compute)
