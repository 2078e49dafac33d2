"""The numbers of a program's caches, as programs that watch it are told them: their names, units and meaning.

OpenTelemetry's names are as its conventions ask for; where these have none, those of .NET and of Sentry are used.
Prometheus's are beside them.
"""

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from storeroom.backends.kept_bounds import KeptBounds
from storeroom.base import BaseCache
from storeroom.base.sharing import stats_apart
from storeroom.engines.stats import CacheStats
from storeroom.exceptions import ConfigurationError
from storeroom.registry import caches
from storeroom.wording import nearest

__all__ = [
    "DOWN", "FAMILY_MEASURES", "LIMIT", "MEASURES", "SIZE_MEASURES", "TIER_MEASURES", "Measure", "Point", "Reading",
    "own_source", "read_apart", "read_own", "watched",
]  # fmt: skip

Point: TypeAlias = tuple[Mapping[str, str], float]
"""Attributes of a number, by OpenTelemetry's names, and the number."""


class Measure(NamedTuple):
    """A number that is told.

    Attributes:
        name: as OpenTelemetry has it.
        short: as Prometheus has it, without "storeroom_" and "_total".
        kind: "counter" only grows; "gauge" is as it is now, and the same whoever tells it; "sum" is as it is now, and
            adds up over those that tell it.
        unit: by UCUM, as OpenTelemetry has it.
        meaning: one sentence.
        points: returns the numbers of some counts; one that is not known is left out.
        labels: Prometheus's names of the attributes.
    """

    name: str
    short: str
    kind: Literal["counter", "gauge", "sum"]
    unit: str
    meaning: str
    points: Callable[[Any], Iterable[Point]]
    labels: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Reading:
    """The counts of one cache.

    Attributes:
        alias: its name in CACHES.
        backend: the name of its class.
        counts: whose they are, as a text, to the counts.
        size: its size and its tiers, as this process knows them.
        size_source: whose the entries are: "" for all that share a server.
        max_entries: the bound, if this process was given one.
        servers_down: servers that this process takes for down.
    """

    alias: str
    backend: str
    counts: Mapping[str, CacheStats]
    size: CacheStats
    size_source: str
    max_entries: int | None
    servers_down: int


def own_source() -> str:
    """Return a text that is this process's own: its host and its number."""
    return f"{socket.gethostname()}:{os.getpid()}"


def watched(aliases: Sequence[str] | None) -> Iterator[tuple[str, BaseCache]]:
    """Yield the caches of these aliases, or of all that are Storeroom's.

    Raises:
        ConfigurationError: there is no such alias, or its cache counts nothing.
    """
    for alias in caches if aliases is None else aliases:
        if alias not in caches:
            raise ConfigurationError(f"There is no cache {alias!r} in CACHES.{nearest(alias, caches)}")
        cache: Any = caches[alias]
        if isinstance(cache, BaseCache):
            yield alias, cache
        elif aliases is not None:
            raise ConfigurationError(f"CACHES[{alias!r}] is a {type(cache).__name__}, which counts nothing.")


def read_own(alias: str, cache: BaseCache) -> Reading:
    """Return what this process has counted."""
    stats = cache.stats("process")
    return _reading(alias, cache, {own_source(): stats}, stats, own_source())


def read_apart(alias: str, cache: BaseCache) -> Reading:
    """Return what all processes have counted that this one knows of, each by itself, so that no number ever falls."""
    apart = stats_apart(cache)
    stats = cache.stats()
    whose = socket.gethostname() if stats.scope == "machine" else own_source()
    return _reading(alias, cache, apart or {whose: stats}, stats, whose)


def _reading(alias: str, cache: BaseCache, counts: Mapping[str, CacheStats], size: CacheStats, whose: str) -> Reading:
    is_known = not isinstance(cache, KeptBounds) or "max_entries" in cache.settings.given
    return Reading(
        alias=alias,
        backend=type(cache).__name__,
        counts=counts,
        size=size,
        size_source="" if cache.is_shared and ":" in whose else whose,
        max_entries=cache.settings.options.get("max_entries") if is_known else None,
        servers_down=cache.engine.servers_down,
    )


# The numbers --------------------------------------------------------------------------------

_RESULT: Final = {"cache.request.type": "result"}
_OUTCOME: Final = {"storeroom.outcome": "outcome"}
_REASON: Final = {"storeroom.reason": "reason"}
_DIRECTION: Final = {"network.io.direction": "direction"}
_OUTCOMES: Final = ("computed", "failed", "abandoned")


def _count(name: str) -> Callable[[Any], Iterable[Point]]:
    """Return a function that returns a field of some counts, where it is known."""

    def points(stats: Any) -> Iterable[Point]:
        number = getattr(stats, name)
        return [] if number is None else [({}, number)]

    return points


