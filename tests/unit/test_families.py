"""The families of keys: how many keys of each are counted, one by one, together or by a sample."""

import random

import pytest

from storeroom.backends.locmem import LocMemCache
from storeroom.engines import Counters
from storeroom.engines.families import Families
from storeroom.testing.isolation import engines_of_its_own

KEYS = [
    ["user:1", "user:2", "user:3:name"],
    ["user", "user-a:1", "user:1"],
    ["user:1", "usher", "user", "user:", "", ":", "page"],
    [f"row-{number}" for number in range(900, 1100)],
    ["v2:user:7", "v1:user:7", "v2:page"],
    ["x" * 59 + ":1", "x" * 60 + ":1", "x" * 60 + "y:1"],
    [1, 2.5, None, "a:1", ("a", 1)],
    [],
]


def counted(families, add, keys):
    counters = Counters()
    add(Families(families, counters), keys)
    return {name: family.hits for name, family in counters.families.items()}


def one_by_one(families, keys):
    for key in keys:
        families.of(key).hits += 1


@pytest.mark.parametrize("patterns", [[], ["user:?", "*1*"]], ids=["no patterns", "patterns"])
@pytest.mark.parametrize("keys", KEYS, ids=repr)
def test_keys_that_are_counted_together_count_as_one_by_one(keys, patterns):
    """add_hits() of many keys counts what of() counts for each, in whatever order they come."""
    for turn in range(3):
        shuffled = random.Random(turn).sample(keys, len(keys))
        assert counted(patterns, Families.add_hits, shuffled) == counted(patterns, one_by_one, shuffled)


@pytest.mark.parametrize("key", ["0" * 8, "12345678", "1234567", "deadbeef", "deadbee5", "g" * 20, "g1" * 10, "g1" * 9])
def test_a_digest_is_counted_as_it_is_named(key):
    """Digests are not learnt one by one, and are of the family that their name says; words are families."""
    counters = Counters()
    families = Families([], counters)
    for each in (key, key.upper(), f"{key}:1"):
        name = families._name_of(each)
        before = counters.families[name].sets if name in counters.families else 0
        families.of(each).sets += 1
        assert counters.families[name].sets == before + 1


def test_a_sample_of_misses_stands_for_all():
    """In local memory the misses are exact, and those of each family add up to them, as nearly as a sample can."""
    with engines_of_its_own():
        cache = LocMemCache("sampled", {})
        for number in range(16_000):
            cache.get("rare:1" if number % 8 == 0 else f"user:{number}")
        stats = cache.stats()
    rare, user = stats.families["rare"].misses, stats.families["user"].misses
    assert stats.misses == 16_000
    assert 16_000 - 64 <= rare + user <= 16_000
    assert 1_000 < rare < 3_000  # of 2,000: more than three standard deviations of a sample of every 32nd


def test_counts_that_are_handed_over_are_counted_once():
    """A record gets each miss and write once, and the sample goes on as before."""
    counters = Counters()
    families = Families([], counters)
    records = []
    for number in range(1, 501):
        for sampled in (counters.missed, counters.written):
            sampled.number += 1
            if sampled.number >= sampled.due:
                families.of("user:1").misses += sampled.sample()
        if number % 100 == 0:
            records.append(counters.as_dict())
            counters.hand_over(counters.raw())
    assert [(record["misses"], record["sets"]) for record in records] == [(100, 100)] * 5
    assert counters.reads() == (0, 500)
    assert 1_000 - 128 <= sum(record["families"]["user"]["misses"] for record in records) <= 1_000
    assert counters.as_dict() == {}
