"""A map in memory that stays within its bounds."""

from storeroom.eviction.bounded_map import (
    ENCODED,
    MOST_HITS,
    BoundedMap,
    Entry,
    Pinned,
    entry_size,
)

__all__ = [
    "ENCODED",
    "MOST_HITS",
    "BoundedMap",
    "Entry",
    "Pinned",
    "entry_size",
]
