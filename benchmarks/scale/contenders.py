"""The caches that are measured at each size: Storeroom's storages, and two peers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks import memory, servers
from benchmarks.libraries import fill_storeroom

__all__ = ["CONTENDERS", "LOUD", "STOREROOM", "TIMEOUT", "Contender", "Room", "located"]

TIMEOUT: Final = 86_400
"""Seconds that an entry lives: longer than any measurement."""

TABLE: Final = "scale"


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that a cache occupies; None where it has no such place, or where it cannot be told.

    Attributes:
        memory: of the process alone, without pages that processes share; of Redis, that of the server.
        disk: of its files, holes not counted; of PostgreSQL, those of its database.
    """

    memory: int | None = None
    disk: int | None = None

    def since(self, before: "Room", entries: int) -> dict[str, float]:
        """Return bytes per entry since then, by place."""
        pairs = {"memory": (self.memory, before.memory), "disk": (self.disk, before.disk)}
        return {
            place: max(0, after - earlier) / entries
            for place, (after, earlier) in pairs.items()
            if after is not None and earlier is not None
        }


def _nothing(cache: Any, location: str) -> None:
    """Prepare nothing: it was opened with a bound in entries."""


def _of_process(location: str) -> Room:
    return Room(memory=memory.private())


def _of_files(location: str) -> Room:
    return Room(memory=memory.private(), disk=memory.on_disk(Path(location)))


def _close(cache: Any) -> None:
    cache.close()


def _close_engine(cache: Any) -> None:
    cache._engine.close()


def _leave(cache: Any) -> None:
    """Let its end be that of the process."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One cache.

    Attributes:
        name: as the page shows it.
        modules: that it loads, the first of which must be installed.
        open: takes a directory, or the URL of a server, and the bound in entries; returns the cache.
        statements: operation to statement, run with `cache`, `key` and `value`; one that it lacks is absent.
        fill: stores a few entries as fast as it can.
        close: lets go of it, and leaves what is stored.
        room: takes the location; tells what the cache occupies.
        limit: bounds the cache to what it holds, so that the next new key needs room.
        unlimit: takes that back.
        server: the program that must be installed, and runs while it is measured.
        is_kept: whether the entries outlive the process.
    """

    name: str
    modules: Sequence[str]
    open: Callable[[str, int], Any]
    statements: Mapping[str, str]
    fill: Callable[[Any, Mapping[str, Any]], None] = fill_storeroom
    close: Callable[[Any], None] = _close_engine
    room: Callable[[str], Room] = _of_files
    limit: Callable[[Any, str], None] = _nothing
    unlimit: Callable[[Any, str], None] = _nothing
    server: str = ""
    is_kept: bool = True

    @property
    def lacks(self) -> str:
        """What is not installed here that it needs, or nothing."""
        if find_spec(self.modules[0]) is None:
            return self.modules[0]
        return self.server if self.server and which(self.server) is None else ""


@contextmanager
def located(contender: Contender) -> Iterator[str]:
    """Yield an empty directory, or the URL of an empty server, for a contender."""
    with TemporaryDirectory(prefix="storeroom-bench-", ignore_cleanup_errors=True) as directory:
        try:
            yield _SERVERS[contender.server]() if contender.server else directory
        finally:
            servers.stop()


_SERVERS: Final[Mapping[str, Callable[[], str]]] = {
    "redis-server": servers.redis,
    "pg_ctlcluster": lambda: str(servers.postgresql().url()),
}


# Storeroom ----------------------------------------------------------------------------------------

STOREROOM: Final = {
    "get": "cache.get(key)",
    "set": "cache.set(key, value)",
    "set with a tag": "cache.set(key, value, tags=(key[-2:],))",
    "count": "cache.count()",
    "clear": "cache.clear()",
}
"""The last two digits of a key are its tag: there are 256 tags."""


LOUD: Final = {"on_error": "raise", "socket_timeout": 60}
"""A server that lets one wait is measured, and no miss of an outage is taken for a fast read."""

REDIS_MODULES: Final = ("backends.redis.engine", "backends.redis.operations", "near.hooks", "serializers.pickles")
"""Modules that bring all that a first get needs."""


def _params(**options: Any) -> dict[str, Any]:
    return {"TIMEOUT": TIMEOUT, "OPTIONS": options}


def _open_memory(location: str, bound: int) -> Any:
    from storeroom.backends.locmem import LocMemCache

    return LocMemCache(location, _params(max_entries=bound))


def _open_files(location: str, bound: int) -> Any:
    from storeroom.backends.filebased import FileBasedCache

    return FileBasedCache(location, _params(max_entries=bound))


