"""The caches that are measured, and how each of them says what all of them can do.

A statement is run once for each `key`. It may use `cache`, `value`, `batch` (a dict
of a hundred entries), `keys_of_batch`, `compute` and the functions of this module.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any, Final

from benchmarks.leases import renew_lease

__all__ = ["BOUND", "CALLS", "DJANGO_API", "FILE", "LMDB", "MEMORY", "TIMEOUT", "Library", "fill_storeroom"]

BOUND: Final = 1_000_000
"""How many entries each cache may hold: more than any measurement stores, unless it is about eviction."""

TIMEOUT: Final = 300
"""Seconds that an entry lives: Django's default."""


def _fill_one_by_one(cache: Any, entries: Mapping[str, Any]) -> None:
    for key, value in entries.items():
        cache.set(key, value)


def _fill_items(cache: Any, entries: Mapping[str, Any]) -> None:
    for key, value in entries.items():
        cache[key] = value


def _close(cache: Any) -> None:
    cache.close()


def _clear(cache: Any) -> None:
    cache.clear()


@dataclass(frozen=True, slots=True)
class Library:
    """One library's cache of one kind.

    Attributes:
        name: as the tables show it.
        requires: the module that must be installed.
        open: takes an empty directory of its own and the bound in entries; returns the cache.
        statements: operation to statement.
        fill: stores many entries as fast as the library can; by default one by one.
        close: lets go of memory and directory; by default, clears.
        program: of the server that must be installed, too.
    """

    name: str
    requires: str
    open: Callable[[Path, int], Any]
    statements: Mapping[str, str]
    fill: Callable[[Any, Mapping[str, Any]], None] = _fill_one_by_one
    close: Callable[[Any], None] = _clear
    program: str = ""

    @property
    def lacks(self) -> str:
        """What is not installed here that it needs: the library itself, the program of its server, or nothing."""
        if find_spec(self.requires) is None:
            return self.name
        return self.program if self.program and which(self.program) is None else ""

    @property
    def is_installed(self) -> bool:
        """Whether it can be used here."""
        return not self.lacks

    @contextmanager
    def opened(self, directory: Path, bound: int = BOUND) -> Iterator[Any]:
        """Open the cache in an empty directory, and close it in the end."""
        cache = self.open(directory, bound)
        try:
            yield cache
        finally:
            self.close(cache)


# Storeroom ----------------------------------------------------------------------------------


def _open_storeroom_memory(directory: Path, bound: int) -> Any:
    from storeroom.backends.locmem import LocMemCache

    return LocMemCache(str(directory), {"TIMEOUT": TIMEOUT, "OPTIONS": {"max_entries": bound}})


def _open_storeroom_file(directory: Path, bound: int) -> Any:
    from storeroom.backends.filebased import FileBasedCache

    return FileBasedCache(str(directory), {"TIMEOUT": TIMEOUT, "OPTIONS": {"max_entries": bound}})


def fill_storeroom(cache: Any, entries: Mapping[str, Any]) -> None:
    items = list(entries.items())
    for start in range(0, len(items), 1_000):
        cache.set_many(dict(items[start : start + 1_000]))


def _close_storeroom(cache: Any) -> None:
    cache._engine.close()


DJANGO_API: Final = {
    "get": "cache.get(key)",
    "set": "cache.set(key, value)",
    "set for a time": f"cache.set(key, value, {TIMEOUT})",
    "aget": "await cache.aget(key)",
    "get_or_set": "cache.get_or_set(key, compute)",
    "get_many": "cache.get_many(keys_of_batch)",
    "set_many": "cache.set_many(batch)",
    "add, delete": "cache.delete(key); cache.add(key, value)",
    "incr": "cache.incr(key)",
}
"""Storeroom's statements and Django's: the API is the same."""

STOREROOM_MEMORY: Final = Library("Storeroom", "storeroom", _open_storeroom_memory, DJANGO_API, fill_storeroom)
STOREROOM_FILE: Final = Library(
    "Storeroom", "storeroom", _open_storeroom_file, DJANGO_API, fill_storeroom, _close_storeroom
)


# Django ---------------------------------------------------------------------------------------


def _open_django_memory(directory: Path, bound: int) -> Any:
    from django.core.cache.backends.locmem import LocMemCache

    return LocMemCache(str(directory), {"TIMEOUT": TIMEOUT, "OPTIONS": {"MAX_ENTRIES": bound}})


def _open_django_file(directory: Path, bound: int) -> Any:
    from django.core.cache.backends.filebased import FileBasedCache

    return FileBasedCache(str(directory), {"TIMEOUT": TIMEOUT, "OPTIONS": {"MAX_ENTRIES": bound}})


def _fill_django_file(cache: Any, entries: Mapping[str, Any]) -> None:
    cache._cull = lambda: None  # each set would list the directory, which takes minutes for thousands
    _fill_one_by_one(cache, entries)
    del cache._cull


DJANGO_MEMORY: Final = Library("Django", "django", _open_django_memory, DJANGO_API)
DJANGO_FILE: Final = Library("Django", "django", _open_django_file, DJANGO_API, _fill_django_file)


# Their peers ----------------------------------------------------------------------------------


def _open_cachetools(directory: Path, bound: int) -> Any:
    from cachetools import TTLCache

    return TTLCache(bound, TIMEOUT)


def _open_cachebox(directory: Path, bound: int) -> Any:
    from cachebox import VTTLCache

    return VTTLCache(bound)


def _fill_cachebox(cache: Any, entries: Mapping[str, Any]) -> None:
    for key, value in entries.items():
        cache.insert(key, value, TIMEOUT)


