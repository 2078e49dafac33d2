"""Looks at everything in a large local memory: nobody waits for them, and they find each entry once."""

import threading
from contextlib import nullcontext
from uuid import uuid4

import pytest

from storeroom.backends.locmem import LocMemCache
from storeroom.eviction import BoundedMap
from storeroom.timeouts import NEVER


def test_parts_are_looked_at_without_the_lock() -> None:
    """The lock is held while a part's keys are copied, and free while each of them is judged."""
    bounded, lock = BoundedMap(None), threading.Lock()
    for number in range(10):
        bounded.insert(str(number), number, None, NEVER, 0, 0.0)
    found = []
    for part in bounded.parts(lock, nullcontext()):
        for key, entry in part:
            assert not lock.locked()
            bounded.delete(key)
            found.append((key, entry.expires_at))
    assert found == [(str(number), NEVER) for number in range(10)]


def test_keys_are_found_once_while_entries_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that moves into another dict while keys are listed is neither missed nor found twice."""
    monkeypatch.setattr("storeroom.eviction.bounded_map.LARGE", 100)
    cache = LocMemCache(uuid4().hex, {"TIMEOUT": None, "OPTIONS": {"max_entries": None}})
    before = {f"key{number}" for number in range(105)}
    for key in before:
        cache.set(key, 1)
    found = []
    for number, storage_key in enumerate(cache._scan(":1:key")):
        found.append(storage_key.removeprefix(":1:"))
        cache.set(f"new{number}", 1)
    assert sorted(found) == sorted(before)
    assert cache.count() == 2 * len(before)
