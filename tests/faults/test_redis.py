"""The Redis cache when servers die, hang, come back, and answer nonsense."""

import asyncio
import contextvars
import gc
import logging
import random
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.redis import RedisCache
from storeroom.backends.redis.requests import Use, one
from storeroom.exceptions import StorageError
from storeroom.storage.outages import CircuitBreaker
from tests.servers.proxy import Proxy
from tests.servers.redis import Databases, RedisServer, redis_databases, redis_server
from tests.servers.redis_groups import (
    ReplicaPair,
    Sentinels,
    cluster,
    eventually,
    is_following,
    replica_pair,
    sentinels,
)

__all__ = ["redis_databases", "redis_server"]

#: Seconds: what a test waits for a server that does not answer.
SHORT = 0.3

#: Seconds: where the server does answer, so that a turn of a busy machine is no outage.
PATIENT = 20.0

HASTY = {"socket_timeout": SHORT, "socket_connect_timeout": SHORT}


def make(location: Any, **options: Any) -> RedisCache:
    settings = {"socket_timeout": PATIENT, "socket_connect_timeout": PATIENT, **options}
    return RedisCache(location, {"TIMEOUT": None, "OPTIONS": settings})


def url(port: int, name: str = "test") -> str:
    return f"redis://127.0.0.1:{port}/0?client_name={name}"


def raw(cache: RedisCache, *command: Any) -> Any:
    """Send a command that no cache sends; return its reply."""
    return cache._engine.call(one(Use.ONCE, *command))[0]


@pytest.fixture
def cache(redis_server: RedisServer) -> RedisCache:
    return make(url(redis_server.port))


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    with Proxy(redis_server.port) as proxy:
        yield proxy


# A server that is down ----------------------------------------------------------------------


