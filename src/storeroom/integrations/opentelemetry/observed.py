"""The metrics: observable instruments, one for each measure, over the statistics of this process."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation

from storeroom.exceptions import StoreroomError
from storeroom.integrations.measures import (
    DOWN,
    FAMILY_MEASURES,
    LIMIT,
    MEASURES,
    SIZE_MEASURES,
    TIER_MEASURES,
    Measure,
    Reading,
    read_own,
    watched,
)  # fmt: skip

__all__ = ["Observed"]

_log = logging.getLogger("storeroom.opentelemetry")

_TOGETHER_SECONDS: Final = 5.0
"""Instruments that ask within this of each other, and each for the first time, are told of one moment."""

_Parts: TypeAlias = Callable[[Reading], Iterable[tuple[Mapping[str, str], Any]]]
"""Returns what a measure's points() is called with, and attributes of it."""


class Observed:
    """The instruments of one provider.

    Attributes:
        provider: theirs.
    """

    def __init__(self, provider: MeterProvider) -> None:
        self.provider = provider
        self._is_on = self._tells_families = False
        self._aliases: Sequence[str] | None = None
        self._readings: list[Reading] = []
        self._told: set[str] = set()
        self._read_at = 0.0
        meter = provider.get_meter("storeroom")
        for measures, parts in _PARTS:
            for measure in measures:
                self._make(meter, measure, parts)

    def switch_on(self, aliases: Sequence[str] | None, *, families: bool) -> None:
        """Tell of these caches from now on."""
        self._aliases, self._tells_families, self._is_on = aliases, families, True
        self._read_at = 0.0

    def switch_off(self) -> None:
        """Tell nothing: instruments cannot be taken away."""
        self._is_on = False
        self._readings = []

    def _make(self, meter: Meter, measure: Measure, parts: _Parts) -> None:
        makers: dict[str, Any] = {
            "counter": meter.create_observable_counter,
            "gauge": meter.create_observable_gauge,
            "sum": meter.create_observable_up_down_counter,
        }

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return list(self._observations(measure, parts))

        makers[measure.kind](f"storeroom.cache.{measure.name}", [observe], measure.unit, measure.meaning)

    def _observations(self, measure: Measure, parts: _Parts) -> Iterator[Observation]:
        if not self._is_on or (measure in FAMILY_MEASURES and not self._tells_families):
            return
        for reading in self._read(measure.name):
            own = {"cache.name": reading.alias, "storeroom.backend": reading.backend}
            for attributes, stats in parts(reading):
                for more, number in measure.points(stats):
                    yield Observation(number, {**own, **attributes, **more})

    def _read(self, name: str) -> list[Reading]:
        """Return the readings for an instrument: those of the others, but for one that has had them already."""
        now = time.monotonic()
        if name in self._told or not 0 <= now - self._read_at < _TOGETHER_SECONDS or not self._read_at:
            self._readings, self._told, self._read_at = list(self._read_now()), set(), now
        self._told.add(name)
        return self._readings

    def _read_now(self) -> Iterator[Reading]:
        for alias, cache in watched(self._aliases):
            try:
                yield read_own(alias, cache)
            except StoreroomError as error:
                _log.warning("The numbers of cache %r cannot be read.", alias, exc_info=error)


def _counts(reading: Reading) -> Iterator[tuple[Mapping[str, str], Any]]:
    for stats in reading.counts.values():
        yield {}, stats


def _size(reading: Reading) -> Iterator[tuple[Mapping[str, str], Any]]:
    yield {}, reading.size


def _itself(reading: Reading) -> Iterator[tuple[Mapping[str, str], Any]]:
    yield {}, reading


def _tiers(reading: Reading) -> Iterator[tuple[Mapping[str, str], Any]]:
    for name, stats in reading.size.tiers.items():
        yield {"storeroom.tier": name}, stats


def _families(reading: Reading) -> Iterator[tuple[Mapping[str, str], Any]]:
    for stats in reading.counts.values():
        for name, family in stats.families.items():
            yield {"storeroom.family": name}, family


_PARTS: Final = (
    (MEASURES, _counts),
    (SIZE_MEASURES, _size),
    ((LIMIT, DOWN), _itself),
    (TIER_MEASURES, _tiers),
    (FAMILY_MEASURES, _families),
)
