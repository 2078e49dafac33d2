"""The collector for Prometheus: its numbers against runs whose truth is known, and several workers of gunicorn."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import storeroom
from storeroom import caches
from storeroom.backends.db import DatabaseCache
from storeroom.engines.counts import LATENCY_SECONDS
from storeroom.exceptions import ConfigurationError
from storeroom.integrations.prometheus import StoreroomCollector
from storeroom.testing.isolation import engines_of_its_own
from tests.integrations.small_run import small_run

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples_in(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraped(**options: Any) -> Samples:
    registry = CollectorRegistry(auto_describe=True)
    registry.register(StoreroomCollector(**options))
    return samples_in(generate_latest(registry).decode())


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of all samples of this name and these labels, whoever counted them."""
    return sum(
        value for (found, own), value in samples.items() if found == name and labels.items() <= dict(own).items()
    )


@pytest.fixture
def three(tmp_path: Path) -> Iterator[None]:
    """Memory, files, and a database whose processes count together."""
    with engines_of_its_own(alone=True):
        storeroom.configure(
            {
                "default": {"BACKEND": "storeroom.backends.locmem.LocMemCache", "OPTIONS": {"max_entries": 5}},
                "files": {
                    "BACKEND": "storeroom.backends.filebased.FileBasedCache",
                    "LOCATION": str(tmp_path / "files"),
                },
                "db": {
                    "BACKEND": "storeroom.backends.db.DatabaseCache",
                    "LOCATION": f"sqlite:///{tmp_path}/cache.db",
                    "OPTIONS": {"shared_stats": True, "near": True},
                },
            }
        )
        yield
        caches.swap(None)


@pytest.mark.parametrize("alias", ["default", "files", "db"])
def test_each_number_is_that_of_the_run(alias: str, three: None) -> None:
    """Requests, writes, computations, families and sizes are those of the operations, on each kind of storage."""
    before = scraped()
    small_run(alias)
    after = scraped()

    def grown(name: str, **labels: str) -> float:
        return total(after, name, alias=alias, **labels) - total(before, name, alias=alias, **labels)

    assert (grown("storeroom_requests_total", result="hit"), grown("storeroom_requests_total", result="miss")) == (2, 3)
    assert (grown("storeroom_sets_total"), grown("storeroom_deletes_total")) == (2, 1)
    assert grown("storeroom_computations_total", outcome="computed") == 1
    assert grown("storeroom_computations_total", outcome="failed") == 1
    assert grown("storeroom_computations_total", outcome="abandoned") == 0
    assert grown("storeroom_computations_saved_total") == 1
    assert 0 < grown("storeroom_saved_seconds") == grown("storeroom_computation_seconds_total")
    assert grown("storeroom_entries") == 1
    assert grown("storeroom_size_bytes") > 0
    assert grown("storeroom_family_requests_total", family="page", result="miss") == 2
    assert grown("storeroom_family_sets_total", family="page") == 1
    assert grown("storeroom_family_computations_total", family="page", outcome="failed") == 1
    assert total(after, "storeroom_collect_failed", alias=alias) == 0
    others = [other for other in ("default", "files", "db") if other != alias]
    assert [total(after, "storeroom_sets_total", alias=other) for other in others] == [0, 0]


def test_evictions_bounds_and_tiers_are_told(three: None) -> None:
    """Evictions are those of the cache, beside its bound; a near tier has numbers of its own."""
    caches["default"].set_many({f"k{number}": number for number in range(12)})
    cache = caches["db"]
    cache.set("a", 1)
    assert [cache.get("a") for _ in range(3)] == [1] * 3
    samples = scraped(aliases=["default", "db"], families=False)
    assert total(samples, "storeroom_evictions_total", alias="default") == 7
    assert total(samples, "storeroom_max_entries", alias="default") == 5
    near = {"alias": "db", "tier": "near"}
    assert total(samples, "storeroom_tier_requests_total", **near, result="hit") == cache.stats().tiers["near"].hits > 0
    assert total(samples, "storeroom_tier_entries", **near) == 1
    assert [name for name, _ in samples if "family" in name] == []


