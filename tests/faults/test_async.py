"""Asynchronous callers while servers hang, connections are slow and tasks are cancelled: no loop waits or leaks."""

import asyncio
import contextlib
import gc
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from storeroom.computing.stampede import LEASE_SECONDS
from storeroom.exceptions import UnreachableError
from storeroom.storage.outages import PAUSE_SECONDS
from storeroom.testing.concurrency import in_threads
from tests.faults.kinds import MEMCACHED, Site, kinds
from tests.handles import put_in_a_process_of_its_own
from tests.servers.proxy import Proxy

#: Seconds that a silent server is waited for.
PATIENCE = 1.0

#: Seconds that an event loop may be late beside the time that the machine makes everyone wait. Far less than PATIENCE.
LATE = 0.5

#: Databases are alike to their callers, and MariaDB takes its time to connect.
WITH_ONE_DATABASE = kinds("redis", *MEMCACHED, "postgresql")

IMPATIENT = {"socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE}


@asynccontextmanager
async def lateness() -> AsyncIterator[Callable[[], float]]:
    """Tell by how many seconds at most the loop was late within the block, but for the lateness of the machine.

    That is measured by a thread that does the same as the loop: it waits for processor and interpreter alone.
    """
    longest = {"loop": 0.0, "thread": 0.0}
    has_ended = threading.Event()

    def note(who: str, since: float) -> float:
        now = time.monotonic()
        longest[who] = max(longest[who], now - since)
        return now

    async def tick() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.001)
            last = note("loop", last)

    def tick_beside() -> None:
        last = time.monotonic()
        while not has_ended.is_set():
            time.sleep(0.001)
            last = note("thread", last)

    beside = threading.Thread(target=tick_beside)
    beside.start()
    ticking = asyncio.create_task(tick())
    try:
        yield lambda: longest["loop"] - longest["thread"]
    finally:
        ticking.cancel()
        has_ended.set()
        beside.join()


OPERATIONS: dict[str, Callable[[Any, str], Any]] = {
    "aget": lambda cache, key: cache.aget(key),
    "aset": lambda cache, key: cache.aset(key, "value"),
    "aadd": lambda cache, key: cache.aadd(key, "value"),
    "aget_many": lambda cache, key: cache.aget_many([key, "a", "b"]),
    "aset_many": lambda cache, key: cache.aset_many({key: 1, "b": 2}),
    "adelete": lambda cache, key: cache.adelete(key),
    "atouch": lambda cache, key: cache.atouch(key, 10),
    "attl": lambda cache, key: cache.attl(key),
    "ahas_key": lambda cache, key: cache.ahas_key(key),
    "aincr": lambda cache, key: cache.aincr(key),
    "aget_or_set": lambda cache, key: cache.aget_or_set(key, lambda: "computed"),
    "aclear": lambda cache, _: cache.aclear(),
    "ainvalidate_tags": lambda cache, key: cache.ainvalidate_tags(key),
}


# No loop waits --------------------------------------------------------------------------------


@pytest.mark.slow
@kinds("redis", *MEMCACHED)
@pytest.mark.parametrize("first", ["connected", "not yet connected"])
def test_no_operation_makes_a_loop_wait_for_a_server_that_hangs(site: Site, first: str) -> None:
    """An event loop stays on time while all operations at once, again and again, wait for a server that hangs."""
    cache = site.cache(pause=PAUSE_SECONDS, **IMPATIENT)
    if first == "connected":
        cache.set("k", "v")

    async def work() -> float:
        if first == "connected":
            await cache.aget("k")
        await asyncio.to_thread(site.pause)
        try:
            async with lateness() as late:
                for _ in range(3):
                    asked = [operation(cache, f"k{number}") for operation in OPERATIONS.values() for number in range(5)]
                    results = await asyncio.gather(*asked, return_exceptions=True)
                    # An outage's error is a TimeoutError, too; a wait of our own that is over is not to be seen.
                    late_ones = [result for result in results if isinstance(result, TimeoutError)]
                    assert all(isinstance(result, UnreachableError) for result in late_ones)
                return late()
        finally:
            site.resume()

    begun = time.monotonic()
    assert asyncio.run(work()) < LATE
    assert time.monotonic() - begun < 20 * PATIENCE


