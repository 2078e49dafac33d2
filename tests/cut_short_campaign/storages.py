"""The storages of the campaign, each with the configuration of a cache on it."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

from tests.faults.kinds import SITES

__all__ = ["ALIASES", "STORAGES", "running"]

Alias: TypeAlias = dict[str, Any]

#: Seconds that a cache waits for its server, so that a busy machine is no outage.
PATIENT: Final = {"socket_timeout": 20, "socket_connect_timeout": 20, "on_error": "raise"}

_BACKENDS: Final = "storeroom.backends"


def _site(kind: str, alias: Callable[[Any], Alias]) -> Callable[[Path], Iterator[Alias]]:
    def start(folder: Path) -> Iterator[Alias]:
        with contextmanager(SITES[kind].servers)(folder) as server:
            yield alias(server)

    return start


def _database(server: Any) -> Alias:
    options = {**PATIENT, "url": server.url()}
    return {"BACKEND": f"{_BACKENDS}.db.DatabaseCache", "LOCATION": "cache", "OPTIONS": options}


def _memcached(name: str) -> Callable[[Any], Alias]:
    return lambda server: {
        "BACKEND": f"{_BACKENDS}.memcached.{name}",
        "LOCATION": f"127.0.0.1:{server.port}",
        "OPTIONS": dict(PATIENT),
    }


def _locmem(_: Path) -> Iterator[Alias]:
    yield {"BACKEND": f"{_BACKENDS}.locmem.LocMemCache", "LOCATION": "campaign", "OPTIONS": {"max_entries": 2000}}


def _file(folder: Path) -> Iterator[Alias]:
    yield {"BACKEND": f"{_BACKENDS}.filebased.FileBasedCache", "LOCATION": str(folder / "cache")}


def _sqlite(folder: Path) -> Iterator[Alias]:
    options = {"url": f"sqlite:///{folder}/cache.sqlite3", "on_error": "raise"}
    yield {"BACKEND": f"{_BACKENDS}.db.DatabaseCache", "LOCATION": "cache", "OPTIONS": options}


def _redis(server: Any) -> Alias:
    location = f"redis://127.0.0.1:{server.port}/0"
    return {"BACKEND": f"{_BACKENDS}.redis.RedisCache", "LOCATION": location, "OPTIONS": dict(PATIENT)}


ALIASES: Final[Mapping[str, Callable[[Any], Alias]]] = {
    "postgresql": _database,
    "mariadb": _database,
    "redis": _redis,
    "pymemcache": _memcached("PyMemcacheCache"),
    "pylibmc": _memcached("PyLibMCCache"),
}
"""Kind of server to the configuration of a cache on one."""

STORAGES: Final[Mapping[str, Callable[[Path], Iterator[Alias]]]] = {
    "locmem": _locmem,
    "file": _file,
    "sqlite": _sqlite,
    **{kind: _site(kind, alias) for kind, alias in ALIASES.items()},
}


@contextmanager
def running(name: str) -> Iterator[Alias]:
    """Yield the configuration of a cache on a storage of this name, which is there within the block."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="storeroom-campaign-"))
        yield stack.enter_context(contextmanager(STORAGES[name])(Path(directory)))
