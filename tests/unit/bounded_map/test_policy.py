"""Which entry is evicted: queues, hits, ghosts, and entries that are pinned."""

import pytest

from storeroom.eviction import Pinned
from storeroom.eviction.s3fifo import MAIN, OLD, YOUNG
from tests.unit.bounded_map.maps import fill, full, hit, put


def test_a_hit_soon_after_the_insertion_says_nothing(checked):
    """Hits while an entry is young do not save it: its counter is cleared when it leaves young."""
    bounded = full(100)
    put(bounded, "burst")
    hit(bounded, "burst", times=2)
    fill(bounded, 60, "later")
    assert "burst" not in bounded.entries


def test_a_later_hit_leads_to_main(checked):
    """A hit after an entry has left young moves it to main."""
    bounded = full(100)
    put(bounded, "used")
    later = iter(range(1_000))
    while bounded.entries["used"].queue == YOUNG:
        put(bounded, f"later{next(later)}")
    assert bounded.entries["used"].queue == OLD
    hit(bounded, "used")
    fill(bounded, 60, "later still")
    assert bounded.entries["used"].queue == MAIN


def test_a_key_that_returns_after_its_eviction_goes_to_main(checked):
    """A key set again soon after its eviction goes to main."""
    bounded = full(100)
    put(bounded, "back")
    fill(bounded, 60, "later")
    assert "back" not in bounded.entries
    put(bounded, "back")
    assert bounded.entries["back"].queue == MAIN


def test_a_key_that_returns_too_late_is_new(checked):
    """A key set again long after its eviction starts young."""
    bounded = full(100)
    put(bounded, "back")
    fill(bounded, 55 + 100, "later")
    put(bounded, "back")
    assert bounded.entries["back"].queue == YOUNG


def test_a_quick_return_to_small_makes_small_larger(checked):
    """A key that returns just after its eviction from small raises the target of small."""
    bounded = full(1_000)
    bounded._policy.share.aim(50.0)
    put(bounded, "back")
    while "back" in bounded.entries:
        put(bounded, f"later{len(bounded.entries)}-{bounded.evictions}")
    put(bounded, "back")
    assert bounded._policy.share.target == 58


def test_a_quick_return_to_main_makes_small_smaller(checked):
    """Keys that return just after their eviction from main lower the target of small."""
    bounded = full(1_000)
    before = bounded._policy.share.target
    proven = [key for key, entry in bounded.entries.items() if entry.queue == MAIN]
    newcomers = iter(range(10_000))
    for key in proven[:20]:
        while key in bounded.entries:  # newcomers that are used push main's head out
            newcomer = f"newcomer{next(newcomers)}"
            put(bounded, newcomer)
            hit(bounded, *(k for k, entry in bounded.entries.items() if entry.queue == OLD))
        put(bounded, key)
    assert bounded._policy.share.target < before


def test_main_gives_a_used_entry_another_round_for_each_hit(checked):
    """An entry of main with two hits passes two rounds before it is evicted."""
    bounded = checked(100)
    keys = fill(bounded, 100)
    head = keys[0]  # the first to go to main while filling
    assert bounded.entries[head].queue == MAIN
    hit(bounded, head, times=2)
    returns = iter(range(10_000))
    counters = [2]
    while head in bounded.entries and len(counters) < 1_000:
        counters.append(bounded.entries[head].freq)
        fill(bounded, 1, f"new{next(returns)}-")
        hit(bounded, *(key for key, entry in bounded.entries.items() if entry.queue == OLD))
    assert counters == sorted(counters, reverse=True)
    assert all(counters.count(freq) >= 20 for freq in (1, 0))  # main holds as many at least


@pytest.mark.parametrize(("small_used", "left"), [(0.1, 1), (0.3, 0)])
def test_a_used_entry_of_main_has_one_more_round_where_popularity_may_be_changing(checked, small_used, left):
    """Where the oldest of small are used, an entry of main that is passed over has lost all its hits."""
    bounded = checked(100)
    keys = fill(bounded, 100)
    hit(bounded, *keys[:10], times=2)
    bounded._policy.share.small_used, bounded._policy.share.target = small_used, 90.0  # so that room is made in main
    fill(bounded, 1, "new")
    assert keys[10] not in bounded.entries
    assert [bounded.entries[key].freq for key in keys[:10]] == [left] * 10


def test_an_eviction_looks_at_128_used_entries_at_the_most(checked):
    """An eviction passes over at most 128 used entries, which bounds the time under the lock."""
    bounded = checked(1_000)
    keys = fill(bounded, 1_000)
    hit(bounded, *keys, times=2)
    small = [key for key, entry in bounded.entries.items() if entry.queue != MAIN]
    for key in small:
        bounded.delete(key)
    fill(bounded, len(small) - 1, "new")
    bounded._policy.share.small_used = 1.0  # so that room is made in main
    before = sum(entry.freq for entry in bounded.entries.values())
    fill(bounded, 2, "newer")
    assert bounded.evictions == 1
    after = sum(entry.freq for entry in bounded.entries.values())
    assert before - after == 2 * 128  # both from each of the 128 passed over, of which the first goes


def test_filling_beyond_the_share_of_small_goes_to_main(checked):
    """The first 100 entries of a map of 100 are divided into 55 in small and the oldest 45 in main."""
    bounded = checked(100)
    fill(bounded, 100)
    queues = [entry.queue for entry in bounded.entries.values()]
    assert queues == [MAIN] * 45 + [OLD] * 50 + [YOUNG] * 5


def test_an_entry_that_is_just_inserted_is_not_evicted_for_a_pinned_one(checked):
    """The newest entry stays even where all others are pinned or used."""
    bounded = checked(3)
    put(bounded, "pinned", Pinned(b"x"))
    for number in range(50):
        put(bounded, f"k{number}")
        assert f"k{number}" in bounded.entries
        assert "pinned" in bounded.entries
        hit(bounded, f"k{number}", times=number % 3)
    assert len(bounded) == 3


def test_a_pinned_entry_goes_where_no_other_can(checked):
    """A map of one entry evicts a pinned entry for a new one."""
    bounded = checked(1)
    put(bounded, "pinned", Pinned(b"x"))
    put(bounded, "k")
    assert list(bounded.entries) == ["k"]
