"""Advice from programs under traffic, beside whole runs of the same traffic at other numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean

import pytest

from benchmarks.advice import drifting
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.backends.redis import RedisCache
from storeroom.recording import recorder
from storeroom.testing import FakeClock
from storeroom.testing.isolation import engines_of_its_own
from tests.integrations.cli.shell import shell
from tests.servers.redis import redis_databases, redis_server

__all__ = ["redis_databases", "redis_server"]

pytestmark = [pytest.mark.slow, pytest.mark.long]

SIZE = 2_000

PROGRAM = """
import json, math, sys, threading
import storeroom
from storeroom import cache
from storeroom.recording import recorder
from tests.integrations.test_advice_live import traffic

recorder._BUDGET, recorder.submit = math.inf, lambda job, _: job()  # else it matters how busy the machine is
storeroom.configure(json.loads(sys.argv[1]))
keys, threads = traffic(int(sys.argv[2]), float(sys.argv[3])), 4

def serve(number):
    for turn, key in enumerate(keys[number::threads]):
        if turn % 10 == number:
            cache.get_or_set(key, "a page")
        elif cache.get(key) is None:
            cache.set(key, "a page")

serving = [threading.Thread(target=serve, args=(number,)) for number in range(threads)]
for each in serving:
    each.start()
for each in serving:
    each.join()
print(json.dumps([cache.advice().as_dict(), cache.stats().hit_ratio]))
"""


def traffic(reads, scans=0.0):
    """Return the keys of so many reads: popular ones that change; a part of the reads goes over others, once each."""
    return drifting(reads, 60_000, 0.8, drift=0.01, scans=scans)


def served(backend, location, reads, scans=0.0, **options):
    """Run a program with four threads; return its advice, its hit ratio, and its CACHES."""
    written = {"BACKEND": f"storeroom.backends.{backend}", "LOCATION": str(location), "TIMEOUT": None}
    caches = {"default": {**written, "OPTIONS": {**options, "advise": "always"}}}
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(caches), str(reads), str(scans)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), "PYTHONHASHSEED": "1"},
    )
    assert found.returncode == 0, found.stderr
    return *json.loads(found.stdout), caches


def agree(points, truths, *, here=None, has_intervals=True):
    """Compare curves with whole runs: the mean error, the worst, and the intervals, if there are any."""
    told = {point["at"]: point for point in points}
    errors = {at: abs(told[at]["hit_ratio"] - true) for at, true in truths.items() if at != here}
    assert len(errors) >= 2
    assert mean(errors.values()) <= 0.01, errors
    assert max(errors.values()) <= 0.025, errors
    if not has_intervals:
        return
    held = [told[at]["low"] - 1e-9 <= true <= told[at]["high"] + 1e-9 for at, true in truths.items() if at != here]
    assert sum(held) >= len(held) - 1, (told, truths)


def run_whole(cache, keys):
    """Run the traffic on another cache; return its hit ratio."""
    for key in keys:
        if cache.get(key) is None:
            cache.set(key, "a page")
    return cache.stats().hit_ratio


def test_advice_of_local_memory_agrees_with_whole_runs():
    """From a sample of what four threads read, the hit ratios of other MAX_ENTRIES are those that they really have."""
    advice, hit_ratio, _ = served("locmem.LocMemCache", "", 60_000, max_entries=SIZE)
    assert advice["sampled_keys"] >= 4_000
    assert advice["missing_keys"] == 0
    assert advice["hit_ratio"] == pytest.approx(hit_ratio)
    keys, truths = traffic(60_000), {}
    with engines_of_its_own():
        for point in advice["by_max_entries"]:
            params = {"TIMEOUT": None, "OPTIONS": {"max_entries": point["at"]}}
            truths[point["at"]] = run_whole(LocMemCache(f"whole-{point['at']}", params), keys)
    agree(advice["by_max_entries"], truths, here=SIZE)


def test_advice_of_files_agrees_with_whole_runs(tmp_path):
    """The same of files; `storeroom advise` prints the answer that the program has left."""
    advice, hit_ratio, caches = served("filebased.FileBasedCache", tmp_path / "cache", 30_000, max_entries=SIZE)
    assert advice["hit_ratio"] == pytest.approx(hit_ratio)
    keys, sizes, truths = traffic(30_000), [point["at"] for point in advice["by_max_entries"]], {}
    with engines_of_its_own():
        for size in (sizes[0], SIZE, sizes[-1]):
            params = {"TIMEOUT": None, "OPTIONS": {"max_entries": size}}
            truths[size] = run_whole(FileBasedCache(str(tmp_path / str(size)), params), keys)
    agree(advice["by_max_entries"], truths, here=SIZE)
    (tmp_path / "config.py").write_text(f"CACHES = {caches!r}")
    found = shell("advise", "--json", "--config", "config", PYTHONPATH=str(tmp_path))
    assert found.returncode == 0, found.stderr
    left = json.loads(found.stdout)
    assert left["reads"] >= 10_000
    for point in left["by_max_entries"]:
        same = next(each for each in advice["by_max_entries"] if each["at"] == point["at"])
        assert point["hit_ratio"] == pytest.approx(same["hit_ratio"], abs=0.06)  # from fewer reads, more of them first


def test_advice_of_a_server_agrees_with_a_near_tier(redis_databases):
    """Of Redis, the reads that a near tier of 1,000 entries would answer are those that one does answer."""
    reads, scans = 30_000, 0.5  # as many keys as a sample needs that has room for a tier of 10,000
    advice, hit_ratio, _ = served("redis.RedisCache", redis_databases.url(), reads, scans)
    assert advice["hit_ratio"] == pytest.approx(hit_ratio)
    near = {"max_entries": 1_000, "max_staleness": 300.0}
    with engines_of_its_own():
        params = {"KEY_PREFIX": "near", "TIMEOUT": None, "OPTIONS": {"near": near}}
        cache = RedisCache(redis_databases.url(), params)
        run_whole(cache, traffic(reads, scans))
        tier = cache.stats().tiers["near"]
    told = next(point for point in advice["by_near"] if point["at"] == 1_000)
    true = tier.hits / reads
    assert abs(told["hit_ratio"] - true) <= 0.025
    assert told["low"] - 0.01 <= true <= told["high"] + 0.01


def test_advice_about_the_timeout_agrees_with_whole_runs(monkeypatch):
    """The hit ratios of other TIMEOUTs are those that they really have."""
    monkeypatch.setattr(recorder, "_BUDGET", 1e9)
    monkeypatch.setattr(recorder, "submit", lambda job, _: job())
    keys, usual = traffic(30_000), 60

    def run(timeout, **options):
        with FakeClock() as clock, engines_of_its_own():
            params = {"TIMEOUT": timeout, "OPTIONS": {"max_entries": SIZE, **options}}
            cache = LocMemCache("timeouts", params)
            for key in keys:
                if cache.get(key) is None:
                    cache.set(key, "a page")
                clock.advance(0.05)
            told = cache.advice().as_dict() if options else None
            return cache.stats().hit_ratio, told

    _, advice = run(usual, advise="always")
    truths = {point["at"]: run(point["at"])[0] for point in advice["by_timeout"]}
    agree(advice["by_timeout"], truths, here=usual, has_intervals=False)  # all keys were replayed
