"""The share of new entries, lesson by lesson."""

import math

import pytest

from storeroom.eviction.share import MISSED, TAUGHT, Share


def shared(target=300.0, **attributes):
    """Return the share of a cache of 1,000 entries that aims at a target."""
    share = Share(1_000.0)
    share.aim(target)
    for name, value in attributes.items():
        setattr(share, name, value)
    return share


@pytest.mark.parametrize("capacity", [1.0, 1.5, 2.0, 7.0, 19.0, 20.0, 1e9])
def test_the_target_stays_within_its_bounds(capacity):
    """Any target ends between one entry and 55 % of the capacity."""
    share = Share(capacity)
    for target in (0.0, 1.0, 1e12):
        share.aim(target)
        assert 1 <= share.target <= max(1, 0.55 * capacity)


def test_resize_keeps_the_share():
    """After a resize the target is the same part of the new capacity, also of none."""
    share = shared(300.0)
    share.resize(2_000.0)
    assert share.target == 600
    share.resize(math.inf)
    share.resize(100.0)
    assert share.target == pytest.approx(55)


@pytest.mark.parametrize("is_read", [True, False])
@pytest.mark.parametrize(("proven", "target"), [(False, 308), (True, 290.4)])
def test_a_quick_return_moves_the_target(is_read, proven, target):
    """A key that returns soon after it left small raises the target, from main it lowers it, read or written."""
    share = shared(300.0)
    assert share.learn(10, 0, proven=proven, is_read=is_read) & TAUGHT
    assert share.target == pytest.approx(target)


def test_a_late_return_teaches_nothing():
    """A key that returns more than a twentieth of the capacity after its eviction leaves the target."""
    share = shared(300.0)
    assert share.learn(51, 0, proven=False, is_read=True) == MISSED
    assert share.target == 300


@pytest.mark.parametrize(
    ("returns", "small_used", "refilled", "step"),
    [(1, 0.3, 0.9, 8), (5, 0.3, 0.9, 8), (9, 0.3, 0.9, 16), (20, 0.3, 0.9, 32), (20, 0.1, 0.9, 8), (9, 0.1, 0.1, 6.4)],
)
def test_steps_up_are_longer_while_no_key_returns_to_main(returns, small_used, refilled, step):
    """From the sixth key on that returns to small in a row; but not in a loop, where none of the oldest is used."""
    share = shared(20.0, small_used=small_used, refilled=refilled)
    for _ in range(returns):
        before = share.target
        share.learn(10, 0, proven=False, is_read=False)
    assert share.target - before == pytest.approx(step)


def test_a_return_to_main_ends_a_run_and_is_a_step_as_ever():
    """After a key has returned to main, steps up are short again."""
    share = shared(20.0, small_used=0.3, run=20.0)
    for proven, target in ((False, 20 + 32), (True, 52 - 9.6), (False, 42.4 + 8)):
        share.learn(10, 0, proven=proven, is_read=False)
        assert share.target == pytest.approx(target)


def test_further_misses_of_one_key_are_no_run():
    """Only another key makes a run longer."""
    share = shared(20.0, refilled=0.1)
    for _ in range(20):
        share.learn(10, TAUGHT | MISSED, proven=False, is_read=True)
    assert share.run == 0


@pytest.mark.parametrize(("age", "target"), [(249, 303.2), (250, 300)])
def test_a_return_counts_as_soon_for_longer_where_nothing_is_refilled(age, target):
    """Without refills, a key teaches that is read again within a quarter of the capacity."""
    share = shared(300.0, refilled=0.1)
    share.learn(age, 0, proven=False, is_read=True)
    assert share.target == pytest.approx(target)


def test_a_read_and_the_write_that_follows_teach_once():
    """A miss and its refill move the target once."""
    share = shared(300.0)
    flags = share.learn(10, 0, proven=False, is_read=True)
    share.learn(10, flags, proven=False, is_read=False)
    assert share.target == 308


def test_each_further_miss_teaches_where_nothing_is_refilled():
    """Where misses are not refilled, each miss of a key that once returned soon moves the target again."""
    share = shared(300.0, refilled=0.1)
    flags = share.learn(10, 0, proven=True, is_read=True)
    for _ in range(3):
        flags = share.learn(700, flags, proven=True, is_read=True)
    assert share.target == pytest.approx(300 - 4 * 16)


def test_refills_are_told_from_misses_that_stay():
    """The share of refilled misses falls towards none without refills, and stays above a half with them."""
    share = shared()
    for _ in range(200):
        share.learn(500, share.learn(500, 0, proven=False, is_read=True), proven=False, is_read=False)
    assert share.refilled > 0.6
    for _ in range(100):
        share.learn(500, 0, proven=False, is_read=True)
    assert share.refilled < 0.1


@pytest.mark.parametrize(
    ("small_used", "main_used", "refilled", "room"),
    [
        (0.1, 0.0, 1.0, 100),  # hardly any entry is used again
        (0.9, 0.2, 1.0, 800),  # sessions: each entry lives for a while, and is then dead
        (0.9, 0.9, 1.0, 100),  # both are used: the target decides
        (0.4, 0.9, 0.1, 550),  # nothing is refilled
        (0.4, 0.5, 0.1, 550),  # nor here, and main is used less
        (0.4, 0.4, 0.1, 700),  # nor here, and main is fading: popularity has changed
        (0.25, 0.5, 0.1, 550),  # small is not used that much
        (0.4, 0.5, 1.0, 100),  # what is lost comes back
    ],
)
def test_room_follows_the_use_of_the_oldest(small_used, main_used, refilled, room):
    """Small gets more than its target where its oldest are used and those of main are not, or nothing is refilled."""
    share = shared(100.0, small_used=small_used, main_used=main_used, refilled=refilled)
    assert share.room(1_000) == pytest.approx(room)
    assert share.room(500) == pytest.approx(room / 2)


