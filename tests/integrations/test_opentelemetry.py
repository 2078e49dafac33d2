"""OpenTelemetry: the metrics and spans that its own SDK collects, against runs whose truth is known."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import storeroom
from storeroom import caches
from storeroom.backends.db import DatabaseCache
from storeroom.computing import work
from storeroom.integrations import measures
from storeroom.integrations.opentelemetry import instrument, uninstrument
from storeroom.serializers.codec import Codec, SignedCodec
from storeroom.testing.isolation import engines_of_its_own
from tests.integrations.small_run import fail, small_run
from tests.servers.memcached import MemcachedServer
from tests.servers.redis import Databases, redis_databases

__all__ = ["redis_databases"]

Told = dict[tuple[str, tuple[tuple[str, Any], ...]], Any]


class Sdk(NamedTuple):
    """A real SDK that keeps in memory what it is told."""

    reader: InMemoryMetricReader
    exporter: InMemorySpanExporter
    meters: MeterProvider
    tracers: TracerProvider

    def on(self, **options: Any) -> None:
        instrument(meter_provider=self.meters, tracer_provider=self.tracers, **options)

    def metrics(self) -> Told:
        """Return name and attributes of each number to the number; of a histogram, to its point."""
        told: Told = {}
        data = self.reader.get_metrics_data()
        for metric in (
            metric
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ):
            for point in metric.data.data_points:
                attributes = tuple(sorted((point.attributes or {}).items()))
                told[metric.name, attributes] = getattr(point, "value", point)
        return told

    def spans(self) -> list[ReadableSpan]:
        """Return the spans that have ended, and forget them."""
        spans = sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
        self.exporter.clear()
        return spans


@pytest.fixture
def sdk() -> Iterator[Sdk]:
    reader, exporter, tracers = InMemoryMetricReader(), InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    meters = MeterProvider([reader])
    yield Sdk(reader, exporter, meters, tracers)
    uninstrument()
    tracers.shutdown()
    meters.shutdown()


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Configure caches, by default memory, files, and a database, with engines of their own."""

    def configure(**aliases: Any) -> None:
        storeroom.configure({"default": {"BACKEND": "storeroom.backends.locmem.LocMemCache"}, **aliases})

    with engines_of_its_own(alone=True):
        configure(
            files={"BACKEND": "storeroom.backends.filebased.FileBasedCache", "LOCATION": str(tmp_path / "files")},
            db={"BACKEND": "storeroom.backends.db.DatabaseCache", "LOCATION": f"sqlite:///{tmp_path}/cache.db"},
        )
        yield configure
        caches.swap(None)


def number(told: Told, name: str, alias: str, **attributes: str) -> float:
    wanted = {"cache.name": alias, **{name.replace("__", "."): value for name, value in attributes.items()}}
    return sum(value for (found, own), value in told.items() if found == name and wanted.items() <= dict(own).items())


@pytest.mark.parametrize("alias", ["default", "files", "db"])
def test_metrics_are_those_of_the_run(alias: str, sdk: Sdk, configured: Any) -> None:
    """Requests, writes, computations, families and sizes are those of the operations; of this process, everywhere."""
    sdk.on()
    small_run(alias)
    caches[alias].engine.add_counts()  # as files do about once a second: they are this process's still
    told = sdk.metrics()
    prefix = "storeroom.cache."
    assert number(told, f"{prefix}requests", alias, cache__request__type="hit") == 2
    assert number(told, f"{prefix}requests", alias, cache__request__type="miss") == 3
    assert (number(told, f"{prefix}sets", alias), number(told, f"{prefix}deletes", alias)) == (2, 1)
    assert number(told, f"{prefix}computations", alias, storeroom__outcome="computed") == 1
    assert number(told, f"{prefix}computations", alias, storeroom__outcome="failed") == 1
    assert number(told, f"{prefix}computation.saved", alias) == 1
    spent, saved = (number(told, f"{prefix}computation.{name}", alias) for name in ("time", "saved_time"))
    assert 0 < spent == saved
    assert number(told, f"{prefix}entries", alias) == 1
    page = {"storeroom__family": "page"}
    assert number(told, f"{prefix}family.requests", alias, cache__request__type="miss", **page) == 2
    assert number(told, f"{prefix}family.computations", alias, storeroom__outcome="failed", **page) == 1
    assert number(told, f"{prefix}requests", "files" if alias != "files" else "db") == 0


