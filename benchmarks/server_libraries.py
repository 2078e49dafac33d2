"""The caches that are measured in databases, Redis and Memcached, and the drivers that they are built on.

See ``libraries``. Each cache has a prefix or a table of its own, on servers that all share.
"""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from benchmarks import servers
from benchmarks.libraries import DJANGO_API, TIMEOUT, Library, fill_storeroom

__all__ = [
    "API",
    "DJANGO_MEMCACHED",
    "DJANGO_POSTGRESQL",
    "DJANGO_REDIS",
    "DJANGO_REDIS_PACKAGE",
    "DJANGO_SQLITE",
    "PSYCOPG",
    "REDIS_PY",
    "SERVER_CALLS",
    "SQLITE3",
    "STOREROOM_MEMCACHED",
    "STOREROOM_NEAR",
    "STOREROOM_POSTGRESQL",
    "STOREROOM_REDIS",
    "STOREROOM_SQLITE",
    "STOREROOM_TIERED",
    "close_engine",
    "fresh_params",
    "leave",
    "raw_memcached",
    "read_all",
    "redis_set_many",
    "site",
]

AT_ONCE: Final = 20
"""How often a batch of keys is asked for by an event loop at once: 2,000 gets."""

_numbers = itertools.count(1)


def _name() -> str:
    """Return a prefix, or the name of a table, that no other has."""
    return f"bench_{next(_numbers)}"


def fresh_params(**options: Any) -> dict[str, Any]:
    return {"TIMEOUT": TIMEOUT, "KEY_PREFIX": _name(), "OPTIONS": options}


API: Final = {
    **DJANGO_API,
    "agets": f"await get_all_at_once(cache, keys_of_batch * {AT_ONCE})",
}


async def get_all_at_once(cache: Any, keys: Sequence[str]) -> list[Any]:
    import asyncio

    return await asyncio.gather(*map(cache.aget, keys))


def leave(cache: Any) -> None:
    """Keep what is there until its server is stopped."""


# Databases ----------------------------------------------------------------------------------------


class _Router:
    """Leads Django's tables to the database that their names tell."""

    def db_for_read(self, model: Any, **_: Any) -> str:
        return "postgresql" if model._meta.db_table.startswith("postgresql") else "default"

    db_for_write = db_for_read

    def allow_migrate(self, *_: Any, **__: Any) -> bool:
        return True


@cache
def site() -> None:
    """Let Django run; its databases are told later."""
    import django
    from django.conf import settings

    if not settings.configured:
        settings.configure(DATABASES={}, DATABASE_ROUTERS=[_Router()])
    django.setup()


def _django_database(alias: str, database: Mapping[str, Any], bound: int) -> Any:
    site()
    from django.core.cache.backends.db import DatabaseCache
    from django.core.management.commands.createcachetable import Command
    from django.db import connections

    if alias in connections.settings:
        connections[alias].close()
        del connections[alias]
    connections.settings = connections.configure_settings({**connections.settings, alias: dict(database)})
    table = f"{'postgresql' if alias == 'postgresql' else ''}{_name()}"
    command = Command()
    command.verbosity = 0
    command.create_table(alias, table, False)
    return DatabaseCache(table, {"TIMEOUT": TIMEOUT, "OPTIONS": {"MAX_ENTRIES": bound}})


def _open_django_sqlite(directory: Path, bound: int) -> Any:
    return _django_database(
        "default", {"ENGINE": "django.db.backends.sqlite3", "NAME": directory / "django.sqlite3"}, bound
    )


def _open_django_postgresql(_: Path, bound: int) -> Any:
    server = servers.postgresql()
    database = {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "storeroom"}
    where = {"HOST": str(server.folder), "PORT": server.port}
    return _django_database("postgresql", {**database, **where, "CONN_MAX_AGE": None}, bound)


def _open_storeroom_sqlite(directory: Path, bound: int) -> Any:
    from storeroom.backends.db import DatabaseCache

    url = f"sqlite:///{directory / 'storeroom.sqlite3'}"
    return DatabaseCache(_name(), {"TIMEOUT": TIMEOUT, "OPTIONS": {"url": url, "max_entries": bound}})


def _open_storeroom_postgresql(_: Path, bound: int) -> Any:
    from storeroom.backends.db import DatabaseCache

    options = {"url": servers.postgresql().url(), "max_entries": max(bound, 2_000_000)}
    return DatabaseCache(_name(), {"TIMEOUT": 86_400, "OPTIONS": options})


