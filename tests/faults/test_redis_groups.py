"""One server of several that is down, slow, new or behind: the others' keys are as good as ever."""

import asyncio
import contextvars
import itertools
import re
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import storeroom
from storeroom.backends.redis import RedisCache
from storeroom.exceptions import StorageError
from storeroom.testing.contract.suite import Driver
from tests.faults.kinds import HASTY, PATIENT
from tests.servers.redis_groups import (
    Cluster,
    Replicas,
    bare_cluster,
    cluster,
    cluster_node,
    eventually,
    is_following,
    replicas,
    start_all,
)

REDIS = "storeroom.backends.redis.RedisCache"
MODES = pytest.mark.parametrize("mode", ["sync", "async"])
KEYS = [f"k{number}" for number in range(100)]

_numbers = itertools.count()


@pytest.fixture(scope="module")
def kind() -> str:
    """Redis alone."""
    return "redis"


def made(location: str, mode: str, *, prefix: str = "", **options: Any) -> Any:
    """Return a cache that is asked in one of both ways, with breakers of its own."""
    patience = {"socket_timeout": PATIENT, "socket_connect_timeout": PATIENT}
    settings = {**patience, "client_name": f"{mode}{next(_numbers)}", **options}
    return Driver(RedisCache(location, {"TIMEOUT": None, "KEY_PREFIX": prefix, "OPTIONS": settings}), mode)