def test_each_collection_is_told_of_its_own_moment(sdk: Sdk, configured: Any) -> None:
    """Two collections in a row have what happened between them; one reads the statistics once."""
    sdk.on(aliases=["default"], families=False)
    for writes in (1, 2, 3):
        caches["default"].set(f"k{writes}", 1)
        told = sdk.metrics()
        assert number(told, "storeroom.cache.sets", "default") == writes
        assert number(told, "storeroom.cache.entries", "default") == writes
    assert [name for name, _ in told if ".family." in name] == []
    assert {dict(attributes)["cache.name"] for _, attributes in told} == {"default"}


def test_metrics_are_told_no_more_once_they_are_off(sdk: Sdk, configured: Any) -> None:
    """uninstrument() ends them, and instrument() begins them again, without a second instrument of a name."""
    sdk.on()
    assert sdk.metrics()
    uninstrument()
    assert sdk.metrics() == {}
    sdk.on()
    assert sdk.metrics()


def test_instruments_have_units_and_a_sentence(sdk: Sdk, configured: Any) -> None:
    """Names begin with the library's, in lower case; units are UCUM's; each says what it counts."""
    sdk.on(latency=True)
    small_run("db")
    data = sdk.reader.get_metrics_data()
    assert data is not None
    found = [metric for each in data.resource_metrics for scope in each.scope_metrics for metric in scope.metrics]
    assert all(metric.name.startswith("storeroom.cache.") and metric.name.islower() for metric in found)
    assert {metric.unit for metric in found if not (metric.unit or "").startswith("{")} == {"s", "By"}
    assert all((metric.description or "").endswith(".") for metric in found)
    every = (*measures.MEASURES, *measures.SIZE_MEASURES, *measures.FAMILY_MEASURES, measures.DOWN, measures.LIMIT)
    absent = {f"storeroom.cache.{each.name}" for each in every} - {metric.name for metric in found}
    assert absent == {"storeroom.cache.refusals"}  # nothing was refused


# Spans ----------------------------------------------------------------------------------------------


def told_of(span: ReadableSpan, *names: str) -> tuple[Any, ...]:
    attributes: Mapping[str, Any] = span.attributes or {}
    return tuple(attributes.get(name) for name in names)


def test_spans_show_the_way_of_a_computation(sdk: Sdk, configured: Any) -> None:
    """A miss reads, leases, computes and stores, in the caller's span; a hit reads. Keys are told as families."""
    cache = caches["db"]
    cache.set("a", 1)  # learns whatever has to be known
    before = cache.stats()
    sdk.on(spans=True)
    with sdk.tracers.get_tracer("test").start_as_current_span("request") as request:
        for _ in range(2):
            cache.get_or_set("page:7", lambda: "x" * 1000)
    spans = [span for span in sdk.spans() if span.name != "request"]
    assert [span.name for span in spans] == [
        "cache.get page", "cache.lease page", "cache.compute page", "cache.put page", "cache.get page",
    ]  # fmt: skip
    missed, _, computed, put, hit = spans
    assert {span.parent and span.parent.span_id for span in spans} == {request.get_span_context().span_id}
    assert told_of(missed, "cache.hit", "cache.item_size", "cache.key") == (False, None, ("page",))
    assert told_of(hit, "cache.hit", "sentry.op", "cache.name") == (True, "cache.get", "db")
    assert (put.kind, computed.kind) == (SpanKind.CLIENT, SpanKind.INTERNAL)
    after = cache.stats()
    sizes = (after.bytes_written - before.bytes_written, after.bytes_read - before.bytes_read)
    (lease,) = told_of(spans[1], "cache.item_size")
    assert told_of(put, "cache.item_size", "sentry.op") == (sizes[0] - lease, "cache.put")
    assert told_of(hit, "cache.item_size") == (sizes[1],)
    (name,) = told_of(computed, "code.function.name")
    assert name.endswith("test_spans_show_the_way_of_a_computation.<locals>.<lambda>")


