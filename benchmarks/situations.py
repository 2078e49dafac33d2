"""Redis and Memcached by a Unix socket, by pipelines, and with longer values: see ``server_rows``."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks import servers
from benchmarks.goals import Steady
from benchmarks.libraries import Library
from benchmarks.rows import Row
from benchmarks.server_libraries import (
    REDIS_PY,
    STOREROOM_MEMCACHED,
    STOREROOM_REDIS,
    fresh_params,
    raw_memcached,
)
from benchmarks.timing import Contender

__all__ = ["SITUATIONS"]

_LENGTHS: Final = {"1 kB": 1_000, "100 kB": 100_000}


def _open_storeroom(_: Path, __: int) -> Any:
    from storeroom.backends.redis import RedisCache

    return RedisCache(servers.redis_socket(), fresh_params())


def _open_redis_py(_: Path, __: int) -> Any:
    import redis

    return redis.Redis.from_url(servers.redis_socket())


_BY_SOCKET: Final = (replace(STOREROOM_REDIS, open=_open_storeroom), replace(REDIS_PY, open=_open_redis_py))
_BY_PIPELINE: Final = replace(
    REDIS_PY, statements={**REDIS_PY.statements, "get_many": "redis_pipeline(cache, keys_of_batch)"}
)


def _long(name: str, libraries: Sequence[Library]) -> list[Row]:
    return [
        Row(
            name.format(f"{operation} of {words}"),
            [Contender(library, operation, entries=200, value="x" * length) for library in libraries],
        )
        for words, length in _LENGTHS.items()
        for operation in ("get", "set")
    ]


SITUATIONS: Final = (
    Row("redis get, Unix socket", [Contender(each, "get") for each in _BY_SOCKET], [Steady(0.85, "redis-py")]),
    Row(
        "redis get_many of 100, Unix socket",
        [Contender(library, "get_many") for library in _BY_SOCKET],
        [Steady(1.1, "redis-py")],
    ),
    Row(
        "redis get_many of 100, pipeline",
        [Contender(STOREROOM_REDIS, "get_many"), Contender(_BY_PIPELINE, "get_many")],
    ),
    *_long("redis {}", (STOREROOM_REDIS, REDIS_PY)),
    *(
        row
        for driver, library in STOREROOM_MEMCACHED.items()
        for row in _long(f"memcached {{}}, {driver}", (library, raw_memcached(driver)))
    ),
)
"""Rows beside those of the usual situation: one server, by TCP, with short values."""
