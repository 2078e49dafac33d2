"""get_or_set() computes once: leaders, followers, and leaders that do not arrive."""

import asyncio
import gc
import logging
import threading
from concurrent.futures import Future, wait

import pytest

from storeroom import timeouts
from storeroom.backends.locmem import LocMemCache
from storeroom.computing import stampede
from storeroom.engines.flights import Flight, Flights, Landing
from storeroom.exceptions import KeyNotFoundError
from storeroom.storage import steps
from storeroom.storage.envelope import placeholder
from storeroom.storage.hooks import MISSING, Conditional
from storeroom.testing import FakeClock
from storeroom.testing.concurrency import Gate, eventually, in_background


class Leased(LocMemCache):
    """Local memory whose computations compete for a lease, as if other processes shared it."""

    is_shared = True


@pytest.fixture(params=[LocMemCache, Leased])
def cache(request, tmp_path):
    return request.param(str(tmp_path), {})


@pytest.fixture
def leased(tmp_path):
    return Leased(str(tmp_path), {})


def followers(cache, key: str) -> int:
    return cache.engine.flights.followers(cache.make_key(key))


async def followed(cache, key: str, count: int) -> None:
    """Wait until so many tasks wait for the key."""
    async with asyncio.timeout(10):
        while followers(cache, key) < count:
            await asyncio.sleep(0)


# Followers --------------------------------------------------------------------------------


def test_followers_get_the_leaders_value(cache):
    """Eight threads that ask for a cold key compute once and all get the value."""
    gate = Gate()
    callers = [in_background(cache.get_or_set, "k", gate) for _ in range(8)]
    eventually(lambda: followers(cache, "k") == 7)
    gate.may_end.set()
    assert {caller.result(10) for caller in callers} == {"computed"}
    assert gate.calls == 1


def test_followers_do_not_share_an_object_that_can_be_changed(cache):
    """Each caller gets its own copy of a mutable result, as after get()."""
    gate = Gate(["value"])
    callers = [in_background(cache.get_or_set, "k", gate) for _ in range(4)]
    eventually(lambda: followers(cache, "k") == 3)
    gate.may_end.set()
    results = [caller.result(10) for caller in callers]
    assert len({id(result) for result in results}) == 4
    assert results == [["value"]] * 4


def test_followers_get_a_value_that_is_not_stored(cache):
    """With a timeout of 0 nothing is stored, and the waiting callers still get the result."""
    gate = Gate()
    callers = [in_background(cache.get_or_set, "k", gate, 0) for _ in range(4)]
    eventually(lambda: followers(cache, "k") == 3)
    gate.may_end.set()
    assert {caller.result(10) for caller in callers} == {"computed"}
    assert gate.calls == 1
    assert "k" not in cache


def test_followers_get_the_leaders_error_and_the_next_call_computes(cache):
    """An error of the computation reaches all waiting callers, and the next call computes anew."""
    gate = Gate(OSError("source is down"))
    callers = [in_background(cache.get_or_set, "k", gate) for _ in range(4)]
    eventually(lambda: followers(cache, "k") == 3)
    gate.may_end.set()
    assert {str(caller.exception(10)) for caller in callers} == {"source is down"}
    assert gate.calls == 1
    assert cache.get_or_set("k", lambda: "mended") == "mended"


def test_followers_begin_anew_when_the_leader_is_interrupted(cache):
    """A KeyboardInterrupt is the leader's own: a follower computes without it."""
    gate = Gate(KeyboardInterrupt())
    leader = in_background(cache.get_or_set, "k", gate)
    assert gate.begun.wait(10)
    follower = in_background(cache.get_or_set, "k", lambda: "mine")
    eventually(lambda: followers(cache, "k") == 1)
    gate.may_end.set()
    assert follower.result(10) == "mine"
    assert isinstance(leader.exception(10), KeyboardInterrupt)


