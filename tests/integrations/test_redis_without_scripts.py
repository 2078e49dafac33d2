"""A Redis cache whose user may not run scripts: beyond the contract, which runs so, too."""

import asyncio
import itertools
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from storeroom.backends.redis import RedisCache
from storeroom.engines.background import drain
from storeroom.exceptions import StorageError
from storeroom.registry.handler import CacheHandler
from tests.servers.redis import RedisServer, redis_server
from tests.servers.redis_groups import Cluster, redis_cluster

__all__ = ["redis_cluster", "redis_server"]

PATIENT = {"socket_timeout": 20, "socket_connect_timeout": 20}
LOGIN = {"username": "no-scripts", "password": "right", **PATIENT}
PATH = "storeroom.backends.redis.RedisCache"

_numbers = itertools.count(1)

RULES = ("reset", "on", ">right", "~*", "&*", "+@all", "-@scripting")


@pytest.fixture
def location(redis_server: RedisServer) -> str:
    redis_server.ask("ACL", "SETUSER", "no-scripts", *RULES)
    return f"redis://127.0.0.1:{redis_server.port}/0"


@pytest.fixture
def cluster_location(redis_cluster: Cluster) -> Iterator[str]:
    for server in redis_cluster.servers:
        server.ask("ACL", "SETUSER", "no-scripts", *RULES)
    yield redis_cluster.url()
    for server in redis_cluster.servers:
        server.ask("ACL", "DELUSER", "no-scripts")


def test_cancelled_tasks_leave_no_other_task_anything(location: str) -> None:
    """Tasks that are cancelled between looking and changing disturb none that come after them, and nothing is lost."""
    cache = RedisCache(location, {"OPTIONS": LOGIN})
    chance = random.Random(15)

    async def count() -> int:
        await cache.aset("n", 0)
        done = 0
        for _ in range(40):
            tasks = [asyncio.create_task(cache.aincr("n")) for _ in range(10)]
            for _ in range(chance.randrange(8)):
                await asyncio.sleep(0)
            for task in chance.sample(tasks, 5):
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            done += sum(isinstance(result, int) for result in results)
            assert not [result for result in results if type(result) not in {int, asyncio.CancelledError}]
            async with cache.lock("door", blocking_timeout=20):
                pass
        total = await cache.aget("n")
        assert done <= total <= 400
        return done

    assert asyncio.run(count()) >= 200


def test_connections_that_break_are_replaced(location: str, redis_server: RedisServer) -> None:
    """Connections that the server has ended, idle or between looking and changing, are replaced."""
    cache = RedisCache(location, {"OPTIONS": LOGIN})
    for number in range(5):
        assert cache.incr("n", default=0) == number + 1
        redis_server.ask("CLIENT", "KILL", "USER", "no-scripts")

    async def work() -> None:
        for number in range(5):
            assert await cache.aincr("m", default=0) == number + 1
            redis_server.ask("CLIENT", "KILL", "USER", "no-scripts")

    asyncio.run(work())


def test_a_right_that_is_given_later_is_used(location: str, redis_server: RedisServer) -> None:
    """Scripts are refused for a while after one refusal without being tried, and the results are the same."""
    cache = RedisCache(location, {"OPTIONS": LOGIN})
    assert [cache.incr("n", default=0) for _ in range(3)] == [1, 2, 3]
    assert drain()  # the trials of rights at the start are over
    assert any("evalsha" in entry[3::2] for entry in redis_server.ask("ACL", "LOG"))
    refused = redis_server.ask("ACL", "LOG", "RESET"), cache.incr("n"), redis_server.ask("ACL", "LOG")
    assert refused == ("OK", 4, [])


def test_a_cluster_goes_without_scripts(cluster_location: str) -> None:
    """Counters, locks and tags keep their promises on a cluster, too, in threads and in tasks."""
    cache = RedisCache(cluster_location, {"KEY_PREFIX": "none", "OPTIONS": {**LOGIN, "on_error": "raise"}})
    cache.set_many({f"k{number}": 0 for number in range(9)})
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: cache.incr(f"k{number % 9}"), range(180)))
    assert set(cache.get_many([f"k{number}" for number in range(9)]).values()) == {20}

    async def work() -> None:
        await asyncio.gather(*(cache.aincr(f"k{number % 9}") for number in range(180)))
        async with cache.lock("door") as lock:
            assert not await cache.lock("door").aacquire(blocking=False)
            assert await lock.aowned()
        await cache.aset("t", 1, tags=["x"])
        assert await cache.aget("t") == 1
        await cache.ainvalidate_tags("x")
        assert await cache.aget("t") is None

    asyncio.run(work())
    assert set(cache.get_many([f"k{number}" for number in range(9)]).values()) == {40}
    assert cache.touch("k1", 50)
    assert cache.incr_version("k1") == 2
    assert cache.get_or_set_many(["k1", "new"], lambda keys: dict.fromkeys(keys, 7)) == {"k1": 7, "new": 7}


@pytest.mark.parametrize("rules", ["+@read +@write +@connection", "+@all -@scripting -exec", "+@all -evalsha -watch"])
def test_without_scripts_and_transactions_one_error_tells_all(
    location: str, redis_server: RedisServer, rules: str
) -> None:
    """Reads and plain writes work; what needs more raises an error with the least rule, the first time."""
    redis_server.ask("ACL", "SETUSER", "no-scripts", "reset", "on", ">right", "~*", *rules.split())
    cache = RedisCache(location, {"KEY_PREFIX": "shop", "OPTIONS": LOGIN})
    cache.set("k", 1)
    assert (cache.get("k"), cache.add("k", 2), cache.delete("k")) == (1, False, True)
    cache.set("k", 1)
    told = (
        r"'evalsha' command.*All that this cache needs: ACL SETUSER no-scripts on '~shop:\*' \+mget .*\+evalsha \+eval"
    )
    for refused in (lambda: cache.touch("k", 5), lambda: cache.incr("k")):
        with pytest.raises(StorageError, match=told):
            refused()


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize(
    ("rules", "lacks"),
    [
        ("~shop:* +@all -@scripting -exec", "+evalsha, +eval"),
        ("~shop:* +get +ping", "+mget, +rename, +getrange, +pttl, +set, "),
        ("~other:* +@all", "~shop:*"),
        ("~shop:* +@all -@scripting", ""),
        ("~shop:* +@all -config -acl", ""),
    ],
)
def test_missing_rights_are_one_error_in_the_log_at_the_start(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture, rules: str, lacks: str, mode: str
) -> None:
    """Whatever the program asks first, and once for all handles; who has all that is needed is told nothing."""
    user = f"starter-{next(_numbers)}"
    redis_server.ask("ACL", "SETUSER", user, "reset", "on", ">right", *rules.split())
    options = {"username": user, "password": "right", **PATIENT}
    location = f"redis://127.0.0.1:{redis_server.port}"
    alias = {"BACKEND": PATH, "LOCATION": location, "KEY_PREFIX": "shop", "OPTIONS": options}
    caches = CacheHandler()
    caches.configure({"default": alias})
    for _ in range(3):
        with suppress(StorageError):
            asyncio.run(caches["default"].aget("k")) if mode == "async" else caches["default"].get("k")
        caches.close_all()
    assert drain()
    redis_server.ask("ACL", "DELUSER", user)
    told = [record.getMessage() for record in caplog.records if "no right to" in record.getMessage()]
    assert len(told) == bool(lacks)
    if lacks:
        assert f"Redis at {location} gives CACHES['default'] no right to {lacks}" in told[0]
        assert f"All that this cache needs: ACL SETUSER {user} on '~shop:*' +mget" in told[0]
