"""Servers to be checked, each of its test's own unless the test changes nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from storeroom.checks import servers
from tests.servers import memcached
from tests.servers.databases import mariadb, mariadb_server, postgresql, postgresql_server
from tests.servers.memcached import MemcachedServer
from tests.servers.redis import RedisServer, redis_server
from tests.servers.redis_groups import redis_cluster, redis_pair, redis_sentinels

__all__ = [
    "mariadb",
    "mariadb_server",
    "postgresql",
    "postgresql_server",
    "redis_cluster",
    "redis_pair",
    "redis_sentinels",
    "redis_server",
]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server is slow here because the machine is busy; test_a_slow_way_is_found goes by the real bound."""
    monkeypatch.setattr(servers, "SLOW_SECONDS", 10.0)


@pytest.fixture
def sound(redis_server: RedisServer) -> RedisServer:
    """A server as it should be."""
    redis_server.ask("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
    return redis_server


@pytest.fixture
def memcached_server(tmp_path: Path) -> Iterator[MemcachedServer]:
    with memcached.running(tmp_path, by_port=True) as group:
        yield group.servers[0]