def _open_database(url: str, bound: int) -> Any:
    from storeroom.backends.db import DatabaseCache

    return DatabaseCache(TABLE, _params(url=url, max_entries=bound, **LOUD))


def _open_sqlite(location: str, bound: int) -> Any:
    return _open_database(f"sqlite:///{location}/storeroom.sqlite3", bound)


def _open_postgresql(url: str, bound: int) -> Any:
    # A large table there keeps room for the writes that run at the same time, and evicts many at once: see IN_FLIGHT.
    return _open_database(url, bound + 48)


def _open_redis(location: str, bound: int) -> Any:
    from storeroom.backends.redis import RedisCache

    return RedisCache(location, _params(**LOUD))


def _of_postgresql(location: str) -> Room:
    import psycopg

    with psycopg.connect(location, autocommit=True) as connection:
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    return Room(disk=row[0] if row else None)


def _used_by_redis(location: str) -> int:
    import redis

    with redis.Redis.from_url(location) as client:
        return int(client.info("memory")["used_memory"])


def _of_redis(location: str) -> Room:
    return Room(memory=_used_by_redis(location))


def _limit_redis(cache: Any, location: str) -> None:
    """Let it be full: it evicts for a new key what it used least recently, about."""
    _configure_redis(location, maxmemory=_used_by_redis(location), policy="allkeys-lru")


def _unlimit_redis(cache: Any, location: str) -> None:
    _configure_redis(location, maxmemory=0, policy="noeviction")


def _configure_redis(location: str, maxmemory: int, policy: str) -> None:
    import redis

    with redis.Redis.from_url(location) as client:
        client.config_set("maxmemory-policy", policy)
        client.config_set("maxmemory", maxmemory)


# Peers --------------------------------------------------------------------------------------------

DISKCACHE: Final = {
    "get": "cache.get(key)",
    "set": f"cache.set(key, value, {TIMEOUT})",
    "set with a tag": f"cache.set(key, value, {TIMEOUT}, tag=key[-2:])",
    "count": "len(cache)",
    "clear": "cache.clear()",
}
CACHEBOX: Final = {
    "get": "cache.get(key)",
    "set": f"cache.insert(key, value, {TIMEOUT})",
    "count": "len(cache)",
    "clear": "cache.clear()",
}


def _open_diskcache(location: str, bound: int) -> Any:
    from diskcache import Cache

    return Cache(location, size_limit=2**40)


def _fill_diskcache(cache: Any, entries: Mapping[str, Any]) -> None:
    usual, cache.cull_limit = cache.cull_limit, 0  # each set would look for entries to remove
    with cache.transact():
        for key, value in entries.items():
            cache.set(key, value, TIMEOUT)
    cache.cull_limit = usual


def _limit_diskcache(cache: Any, location: str) -> None:
    """Let it be full: it has a bound in bytes alone."""
    cache.reset("size_limit", cache.volume())


def _unlimit_diskcache(cache: Any, location: str) -> None:
    cache.reset("size_limit", 2**40)


def _open_cachebox(location: str, bound: int) -> Any:
    from cachebox import VTTLCache

    return VTTLCache(bound)


def _fill_cachebox(cache: Any, entries: Mapping[str, Any]) -> None:
    for key, value in entries.items():
        cache.insert(key, value, TIMEOUT)


CONTENDERS: Final = {
    contender.name: contender
    for contender in (
        Contender(
            "local memory", ["storeroom"], _open_memory, STOREROOM, close=_leave, room=_of_process, is_kept=False
        ),
        Contender("files", ["storeroom"], _open_files, STOREROOM),
        Contender("SQLite", ["storeroom"], _open_sqlite, STOREROOM),
        Contender(
            "PostgreSQL",
            ["psycopg", "storeroom.backends.db.postgresql", "storeroom.serializers.pickles"],
            _open_postgresql,
            STOREROOM,
            room=_of_postgresql,
            server="pg_ctlcluster",
        ),
        Contender(
            "Redis",
            ["redis", *(f"storeroom.{name}" for name in REDIS_MODULES)],
            _open_redis,
            STOREROOM,
            close=_leave,
            room=_of_redis,
            limit=_limit_redis,
            unlimit=_unlimit_redis,
            server="redis-server",
        ),
        Contender(
            "diskcache",
            ["diskcache"],
            _open_diskcache,
            DISKCACHE,
            fill=_fill_diskcache,
            close=_close,
            limit=_limit_diskcache,
            unlimit=_unlimit_diskcache,
        ),
        Contender(
            "cachebox",
            ["cachebox"],
            _open_cachebox,
            CACHEBOX,
            fill=_fill_cachebox,
            close=_leave,
            room=_of_process,
            is_kept=False,
        ),
    )
}
"""Name to cache; ours first."""
