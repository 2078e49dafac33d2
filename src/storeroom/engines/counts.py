"""A cache's counts of its own work."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Final, Literal, Protocol, TypeAlias

from storeroom.engines.watching import LOOK_SECONDS, watch

__all__ = [
    "LATENCY_SECONDS",
    "PUBLISH_SECONDS",
    "CacheStats",
    "Counters",
    "Family",
    "FamilyStats",
    "Scope",
    "less",
    "presented",
    "total",
]

LATENCY_SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, math.inf,
)  # fmt: skip
"""The upper bounds of the buckets for round trips: from a database in a file to the longest socket_timeout in use."""


Scope: TypeAlias = Literal["handle", "process", "machine", "all"]

_EXACT: Final = 256
"""Operations that are all looked at for their family, before they are sampled."""

_GAP_SHIFT: Final = 31 - 6
"""A gap between two samples is up to 64 operations long: a look takes as long as a miss."""


PUBLISH_SECONDS: Final = 5.0
"""Between two writes of the counts that processes share: a thousandth of a busy one's time, and fresh to watch."""


class Publishing(Protocol):
    """Writes the counts of this process for others: see base.sharing."""

    name: str

    @property
    def id(self) -> str:
        """The process's own number."""

    def begin(self) -> None:
        """Let a background thread write them."""


def _no_latency() -> list[int]:
    return [0] * len(LATENCY_SECONDS)


@dataclass(slots=True, eq=False)
class Sampled:
    """A number of operations, of which a sample tells the families of all: a look at a key takes half as long as one.

    The gaps between two samples are of random length, so that no pattern of a program's falls in step with them.

    Attributes:
        number: of the operations.
        due: the number from which on the next one is a sample.
    """

    number: int = 0
    due: int = 1
    _last: int = 0
    _random: int = 1

    def sample(self) -> int:
        """Return the number of operations since the last sample, and choose the next one."""
        number, last = self.number, self._last
        self._last = number
        self._random = chosen = (self._random * 1_103_515_245 + 12_345) & 0x7FFFFFFF  # the generator of ANSI C
        self.due = number + 1 + (chosen >> _GAP_SHIFT if number >= _EXACT else 0)
        return number - last

    def subtract(self, number: int) -> None:
        """Count so many fewer, which stand in another record now; the next sample stays the same operation."""
        self.number -= number
        self.due -= number
        self._last -= number


@dataclass(slots=True, eq=False)
class Family:
    """The counts of a family of keys: see FamilyStats."""

    hits: int = 0
    misses: int = 0
    sets: int = 0
    computed: int = 0
    failed: int = 0
    compute_seconds: float = 0.0


