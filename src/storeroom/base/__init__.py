"""BaseCache: every method of a cache, on the hooks of a storage."""

from storeroom.base.entries import (
    BaseCache,
)

__all__ = [
    "BaseCache",
]
