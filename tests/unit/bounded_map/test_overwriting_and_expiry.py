"""What becomes of an entry in its place: overwriting, expiry, and the removal of what has expired."""

import pytest

from storeroom.eviction.s3fifo import MAIN, YOUNG
from tests.unit.bounded_map.maps import NEVER, fill, full, hit, put


def test_replace_keeps_queue_and_counter(checked):
    """An overwritten entry keeps its queue and its hits, and gets the new value, deadline and size."""
    bounded = full(100)
    key = next(key for key, entry in bounded.entries.items() if entry.queue == MAIN)
    hit(bounded, key)
    entry = bounded.entries[key]
    put(bounded, key, b"new", expires_at=9.0, size=8)
    assert bounded.entries[key] is entry
    assert (entry.queue, entry.freq, entry.encoded, entry.expires_at, entry.size) == (MAIN, 1, b"new", 9.0, 8)


def test_replace_never_evicts_for_the_number_of_entries(checked):
    """Overwriting evicts nothing, even above a lowered max_entries."""
    bounded = full(10)
    evictions = bounded.evictions
    for key in list(bounded.entries):
        put(bounded, key, "new")
    bounded.max_entries = 3
    put(bounded, next(iter(bounded.entries)), "newer")
    assert (len(bounded), bounded.evictions) == (10, evictions)


def test_replace_an_expired_entry_keeps_its_rank(checked):
    """A hot key that expired and is set again keeps its rank and counts as no expiration."""
    bounded = full(100)
    key = next(key for key, entry in bounded.entries.items() if entry.queue == MAIN)
    hit(bounded, key, times=2)
    put(bounded, key, expires_at=5.0)
    put(bounded, key, "new", expires_at=15.0, now=10.0)
    assert (bounded.entries[key].queue, bounded.entries[key].freq) == (MAIN, 2)
    assert bounded.expirations == 0
    assert bounded.sweep(14.0) == 0
    assert bounded.sweep(15.0) == 1


def test_an_entry_expires_at_its_deadline(checked):
    """sweep() leaves an entry before its deadline and removes it at it."""
    bounded = checked(10)
    put(bounded, "key", expires_at=5.0)
    assert bounded.sweep(4.999) == 0
    assert bounded.sweep(5.0) == 1
    assert (len(bounded), bounded.expirations, bounded.evictions) == (0, 1, 0)


def test_expired_entries_go_before_live_ones(checked):
    """An insert into a full map removes expired entries, even ones with hits, and evicts no live one."""
    bounded = checked(100)
    fill(bounded, 100)
    expired = ["filler3", "filler50", "filler99"]
    for key in expired:
        hit(bounded, key, times=2)
        put(bounded, key, expires_at=5.0)
    live = bounded.entries.keys() - set(expired)
    fill(bounded, 3, "new", now=6.0)
    assert live <= bounded.entries.keys()
    assert not bounded.entries.keys() & set(expired)
    assert (bounded.evictions, bounded.expirations) == (0, 3)


@pytest.mark.parametrize("settings", [{"max_bytes": 100}, {"cull_frequency": 4}])
def test_expired_entries_go_before_live_ones_under_any_bound(checked, settings):
    """Expired entries make the room under max_bytes and under cull_frequency, too."""
    bounded = checked(100, **settings)
    fill(bounded, 100, expires_at=NEVER)
    for number in range(0, 100, 3):
        put(bounded, f"filler{number}", expires_at=5.0)
    put(bounded, "new", size=20 if "max_bytes" in settings else 1, now=6.0)
    assert bounded.evictions == 0
    assert bounded.expirations >= 2


def test_a_lowered_bound_removes_all_expired_entries_first(checked):
    """To meet a lowered bound, all expired entries are removed before any live one."""
    bounded = checked(100)
    fill(bounded, 50, "short", expires_at=5.0)
    fill(bounded, 50, "long", expires_at=500.0)
    bounded.max_entries = 51
    put(bounded, "new", now=6.0)
    assert (len(bounded), bounded.expirations, bounded.evictions) == (51, 50, 0)


def test_each_write_removes_two_expired_entries_from_a_map_that_is_not_full(checked):
    """Without need for room, each write still removes two expired entries."""
    bounded = checked(None)
    fill(bounded, 5, expires_at=5.0)
    put(bounded, "new", now=6.0)
    assert len(bounded) == 4
    put(bounded, "new", "again", now=6.0)
    assert len(bounded) == 2


def test_an_expired_entry_enters_no_ghost(checked):
    """A key set again after it expired starts as a new key, since its return says nothing about eviction."""
    bounded = full(100)
    put(bounded, "short", expires_at=5.0)
    bounded.sweep(6.0)
    put(bounded, "short", now=7.0)
    assert bounded.entries["short"].queue == YOUNG


def test_touch_moves_a_deadline_both_ways(checked):
    """touch() makes an entry expire later, sooner, never, or at last."""
    bounded = checked(10)
    put(bounded, "later", expires_at=5.0)
    put(bounded, "sooner", expires_at=50.0)
    put(bounded, "never", expires_at=5.0)
    put(bounded, "at last", expires_at=NEVER)
    for key, expires_at in {"later": 20.0, "sooner": 3.0, "never": NEVER, "at last": 4.0}.items():
        bounded.touch(bounded.entries[key], expires_at)
    assert bounded.sweep(4.0) == 2
    assert bounded.entries.keys() == {"later", "never"}
    assert bounded.sweep(19.9) == 0
    assert bounded.sweep(20.0) == 1
    assert bounded.sweep(1e300) == 0


def test_setting_a_key_again_and_again_costs_the_index_nothing(checked):
    """A key set 100 times has one slot in the index of deadlines."""
    bounded = checked(10)
    for second in range(100):
        put(bounded, "key", expires_at=300.0 + second, now=float(second))
    assert len(bounded.index) == 1


def test_sweep_removes_no_more_than_asked(checked):
    """sweep() with a limit removes as many entries, and the rest on the next call."""
    bounded = checked(100)
    fill(bounded, 10, expires_at=5.0)
    assert bounded.sweep(6.0, 3) == 3
    assert bounded.sweep(6.0) == 7
