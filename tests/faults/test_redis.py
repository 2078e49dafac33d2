"""The Redis cache of tasks and slow lines, keys of other types, replicas, Sentinels and clusters that fail over."""

import asyncio
import contextvars
import gc
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.redis import RedisCache
from storeroom.backends.redis.requests import Use, one
from storeroom.testing.concurrency import in_threads
from tests.faults.kinds import HASTY, PATIENT, SHORT, Site
from tests.servers.proxy import Proxy
from tests.servers.redis import RedisServer
from tests.servers.redis_groups import (
    Cluster,
    ReplicaPair,
    Sentinels,
    cluster,
    eventually,
    is_following,
    replica_pair,
    sentinels,
)


@pytest.fixture(scope="module")
def kind() -> str:
    """Redis alone."""
    return "redis"


def make(location: Any, **options: Any) -> RedisCache:
    settings = {"socket_timeout": PATIENT, "socket_connect_timeout": PATIENT, **options}
    return RedisCache(location, {"TIMEOUT": None, "OPTIONS": settings})


def raw(cache: RedisCache, *command: Any) -> Any:
    """Send a command that no cache sends; return its reply."""
    return cache.engine.call(one(Use.ONCE, *command))[0]


# Tasks and loops ----------------------------------------------------------------------------


@pytest.mark.slow
def test_restart_between_two_operations_of_a_task_is_not_noticed(site: Site) -> None:
    """A connection of an event loop that the server has closed is found out before it is used."""
    cache = site.cache()
    operations: list[Callable[[], Coroutine[Any, Any, Any]]] = [
        lambda: cache.aset("k", 1),
        lambda: cache.aadd("l", 1),
        lambda: cache.aget("k"),
    ]

    async def work() -> None:
        for operation in operations:
            await cache.aget("k")
            await asyncio.to_thread(site.restart)
            await operation()

    asyncio.run(work())
    assert site.failures(cache) == 0


def test_many_loops_leave_nothing_behind(site: Site, proxy: Proxy, recwarn: pytest.WarningsRecorder) -> None:
    """Each asyncio.run() has a connection of its own, which is closed with it, without a warning."""
    cache = site.cache(port=proxy.port)

    async def work() -> Any:
        await cache.aset("k", "v")
        return await cache.aget("k")

    for _ in range(20):
        assert asyncio.run(work()) == "v"
    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []
    assert len(cache.engine._streams) <= 1
    eventually(lambda: proxy.connections == 0, "connections stay open")


def test_two_thousand_tasks_share_one_connection(site: Site, proxy: Proxy) -> None:
    """Tasks of one event loop do not wait for a connection of their own: their requests follow each other on one."""
    site.cache().set("k", "v")
    cache = site.cache(port=proxy.port)

    async def work() -> int:
        assert await asyncio.gather(*(cache.aget("k") for _ in range(2000))) == ["v"] * 2000
        return proxy.connections

    assert asyncio.run(work()) == 1


@pytest.mark.slow
def test_large_values_take_their_time_on_a_slow_line(site: Site, proxy: Proxy, mode: str) -> None:
    """As long as something moves on a slow line there is no silence, and no outage."""
    patience = 5 * SHORT
    cache = site.cache(port=proxy.port, **dict.fromkeys(HASTY, patience))
    values = {f"k{number}": "v" * 100_000 for number in range(35)}
    cache.set("k0", 1)
    proxy.request_delay = proxy.delay = 0.03
    begun = time.monotonic()
    failed = asyncio.run(cache.aset_many(values)) if mode == "async" else cache.set_many(values)
    sent_after = time.monotonic() - begun
    found = asyncio.run(cache.aget_many(values)) if mode == "async" else cache.get_many(values)
    assert (failed, found) == ([], values)
    assert sent_after > 1.2 * patience < time.monotonic() - begun - sent_after, "the line is not slow"
    assert site.failures(cache) == 0


# Keys of others -----------------------------------------------------------------------------


def test_key_of_another_type_is_a_miss(site: Site) -> None:
    """A list under a cache's key is nobody's entry; it can be overwritten and removed."""
    cache = site.cache()
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


def test_replica_is_read_from_but_not_by_writers(pair: ReplicaPair) -> None:
    """Reads go to the replica, told by a value that it alone holds, but for threads and tasks that have written."""
    pair.replica.ask("CONFIG", "SET", "replica-read-only", "no")
    location = pair.url()
    db = int(location.rpartition("=")[2])
    writer, reader = make(location, read_own_writes=60), make(location, read_own_writes=0)
    writer.set("k", "first")
    eventually(lambda: _on_replica(pair, db, "GET", ":1:k") is not None, "nothing is replicated")
    _on_replica(pair, db, "SET", ":1:k", "7")
    assert writer.get("k") == "first"
    assert reader.get("k") == 7
    assert in_threads(1, lambda _: writer.get("k")) == [7], "another thread has written nothing"

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
    """The first server answers for a replica that has died, and nothing counts as an outage."""
    cache = make(pair.url())
    pair.replica.process.kill()
    cache.set("k", "v")
    for _ in range(10):
        assert cache.get("k") == "v"
    assert in_threads(1, lambda _: cache.get("k")) == ["v"]
    assert cache.engine.breaker.failures == 0


@pytest.mark.slow
def test_sentinel_failover_is_survived(tmp_path: Path) -> None:
    """Writes and reads go on at the new primary, by both APIs, and the old one is not asked when it is back."""
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
    await asyncio.to_thread(eventually, lambda: group.primary() is not old, "the Sentinels do not agree")
    new = group.primary()
    await asyncio.to_thread(old.process.start)  # taking itself for a primary
    await _work_on(caches, "old one back")
    old.ask("REPLICAOF", "127.0.0.1", new.port)  # as Sentinel orders after some ten seconds
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


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of these tests, the last of which leaves it without one of its servers."""
    with cluster(tmp_path_factory.mktemp("cluster")) as group:
        yield group


@pytest.mark.slow
def test_cluster_slot_that_moves_is_followed(group: Cluster) -> None:
    """MOVED and ASK lead to the right server, and no key is lost to the caller."""
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


@pytest.mark.slow
def test_operations_on_all_servers_of_a_cluster_do_not_wait_for_each_other(group: Cluster) -> None:
    """Threads that need the connections of several servers take them in the same order, whatever their keys are."""
    cache = make(group.url(), max_connections=1, pool_timeout=PATIENT, socket_timeout=0.5)
    cache.set("k", "v")
    keys = [f"k{number}" for number in range(12)]

    def store(number: int) -> None:
        mine = keys[number:] + keys[:number]
        for turn in range(20):
            cache.set_many({f"{key} {number}": turn for key in mine})

    in_threads(8, store)
    assert len(cache.get_many([f"{key} {number}" for key in keys for number in range(8)])) == 12 * 8
    assert (cache.engine.breaker.failures, cache.stats().busy) == (0, 0)


def _owns(server: RedisServer, slot: int) -> bool:
    name = server.ask("CLUSTER", "MYID")
    return any(begin <= slot <= end and owner[2] == name for begin, end, owner, *_ in server.ask("CLUSTER", "SLOTS"))


@pytest.mark.slow
def test_cluster_failover_is_survived(group: Cluster) -> None:
    """When a primary dies its replica takes its slots over, and the cache finds it, by both APIs."""
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
