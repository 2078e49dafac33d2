"""Asynchronous callers while servers hang, connections are slow and tasks are cancelled: no loop waits or leaks."""

import asyncio
import gc
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from storeroom import engines
from storeroom.backends.memcached import MemcachedCache, PyLibMCCache, PyMemcacheCache
from storeroom.backends.redis import RedisCache
from storeroom.testing.concurrency import eventually, in_background
from storeroom.testing.isolation import engines_of_its_own
from tests.handles import put_in_a_process_of_its_own
from tests.servers.memcached import needs_pylibmc
from tests.servers.memcached import running as running_memcached
from tests.servers.proxy import Proxy
from tests.servers.redis import RedisServer, redis_binary
from tests.servers.redis import running as running_redis

#: Seconds that a silent server is waited for.
SHORT = 0.4

#: Seconds that an event loop may be late beside what the machine makes everyone wait. Far less than SHORT.
LATE = 0.2

BACKENDS = {"redis": RedisCache, "pymemcache": PyMemcacheCache, "pylibmc": PyLibMCCache}


class Site:
    """A server behind a proxy, and caches that reach it either way."""

    def __init__(self, driver: str, server: Any, proxy: Proxy) -> None:
        self.driver, self.server, self.proxy = driver, server, proxy

    def cache(self, port: int | None = None, **options: Any) -> Any:
        address = f"127.0.0.1:{port or self.server.port}"
        location = f"redis://{address}/0?client_name=site" if self.driver == "redis" else address
        settings = {"socket_timeout": SHORT, "socket_connect_timeout": SHORT, **options}
        return BACKENDS[self.driver](location, {"TIMEOUT": None, "OPTIONS": settings})


@pytest.fixture(params=["redis", "pymemcache", pytest.param("pylibmc", marks=needs_pylibmc)])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with engines_of_its_own():
        if request.param == "redis":
            for server in running_redis(RedisServer(redis_binary(), tmp_path)):
                with Proxy(server.port) as proxy:
                    yield Site(request.param, server, proxy)
        else:
            with running_memcached(tmp_path, by_port=True) as servers, Proxy(servers.servers[0].port) as proxy:
                yield Site(request.param, servers.servers[0], proxy)


def failures(cache: Any) -> int:
    engines = cache._group.servers if isinstance(cache, MemcachedCache) else [cache._engine]
    return sum(engine.breaker.failures for engine in engines)


@asynccontextmanager
async def lateness() -> AsyncIterator[Callable[[], float]]:
    """Tell by how many seconds at most the loop was late, within the block, beyond what the machine made everyone wait.

    For that a thread of its own does what the loop does: it waits for processor and interpreter, and for nothing else.
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
@pytest.mark.parametrize("first", ["connected", "not yet connected"])
def test_no_operation_makes_a_loop_wait_for_a_server_that_hangs(site: Site, first: str) -> None:
    """All of them at once, again and again, from the first that notices to those that are answered at once."""
    cache = site.cache()
    if first == "connected":
        cache.set("k", "v")

    async def work() -> float:
        if first == "connected":
            await cache.aget("k")
        await asyncio.to_thread(site.server.process.pause)
        try:
            async with lateness() as late:
                for _ in range(3):
                    asked = [operation(cache, f"k{number}") for operation in OPERATIONS.values() for number in range(5)]
                    results = await asyncio.gather(*asked, return_exceptions=True)
                    assert not [result for result in results if isinstance(result, TimeoutError)]
                return late()
        finally:
            site.server.process.resume()

    begun = time.monotonic()
    assert asyncio.run(work()) < LATE
    assert time.monotonic() - begun < 20 * SHORT


@pytest.mark.slow
def test_no_loop_waits_for_a_connection_that_is_not_accepted(site: Site) -> None:
    """A backlog that is full lets a connection hang before it is made."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = []
        for _ in range(4):
            connection = socket.socket()
            connection.setblocking(False)
            connection.connect_ex(("127.0.0.1", port))
            waiting.append(connection)
        cache = site.cache(port)

        async def work() -> float:
            async with lateness() as late:
                assert await asyncio.gather(*(cache.aget(f"k{number}") for number in range(20))) == [None] * 20
                return late()

        try:
            assert asyncio.run(work()) < LATE
            assert failures(cache) > 0
        finally:
            for connection in waiting:
                connection.close()


async def sleep_in_parts(seconds: float) -> None:
    """Sleep for so long, but for longer where the machine stands still meanwhile: that is over in one part."""
    for _ in range(10):
        await asyncio.sleep(seconds / 10)


