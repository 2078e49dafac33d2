"""Forget all entries whose keys have a shape: for ``clear()`` of a @cached function."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from storeroom.storage.steps import Steps

if TYPE_CHECKING:
    from storeroom.base.listing import ListingCache

__all__ = ["forgetting"]


def forgetting(cache: "ListingCache", prefix: str, matches: Callable[[str], bool], version: int | None) -> Steps[None]:
    """Remove the entries whose keys begin with `prefix`, and match.

    So are those that keys() does not list: entries past their timeout, which may be served as stale ones, and those of
    computations under way, whose results are not stored then.

    Raises:
        NotSupportedError: as keys() does.
    """
    space = cache._listing_space(version)
    version = cache.version if version is None else version
    found = yield cache._overlay or cache, "_scan", (space.beginning(prefix, version),)
    typed = (space.caller_key(storage_key, version) for storage_key in found)
    yield cache, "delete_many", ([key for key in typed if key is not None and matches(key)], version)