def test_an_unserializable_result_reaches_everyone(cache):
    """A result that cannot be stored is returned to leader and followers."""
    gate = Gate(lock := threading.Lock())
    callers = [in_background(cache.get_or_set, "k", gate) for _ in range(3)]
    eventually(lambda: followers(cache, "k") == 2)
    gate.may_end.set()
    assert [caller.result(10) for caller in callers] == [lock] * 3
    assert "k" not in cache


def test_a_computation_that_raises_stop_iteration_does_not_end_the_call(cache):
    """A StopIteration becomes a RuntimeError, as in a generator, so that nothing takes it for a normal end."""

    def compute() -> object:
        raise StopIteration("early")

    with pytest.raises(RuntimeError) as raised:
        cache.get_or_set("k", compute)
    assert isinstance(raised.value.__cause__, StopIteration)
    assert cache.get_or_set("k", lambda: "next") == "next"


def test_other_keys_do_not_wait(cache):
    """A slow computation of one key does not delay another key."""
    gate = Gate()
    leader = in_background(cache.get_or_set, "slow", gate)
    assert gate.begun.wait(10)
    assert cache.get_or_set("fast", lambda: 1) == 1
    gate.may_end.set()
    assert leader.result(10) == "computed"


def test_a_value_stored_while_computing_wins(cache):
    """A value set during the computation is kept, and returned to the leader in place of its own."""
    gate = Gate("computed")
    leader = in_background(cache.get_or_set, "k", gate)
    assert gate.begun.wait(10)
    cache.set("k", "written")
    gate.may_end.set()
    assert leader.result(10) == "written"
    assert cache.get("k") == "written"


def test_looks_within_the_computation_are_not_counted_as_reads(cache):
    """One get_or_set() of a cold key counts as one miss and one set."""
    cache.get_or_set("k", lambda: 1)
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.sets) == (0, 1, 1)


class Punctual(Future):
    """A result that comes just as a thread or task has ceased to wait for it."""

    def __init__(self, arrive):
        super().__init__()
        self.arrive = arrive

    def result(self, timeout=None):
        if timeout is not None:
            self.arrive(self)
            raise TimeoutError
        return super().result()

    def add_done_callback(self, _):
        self.arrive(self)  # and the callback comes too late


def each_waits(arrive):
    """Yield two functions that wait for a flight, one as a thread and one as a task."""

    def waiting():
        flight = Flight(Flights(), ["k"], None, None)
        flight.future = Punctual(arrive)
        return stampede.follow(flight, 0.01)

    yield lambda: steps.run(waiting())
    yield lambda: asyncio.run(steps.arun(waiting()))


def test_a_result_that_lands_when_the_time_is_over_is_returned_all_the_same():
    """A result that lands just as the wait times out is returned."""
    landing = Landing({"k": "computed"})
    for wait_for_it in each_waits(lambda future: future.set_result(landing)):
        assert wait_for_it() is landing


@pytest.mark.parametrize("error", [ZeroDivisionError(), TimeoutError("the computation's own")])
def test_an_error_that_lands_when_the_time_is_over_is_raised_all_the_same(error):
    """An error that lands just as the wait times out is raised, a TimeoutError of the computation included."""
    for wait_for_it in each_waits(lambda future: future.set_exception(error)):
        with pytest.raises(type(error)) as raised:
            wait_for_it()
        assert raised.value is error


# Tasks ------------------------------------------------------------------------------------


def test_tasks_compute_once(cache):
    """Fifty tasks that ask for a cold key compute once."""
    calls = 0

    async def compute() -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.01)
        return "computed"

    async def main() -> list[str]:
        return await asyncio.gather(*(cache.aget_or_set("k", compute) for _ in range(50)))

    assert set(asyncio.run(main())) == {"computed"}
    assert calls == 1


