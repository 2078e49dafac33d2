"""Bounded maps as a backend uses them: filled, hit and full."""

import math

from storeroom.eviction import ENCODED, BoundedMap

NEVER = math.inf


def put(bounded, key, value=None, *, expires_at=NEVER, size=1, now=0.0):
    """Insert or overwrite, as a backend does under its lock."""
    encoded = value if isinstance(value, bytes) else None
    entry = bounded.entries.get(key)
    if entry is None:
        bounded.insert(key, value if encoded is None else ENCODED, encoded, expires_at, size, now)
    else:
        bounded.replace(entry, value if encoded is None else ENCODED, encoded, expires_at, size, now)


def hit(bounded, *keys, times=1):
    for key in keys:
        for _ in range(times):
            entry = bounded.entries[key]
            if entry.freq < 2:
                entry.freq += 1


def fill(bounded, count, prefix="filler", **settings):
    """Insert as many entries; return their keys."""
    keys = [f"{prefix}{number}" for number in range(count)]
    for key in keys:
        put(bounded, key, **settings)
    return keys


def full(capacity, **settings):
    """Return a full map that has evicted one entry."""
    bounded = BoundedMap(capacity, **settings)
    fill(bounded, capacity + 1)
    return bounded
