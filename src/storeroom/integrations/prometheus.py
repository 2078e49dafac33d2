"""The statistics of all caches for Prometheus: a collector for ``prometheus_client``.

::

    from prometheus_client import REGISTRY
    from storeroom.integrations.prometheus import StoreroomCollector

    REGISTRY.register(StoreroomCollector())

The numbers are read when Prometheus asks for them, so that no operation of a cache pays for them.

Every number has the label `source`, which names those who counted it: a process, or, for files, a machine. Processes
that count together (``OPTIONS["shared_stats"]``) are told by any one of them, each with a source of its own. So it does
not matter which worker answers, a process that ends makes no sum fall, and two answers that tell of one source are seen
to be the same: ``sum by (alias) (max by (alias, source) (rate(storeroom_requests_total[5m])))``.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from storeroom.engines.counts import LATENCY_SECONDS
from storeroom.engines.stats import CacheStats
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
    own_source,
    read_apart,
    watched,
)  # fmt: skip

__all__ = ["StoreroomCollector"]

_log = logging.getLogger("storeroom.prometheus")

_Part: TypeAlias = tuple[tuple[str, ...], str, Any]
"""The labels of some counts, whose they are, and the counts."""

_LABELS: Final = ("alias", "backend", "source")

_LATENCY: Final = "storeroom_round_trip_seconds"

_FAILED: Final = "storeroom_collect_failed"

_IN_HISTOGRAM: Final = frozenset({"round_trips", "round_trip_time"})
"""Numbers that the histogram has."""


class StoreroomCollector(Collector):
    """Tells the statistics of the caches of this program.

    Args:
        aliases: of the caches; None for all of the configuration.
        families: whether the families of keys are told apart, in numbers of their own: at most 65 for each cache.

    Raises:
        ConfigurationError: when they are collected: there is no such alias.
    """

    def __init__(self, aliases: Sequence[str] | None = None, *, families: bool = True) -> None:
        self._aliases, self._tells_families = aliases, families

    def describe(self) -> Iterable[Any]:
        """Return the metrics without numbers: to be registered opens no cache."""
        return self._told([])

    def collect(self) -> Iterable[Any]:
        """Return the metrics of now. A cache that cannot be read is logged, and told as failed."""
        readings: list[Reading] = []
        failed = GaugeMetricFamily(
            "storeroom_collect_failed", "Whether the cache's numbers cannot be read.", labels=["alias"]
        )
        for alias, cache in watched(self._aliases):
            try:
                readings.append(read_apart(alias, cache))
            except StoreroomError as error:
                _log.warning("The numbers of cache %r cannot be read.", alias, exc_info=error)
            failed.add_metric([alias], float(not readings or readings[-1].alias != alias))
        return [*self._told(readings), failed]

    def _told(self, readings: Sequence[Reading]) -> list[Any]:
        told = [_family(measure, (), readings, _counts) for measure in MEASURES if measure.short not in _IN_HISTOGRAM]
        told.append(_latency(readings))
        told += [_family(measure, (), readings, _sizes) for measure in SIZE_MEASURES]
        told += [_family(LIMIT, (), readings, _limits), _family(DOWN, (), readings, _servers)]
        told += [_family(measure, ("tier",), readings, _tiers) for measure in TIER_MEASURES]
        if self._tells_families:
            told += [_family(measure, ("family",), readings, _families) for measure in FAMILY_MEASURES]
        return told


def _counts(reading: Reading) -> Iterator[_Part]:
    for source, stats in reading.counts.items():
        yield (), source, stats


def _sizes(reading: Reading) -> Iterator[_Part]:
    yield (), reading.size_source, reading.size


def _limits(reading: Reading) -> Iterator[_Part]:
    yield (), reading.size_source, reading


def _servers(reading: Reading) -> Iterator[_Part]:
    yield (), own_source(), reading


def _tiers(reading: Reading) -> Iterator[_Part]:
    for name, stats in reading.size.tiers.items():
        yield (name,), own_source(), stats


def _families(reading: Reading) -> Iterator[_Part]:
    for source, stats in reading.counts.items():
        for name, family in stats.families.items():
            yield (name,), source, family


def _family(
    measure: Measure,
    more: tuple[str, ...],
    readings: Iterable[Reading],
    parts: Callable[[Reading], Iterable[_Part]],
) -> Any:
    """Return one metric, with all its numbers."""
    kind = CounterMetricFamily if measure.kind == "counter" else GaugeMetricFamily
    family = kind(f"storeroom_{measure.short}", measure.meaning, labels=[*_LABELS, *more, *measure.labels.values()])
    for reading in readings:
        for labels, source, stats in parts(reading):
            for attributes, number in measure.points(stats):
                family.add_metric([reading.alias, reading.backend, source, *labels, *attributes.values()], number)
    return family


def _latency(readings: Iterable[Reading]) -> HistogramMetricFamily:
    told = HistogramMetricFamily(_LATENCY, "Seconds of each operation of a storage over a connection.", labels=_LABELS)
    for reading in readings:
        for source, stats in reading.counts.items():
            if stats.round_trips:
                labels = [reading.alias, reading.backend, source]
                told.add_metric(labels, list(_buckets(stats)), stats.round_trip_seconds)
    return told


def _buckets(stats: CacheStats) -> Iterator[tuple[str, float]]:
    """Yield each bound, and how many took no longer."""
    number = 0
    latency: Mapping[float, int] = stats.latency
    for bound in LATENCY_SECONDS:
        number += latency.get(bound, 0)
        yield "+Inf" if bound == LATENCY_SECONDS[-1] else f"{bound:g}", float(number)
