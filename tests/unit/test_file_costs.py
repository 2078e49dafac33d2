"""The work of a file cache does not grow with what it need not look at."""

import asyncio
import random
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import storeroom
from storeroom.backends import filebased
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.filebased.records import entry_key_of
from storeroom.backends.filebased.table import Table
from storeroom.testing import FakeClock

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


SIGNED: list[dict[str, Any]] = [{}, {"secret": "s" * 16}]


@pytest.mark.parametrize("options", SIGNED)
@pytest.mark.parametrize("operation", ["has_key", "ttl", "touch", "count", "keys", "delete"])
@pytest.mark.parametrize("key", ["large", "long" * 500])
def test_a_large_value_is_not_read_to_be_found_or_removed(
    make: Callable[..., FileBasedCache], operation: str, key: str, options: dict[str, Any]
) -> None:
    """An operation that does not return the value needs no room for it, signed or not."""
    cache = make(OPTIONS={"max_entries": None, **options})
    cache.set(key, LARGE)
    tracemalloc.start()
    try:
        assert getattr(cache, operation)(*([] if operation in {"count", "keys"} else [key]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(LARGE) / 1000


@pytest.mark.parametrize("options", SIGNED)
@pytest.mark.parametrize("operation", ["has_key", "ttl", "touch", "ahas_key", "attl", "atouch"])
@pytest.mark.parametrize("key", ["large", "long" * 500])
def test_a_large_value_is_not_read_for_its_tags(
    make: Callable[..., FileBasedCache], operation: str, key: str, options: dict[str, Any]
) -> None:
    """An entry's tags are judged without its value, signed or not; where a version has changed, it is not there."""
    cache, tags = make(OPTIONS={"max_entries": None, **options}), [f"tag {number}" * 9 for number in range(100)]
    cache.set(key, LARGE, tags=tags)

    def ask() -> Any:
        answer = getattr(cache, operation)(key)
        return asyncio.run(answer) if operation.startswith("a") else answer

    tracemalloc.start()
    try:
        assert ask()
        assert ask()
        cache.invalidate_tags(tags[-1])
        assert not ask()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(LARGE) / 50  # the versions of a hundred tags are read


@pytest.mark.parametrize("size", [1, 300_000])
@pytest.mark.parametrize("options", [{}, {"secret": "s" * 16}])
def test_conditions_are_judged_alike_wherever_the_value_lies(
    make: Callable[..., FileBasedCache], size: int, options: dict[str, Any]
) -> None:
    """has_key() and ttl() go by an envelope's time, its tags and its lease, signed or not, as get() does."""
    cache = make(OPTIONS=options)
    with FakeClock() as clock:
        cache.set("k", "v" * size, timeout=60, tags=["t", "u"])
        cache.get_or_set("stale", lambda: "v" * size, timeout=5, stale_if_error=60)
        clock.advance(10)
        with storeroom.transaction():
            assert (cache.has_key("k"), cache.ttl("k")) == (True, 50)
            assert (cache.has_key("stale"), cache.ttl("stale")) == (False, 0)
            cache.invalidate_tags("u")
            assert (cache.has_key("k"), cache.ttl("k"), cache.get("k")) == (False, 0, None)
        assert (cache.has_key("k"), cache.ttl("k"), cache.get("k")) == (False, 0, None)
    cache._check_invariants()


@pytest.mark.parametrize("reads_each", [0, 1, 3])
@pytest.mark.parametrize("bound", [100, 149, 300, 500, 1000])
def test_a_new_key_in_a_full_cache_takes_few_calls(
    make: Callable[..., FileBasedCache], bound: int, reads_each: int
) -> None:
    """Entries are chosen together, read or not, so that one costs less than half an overwrite; none is missed early."""
    cache = make(OPTIONS={"max_entries": bound})
    calls, lag = list[int](), bound // 5
    with FakeClock():  # nothing is done once a second
        for number in range(2 * bound + 400):
            if reads_each and number > lag and not number % reads_each:
                assert cache.get(f"k{number - lag}") == "v"
            calls.append(calls_of(cache.set, f"k{number}", "v"))
        assert sum(calls[-400:]) < 1.5 * 400 * calls_of(cache.set, f"k{2 * bound + 399}", "v")
    assert bound - 31 <= cache.count() <= bound
    cache._check_invariants()


@pytest.mark.parametrize(
    ("bound", "reads_each", "fewest", "most"),
    [(1000, 1, 990, 1000), (1000, 10, 990, 1000), (1000, 0, 0, 975), (100, 30, 99, 100)],
)
def test_few_entries_go_at_once_where_the_oldest_are_used(
    make: Callable[..., FileBasedCache], bound: int, reads_each: int, fewest: int, most: int
) -> None:
    """A full cache holds nearly as many entries as it may while some of those that are about to go are read."""
    cache = make(OPTIONS={"max_entries": bound})
    counts = list[int]()
    for number in range(3 * bound):
        cache.set(f"k{number}", "v")
        if reads_each and number >= bound // 5 and not number % reads_each:
            assert cache.get(f"k{number - bound // 5}") == "v"
        if number >= 2 * bound:
            counts.append(cache.count())
    assert fewest <= min(counts) <= most


def calls_of(action: Callable[..., object], *args: Any) -> int:
    """Count the calls of functions written in Python."""
    calls, before = 0, sys.getprofile()

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(note)
    try:
        action(*args)
    finally:
        sys.setprofile(before)
    return calls


def no_walk(transaction: Any, start: str, now: float) -> Iterator[str]:
    raise AssertionError("count() walks over the entries")


def counted(cache: FileBasedCache) -> int:
    """Return what count() tells without a walk, having compared it with keys()."""
    keys = cache.keys()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filebased, "live_keys", no_walk)
        count = cache.count()
    assert count == len(keys)
    return count


OPERATIONS: list[Callable[[FileBasedCache, random.Random, str, float | None], object]] = [
    lambda cache, chance, key, timeout: cache.set(key, chance.choice([1, "text", "v" * 300_000]), timeout),
    lambda cache, chance, key, timeout: cache.set(key, 1, timeout, tags=[f"t{chance.randrange(3)}"]),
    lambda cache, chance, key, timeout: cache.set_many(
        {f"{key}{n}": n for n in range(chance.choice([3, 3, 3, 400]))}, timeout
    ),
    lambda cache, _, key, timeout: cache.get_or_set(key, lambda: counted(cache), timeout, stale_if_error=10),
    lambda cache, chance, *_: cache.invalidate_tags(f"t{chance.randrange(3)}"),
    lambda cache, _, key, timeout: cache.add(key, 1, timeout),
    lambda cache, _, key, timeout: cache.touch(key, timeout),
    lambda cache, _, key, __: cache.delete(key),
    lambda cache, *_: cache.prune(),
    lambda cache, *_: fail(cache),
]


@pytest.mark.parametrize("seed", range(4))
def test_count_of_a_cache_that_is_alone_walks_over_nothing(make: Callable[..., FileBasedCache], seed: int) -> None:
    """Entries are counted as they come and go, whatever is done: expired, invalidated, evicted, or not committed."""
    cache, chance = make(OPTIONS={"max_entries": 150 if seed % 2 else None}), random.Random(seed)
    with FakeClock() as clock:
        for _ in range(60):
            cache.set("stays", 1, timeout=None)
            key = f"k{chance.randrange(9)}" * chance.choice([1, 1, 1, 200])
            chance.choice(OPERATIONS)(cache, chance, key, chance.choice([None, 5, 20]))
            counted(cache)
            clock.advance(chance.choice([0, 0, 1, 4]))
            counted(cache)
        cache._check_invariants()


def fail(cache: FileBasedCache) -> None:
    """Change much in a transaction that is not committed."""

    def change(table: Table) -> None:
        for key in cache.keys()[:20]:
            table.remove(entry_key_of(cache.make_key(key)))
        for number in range(20):
            table.put(b"e:1:failed%d" % number, b"\x1a" * 60, 2e9, cache._bounds)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        cache._write(change)
    assert cache.count() == len(cache.keys())  # until the next write by a walk
    cache.set("stays", 1, timeout=None)


@pytest.mark.parametrize("is_counted", [True, False])
def test_a_long_transaction_that_failed_is_taken_back(make: Callable[..., FileBasedCache], is_counted: bool) -> None:
    """Slots are made anew after more changes than are logged, be the next transaction one that changes none."""
    cache = make()
    cache.set_many({f"k{number}": number for number in range(500)})
    with pytest.raises(InterruptedError):
        cache._write(fail_after, [entry_key_of(cache.make_key(f"k{number}")) for number in range(500)])
    if is_counted:
        cache._counters.hits += 1
        cache._engine.add_counts()
    assert (cache.count(), cache.stats().entries) == (500, 500)
    cache._check_invariants()


def fail_after(table: Table, entry_keys: list[bytes]) -> None:
    for entry_key in entry_keys:
        table.remove(entry_key)
    raise InterruptedError


@pytest.mark.parametrize("others", ["", "a:b", "ab", "b"])
def test_count_of_a_cache_that_shares_its_files_is_its_own(make: Callable[..., FileBasedCache], others: str) -> None:
    """Entries of other prefixes and versions are passed over, be their keys short or long."""
    cache, other = make(KEY_PREFIX="a"), make(KEY_PREFIX=others)
    cache.set_many({"k": 1, "long" * 500: 1})
    other.set("long" * 500, 2)
    assert (cache.count(), other.count()) == (2, 1)
    other.set_many({"k": 1, "l": 1}, version=2)
    assert (cache.count(), other.count(), other.count(version=2)) == (2, 1, 2)
