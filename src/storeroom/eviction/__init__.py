"""A map in memory that stays within its bounds."""

from storeroom.eviction.bounded_map import (
    ENCODED,
    MOST_HITS,
    BoundedMap,
    Entries,
    Entry,
    Pinned,
    entry_size,
)
from storeroom.eviction.dropping import DELETED, EVICTED
from storeroom.eviction.shards import Debris, free

__all__ = [
    "DELETED",
    "ENCODED",
    "EVICTED",
    "MOST_HITS",
    "BoundedMap",
    "Debris",
    "Entries",
    "Entry",
    "Pinned",
    "entry_size",
    "free",
]
