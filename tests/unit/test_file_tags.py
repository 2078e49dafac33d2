"""A get() of a file cache judges an envelope by its bytes, as the envelope made of them would be judged."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.filebased.records import HEADER, entry_key_of
from storeroom.exceptions import WriteTimeoutError
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING
from storeroom.testing import FakeClock
from tests.unit.test_file_costs import calls_of

VALUES: list[Any] = ["text", "", "\ud800", b"\x1a\x1b", 1, -(2**70), None, True, 1.5, {"k": [1]}, "v" * 300_000]
TAGS = ["a", "b", "\u00e9", "\ud800", "long" * 60, "line\nend"]


@pytest.fixture(params=[{}, {"secret": "s" * 16}, {"compressor": "zlib", "compress_min_bytes": 1}], ids=str)
def cache(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FileBasedCache]:
    cache = FileBasedCache(tmp_path, {"OPTIONS": {"max_entries": None, **request.param}})
    yield cache
    cache._engine.close()


def judged(cache: FileBasedCache, key: str) -> Any:
    """Return what get() does, by the envelope itself."""
    found = cache._get(cache.make_key(key))
    value = cache._opened(found) if type(found) is Envelope else found
    return "missing" if value is MISSING else value


def agrees(cache: FileBasedCache, key: str) -> tuple[Any, int]:
    """Return the value that get() finds, and how many errors were counted, having compared both."""
    errors = cache._counters.errors
    value = cache.get(key, "missing")
    seen, errors = cache._counters.errors - errors, cache._counters.errors
    assert judged(cache, key) == value
    assert cache._counters.errors - errors == seen
    return value, seen


@pytest.mark.parametrize("seed", range(3))
def test_an_entry_is_live_as_its_envelope_is(cache: FileBasedCache, seed: int) -> None:
    """Whatever its value and its tags, be these invalidated, set again, or over."""
    chance, found = random.Random(seed), 0
    with FakeClock() as clock:
        for number in range(150):
            key, value = f"k{number % 7}" * chance.choice([1, 1, 300]), chance.choice(VALUES)
            if number % 5 == 1:
                cache.get_or_set(key, lambda value=value: value, 5, stale_if_error=60)
            else:
                cache.set(key, value, chance.choice([5, 400, None]), tags=chance.sample(TAGS, chance.randrange(4)))
            found += agrees(cache, key) == (value, 0)
            cache.invalidate_tags(*chance.sample(TAGS, chance.choice([0, 1])))
            clock.advance(chance.choice([0, 0, 1, 6, 400]))
            for other in range(7):
                agrees(cache, f"k{other}")
    assert found > 100


@pytest.mark.parametrize("value", ["text", [1]], ids=str)
def test_a_damaged_entry_is_no_hit_that_its_envelope_is_not(cache: FileBasedCache, value: object) -> None:
    """Any byte of it may be another one, and its end be missing: get() counts the same errors."""
    chance, results = random.Random(7), set[int]()
    cache.set("k", value, None, tags=["a", "b"])
    entry_key = entry_key_of(cache.make_key("k"))
    record = cache._read(lambda transaction: transaction.get(entry_key))
    for at in range(HEADER.size, len(record)):
        flipped = bytearray(record)
        flipped[at] ^= chance.choice([1, 2, 4, 8, 16, 32, 64, 128, 255])
        for damaged in (flipped, record[:at]):
            cache._write(lambda table, damaged=damaged: table._transaction.put(entry_key, bytes(damaged)))
            results.add(agrees(cache, "k")[1])
    assert 1 in results


def test_a_tag_costs_a_get_few_calls(tmp_path: Path) -> None:
    """A get() of an entry with two tags takes six calls of Python functions more than one of an entry with none."""
    cache = FileBasedCache(tmp_path, {})
    with FakeClock():
        cache.set("plain", "text")
        cache.set("tagged", "text", tags=["a", "b"])
        assert calls_of(cache.get, "tagged") <= calls_of(cache.get, "plain") + 6
    cache._engine.close()


def test_a_tag_whose_removal_was_dropped_is_not_current(tmp_path: Path) -> None:
    """Its version lies in the files still, as another process holds all writers up."""
    cache = FileBasedCache(tmp_path, {})
    cache.set("k", "text", tags=["a"])
    assert cache.get("k") == "text"
    cache._engine.give_up(WriteTimeoutError("held up"))
    cache._engine.dropped.keys[cache._tag_keys(["a"])[0]] = 1
    assert cache.get("k") is None
    cache.set("other", "text")
    assert (cache.get("k"), cache.get("other")) == (None, "text")
    cache._engine.close()
