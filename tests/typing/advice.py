"""The advice of a cache has types. Checked by mypy and pyright, never run."""

from typing import assert_type

from storeroom import cache
from storeroom.advice import Advice


async def advised() -> None:
    assert_type(cache.advice(), Advice)
    assert_type(await cache.aadvice(), Advice)
    for point in cache.advice().by_max_entries:
        assert_type(point.hit_ratio, float)
