"""The bounds of a map: in entries, in bytes, and what a cull leaves; a removed entry lets go of its value."""

import gc
import weakref

import pytest

from storeroom.eviction import ENCODED
from storeroom.eviction.s3fifo import MAIN
from tests.unit.bounded_map.maps import fill, full, hit, put


def test_insert_keeps_value_bytes_and_deadline(checked):
    """An inserted entry holds its value or bytes, deadline and size, and counts towards bytes_used."""
    bounded = checked(10)
    put(bounded, "object", 7, expires_at=5.0, size=3)
    put(bounded, "bytes", b"pickle", size=4)
    kept = bounded.entries["object"]
    assert (kept.key, kept.value, kept.encoded, kept.expires_at, kept.size, kept.freq) == ("object", 7, None, 5.0, 3, 0)
    assert bounded.entries["bytes"].value is ENCODED
    assert bounded.entries["bytes"].encoded == b"pickle"
    assert (len(bounded), bounded.bytes_used) == (2, 7)


@pytest.mark.parametrize("max_entries", [1, 2, 3, 7, 20, 100])
def test_insert_never_exceeds_max_entries(checked, max_entries):
    """Each insert beyond max_entries evicts one entry, and never the new one."""
    bounded = checked(max_entries)
    for number in range(3 * max_entries):
        put(bounded, str(number))
        assert len(bounded) == min(number + 1, max_entries)
        assert str(number) in bounded.entries
    assert bounded.evictions == 2 * max_entries


@pytest.mark.parametrize("max_entries", [-1, 0, 1])
def test_a_bound_below_one_keeps_the_entry_just_inserted(checked, max_entries):
    """Under max_entries of 0 or -1 the newest entry stays: Django sets -1 in its tests and reads it back."""
    bounded = checked(10)
    fill(bounded, 5)
    bounded.max_entries = max_entries
    put(bounded, "new")
    assert list(bounded.entries) == ["new"]


def test_max_entries_none_evicts_nothing(checked):
    """Without a bound, 5,000 entries stay."""
    bounded = checked(None)
    fill(bounded, 5_000)
    assert (len(bounded), bounded.evictions) == (5_000, 0)


def test_a_lowered_bound_is_met_by_the_next_insert(checked):
    """After max_entries is lowered, the next insert evicts down to it."""
    bounded = checked(100)
    fill(bounded, 100)
    bounded.max_entries = 10
    put(bounded, "new")
    assert len(bounded) == 10
    assert bounded.evictions == 91


def test_a_raised_bound_leaves_room_at_once(checked):
    """After max_entries is raised, inserts evict nothing until it is reached."""
    bounded = checked(10)
    fill(bounded, 20)
    bounded.max_entries = 30
    fill(bounded, 20, "more")
    assert (len(bounded), bounded.evictions) == (30, 10)


@pytest.mark.parametrize("bounds", [{"max_entries": 10}, {"max_bytes": 10}])
def test_a_bound_set_later_keeps_the_entries_used(checked, bounds):
    """Entries hit while there was no bound survive when one is set."""
    bounded = checked(None)
    fill(bounded, 100)
    hit(bounded, "filler0", "filler50", times=2)
    for name, bound in bounds.items():
        setattr(bounded, name, bound)
    put(bounded, "new")
    assert len(bounded) == 10
    assert {"filler0", "filler50", "new"} <= bounded.entries.keys()


def test_a_bound_may_come_and_go(checked):
    """A bound that is removed and set again is met again."""
    bounded = checked(10)
    fill(bounded, 20)
    bounded.max_entries = None
    fill(bounded, 100, "unbounded")
    bounded.max_entries = 10
    fill(bounded, 100, "bounded")
    assert len(bounded) == 10


def test_delete_tells_whether_the_key_was_there(checked):
    """delete() is true once, frees the bytes, and counts as neither eviction nor expiration."""
    bounded = checked(10)
    put(bounded, "key", size=5)
    assert bounded.delete("key")
    assert not bounded.delete("key")
    assert (len(bounded), bounded.bytes_used, bounded.evictions, bounded.expirations) == (0, 0, 0, 0)


