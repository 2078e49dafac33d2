"""The types of explain(), as users see them."""

from typing import Any, assert_type

from storeroom import cache
from storeroom.base.explanation import Explanation, Lease, TagState, Tier


async def explained() -> None:
    found = cache.explain("k", version=2)
    assert_type(found, Explanation)
    assert_type(await cache.aexplain("k"), Explanation)
    assert_type(found.would_hit, bool)
    assert_type(found.cause, str)
    assert_type(found.left, float | None)
    assert_type(found.tiers, tuple[Tier, ...])
    assert_type(found.tags, tuple[TagState, ...])
    assert_type(found.lease, Lease | None)
    assert_type(found.as_dict(), dict[str, Any])
