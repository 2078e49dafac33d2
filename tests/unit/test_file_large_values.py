"""A file cache keeps the frame of a large value aside, which no operation shows, and none leaves behind."""

import itertools
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import storeroom
from storeroom.backends.filebased import FileBasedCache, comparing, records, table, transactions
from storeroom.backends.filebased.pieces import INDEX, PIECE
from storeroom.backends.filebased.records import ASIDE, LONGEST_FRAME, entry_key_of
from storeroom.backends.filebased.slotfile import ATTEMPT
from storeroom.exceptions import StorageError, ValueTypeError
from storeroom.testing import FakeClock

SIZES = {"the largest in place": LONGEST_FRAME - 1, "the smallest aside": LONGEST_FRAME, "aside": 300_000}
"""Bytes of a value; its frame has one more."""

SETTINGS: dict[str, dict[str, Any]] = {"plain": {}, "signed": {"secret": "s" * 16}, "json": {"serializer": "json"}}

KEYS = {"short": "k", "long": "k" * 600}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., FileBasedCache]]:
    def make(**options: Any) -> FileBasedCache:
        return FileBasedCache(tmp_path, {"OPTIONS": {"max_entries": None} | options})

    yield make
    make()._check_invariants()
    make()._engine.close()


def aside(cache: FileBasedCache) -> set[bytes]:
    """The keys of the entries whose frames lie aside, be they whole or in pieces, and of pieces that are nobody's."""
    with cache._engine.begin() as transaction:
        keys = {bytes(key) for key, _ in transaction.cursor()}
        named = {bytes(index[:8]) for key, index in transaction.cursor() if key.startswith(INDEX)}
    stray = {key for key in keys if key.startswith(PIECE) and key[2:10] not in named}
    return stray | {key[1:] for key in keys if key.startswith((ASIDE, INDEX)) and not key.startswith(PIECE)}


def record_of(cache: FileBasedCache, key: str = "k") -> bytes:
    with cache._engine.begin() as transaction:
        return bytes(transaction.get(entry_key_of(cache.make_key(key))))


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_operations_do_not_tell_a_large_value_from_a_small_one(
    make: Callable[..., FileBasedCache], key: str, settings: dict[str, Any]
) -> None:
    """Every operation does the same on both sides of the limit, whatever the form of key and value."""
    cache = make(**settings)
    for size in SIZES.values():
        use(cache, key, "v" * size)
        use(cache, key, "v" * (size - 607))  # with a long key, or signed, the frame is longer
        use(cache, key, "v" * (size - 17))


def use(cache: FileBasedCache, key: str, value: str) -> None:
    """Do all there is with the value, and remove it."""
    cache.set(key, value)
    assert cache.get(key) == cache.get_many([key])[key] == value
    assert (cache.keys(), cache.count(), cache.has_key(key)) == ([key], 1, True)
    assert cache.touch(key, 60)
    assert 50 < (cache.ttl(key) or 0) <= 60
    assert not cache.add(key, "other")
    assert cache.get_or_set(key, lambda: "other") == value
    with pytest.raises(ValueTypeError):
        cache.incr(key)
    assert cache.incr_version(key) == 2
    assert not cache.has_key(key)
    assert cache.get(key, version=2) == value
    cache.set(key, value, tags=["t"])
    assert (cache.get(key), cache.touch(key, 70), cache.get(key)) == (value, True, value)
    assert cache.count() == cache.count(version=2) == 1
    cache.invalidate_tags("t")
    assert (cache.get(key), cache.count(), cache.add(key, value), cache.get(key)) == (None, 0, True, value)
    cache._check_invariants()
    assert (cache.delete(key), cache.delete(key, version=2), cache.delete(key)) == (True, True, False)
    assert aside(cache) == set()
    assert cache.stats().bytes == cache.stats().errors == 0


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_touch_of_a_tagged_value_keeps_all_but_its_time(
    make: Callable[..., FileBasedCache], key: str, settings: dict[str, Any]
) -> None:
    """Wherever the value lies it is whole, lives until the new time, goes with its tags, and can be renamed."""
    cache, value = make(**settings), "v" * 300_000
    with FakeClock() as clock:
        for seconds in (1000, 50, 70):
            cache.set(key, value, timeout=60, tags=["t", "u"])
            assert cache.touch(key, seconds)
            assert cache.touch(key, seconds)
            assert (cache.get(key), cache.get_many([key]), cache.ttl(key)) == (value, {key: value}, seconds)
            clock.advance(seconds - 1)
            assert cache.has_key(key)
            clock.advance(1)
            assert (cache.touch(key, 60), cache.get(key)) == (False, None)
        cache.set(key, value, timeout=60, tags=["t", "u"])
        assert cache.touch(key, 90)
        assert (cache.incr_version(key), cache.ttl(key, version=2), cache.get(key, version=2)) == (2, 90, value)
        assert cache.touch(key, None, version=2)
        cache.invalidate_tags("u")
        assert (cache.touch(key, 60, version=2), cache.get(key, version=2)) == (False, None)