def test_delete_makes_room(checked):
    """An insert after a delete evicts nothing."""
    bounded = full(10)
    bounded.delete(next(iter(bounded.entries)))
    evictions = bounded.evictions
    put(bounded, "new")
    assert bounded.evictions == evictions


def test_clear_forgets_entries_but_not_counters(checked):
    """clear() empties the same dict that readers hold, and keeps the number of evictions."""
    bounded = full(10)
    entries = bounded.entries
    bounded.clear()
    assert bounded.entries is entries  # readers hold on to it
    assert (len(bounded), bounded.bytes_used, bounded.evictions) == (0, 0, 1)
    fill(bounded, 10, expires_at=1.0)
    assert bounded.evictions == 1
    assert bounded.sweep(2.0) == 10
    bounded.check_invariants()


def test_max_bytes_holds_after_every_write(checked):
    """bytes_used is at most max_bytes after each write, and the written entry is there."""
    bounded = checked(None, max_bytes=100)
    for number in range(300):
        size = number % 40
        put(bounded, f"key{number % 50}", size=size)
        assert bounded.bytes_used <= 100
        assert bounded.entries[f"key{number % 50}"].size == size


def test_both_bounds_hold_together(checked):
    """Neither max_entries nor max_bytes is exceeded if both are set."""
    bounded = checked(10, max_bytes=100)
    for number in range(300):
        put(bounded, str(number), size=number % 25)
        assert bounded.bytes_used <= 100
        assert len(bounded) <= 10


def test_room_made_for_the_bytes_counts_as_room_for_the_entry(checked):
    """Evictions for a large entry are not repeated for the number of entries."""
    bounded = checked(10, max_bytes=100)
    fill(bounded, 10, size=10)
    put(bounded, "double", size=20)
    assert (len(bounded), bounded.evictions) == (9, 2)


def test_insert_refuses_an_entry_that_does_not_fit_alone(checked):
    """An entry larger than max_bytes is not stored, evicts nothing, and counts as an eviction itself."""
    bounded = checked(None, max_bytes=100)
    fill(bounded, 10, size=10)
    assert bounded.fits(100)
    assert not bounded.fits(101)
    put(bounded, "huge", size=101)
    assert "huge" not in bounded.entries
    assert (len(bounded), bounded.evictions) == (10, 1)


def test_replace_removes_the_entry_when_the_new_value_does_not_fit_alone(checked):
    """Overwriting with a value larger than max_bytes removes the entry, since the old value is stale."""
    bounded = checked(None, max_bytes=100)
    fill(bounded, 10, size=10)
    put(bounded, "filler3", size=101)
    assert "filler3" not in bounded.entries
    assert (len(bounded), bounded.evictions, bounded.bytes_used) == (9, 1, 90)


@pytest.mark.parametrize("victims", [1, 5, 9])
def test_replace_evicts_others_for_the_size_never_itself(checked, victims):
    """An entry that grows evicts others until it fits, and stays."""
    for grown in range(10):
        bounded = checked(10, max_bytes=100)
        fill(bounded, 10, size=10)
        put(bounded, f"filler{grown}", size=10 + 10 * victims)
        assert bounded.entries[f"filler{grown}"].size == 10 + 10 * victims
        assert (len(bounded), bounded.evictions, bounded.bytes_used) == (10 - victims, victims, 100)


def test_replace_evicts_others_when_it_is_alone_in_the_small_queue(checked):
    """An entry that grows to max_bytes stays, though its queue holds no other entry to evict."""
    bounded = checked(None, max_bytes=100)
    fill(bounded, 10, size=10)
    alone = next(key for key, entry in bounded.entries.items() if entry.queue != MAIN)
    put(bounded, alone, size=50)
    put(bounded, alone, size=100)
    assert list(bounded.entries) == [alone]


