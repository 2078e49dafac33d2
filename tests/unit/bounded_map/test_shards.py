"""A large map keeps its entries in many dicts, none of which is large: see `storeroom.eviction.shards`."""

import random

import pytest

from storeroom.backends.locmem import LocMemCache
from storeroom.eviction import BoundedMap, bounded_map, s3fifo, shards
from tests.unit.bounded_map.maps import fill, hit, put
from tests.unit.bounded_map.test_readers_without_lock import between_lines, read

FEW = 60
"""Entries from which on maps are large in these tests."""


@pytest.fixture(autouse=True)
def _large_soon(monkeypatch):
    for module in (bounded_map, s3fifo):
        monkeypatch.setattr(module, "LARGE", FEW)


FOREVER = {"TIMEOUT": None, "OPTIONS": {"max_entries": None}}


def largest(bounded):
    """Return the size of the largest dict that holds entries, or hashes of evicted keys."""
    mappings = (bounded.entries, bounded.ghosts.recent, bounded.ghosts.previous)
    parts = [part for mapping in mappings for part in ([mapping] if isinstance(mapping, dict) else mapping.parts())]
    return max(map(len, parts))


@pytest.mark.parametrize("bounds", [{"max_entries": None}, {"max_entries": 1_500}, {"max_entries": 200}])
def test_no_dict_of_a_large_map_is_large(checked, bounds):
    """However many entries come, and are evicted, no dict has more than a small map's, which is copied in no time."""
    bounded = checked(**bounds)
    for number in range(4_000):
        put(bounded, f"key{number}")
        if number % 100 == 0:
            assert largest(bounded) <= 2 * FEW
    assert largest(bounded) <= 2 * FEW


def test_a_small_map_is_one_dict(checked):
    """Hits of caches of ordinary size go to a dict itself."""
    bounded = checked(FEW)
    fill(bounded, 10 * FEW)
    assert type(bounded.entries) is dict


def test_a_growing_map_agrees_with_a_dict(checked):
    """Entries are found, counted and listed alike before, while and after they move to the shards."""
    bounded, model, choices = checked(None), {}, random.Random(1)
    for _ in range(3_000):
        key = f"key{choices.randrange(400)}"
        if choices.random() < 0.3:
            assert bounded.delete(key) == (model.pop(key, None) is not None)
        else:
            value = choices.random()
            put(bounded, key, value)
            model[key] = value
        assert len(bounded) == len(model)
        assert (key in bounded.entries) == (key in model)
    assert {key: entry.value for key, entry in bounded.entries.items()} == model
    assert sorted(bounded.entries) == sorted(bounded.entries.keys()) == sorted(model)
    assert {bounded.entries[key].value for key in model} == set(model.values())
    with pytest.raises(KeyError):
        bounded.entries["key400"]
    with pytest.raises(KeyError):
        del bounded.entries["key400"]


def test_a_reader_finds_an_entry_at_every_step_of_its_way(checked):
    """A reader between any two lines of the inserts that move the entries finds each of them, without the lock."""
    bounded = checked(None)
    keys = fill(bounded, FEW + 1)
    missed = []

    def look():
        missed.extend(key for key in keys if read(bounded, key, 0.0) is None and bounded.entries[key].value is not None)

    def grow():
        fill(bounded, 12, "more")

    for key in keys:
        bounded.entries[key].value = key
    between_lines(grow, look)
    assert not missed
    assert type(bounded.entries) is not dict


def test_a_handle_made_before_finds_all_entries():
    """Handles that were there when the entries moved read, overwrite and compute as before."""
    caches = [LocMemCache("shards", FOREVER) for _ in range(3)]
    for number in range(4 * FEW):
        caches[0].set(number, number)
        assert caches[1].get(number % FEW) == number % FEW
    assert caches[1].get_many(range(FEW)) == {number: number for number in range(FEW)}
    assert caches[2].get_or_set(7, int) == 7
    assert caches[2]._entries is caches[2]._bounded.entries
    caches[0].clear()
    assert [cache.get(7) for cache in caches] == [None] * 3
    assert caches[0].add(7, "new")
    assert [cache.get(7) for cache in caches] == ["new"] * 3


@pytest.mark.parametrize("prefix", ["", "other"])
def test_clear_leaves_the_entries_of_others(prefix):
    """A cache is cleared entry by entry where others with another prefix have stored in its location."""
    caches = [LocMemCache(f"of both {prefix}", {**FOREVER, "KEY_PREFIX": name}) for name in ("own", prefix)]
    for number in range(4 * FEW):
        for cache in caches:
            cache.set(number, number, tags=["tag"])
    caches[0].clear()
    assert [cache.stats().entries for cache in caches] == [4 * FEW] * 2
    assert caches[0].keys() == []
    assert caches[1].get_many(range(4 * FEW)) == {number: number for number in range(4 * FEW)}


def test_what_was_cleared_is_freed_in_steps(checked):
    """clear() hands out all that it removed, and free() takes so many from it as it is told."""
    bounded = checked(None)
    fill(bounded, 4 * FEW, expires_at=5.0)
    debris = bounded.clear()
    left = sum(map(len, debris))
    assert left >= 3 * 4 * FEW  # in a dict, in a queue, and among the deadlines
    shards.free(debris, 10)
    assert sum(map(len, debris)) == left - 10
    shards.free(debris)
    assert debris == []


def test_a_cull_of_everything_is_freed_by_the_inserts_that_follow(checked):
    """With a cull_frequency of 0 no insert frees all that it removed."""
    bounded = BoundedMap(4 * FEW, cull_frequency=0)
    fill(bounded, 4 * FEW + 1)
    left = sum(map(len, bounded._debris))
    assert 0 < left < 8 * FEW
    fill(bounded, 10, "more")
    assert not bounded._debris


@pytest.mark.parametrize("step", [1, 7])
def test_removed_entries_leave_the_queues_in_steps_that_change_no_order(checked, monkeypatch, step):
    """The same entries are evicted, whether a pass over the queues takes one removal or many."""

    def replay(entries_at_once):
        monkeypatch.setattr(s3fifo, "_STEP", entries_at_once)
        bounded, choices, seen = checked(400), random.Random(2), []
        for number in range(6_000):
            key = f"key{choices.randrange(700)}"
            if number % 1_000 < 300 and key in bounded.entries:
                bounded.delete(key)
            elif key in bounded.entries:
                hit(bounded, key)
            else:
                put(bounded, key)
            if number % 50 == 0:
                bounded.check_invariants()
                seen.append(sorted(bounded.entries))
        return seen

    assert replay(step) == replay(100_000)


@pytest.mark.parametrize("max_entries", [None, 10_000])
def test_a_removal_looks_at_few_entries(checked, max_entries):
    """However many entries have been removed, no removal passes over all queues."""
    bounded = checked(max_entries)
    keys = fill(bounded, 10_000)
    queued, longest = 10_000, 0
    for key in keys[::-1]:
        bounded.delete(key)
        left = sum(map(len, bounded._policy.queues))
        queued, longest = left, max(longest, queued - left)
    assert 0 < longest < 3_000
