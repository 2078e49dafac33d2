"""``python -m benchmarks.busy``: more threads than connections, beside the driver's own blocking pool.

Threads of an executor set keys as fast as they can, as a command does that warms a cache. Storeroom and the driver's
pool take turns. Redis: redis-py's client over its BlockingConnectionPool. pylibmc: its ClientPool. pymemcache's
PooledClient does not wait, so that a semaphore does. Databases: the same cache, its sessions kept in psycopg_pool's
ConnectionPool, where that is installed, or in a queue; another client would not write the same rows.
"""

import argparse
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from typing import Any

import psycopg

from benchmarks import servers
from storeroom import engines
from storeroom.backends import connections
from storeroom.backends.db import DatabaseCache
from storeroom.backends.db.pool import Pool
from storeroom.backends.memcached import PyLibMCCache, PyMemcacheCache
from storeroom.backends.redis import RedisCache
from storeroom.base import BaseCache

__all__ = ["main"]

THREADS, CONNECTIONS, TURNS = (4, 32, 100, 400), (2, 16, 64), 9


def _cache(kind: type[BaseCache], location: str, limit: int, **options: Any) -> Any:
    return kind(location, {"TIMEOUT": None, "OPTIONS": {"max_connections": limit, **options}})  # type: ignore[call-arg]


class QueuePool(Pool):
    """A database's sessions in a queue of the standard library."""

    def fill(self) -> None:
        self._queued: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range(self._limit):
            self._queued.put(None)

    def take(self) -> tuple[Any, bool]:
        session = self._queued.get(timeout=30)
        return (self._connect(), False) if session is None else (session, True)

    def give_back(self, connection: Any) -> None:
        self._queued.put(connection)

    def discard(self, connection: Any) -> None:
        self.database.close(connection)
        self._queued.put(None)


class PsycopgPool(QueuePool):
    """A database's sessions in the pool of psycopg's authors."""

    def fill(self) -> None:
        from psycopg_pool import ConnectionPool

        database: Any = self.database

        def connect(*_: Any, **__: Any) -> Any:
            return database.connect()

        kind = type("Session", (psycopg.Connection,), {"connect": staticmethod(connect)})
        self._driver = ConnectionPool(connection_class=kind, min_size=self._limit, max_size=self._limit, timeout=30)
        self._driver.wait()

    def take(self) -> tuple[Any, bool]:
        return self._driver.getconn(), True

    def give_back(self, connection: Any) -> None:
        self._driver.putconn(connection)

    def discard(self, connection: Any) -> None:
        connection.close()
        self._driver.putconn(connection)

    def close(self) -> None:
        self._driver.close()
        super().close()


def _database(url: str, limit: int, kind: type[QueuePool]) -> tuple[Any, Callable[[str, int], Any]]:
    ours = _cache(DatabaseCache, "ours", limit, url=url, max_entries=None)
    theirs = _cache(DatabaseCache, "theirs", limit, url=url, max_entries=None)
    pool = kind(theirs.engine.database, limit, 30.0)
    pool.fill()
    theirs.engine._pool = pool
    return ours, theirs.set


def _redis(limit: int) -> tuple[Any, Callable[[str, int], Any]]:
    import redis

    url = servers.redis()
    client = redis.Redis(connection_pool=redis.BlockingConnectionPool.from_url(url, max_connections=limit, timeout=30))
    return _cache(RedisCache, url, limit), client.set


def _pymemcache(limit: int) -> tuple[Any, Callable[[str, int], Any]]:
    from pymemcache.client.base import PooledClient

    host = servers.memcached()
    client, free = PooledClient(host, max_pool_size=limit, default_noreply=False), threading.BoundedSemaphore(limit)

    def store(key: str, value: int) -> None:
        with free:
            client.set(key, str(value).encode())

    return _cache(PyMemcacheCache, host, limit), store