@pytest.mark.slow
def test_caller_of_its_own_patience_goes_when_it_is_over(site: Site) -> None:
    """wait_for() ends on time, whatever the server does; afterwards all is as before."""
    cache = site.cache(socket_timeout=5)
    cache.set("k", "v")

    async def work() -> None:
        assert await cache.aget("k") == "v"
        await asyncio.to_thread(site.server.process.pause)
        try:
            too_late = asyncio.create_task(sleep_in_parts(0.05 + LATE))
            asked = (asyncio.wait_for(cache.aget("k"), 0.05) for _ in range(50))
            results = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(result) for result in results} == {TimeoutError}
            assert not too_late.done()
        finally:
            site.server.process.resume()
        assert await cache.aget("k") == "v"
        assert failures(cache) == 0

    asyncio.run(work())


@pytest.mark.slow
def test_what_is_under_way_when_the_engine_is_closed_is_closed_when_it_is_over(site: Site) -> None:
    """And not before; whoever comes next opens another connection."""
    cache = site.cache(site.proxy.port, socket_timeout=20)
    cache.set("k", "v")
    assert site.proxy.connections == 1
    site.proxy.delay = 1.0
    asked = in_background(cache.get, "k")
    eventually(lambda: site.proxy.is_holding)
    engines.close_all()
    site.proxy.delay = 0.0
    assert site.proxy.connections == 1
    assert asked.result(20) == "v"
    eventually(lambda: not site.proxy.connections)
    assert [cache.get("k"), cache.get("k")] == ["v", "v"]
    assert site.proxy.connections == 1
    assert failures(cache) == 0


# Cancellation ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_cancelled_operation_leaves_nobody_anothers_reply(site: Site, seed: int) -> None:
    """At any moment of a slow connection: while it is opened, on the way there and back, and in a queue."""
    print(f"seed {seed}")  # noqa: T201 -- shown where the test fails
    chance = random.Random(seed)
    cache = site.cache(site.proxy.port, socket_timeout=20, socket_connect_timeout=20, max_connections=4)
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
        for _ in range(12):
            site.proxy.delay = chance.choice([0.0, 0.002, 0.01])
            tasks = [asyncio.create_task(read(key)) for key in chance.sample(list(values), 20)]
            tasks += [asyncio.create_task(read_many(chance.sample(list(values), 10))) for _ in range(5)]
            tasks += [asyncio.create_task(count()) for _ in range(10)]
            chance.shuffle(tasks)
            for task in tasks[::2]:
                await asyncio.sleep(chance.choice([0, 0, 0.0005, 0.003]))
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert result is None or isinstance(result, asyncio.CancelledError), result
        site.proxy.delay = 0.0
        assert await cache.aget_many(values) == values
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(work())
    assert done <= site.cache().get("n") <= perhaps
    assert failures(cache) == 0
    assert site.proxy.connections <= (1 if site.driver == "redis" else 4)


@pytest.mark.slow
def test_cancelled_leader_lets_another_compute(site: Site) -> None:
    """At once: its lease is given back, also of a caller in another process."""
    cache, other = site.cache(socket_timeout=20), site.cache(socket_timeout=20)
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


def test_loop_that_ends_while_the_server_hangs_leaves_nothing_behind(
    site: Site, recwarn: pytest.WarningsRecorder
) -> None:
    """asyncio.run() cancels what is under way: no task, no connection and no warning remain."""
    cache = site.cache(site.proxy.port)
    cache.set("k", "v")

    async def work() -> None:
        await cache.aget("k")
        site.proxy.is_silent = True
        for operation in OPERATIONS.values():
            asyncio.create_task(_ignoring(operation(cache, "k")))  # noqa: RUF006 -- they are to be left alone
        await asyncio.sleep(0.01)

    asyncio.run(work())
    site.proxy.is_silent = False
    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []
    site.proxy.cut()
    other = site.cache()
    patience = time.monotonic() + 5  # what was sent before, aclear() among it, may yet arrive
    while True:
        asyncio.run(other.aset("k", "w"))
        if asyncio.run(other.aget("k")) == "w":
            break
        assert time.monotonic() < patience


async def _ignoring(operation: Any) -> None:
    await operation


@pytest.mark.slow
def test_many_loops_one_after_another_keep_nothing(site: Site) -> None:
    """Neither loops nor connections nor threads grow with the number of asyncio.run()."""
    cache = site.cache(site.proxy.port, socket_timeout=20)
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
    assert site.proxy.connections <= 33


def _loops() -> int:
    gc.collect()
    return sum(issubclass(type(each), asyncio.BaseEventLoop) for each in gc.get_objects())


@pytest.mark.slow
def test_threads_for_asynchronous_callers_are_few(site: Site) -> None:
    """However many tasks wait; and asyncio's own threads, which others need, are left alone."""
    cache = site.cache(site.proxy.port, socket_timeout=20)
    cache.set("k", "v")
    site.proxy.delay = 0.001
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
    assert most <= (0 if site.driver == "redis" else 32)
