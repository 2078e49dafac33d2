"""A cache's counts of its own work."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from storeroom.engines.watching import LOOK_SECONDS, watch

__all__ = [
    "LATENCY_SECONDS",
    "PUBLISH_SECONDS",
    "Counters",
    "Family",
    "less",
    "presented",
    "total",
]

LATENCY_SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, math.inf,
)  # fmt: skip
"""The upper bounds of the buckets for round trips: from a database in a file to the longest socket_timeout in use."""


_EXACT: Final = 256
"""Operations that are all looked at for their family, before they are sampled."""

_GAP_SHIFT: Final = 31 - 6
"""A gap between two samples is up to 64 operations long: a look takes as long as a miss."""


PUBLISH_SECONDS: Final = 5.0
"""Between two writes of the counts that processes share: a thousandth of a busy one's time, and fresh to watch."""


if TYPE_CHECKING:
    from typing import Protocol

    class Publishing(Protocol):
        """Writes the counts of this process for others: see base.sharing."""

        name: str

        @property
        def id(self) -> str:
            """The process's own number."""

        def begin(self) -> None:
            """Let a background thread write them."""


class Sampled:
    """A number of operations, of which a sample tells the families of all: a look at a key takes half as long as one.

    The gaps between two samples are of random length, so that no pattern of a program's falls in step with them.

    Attributes:
        number: of the operations.
        due: the number from which on the next one is a sample.
    """

    __slots__ = ("_last", "_random", "due", "number")

    def __init__(self) -> None:
        self.number, self.due, self._last, self._random = 0, 1, 0, 1

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


class Family:
    """The counts of a family of keys: see FamilyStats."""

    __slots__ = ("compute_seconds", "computed", "failed", "hits", "misses", "sets")

    def __init__(self) -> None:
        self.hits = self.misses = self.sets = self.computed = self.failed = 0
        self.compute_seconds = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the counts by name."""
        return {name: getattr(self, name) for name in Family.__slots__}


_NUMBERS: Final = (
    "abandoned", "busy", "bytes_read", "bytes_written", "compute_seconds", "computed", "deletes", "dropped", "errors",
    "evictions", "expirations", "failed", "hits", "misses", "recovered", "reused", "round_trip_seconds", "sets",
    "stale", "unstored", "waited",
)  # fmt: skip
"""Those of Counters that are one number each."""


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

    __slots__ = (
        *_NUMBERS, "families", "handed", "look_at", "missed", "publish_at", "publishers", "refused", "round_trips",
        "written",
    )  # fmt: skip

    are_shared: ClassVar[bool] = True

    are_kept: ClassVar[bool] = True

    def __init__(self) -> None:
        self.abandoned = self.busy = self.bytes_read = self.bytes_written = self.computed = self.deletes = 0
        self.dropped = self.errors = self.evictions = self.expirations = self.failed = self.hits = self.misses = 0
        self.recovered = self.reused = self.sets = self.stale = self.unstored = self.waited = 0
        self.compute_seconds = self.round_trip_seconds = self.look_at = 0.0
        self.written, self.missed = Sampled(), Sampled()
        self.publish_at = math.inf
        self.publishers: list[Publishing] = []
        self.handed: dict[str, Any] = {}
        self.families: dict[str, Family] = {}
        self.refused: dict[str, int] = {}
        self.round_trips = [0] * len(LATENCY_SECONDS)

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
        families = {name: family.as_dict() for name, family in self.families.copy().items()}
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
