"""The operations that compute have the type of the computation. Checked by mypy and pyright, never run.

The lines with ``# type: ignore`` are errors to both.
"""

from functools import partial
from typing import Any, assert_type

from storeroom import cache, caches


class Shop:
    pass


def number() -> int:
    return 1


def maybe() -> str | None:
    return None


def anything() -> Any:
    return None


def orders(page: int, of: str = "") -> dict[str, int]:
    return {of: page}


async def anumber() -> int:
    return 1


async def aorders(page: int) -> dict[str, int]:
    return {"page": page}


assert_type(cache.get_or_set("k", number), int)
assert_type(cache.get_or_set("k", maybe, "5m", tags=["t"], early=1), str | None)
assert_type(cache.get_or_set("k", anything), Any)
assert_type(cache.get_or_set("k", Shop), Shop)
assert_type(cache.get_or_set("k", lambda: orders(1), None), dict[str, int])
assert_type(cache.get_or_set("k", partial(orders, 1, of="a"), stale_while_revalidate="1h"), dict[str, int])
assert_type(cache.get_or_set("k", 5), int)
assert_type(cache.get_or_set("k", [1], len), list[int])
assert_type(cache.get_or_set("k", None), None)
assert_type(caches["other"].get_or_set("k", number, version=2), int)
assert_type(cache.refresh("k", number, "5m", tags=["t"]), int)
assert_type(cache.refresh("k", lambda: orders(1)), dict[str, int])
assert_type(cache.refresh("k", "text"), str)


async def awaited() -> None:
    assert_type(await cache.aget_or_set("k", anumber), int)
    assert_type(await cache.aget_or_set("k", number), int)
    assert_type(await cache.aget_or_set("k", maybe, "5m", tags=["t"], jitter=0.1), str | None)
    assert_type(await cache.aget_or_set("k", lambda: aorders(1)), dict[str, int])
    assert_type(await cache.aget_or_set("k", partial(aorders, 1), hard_timeout=1), dict[str, int])
    assert_type(await cache.aget_or_set("k", 5), int)
    assert_type(await cache.aget_or_set("k", Shop), Shop)
    assert_type(await cache.arefresh("k", anumber), int)
    assert_type(await cache.arefresh("k", number), int)
    assert_type(await cache.arefresh("k", "text"), str)
    await cache.aget_or_set("k", anumber, timout="5m")  # type: ignore[call-overload]


cache.get_or_set("k", number, timout="5m")  # type: ignore[call-overload]
cache.refresh("k", number, timout="5m")  # type: ignore[call-overload]
cache.get_or_set("k", number, object())  # type: ignore[call-overload]
wrong: str = cache.get_or_set("k", number)  # type: ignore[assignment]


# Many -------------------------------------------------------------------------------------------


def lengths(keys: list[str]) -> dict[str, int]:
    return {key: len(key) for key in keys}


async def alengths(keys: list[str]) -> dict[str, int]:
    return lengths(keys)


assert_type(cache.get_or_set_many(["a"], lengths), dict[str, int])
cache.get_or_set_many([1], lengths)  # type: ignore[arg-type]


async def many() -> None:
    assert_type(await cache.aget_or_set_many(["a"], lengths), dict[str, int])
    assert_type(await cache.aget_or_set_many(["a"], alengths), dict[str, int])
