"""OpenTelemetry: the statistics of all caches as metrics, and spans of computations and round trips.

::

    from storeroom.integrations.opentelemetry import instrument

    instrument(spans=True)

The metrics are observable: they are read from ``stats()`` when a reader collects them, so that no operation of a cache
pays for them. Spans and the histogram of latencies are made as operations happen, and for that the hooks of caches over
a connection are put together anew; without them, and after uninstrument(), these are as they were.
"""

from collections.abc import Sequence
from typing import Any, Final

from opentelemetry import metrics as metrics_api
from opentelemetry import trace as trace_api

from storeroom.backends import network
from storeroom.computing import work
from storeroom.integrations.opentelemetry import sizes
from storeroom.integrations.opentelemetry.observed import Observed
from storeroom.integrations.opentelemetry.spans import Watch

__all__ = ["instrument", "uninstrument"]

_observed: Final[list[Observed]] = []
"""One for each provider: its instruments are there for good, and are told nothing while they are off."""


def instrument(
    *,
    metrics: bool = True,
    spans: bool = False,
    latency: bool = False,
    keys: bool = False,
    families: bool = True,
    aliases: Sequence[str] | None = None,
    meter_provider: metrics_api.MeterProvider | None = None,
    tracer_provider: trace_api.TracerProvider | None = None,
) -> None:
    """Tell OpenTelemetry of this program's caches, from now on; what was switched on before is switched off.

    Args:
        metrics: whether the counts of ``stats()`` are observed.
        spans: whether each computation, and each round trip to a server or database, gets a span.
        latency: whether the duration of each round trip is recorded in a histogram.
        keys: whether spans have the keys themselves; else these are told as families, which hold no personal data.
        families: whether metrics tell the families of keys apart.
        aliases: of the caches whose metrics are told; None for all of the configuration.
        meter_provider: None for the global one.
        tracer_provider: likewise.
    """
    uninstrument()
    meters = meter_provider or metrics_api.get_meter_provider()
    if metrics:
        _observed_by(meters).switch_on(aliases, families=families)
    if spans or latency:
        tracer = trace_api.get_tracer("storeroom", tracer_provider=tracer_provider) if spans else None
        watch = Watch(tracer, meters.get_meter("storeroom") if latency else None, shows_keys=keys)
        network.put_around(watch.around)
        if spans:
            work.AROUND[:] = [watch.computed]
            sizes.install()


def uninstrument() -> None:
    """Tell OpenTelemetry nothing more."""
    for observed in _observed:
        observed.switch_off()
    network.put_around(None)
    work.AROUND.clear()
    sizes.remove()


def _observed_by(provider: Any) -> Observed:
    for observed in _observed:
        if observed.provider is provider:
            return observed
    _observed.append(Observed(provider))
    return _observed[-1]