def test_the_share_of_small_follows_the_number_of_entries_that_fit(checked):
    """With a bound in bytes, the policy's capacity follows the number of entries of the current size."""
    bounded = checked(None, max_bytes=10_000)
    keys = fill(bounded, 200, size=100)
    assert 95 <= bounded._policy.share.capacity <= 105
    for key in bounded.entries.keys() & set(keys):
        put(bounded, key, size=10)
    fill(bounded, 2_000, "small", size=10)
    assert 950 <= bounded._policy.share.capacity <= 1_050


def test_a_loop_hits_with_a_bound_in_bytes_as_with_one_in_entries(checked):
    """A loop over more keys than fit has at least nine tenths of the hits under a bound in bytes."""
    hits = {}
    for name, bounded in {"entries": checked(200), "bytes": checked(None, max_bytes=2_000)}.items():
        hits[name] = 0
        for request in range(3_000):
            key = str(request % 250)
            if key in bounded.entries:
                hits[name] += 1
                hit(bounded, key)
            else:
                put(bounded, key, size=10)
    assert hits["bytes"] > 0.9 * hits["entries"]
    assert hits["entries"] > 800


@pytest.mark.parametrize(("cull_frequency", "left"), [(None, 30), (1, 19), (2, 19), (3, 29), (0, 19)])
def test_cull_frequency_leaves_as_many_entries_as_django(checked, cull_frequency, left):
    """49 sets into 30 leave as many entries as in Django's own test_cull and test_zero_cull."""
    bounded = checked(30, cull_frequency=cull_frequency)
    fill(bounded, 49)
    assert len(bounded) == left
    assert bounded.evictions == 49 - left


def test_cull_frequency_above_the_number_of_entries_still_keeps_the_bound(checked):
    """A cull_frequency larger than max_entries still evicts one entry."""
    bounded = checked(5, cull_frequency=100)
    fill(bounded, 20)
    assert len(bounded) == 5


def test_cull_spares_the_entries_used(checked):
    """A cull leaves entries of main that were hit."""
    bounded = checked(30, cull_frequency=3)
    fill(bounded, 30)
    hit(bounded, *(key for key, entry in list(bounded.entries.items())[:8]), times=2)
    used = {key for key, entry in bounded.entries.items() if entry.freq and entry.queue == MAIN}
    put(bounded, "new")
    assert used <= bounded.entries.keys()


class Thing:
    """Something that can be referred to weakly."""


@pytest.mark.parametrize("how", ["delete", "expire", "evict"])
def test_a_removed_entry_lets_go_of_its_value(checked, how):
    """A deleted, expired or evicted entry releases its value, though a queue or the index may hold the entry."""
    bounded = checked(100)
    thing = Thing()
    gone = weakref.ref(thing)
    put(bounded, "key", thing, expires_at=50.0)
    entry = bounded.entries["key"]
    del thing
    if how == "delete":
        bounded.delete("key")
    elif how == "expire":
        bounded.sweep(60.0)
    else:
        fill(bounded, 200)
    bounded.let_go()
    gc.collect()
    assert gone() is None
    assert (entry.value, entry.encoded, entry.key) == (ENCODED, None, "")


def test_removed_entries_do_not_pile_up_in_the_queues(checked):
    """Stale entries in queues and index stay within twice the live ones plus a constant."""
    bounded = checked(1_000)
    for number in range(5_000):
        put(bounded, f"key{number}", expires_at=1e6 - number)
        if number >= 10:
            bounded.delete(f"key{number - 10}")
            queued = sum(len(queue) for queue in (bounded._policy._young, bounded._policy._old, bounded._policy._main))
            assert queued <= 2 * len(bounded) + 64
            assert len(bounded.index) <= 2 * 11 + 2 * 64 + 2


def test_ghosts_are_bounded(checked):
    """No more evicted keys are known than two generations of them."""
    bounded = checked(100)
    fill(bounded, 5_000)
    assert len(bounded.ghosts.recent) + len(bounded.ghosts.previous) <= 2 * 96
