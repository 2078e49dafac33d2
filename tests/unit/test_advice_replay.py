"""Advice's replay: miniatures do as the cache does, whole or in part, within their memory."""

import math
import tracemalloc

import pytest

from benchmarks.hit_ratio import shifting_zipf, zipf
from storeroom import timeouts
from storeroom.advice import Simulation, ladder
from storeroom.advice.simulation import MOST_ENTRIES
from storeroom.advice.traces import mixed
from storeroom.backends.locmem import LocMemCache
from storeroom.testing import FakeClock


def misses(simulation, size):
    return round(sum(next(each.misses for each in simulation.sizes if each.size == size)))


@pytest.mark.parametrize("frequency", [None, 3])
@pytest.mark.parametrize("size", [20, 300])
def test_a_whole_replay_misses_as_often_as_local_memory(size, frequency):
    """With all keys, a miniature is the cache: reads that are refilled miss as often as in local memory."""
    options = {"max_entries": size, "cull_frequency": frequency}
    cache = LocMemCache(f"advice-replay-{size}-{frequency}", {"OPTIONS": options})
    cache.clear()
    simulation = Simulation([10, size], cull_frequency=frequency)
    missed = 0
    for key in shifting_zipf(6_000, 2_000, 0.9, 3):
        if cache.get(key) is None:
            missed += 1
            cache.set(key, 1)
        simulation.read(cache.make_key(key), 0)
    cache.clear()
    assert misses(simulation, size) == missed


def test_a_replay_of_writes_misses_as_often_as_local_memory_where_nothing_is_refilled():
    """Reads that the real cache missed do not fill a miniature: sessions that are gone stay away."""
    cache = LocMemCache("advice-replay-sessions", {"OPTIONS": {"max_entries": 50}})
    cache.clear()
    simulation = Simulation([50, 400], size=50)
    missed = 0
    for number, key in enumerate(zipf(4_000, 200, 0.7)):
        name = cache.make_key(key)
        if number % 5 == 0:
            cache.set(key, 1)
            simulation.write(name, 0)
            continue
        found = cache.get(key) is not None
        missed += not found
        simulation.read(name, 0, found=found)
    cache.clear()
    assert misses(simulation, 50) == missed
    assert misses(simulation, 400) < missed


@pytest.mark.parametrize("timeout", [5.0, 60.0])
def test_a_whole_replay_by_timeout_misses_as_often_as_local_memory(timeout):
    """Each timeout misses as often as a cache with that timeout, in the same pass."""
    with FakeClock() as clock:
        cache = LocMemCache(f"advice-replay-timeout-{timeout}", {"TIMEOUT": timeout, "OPTIONS": {"max_entries": None}})
        cache.clear()
        simulation = Simulation([10], timeouts=[1.0, 5.0, 60.0, math.inf])
        missed = 0
        for key in zipf(3_000, 300, 0.9):
            clock.advance(0.25)
            if cache.get(key) is None:
                missed += 1
                cache.set(key, 1)
            simulation.read(key, 0, timeouts.now())
        cache.clear()
    by_timeout = simulation.by_timeout
    assert by_timeout is not None
    counted = dict(zip(by_timeout.timeouts, map(sum, by_timeout.misses), strict=True))
    assert counted[timeout] == missed
    assert counted[1.0] > counted[5.0] > counted[60.0] > counted[math.inf] == 288


def test_the_refill_after_a_miss_does_not_refresh_what_was_found_under_a_longer_timeout():
    """A write that follows a miss would not have come under a timeout that finds the key."""
    simulation = Simulation([10], timeouts=[10.0, 25.0], timeout=10.0)
    for now in (0.0, 11.0, 22.0, 33.0):
        simulation.read("key", 0, now, found=False)
        simulation.write("key", 0, now, now + 10)
    by_timeout = simulation.by_timeout
    assert by_timeout is not None
    assert list(map(sum, by_timeout.misses)) == [4, 2]


def test_deleted_keys_are_missed_by_all_sizes():
    """A removal reaches every miniature."""
    simulation = Simulation([1, 10], timeouts=[math.inf])
    for _ in range(3):
        simulation.read("key", 0)
        simulation.delete("key")
    assert [sum(each.misses) for each in simulation.sizes] == [3, 3]


def test_writes_that_nobody_reads_are_counted():
    """A write counts as unread until a read comes before the next write."""
    simulation = Simulation([10])
    for key in ("a", "a", "b", "c"):
        simulation.write(key, 0)
    simulation.read("b", 0)
    assert (simulation.writes, simulation.unread) == (4, 3)


@pytest.mark.long
def test_memory_stays_within_four_megabytes():
    """However many keys come, fewer are replayed, and all miniatures together take less than 4 MB."""
    keys = zipf(150_000, 400_000, 0.6)
    tracemalloc.start()
    simulation = Simulation(ladder(30_000), size=30_000, timeouts=[60.0, 3600.0], most_entries=MOST_ENTRIES)
    most, taken = 0, 0
    for number, key in enumerate(keys):
        hashed = mixed(key)
        if simulation.takes(hashed):
            taken += 1
            simulation.read(f"{hashed:x}", hashed, float(number))
        if number % 10_000 == 0:
            most = max(most, tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert simulation.rate < 0.1
    assert taken > 4_000
    assert most < 4 * 2**20


def test_lowering_the_rate_keeps_the_counts_in_proportion():
    """What was counted before counts less: the reads, divided by the rate, are all that there were."""
    simulation = Simulation([100, 1_000], most_entries=300)
    keys = zipf(20_000, 4_000, 0.5)
    for key in keys:
        hashed = mixed(key)
        if simulation.takes(hashed):
            simulation.read(key, hashed)
    assert simulation.rate < 0.5
    assert simulation.reads / simulation.rate == pytest.approx(len(keys), rel=0.15)
    assert all(simulation.takes(hashed) for hashed in map(mixed, simulation.sizes[1]._bounded.entries))