def _split(attribute: str, names: Mapping[str, str]) -> Callable[[Any], Iterable[Point]]:
    """Return a function that returns several fields, each with a value of an attribute."""

    def points(stats: Any) -> Iterable[Point]:
        numbers = ((value, getattr(stats, name)) for value, name in names.items())
        return [({attribute: value}, number) for value, number in numbers if number is not None]

    return points


def _refused(stats: CacheStats) -> Iterable[Point]:
    return [({"storeroom.reason": reason}, number) for reason, number in stats.refused.items()]


_requests: Final = _split("cache.request.type", {"hit": "hits", "miss": "misses"})
_io: Final = _split("network.io.direction", {"receive": "bytes_read", "transmit": "bytes_written"})


def _counter(name: str, short: str, unit: str, meaning: str, of: str | None = None) -> Measure:
    """Return the measure of one field that only grows; by default that of the short name."""
    return Measure(name, short, "counter", unit, meaning, _count(of or short))


def _computations(name: str, short: str, outcomes: Sequence[str]) -> Measure:
    points = _split("storeroom.outcome", {each: each for each in outcomes})
    return Measure(name, short, "counter", "{computation}", "Calls of functions, by outcome.", points, _OUTCOME)


MEASURES: Final = (
    Measure("requests", "requests", "counter", "{request}", "Reads, by whether they hit.", _requests, _RESULT),
    _counter("stale", "stale_served", "{request}", "Values served after their timeout.", "stale"),
    _counter("sets", "sets", "{entry}", "Entries written."),
    _counter("deletes", "deletes", "{entry}", "Live entries removed because somebody asked."),
    _counter("evictions", "evictions", "{entry}", "Entries removed for room."),
    _counter("expirations", "expirations", "{entry}", "Expired entries removed."),
    _counter("errors", "errors", "{error}", "Unreadable entries, and operations without an answer."),
    Measure("refusals", "refusals", "counter", "{value}", "Values that were not stored.", _refused, _REASON),
    _counter("unstored", "unstored", "{value}", "Computed values that the storage refused."),
    _counter("busy", "busy", "{operation}", "Operations that got no connection in time."),
    _counter("writes.dropped", "dropped_writes", "{key}", "Keys of writes that an outage has dropped.", "dropped"),
    _counter("writes.recovered", "recovered_writes", "{key}", "Dropped writes that were made good.", "recovered"),
    _counter("breaker.openings", "breaker_openings", "{opening}", "Times that a server was taken for down."),
    _computations("computations", "computations", _OUTCOMES),
    _counter("computation.time", "computation_seconds", "s", "Seconds that values took.", "compute_seconds"),
    _counter("computation.waits", "computation_waits", "{wait}", "Waits for another's computation.", "waited"),
    _counter("computation.saved", "computations_saved", "{computation}", "Hits in place of a computation.", "reused"),
    Measure(
        "computation.saved_time", "saved_seconds", "sum", "s", "Seconds of computing that hits have saved.",
        _count("saved_seconds"),
    ),
    _counter("connection.waits", "connection_waits", "{operation}", "Operations that waited for a connection."),
    _counter("connection.wait_time", "connection_wait_seconds", "s", "Seconds that they waited for a connection."),
    Measure("io", "io_bytes", "counter", "By", "Bytes of values received and sent.", _io, _DIRECTION),
    _counter("round_trips", "round_trips", "{operation}", "Operations of a storage over a connection."),
    _counter("round_trip.time", "round_trip_time", "s", "Seconds that these took.", "round_trip_seconds"),
)  # fmt: skip
"""Of a cache: points() is called with CacheStats."""

SIZE_MEASURES: Final = (
    Measure("entries", "entries", "gauge", "{entry}", "Entries stored now.", _count("entries")),
    Measure("size", "size_bytes", "gauge", "By", "Bytes that the entries take now.", _count("bytes")),
)
"""Of a storage: points() is called with CacheStats."""

LIMIT: Final = Measure("limit", "max_entries", "gauge", "{entry}", "Entries that there may be.", _count("max_entries"))

DOWN: Final = Measure(
    "servers.down", "servers_down", "sum", "{server}", "Servers that are taken for down.", _count("servers_down")
)
"""These two: points() is called with a Reading."""

FAMILY_MEASURES: Final = (
    Measure("family.requests", "family_requests", "counter", "{request}", "Reads of a family.", _requests, _RESULT),
    _counter("family.sets", "family_sets", "{entry}", "Entries of a family written.", "sets"),
    _computations("family.computations", "family_computations", _OUTCOMES[:2]),
    _counter(
        "family.computation.time", "family_computation_seconds", "s", "Seconds that its values took.", "compute_seconds"
    ),
)
"""Of a family of keys: points() is called with FamilyStats."""

TIER_MEASURES: Final = (
    Measure("tier.requests", "tier_requests", "counter", "{request}", "Reads of one tier.", _requests, _RESULT),
    Measure("tier.entries", "tier_entries", "gauge", "{entry}", "Entries in one tier.", _count("entries")),
)
"""Of a tier: points() is called with CacheStats."""
