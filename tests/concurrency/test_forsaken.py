"""Leaders that do not arrive: loops that end, computations that hang, callers that wait for themselves unseen."""

import asyncio
import gc
import threading
import time
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from storeroom import timeouts
from storeroom.backends.filebased import FileBasedCache
from storeroom.computing import renewals, stampede
from storeroom.engines import background, flights
from storeroom.engines.background import _Workers
from storeroom.engines.recent import _MOST, Recent
from storeroom.exceptions import ComputationCycleError, ComputationTimeoutError
from storeroom.storage import steps
from storeroom.testing.concurrency import Gate, eventually, in_background
from storeroom.testing.isolation import engines_of_its_own
from storeroom.testing.processes import Child


@pytest.fixture
def soon(monkeypatch):
    """Wait for a computation no longer than a moment."""
    monkeypatch.setattr(flights, "FLIGHT_SECONDS", 0.6)
    monkeypatch.setattr(stampede, "LEASE_SECONDS", 0.6)


def in_a_loop_of_its_own(call):
    """Run a coroutine as far as its own end, and close its loop with all that is left in it."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(call())
    finally:
        loop.close()


# Loops ------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [in_a_loop_of_its_own, lambda call: asyncio.run(call())], ids=["closed", "ended"])
def test_nobody_waits_for_a_computation_that_its_loop_took_along(cache, run):
    """A computation under hard_timeout whose loop has gone keeps neither a thread nor a task waiting."""
    calls = []

    async def late() -> str:
        calls.append(1)
        await asyncio.sleep(0 if len(calls) > 1 else 60)
        return "begun anew"

    async def give_up() -> None:
        with pytest.raises(ComputationTimeoutError):
            await cache.aget_or_set("k", late, hard_timeout=0.01)

    run(give_up)
    if run is not in_a_loop_of_its_own:
        eventually(lambda: cache.get("k") == "begun anew")  # as asyncio.run() has cancelled it
    assert in_background(cache.get_or_set, "k", lambda: "mine").result(10) in {"mine", "begun anew"}
    assert background.drain()


def test_nobody_waits_for_a_loop_that_does_not_run(cache):
    """A leader whose loop stands still between two runs is replaced, and its own late result goes to it alone."""
    may_end = asyncio.Event()

    async def compute() -> str:
        await may_end.wait()
        return "the loop's"

    loop = asyncio.new_event_loop()
    leader = loop.create_task(cache.aget_or_set("k", compute))
    loop.run_until_complete(asyncio.sleep(0.01))
    follower = in_background(cache.get_or_set, "k", lambda: "another's")
    assert follower.result(10) == "another's"
    may_end.set()
    assert loop.run_until_complete(leader) in {"the loop's", "another's"}
    assert cache.get("k") == "another's"
    loop.close()


def test_a_computation_that_the_collector_closes_lets_its_key_go(cache):
    """A task in a circle of references goes with all that it holds: what is left to be done is done all the same."""

    async def hang() -> None:
        await asyncio.sleep(60)

    async def begin(key: str) -> None:
        task = asyncio.ensure_future(cache.aget_or_set(key, hang))
        task.itself = task
        task._log_destroy_pending = False
        await asyncio.sleep(0.001)

    keys = [f"k{number}" for number in range(20)]
    for key in keys:
        in_a_loop_of_its_own(lambda key=key: begin(key))
    gc.collect()
    assert background.drain()
    assert not cache.engine.flights.has_any
    assert not steps._under_way
    assert [in_background(cache.get_or_set, key, lambda: "anew").result(2) for key in keys] == ["anew"] * 20


@pytest.mark.parametrize("run", [in_a_loop_of_its_own, lambda call: asyncio.run(call())], ids=["closed", "ended"])
def test_a_refresh_ends_where_each_request_has_a_loop(cache, run):
    """With a loop for each request, stale values are refreshed: computations begin one after the other, and end."""
    begun, ended = [], []

    async def compute() -> int:
        begun.append(1)
        await asyncio.sleep(0.02)
        ended.append(1)
        return len(ended)

    def request() -> int:
        return run(lambda: cache.aget_or_set("k", compute, timeout=0.01, stale_while_revalidate=600))

    def is_refreshed() -> bool:
        return request() >= 4

    eventually(is_refreshed)
    assert background.drain()
    assert len(begun) <= len(ended) + 2


# Computations that hang -------------------------------------------------------------------


@pytest.mark.usefixtures("soon")
def test_a_computation_that_hangs_is_given_up(cache):
    """After a while those who wait for a computation that hangs compute, and it does not replace their value."""
    gate = Gate("from the one that hung")
    hung = in_background(cache.get_or_set, "k", gate)
    assert gate.begun.wait(10)
    assert in_background(cache.get_or_set, "k", lambda: "computed by a follower").result(10) == "computed by a follower"
    gate.may_end.set()
    assert hung.result(10) in {"from the one that hung", "computed by a follower"}
    assert cache.get("k") == "computed by a follower"


def test_jobs_that_hang_hold_no_others_up():
    """Beyond MAX_WORKERS jobs that hang, one that is awaited runs at once, and any other after a moment."""
    workers, may_end, done = _Workers(), threading.Event(), []
    for _ in range(background.MAX_WORKERS):
        assert workers.submit(may_end.wait)
    assert workers.submit(lambda: done.append("refresh"))
    assert workers.submit(lambda: done.append("awaited"), is_awaited=True)
    eventually(lambda: "awaited" in done)

    def looks_after() -> bool:
        workers.grow()
        return "refresh" in done

    eventually(looks_after)
    may_end.set()
    workers.close()


def test_a_limit_that_ends_before_the_computation_begins_says_so(cache, monkeypatch):
    """ComputationTimeoutError tells a computation that goes on from one that has not begun."""
    gate = Gate()
    with pytest.raises(ComputationTimeoutError):
        cache.get_or_set("k", gate, hard_timeout=0.01)
    assert gate.begun.wait(10)
    with pytest.raises(ComputationTimeoutError, match="It goes on"):
        cache.get_or_set("k", gate, hard_timeout=0.01)
    gate.may_end.set()
    with monkeypatch.context() as full:
        full.setattr(background, "submit", lambda *_args, **_kwargs: True)
        with pytest.raises(ComputationTimeoutError, match="has not begun"):
            cache.get_or_set("l", gate, hard_timeout=0.01)


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), asyncio.CancelledError()], ids=repr)
def test_a_function_that_ends_oddly_is_called_once(cache, error):
    """An exception that is no Exception ends a call under hard_timeout, and a refresh; the key is free then."""
    calls = []

    def end() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        cache.get_or_set("k", end, hard_timeout=10)
    assert cache.get_or_set("k", lambda: "next", timeout=0.01, stale_while_revalidate=600) == "next"
    time.sleep(0.02)
    for _ in range(5):
        assert cache.get_or_set("k", end, timeout=0.01, stale_while_revalidate=600) == "next"
        assert background.drain()
    assert len(calls) == 2


@pytest.mark.parametrize("error", [GeneratorExit(), asyncio.CancelledError()], ids=repr)
def test_a_coroutine_that_ends_oddly_is_awaited_once(cache, error):
    """The same holds of a coroutine function."""
    calls = []

    async def end() -> None:
        calls.append(1)
        raise error

    async def main() -> None:
        with pytest.raises(type(error)):
            await cache.aget_or_set("k", end, hard_timeout=10)
        assert await cache.aget_or_set("k", lambda: "next") == "next"

    asyncio.run(main())
    assert len(calls) == 1


# Waiting for oneself, unseen --------------------------------------------------------------


def test_a_computation_that_asks_for_its_key_in_a_pool_is_refused(cache, monkeypatch):
    """Through workers of a thread pool, which have a context of their own, a circle of computations is found, too."""
    monkeypatch.setattr(stampede, "POOL_SECONDS", 0.1)
    with ThreadPoolExecutor(4) as pool:
        tasks = {
            "own": lambda: pool.submit(ask, "own").result(),
            "a": lambda: pool.submit(ask, "b").result(),
            "b": lambda: pool.submit(ask, "a").result(),
            "parts": lambda: list(pool.map(ask, ["part", "part", "other"])),
            "part": lambda: time.sleep(0.01),
            "other": lambda: time.sleep(0.01),
        }

        def ask(key: str) -> object:
            return cache.get_or_set(key, tasks[key])

        for key in ("own", "a"):
            with pytest.raises(ComputationCycleError):
                in_background(ask, key).result(10)
        assert in_background(ask, "parts").result(10) == [None, None, None]


class OnFiles:
    """A storage that processes share."""

    def make_cache(self, location, params):
        return FileBasedCache(location, params)


def compute_crosswise(cache, own, other, pipe):
    """Compute a key that needs another, once the other process does the same the other way round."""
    stampede.LEASE_SECONDS = 1.0

    def compute() -> object:
        pipe.send("computing")
        pipe.recv()
        return [own, cache.get_or_set(other, lambda: f"{other} alone")]

    return cache.get_or_set(own, compute)


def test_processes_whose_computations_cross_go_on_within_a_lease(tmp_path):
    """Of two processes that wait for each other's leases one goes on when the first has ended, renewed or not."""
    location = str(tmp_path / "cache")
    crossing = [Child(OnFiles, location, {}, compute_crosswise, *keys, talks=True) for keys in ("xy", "yx")]
    for child in crossing:
        assert child.pipe.recv() == "computing"
    begun = time.monotonic()
    for child in crossing:
        child.pipe.send("go on")
    results = [child.result() for child in crossing]
    for result, (own, other) in zip(results, ("xy", "yx"), strict=True):
        # Its own, made of either value of the other key; or the one that the other process has made meanwhile.
        alone = f"{own} alone"
        assert result in ([own, f"{other} alone"], [own, [other, alone]], alone)
    assert time.monotonic() - begun < 5


