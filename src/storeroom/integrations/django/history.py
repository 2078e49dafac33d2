"""The counts of a cache over time, for the admin's charts.

While a site serves requests, a point of the counts is noted each minute: the last hour by the minute, the day before
by ten minutes. Where several processes count together, the points lie in the storage, beside its entries, and any
process notes and shows them. Where each counts for itself, each keeps its own points in its memory.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import astuple, dataclass
from itertools import pairwise
from typing import Any, Final
from weakref import WeakKeyDictionary

from django.core import signals
from django.core.cache import caches

from storeroom import timeouts
from storeroom.base import BaseCache
from storeroom.engines import CacheStats, Engine, background
from storeroom.exceptions import NotSupportedError, StoreroomError
from storeroom.keys import LOCK_PREFIX
from storeroom.storage.outages import no_answers

__all__ = ["Interval", "Point", "counted", "follow_requests", "history", "thinned"]

EVERY_SECONDS: Final = 60.0
_FINE_SECONDS: Final = 3_600.0
_COARSE_SECONDS: Final = 600.0
KEPT_SECONDS: Final = 86_400.0
_TOLERANCE: Final = 0.9
"""Of EVERY_SECONDS: a point that comes a little early is noted all the same."""
_MOST: Final = 2.0**53
"""No count comes as far; a float tells all whole numbers below apart."""


@dataclass(frozen=True, slots=True)
class Point:
    """The counts at one moment, since they began.

    Attributes:
        at: epoch seconds.
        hits, misses: reads.
        reused: hits that saved a computation.
        mean: seconds that a computation took on average.
    """

    at: float
    hits: int
    misses: int
    reused: int
    mean: float


@dataclass(frozen=True, slots=True)
class Interval:
    """The growth of the counts between two points.

    Attributes:
        begin, end: epoch seconds.
        hits, misses: reads.
        saved: seconds of computing that the hits have saved.
    """

    begin: float
    end: float
    hits: int
    misses: int
    saved: float

    @property
    def seconds(self) -> float:
        """The length."""
        return self.end - self.begin

    @property
    def hit_ratio(self) -> float | None:
        """Hits per read; None where nothing was read."""
        reads = self.hits + self.misses
        return self.hits / reads if reads else None


def counted(cache: BaseCache) -> CacheStats:
    """Return the counts of as many processes as count together.

    Raises:
        StorageError: the server is out of reach.
    """
    with no_answers():
        try:
            return cache.stats(scope="all")
        except NotSupportedError:
            return cache.stats()


def history(cache: BaseCache, stats: CacheStats) -> list[Interval]:
    """Return the growth of a cache's counts over the last day, up to these of now, which become a point if it is time.

    Raises:
        StorageError: the server is out of reach.
    """
    return list(_intervals([*_note(cache, stats), _point(stats)]))


def thinned(points: Iterable[Point], now: float) -> list[Point]:
    """Return all points of the last hour, one of each ten minutes of the day before, and none that is older."""
    kept: list[Point] = []
    slot = -1.0
    for point in points:
        before, slot = slot, point.at // _COARSE_SECONDS
        if now - KEPT_SECONDS <= point.at <= now and (point.at >= now - _FINE_SECONDS or slot != before):
            kept.append(point)
    return kept


def _intervals(points: Sequence[Point]) -> Iterator[Interval]:
    """Yield the growth between points, but where counts fell: they began anew, or a process left the sum."""
    for before, after in pairwise(points):
        hits, misses, reused = after.hits - before.hits, after.misses - before.misses, after.reused - before.reused
        if after.at > before.at and min(hits, misses, reused) >= 0:
            yield Interval(before.at, after.at, hits, misses, reused * after.mean)


def _point(stats: CacheStats) -> Point:
    mean = stats.compute_seconds / stats.computed if stats.computed else 0.0
    return Point(timeouts.now(), stats.hits, stats.misses, stats.reused, mean)


# Keeping ------------------------------------------------------------------------------------

_own: Final = WeakKeyDictionary[Engine, dict[str, list[Point]]]()
"""The points of storages whose counts are this process's, by the kind of the counts."""


def _note(cache: BaseCache, stats: CacheStats) -> list[Point]:
    """Add a point, if the last one is old enough. Return the points that are kept."""
    if stats.scope in {"machine", "all"}:
        with no_answers():
            return _note_together(cache, stats)
    if stats.scope == "handle":  # it counts nothing
        return []
    own, kind = _own.setdefault(cache.engine, {}), _kind(cache)
    own[kind] = _with(own.get(kind, []), _point(stats))
    return own[kind]


def _kind(cache: Any) -> str:
    """Return "" for the counts of a storage, and a word for those that tiers have beside these."""
    return "" if cache.engine.counters is cache._counters else "tiered"


def _note_together(cache: Any, stats: CacheStats) -> list[Point]:
    # Named as a lock: no bound, no listing and no clear() of the program's knows it.
    name = f"{LOCK_PREFIX}{cache.key_prefix}:\x00chart\x00{_kind(cache)}"
    before = _read(cache._get(name))
    points = _with(before, _point(stats))
    if points[-1:] != before[-1:]:
        cache._set(name, [list(astuple(point)) for point in points], timeouts.now() + KEPT_SECONDS)
    return points


def _with(points: list[Point], point: Point) -> list[Point]:
    kept = thinned(points, point.at)
    if not kept or point.at - kept[-1].at >= EVERY_SECONDS * _TOLERANCE:
        kept.append(point)
    return kept


def _read(found: Any) -> list[Point]:
    """Return the points in an entry; none if there is none, or something else."""
    if not isinstance(found, list):
        return []
    sound = (each for each in found if isinstance(each, list) and len(each) == len(Point.__slots__))
    return [Point(*each) for each in sound if all(map(_is_count, each))]


def _is_count(number: Any) -> bool:
    """Tell whether this is a count or a time, as others may write to the storage."""
    return isinstance(number, int | float) and 0 <= number < _MOST


# Requests -----------------------------------------------------------------------------------


class _Clock:
    due = 0.0


def follow_requests() -> None:
    """Note the counts each minute in which this process serves requests, of the caches that these use."""
    _Clock.due = time.monotonic() + EVERY_SECONDS
    signals.request_finished.connect(_after_request, dispatch_uid="storeroom.integrations.django.history")


def _after_request(**_: Any) -> None:
    if time.monotonic() < _Clock.due:
        return
    _Clock.due = time.monotonic() + EVERY_SECONDS
    used = [cache for cache in caches.all(initialized_only=True) if isinstance(cache, BaseCache)]
    background.submit(lambda: note_all(used), Context())


def note_all(used: Iterable[BaseCache]) -> None:
    """Note the counts of these caches. Nothing is raised for one out of reach: the next point has what it lacks."""
    for cache in used:
        with suppress(StoreroomError):
            _note(cache, counted(cache))