async def apart(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Carry work out in a context of its own, as another request that has written nothing."""
    return await asyncio.create_task(work(), context=contextvars.Context())


# A cluster with a dead server ---------------------------------------------------------------


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with bare_cluster(tmp_path_factory.mktemp("bare")) as group:
        yield group


@pytest.fixture
def revived(bare: Cluster) -> Iterator[Cluster]:
    """The cluster, whole again after the test."""
    yield bare
    for server in bare.servers:
        if not server.process.is_running:
            server.start()
    eventually(bare.is_whole, "the cluster does not come together again")


def url_of(group: Cluster) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in group.servers)


def split(group: Cluster, cache: Any) -> tuple[list[str], list[str]]:
    """Return the keys of the first server, and those of the others."""
    first = [key for key in KEYS if group.owner(cache.make_key(key)) is group.servers[0]]
    return first, [key for key in KEYS if key not in first]


@MODES
@pytest.mark.slow
def test_dead_server_of_a_cluster_takes_no_others_keys_along(revived: Cluster, mode: str) -> None:
    """From the first moment on the keys of the others are read and written as ever; the rest are misses."""
    driver = made(url_of(revived), mode, prefix=f"dead-{mode}")
    lost, kept = split(revived, driver.cache)

    async def work() -> None:
        assert await driver.set_many({key: key for key in KEYS}) == []
        revived.servers[0].process.kill()
        before = driver.cache.stats()
        assert await driver.get_many(KEYS) == {key: key for key in kept}
        after = driver.cache.stats()
        assert (after.hits - before.hits, after.misses - before.misses) == (len(kept), len(lost))
        assert after.errors > before.errors
        for turn in range(5):
            for key in KEYS:
                assert await driver.get(key) == (key if key in kept else None)
            assert await driver.get_many(KEYS) == {key: key for key in kept}
            assert sorted(await driver.set_many({key: key for key in KEYS})) == sorted(lost)
            assert await driver.get_many(KEYS) == {key: key for key in kept}
            await driver.set(kept[turn], turn)
            assert await driver.incr(kept[turn]) == turn + 1
            await driver.set(kept[turn], kept[turn])
        await driver.delete_many(KEYS[:50])
        assert await driver.get_many(KEYS) == {key: key for key in kept if key not in KEYS[:50]}

    asyncio.run(work())


@MODES
@pytest.mark.slow
def test_values_of_a_dead_servers_keys_alone_are_computed(revived: Cluster, mode: str) -> None:
    """get_or_set_many() computes the keys of the dead server each time, and stores those of the others."""
    driver = made(url_of(revived), mode, prefix=f"computed-{mode}")
    lost, kept = split(revived, driver.cache)
    asked: list[str] = []

    def compute(keys: Any) -> dict[str, str]:
        asked.extend(keys)
        return dict.fromkeys(keys, "computed")

    async def work() -> None:
        await driver.set_many(dict.fromkeys(KEYS[50:], "stored"))
        revived.servers[0].process.kill()
        for turn in range(4):
            asked.clear()
            found = await driver.get_or_set_many(KEYS, compute)
            assert sorted(asked) == sorted({*lost, *([] if turn else KEYS[:50])})
            assert found == {key: "stored" if key in kept and key in KEYS[50:] else "computed" for key in KEYS}
            for key in kept:
                assert await driver.get_or_set(key, lambda: "anew") == found[key]

    asyncio.run(work())


@MODES
@pytest.mark.slow
def test_operations_without_an_answer_raise_for_a_dead_servers_keys_alone(revived: Cluster, mode: str) -> None:
    """With "raise" the others' keys are read; a listing raises, and so does a clear() of the others alone."""
    driver = made(url_of(revived), mode, prefix=f"raise-{mode}", on_error="raise")
    lost, kept = split(revived, driver.cache)

    async def all_raise() -> None:
        for key in kept:
            assert await driver.get(key) == key
        calls = [lambda key=key: driver.get(key) for key in lost]
        for call in (*calls, lambda: driver.get_many(KEYS), driver.keys, driver.count, driver.clear):
            with pytest.raises(StorageError):
                await call()
        assert await driver.get_many(kept) == {}, "clear() has spared servers that are well"

    async def work() -> None:
        await driver.set_many({key: key for key in KEYS})
        revived.servers[0].process.kill()
        await all_raise()
        revived.servers[0].start()
        await until(lambda: stored(driver), "the server is not asked again")
        assert await driver.get_many(KEYS) == dict.fromkeys(KEYS, "new")
        assert await driver.count() == len(KEYS)

    asyncio.run(work())


async def stored(driver: Any) -> bool:
    try:
        return not await driver.set_many(dict.fromkeys(KEYS, "new"))
    except StorageError:
        return False


async def until(is_so: Callable[[], Coroutine[Any, Any, Any]], what: str) -> None:
    """Wait until something is so, the loop going on."""
    deadline = time.monotonic() + PATIENT
    while not await is_so():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


@MODES
@pytest.mark.slow
def test_fallback_is_asked_for_the_keys_of_a_dead_server_alone(revived: Cluster, mode: str) -> None:
    """The others' keys are answered by their servers."""
    options = {"on_error": "fallback:memory", "client_name": f"fallback-{mode}"}
    storeroom.configure(
        {
            "default": {"BACKEND": REDIS, "LOCATION": url_of(revived), "KEY_PREFIX": "fall", "OPTIONS": options},
            "memory": {"BACKEND": "storeroom.backends.locmem.LocMemCache", "LOCATION": mode, "KEY_PREFIX": "fall"},
        }
    )
    driver, memory = Driver(storeroom.caches["default"], mode), storeroom.caches["memory"]
    lost, kept = split(revived, driver.cache)

    async def work() -> None:
        await driver.set_many({key: key for key in KEYS})
        memory.set_many(dict.fromkeys(KEYS, "memory"))
        revived.servers[0].process.kill()
        expected = {key: key if key in kept else "memory" for key in KEYS}
        for _ in range(4):
            assert await driver.get_many(KEYS) == expected
            assert {key: await driver.get(key) for key in KEYS} == expected
        assert await driver.set_many(dict.fromkeys(KEYS, "new")) == []
        assert memory.get_many(KEYS) == {key: "new" if key in lost else "memory" for key in KEYS}

    asyncio.run(work())


@MODES
@pytest.mark.slow
def test_server_that_hangs_takes_no_others_keys_along(revived: Cluster, mode: str) -> None:
    """A server that is stopped is waited for a few times, by those who ask for its keys; the others answer."""
    driver = made(url_of(revived), mode, prefix=f"hung-{mode}", **HASTY)
    lost, kept = split(revived, driver.cache)

    async def work() -> None:
        await driver.set_many({key: key for key in KEYS})
        revived.servers[0].process.pause()
        try:
            for _ in range(5):
                assert await driver.get_many(KEYS) == {key: key for key in kept}
                for key in kept:
                    assert await driver.get(key) == key
            breaker = driver.cache.engine._health.breaker(driver.cache.engine.owner(driver.cache.make_key(lost[0])))
            assert breaker.is_open
        finally:
            revived.servers[0].process.resume()
        await until(lambda: stored(driver), "the server is not asked again")
        assert await driver.get_many(KEYS) == dict.fromkeys(KEYS, "new")

    asyncio.run(work())


@MODES
@pytest.mark.slow
def test_near_tier_of_the_other_servers_goes_on(revived: Cluster, mode: str) -> None:
    """While a server is dead, entries of the others are near for as long as nobody changes them, and no longer."""
    near = made(url_of(revived), mode, prefix=f"near-{mode}", near={"max_staleness": 0.3})
    other = made(url_of(revived), mode, prefix=f"near-{mode}")
    _, kept = split(revived, near.cache)
    table = near.cache._overlay.table

    async def stays_near() -> bool:
        await near.get_many(KEYS)
        begun, before = time.monotonic(), near.cache.stats().tiers["far"].hits
        while time.monotonic() < begun + 0.5:  # longer than entries are believed without a channel
            await near.get_many(kept)
            await asyncio.sleep(0.02)
        return table.is_tracked and near.cache.stats().tiers["far"].hits == before

    async def is_read(value: str) -> bool:
        return bool(await near.get(kept[0]) == value)

    async def work() -> None:
        await other.set_many({key: key for key in KEYS})
        await until(stays_near, "nothing is near")
        revived.servers[0].process.kill()
        await until(stays_near, "nothing is near while a server is dead")
        await other.set(kept[0], "changed")
        await until(lambda: is_read("changed"), "a change is not heard of")
        revived.servers[0].start()
        await until(all_set, "the server does not come back")
        await until(stays_near, "nothing is near after the outage")
        await until(all_heard, "one server is not heard of any more")

    async def all_heard() -> bool:
        return not near.cache.engine.tracker()._lost

    async def all_set() -> bool:
        failed = await other.set_many({key: key for key in KEYS})
        return not failed and len(await near.get_many(KEYS)) == len(KEYS)

    asyncio.run(work())


# A cluster that changes ---------------------------------------------------------------------


@pytest.mark.slow
def test_servers_that_join_or_are_promoted_are_listed_and_cleared(tmp_path: Path) -> None:
    """clear(), keys(), count() and delete_pattern() reach the servers that keep the keys now, and no others."""
    with cluster(tmp_path) as group, ExitStack() as stack:
        drivers = [made(url_of(group), mode, prefix=mode, on_error="raise") for mode in ("sync", "async")]
        values = {f"k{number}": number for number in range(300)}

        async def work() -> None:
            for driver in drivers:
                await driver.set_many(values)
                assert await driver.count() == 300
            newcomer = cluster_node(tmp_path / "new")
            start_all(stack, [newcomer])
            group.join(newcomer)
            group.move(group.servers[0], newcomer, range(600))
            assert newcomer.ask("DBSIZE") > 0
            for driver in drivers:
                await check(driver)
            old = group.fail_over(group.servers[4])
            old.process.kill()
            for driver in drivers:
                await check(driver)
            old.start()
            group.fail_over(old)  # which the caches have met dead, and not again since
            for driver in drivers:
                await check(driver)

        async def check(driver: Any) -> None:
            await driver.set_many(values)
            assert sorted(await driver.keys()) == sorted(values)
            assert await driver.count() == 300
            ones = sum(key.startswith("k1") for key in values)
            assert await driver.delete_pattern("k1*") == ones
            assert await driver.count() == 300 - ones
            await driver.clear()
            assert await driver.get_many(values) == {}

        asyncio.run(work())


@MODES
@pytest.mark.slow
def test_map_of_a_cluster_is_learnt_anew_by_itself(bare: Cluster, mode: str) -> None:
    """A map that is old is replaced once a minute, and soon after a reply has shown it to be old."""
    driver = made(url_of(bare), mode)
    topology = driver.cache.engine._topology
    wrong = bare.servers[0].port

    async def work() -> None:
        await driver.set("k", "v")
        right = list(topology._owners)
        others = [server for server in topology._parts if server.port == wrong]
        for is_due in (True, False):
            topology._owners[:] = others * 16_384
            topology._look_at = 0.0 if is_due else time.monotonic() + 60
            topology._looked_at = 0.0
            for key in KEYS:  # of which most are answered by MOVED where no look is due
                assert await driver.get(key) is None
            assert topology._owners == right

    asyncio.run(work())


# Replicas -----------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Replicas]:
    """A primary and two replicas."""
    with replicas(tmp_path, 2) as group:
        yield group


async def all_right(driver: Any, keys: list[str], turns: int = 4) -> None:
    """Read in contexts of their own: all at once, and one by one."""
    for _ in range(turns):
        assert await apart(lambda: driver.get_many(keys)) == {key: key for key in keys}
        for key in keys[:20]:
            assert await apart(lambda key=key: driver.get(key)) == key


@MODES
@pytest.mark.slow
def test_reads_go_on_while_any_server_of_several_lives(three: Replicas, mode: str) -> None:
    """One of two replicas hangs, then dies, then the primary: every read of what was written before is right."""
    driver = made(three.url(f"lives-{mode}"), mode, on_error="raise", **HASTY)

    async def work() -> None:
        await driver.set_many({key: key for key in KEYS})
        three.catch_up()
        await all_right(driver, KEYS)
        three.replicas[1].process.pause()
        await all_right(driver, KEYS)
        three.replicas[1].process.kill()
        await all_right(driver, KEYS)
        three.primary.process.kill()
        await all_right(driver, KEYS)
        for _ in range(5):
            with pytest.raises(StorageError, match="out of reach"):
                await apart(lambda: driver.set("other", 1))
            await all_right(driver, KEYS, turns=1)
        three.primary.start()
        await until(lambda: apart(lambda: stored(driver)), "the primary is not asked again")
        assert await apart(lambda: driver.add("another", 1)) is True

    asyncio.run(work())


def reads_of(server: Any) -> int:
    """Return the number of GETs that a server has carried out."""
    calls = re.findall(r"cmdstat_get:calls=(\d+)", server.ask("INFO", "commandstats"))
    return int(calls[0]) if calls else 0


@MODES
@pytest.mark.slow
def test_replica_that_is_behind_is_left_alone(three: Replicas, mode: str) -> None:
    """Nothing is read from a replica whose link is broken, once the bound of its lag is over; `check` tells of it."""
    location = three.url(f"behind-{mode}")
    driver = made(location, mode, on_error="raise", replica_max_lag=0.5, read_own_writes=0)

    async def seen() -> list[Any]:
        return [await apart(lambda key=key: driver.get(key)) for key in ("k", "deleted", "tagged")]

    async def work() -> None:
        await driver.set_many({"k": "old", "deleted": "old"})
        await driver.set("tagged", "old", tags=["t"])
        three.catch_up()
        assert [await seen() for _ in range(8)] == [["old"] * 3] * 8
        assert all(reads_of(replica) for replica in three.replicas), "replicas are not read from"
        for link in three.links:
            link.cut_off()
        await driver.set("k", "new")
        await driver.delete("deleted")
        await driver.invalidate_tags("t")
        await asyncio.sleep(0.6)
        before = [reads_of(replica) for replica in three.replicas]
        assert [await seen() for _ in range(8)] == [["new", None, None]] * 8
        assert [reads_of(replica) for replica in three.replicas] == before
        told = [server.failure for server in driver.cache.probe(PATIENT).servers]
        assert told[0] == ""
        assert all("its link to its primary is broken" in failure for failure in told[1:])
        for link in three.links:
            link.is_refusing = False
        for replica in three.replicas:
            await asyncio.to_thread(eventually, lambda replica=replica: is_following(replica), "no replica follows")
        deadline = time.monotonic() + PATIENT
        while [reads_of(replica) for replica in three.replicas] == before:
            assert time.monotonic() < deadline, "replicas are not read from again"
            assert await seen() == ["new", None, None]
            await asyncio.sleep(0.02)

    asyncio.run(work())


@MODES
@pytest.mark.slow
def test_near_tier_goes_on_without_a_replica(three: Replicas, mode: str) -> None:
    """A replica that is dead is not read from, nor waited for: entries stay near, and changes are heard of."""
    near = made(three.url(f"near-{mode}"), mode, near={"max_staleness": 0.3}, read_own_writes=0)
    other = made(three.url(f"other-{mode}"), mode)
    table = near.cache._overlay.table

    async def stays_near() -> bool:
        await near.get_many(KEYS)
        begun, before = time.monotonic(), near.cache.stats().tiers["far"].hits
        while time.monotonic() < begun + 0.5:  # longer than entries are believed without a channel
            await near.get_many(KEYS)
            await asyncio.sleep(0.02)
        return table.is_tracked and near.cache.stats().tiers["far"].hits == before

    async def work() -> None:
        await other.set_many({key: key for key in KEYS})
        three.catch_up()
        await until(stays_near, "nothing is near")
        three.replicas[0].process.kill()
        await until(stays_near, "nothing is near without a replica")
        await other.set("k0", "changed")

        async def is_changed() -> bool:
            return bool(await near.get("k0") == "changed")

        await until(is_changed, "a change is not heard of")
        three.replicas[0].start()
        await asyncio.to_thread(eventually, lambda: is_following(three.replicas[0]), "the replica does not follow")

        async def is_heard_of_again() -> bool:
            await near.get("absent")
            return table.is_tracked and not near.cache.engine.tracker()._lost

        await until(is_heard_of_again, "the replica is not heard of again")

    asyncio.run(work())


@pytest.mark.slow
def test_task_reads_what_its_children_have_written(three: Replicas) -> None:
    """A value that a child task has stored, changed or deleted is read from the primary by its parent, too."""
    cache = made(three.url("children"), "async", read_own_writes=60).cache
    for replica in three.replicas:
        replica.ask("CONFIG", "SET", "replica-read-only", "no")

    async def fresh() -> list[Any]:
        await asyncio.gather(cache.aset("gathered", "v"))
        await asyncio.create_task(cache.aset("created", "v"))
        await asyncio.wait_for(cache.aset_many({"awaited": "v", "many": "v"}), PATIENT)
        await asyncio.gather(cache.aset("counted", 1))
        await asyncio.gather(cache.aincr("counted"))
        await asyncio.gather(cache.aset("gone", "v"))
        await asyncio.gather(cache.adelete("gone"))
        three.catch_up()
        for replica in three.replicas:  # which alone hold these values, so that they tell who answers
            for key in ("gathered", "created", "awaited", "many", "counted", "gone", "unwritten"):
                replica.ask("SET", cache.make_key(key), "7")
        names = ["gathered", "created", "awaited", "counted", "gone"]
        return [
            *[await cache.aget(name) for name in names],
            await cache.aget_many(["awaited", "many"]),
            await apart(lambda: cache.aget("unwritten")),
        ]

    found = asyncio.run(fresh())
    assert found == ["v", "v", "v", 2, None, {"awaited": "v", "many": "v"}, 7]
