"""The kinds of server that caches are kept on, the way to reach each, and the ways to mistreat it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pymysql
import pytest

from storeroom import engines
from storeroom.backends.connections import Connections
from storeroom.backends.db import DatabaseCache
from storeroom.backends.memcached import MemcachedCache, PyLibMCCache, PyMemcacheCache
from storeroom.backends.redis import RedisCache
from storeroom.base import BaseCache
from storeroom.storage.outages import FAILURES, CircuitBreaker
from tests.servers.databases import MariaDBServer, PostgreSQLServer
from tests.servers.databases import running as running_database
from tests.servers.memcached import needs_pylibmc
from tests.servers.memcached import running as running_memcached
from tests.servers.redis import RedisServer, redis_binary
from tests.servers.redis import running as running_redis

__all__ = ["HASTY", "KINDS", "MEMCACHED", "PATIENT", "SHORT", "SITES", "Site", "kinds"]

#: Seconds that a cache waits for a server that does not answer.
SHORT = 0.2

#: Seconds that it waits for a server that does, so that a turn of a busy machine is no outage.
PATIENT = 20.0

#: Seconds between two looks at a server that is down, where a test does not measure them.
PAUSE = 0.05

HASTY = {"socket_timeout": SHORT, "socket_connect_timeout": SHORT}


class Site:
    """A server of one kind that tests share, and the caches of one test on it.

    Attributes:
        prefix: of the keys of the test's caches.
        named: a pattern of the server's name in errors and in the log.
        lists_keys: whether a cache can list its keys.
        keeps_entries: whether entries outlive a restart.
        is_asynchronous: whether the driver serves tasks itself; threads serve them otherwise.
        workers: the most threads that serve the tasks of a cache of four connections.
        connects_within: seconds after which an attempt to connect with a SHORT timeout is over.
        cut_every: seconds between two cuts of its connections that leave time to make another and use it.
    """

    named: ClassVar[str]
    lists_keys: ClassVar[bool] = True
    keeps_entries: ClassVar[bool] = False
    is_asynchronous: ClassVar[bool] = False
    workers: ClassVar[int] = 32
    connects_within: ClassVar[float] = SHORT
    cut_every: ClassVar[float] = 0.003

    def __init__(self, server: Any) -> None:
        self.server = server
        self.prefix = ""

    def cache(self, *, port: int | None = None, failures: int = FAILURES, pause: float = PAUSE, **options: Any) -> Any:
        """Return a cache of the test.

        Args:
            port: of a proxy to reach the server by.
            failures: in a row, that open the circuit breaker.
            pause: seconds between two looks at the server while it is down.
            options: as in CACHES.
        """
        patience = {"socket_timeout": PATIENT, "socket_connect_timeout": PATIENT}
        cache = self._open(port, {"TIMEOUT": None, "KEY_PREFIX": self.prefix, "OPTIONS": {**patience, **options}})
        for breaker in self.breakers(cache):
            breaker._limit, breaker._pause = failures, pause
        return cache

    @staticmethod
    def servers(folder: Path) -> Iterator[Any]:
        """Yield one server while it runs."""
        raise NotImplementedError

    def _open(self, port: int | None, params: dict[str, Any]) -> BaseCache:
        raise NotImplementedError

    def breakers(self, cache: Any) -> list[CircuitBreaker]:
        return [cache.engine.breaker]

    def connections(self, cache: Any) -> Connections[Any]:
        """Return the connections of a cache's threads to the server."""
        raise NotImplementedError

    @contextmanager
    def admitting(self, count: int) -> Iterator[str | None]:
        """Let the server refuse all connections but so many within the block; yield the URL to use, if another."""
        raise NotImplementedError

    def failures(self, cache: Any) -> int:
        return sum(breaker.failures for breaker in self.breakers(cache))

    def is_down(self, cache: Any) -> bool:
        """Tell whether the cache has stopped asking the server."""
        return all(breaker.is_open for breaker in self.breakers(cache))

    @property
    def _control(self) -> Any:
        """The server as a process: a database ends and stops with the processes that it has started."""
        return self.server.process

    def start(self) -> None:
        """Let the server run, if it does not."""
        if not self.server.process.is_running:
            self.server.start()

    def kill(self) -> None:
        """End the server as a crash would, if it runs."""
        if self.server.process.is_running:
            self._control.kill()

    def restart(self) -> None:
        self._control.stop()
        self.server.start()

    def pause(self) -> None:
        self._control.pause()

    def resume(self) -> None:
        self._control.resume()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the server hang within the block, its connections staying open."""
        self.pause()
        try:
            yield
        finally:
            self.resume()


class RedisSite(Site):
    named = r"redis://127\.0\.0\.1"
    is_asynchronous = True
    workers = 0

    @staticmethod
    def servers(folder: Path) -> Iterator[Any]:
        return running_redis(RedisServer(redis_binary(), folder))

    def _open(self, port: int | None, params: dict[str, Any]) -> BaseCache:
        return RedisCache(f"redis://127.0.0.1:{port or self.server.port}/0?client_name=site", params)

    def connections(self, cache: Any) -> Connections[Any]:
        connections: Connections[Any] = cache.engine._pool(cache.engine.target.servers[0])._connections
        return connections

    @contextmanager
    def admitting(self, count: int) -> Iterator[str | None]:
        before = self.server.ask("CONFIG", "GET", "maxclients")[1]
        self.server.ask("CONFIG", "SET", "maxclients", count)
        try:
            yield None
        finally:
            engines.close_all()
            self.server.ask("CONFIG", "SET", "maxclients", before)


class PyMemcacheSite(Site):
    named = r"Memcached at 127\.0\.0\.1"
    lists_keys = False
    backend: ClassVar[type[MemcachedCache]] = PyMemcacheCache

    @staticmethod
    def servers(folder: Path) -> Iterator[Any]:
        with running_memcached(folder, by_port=True) as servers:
            yield servers.servers[0]

    def _open(self, port: int | None, params: dict[str, Any]) -> BaseCache:
        return self.backend(f"127.0.0.1:{port or self.server.port}", params)

    def breakers(self, cache: Any) -> list[CircuitBreaker]:
        return [server.breaker for server in cache.engine.servers]

    def connections(self, cache: Any) -> Connections[Any]:
        connections: Connections[Any] = cache.engine.servers[0]._connections
        return connections

    def restart(self) -> None:
        self.kill()  # by itself it takes a second to end, and there is nothing that it would write down
        self.server.start()


class PyLibMCSite(PyMemcacheSite):
    backend = PyLibMCCache


class PostgreSQLSite(Site):
    named = "PostgreSQL"
    keeps_entries = True
    workers = 4
    connects_within = 2.0  # libpq and PyMySQL count whole seconds, libpq two at least
    cut_every = 0.02

    @staticmethod
    def servers(folder: Path) -> Iterator[Any]:
        return running_database(PostgreSQLServer())

    def _open(self, port: int | None, params: dict[str, Any]) -> BaseCache:
        params["OPTIONS"].setdefault("url", self.server.url(by_port=port))
        return DatabaseCache("cache", params)

    def connections(self, cache: Any) -> Connections[Any]:
        pool: Connections[Any] = cache.engine._pool
        return pool

    @contextmanager
    def admitting(self, count: int) -> Iterator[str | None]:
        self.server.execute(f"CREATE ROLE few LOGIN CONNECTION LIMIT {count}")
        self.server.execute("CREATE SCHEMA few AUTHORIZATION few; GRANT ALL ON ALL TABLES IN SCHEMA public TO few")
        try:
            yield self.server.url().replace("storeroom@", "few@")
        finally:
            engines.close_all()
            self.server.execute("DROP OWNED BY few CASCADE")
            self.server.execute("DROP ROLE few")

    @property
    def _control(self) -> Any:
        return self.server


class MariaDBSite(PostgreSQLSite):
    named = "MySQL"

    @staticmethod
    def servers(folder: Path) -> Iterator[Any]:
        return running_database(MariaDBServer())

    @contextmanager
    def admitting(self, count: int) -> Iterator[str | None]:
        with pymysql.connect(unix_socket=self.server.socket, user="root") as admin:
            admin.query("CREATE USER few")
            admin.query("GRANT ALL ON test.* TO few")
            admin.query(f"ALTER USER few WITH MAX_USER_CONNECTIONS {count}")
            try:
                yield self.server.url().replace("root@", "few@")
            finally:
                engines.close_all()
                admin.query("DROP USER few")


SITES: dict[str, type[Site]] = {
    "redis": RedisSite,
    "pymemcache": PyMemcacheSite,
    "pylibmc": PyLibMCSite,
    "postgresql": PostgreSQLSite,
    "mariadb": MariaDBSite,
}

MEMCACHED = ["pymemcache", pytest.param("pylibmc", marks=needs_pylibmc)]
KINDS = ["redis", *MEMCACHED, "postgresql", "mariadb"]


def kinds(*chosen: Any) -> pytest.MarkDecorator:
    """Run a test on these kinds of server alone."""
    return pytest.mark.parametrize("kind", chosen, indirect=True)
