"""The eviction policy alone: the entries it spares, and that it always comes to an end."""

from dataclasses import dataclass

import pytest

from storeroom.eviction.s3fifo import MAIN, OLD, REMOVED, YOUNG, AdaptiveS3Fifo


@dataclass(eq=False)
class Item:
    key: str
    freq: int = 0
    queue: int = REMOVED


def admitted(policy, count):
    items = [Item(str(number)) for number in range(count)]
    for item in items:
        assert policy.admit(item, full=False) is None
    return items


def arranged(*items):
    """Return a policy that has these items in their queues."""
    policy = AdaptiveS3Fifo(100.0)
    for item in items:
        {YOUNG: policy._young, OLD: policy._old, MAIN: policy._main}[item.queue].append(item)
    policy._proven = sum(item.queue == MAIN for item in items)
    policy._small = len(items) - policy._proven
    return policy


@pytest.mark.parametrize("target", [1.0, 5.0, 50.0])
@pytest.mark.parametrize("others", [YOUNG, OLD, MAIN])
@pytest.mark.parametrize("own", [YOUNG, OLD, MAIN])
@pytest.mark.parametrize("freq", [0, 2])
def test_evict_spares_the_entry_to_keep_wherever_it_is(target, others, own, freq):
    """evict(keep) evicts all other entries first, in whichever queues both are, and keep only when asked."""
    keep = Item("keep", freq, own)
    rest = [Item(str(number), number % 3, others) for number in range(5)]
    policy = arranged(*rest[:2], keep, *rest[2:])
    policy.share.aim(target)
    victims = [policy.evict(keep) for _ in rest]
    assert sorted(victim.key for victim in victims) == [item.key for item in rest]
    policy.check_invariants([keep])
    assert policy.evict() is keep
    assert {item.queue for item in (keep, *rest)} == {REMOVED}


def test_evict_passes_removed_entries_by():
    """An entry removed before does not count as a victim."""
    policy = AdaptiveS3Fifo(100.0)
    items = admitted(policy, 50)
    for item in items[:-1]:
        policy.remove(item)
    assert policy.evict() is items[-1]


def test_clear_forgets_what_was_learnt():
    """clear() gives small the share that it began with."""
    policy = AdaptiveS3Fifo(1_000.0)
    admitted(policy, 1_000)
    policy.evict()
    policy.share.aim(300.0)
    policy.clear()
    assert policy.share.target == 550


def test_resize_to_less_forgets_the_ghosts_beyond_the_new_window():
    """After a resize to less, the ghost holds the latest keys of the new window only."""
    policy = AdaptiveS3Fifo(1_000.0)
    admitted(policy, 1_000)
    policy.share.aim(50.0)
    gone = [policy.admit(Item(f"new {number}"), full=True) for number in range(900)]
    policy.resize(100.0)
    assert len(policy.ghosts.recent) + len(policy.ghosts.previous) == 90
    queues = {}
    for victim in (gone[-90], gone[-91]):
        returning = Item(victim.key)
        policy.admit(returning, full=False)
        queues[victim.key] = returning.queue
    assert list(queues.values()) == [MAIN, YOUNG]


def test_what_is_known_of_small_gets_old_while_main_makes_room_for_it():
    """With small_used high, small grows into main, but not for ever where its oldest are in fact not used."""
    policy = AdaptiveS3Fifo(100.0)
    policy.share.aim(20.0)
    for number in range(1_000):
        if number == 100:
            policy.share.small_used = 0.6
        policy.admit(Item(str(number)), full=number >= 100)
        if number == 200:
            assert policy.share.small_used < 0.45
    assert policy.share.room(100) == policy.share.target


def test_entries_read_twice_fill_main_three_at_a_time():
    """Where the oldest were read twice or more as the cache fills, most of them are in main when it is full."""
    policy = AdaptiveS3Fifo(100.0)
    for number in range(100):
        policy.admit(Item(str(number)), full=False)
        for item in policy._old:
            item.freq = 2
    assert policy._small < 35