@dataclass(slots=True, eq=False)
class Counters:
    """Plain counters that a backend bumps as it works, without a lock.

    Under the interpreter lock they are exact in practice; a free-threaded build may lose a count under contention.
    Their meaning is told by CacheStats. Some differ from it:

    Attributes:
        hits: without those in `reused`, so that a hit raises one number alone.
        sets: without those in `written`.
        written: sets of a backend whose families are sampled.
        misses: without those in `missed`.
        missed: misses of a backend whose families are sampled.
        families: by name.
        handed: the counts of before, which are in a record of all processes: see hand_over().
        publishers: those who write the counts for other processes.
        publish_at: the moment of ``time.perf_counter()`` from which on they do so again.
        look_at: that from which on look() is due.
        are_shared: whether this process's counts are for others at all.
        are_kept: whether they are added to the record that a storage keeps: not those of a benchmark.
        round_trips: requests by their time, in the buckets of LATENCY_SECONDS.
        refused: reason to number.
    """

    abandoned: int = 0
    busy: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    compute_seconds: float = 0.0
    computed: int = 0
    deletes: int = 0
    dropped: int = 0
    errors: int = 0
    evictions: int = 0
    expirations: int = 0
    failed: int = 0
    hits: int = 0
    misses: int = 0
    recovered: int = 0
    reused: int = 0
    round_trip_seconds: float = 0.0
    sets: int = 0
    stale: int = 0
    unstored: int = 0
    waited: int = 0
    written: Sampled = field(default_factory=Sampled)
    missed: Sampled = field(default_factory=Sampled)
    publish_at: float = math.inf
    look_at: float = 0.0
    publishers: list[Publishing] = field(default_factory=list)
    handed: dict[str, Any] = field(default_factory=dict)
    families: dict[str, Family] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    round_trips: list[int] = field(default_factory=_no_latency)

    are_shared: ClassVar[bool] = True

    are_kept: ClassVar[bool] = True

    def reads(self) -> tuple[int, int]:
        """Return this process's hits, those of get_or_set() among them, and its misses; they never become fewer."""
        handed = self.handed
        misses = self.misses + self.missed.number
        return self.hits + self.reused + handed.get("hits", 0), misses + handed.get("misses", 0)

    def hand_over(self, raw: Mapping[str, Any]) -> None:
        """Begin at zero, but for what came since raw(), as these numbers stand in a record of all processes now."""
        self.handed = total(self.handed, presented(raw))
        self.subtract(raw)

    def refuse(self, reason: str, number: int = 1) -> None:
        """Count values that were not stored."""
        self.refused[reason] = self.refused.get(reason, 0) + number

    def look(self, moment: float) -> None:
        """Look whether somebody wants to know the counts, at this moment of ``time.perf_counter()``.

        Called by those who pass by from `look_at` on. They are written for others, if that is due.
        """
        self.look_at = moment + LOOK_SECONDS
        if self.are_shared:
            watch.look(moment)
        if moment >= self.publish_at:
            self.publish_at = moment + PUBLISH_SECONDS
            for publisher in self.publishers:
                publisher.begin()

    def raw(self) -> dict[str, Any]:
        """Return all numbers as they are, for presented() and subtract()."""
        families = {name: asdict(family) for name, family in self.families.copy().items()}
        lists = {"refused": self.refused.copy(), "round_trips": self.round_trips.copy(), "families": families}
        sampled = {"written": self.written.number, "missed": self.missed.number}
        return {name: getattr(self, name) for name in _NUMBERS} | sampled | lists

    def as_dict(self) -> dict[str, Any]:
        """Return the counts by the names of CacheStats, but for those that are zero."""
        return presented(self.raw())

    def reset(self) -> None:
        """Begin at zero, in a child process."""
        self.subtract(self.raw())
        self.handed = {}
        self.look_at, self.publish_at = 0.0, 0.0 if self.publishers else math.inf

    def subtract(self, raw: Mapping[str, Any]) -> None:
        """Take away numbers of raw(), rather than begin at zero: other threads go on counting."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) - raw[name])
        self.written.subtract(raw["written"])
        self.missed.subtract(raw["missed"])
        for reason, number in raw["refused"].items():
            self.refused[reason] -= number
        for bucket, number in enumerate(raw["round_trips"]):
            self.round_trips[bucket] -= number
        for family, counted in raw["families"].items():
            for name, number in counted.items():
                setattr(self.families[family], name, getattr(self.families[family], name) - number)


_OTHERS: Final = {
    "written",
    "missed",
    "publish_at",
    "look_at",
    "publishers",
    "handed",
    "families",
    "refused",
    "round_trips",
}
_NUMBERS: Final = [each.name for each in fields(Counters) if each.name not in _OTHERS]


def presented(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of Counters.raw() by the names of CacheStats, but for those that are zero."""
    buckets = zip(LATENCY_SECONDS, raw["round_trips"], strict=True)
    counted = {name: raw[name] for name in _NUMBERS}
    counted["hits"] += counted["reused"]
    counted["sets"] += raw["written"]
    counted["misses"] += raw["missed"]
    counted["round_trips"] = sum(raw["round_trips"])
    counted["refused"] = {reason: number for reason, number in raw["refused"].items() if number}
    counted["latency"] = {f"{bound:g}": number for bound, number in buckets if number}
    counted["families"] = {name: family for name, family in raw["families"].items() if any(family.values())}
    return {name: number for name, number in counted.items() if number}


def total(counted: Mapping[Any, Any], more: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the sums of counts by name, and of those within them.

    >>> total({"hits": 1, "refused": {"full": 1}}, {"hits": 2, "refused": {"full": 1, "busy": 3}})
    {'hits': 3, 'refused': {'full': 2, 'busy': 3}}
    """
    added = dict(counted)
    for name, number in more.items():
        if isinstance(number, Mapping):
            added[name] = total(added.get(name, {}), number)
        else:
            added[name] = added.get(name, 0) + number
    return added


def less(counted: Mapping[Any, Any], base: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return by how much counts have grown.

    >>> less({"hits": 3, "refused": {"full": 2}}, {"hits": 1})
    {'hits': 2, 'refused': {'full': 2}}
    """
    grown = dict(counted)
    for name, number in base.items():
        is_nested = isinstance(number, Mapping)
        grown[name] = less(grown.get(name, {}), number) if is_nested else grown.get(name, 0) - number
    return grown


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
