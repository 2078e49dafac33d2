"""Writes that several servers drop while one of them is down: no old value comes back from those that hold copies."""

import asyncio
import contextvars
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.redis import RedisCache
from storeroom.testing.contract.suite import Driver
from tests.faults.kinds import HASTY, PAUSE
from tests.faults.test_recovery import OLD, write_all
from tests.servers.proxy import Proxy
from tests.servers.redis import RedisServer
from tests.servers.redis_groups import cluster, eventually, is_following, replica_pair, sentinels

#: Seconds for servers to agree on another primary, beside other work.
PATIENCE = 40.0


@pytest.fixture(scope="module")
def kind() -> str:
    """Redis alone."""
    return "redis"


def drivers(location: str) -> list[Any]:
    """Return two caches with old entries, one asked in each way, which do not share connections."""
    made = []
    for mode in ("sync", "async"):
        params = {"TIMEOUT": None, "KEY_PREFIX": mode, "OPTIONS": {**HASTY, "client_name": mode, "read_own_writes": 0}}
        cache = RedisCache(location, params)
        cache.engine.breaker._pause = PAUSE
        cache.set_many(OLD)
        made.append(Driver(cache, mode))
    return made


def copied(primary: RedisServer, replicas: Sequence[RedisServer]) -> None:
    """Wait until replicas have all that their primary has."""

    def offset(server: RedisServer, name: str) -> int:
        (found,) = re.findall(rf"^{name}:(\d+)", server.ask("INFO", "replication"), re.MULTILINE)
        return int(found)

    written = offset(primary, "master_repl_offset")
    eventually(lambda: all(offset(replica, "slave_repl_offset") >= written for replica in replicas), "a copy is behind")


async def old_ones(driver: Any) -> list[str]:
    """Return the keys that are read with their old values, one by one and all at once.

    Each is read in a context of its own, as by other threads, who have written nothing.
    """
    reads = [driver.get_many(OLD), *(driver.get(key) for key in OLD)]
    tasks = [asyncio.create_task(read, context=contextvars.Context()) for read in reads]
    found, *values = await asyncio.gather(*tasks)
    both = [*found.items(), *zip(OLD, values, strict=True)]
    return sorted({key for key, value in both if value == "old"})


async def recovered(driver: Any) -> None:
    """Read until all dropped writes are made up for; nothing that is old may be seen meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while (old := await old_ones(driver)) != ["g"] or driver.cache.engine.dropped.keys:
        assert old in ([], ["g"])
        assert time.monotonic() < deadline, "the servers do not come back"
        await asyncio.sleep(0.02)


async def write_and_recover(
    location: str, cut_off: Callable[[], None], bring_back: Callable[[], None] = lambda: None
) -> None:
    made = drivers(location)
    cut_off()
    for driver in made:
        await write_all(driver)
        assert driver.cache.engine.dropped.keys, "all was carried out"
        assert await old_ones(driver) in ([], ["g"])
    bring_back()
    for driver in made:
        await recovered(driver)
    for driver in made:
        # Another process, as it were: it knows nothing of the outage.
        primary, _, _ = location.partition(",unix:")
        other = RedisCache(primary, {"KEY_PREFIX": driver.cache.key_prefix, "OPTIONS": {"client_name": "other"}})
        found = other.get_many(OLD)
        assert [key for key, value in found.items() if value == "old"] == ["g"]
        assert found.keys() <= {"a", "c", "d", "g"}
        await driver.set("a", "newest")
        assert [await driver.get("a"), other.get("a")] == ["newest", "newest"]


@pytest.mark.slow
def test_old_values_do_not_come_back_from_a_new_primary_of_sentinels(tmp_path: Path) -> None:
    """Sentinels make a replica the primary, which has the old entries of writes that were dropped meanwhile."""
    with sentinels(tmp_path) as group:
        primary = group.primary()

        def cut_off() -> None:
            copied(primary, [server for server in group.servers if server is not primary])
            primary.process.kill()

        asyncio.run(write_and_recover(group.url(), cut_off))
        # One Sentinel may hear of it later than the cache, which listens to all.
        eventually(lambda: group.primary() is not primary, "no other server is named")


@pytest.mark.slow
def test_old_values_do_not_come_back_from_a_new_primary_of_a_cluster(tmp_path: Path) -> None:
    """A replica takes the slots over, with the old entries of dropped writes; those of other servers go on."""
    with cluster(tmp_path) as group:
        primary = group.servers[0]

        def cut_off() -> None:
            copied(primary, [group.servers[3]])
            primary.process.kill()

        asyncio.run(write_and_recover(group.url(), cut_off))
        assert group.servers[3].ask("ROLE")[0] == "master"


@pytest.mark.slow
def test_old_values_do_not_come_back_from_a_replica_that_is_behind(tmp_path: Path) -> None:
    """Neither while the primary hangs and its replica answers, nor from the copies that outlive the removal there."""
    with replica_pair(tmp_path) as pair, Proxy(pair.primary.port) as proxy:
        pair.replica.ask("REPLICAOF", "127.0.0.1", proxy.port)
        eventually(lambda: is_following(pair.replica), "the replica does not follow")

        def bring_back() -> None:
            pair.primary.process.resume()
            proxy.delay = 0.5

        def cut_off() -> None:
            copied(pair.primary, [pair.replica])
            pair.primary.process.pause()

        asyncio.run(write_and_recover(pair.url(), cut_off, bring_back))