def _open_sqlite3(directory: Path, _: int) -> Any:
    import sqlite3

    connection = sqlite3.connect(directory / "raw.sqlite3", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = OFF")  # as Storeroom's
    connection.execute("CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB, expires REAL) WITHOUT ROWID")
    return connection


_UPSERT: Final = (
    "INSERT INTO entries VALUES ({0}, {0}, {0}) ON CONFLICT (key) DO UPDATE SET value = excluded.value, "
    "expires = excluded.expires"
)


def sqlite3_get(connection: Any, key: str) -> Any:
    return connection.execute("SELECT value, expires FROM entries WHERE key = ?", (key,)).fetchone()


def sqlite3_set(connection: Any, key: str, value: str) -> None:
    # A time of now: SQLite writes nothing where all bytes are those that are there.
    connection.execute(_UPSERT.format("?"), (key, value.encode(), time.time() + TIMEOUT))


def sqlite3_set_many(connection: Any, batch: Mapping[str, str]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    expires = time.time() + TIMEOUT
    connection.executemany(_UPSERT.format("?"), [(key, value.encode(), expires) for key, value in batch.items()])
    connection.execute("COMMIT")


def _open_psycopg(_: Path, __: int) -> Any:
    import psycopg

    connection = psycopg.connect(servers.postgresql().url(), autocommit=True)
    connection.execute("DROP TABLE IF EXISTS entries")
    connection.execute("CREATE TABLE entries (key TEXT PRIMARY KEY, value BYTEA, expires DOUBLE PRECISION)")
    return connection


def psycopg_get(connection: Any, key: str) -> Any:
    return connection.execute("SELECT value, expires FROM entries WHERE key = %s", (key,)).fetchone()


def psycopg_set(connection: Any, key: str, value: str) -> None:
    connection.execute(_UPSERT.format("%s"), (key, value.encode(), time.time() + TIMEOUT))


def _fill_one_by_one(set_one: Callable[[Any, str, Any], None], cache: Any, entries: Mapping[str, Any]) -> None:
    for key, value in entries.items():
        set_one(cache, key, value)


def _close(connection: Any) -> None:
    connection.close()


def close_engine(cache: Any) -> None:
    cache._engine.close()


STOREROOM_SQLITE: Final = Library("Storeroom", "storeroom", _open_storeroom_sqlite, API, fill_storeroom, close_engine)
STOREROOM_POSTGRESQL: Final = Library(
    "Storeroom", "psycopg", _open_storeroom_postgresql, API, fill_storeroom, close_engine, program="pg_ctlcluster"
)
DJANGO_SQLITE: Final = Library("Django", "django", _open_django_sqlite, API, close=leave)
DJANGO_POSTGRESQL: Final = Library(
    "Django", "psycopg", _open_django_postgresql, API, close=leave, program="pg_ctlcluster"
)
SQLITE3: Final = Library(
    "sqlite3",
    "sqlite3",
    _open_sqlite3,
    {
        "get": "sqlite3_get(cache, key)",
        "set": "sqlite3_set(cache, key, value)",
        "set_many": "sqlite3_set_many(cache, batch)",
    },
    sqlite3_set_many,
    _close,
)
PSYCOPG: Final = Library(
    "psycopg",
    "psycopg",
    _open_psycopg,
    {"get": "psycopg_get(cache, key)", "set": "psycopg_set(cache, key, value)"},
    partial(_fill_one_by_one, psycopg_set),
    _close,
    program="pg_ctlcluster",
)


# Redis --------------------------------------------------------------------------------------------


def _open_storeroom_redis(_: Path, __: int) -> Any:
    from storeroom.backends.redis import RedisCache

    return RedisCache(servers.redis(), fresh_params())


def _open_tiered(_: Path, bound: int) -> Any:
    from storeroom.backends.tiered import TieredCache

    memory = {"BACKEND": "storeroom.backends.locmem.LocMemCache", "OPTIONS": {"max_entries": bound}}
    storage = {"BACKEND": "storeroom.backends.redis.RedisCache", "LOCATION": servers.redis()}
    return TieredCache("", fresh_params(tiers=[memory, storage]) | _apart())


def _open_near(_: Path, __: int) -> Any:
    from storeroom.backends.redis import RedisCache

    return RedisCache(servers.redis(), fresh_params(near=True) | _apart())


def _apart() -> dict[str, Any]:
    """Return params that keep a cache's keys apart by the version: to hear of another prefix is to begin anew."""
    return {"KEY_PREFIX": "near", "VERSION": next(_numbers)}


def _fill_and_read(cache: Any, entries: Mapping[str, Any]) -> None:
    """Fill the storage, and then the tier before it, which reads fill."""
    fill_storeroom(cache, entries)
    read_all(cache, entries)


def read_all(cache: Any, entries: Mapping[str, Any]) -> None:
    """Read what is there, when a near tier has begun to listen: it does so empty."""
    cache.get(next(iter(entries)))
    time.sleep(0.5)
    for key in entries:
        cache.get(key)


def _open_django_redis(_: Path, __: int) -> Any:
    site()
    from django.core.cache.backends.redis import RedisCache

    return RedisCache(servers.redis(), fresh_params())


def _open_django_redis_package(_: Path, __: int) -> Any:
    site()
    from django_redis.cache import RedisCache

    return RedisCache(servers.redis(), fresh_params())


def _open_redis_py(_: Path, __: int) -> Any:
    import redis

    return redis.Redis.from_url(servers.redis())


def redis_set_many(client: Any, batch: Mapping[str, Any]) -> None:
    pipeline = client.pipeline(transaction=False)
    for key, value in batch.items():
        pipeline.set(key, value, ex=TIMEOUT)
    pipeline.execute()


def redis_pipeline(client: Any, keys: Sequence[str]) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.get(key)
    replies: list[Any] = pipeline.execute()
    return replies


def _redis(name: str, requires: str, open_cache: Callable[[Path, int], Any], **given: Any) -> Library:
    given = {"statements": API, "close": leave, "program": "redis-server", **given}
    return Library(name, requires, open_cache, **given)


STOREROOM_REDIS: Final = _redis("Storeroom", "redis", _open_storeroom_redis, fill=fill_storeroom)
STOREROOM_TIERED: Final = _redis("Storeroom", "redis", _open_tiered, fill=_fill_and_read)
STOREROOM_NEAR: Final = _redis("Storeroom", "redis", _open_near, fill=_fill_and_read)
DJANGO_REDIS: Final = _redis("Django", "redis", _open_django_redis, fill=fill_storeroom)
DJANGO_REDIS_PACKAGE: Final = _redis("django-redis", "django_redis", _open_django_redis_package, fill=fill_storeroom)
REDIS_PY: Final = _redis(
    "redis-py",
    "redis",
    _open_redis_py,
    statements={
        "get": "cache.get(key)",
        "set": f"cache.set(key, value, ex={TIMEOUT})",
        "get_many": "cache.mget(keys_of_batch)",
        "set_many": "redis_set_many(cache, batch)",
        "incr": "cache.incr(key)",
    },
    fill=redis_set_many,
    close=_close,
)


# Memcached ----------------------------------------------------------------------------------------


def _open_memcached(path: str, _: Path, __: int) -> Any:
    if path.startswith("django"):
        site()
    from importlib import import_module

    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)(servers.memcached(), {"TIMEOUT": TIMEOUT, "KEY_PREFIX": _name()})


def _open_pymemcache(_: Path, __: int) -> Any:
    from pymemcache.client.base import Client

    host, _, port = servers.memcached().rpartition(":")
    return Client((host, int(port)), no_delay=True)


def _open_pylibmc(_: Path, __: int) -> Any:
    import pylibmc

    return pylibmc.Client([servers.memcached()], behaviors={"tcp_nodelay": True})


def pymemcache_set_many(client: Any, batch: Mapping[str, Any]) -> None:
    client.set_many(batch, expire=TIMEOUT, noreply=False)


def pylibmc_set_many(client: Any, batch: Mapping[str, Any]) -> None:
    client.set_multi(batch, time=TIMEOUT)


def _memcached(name: str, requires: str, open_cache: Callable[[Path, int], Any], **given: Any) -> Library:
    given = {"statements": API, "close": leave, "program": "memcached", **given}
    return Library(name, requires, open_cache, **given)


_CLASSES: Final = {"pymemcache": "PyMemcacheCache", "pylibmc": "PyLibMCCache"}

STOREROOM_MEMCACHED: Final = {
    driver: _memcached(
        "Storeroom", driver, partial(_open_memcached, f"storeroom.backends.memcached.{name}"), fill=fill_storeroom
    )
    for driver, name in _CLASSES.items()
}
DJANGO_MEMCACHED: Final = {
    driver: _memcached(
        "Django",
        driver,
        partial(_open_memcached, f"django.core.cache.backends.memcached.{name}"),
        fill=fill_storeroom,
        close=_close,
    )
    for driver, name in _CLASSES.items()
}
"""Name of the driver to the class that uses it."""

_RAW: Final = {
    "pymemcache": _memcached(
        "pymemcache",
        "pymemcache",
        _open_pymemcache,
        statements={
            "get": "cache.get(key)",
            "set": f"cache.set(key, value, expire={TIMEOUT}, noreply=False)",  # as caches do: they tell what was stored
            "get_many": "cache.get_many(keys_of_batch)",
            "set_many": "pymemcache_set_many(cache, batch)",
        },
        fill=pymemcache_set_many,
        close=_close,
    ),
    "pylibmc": _memcached(
        "pylibmc",
        "pylibmc",
        _open_pylibmc,
        statements={
            "get": "cache.get(key)",
            "set": f"cache.set(key, value, time={TIMEOUT})",
            "get_many": "cache.get_multi(keys_of_batch)",
            "set_many": "pylibmc_set_many(cache, batch)",
        },
        fill=pylibmc_set_many,
        close=leave,
    ),
}


def raw_memcached(driver: str) -> Library:
    """Return the client itself."""
    return _RAW[driver]


SERVER_CALLS: Final = {
    call.__name__: call
    for call in (
        get_all_at_once,
        psycopg_get,
        psycopg_set,
        pylibmc_set_many,
        pymemcache_set_many,
        redis_pipeline,
        redis_set_many,
        sqlite3_get,
        sqlite3_set,
        sqlite3_set_many,
    )
}
"""What statements may call."""