def test_latency_is_a_histogram_of_the_round_trips(three: None) -> None:
    """Buckets add up, and end with the number of all round trips; the sum is the seconds that they took."""
    cache = caches["db"]
    for number in range(20):
        cache.set(f"k{number}", number)
    samples = scraped(aliases=["db"])
    buckets = {
        float(dict(labels)["le"]): value
        for (name, labels), value in samples.items()
        if name == "storeroom_round_trip_seconds_bucket"
    }
    assert tuple(buckets) == LATENCY_SECONDS
    assert sorted(buckets.values()) == list(buckets.values())
    assert buckets[float("inf")] == total(samples, "storeroom_round_trip_seconds_count") >= 20
    assert 0 < total(samples, "storeroom_round_trip_seconds_sum") <= cache.stats("process").round_trip_seconds


def test_processes_that_count_together_are_told_apart_and_never_fall(tmp_path: Path) -> None:
    """Any process tells of all, each by a source of its own, and never less of one than was told before."""

    def process() -> Any:
        with engines_of_its_own(alone=True):
            options = {"OPTIONS": {"shared_stats": True}}
            return DatabaseCache(f"sqlite:///{tmp_path}/cache.db", options)

    with engines_of_its_own(alone=True):
        storeroom.configure({"default": {"BACKEND": "storeroom.backends.locmem.LocMemCache"}})
        first, second = process(), process()
        told: dict[str, list[float]] = {}
        for turn in range(4):
            first.set(f"a{turn}", 1)
            second.set_many({f"{turn}-{number}": 1 for number in range(10)})
            for cache in (first, second):
                caches.configuration.handles["default"] = cache  # type: ignore[index]
                for (name, labels), value in scraped().items():
                    if name == "storeroom_sets_total":
                        told.setdefault(dict(labels)["source"], []).append(value)
        caches.swap(None)
    assert all(numbers == sorted(numbers) for numbers in told.values()), told
    assert sorted(numbers[-1] for numbers in told.values()) == [4, 40]


WRITER = """
import sys, time
from storeroom.backends.filebased import FileBasedCache
turns = FileBasedCache(sys.argv[1], {})._engine.turns
with turns.taken(5), turns.begin(write=True):
    print("writes", flush=True)
    time.sleep(0.2)
"""


def test_files_are_told_of_as_they_stand_in_the_record(tmp_path: Path) -> None:
    """A scrape waits for another process's write: counts told and not added would be missing in the next one."""
    with engines_of_its_own():
        storeroom.configure(
            {"default": {"BACKEND": "storeroom.backends.filebased.FileBasedCache", "LOCATION": str(tmp_path / "files")}}
        )
        cache = storeroom.cache
        cache.set("user", 1)
        cache.engine.add_counts()
        cache.get("user")
        assert cache.engine.counted() == {"hits": 1}
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "files")], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"writes\n"
            assert total(scraped(), "storeroom_requests_total", result="hit") == 1
            assert not cache.engine.counted()
        caches.swap(None)


def test_to_register_opens_no_cache(three: None, tmp_path: Path) -> None:
    """A collector is registered at import; caches are read when they are asked for, and names are known before."""
    registry = CollectorRegistry(auto_describe=True)
    registry.register(StoreroomCollector())
    assert not (tmp_path / "files").exists()
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(StoreroomCollector())
    described = {family.name for family in StoreroomCollector().describe()}
    assert {family.name for family in StoreroomCollector().collect()} == described | {"storeroom_collect_failed"}


def test_an_alias_that_is_not_there_is_an_error(three: None) -> None:
    """The mistake is told with the alias that was meant."""
    with pytest.raises(ConfigurationError, match=r"no cache 'file' in CACHES\. Did you mean 'files'\?"):
        scraped(aliases=["file"])


# Several workers ------------------------------------------------------------------------------------

