"""Entries of a full file cache that were chosen to go next, and did not go yet."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.filebased.queues import Bounds
from storeroom.backends.filebased.slots import CHOSEN, TAIL
from storeroom.backends.filebased.table import Table

BOUND = 100


@pytest.fixture
def full(tmp_path: Path) -> Iterator[FileBasedCache]:
    """A full cache of which each entry was read, so that few go at once."""
    cache = FileBasedCache(tmp_path, {"OPTIONS": {"max_entries": BOUND}, "TIMEOUT": None})
    for number in range(3 * BOUND):
        cache.set(f"k{number}", number)
        cache.get(f"k{number - BOUND // 5}")
    yield cache
    cache._engine.close()


def chosen(cache: FileBasedCache) -> list[str]:
    """Return the keys of the entries that are chosen, the first to go first; have some chosen if there are few."""
    slots = cache._engine.queues.slots
    for number in range(BOUND):
        if slots.numbers[CHOSEN] > 5:
            break
        cache.set(f"more {number}", 0)
    keys = cache._read(lambda transaction: [slots.key_of(transaction, slot) for slot in slots.leaving])
    return [key.decode().rsplit(":", 1)[-1] for key in reversed(keys[: slots.numbers[CHOSEN]])]


def fill(cache: FileBasedCache, entries: int) -> None:
    for number in range(entries):
        cache.set(f"new {number}", number)


def test_a_chosen_entry_is_there_until_its_turn_comes(full: FileBasedCache) -> None:
    """No room is kept free for those that come: the cache holds as many entries as it may."""
    keys = chosen(full)
    assert len(full.get_many(keys)) == len(keys)
    first, *others = chosen(full)
    assert [first, *others] == keys
    assert full.count() == BOUND


def test_a_chosen_entry_that_is_read_stays(full: FileBasedCache) -> None:
    """A read tells that the choice was early: the entry is used, and others go."""
    first, second, *others = chosen(full)
    full.get(first)
    fill(full, 2)
    assert full.has_key(first)
    assert not full.has_key(second)
    fill(full, len(others) + 20)
    assert full.has_key(first)
    assert full.get_many(others) == {}
    full._check_invariants()


@pytest.mark.parametrize("remove", [FileBasedCache.delete, lambda cache, key: cache.touch(key, 0)])
def test_a_chosen_entry_that_is_removed_makes_room(full: FileBasedCache, remove: Callable[..., Any]) -> None:
    """Its slot is taken by a new entry, which does not go in its place."""
    keys, slots = chosen(full), full._engine.queues.slots
    slots.numbers[TAIL] = slots.leaving[slots.numbers[CHOSEN] - 1]  # where the next new entry looks for a free slot
    for key in keys[:3]:
        remove(full, key)
    fill(full, 30)
    assert len(full.get_many([f"new {number}" for number in range(30)])) == 30
    assert full.count() == BOUND
    full._check_invariants()


def test_chosen_entries_can_be_overwritten_and_cleared(full: FileBasedCache) -> None:
    """A chosen entry is one like the others to all but the evictions."""
    first, *_ = chosen(full)
    full.set(first, "x" * 5000)
    assert full.get(first) == "x" * 5000
    full._check_invariants()
    full.clear()
    fill(full, BOUND + 30)
    assert full.count() == BOUND
    full._check_invariants()


@pytest.mark.parametrize("entries", [1, 3, 40])
def test_a_transaction_that_fails_leaves_the_choice(full: FileBasedCache, entries: int) -> None:
    """Whatever went, and was chosen anew, within a transaction that failed is there again."""
    keys, bounds, before = chosen(full), Bounds(BOUND, None, None, None), sorted(full.keys())

    def change(table: Table) -> None:
        for number in range(entries):
            table.put(b"e:1:failed%d" % number, b"\x1a" * 60, math.inf, bounds)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        full._write(change)
    assert sorted(full.keys()) == before
    fill(full, len(keys) + 1)
    assert full.count() == BOUND
    full._check_invariants()


def test_few_go_at_once_though_bytes_are_bounded(tmp_path: Path) -> None:
    """A value as large as several takes the room of several, those that were chosen first."""
    cache = FileBasedCache(tmp_path, {"OPTIONS": {"max_entries": None, "max_bytes": 30_000}, "TIMEOUT": None})
    for number in range(600):
        cache.set(f"k{number}", "v" * (1000 if number % 10 == 0 else 100))
        cache.get(f"k{number - 15}")
        _, size = cache._engine.queues.slots.numbers[:2]
        assert size <= 30_000
    assert cache.count() > 90
    cache._check_invariants()
    cache._engine.close()