def test_tasks_and_threads_compute_once_together(cache):
    """Tasks wait for the computation of a thread and get its value."""
    gate = Gate()
    leader = in_background(cache.get_or_set, "k", gate)
    assert gate.begun.wait(10)

    async def main() -> list[str]:
        tasks = [asyncio.create_task(cache.aget_or_set("k", gate)) for _ in range(5)]
        await followed(cache, "k", 5)
        gate.may_end.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == ["computed"] * 5
    assert leader.result(10) == "computed"
    assert gate.calls == 1


def test_a_cancelled_leader_leaves_the_computation_to_the_next(cache):
    """When the leading task is cancelled, another task computes for the rest."""

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
        await followed(cache, "k", 3)
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == ["mine"] * 3


def test_a_cancelled_follower_disturbs_nobody(cache):
    """A cancelled follower stops waiting; the leader and the other followers get the value."""

    async def main() -> None:
        gate = asyncio.Event()

        async def compute() -> str:
            await gate.wait()
            return "computed"

        leader = asyncio.create_task(cache.aget_or_set("k", compute))
        impatient = asyncio.create_task(cache.aget_or_set("k", compute))
        patient = asyncio.create_task(cache.aget_or_set("k", compute))
        await followed(cache, "k", 2)
        impatient.cancel()
        await asyncio.sleep(0)
        assert impatient.cancelled()
        assert followers(cache, "k") == 1
        gate.set()
        assert await leader == await patient == "computed"

    asyncio.run(main())


def test_a_follower_whose_loop_has_closed_is_forgotten_in_silence(cache, caplog):
    """A leading thread ends without a log record although the loop of a waiting task has closed."""
    gate = Gate()
    leader = in_background(cache.get_or_set, "k", gate)
    assert gate.begun.wait(10)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(cache.aget_or_set("k", gate), 0.01)

    asyncio.run(main())
    with caplog.at_level(logging.DEBUG):
        gate.may_end.set()
        assert leader.result(10) == "computed"
    gc.collect()
    assert caplog.records == []


def leases(cache) -> list[str]:
    """Return the stored leases: a lease is the placeholder of a key that is being computed."""
    return [key for key in cache._scan("") if type(key) is Conditional]


def test_a_cancelled_leader_gives_its_lease_back(leased):
    """A cancelled leader leaves no lease in the storage."""

    async def main() -> None:
        leader = asyncio.create_task(leased.aget_or_set("k", asyncio.Event().wait))
        await asyncio.sleep(0)
        assert len(leases(leased)) == 1
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader

    asyncio.run(main())
    assert leases(leased) == []


# The lease --------------------------------------------------------------------------------


def test_the_lease_is_given_back(leased):
    """No lease is left after a computation, nor after one that raised."""
    leased.get_or_set("k", lambda: 1)
    with pytest.raises(ZeroDivisionError):
        leased.get_or_set("l", lambda: 1 / 0)
    assert leases(leased) == []
    assert leased.stats().entries == 1


def test_a_key_that_is_being_computed_is_absent_to_every_operation(cache):
    """A key whose first value is being computed is absent to every operation but get_or_set()."""
    gate = Gate()
    leader = in_background(cache.get_or_set, "k", gate)
    assert gate.begun.wait(10)
    assert len(leases(cache)) == 1
    assert cache.get("k", "absent") == "absent"
    assert cache.get_many(["k"]) == {}
    assert cache.keys() == []
    assert cache.count() == 0
    assert cache.ttl("k") == 0
    assert not cache.has_key("k")
    assert not cache.touch("k", 10)
    with pytest.raises(KeyNotFoundError):
        cache.incr("k")
    with pytest.raises(KeyNotFoundError):
        cache.incr_version("k")
    gate.may_end.set()
    assert leader.result(10) == "computed"
    assert cache.get("k") == "computed"


def test_add_comes_before_a_computation_under_way(cache):
    """add() stores during a computation, and its value is returned to the leader."""
    gate = Gate()
    leader = in_background(cache.get_or_set, "k", gate)
    assert gate.begun.wait(10)
    assert cache.add("k", "added")
    gate.may_end.set()
    assert leader.result(10) == "added"