# Renewals ---------------------------------------------------------------------------------


def test_a_lease_is_renewed_while_its_leader_computes(tmp_path, monkeypatch):
    """A computation that takes longer than a lease keeps it, and its result is stored."""
    monkeypatch.setattr(stampede, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(renewals, "_renewals", renewals._Renewals())
    with engines_of_its_own():
        cache, gate = FileBasedCache(str(tmp_path / "cache"), {}), Gate()
        leader = in_background(cache.get_or_set, "k", gate)
        assert gate.begun.wait(10)
        first = cache._get(cache.make_key("k"))
        eventually(lambda: cache._get(cache.make_key("k")).leased_until > first.leased_until + 1.0)
        lease = cache._get(cache.make_key("k"))
        assert lease == first, "the same stamp"
        assert lease.leased_until <= timeouts.now() + 1.0
        gate.may_end.set()
        assert leader.result(10) == "computed"
        assert cache.get("k") == "computed"


# Exceptions on their way ------------------------------------------------------------------


def test_steps_clean_up_after_an_exception_that_comes_between_two_of_them():
    """The drivers tell the steps of an exception that no step has raised, and of GeneratorExit through all levels."""
    cleaned = []

    class Target:
        def work(self) -> None:
            raise GeneratorExit

        async def awork(self) -> None:
            raise GeneratorExit

        def clean(self) -> None:
            cleaned.append(1)

        aclean = clean

    target = Target()

    def inner() -> steps.Steps[None]:
        try:
            yield target, "work", ()
        finally:
            yield target, "clean", ()

    def outer() -> steps.Steps[None]:
        yield from inner()

    with pytest.raises(GeneratorExit):
        steps.run(outer())
    assert cleaned == [1]


class Request:
    """Something that a caller holds."""


def test_an_error_that_is_raised_again_keeps_no_caller_alive(cache):
    """With error_timeout a thousand callers get an error of the same depth, and only the last few are alive."""
    alive, depths = weakref.WeakSet(), set()

    def fail() -> None:
        raise LookupError("no such page")

    def call() -> None:
        request = Request()
        alive.add(request)
        try:
            cache.get_or_set("k", fail, error_timeout=600)
        except LookupError as error:
            depths.add(len(traceback.extract_tb(error.__traceback__)))

    for _ in range(1000):
        call()
    gc.collect()
    assert len(alive) <= 1
    assert len(depths) <= 2


def test_errors_are_forgotten_when_their_time_is_over(cache):
    """Kept errors are bounded in number, cost the same however many there are, and go when their time is over."""
    recent = Recent()
    for number in range(3 * _MOST):
        recent.note(str(number), number, timeouts.now() + 600 + number)
    assert len(recent._by_key) == _MOST
    assert len(recent._ends) <= 4 * _MOST
    recent.clear()
    recent.note("soon", 1, timeouts.now() + 0.01)
    time.sleep(0.02)
    recent.forget_over()
    assert not recent._by_key

    def fail() -> None:
        raise LookupError("no such page")

    with pytest.raises(LookupError):
        cache.get_or_set("k", fail, error_timeout=0.01)
    time.sleep(0.02)
    cache.get_or_set("another", lambda: 1)
    assert not cache.engine.flights._failed._by_key
