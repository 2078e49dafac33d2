"""The decorators that are measured: the "cache" of these libraries is a function that remembers its results."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from benchmarks import servers
from benchmarks.libraries import BOUND, TIMEOUT, Library

__all__ = ["CASHEWS", "DISKCACHE_MEMOIZE", "FUNCTIONS", "STOREROOM_COROUTINE", "STOREROOM_STORED"]


def load(key: str) -> str:
    """Return what is to be remembered."""
    return f"the value of {key}"


async def aload(key: str) -> str:
    """See load()."""
    return f"the value of {key}"


def _call(function: Any, entries: Mapping[str, Any]) -> None:
    for key in entries:
        function(key)


def _leave(function: Any) -> None:
    """Let its end be that of the process."""


@cache
def _configure() -> None:
    import storeroom

    memory = {"BACKEND": "storeroom.backends.locmem.LocMemCache", "LOCATION": "functions"}
    files = {"BACKEND": "storeroom.backends.filebased.FileBasedCache", "LOCATION": str(servers.directory())}
    bounded = {"TIMEOUT": TIMEOUT, "OPTIONS": {"max_entries": BOUND}}
    storeroom.configure({"default": {**memory, **bounded}, "files": {**files, **bounded}})


def _storeroom(function: Any, alias: str) -> Any:
    from storeroom import cached

    _configure()
    return cached(key="value:{key}", alias=alias)(function)


def _lru_cache(_: Path, bound: int) -> Any:
    from functools import lru_cache

    return lru_cache(bound)(load)


def _cachetools(_: Path, bound: int) -> Any:
    from threading import Lock

    from cachetools import TTLCache, cached

    return cached(TTLCache(bound, TIMEOUT), lock=Lock())(load)


def _dogpile(_: Path, __: int) -> Any:
    from dogpile.cache import make_region

    region = make_region().configure("dogpile.cache.memory", expiration_time=TIMEOUT)
    return region.cache_on_arguments()(load)


def _diskcache(directory: Path, _: int) -> Any:
    from diskcache import Cache

    return Cache(str(directory), size_limit=2**40).memoize(expire=TIMEOUT)(load)


def _cashews(_: Path, bound: int) -> Any:
    from cashews import Cache

    cache = Cache()
    cache.setup(f"mem://?size={bound}")
    return cache(ttl=TIMEOUT, key="value:{key}")(aload)


CALLED: Final = {"call": "cache(key)"}
AWAITED: Final = {"call": "await cache(key)"}

FUNCTIONS: Final = (
    Library("Storeroom", "storeroom", lambda _, __: _storeroom(load, "default"), CALLED, _call, _leave),
    Library("functools", "functools", _lru_cache, CALLED, _call, _leave),
    Library("cachetools", "cachetools", _cachetools, CALLED, _call, _leave),
    Library("dogpile", "dogpile", _dogpile, CALLED, _call, _leave),
)
"""Results in the memory of the process."""

STOREROOM_STORED: Final = Library(
    "Storeroom", "storeroom", lambda _, __: _storeroom(load, "files"), CALLED, _call, _leave
)
DISKCACHE_MEMOIZE: Final = Library("diskcache", "diskcache", _diskcache, CALLED, _call, _leave)
"""Results in files."""


def _fill_later(_: Any, __: Mapping[str, Any]) -> None:
    """The first turn, which is not counted, fills the cache: coroutine functions need an event loop for it."""


STOREROOM_COROUTINE: Final = Library(
    "Storeroom", "storeroom", lambda _, __: _storeroom(aload, "default"), AWAITED, _fill_later, _leave
)
CASHEWS: Final = Library("cashews", "cashews", _cashews, AWAITED, _fill_later, _leave)
