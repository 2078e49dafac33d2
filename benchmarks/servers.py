"""The servers that some contenders talk to: each is started when it is first asked for, and stopped by stop().

They are the tests' own: real programs on free ports of this host, without durability where that can be chosen.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

__all__ = [
    "directory",
    "mariadb",
    "memcached",
    "postgresql",
    "redis",
    "redis_cluster",
    "redis_masters",
    "redis_socket",
    "stop",
]

_running = ExitStack()


def directory() -> Path:
    """Return an empty directory, which is removed by stop()."""
    return Path(_running.enter_context(TemporaryDirectory(prefix="storeroom-bench-", ignore_cleanup_errors=True)))


@cache
def _redis() -> Any:
    from tests.servers.redis import RedisServer, redis_binary, running

    return _running.enter_context(contextmanager(running)(RedisServer(redis_binary(), directory())))


def redis() -> str:
    """Return the URL of a Redis."""
    return f"redis://127.0.0.1:{_redis().port}/0"


def redis_socket() -> str:
    """Return the URL of the same Redis by its Unix socket."""
    return f"unix://{_redis().socket}?db=0"


@cache
def redis_cluster() -> str:
    """Return the URL of a Redis Cluster: three primaries, each with a replica."""
    from tests.servers.redis_groups import cluster

    return str(_running.enter_context(cluster(directory())).url())


@contextmanager
def redis_masters(directory: Path, count: int) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the URL of one Redis, or of a Redis Cluster of more, without replicas, and the URLs of its servers."""
    from tests.servers.redis import RedisServer, redis_binary, running
    from tests.servers.redis_groups import bare_cluster

    if count == 1:
        with contextmanager(running)(RedisServer(redis_binary(), directory)) as server:
            url = f"redis://127.0.0.1:{server.port}/0"
            yield url, [url]
    else:
        with bare_cluster(directory, count) as group:
            yield group.url(), [f"redis://127.0.0.1:{server.port}" for server in group.servers]


@cache
def memcached() -> str:
    """Return host and port of a Memcached."""
    from tests.servers.memcached import running

    # One thread: with more, a connection's turns are as fast as the core of the thread that it fell to.
    servers = _running.enter_context(running(directory(), 1, "-m", "512", "-t", "1", by_port=True))
    return servers.servers[0].location


@cache
def postgresql() -> Any:
    """Return a PostgreSQL, whose url() leads to it."""
    from tests.servers.databases import PostgreSQLServer, running

    return _running.enter_context(contextmanager(running)(PostgreSQLServer()))


@cache
def mariadb() -> Any:
    """Return a MariaDB, whose url() leads to it."""
    from tests.servers.databases import MariaDBServer, running

    return _running.enter_context(contextmanager(running)(MariaDBServer()))


def stop() -> None:
    """Stop those that were started."""
    _running.close()
    for start in (mariadb, memcached, postgresql, _redis, redis_cluster):
        start.cache_clear()
