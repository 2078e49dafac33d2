"""The rows of the storages that are not embedded, of tiers, of tags and of decorated functions: see ``rows``."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from benchmarks.cluster_libraries import CLUSTER
from benchmarks.functions import CASHEWS, DISKCACHE_MEMOIZE, FUNCTIONS, STOREROOM_COROUTINE, STOREROOM_STORED
from benchmarks.goals import Faster, Goal, Steady
from benchmarks.libraries import STOREROOM_FILE, STOREROOM_MEMORY, Library
from benchmarks.rows import Row
from benchmarks.server_libraries import (
    DJANGO_MEMCACHED,
    DJANGO_POSTGRESQL,
    DJANGO_REDIS,
    DJANGO_REDIS_PACKAGE,
    DJANGO_SQLITE,
    PSYCOPG,
    REDIS_PY,
    SQLITE3,
    STOREROOM_MEMCACHED,
    STOREROOM_NEAR,
    STOREROOM_POSTGRESQL,
    STOREROOM_REDIS,
    STOREROOM_SQLITE,
    STOREROOM_TIERED,
    raw_memcached,
    read_all,
)
from benchmarks.situations import SITUATIONS
from benchmarks.timing import Contender

__all__ = ["SERVER_ROWS"]

MANY: Final = 1_000_000
FEW: Final = 100
"""Rows of a table, to see what size costs."""

_SQLITE: Final = (STOREROOM_SQLITE, DJANGO_SQLITE, SQLITE3)
_POSTGRESQL: Final = (STOREROOM_POSTGRESQL, DJANGO_POSTGRESQL, PSYCOPG)
_REDIS: Final = (STOREROOM_REDIS, DJANGO_REDIS, DJANGO_REDIS_PACKAGE, REDIS_PY)


def _row(name: str, libraries: Sequence[Library], operation: str, goals: Sequence[Goal] = (), **situation: Any) -> Row:
    able = [library for library in libraries if operation in library.statements]
    return Row(name, [Contender(library, operation, **situation) for library in able], goals)


def _steady_size(times: float) -> Row:
    few = f"Storeroom at {FEW} rows"
    contenders = [
        Contender(STOREROOM_POSTGRESQL, "set", entries=MANY),
        Contender(STOREROOM_POSTGRESQL, "set", entries=FEW, label=few),
    ]
    return Row(f"database set at {MANY:,} rows, PostgreSQL", contenders, [Steady(times, few)])


_MEMCACHED_GOALS: Final[Mapping[tuple[str, str], Sequence[Goal]]] = {
    ("get", "pymemcache"): [Steady(1.08, "pymemcache")],
    ("get", "pylibmc"): [Steady(1.08, "pylibmc")],
    ("get_many", "pylibmc"): [Steady(1.3, "pylibmc")],
    ("set_many", "pylibmc"): [Steady(1.2, "pylibmc")],
}


def _memcached(operation: str, words: str) -> list[Row]:
    return [
        _row(
            f"memcached {words}, {driver}",
            [STOREROOM_MEMCACHED[driver], DJANGO_MEMCACHED[driver], raw_memcached(driver)],
            operation,
            _MEMCACHED_GOALS.get((operation, driver), ()),
        )
        for driver in STOREROOM_MEMCACHED
    ]


def _renewal(name: str, library: Library) -> Row:
    leading = replace(library, statements={**library.statements, "renewal": "renew_lease(cache)"})
    return Row(name, [Contender(leading, "renewal"), Contender(library, "set", label="Storeroom's set")])


def _fill_tagged(tags: Sequence[str], cache: Any, entries: Mapping[str, Any]) -> None:
    for key, value in entries.items():
        cache.set(key, value, tags=tags)
    if hasattr(cache, "_near") or cache._overlay is not None:  # memory before it, or near
        read_all(cache, entries)


def _tagged(words: str, library: Library, goals: Sequence[Goal] = ()) -> Row:
    def with_tags(*tags: str) -> Library:
        return replace(library, fill=partial(_fill_tagged, tags))

    contenders = [
        Contender(with_tags("red"), "get"),
        Contender(with_tags("red", "green", "blue"), "get", label="three tags"),
        Contender(library, "get", label="no tags"),
    ]
    return Row(f"tags get with one tag, {words}", contenders, goals)


SERVER_ROWS: Final = (
    _row("database get, SQLite", _SQLITE, "get", [Faster(1.5, "Django")]),
    _row("database set, SQLite", _SQLITE, "set", [Faster(15, "Django"), Steady(4, "sqlite3")]),
    _row("database set_many of 100, SQLite", _SQLITE, "set_many", [Faster(100, "Django")]),
    _row("database get_many of 100, SQLite", _SQLITE, "get_many"),
    _row("database incr, SQLite", _SQLITE, "incr", value=1),
    _row("database get, PostgreSQL", _POSTGRESQL, "get"),
    _row("database set, PostgreSQL", _POSTGRESQL, "set", [Steady(1.3, "psycopg")]),
    _steady_size(1.3),
    _row("redis get", _REDIS, "get", [Steady(0.85, "redis-py")]),
    _row("redis set", _REDIS, "set"),
    _row("redis get_many of 100", _REDIS, "get_many", [Steady(1.1, "redis-py")]),
    _row("redis set_many of 100", _REDIS, "set_many"),
    _row("redis incr", _REDIS, "incr", value=1),
    _row("redis 2,000 agets at once", (STOREROOM_REDIS, DJANGO_REDIS), "agets", [Faster(3, "Django")]),
    _row("redis cluster get", CLUSTER, "get", [Faster(1, "redis-py")]),
    _row("redis cluster set", CLUSTER, "set"),
    _row("redis cluster get_many of 100", CLUSTER, "get_many"),
    *_memcached("get", "get"),
    *_memcached("set", "set"),
    *_memcached("get_many", "get_many of 100"),
    *_memcached("set_many", "set_many of 100"),
    *SITUATIONS,
    _renewal("file renewal of a lease", STOREROOM_FILE),
    _renewal("database renewal of a lease, SQLite", STOREROOM_SQLITE),
    _renewal("database renewal of a lease, PostgreSQL", STOREROOM_POSTGRESQL),
    _renewal("redis renewal of a lease", STOREROOM_REDIS),
    *(_renewal(f"memcached renewal of a lease, {driver}", each) for driver, each in STOREROOM_MEMCACHED.items()),
    Row(
        "tiers get, memory before Redis",
        [
            Contender(STOREROOM_TIERED, "get"),
            Contender(STOREROOM_MEMORY, "get", label="local memory alone"),
            Contender(STOREROOM_REDIS, "get", label="Redis alone"),
        ],
        [Steady(2, "local memory alone")],
    ),
    Row(
        "tiers get, Redis with near",
        [
            Contender(STOREROOM_NEAR, "get"),
            Contender(STOREROOM_MEMORY, "get", label="local memory alone"),
        ],
    ),
    _tagged("local memory", STOREROOM_MEMORY, [Steady(4, "no tags")]),
    _tagged("files", STOREROOM_FILE),
    _tagged("SQLite", STOREROOM_SQLITE),
    _tagged("PostgreSQL", STOREROOM_POSTGRESQL),
    *(_tagged(f"Memcached, {driver}", each) for driver, each in STOREROOM_MEMCACHED.items()),
    _tagged("Redis", STOREROOM_REDIS),
    _tagged("Redis with near", STOREROOM_NEAR),
    _tagged("memory before Redis", STOREROOM_TIERED),
    _row("cached function, in memory", FUNCTIONS, "call"),
    _row("cached function, in files", (STOREROOM_STORED, DISKCACHE_MEMOIZE), "call"),
    _row("cached coroutine function", (STOREROOM_COROUTINE, CASHEWS), "call"),
)