@pytest.mark.parametrize(
    ("target", "main_used", "refilled", "room"),
    [
        (500.0, 0.3, 0.1, 300),
        (200.0, 0.3, 0.1, 200),
        (550.0, 0.3, 0.1, 550),  # no lesson has told
        (500.0, 0.2, 0.1, 500),  # main is hardly used more
        (500.0, 0.3, 0.9, 500),
    ],
)
def test_small_gets_little_where_nothing_is_refilled_and_main_is_used_instead(target, main_used, refilled, room):
    """A target that lessons have lowered counts for three tenths of the capacity at most; the first one stays."""
    share = shared(target, small_used=0.15, main_used=main_used, refilled=refilled)
    assert share.room(1_000) == pytest.approx(room)


@pytest.mark.parametrize(("target", "refilled", "room"), [(550.0, 0.1, 100), (50.0, 0.1, 50), (550.0, 0.9, 550)])
def test_small_gets_little_where_nothing_is_refilled_and_hardly_any_of_it_is_used(target, refilled, room):
    """Where fewer than one in eight of the oldest of small are used, it gets a tenth at most."""
    share = shared(target, small_used=0.11, refilled=refilled)
    assert share.room(1_000) == pytest.approx(room)


@pytest.mark.parametrize(("lost", "refilled", "room"), [(0.15, 0.1, 100), (0.16, 0.1, 550), (0.16, 0.9, 300)])
def test_small_has_its_first_share_again_where_much_of_what_it_evicts_is_read(lost, refilled, room):
    """Hardly any of its oldest are used as they have no time to be: main is dead, and nobody looks at it."""
    share = shared(300.0, small_used=0.05, refilled=refilled, lost=lost)
    assert share.room(1_000) == pytest.approx(room)


def test_what_is_lost_is_the_part_of_small_that_is_read_after_its_eviction():
    """Each key counts once, however often it is read; one of main does not."""
    share = shared(300.0)
    for number in range(6_000):
        share.evict_small(1)
        if number % 3 == 0:
            flags = share.learn(500, 0, proven=False, is_read=True)
            share.learn(500, flags, proven=False, is_read=True)
        share.learn(500, 0, proven=True, is_read=True)
    assert share.lost == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize("used", [True, False])
def test_entries_that_leave_small_together_count_as_one_by_one(used):
    """The averages are the same for many at once, to rounding."""
    together, single = shared(small_used=0.4, lost=0.1), shared(small_used=0.4, lost=0.1)
    leave = Share.leave_small if used else lambda share, count, used: share.evict_small(count)
    leave(together, 30, used=used)
    for _ in range(30):
        leave(single, 1, used=used)
    assert together.small_used == pytest.approx(single.small_used)
    assert (together.lost, together.silence) == pytest.approx((single.lost, single.silence))


def test_a_few_misses_tell_that_nothing_is_refilled():
    """Eight misses without a refill are enough: a small cache loses its best entries early, and has few."""
    share = shared(300.0)
    for _ in range(8):
        share.learn(500, 0, proven=False, is_read=True)
    assert share.learn(249, 0, proven=False, is_read=True) & TAUGHT  # soon only where nothing is refilled


def test_the_target_falls_to_a_twentieth_while_nothing_returns():
    """fall() lowers the target by a tenth of an entry, down to a twentieth of the capacity."""
    share = shared(60.0)
    share.fall()
    assert share.target == pytest.approx(59.9)
    for _ in range(200):
        share.fall()
    assert share.target == pytest.approx(50)


@pytest.mark.parametrize(("hits", "target"), [((0, 1), 550), ((2, 2), 200), ((2, 0), 200), ((2, 0, 0, 0, 0), 550)])
def test_small_begins_with_less_where_the_oldest_were_read_twice(hits, target):
    """While the cache fills, the target falls to a fifth if a good part of what goes on to main was read twice."""
    share = Share(1_000.0)
    for times in hits * 400:
        share.fill(times)
    assert share.target == pytest.approx(target, abs=1)


@pytest.mark.parametrize(("capacity", "refilled", "evictions"), [(50, 1.0, 400), (50, 0.1, 50), (1_000, 1.0, 1_000)])
def test_a_silence_is_of_400_evictions_at_least_where_misses_are_refilled(capacity, refilled, evictions):
    """In a small cache few keys return soon, so that none in a turnover says nothing."""
    share = Share(float(capacity))
    share.refilled = refilled
    share.learn(0, 0, proven=False, is_read=True)
    assert share.capacity - share.silence == evictions


@pytest.mark.parametrize(("proven", "evictions", "target"), [(False, 49, 550), (True, 49, 190.4), (False, 50, 208)])
def test_an_early_return_to_small_takes_its_short_beginning_back(proven, evictions, target):
    """A key that returns to small within a twentieth of a turnover of evictions gives it its first share again."""
    share = shared(200.0)
    share.learn(10, 0, proven=proven, is_read=True, evictions=evictions)
    assert share.target == pytest.approx(target)


@pytest.mark.parametrize(("before", "unread", "read"), [(0, 0, 1), (1, 2, 1)])
def test_where_all_were_read_one_that_was_not_takes_more_hits_along(before, unread, read):
    """While the cache fills, an unread entry counts for less than a read one; for more where nearly all were read."""
    share = Share(1_000.0)
    for _ in range(150):
        share.fill(before)
    assert share.fill(0) == unread
    assert share.fill(2) == read
