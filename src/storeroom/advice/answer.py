"""The answer: hit ratios by size and by timeout, and the settings to write."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from storeroom.advice.drawing import svg
from storeroom.advice.estimate import LEAST_KEYS, Point
from storeroom.advice.rendering import Panel, as_python, bars, counted, spoken

__all__ = ["TIMEOUTS", "Advice", "Change", "Subject"]

TIMEOUTS: Final = (1.0, 10.0, 60.0, 300.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0, math.inf)
"""Timeouts that are looked at, in seconds, beside the one in use."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The cache that the advice is for.

    Attributes:
        alias: its name.
        written: its dict in CACHES, without secrets.
        size: entries that it keeps at most; None for no bound, or where the storage has one of its own.
        timeout: its TIMEOUT, in seconds; ``math.inf`` for never.
        is_remote: whether a read leaves the process's memory, so that a near tier may answer it.
        round_trip: seconds that a read takes, if that is known.
        cull_frequency, max_bytes: as in its OPTIONS.
    """

    alias: str
    written: Mapping[str, Any] = field(default_factory=dict)
    size: int | None = None
    timeout: float = math.inf
    is_remote: bool = False
    round_trip: float | None = None
    cull_frequency: int | None = None
    max_bytes: int | None = None

    @property
    def timeouts(self) -> list[float]:
        """The timeouts to look at."""
        return sorted({*TIMEOUTS, self.timeout})


@dataclass(frozen=True, slots=True)
class Change:
    """A setting to write.

    Attributes:
        setting: its name, as in ``OPTIONS['max_entries']``.
        before, after: its values.
        effect: a sentence on what it would change.
    """

    setting: str
    before: Any
    after: Any
    effect: str


@dataclass(frozen=True, slots=True)
class Advice:
    """The numbers to write for one cache, and the hit ratios that they rest on.

    Attributes:
        subject: the cache.
        scope: whose traffic it was: a sentence.
        reads: reads that the advice rests on, or stands for.
        keys: keys that were read or written, as estimated.
        sampled_keys: those that were replayed.
        missing_keys: keys that the sample lacks for an answer; 0 if it is enough.
        rate: the part of the keys that was replayed.
        hit_ratio: of the cache as it is: the real one, or that of the replay.
        by_max_entries, by_timeout, by_near: the hit ratios by size, by timeout, and of near tiers by size.
        unread_writes: the part of the writes that nobody has read, or None where there were none.
        changes: the settings to write; none if they are right.
        notes: sentences on what the answer does not know, or leaves to the reader.
        caches: the CACHES dict to write, for this alias.
    """

    subject: Subject
    scope: str
    reads: int
    keys: int
    sampled_keys: int
    missing_keys: int
    rate: float
    hit_ratio: float | None = None
    by_max_entries: Sequence[Point] = ()
    by_timeout: Sequence[Point] = ()
    by_near: Sequence[Point] = ()
    unread_writes: float | None = None
    changes: Sequence[Change] = ()
    notes: Sequence[str] = ()
    caches: Mapping[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """Return the advice for people to read."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"Advice for cache {self.subject.alias!r}"
        yield f"  from {self.reads:,} reads of about {self.keys:,} keys. {self.scope}"
        if self.rate < 1:
            yield f"  {self.sampled_keys:,} keys were replayed, {self.rate:.2%} of all."
        if not self.reads:
            yield "\nNot enough traffic yet: there was no read."
        elif self.missing_keys:
            yield (
                f"\nNot enough traffic yet: of {LEAST_KEYS:,} sampled keys {self.missing_keys:,} are missing: "
                f"{LEAST_KEYS / max(1, self.sampled_keys):.1f} times as many keys have to be read."
            )
        for panel in self._panels():
            yield f"\n{panel.title}"
            yield from bars(panel)
        if self.unread_writes is not None:
            yield f"\n{self.unread_writes:.1%} of the writes were never read."
        for note in self.notes:
            yield f"\nNote: {note}"
        if self._panels():
            yield from self._settings()

    def _settings(self) -> Iterator[str]:
        if not self.changes:
            yield "\nNothing to change: the settings fit this traffic."
            return
        yield f"\nWrite:\nCACHES = {as_python(self.caches)}"
        yield "\nIt would change:"
        for change in self.changes:
            yield f"  {change.setting}: {change.before!r} -> {change.after!r}"
            yield f"      {change.effect}."

    def _panels(self) -> list[Panel]:
        panels = [
            Panel("Hit ratio by MAX_ENTRIES", self.by_max_entries, self.subject.size, counted),
            Panel("Hit ratio by TIMEOUT", self.by_timeout, self.subject.timeout, spoken),
            Panel("Reads that a near tier would answer, by its entries", self.by_near, None, counted),
        ]
        return [panel for panel in panels if panel.points]

    def svg(self) -> str:
        """Return the curves as an SVG image, which is readable on light and dark pages.

        Raises:
            ValueError: there is no curve, as the traffic was not enough.
        """
        panels = self._panels()
        if not panels:
            raise ValueError(f"There is no curve for cache {self.subject.alias!r}: its traffic was not enough.")
        return svg(f"Advice for cache {self.subject.alias!r}", panels)

    def as_dict(self) -> dict[str, Any]:
        """Return the advice for JSON."""
        timeout = self.subject.timeout
        return {
            "alias": self.subject.alias,
            "scope": self.scope,
            "reads": self.reads,
            "keys": self.keys,
            "sampled_keys": self.sampled_keys,
            "missing_keys": self.missing_keys,
            "rate": self.rate,
            "hit_ratio": self.hit_ratio,
            "max_entries": self.subject.size,
            "timeout": None if math.isinf(timeout) else timeout,
            "by_max_entries": [point.as_dict() for point in self.by_max_entries],
            "by_timeout": [point.as_dict() for point in self.by_timeout],
            "by_near": [point.as_dict() for point in self.by_near],
            "unread_writes": self.unread_writes,
            "changes": [
                {"setting": each.setting, "before": each.before, "after": each.after, "effect": each.effect}
                for each in self.changes
            ],
            "notes": list(self.notes),
            "caches": self.caches,
        }
