"""A cache's counts of its own work."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["CacheStats", "Counters"]


@dataclass(slots=True, eq=False)
class Counters:
    """Plain counters that a backend bumps as it works, without a lock.

    Under the interpreter lock they are exact in practice; a free-threaded build may lose a count under contention.
    """

    busy: int = 0
    deletes: int = 0
    errors: int = 0
    evictions: int = 0
    expirations: int = 0
    hits: int = 0
    misses: int = 0
    sets: int = 0
    unstored: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return counter name to count."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class CacheStats:
    """The result of ``cache.stats()``: counts since the storage was first opened.

    Attributes:
        hits: reads that found a live entry.
        misses: reads that found none.
        sets: entries written, by whatever operation.
        deletes: entries removed because somebody asked.
        evictions: entries removed for room.
        expirations: entries removed because their time was over.
        errors: entries that could not be decoded, and failures of the storage that a
            policy turned into a miss.
        unstored: computed values that their callers got, and that the storage refused.
        busy: operations that got no connection in time, as all of this process were in use.
        entries: entries stored now, or None where the storage cannot tell.
        bytes: bytes that keys and values take now, or None where the storage cannot tell.
        tiers: name to counts of each tier, nearest first, of this process; none where there is but one.
    """

    hits: int = 0
    misses: int = 0
    sets: int = 0
    deletes: int = 0
    evictions: int = 0
    expirations: int = 0
    errors: int = 0
    unstored: int = 0
    busy: int = 0
    entries: int | None = None
    bytes: int | None = None
    tiers: "Mapping[str, CacheStats]" = field(default_factory=dict)

    @property
    def hit_ratio(self) -> float:
        """Hits per read, from 0.0 to 1.0 (0.0 before the first read)."""
        reads = self.hits + self.misses
        return self.hits / reads if reads else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, with the hit ratio; the tiers in the same way, if there are any."""
        fields = {name: value for name, value in asdict(self).items() if name != "tiers"}
        tiers = {"tiers": {name: tier.as_dict() for name, tier in self.tiers.items()}} if self.tiers else {}
        return fields | {"hit_ratio": self.hit_ratio} | tiers