def test_spans_have_keys_where_that_is_asked_for(sdk: Sdk, configured: Any) -> None:
    """Keys, as the caller typed them, are there by option; without it no span has any."""
    cache = caches["db"]
    for keys, shown in ((True, ("user:17", "row-9")), (False, ("user", "row-*"))):
        sdk.on(spans=True, keys=keys)
        cache.get_many(["user:17", "row-9"])
        cache.get_or_set("user:17", lambda: "Ada")
        spans = sdk.spans()
        assert told_of(spans[0], "cache.key", "storeroom.keys", "cache.hit") == (shown, 2, False)
        assert any("17" in str(span.attributes) + span.name for span in spans) is keys
        cache.clear()
        sdk.spans()


def test_operations_have_sentrys_names(sdk: Sdk, configured: Any) -> None:
    """Reads, writes, removals and clearings are told by their operation."""
    cache = caches["db"]
    cache.set("a", 1)
    sdk.on(spans=True)
    cache.set_many({"a": 1, "b": 2})
    cache.incr("a")
    cache.touch("a")
    cache.delete_many(["a", "b"])
    cache.clear()
    spans = [span for span in sdk.spans() if span.parent is None]
    assert [told_of(span, "sentry.op", "cache.operation") for span in spans] == [
        ("cache.put", "set_many"),
        ("cache.put", "incr"),
        ("cache.put", "touch"),
        ("cache.remove", "delete_many"),
        ("cache.flush", "clear"),
    ]


def test_an_error_of_a_computation_is_told_by_its_type_alone(sdk: Sdk, configured: Any) -> None:
    """Its text, which may hold a value, is not; memory has spans of computations, and none of round trips."""
    sdk.on(spans=True)
    with pytest.raises(RuntimeError):
        caches["default"].get_or_set("page:8", fail)
    (span,) = sdk.spans()
    assert (span.name, span.status.status_code, span.events) == ("cache.compute page", StatusCode.ERROR, ())
    assert told_of(span, "error.type") == ("RuntimeError",)
    assert "no value" not in span.to_json()


def test_asynchronous_operations_have_spans_in_the_callers(sdk: Sdk, configured: Any) -> None:
    """They are within the caller's span, also where a worker thread asks the storage."""
    sdk.on(spans=True)

    async def load() -> str:
        await asyncio.sleep(0)
        return "<html>"

    async def main() -> None:
        cache = caches["db"]
        with sdk.tracers.get_tracer("test").start_as_current_span("request"):
            await asyncio.gather(*(cache.aget_or_set(f"page:{number}", load) for number in range(3)))
            assert await cache.aget("page:1") == "<html>"

    asyncio.run(main())
    *_, request = sorted(sdk.spans(), key=lambda span: span.end_time or 0)
    assert request.name == "request"


@pytest.fixture
def memcached_location(tmp_path: Path) -> Iterator[str]:
    server = MemcachedServer(tmp_path / "memcached", by_port=True)
    yield server.start().location
    server.stop()


