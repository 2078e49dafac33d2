"""The work of a file cache does not grow with what it need not look at."""

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.filebased.table import Table

LARGE = b"x" * 20_000_000


def framed_keys(key: object, key_prefix: str, version: int) -> str:
    """A function whose storage keys end with something, too."""
    return f"{key_prefix}:{version}:{key}!"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., FileBasedCache]]:
    def make(**params: Any) -> FileBasedCache:
        return FileBasedCache(tmp_path, {"OPTIONS": {"max_entries": None}, **params})

    yield make
    make()._engine.close()


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The keys that were removed one by one."""
    keys, remove = list[bytes](), Table.remove

    def noted(table: Table, entry_key: bytes) -> bool:
        keys.append(entry_key)
        return remove(table, entry_key)

    monkeypatch.setattr(Table, "remove", noted)
    return keys


@pytest.mark.parametrize("key_function", [None, framed_keys])
def test_clear_of_all_there_is_removes_nothing_one_by_one(
    make: Callable[..., FileBasedCache], removed: list[bytes], key_function: Any
) -> None:
    """A cache that is alone in its files drops them at once, long keys, tags and all versions; locks stay."""
    cache = make(KEY_PREFIX="a", **({"KEY_FUNCTION": key_function} if key_function else {}))
    for version in (1, 2, 12):
        cache.set_many({f"k{number}": number for number in range(100)}, version=version, tags=["t"])
    cache.set("long" * 500, 1)
    with cache.lock("kept") as lock:
        cache.clear()
        assert removed == []
        assert cache.stats().entries == 0
        assert cache.invalidate_tags("t") == 0
        lock.extend(60)  # an error if it were lost
        cache._check_invariants()
    cache.set("k", 1)
    assert cache.get("k") == 1


@pytest.mark.parametrize("others", ["", "a:b", "ab", "b"])
@pytest.mark.parametrize("key", ["k", "long" * 500])
def test_clear_leaves_what_is_others(make: Callable[..., FileBasedCache], others: str, key: str) -> None:
    """Entries of a prefix that begins alike, and their tags, stay, be their keys short or long."""
    cache, other = make(KEY_PREFIX="a"), make(KEY_PREFIX=others)
    cache.set_many({"k": 1, "l": 1, "long" * 500: 1}, tags=["t"])
    other.set(key, 2, tags=["t"])
    cache.clear()
    assert cache.get_many(["k", "l", "long" * 500]) == {}
    assert other.get(key) == 2
    assert other.stats().entries == 1
    other._check_invariants()


@pytest.mark.parametrize("operation", ["has_key", "ttl", "delete"])
def test_a_large_value_is_not_read_to_be_found_or_removed(make: Callable[..., FileBasedCache], operation: str) -> None:
    """An operation that does not return the value needs no room for it."""
    cache = make()
    cache.set("large", LARGE)
    tracemalloc.start()
    try:
        assert getattr(cache, operation)("large")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(LARGE) / 20
