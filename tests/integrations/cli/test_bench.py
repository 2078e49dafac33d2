"""`storeroom bench`: figures, and a cache that is left as it was."""

import json

import pytest

from storeroom.backends.locmem import LocMemCache
from storeroom.exceptions import StorageError


@pytest.mark.slow
def test_bench_measures_and_leaves_the_cache_as_it_was(run, cache):
    """`bench` measures each operation with the given threads and sizes, and leaves the cache's own entries alone."""
    cache.set("key", "value")
    code, output, _ = run("bench", "--seconds", "0.05", "--threads", "2", "--size", "50", "--json")
    assert code == 0
    report = json.loads(output)
    assert (report["threads"], report["value_bytes"]) == (2, 50)
    names = [figure["operation"] for figure in report["figures"]]
    assert names == ["get", "set", "get_many of 100", "set_many of 100", "incr"]
    for figure in report["figures"]:
        assert figure["microseconds"] > 0
        assert figure["calls_per_second"] > 0
    assert cache.keys() == ["key"]
    stats = cache.stats()
    assert (stats.entries, stats.hits, stats.sets, stats.deletes, [*stats.families]) == (1, 0, 1, 0, ["key"])


@pytest.mark.slow
def test_bench_prints_a_table(run):
    """`bench` prints the conditions, and a table with the time of a call and the calls per second."""
    code, output, _ = run("bench", "--seconds", "0.05")
    assert code == 0
    assert "Values of 100 bytes, 1 thread; median of 5 rounds" in output
    assert output.splitlines()[3].split() == ["µs", "per", "call", "calls", "per", "second"]


def test_bench_does_not_evict_unasked(run, tmp_path):
    """`bench` refuses a cache in which its entries would evict others."""
    small = f"file://{tmp_path}/small?max_entries=150"
    code, output, errors = run("bench", config=small)
    assert (code, output) == (2, "")
    assert "holds 0 of 150 entries, and the benchmark adds up to 200" in errors


@pytest.mark.slow
def test_bench_of_a_cache_that_stores_nothing_leaves_incr_out(run):
    """`bench` leaves incr out where nothing is stored."""
    code, output, _ = run("bench", "--seconds", "0.05", config="dummy://")
    assert code == 0
    assert "incr" not in output


def test_bench_raises_the_error_of_a_thread(run, monkeypatch):
    """An error in one of bench's threads is the command's error."""
    monkeypatch.setattr(LocMemCache, "get_many", lambda *_: (_ for _ in ()).throw(StorageError("It is gone.")))
    code, _, errors = run("bench", "--seconds", "0.01", "--threads", "2", config="locmem://bench?max_entries=1000")
    assert code == 3
    assert errors.endswith("storeroom: It is gone.\n")
