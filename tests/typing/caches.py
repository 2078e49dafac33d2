"""Caches have the types of their operations, and can be told to be of a class. Checked by mypy and pyright, never run.

The lines with ``# type: ignore`` are errors to both.
"""

from typing import Any, assert_type

import storeroom
from storeroom import cache, cached, caches
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.backends.redis import RedisCache
from storeroom.base import BaseCache

# Reading ----------------------------------------------------------------------------------------

assert_type(cache.get("k"), Any | None)
assert_type(cache.get("k", 0), Any | int)
assert_type(cache.get("k", None), Any | None)
assert_type(cache.get("k", "", 2), Any | str)
assert_type(cache.get_many(["k"]), dict[str, Any])
number: int = cache.get("k", 0)
text: str = cache.get("k")  # type: ignore[assignment]
text = cache.get("k", 0)  # type: ignore[arg-type]
cache.get("k").upper()  # type: ignore[union-attr]
cache.get("k", defualt=1)  # type: ignore[call-overload]


async def read() -> None:
    assert_type(await cache.aget("k"), Any | None)
    assert_type(await cache.aget("k", "x"), Any | str)


# Counting ---------------------------------------------------------------------------------------

assert_type(cache.incr("k"), int)
assert_type(cache.decr("k", 2, default=0, timeout="5m"), int)
assert_type(cache.incr("k", 0.5), float)
assert_type(cache.incr("k", default=0.0), float)
cache.incr("k", "1")  # type: ignore[call-overload]


async def counted() -> None:
    assert_type(await cache.aincr("k"), int)
    assert_type(await cache.adecr("k", 0.5), float)


# One class --------------------------------------------------------------------------------------

redis = caches.typed("sessions", RedisCache)
assert_type(caches["sessions"], BaseCache)
assert_type(redis, RedisCache)
assert_type(redis.delete_pattern("user:*"), int)
assert_type(redis.set("k", 1, nx=True), bool | None)
assert_type(caches.typed("sessions", storeroom.RedisCache).delete_pattern("user:*"), int)
caches["sessions"].delete_pattern("user:*")  # type: ignore[attr-defined]
cache.set("k", 1, nx=True)  # type: ignore[call-arg]
caches.typed("sessions", "RedisCache")  # type: ignore[arg-type]


# Caches without a configuration -----------------------------------------------------------------

files = storeroom.FileCache("directory", timeout="1h", max_entries=10, jitter=0.1)
memory = storeroom.LocMemCache()


def load() -> list[int]:
    return [1]


def in_files(given: storeroom.FileCache) -> FileBasedCache:
    return given


assert_type(files.get("k", ""), Any | str)
assert_type(memory.get("k", ""), Any | str)
assert_type(memory.get_or_set("k", load), list[int])
assert_type(files.get_or_set("k", load, "5m"), list[int])
assert_type(storeroom.RedisCache("redis://127.0.0.1").get_or_set("k", load), list[int])
assert_type(files.give_back(), int | None)
assert_type(LocMemCache("a", {}).incr("k"), int)
in_files(files)
in_files(memory)  # type: ignore[arg-type]
storeroom.FileCache()  # type: ignore[call-arg]
storeroom.FileCache("directory", timeout=[])  # type: ignore[arg-type]


async def in_a_loop() -> None:
    assert_type(await files.aget("k", ""), Any | str)
    assert_type(await memory.aget_or_set("k", load), list[int])


# @cached ----------------------------------------------------------------------------------------


@cached(cache=files, clearable=True)
def area(width: int) -> int:
    return width


@cached(cache=memory)
async def aarea(width: int) -> int:
    return width


class Shop:
    @cached(key="orders", ignore=["self"])
    def orders(self) -> list[str]:
        return []


assert_type(area.clear(), None)
assert_type(area.keys(), list[str])
assert_type(area.cache_info().hits, int)
assert_type(area.cache_info().entries, int | None)
assert_type(Shop().orders.keys(), list[str])
assert_type(Shop.orders.cache_info().saved_seconds, float)
cached(cache="files")  # type: ignore[call-overload]


async def of_all() -> None:
    await aarea.clear()
    assert_type(await aarea.keys(), list[str])
    assert_type((await aarea.cache_info()).computed, int)
    aarea.clear()  # type: ignore[unused-coroutine]