def test_touch_of_a_tagged_value_gives_way_to_another_writer(make: Callable[..., FileBasedCache]) -> None:
    """A value that was set, removed or touched meanwhile does not get the time of a touch that saw an older one."""
    cache, other, value = make(), make(), "v" * 300_000
    cache.set("k", value, timeout=60, tags=["t"])
    storage_key = cache.make_key("k")
    seen = cache._touch(storage_key, 0.0)
    for change in (
        lambda: other.touch("k", 100),
        lambda: other.set("k", value, timeout=100, tags=["t"]),
        lambda: other.set("k", "small", timeout=100, tags=["t"]),
        lambda: other.set("k", value, timeout=100),
        lambda: other.delete("k"),
    ):
        change()
        before = other.get("k")
        assert not cache._compare_set(storage_key, seen, seen.until(seen.fresh_until + 900), seen.fresh_until + 900)
        assert (other.get("k"), (other.ttl("k") or 0) < 101) == (before, True)


def test_touch_of_a_signed_value_leaves_it_signed(make: Callable[..., FileBasedCache]) -> None:
    """The secret that signed the value reads it after a touch; another does not, nor does any read altered bytes."""
    value, secrets = "v" * 300_000, ["s" * 16, "o" * 16]
    cache, other, newer = make(secret=secrets[0]), make(secret=secrets[1]), make(secret=secrets[::-1])
    cache.set("k", value, timeout=60, tags=["t"])
    for toucher, seconds in ((newer, 100), (cache, 50)):
        assert toucher.touch("k", seconds)
        assert not other.touch("k", 200)  # which cannot read the tags' versions
        assert (cache.get("k"), newer.get("k"), other.get("k")) == (value, value, None)
        assert seconds - 5 < (cache.ttl("k") or 0) <= seconds
    assert cache.incr_version("k") == 2
    assert cache.get("k", version=2) == value
    cache.touch("k", 70, version=2)
    with cache._engine.turns.taken(), cache._engine.begin(write=True) as transaction:
        key = max(key for key, _ in transaction.cursor() if key.startswith(ASIDE))
        piece = bytearray(transaction.get(key))
        piece[-1] ^= 1
        transaction.put(key, bytes(piece))
    assert (cache.get("k", version=2), cache.get_many(["k"], version=2)) == (None, {})
    assert cache.delete("k", version=2)


