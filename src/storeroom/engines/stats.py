"""Counts as ``cache.stats()`` tells them: loaded by the first program that asks."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeAlias

__all__ = ["CacheStats", "FamilyStats", "Scope", "saved"]

Scope: TypeAlias = Literal["handle", "process", "machine", "all"]


@dataclass(frozen=True, slots=True)
class FamilyStats:
    """The counts of a family of keys.

    Attributes:
        hits: reads that found a live entry; None where no hit is looked at, as in this process's memory.
        misses: reads that found none.
        sets: entries written. In local memory a sample stands for them.
        computed: values that functions have computed.
        failed: computations that ended with an error.
        compute_seconds: seconds that the computed values took.
    """

    hits: int | None = 0
    misses: int = 0
    sets: int = 0
    computed: int = 0
    failed: int = 0
    compute_seconds: float = 0.0

    @property
    def hit_ratio(self) -> float | None:
        """Hits per read, from 0.0 to 1.0; None where no hit is looked at, or nothing was read."""
        return None if self.hits is None or not self.hits + self.misses else self.hits / (self.hits + self.misses)

    @property
    def saved_seconds(self) -> float | None:
        """Seconds of computing that the hits have saved: their number, times the mean time of a computation."""
        return None if self.hits is None else saved(self.hits, self.computed, self.compute_seconds)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, with the hit ratio and the seconds saved."""
        return asdict(self) | {"hit_ratio": self.hit_ratio, "saved_seconds": self.saved_seconds}

    @property
    def weight(self) -> int:
        """Its reads and writes that are known."""
        return (self.hits or 0) + self.misses + self.sets


@dataclass(frozen=True, slots=True)
class CacheStats:
    """The result of ``cache.stats()``: counts since the storage was first opened.

    All fields are plain numbers, texts, and mappings of such, for those who pass them on.

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
        reused: those of the hits that were get_or_set()'s, or @cached's: computations that were saved.
        stale: values that were served after their timeout: while a new one was computed, or as that failed.
        computed: values that functions have computed.
        failed: computations that ended with an error.
        abandoned: computations that were cancelled or cut short.
        waited: waits of a caller for the computation of another.
        compute_seconds: seconds that the computed values took.
        dropped: keys of writes that an outage has dropped.
        recovered: those of them whose older entries were removed or overwritten after it.
        refused: reason to number of values that were not stored: "too_large", "unserializable", "full", "busy",
            "unreachable" or "other".
        breaker_openings: times that a server was taken for down.
        connection_waits: operations that waited for a connection, as all of this process were in use.
        connection_wait_seconds: seconds that they waited.
        bytes_read: bytes of values that came from the other end of a connection.
        bytes_written: bytes of values that were sent there.
        round_trips: operations of the storage at the other end of a connection.
        round_trip_seconds: seconds that these took.
        latency: their numbers by time: upper bound of a bucket in seconds to how many took longer than that of the
            bucket before, and no longer than this.
        families: name to counts of each family of keys, the busiest first.
        scope: whose counts these are: of this "handle", of all handles of the storage in this "process", of all
            processes of this "machine", or of "all" processes on all hosts.
        processes: the number of processes that have counted; None if that is not known.
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
    reused: int = 0
    stale: int = 0
    computed: int = 0
    failed: int = 0
    abandoned: int = 0
    waited: int = 0
    compute_seconds: float = 0.0
    dropped: int = 0
    recovered: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    breaker_openings: int = 0
    connection_waits: int = 0
    connection_wait_seconds: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    round_trips: int = 0
    round_trip_seconds: float = 0.0
    latency: Mapping[float, int] = field(default_factory=dict)
    families: Mapping[str, FamilyStats] = field(default_factory=dict)
    scope: Scope = "process"
    processes: int | None = 1

    @classmethod
    def of(cls, counted: Mapping[str, Any], *, counts_hits: bool = False, **more: Any) -> "CacheStats":
        """Return the statistics of counts by name, as presented() or total() made them, and of further fields.

        Args:
            counted: the counts.
            counts_hits: whether the families' hits are known.
            **more: the fields that are no counts.
        """
        known = {} if counts_hits else {"hits": None}
        families = {
            name: FamilyStats(**{**family, **known})
            for name, family in counted.get("families", {}).items()
            if any(family.values())
        }
        busiest = dict(sorted(families.items(), key=lambda item: (-item[1].weight, item[0])))
        latency = {float(bound): number for bound, number in counted.get("latency", {}).items()}
        return cls(**{**counted, "families": busiest, "latency": dict(sorted(latency.items())), **more})

    @property
    def hit_ratio(self) -> float:
        """Hits per read, from 0.0 to 1.0 (0.0 before the first read)."""
        reads = self.hits + self.misses
        return self.hits / reads if reads else 0.0

    @property
    def saved_seconds(self) -> float:
        """Seconds of computing that the hits have saved: `reused`, times the mean time of a computation."""
        return saved(self.reused, self.computed, self.compute_seconds)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, with the hit ratio and the seconds saved; the tiers likewise, if there are any.

        The buckets of `latency` have texts for names, as in JSON: "0.001", and "inf" for the last.
        """
        named = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "tiers"}
        named["refused"] = dict(self.refused)
        named["latency"] = {f"{bound:g}": number for bound, number in self.latency.items()}
        named["families"] = {name: family.as_dict() for name, family in self.families.items()}
        derived = {"saved_seconds": self.saved_seconds, "hit_ratio": self.hit_ratio}
        tiers = {"tiers": {name: tier.as_dict() for name, tier in self.tiers.items()}} if self.tiers else {}
        return named | derived | tiers


def saved(hits: int, computed: int, compute_seconds: float) -> float:
    """Return the seconds that so many hits have saved, by the mean time of a computation; 0.0 if there was none."""
    return hits * compute_seconds / computed if computed else 0.0
