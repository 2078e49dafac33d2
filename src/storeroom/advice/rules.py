"""From hit ratios to the numbers to write into CACHES."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from storeroom.advice.answer import Advice, Change, Subject
from storeroom.advice.estimate import LEAST_ENTRIES, LEAST_KEYS, Known, Point, hit_ratio
from storeroom.advice.rendering import spoken
from storeroom.advice.simulation import Simulation, near_sizes

__all__ = ["advise"]

_WORTH: Final = 0.01
"""A hit ratio that is worth a change: one read in a hundred, for each doubling of the size."""
_SMALLER: Final = 4
"""A bound is made smaller if it is so many times too large: less is not worth a deployment."""
_NEAR_WORTH: Final = 0.2
"""The part of the reads that a near tier answers at least, to be worth its memory."""
_NEAR_STEP: Final = 0.05
"""The part by which a near tier ten times as large has to answer more."""
_LEAST_TIMEOUTS: Final = 2
_DIGITS: Final = 2


def advise(
    simulation: Simulation,
    subject: Subject,
    *,
    scope: str,
    reads: int | None = None,
    real_hit_ratio: float | None = None,
    notes: Sequence[str] = (),
) -> Advice:
    """Return the advice that a replay gives.

    Args:
        simulation: the replay.
        subject: the cache.
        scope: whose traffic was replayed: a sentence.
        reads: all reads of which the replayed ones are a sample; None if all that is known is the sample.
        real_hit_ratio: of the real cache in the same time; None if it is not known.
        notes: sentences to add.
    """
    if subject.max_bytes is not None:
        notes = [*notes, "OPTIONS['max_bytes'] is not replayed: entries may have to go before there are max_entries."]
    rate = simulation.rate
    total = simulation.reads / rate if reads is None else reads
    missing = 0 if rate >= 1 else max(0, LEAST_KEYS - simulation.keys)
    base = Advice(
        subject, scope, round(total), round(simulation.keys / rate), simulation.keys, missing, rate, notes=notes
    )
    if missing or not total:
        return base
    curves = _Curves(simulation, subject, total, real_hit_ratio)
    by_size, by_timeout, by_near = curves.by_size(), curves.by_timeout(), curves.by_near()
    here = _at(by_size, subject.size)
    if subject.size is not None and here is None:
        notes = [*notes, _too_small(subject.size, rate)]
    known = real_hit_ratio if real_hit_ratio is not None or here is None else here.hit_ratio
    changes = [*_size(subject, by_size), *_shorter(subject, by_timeout), *_near(subject, by_near)]
    return Advice(
        subject, scope, base.reads, base.keys, base.sampled_keys, 0, rate, known, by_size, by_timeout, by_near,
        simulation.unread / simulation.writes if simulation.writes else None,
        changes, [*notes, *_longer(subject, by_timeout)], {subject.alias: _written(subject.written, changes)},
    )  # fmt: skip


class _Curves:
    """The hit ratios that a replay tells."""

    def __init__(self, simulation: Simulation, subject: Subject, reads: float, real_hit_ratio: float | None) -> None:
        self._simulation, self._subject, self._reads, self._real = simulation, subject, reads, real_hit_ratio

    def _points(self, misses: Mapping[float, Sequence[float]], here: float | None) -> list[Point]:
        known = None
        if self._real is not None and here is not None and here in misses:
            known = Known(self._real, misses[here])
        rate = self._simulation.rate
        return [hit_ratio(at, each, reads=self._reads, rate=rate, known=known) for at, each in misses.items()]

    def _misses(self) -> dict[float, Sequence[float]]:
        rate = self._simulation.rate
        least = 0 if rate >= 1 else LEAST_ENTRIES / rate
        return {each.size: each.misses for each in self._simulation.sizes if each.size >= least}

    def by_size(self) -> list[Point]:
        if self._subject.size is None:
            return []
        return self._points(self._misses(), self._subject.size)

    def by_timeout(self) -> list[Point]:
        by_timeout, seen = self._simulation.by_timeout, self._simulation.seconds / 2
        if by_timeout is None:
            return []
        points = dict(zip(by_timeout.timeouts, by_timeout.misses, strict=True))
        told = self._points(points, self._subject.timeout)
        return [point for point in told if point.at <= seen or point.at == self._subject.timeout]

    def by_near(self) -> list[Point]:
        if not self._subject.is_remote:
            return []
        misses = self._misses()
        return self._points({size: misses[size] for size in near_sizes if size in misses}, None)


def _too_small(size: int, rate: float) -> str:
    return (
        f"The {rate:.1%} of the keys that were replayed are too few for MAX_ENTRIES of {size:,}: they stand for "
        f"caches of {LEAST_ENTRIES / rate:,.0f} entries and more. A trace, or slower traffic, is replayed whole."
    )


def _at(points: Sequence[Point], at: float | None) -> Point | None:
    return next((point for point in points if point.at == at), None)


def _knee(points: Sequence[Point]) -> Point | None:
    """Return the first point after which doubling gains less than is worth it."""
    for number, point in enumerate(points):
        if all(
            later.hit_ratio - point.hit_ratio <= _WORTH * math.log2(later.at / point.at)
            for later in points[number + 1 :]
        ):
            return point
    return None


def _rounded_up(number: float) -> int:
    step = int(10 ** max(0, len(str(int(number))) - _DIGITS))
    return math.ceil(number / step) * step


def _size(subject: Subject, points: Sequence[Point]) -> Iterator[Change]:
    here, knee = _at(points, subject.size), _knee(points)
    if here is None or knee is None or subject.size is None:
        return
    gain, after = knee.hit_ratio - here.hit_ratio, _rounded_up(knee.at)
    if (after >= 2 * subject.size and gain >= _WORTH) or after * _SMALLER <= subject.size:
        effect = f"{_moved(here, knee)}, with {after / subject.size:.2g} times the entries"
        yield Change("OPTIONS['max_entries']", subject.size, after, effect)


def _shorter(subject: Subject, points: Sequence[Point]) -> Iterator[Change]:
    here = _at(points, subject.timeout)
    if here is None or len(points) < _LEAST_TIMEOUTS:
        return
    enough = next(point for point in points if here.hit_ratio - point.hit_ratio <= _WORTH / 2)
    if enough.at < math.inf and enough.at <= subject.timeout / 2 and here.hit_ratio > 0:
        effect = f"{_moved(here, enough)}, and no value is older than {spoken(enough.at)}"
        yield Change("TIMEOUT", None if math.isinf(here.at) else _whole(here.at), _whole(enough.at), effect)


def _longer(subject: Subject, points: Sequence[Point]) -> Iterator[str]:
    here = _at(points, subject.timeout)
    if here is not None and points[-1].hit_ratio - here.hit_ratio >= _WORTH:
        enough = next(point for point in points if points[-1].hit_ratio - point.hit_ratio <= _WORTH / 2)
        yield (
            f"A TIMEOUT of {spoken(enough.at)} in place of {spoken(here.at)}: {_moved(here, enough)}. "
            "It is not among the changes, as only you know how old a value may be."
        )


def _near(subject: Subject, points: Sequence[Point]) -> Iterator[Change]:
    if not points or _option(subject.written, "near")[1]:
        return
    best = points[-1]
    if len(points) > 1 and best.hit_ratio - points[0].hit_ratio < _NEAR_STEP:
        best = points[0]
    if best.hit_ratio >= _NEAR_WORTH:
        effect = f"{best.hit_ratio:.1%} of the reads are answered from memory"
        if subject.round_trip is not None:
            effect += f", which saves {best.hit_ratio * subject.round_trip * 1e3:.2f} ms a read on the average"
        yield Change("OPTIONS['near']", None, {"max_entries": int(best.at)}, effect)


def _moved(before: Point, after: Point) -> str:
    points = 100 * (after.hit_ratio - before.hit_ratio)
    return f"{before.hit_ratio:.1%} of the reads hit, then {after.hit_ratio:.1%} ({points:+.1f} points)"


def _whole(seconds: float) -> float:
    return int(seconds) if seconds == int(seconds) else seconds


def _option(written: Mapping[str, Any], name: str) -> tuple[str, Any]:
    """Return an option's spelling and value in a dict of CACHES."""
    options = written.get("OPTIONS") or {}
    return next(((key, value) for key, value in options.items() if str(key).lower() == name), (name, None))


def _written(written: Mapping[str, Any], changes: Sequence[Change]) -> dict[str, Any]:
    """Return the dict of an alias with the changes in it."""
    changed = dict(written)
    for change in changes:
        if change.setting == "TIMEOUT":
            changed["TIMEOUT"] = change.after
        else:
            spelling, _ = _option(changed, change.setting.split("'")[1])
            changed["OPTIONS"] = {**(changed.get("OPTIONS") or {}), spelling: change.after}
    return changed