def test_touch_in_a_memo_leaves_the_value_to_be_read(make: Callable[..., FileBasedCache]) -> None:
    """The memo does not take terms that were read without their value for the entry."""
    cache, value = make(), "v" * 300_000
    cache.set("k", value, timeout=60, tags=["t"])
    with storeroom.memo():
        for _ in range(2):
            assert cache.touch("k", 100)
            assert cache.get("k") == value


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_value_of_any_size_overwrites_one_of_any_other(make: Callable[..., FileBasedCache], key: str) -> None:
    """The new value is there, alone, and its bytes are counted."""
    cache, name = make(), 0 if len(key) == 1 else len(f":1:{key}") + 4  # a long key stands in the frame
    for before, after in itertools.product([1, 68, *SIZES.values()], repeat=2):
        cache.set(key, b"b" * before)
        cache.set(key, b"a" * after)
        assert cache.get(key) == b"a" * after
        cache._check_invariants()
        assert len(aside(cache)) == (name + 1 + after > LONGEST_FRAME)
        assert after < (cache.stats().bytes or 0) < after + 1500


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_no_frame_is_left_behind(make: Callable[..., FileBasedCache], key: str) -> None:
    """Expiry, eviction, clear() of all there is and of one prefix remove what lies aside with its entry."""
    cache, value = make(), b"v" * 300_000
    with FakeClock() as clock:
        cache.set(key, value, timeout=10)
        clock.advance(11)
        assert (cache.get(key), cache.count(), cache.prune(), aside(cache)) == (None, 0, 1, set())
        cache.set(key, value, timeout=10)
        clock.advance(11)
        cache.set(key, value)  # over one that has expired
        assert (cache.get(key), len(aside(cache))) == (value, 1)
    small = make(max_bytes=1_000_000)
    for number in range(10):
        small.set(f"{key}{number}", value)
        small._check_invariants()
    assert len(aside(small)) == small.count() == 3
    other = FileBasedCache(cache._dir, {"KEY_PREFIX": "other"})
    other.set(key, value)
    cache.clear()
    assert (len(aside(cache)), other.get(key), cache.count(), other.count()) == (1, value, 0, 1)
    other.clear()
    assert aside(cache) == set()


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("free", [bytes(8), struct.pack(">d", 1.7e9), struct.pack(">d", float("inf"))])
def test_entries_of_the_older_form_are_read(
    make: Callable[..., FileBasedCache], monkeypatch: pytest.MonkeyPatch, key: str, free: bytes
) -> None:
    """A large frame behind its header, and a time in the header that once stood there, are an entry like any other."""
    cache, value = make(), b"v" * 300_000
    with monkeypatch.context() as older:
        for module in (records, table, comparing, transactions):
            older.setattr(module, "LONGEST_FRAME", 2**30)
        cache.set(key, value)
        with cache._engine.begin(write=True) as transaction:
            cache._engine.queues.slots.skip(transaction.id())
            record = transaction.get(entry_key := entry_key_of(cache.make_key(key)))
            transaction.put(entry_key, record[:8] + free + record[16:])
    assert aside(cache) == set()
    assert (cache.get(key), cache.get_many([key]), cache.count()) == (value, {key: value}, 1)
    cache._check_invariants()
    cache.touch(key, 60)
    assert len(aside(cache)) == 1
    cache._check_invariants()
    assert (cache.get(key), cache.delete(key), aside(cache)) == (value, True, set())


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_an_older_version_reads_an_entry_whose_frame_lies_aside_as_a_counted_miss(
    make: Callable[..., FileBasedCache], monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """What such a record holds in place of the frame no codec takes for a value; once rewritten so, it stays a miss."""
    cache = make(**settings)
    cache.set("k", "v" * 300_000)
    with cache._engine.begin(write=True) as transaction:
        cache._engine.queues.slots.skip(transaction.id())
        entry_key = entry_key_of(cache.make_key("k"))
        record = transaction.get(entry_key)
        transaction.put(entry_key, record[:8] + bytes(8) + record[16:])  # as its touch() writes it
    errors = cache.stats().errors
    assert (cache.get("k"), cache.get_many(["k"]), cache.stats().errors) == (None, {}, errors + 2)
    cache.set("k", "new")
    assert cache.get("k") == "new"
    cache.set("k", "v" * 300_000)  # over the frame that was left aside
    assert cache.get("k") == "v" * 300_000


WRITERS: dict[str, Callable[[FileBasedCache, Any], object]] = {
    "whole": lambda cache, value: cache.set_many({"k": value}),
    "in pieces": lambda cache, value: cache.set("k", value),
}
"""Operations after which a frame lies aside in one form or the other."""


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("damage", ["gone", "of another size"])
def test_a_frame_that_is_damaged_is_a_counted_miss(
    make: Callable[..., FileBasedCache], damage: str, write: Callable[[FileBasedCache, Any], object]
) -> None:
    """A frame that lies aside no more, or is cut short, reads as a miss, is counted, and can be written again."""
    cache = make()
    write(cache, b"v" * 300_000)
    with cache._engine.begin(write=True) as transaction:
        cache._engine.queues.slots.skip(transaction.id())
        key = max(key for key, _ in transaction.cursor() if key.startswith(ASIDE))
        transaction.delete(key) if damage == "gone" else transaction.put(key, b"\x03vv")
    assert (cache.get("k"), cache.stats().errors, cache.touch("k")) == (None, 1, True)
    write(cache, b"v" * 300_001)
    assert cache.get("k") == b"v" * 300_001


def test_slots_made_anew_keep_what_lies_aside_and_drop_what_nobody_owns(make: Callable[..., FileBasedCache]) -> None:
    """After a start of the machine entries have their frames; a frame without an entry goes."""
    cache, value = make(), b"v" * 300_000
    cache.set_many({"k": value, "k" * 600: value, "small": 1})
    cache.set("tagged", value, tags=["t"])
    size = cache.stats().bytes
    with cache._engine.begin(write=True) as transaction:
        for key in (b"e:1:nobody", b"e:1:small"):
            transaction.put(ASIDE + key, value)
            transaction.put(INDEX + key, key[:8] + bytes(8))
            transaction.put(PIECE + key[:8] + bytes(4), value)
    cache._engine.queues.slots.words[ATTEMPT] = 0
    cache.set("new", 1)
    cache._check_invariants()
    assert len(aside(cache)) == 3
    assert cache.get_many(["k", "k" * 600, "tagged"]) == {"k": value, "k" * 600: value, "tagged": value}
    cache.delete("new")
    assert (cache.stats().bytes, cache.count()) == (size, 4)


def test_a_write_that_fails_leaves_neither_entry_nor_frame(make: Callable[..., FileBasedCache]) -> None:
    """Both records of the older value go, and others stay."""
    cache, value = make(map_size="2MB"), b"v" * 300_000
    kept = {"k": value, "small": 1}
    cache.set_many(kept)
    for key in ("new", "k", "small"):
        with pytest.raises(StorageError, match="map_size"):
            cache.set(key, b"w" * 3_000_000)
        kept.pop(key, None)
        assert cache.get_many(["k", "small", "new"]) == kept
        assert cache.count() == len(kept)
        assert len(aside(cache)) == ("k" in kept)
    cache._check_invariants()