@pytest.mark.slow
@kinds("redis", *MEMCACHED)
def test_no_loop_waits_for_a_connection_that_is_not_accepted(site: Site) -> None:
    """An event loop stays on time while a connection hangs before it is made, as a full backlog lets it."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(4):
            connection = stack.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex(("127.0.0.1", port))
        cache = site.cache(port=port, **IMPATIENT)

        async def work() -> float:
            async with lateness() as late:
                assert await asyncio.gather(*(cache.aget(f"k{number}") for number in range(20))) == [None] * 20
                return late()

        assert asyncio.run(work()) < LATE
        assert site.failures(cache) > 0


async def sleep_in_parts(seconds: float) -> None:
    """Sleep for so long, but for longer where the machine stands still meanwhile: that is over in one part."""
    for _ in range(10):
        await asyncio.sleep(seconds / 10)


@pytest.mark.slow
def test_caller_of_its_own_patience_goes_when_it_is_over(site: Site) -> None:
    """wait_for() ends on time while a server hangs, and the connections are in order when the server goes on."""
    cache = site.cache(socket_timeout=5)
    cache.set("k", "v")

    async def work() -> None:
        assert await cache.aget("k") == "v"
        await asyncio.to_thread(site.pause)
        try:
            too_late = asyncio.create_task(sleep_in_parts(0.05 + LATE))
            asked = (asyncio.wait_for(cache.aget("k"), 0.05) for _ in range(50))
            results = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(result) for result in results} == {TimeoutError}
            assert not too_late.done()
        finally:
            site.resume()
        assert await cache.aget("k") == "v"
        assert site.failures(cache) == 0

    asyncio.run(work())


# Cancellation ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_cancelled_operation_leaves_nobody_anothers_reply(site: Site, proxy: Proxy, seed: int) -> None:
    """Tasks may be cancelled while they connect, wait for a reply or wait in a queue: all others get their replies."""
    chance = random.Random(seed)
    cache = site.cache(port=proxy.port, max_connections=4)
    values = {f"k{number}": f"value {number}" * chance.randrange(1, 400) for number in range(60)}
    site.cache().set_many({**values, "n": 0})
    done, perhaps = 0, 0

    async def read(key: str) -> None:
        assert await cache.aget(key) == values[key]

    async def read_many(keys: list[str]) -> None:
        assert await cache.aget_many(keys) == {key: values[key] for key in keys}

    async def count() -> None:
        nonlocal done, perhaps
        perhaps += 1
        await cache.aincr("n")
        done += 1

    async def work() -> None:
        for _ in range(8):
            proxy.delay = chance.choice([0.0, 0.002, 0.01])
            tasks = [asyncio.create_task(read(key)) for key in chance.sample(list(values), 20)]
            tasks += [asyncio.create_task(read_many(chance.sample(list(values), 10))) for _ in range(5)]
            tasks += [asyncio.create_task(count()) for _ in range(10)]
            chance.shuffle(tasks)
            for task in tasks[::2]:
                await asyncio.sleep(chance.choice([0, 0, 0.0005, 0.003]))
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert result is None or isinstance(result, asyncio.CancelledError), result
        proxy.delay = 0.0
        assert await cache.aget_many(values) == values
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(work())
    assert done <= site.cache().get("n") <= perhaps
    assert site.failures(cache) == 0
    assert proxy.connections <= (1 if site.is_asynchronous else 4)


@pytest.mark.slow
def test_cancelled_leader_waits_for_no_server_that_hangs(site: Site) -> None:
    """Cancelled while the server hangs, a leader ends soon; its lease is taken away when the server goes on."""
    cache = site.cache()
    begun = asyncio.Event()

    async def compute() -> None:
        begun.set()
        await asyncio.sleep(60)

    async def work() -> None:
        leader = asyncio.ensure_future(cache.aget_or_set("k", compute))
        await begun.wait()
        await asyncio.to_thread(site.pause)
        try:
            leader.cancel()
            await asyncio.wait([leader], timeout=5)  # it gives the clean-up half a second; the server has 20
            assert leader.cancelled()
        finally:
            site.resume()
        async with asyncio.timeout(LEASE_SECONDS - 1):  # sooner than the lease ends by itself
            assert await cache.aget_or_set("k", lambda: "next") == "next"

    asyncio.run(work())


@pytest.mark.slow
def test_cancelled_leader_lets_another_compute(site: Site) -> None:
    """A leader that is cancelled gives its lease back, so that a caller in another process computes at once."""
    cache, other = site.cache(), site.cache()
    put_in_a_process_of_its_own(other)

    async def work() -> None:
        begun = asyncio.Event()

        async def never() -> str:
            begun.set()
            await asyncio.sleep(3600)
            return "never"

        leading = asyncio.create_task(cache.aget_or_set("k", never))
        await begun.wait()
        waiting = asyncio.create_task(other.aget_or_set("k", lambda: "computed"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        leading.cancel()
        assert await asyncio.wait_for(waiting, 2) == "computed"
        assert await cache.aget("k") == "computed"

    asyncio.run(work())


# No loop leaks --------------------------------------------------------------------------------


@WITH_ONE_DATABASE
def test_loop_that_ends_while_the_server_hangs_leaves_nothing_behind(
    site: Site, proxy: Proxy, recwarn: pytest.WarningsRecorder
) -> None:
    """asyncio.run() cancels the operations under way: no task, no connection and no warning remain."""
    cache = site.cache(port=proxy.port, **IMPATIENT)
    cache.set("k", "v")

    async def work() -> None:
        await cache.aget("k")
        proxy.is_silent = True
        asked = [asyncio.create_task(_ignoring(operation(cache, "k"))) for operation in OPERATIONS.values()]
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in asked)

    asyncio.run(work())
    proxy.is_silent = False
    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []
    proxy.cut()
    other = site.cache()
    patience = time.monotonic() + 5  # operations sent before, aclear() among them, may yet arrive
    while True:
        asyncio.run(other.aset("k", "w"))
        if asyncio.run(other.aget("k")) == "w":
            break
        assert time.monotonic() < patience


async def _ignoring(operation: Any) -> None:
    await operation


@pytest.mark.slow
@WITH_ONE_DATABASE
def test_many_loops_one_after_another_keep_nothing(site: Site, proxy: Proxy) -> None:
    """Neither loops nor connections nor threads grow with the number of calls of asyncio.run()."""
    cache = site.cache(port=proxy.port)
    cache.set("k", "v")
    for _ in range(5):
        asyncio.run(cache.aget("k"))
    loops, threads = _loops(), threading.active_count()
    for _ in range(60):
        assert asyncio.run(cache.aget("k")) == "v"
    # The thread that answered the last loop may hold it for an instant more.
    patience = time.monotonic() + 5
    while _loops() > loops and time.monotonic() < patience:
        time.sleep(0.01)
    assert _loops() <= loops
    assert threading.active_count() <= threads + 32
    assert proxy.connections <= 33


def _loops() -> int:
    gc.collect()
    return sum(issubclass(type(each), asyncio.BaseEventLoop) for each in gc.get_objects())


@pytest.mark.slow
def test_loops_of_many_threads_work_at_the_same_time(site: Site, recwarn: pytest.WarningsRecorder) -> None:
    """Loops that begin and end in several threads count together, share few workers and leave no warning."""
    cache = site.cache(max_connections=4)
    cache.set("n", 0)
    before = set(threading.enumerate())

    async def count() -> None:
        await asyncio.gather(*(cache.aincr("n") for _ in range(20)))

    in_threads(4, lambda _: [asyncio.run(count()) for _ in range(5)])
    gc.collect()
    assert cache.get("n") == 400
    assert [str(warning.message) for warning in recwarn] == []
    workers = {thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("storeroom")}
    assert bool(workers) is not site.is_asynchronous
    assert len(workers) <= site.workers


@pytest.mark.slow
@WITH_ONE_DATABASE
def test_threads_for_asynchronous_callers_are_few(site: Site, proxy: Proxy) -> None:
    """However many tasks wait, few threads serve them, and asyncio's own threads, which others need, serve none."""
    cache = site.cache(port=proxy.port)
    cache.set("k", "v")
    proxy.delay = 0.001
    before, most = set(threading.enumerate()), 0  # other tests leave workers that wait for more to do

    async def work() -> None:
        nonlocal most
        reads = [asyncio.create_task(cache.aget("k")) for _ in range(300)]
        while not all(read.done() for read in reads):
            names = [thread.name for thread in threading.enumerate() if thread not in before]
            most = max(most, sum(name.startswith("storeroom") for name in names))
            assert not [name for name in names if name.startswith("asyncio_")]
            await asyncio.sleep(0.002)
        assert {read.result() for read in reads} == {"v"}

    asyncio.run(work())
    assert most <= (0 if site.is_asynchronous else 32)