def _pylibmc(limit: int) -> tuple[Any, Callable[[str, int], Any]]:
    import pylibmc

    host = servers.memcached()
    pool = pylibmc.ClientPool(pylibmc.Client([host], behaviors={"tcp_nodelay": True}), limit)

    def store(key: str, value: int) -> None:
        with pool.reserve(block=True) as client:
            client.set(key, str(value).encode())

    return _cache(PyLibMCCache, host, limit), store


def _postgresql(limit: int) -> tuple[Any, Callable[[str, int], Any]]:
    try:
        import psycopg_pool  # noqa: F401
    except ModuleNotFoundError:
        return _database(servers.postgresql().url(), limit, QueuePool)
    return _database(servers.postgresql().url(), limit, PsycopgPool)


def _mariadb(limit: int) -> tuple[Any, Callable[[str, int], Any]]:
    return _database(servers.mariadb().url(), limit, QueuePool)


BACKENDS = {
    "Redis": (_redis, 2000), "pymemcache": (_pymemcache, 2000), "pylibmc": (_pylibmc, 2000),
    "PostgreSQL": (_postgresql, 800), "MariaDB": (_mariadb, 800),
}  # fmt: skip
"""Name -> the cache and the driver's own set(), and how many keys are set in a turn."""


@contextmanager
def _timed_waits() -> Iterator[list[float]]:
    """Yield the seconds of each wait for a connection within the block; a connection that was free has none."""
    wait, waits = connections.Connections._wait, list[float]()

    def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        slot = wait(self, *args, **kwargs)
        waits.append(time.perf_counter() - begun)
        return slot

    connections.Connections._wait = timed  # type: ignore[method-assign]
    try:
        yield waits
    finally:
        connections.Connections._wait = wait  # type: ignore[method-assign]


def _rate(store: Callable[[str, int], Any], executor: ThreadPoolExecutor, names: list[str]) -> float:
    """Return how many of these keys are set in a second."""
    begun = time.perf_counter()
    for _ in executor.map(store, names, range(len(names))):
        pass
    return len(names) / (time.perf_counter() - begun)


def _stored(cache: Any, names: list[str]) -> int:
    return sum(len(cache.get_many(names[start : start + 500])) for start in range(0, len(names), 500))


def measure(name: str, threads: int, limit: int, waits: list[float]) -> str:
    """Return a row of the table, of the waits that are listed meanwhile."""
    make, count = BACKENDS[name]
    cache, theirs = make(limit)
    ratios, stored = list[float](), 0
    with ThreadPoolExecutor(threads) as executor:
        for store in (cache.set, theirs):  # all threads have begun before the clock runs, and all connections are open
            _rate(store, executor, [f"warm{number}" for number in range(2 * threads)])
        waits.clear()
        for turn in range(TURNS):
            names = [f"{threads}:{limit}:{turn}:{number}" for number in range(count)]
            before = _rate(theirs, executor, names) if turn % 2 else 0.0
            ours = _rate(cache.set, executor, names)
            ratios.append(ours / (before or _rate(theirs, executor, names)))
            stored += _stored(cache, names)
    engines.close_all()
    longest = sorted(waits, reverse=True)[count * TURNS // 100 :]  # of as many operations, most of which did not wait
    ratio, p99 = sorted(ratios)[len(ratios) // 2], longest[0] if longest else 0.0
    return f"| {name} | {threads} | {limit} | {stored:,} of {count * TURNS:,} | {ratio:.2f} | {p99 * 1e3:,.1f} ms |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.busy", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="BACKEND", help=f"of {', '.join(BACKENDS)}; default: all")
    chosen = parser.parse_args().names or list(BACKENDS)
    print("| backend | threads | connections | stored | beside the driver's pool | 99 of 100 waits within |")
    print("| --- | --- | --- | --- | --- | --- |")
    try:
        with _timed_waits() as waits:
            for name, limit, threads in product(chosen, CONNECTIONS, THREADS):
                print(measure(name, threads, limit, waits), flush=True)
    finally:
        servers.stop()


if __name__ == "__main__":
    main()
