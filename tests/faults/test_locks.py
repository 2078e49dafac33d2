"""Locks when their server dies: one that could not be asked for was not acquired, whatever the policy."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.locmem import LocMemCache
from storeroom.backends.memcached import PyMemcacheCache
from storeroom.backends.redis import RedisCache
from storeroom.base import BaseCache
from storeroom.exceptions import StorageError
from storeroom.testing.isolation import engines_of_its_own
from tests.servers.memcached import running
from tests.servers.proxy import Proxy
from tests.servers.redis import RedisServer, redis_server

__all__ = ["redis_server"]

SHORT = 0.3


@pytest.fixture(params=["miss", "raise", "fallback:memory"])
def policy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    memory = LocMemCache("fallback of locks", {"TIMEOUT": None})
    monkeypatch.setattr("storeroom.registry.caches", {"memory": memory})
    return str(request.param)


@pytest.fixture(params=["redis", "memcached"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A server, and the class and location of its caches."""
    with engines_of_its_own():
        if request.param == "redis":
            server = request.getfixturevalue("redis_server")
            yield server, RedisCache, f"redis://127.0.0.1:{server.port}"
        else:
            with running(tmp_path, by_port=True) as servers:
                yield servers.servers[0], PyMemcacheCache, servers.location()


def test_a_lock_has_no_answer_without_its_server(server: Any, policy: str) -> None:
    """Neither has one that was held: whether it still is, nobody knows."""
    process, cache_class, location = server
    options = {"socket_timeout": SHORT, "socket_connect_timeout": SHORT, "on_error": policy}
    cache: BaseCache = cache_class(location, {"OPTIONS": options})
    held = cache.lock("held", timeout=100)
    assert held.acquire()
    process.process.kill()
    lock = cache.lock("l", timeout=100, blocking_timeout=10)
    operations = (lock.acquire, lock.__enter__, lock.locked, held.owned, held.extend, held.fence, held.release)
    for _ in range(2):  # while the outage is noticed, and when it is known
        for operation in operations[:-1]:
            with pytest.raises(StorageError, match="out of reach"):
                operation()
    with pytest.raises(StorageError, match="out of reach"):
        held.release()
    with pytest.raises(StorageError, match="out of reach"):
        asyncio.run(cache.lock("l").aacquire())
    if policy == "miss":  # the policy has not changed for all others
        assert cache.get("k") is None
        assert cache.add("k", 1) is False


@pytest.mark.slow
def test_a_lock_whose_reply_nobody_waits_for_is_given_back(redis_server: RedisServer) -> None:
    """The server has it, and who asked was cancelled."""
    with engines_of_its_own(), Proxy(redis_server.port) as proxy:
        options = {"socket_timeout": 2, "socket_connect_timeout": 2}
        cache = RedisCache(f"redis://127.0.0.1:{proxy.port}", {"OPTIONS": options})
        direct = RedisCache(f"redis://127.0.0.1:{redis_server.port}", {})

        async def main() -> None:
            await cache.aget("k")
            proxy.delay = 0.2
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(cache.lock("l").aacquire(), 0.1)

        asyncio.run(main())
        assert not direct.lock("l").locked()