def test_servers_are_told_by_address(
    sdk: Sdk, configured: Any, memcached_location: str, redis_databases: Databases
) -> None:
    """Spans of Redis and of Memcached name the server's address, and sizes are the frames'."""
    port, number = redis_databases.server.port, redis_databases.url().rpartition("=")[2]
    configured(
        redis={
            "BACKEND": "storeroom.backends.redis.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{port}/{number}",
            "KEY_PREFIX": "o",
        },
        memcached={
            "BACKEND": "storeroom.backends.memcached.PyMemcacheCache",
            "LOCATION": memcached_location,
            "KEY_PREFIX": "o",
        },
    )
    for alias, backend in (("redis", "RedisCache"), ("memcached", "PyMemcacheCache")):
        cache = caches[alias]
        uninstrument()
        cache.set("user:1", "first")  # connects, and learns whatever has to be known
        sdk.on(spans=True)
        before = cache.stats()
        cache.set("user:1", "x" * 500)
        assert cache.get("user:1") == "x" * 500
        put, hit = sdk.spans()
        after = cache.stats()
        assert told_of(put, "cache.item_size") == (after.bytes_written - before.bytes_written,)
        assert told_of(hit, "cache.item_size") == (after.bytes_read - before.bytes_read,)
        assert told_of(hit, "cache.name", "storeroom.backend", "cache.key") == (alias, backend, ("user",))
        texts = {f"user:{number}": "x" * number for number in range(5)}
        cache.set_many(texts)
        assert cache.get_many(texts) == texts
        *_, written, read = sdk.spans()
        last = cache.stats()
        assert told_of(written, "cache.item_size") == (last.bytes_written - after.bytes_written,)
        assert told_of(read, "cache.item_size") == (last.bytes_read - after.bytes_read,)
        peer = told_of(hit, "network.peer.address", "network.peer.port")
        assert peer == ("127.0.0.1", port if alias == "redis" else int(memcached_location.rpartition(":")[2]))


def test_an_outage_is_an_error_of_the_round_trip(sdk: Sdk, configured: Any) -> None:
    """A server out of reach is told by the error's type; while nobody asks it there is no round trip, and no span."""
    configured(redis={"BACKEND": "storeroom.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1"})
    sdk.on(spans=True, latency=True)
    for _ in range(10):
        assert caches["redis"].get("user:1") is None
    spans = sdk.spans()
    assert 1 <= len(spans) < 10
    assert {span.status.status_code for span in spans} == {StatusCode.ERROR}
    told = sdk.metrics()
    assert number(told, "storeroom.cache.servers.down", "redis") == 1
    assert number(told, "storeroom.cache.errors", "redis") == 10
    points = [point for (name, _), point in told.items() if name == "storeroom.cache.operation.duration"]
    assert sum(point.count for point in points) == len(spans)


def test_latency_is_a_histogram_by_operation(sdk: Sdk, configured: Any) -> None:
    """Each round trip is one duration, in buckets as of stats(), without spans."""
    cache = caches["db"]
    cache.set("a", 1)
    sdk.on(latency=True)
    for _ in range(7):
        cache.get("a")
    point = next(
        point
        for (name, attributes), point in sdk.metrics().items()
        if name == "storeroom.cache.operation.duration" and ("cache.operation", "get") in attributes
    )
    assert (point.count, sum(point.bucket_counts)) == (7, 7)
    assert 0 < point.sum < cache.stats().round_trip_seconds
    assert point.explicit_bounds[0] == 0.0001
    assert sdk.spans() == []


def test_nothing_is_left_once_it_is_off(sdk: Sdk, configured: Any) -> None:
    """Hooks and codecs are as they were before: who makes no spans pays nothing."""

    def code() -> list[Any]:
        hooks = [DatabaseCache._get.__wrapped__, DatabaseCache._set.__wrapped__]  # type: ignore[attr-defined]
        return [*hooks, Codec.dumps, Codec.loads, SignedCodec.dumps, SignedCodec.loads, list(work.AROUND)]

    before = code()
    sdk.on(spans=True)
    sdk.on(spans=True)
    assert all(now is not then for now, then in zip(code(), before, strict=True))
    uninstrument()
    assert code() == before
    caches["db"].get_or_set("a", lambda: 1)
    assert sdk.spans() == []