@pytest.mark.slow
def test_outage_is_ten_thousand_misses_and_two_lines_in_the_log(
    cache: RedisCache, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing raises, most answers take microseconds, and soon after the server is back it is used."""
    cache.set("k", "v")
    redis_server.process.kill()
    seconds = []
    with caplog.at_level(logging.WARNING, "storeroom"):
        while not cache._engine.breaker.is_open:
            assert cache.get("k") is None
        for _ in range(10_000):
            begun = time.perf_counter()
            assert cache.get("k", "default") == "default"
            seconds.append(time.perf_counter() - begun)
        assert statistics.quantiles(seconds, n=100)[98] <= 0.002
        assert cache.stats().errors >= 10_000
        redis_server.start()
        begun = time.monotonic()
        while not cache.add("back", 1):
            assert time.monotonic() - begun < 2
            time.sleep(0.005)
    assert cache.get("back") == 1
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2, lines
    assert "is down" in lines[0]
    assert "answers again" in lines[1]


def test_answers_during_an_outage_pretend_nothing(cache: RedisCache, redis_server: RedisServer) -> None:
    """What was not stored is not said to be, and a counter that does not count raises."""
    redis_server.process.kill()
    assert cache.set("k", "v") is None
    assert cache.add("k", "v") is False
    assert cache.set_many({"a": 1, "b": 2}) == ["a", "b"]
    assert cache.get_many(["a", "b"]) == {}
    assert cache.touch("k") is False
    assert cache.delete("k") is False
    assert cache.has_key("k") is False
    assert cache.get_or_set("k", lambda: "computed") == "computed"
    for operation in (cache.clear, cache.keys, lambda: cache.incr("n"), lambda: cache.incr_version("k")):
        with pytest.raises(StorageError, match=r"redis://127\.0\.0\.1"):
            operation()


def test_policy_raise_raises(redis_server: RedisServer) -> None:
    cache = make(url(redis_server.port), on_error="raise")
    redis_server.process.kill()
    with pytest.raises(StorageError, match="out of reach"):
        cache.get("k")
    with pytest.raises(StorageError, match="out of reach"):
        asyncio.run(cache.aget("k"))


def test_restart_between_two_operations_is_not_noticed(cache: RedisCache, redis_server: RedisServer) -> None:
    """Neither by one that may be repeated, nor by one that may not: the dead connection is found out before."""
    for operation in (lambda: cache.set("k", 1), lambda: cache.add("l", 1), lambda: cache.get("k")):
        cache.get("k")
        redis_server.process.stop()
        redis_server.process.start()
        operation()
    assert cache._engine.breaker.failures == 0
    assert cache.stats().errors == 0


def test_restart_between_two_operations_of_a_task_is_not_noticed(cache: RedisCache, redis_server: RedisServer) -> None:
    async def work() -> None:
        for operation in (lambda: cache.aset("k", 1), lambda: cache.aadd("l", 1), lambda: cache.aget("k")):
            await cache.aget("k")
            await asyncio.to_thread(redis_server.process.stop)
            await asyncio.to_thread(redis_server.process.start)
            await operation()

    asyncio.run(work())
    assert cache._engine.breaker.failures == 0


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_hanging_server_is_a_miss_after_the_timeout(redis_server: RedisServer, mode: str) -> None:
    """And no more than a few callers wait for it."""
    cache = make(url(redis_server.port), **HASTY)

    async def get_many_times() -> float:
        for _ in range(20):
            assert await cache.aget("k") is None if mode == "async" else cache.get("k") is None
        return 0

    cache.set("k", "v")
    redis_server.process.pause()
    try:
        begun = time.monotonic()
        asyncio.run(get_many_times())
        assert time.monotonic() - begun < 5 * SHORT + 0.5
        assert cache._engine.breaker.is_open
    finally:
        redis_server.process.resume()
    eventually(lambda: cache.get("k") == "v", "the server goes on, and is not used")


def test_hanging_server_counts_once(redis_server: RedisServer) -> None:
    """An increment that was not answered is not sent again, as it may have been carried out."""
    cache = make(url(redis_server.port), **HASTY)
    cache.set("n", 0)
    redis_server.process.pause()
    try:
        with pytest.raises(StorageError):
            cache.incr("n")
    finally:
        redis_server.process.resume()
    eventually(lambda: cache.get("n") in {0, 1}, "the counter is gone")
    assert cache.get("n") <= 1


# A network that fails -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_cut_connection_is_a_miss_at_most(proxy: Proxy, mode: str) -> None:
    """Whatever the moment, nothing raises, and no reply goes to another's request."""
    cache = make(url(proxy.port, mode))
    cache._engine.breaker = CircuitBreaker("the proxy", failures=1_000_000)  # which would keep the readers away
    expected = {f"k{number}": number for number in range(50)}
    cache.set_many(expected)
    done = threading.Event()

    def cut() -> None:
        while not done.wait(0.003):
            proxy.cut()

    async def read() -> int:
        hits = 0
        for turn in range(300):
            key = f"k{turn % 50}"
            value = await cache.aget(key) if mode == "async" else cache.get(key)
            assert value in {None, expected[key]}
            hits += value is not None
        return hits

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        hits = asyncio.run(read())
    finally:
        done.set()
        cutter.join()
    assert hits > 0
    eventually(lambda: cache.get_many(expected) == expected, "the cache does not recover")


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("limit", [0, 1, 7, 40, 1000])
def test_truncated_reply_is_a_miss(proxy: Proxy, mode: str, limit: int) -> None:
    writer = make(url(proxy.port, f"writer-{mode}-{limit}"))
    writer.set("k", "v" * 5000)
    reader = make(url(proxy.port, f"reader-{mode}-{limit}"))
    proxy.truncate_after = limit
    assert (asyncio.run(reader.aget("k")) if mode == "async" else reader.get("k")) is None
    proxy.truncate_after = None
    eventually(lambda: reader.get("k") == "v" * 5000, "the cache does not recover")


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_late_reply_is_nobody_elses(proxy: Proxy, mode: str) -> None:
    """After a timeout the connection is given up: the reply that comes late is never read."""
    cache = make(url(proxy.port, mode), **HASTY)
    cache.set_many({"a": "of a", "b": "of b"})

    async def ask(key: str) -> Any:
        return await cache.aget(key) if mode == "async" else cache.get(key)

    async def work() -> None:
        proxy.delay = 2 * SHORT
        assert await ask("a") is None
        proxy.delay = 0.0
        assert await ask("b") == "of b"
        assert await ask("a") == "of a"

    asyncio.run(work())


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_what_is_large_takes_its_time_on_a_slow_line(proxy: Proxy, mode: str) -> None:
    """As long as something moves: that is no silence, and no outage."""
    cache = make(url(proxy.port, mode), **HASTY)
    values = {f"k{number}": "v" * 100_000 for number in range(50)}
    cache.set("k0", 1)
    proxy.request_delay = proxy.delay = 0.01
    begun = time.monotonic()
    failed = asyncio.run(cache.aset_many(values)) if mode == "async" else cache.set_many(values)
    sent_after = time.monotonic() - begun
    found = asyncio.run(cache.aget_many(values)) if mode == "async" else cache.get_many(values)
    assert (failed, found) == ([], values)
    assert sent_after > 2 * SHORT < time.monotonic() - begun - sent_after, "the line is not slow"
    assert cache._engine.breaker.failures == 0


def test_connections_are_bounded(redis_server: RedisServer) -> None:
    """Threads wait for one another, rather than open more."""
    cache = make(url(redis_server.port, "bounded"), max_connections=3)
    cache.set("n", 0)
    threads = [threading.Thread(target=lambda: [cache.incr("n") for _ in range(50)]) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.get("n") == 600
    assert redis_server.ask("CLIENT", "LIST").count("name=bounded") <= 3


# Tasks and loops ----------------------------------------------------------------------------


def test_cancelled_task_leaves_the_connection_in_order(redis_server: RedisServer) -> None:
    """Its reply is passed over; the others get theirs."""
    cache = make(url(redis_server.port, "cancelled"))
    cache.set_many({f"k{number}": number for number in range(100)})

    async def work() -> None:
        await cache.aget("k0")
        chance = random.Random(1)
        for _ in range(50):
            tasks = {key: asyncio.create_task(cache.aget(f"k{key}")) for key in range(100)}
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            cancelled = chance.sample(range(100), 50)
            for key in cancelled:
                tasks[key].cancel()
            results = await asyncio.gather(*tasks.values(), return_exceptions=True)
            for key, result in enumerate(results):
                assert result == key or (key in cancelled and isinstance(result, asyncio.CancelledError))
        assert redis_server.ask("CLIENT", "LIST").count("name=cancelled") <= 2

    asyncio.run(work())


def test_many_loops_leave_nothing_behind(redis_server: RedisServer, recwarn: pytest.WarningsRecorder) -> None:
    """Each asyncio.run() has a connection of its own, which is closed with it, without a warning."""
    cache = make(url(redis_server.port, "loops"))

    async def work() -> Any:
        await cache.aset("k", "v")
        return await cache.aget("k")

    for _ in range(20):
        assert asyncio.run(work()) == "v"
    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []
    assert len(cache._engine._streams) <= 1
    eventually(lambda: "name=loops" not in redis_server.ask("CLIENT", "LIST"), "connections stay open")


def test_loops_of_several_threads_work_at_the_same_time(redis_server: RedisServer) -> None:
    cache = make(url(redis_server.port, "threads"))
    cache.set("n", 0)

    async def count() -> None:
        await asyncio.gather(*(cache.aincr("n") for _ in range(100)))

    threads = [threading.Thread(target=lambda: asyncio.run(count())) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.get("n") == 500


def test_two_thousand_tasks_share_one_connection(redis_server: RedisServer) -> None:
    cache = make(url(redis_server.port, "tasks"), socket_timeout=10.0)
    cache.set("k", "v")

    async def work() -> int:
        values = await asyncio.gather(*(cache.aget("k") for _ in range(2000)))
        assert values == ["v"] * 2000
        return int(redis_server.ask("CLIENT", "LIST").count("name=tasks"))

    assert asyncio.run(work()) <= 2  # one of them is the writer's above


# What others have written -------------------------------------------------------------------


def test_key_of_another_type_is_a_miss(redis_databases: Databases) -> None:
    """A list under a cache's key is nobody's entry; it can be overwritten and removed."""
    cache = make(redis_databases.url())
    for key in ("a", "b", "c"):
        raw(cache, "RPUSH", cache.make_key(key), "x")
    assert cache.get("a") is None
    assert cache.get_many(["a", "b"]) == {}
    assert cache.stats().errors >= 1
    with pytest.raises(ValueError, match="not found"):
        cache.incr("a")
    cache.set("a", 1)
    assert cache.get("a") == 1
    assert cache.delete("b") is True
    assert cache.get_or_set("c", lambda: 2, timeout=5) == 2


# Several servers ----------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[ReplicaPair]:
    with replica_pair(tmp_path) as pair:
        yield pair


def test_replica_is_read_from_but_not_by_who_has_written(pair: ReplicaPair) -> None:
    """Its answers are told from the first server's by what only it holds."""
    pair.replica.ask("CONFIG", "SET", "replica-read-only", "no")
    location = pair.url()
    db = int(location.rpartition("=")[2])
    writer, reader = make(location, read_own_writes=60), make(location, read_own_writes=0)
    writer.set("k", "first")
    eventually(lambda: _on_replica(pair, db, "GET", ":1:k") is not None, "nothing is replicated")
    _on_replica(pair, db, "SET", ":1:k", "7")
    assert writer.get("k") == "first"
    assert reader.get("k") == 7
    elsewhere: list[Any] = []
    thread = threading.Thread(target=lambda: elsewhere.append(writer.get("k")))
    thread.start()
    thread.join()
    assert elsewhere == [7], "another thread has written nothing"

    async def in_tasks() -> tuple[Any, Any]:
        async def write_and_read() -> Any:
            await reader.aset("l", "first")
            return await writer.aget("k")

        async def write_here_and_read() -> Any:
            await writer.aset("m", "first")
            return await writer.aget("k")

        context = contextvars.Context()
        return (
            await asyncio.create_task(write_and_read(), context=context.copy()),
            await asyncio.create_task(write_here_and_read(), context=context.copy()),
        )

    assert asyncio.run(in_tasks()) == (7, "first")


def _on_replica(pair: ReplicaPair, db: int, *command: str) -> Any:
    return raw(make(f"unix://{pair.replica.socket}?db={db}"), *command)


def test_replica_that_dies_is_left_alone(pair: ReplicaPair) -> None:
    """The first server answers for it, and nothing counts as an outage."""
    cache = make(pair.url())
    pair.replica.process.kill()
    cache.set("k", "v")
    for _ in range(10):
        assert cache.get("k") == "v"
    other = threading.Thread(target=lambda: found.append(cache.get("k")))
    found: list[Any] = []
    other.start()
    other.join()
    assert found == ["v"]
    assert cache._engine.breaker.failures == 0


@pytest.mark.slow
def test_sentinel_failover_is_survived(tmp_path: Path) -> None:
    """Writes and reads go on at the new primary, by both APIs; the old one, when it is back, is not asked."""
    with sentinels(tmp_path) as group:
        location = group.url()
        caches = {mode: make(location, client_name=mode) for mode in ("sync", "async")}
        asyncio.run(_fail_over(caches, group))


async def _fail_over(caches: dict[str, RedisCache], group: Sentinels) -> None:
    old = group.primary()
    for mode, cache in caches.items():
        assert await _add(cache, mode, f"before, {mode}")
    await asyncio.to_thread(old.process.kill)
    deadline = time.monotonic() + 30
    waiting, turn = dict(caches), 0
    while waiting:
        turn += 1
        assert time.monotonic() < deadline, "no write succeeds after the failover"
        await asyncio.sleep(0.05)
        for mode, cache in tuple(waiting.items()):
            if await _add(cache, mode, f"after {turn}, {mode}"):
                assert await cache.aget(f"after {turn}, {mode}") == cache.get(f"after {turn}, {mode}") == 1
                del waiting[mode]
    new = group.primary()
    assert new is not old
    await asyncio.to_thread(old.process.start)  # which takes itself for a primary
    await _work_on(caches, "old one back")
    old.ask("REPLICAOF", "127.0.0.1", new.port)  # as Sentinel tells it after some ten seconds
    await asyncio.to_thread(eventually, lambda: is_following(old), "the old primary does not follow")
    await _work_on(caches, "old one a replica")


async def _work_on(caches: dict[str, RedisCache], when: str) -> None:
    for mode, cache in caches.items():
        for number in range(20):
            key = f"{when}, {mode} {number}"
            assert await _add(cache, mode, key)
            assert cache.get(key) == await cache.aget(key) == 1


async def _add(cache: RedisCache, mode: str, key: str) -> bool:
    return await cache.aadd(key, 1) if mode == "async" else cache.add(key, 1)


@pytest.mark.slow
def test_cluster_failover_is_survived(tmp_path: Path) -> None:
    """A primary dies; its replica takes its slots over, and the cache finds it, by both APIs."""
    with cluster(tmp_path) as group:
        location = group.url()
        caches = {mode: make(f"{location}{mode}") for mode in ("sync", "async")}
        values = {mode: {f"{mode} {number}": number for number in range(300)} for mode in caches}
        for mode, cache in caches.items():
            assert cache.set_many(values[mode]) == []
        group.servers[0].process.kill()

        async def all_are_set(mode: str) -> bool:
            cache, own = caches[mode], values[mode]
            failed = await cache.aset_many(own) if mode == "async" else cache.set_many(own)
            found = await cache.aget_many(own) if mode == "async" else cache.get_many(own)
            return not failed and found == own

        async def work() -> None:
            deadline = time.monotonic() + 40
            waiting = set(caches)
            while waiting:
                assert time.monotonic() < deadline, "the cluster does not recover"
                await asyncio.sleep(0.05)
                waiting -= {mode for mode in waiting if await all_are_set(mode)}

        asyncio.run(work())
        caches["sync"].clear()
        assert caches["async"].get_many(values["sync"]) == {}


@pytest.mark.slow
def test_cluster_slot_that_moves_is_followed(tmp_path: Path) -> None:
    """MOVED and ASK lead to the right server; no key is lost to the caller."""
    with cluster(tmp_path) as group:
        cache = make(group.url(), on_error="raise")
        cache.set("k", "v")
        key = cache.make_key("k")
        slot = group.servers[0].ask("CLUSTER", "KEYSLOT", key)
        source = next(server for server in group.servers[:3] if _owns(server, slot))
        target = next(server for server in group.servers[:3] if server is not source)
        names = {server: server.ask("CLUSTER", "MYID") for server in (source, target)}
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
        assert cache.get("k") == "v"
        source.ask("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        assert cache.get("k") == "v"  # by ASK
        cache.set("k", "w")
        assert asyncio.run(cache.aget("k")) == "w"
        for server in (target, source):
            server.ask("CLUSTER", "SETSLOT", slot, "NODE", names[target])
        assert cache.get("k") == "w"  # by MOVED
        assert cache.incr_version("k") == 2
        assert cache.get("k", version=2) == "w"


def _owns(server: RedisServer, slot: int) -> bool:
    name = server.ask("CLUSTER", "MYID")
    return any(begin <= slot <= end and owner[2] == name for begin, end, owner, *_ in server.ask("CLUSTER", "SLOTS"))