@pytest.mark.parametrize("remove", [lambda cache: cache.delete("k"), lambda cache: cache.clear()])
def test_a_value_computed_from_before_a_delete_is_not_stored(cache, remove):
    """A value whose computation began before a delete is not stored; later callers get one computed after."""
    gate = Gate("old")
    leader = in_background(cache.get_or_set, "k", gate)
    assert gate.begun.wait(10)
    remove(cache)
    later = in_background(cache.get_or_set, "k", lambda: "new")
    if not cache.is_shared:
        eventually(lambda: followers(cache, "k") == 1)
    gate.may_end.set()
    assert leader.result(10) in ("old", "new")
    assert later.result(10) == "new"
    assert cache.get("k") in ("new", None)
    assert cache.get_or_set("k", lambda: "new") == "new"


def hold_lease(cache, key: str, seconds: float) -> None:
    """Take the lease, as another process does that computes the key."""
    until = timeouts.now() + seconds
    assert cache._lease(cache.make_key(key), MISSING, placeholder(until), until)


def test_a_caller_that_finds_the_lease_taken_waits_for_the_value(leased):
    """A caller that finds the lease taken waits, and returns the value once it is stored."""
    hold_lease(leased, "k", stampede.LEASE_SECONDS)
    waiting = in_background(leased.get_or_set, "k", lambda: "unused")
    assert not wait([waiting], timeout=0.02).done
    leased.set("k", "theirs")
    assert waiting.result(10) == "theirs"


def test_a_caller_that_waits_for_a_lease_computes_when_the_key_is_deleted(leased):
    """A waiting caller computes itself if the key is deleted, since the other's value may be from before."""
    hold_lease(leased, "k", stampede.LEASE_SECONDS)
    waiting = in_background(leased.get_or_set, "k", lambda: "mine")
    assert not wait([waiting], timeout=0.02).done
    leased.delete("k")
    assert waiting.result(10) == "mine"


def test_a_dead_leader_delays_the_others_by_the_lease(leased):
    """A caller that waits for a dead leader computes when LEASE_SECONDS are over, and no sooner."""
    with FakeClock() as clock:
        hold_lease(leased, "k", stampede.LEASE_SECONDS)
        waiting = in_background(leased.get_or_set, "k", lambda: "mine")
        try:
            clock.advance(stampede.LEASE_SECONDS - 1)
            assert not wait([waiting], timeout=0.1).done, "it looked at least twice, and went on waiting"
            clock.advance(1)
            assert waiting.result(10) == "mine"
        finally:
            leased.set("k", "a value, so that the thread ends in any case")


def test_a_lease_that_ran_out_is_not_taken_from_its_next_owner(leased):
    """A leader slower than its lease returns its value, and leaves the lease of the next one alone."""
    with FakeClock() as clock:

        def slow() -> str:
            clock.advance(stampede.LEASE_SECONDS + 1)
            hold_lease(leased, "k", stampede.LEASE_SECONDS)
            return "late"

        assert leased.get_or_set("k", slow) == "late"
        assert len(leases(leased)) == 1


class TakesNoLease(Leased):
    """Refuses leases, as a server that is full."""

    def _add(self, storage_key, value, expires_at):
        return False

    def _compare_set(self, storage_key, expected, value, expires_at):
        return False


def test_a_caller_that_never_gets_a_lease_computes_in_the_end(tmp_path):
    """Where no lease can be stored, as on a full server, a caller computes after LEASE_SECONDS."""
    cache = TakesNoLease(str(tmp_path), {})
    with FakeClock() as clock:
        waiting = in_background(cache.get_or_set, "k", lambda: "mine")
        assert not wait([waiting], timeout=0.02).done
        clock.advance(stampede.LEASE_SECONDS)
        assert waiting.result(10) == "mine"