def _open_cachelib_memory(directory: Path, bound: int) -> Any:
    from cachelib import SimpleCache

    return SimpleCache(bound, TIMEOUT)


def _open_cachelib_file(directory: Path, bound: int) -> Any:
    from cachelib import FileSystemCache

    return FileSystemCache(str(directory), bound, TIMEOUT)


CACHETOOLS: Final = Library(
    "cachetools",
    "cachetools",
    _open_cachetools,
    {
        "get": "cache.get(key)",
        "set": "cache[key] = value",
        "add, delete": "del cache[key]; cache.setdefault(key, value)",
    },
    _fill_items,
)
CACHEBOX: Final = Library(
    "cachebox",
    "cachebox",
    _open_cachebox,
    {
        "get": "cache.get(key)",
        "set": f"cache.insert(key, value, {TIMEOUT})",
        "set for a time": f"cache.insert(key, value, {TIMEOUT})",
    },
    _fill_cachebox,
)
CACHELIB_API: Final = {
    "get": "cache.get(key)",
    "set": "cache.set(key, value)",
    "set for a time": f"cache.set(key, value, {TIMEOUT})",
    "get_many": "cache.get_dict(*keys_of_batch)",
    "set_many": "cache.set_many(batch)",
    "add, delete": "cache.delete(key); cache.add(key, value)",
    "incr": "cache.inc(key)",
}
CACHELIB_MEMORY: Final = Library("cachelib", "cachelib", _open_cachelib_memory, CACHELIB_API)
CACHELIB_FILE: Final = Library("cachelib", "cachelib", _open_cachelib_file, CACHELIB_API)


def _open_diskcache(directory: Path, bound: int) -> Any:
    from diskcache import Cache

    return Cache(str(directory), size_limit=2**40)


def diskcache_set_all(cache: Any, entries: Mapping[str, Any]) -> None:
    with cache.transact():
        for key, value in entries.items():
            cache.set(key, value, TIMEOUT)


def diskcache_set_many(cache: Any, batch: Mapping[str, Any]) -> None:
    for key, value in batch.items():
        cache.set(key, value, TIMEOUT)


def diskcache_get_many(cache: Any, keys: Any) -> dict[str, Any]:
    return {key: cache.get(key) for key in keys}


DISKCACHE: Final = Library(
    "diskcache",
    "diskcache",
    _open_diskcache,
    {
        "get": "cache.get(key)",
        "set": f"cache.set(key, value, {TIMEOUT})",
        "get_many": "diskcache_get_many(cache, keys_of_batch)",
        "set_many": "diskcache_set_many(cache, batch)",
        "add, delete": f"cache.delete(key); cache.add(key, value, {TIMEOUT})",
        "incr": "cache.incr(key)",
    },
    diskcache_set_all,
    _close,
)
DISKCACHE_TRANSACTION: Final = Library(
    "diskcache, one transaction",
    "diskcache",
    _open_diskcache,
    {"set_many": "diskcache_set_all(cache, batch)"},
    diskcache_set_all,
    _close,
)


# What they are built on -------------------------------------------------------------------------


def _open_dict(directory: Path, bound: int) -> dict[str, Any]:
    return {}


async def coroutine(cache: Any, key: str) -> Any:
    return cache.get(key)


def _open_lmdb(directory: Path, bound: int) -> Any:
    import lmdb

    # As Storeroom's file cache opens it: no waiting for the disk, one read transaction kept for the next.
    return lmdb.open(str(directory), map_size=2**36, sync=False, metasync=False, readahead=False, max_spare_txns=1)


def lmdb_get(environment: Any, key: str) -> Any:
    with environment.begin() as transaction:
        return transaction.get(key.encode())


def lmdb_get_many(environment: Any, keys: Any) -> dict[str, Any]:
    with environment.begin() as transaction:
        return {key: transaction.get(key.encode()) for key in keys}


def lmdb_set(environment: Any, key: str, value: str) -> None:
    with environment.begin(write=True) as transaction:
        transaction.put(key.encode(), value.encode())


def lmdb_set_many(environment: Any, batch: Mapping[str, str]) -> None:
    with environment.begin(write=True) as transaction:
        for key, value in batch.items():
            transaction.put(key.encode(), value.encode())


DICT: Final = Library(
    "dict",
    "builtins",
    _open_dict,
    {"get": "cache.get(key)", "set": "cache[key] = value", "aget": "await coroutine(cache, key)"},
    _fill_items,
)
LMDB: Final = Library(
    "LMDB",
    "lmdb",
    _open_lmdb,
    {
        "get": "lmdb_get(cache, key)",
        "set": "lmdb_set(cache, key, value)",
        "get_many": "lmdb_get_many(cache, keys_of_batch)",
        "set_many": "lmdb_set_many(cache, batch)",
    },
    lmdb_set_many,
    _close,
)

CALLS: Final = {
    call.__name__: call
    for call in (
        coroutine,
        diskcache_get_many,
        diskcache_set_all,
        diskcache_set_many,
        lmdb_get,
        lmdb_get_many,
        lmdb_set,
        lmdb_set_many,
        renew_lease,
    )
}
"""What statements may call."""

MEMORY: Final = (STOREROOM_MEMORY, DJANGO_MEMORY, CACHETOOLS, CACHEBOX, CACHELIB_MEMORY, DICT)
FILE: Final = (STOREROOM_FILE, DJANGO_FILE, DISKCACHE, CACHELIB_FILE, LMDB)
"""Ours first; what they are built on last."""
