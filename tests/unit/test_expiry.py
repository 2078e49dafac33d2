"""The index of deadlines."""

import math
from dataclasses import dataclass
from random import Random

import pytest

from storeroom.eviction.deadlines import NOWHERE, ExpiryIndex


@dataclass
class Item:
    expires_at: float
    indexed: float = math.inf


def indexed(*deadlines):
    """Return an index and an item for each deadline."""
    index = ExpiryIndex()
    items = [Item(deadline) for deadline in deadlines]
    for item in items:
        index.add(item)
    return index, items


def drain(index, now):
    """Return the deadlines of all items that have expired."""
    return [item.expires_at for item in iter(lambda: index.pop_expired(now), None)]


def test_an_empty_index_is_never_due():
    """An empty index has no deadline and no expired item."""
    index, _ = indexed()
    assert index.due == math.inf
    assert index.pop_expired(1e300) is None


@pytest.mark.parametrize(
    "deadlines", [[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0], [3.0, 1.0, 4.0, 2.0], [2.0, 2.0, 1.0, 1.0]]
)
def test_items_expire_at_their_deadline_in_any_order_of_arrival(deadlines):
    """Items added in any order are popped once their deadline has come, and due is the next one."""
    index, _ = indexed(*deadlines)
    assert index.due == 1.0
    assert drain(index, 0.9) == []
    assert sorted(drain(index, 2.0)) == sorted(deadline for deadline in deadlines if deadline <= 2)
    assert index.due == min([deadline for deadline in deadlines if deadline > 2], default=math.inf)
    assert sorted(drain(index, 4.0)) == sorted(deadline for deadline in deadlines if deadline > 2)
    assert len(index) == 0


def test_a_later_deadline_costs_no_slot_and_is_kept():
    """An item whose deadline moved later keeps its one slot and expires at the new deadline."""
    index, (item, other) = indexed(1.0, 5.0)
    item.expires_at = 9.0
    assert drain(index, 5.0) == [5.0]
    assert other.indexed == math.inf
    assert (item.indexed, index.due, len(index)) == (9.0, 9.0, 1)
    assert drain(index, 9.0) == [9.0]


def test_an_earlier_deadline_needs_a_slot_and_leaves_a_stale_one():
    """An item whose deadline moved earlier is added again, and expires once."""
    index, (item,) = indexed(9.0)
    item.expires_at = 1.0
    index.add(item)
    assert index.due == 1.0
    assert drain(index, 10.0) == [1.0]
    assert len(index) == 0


def test_an_item_that_no_longer_expires_loses_its_slot_when_it_comes_due():
    """An item that is set to never expire is dropped from the index at its old deadline."""
    index, (item,) = indexed(1.0)
    item.expires_at = math.inf
    assert drain(index, 1e300) == []
    assert (len(index), item.indexed) == (0, math.inf)


def test_an_item_taken_out_never_expires():
    """An item set to NOWHERE is not popped."""
    index, (item, _) = indexed(1.0, 2.0)
    item.indexed = NOWHERE
    assert drain(index, 5.0) == [2.0]


def test_stale_slots_are_bounded():
    """5,000 items added and taken out leave at most 66 slots."""
    index, _ = indexed()
    for number in range(5_000):
        item = Item(float(number if number % 3 else -number))
        index.add(item)
        item.indexed = NOWHERE
        assert len(index) <= 66  # 64, and two for each item that was valid last time


@pytest.mark.parametrize("sign", [1, -1])
def test_stale_slots_go_in_small_steps_where_many_items_stay(sign):
    """Beside 1,000 items that stay, one addition drops at most 64 slots, and there are never more than about 2,000."""
    index, _ = indexed(*map(float, range(1_000)))
    for number in range(1_000, 6_000):
        before, item = len(index), Item(float(sign * number))
        index.add(item)
        item.indexed = NOWHERE
        assert before - 64 < len(index) <= 2_200


def test_a_compacted_index_takes_deadlines_in_order_without_the_heap():
    """After one far deadline is taken out, later ones in order go to the cheap list, not to the heap."""
    index, (year, *_) = indexed(1e9, *[0.0] * 10)
    year.indexed = NOWHERE
    for number in range(200):
        index.add(Item(float(number)))
    heaped = sum(map(len, index._heaps))
    assert heaped < 70
    assert len(index) - heaped > 130


@pytest.mark.parametrize("seed", range(5))
def test_a_compacted_index_still_finds_the_first_to_expire(seed):
    """After compaction, the items left expire in the order of their deadlines."""
    deadlines = [float(deadline) for deadline in range(60)]
    Random(seed).shuffle(deadlines)
    index, items = indexed(1e9, *deadlines)
    left = [item for item in items[1:] if item.expires_at > 10 and item.expires_at % 3]
    for item in items[1:]:
        if item not in left:
            item.indexed = NOWHERE
    index._drop_stale()
    assert len(index) == len(left) + 1
    for now in range(60):
        assert drain(index, now) == [item.expires_at for item in left if item.expires_at == now]


@pytest.mark.parametrize("seed", range(5))
def test_nothing_expired_is_missed_among_random_deadlines(seed):
    """After random adds, removals and moves, the popped items are exactly the expired ones."""
    random = Random(seed)
    index, alive, now = ExpiryIndex(), [], 0.0
    for _ in range(3_000):
        now += random.random()
        match random.randrange(5):
            case 0 | 1 | 2:
                alive.append(Item(now + random.choice([10.0, 10.0, random.uniform(0, 100)])))
                index.add(alive[-1])
            case 3 if alive:
                alive.pop(random.randrange(len(alive))).indexed = NOWHERE
            case 4 if alive:
                item = random.choice(alive)
                item.expires_at = now + random.uniform(0, 50)
                if item.expires_at < item.indexed:
                    index.add(item)
        expired = sorted(item.expires_at for item in alive if item.expires_at <= now)
        if index.due > now:
            assert expired == []
        elif random.random() < 0.5:
            assert sorted(drain(index, now)) == expired
            alive = [item for item in alive if item.expires_at > now]
        index.check_invariants(alive)