WORKERS = 3
SERVED = """
import os, storeroom
from prometheus_client import CollectorRegistry, Counter, make_wsgi_app, multiprocess
from storeroom.integrations.prometheus import StoreroomCollector

storeroom.configure({
    "memory": {"BACKEND": "storeroom.backends.locmem.LocMemCache"},
    "files": {"BACKEND": "storeroom.backends.filebased.FileBasedCache", "LOCATION": "files"},
    "default": {
        "BACKEND": "storeroom.backends.db.DatabaseCache",
        "LOCATION": "sqlite:///cache.db",
        "OPTIONS": {"shared_stats": True},
    },
})
requests = Counter("app_requests", "Requests of the program's own.")
registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
registry.register(StoreroomCollector())
metrics = make_wsgi_app(registry)

def app(environ, start_response):
    if environ["PATH_INFO"] == "/metrics":
        def start(status, headers, exc_info=None):
            return start_response(status, [*headers, ("X-Worker", str(os.getpid()))])
        return metrics(environ, start)
    requests.inc()
    for alias in storeroom.caches:
        storeroom.caches[alias].get_or_set("page" + environ["PATH_INFO"], lambda: "<html>")
    start_response("200 OK", [("X-Worker", str(os.getpid()))])
    return [b"done"]
"""


@contextmanager
def gunicorn(folder: Path) -> Iterator[str]:
    """Serve by some workers that are forked off one program; yield the address."""
    (folder / "served.py").write_text(SERVED)
    (folder / "metrics").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{free.getsockname()[1]}"
    paths = os.pathsep.join((str(Path(storeroom.__file__).parents[1]), str(folder)))
    environ = {**os.environ, "PYTHONPATH": paths, "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics")}
    command = ["gunicorn", "served:app", "--preload", "--workers", str(WORKERS), "--log-level", "warning"]
    process = subprocess.Popen([sys.executable, "-m", *command, "--bind", where], cwd=folder, env=environ)
    try:
        yield f"http://{where}"
    finally:
        process.terminate()
        process.wait(30)


def ask(url: str) -> tuple[str, str]:
    """Return the worker that answered, and its answer; wait for a server that is starting."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return answer.headers["X-Worker"], answer.read().decode()
        except OSError:
            assert time.monotonic() < deadline, "gunicorn does not answer"
            time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn does not run there")
def test_workers_of_gunicorn_are_told_of_together(tmp_path: Path) -> None:
    """Whichever worker is asked tells of all that count together; no number falls, and their sum is the truth."""
    with gunicorn(tmp_path) as url:
        asked: list[str] = []
        while len(set(asked)) < WORKERS or len(asked) < 30:
            asked.append(ask(f"{url}/{len(asked) % 10}")[0])
            assert len(asked) < 2000, "the requests come to some workers alone"
        told, scrapes = set[str](), list[Samples]()
        while told != set(asked) or len(scrapes) < 6:
            worker, text = ask(f"{url}/metrics")
            told.add(worker)
            scrapes.append(samples_in(text))
            assert len(scrapes) < 2000
    for before, after in pairwise(scrapes):
        fallen = [key for key, value in after.items() if key[0].endswith("_total") and value < before.get(key, 0)]
        assert fallen == []
    last, number = scrapes[-1], len(asked)
    assert total(last, "app_requests_total") == number
    for alias in ("default", "files"):
        assert total(last, "storeroom_requests_total", alias=alias) == number
        assert total(last, "storeroom_requests_total", alias=alias, result="miss") == 10
        assert total(last, "storeroom_computations_total", alias=alias, outcome="computed") == 10
        assert total(last, "storeroom_entries", alias=alias) == 10
    sources = {
        dict(labels)["source"]
        for name, labels in last
        if name == "storeroom_sets_total" and dict(labels)["alias"] == "default"
    }
    assert {re.sub(r".*-", "", source) for source in sources} == set(asked)
    everybody = {key: value for samples in scrapes for key, value in samples.items()}
    assert total(everybody, "storeroom_requests_total", alias="memory") == number
