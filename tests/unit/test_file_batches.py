"""Many entries of a file cache at once are as many entries one by one, with fewer calls."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.filebased.records import entry_key_of, entry_keys_of
from storeroom.exceptions import SerializationError
from storeroom.testing import FakeClock
from tests.unit.test_file_costs import calls_of

KEYS = [
    "a",
    "b",
    "user:7",
    "\u00e9",
    "\ud800",
    "line\nend",
    "nul\x00",
    "\x00tag\x00k",
    "k" * 498,
    "k" * 499,
    "\u00e9" * 300,
]

VALUES: list[Any] = [
    "text",
    "other",
    "\u00e9",
    "\ud800",
    b"\x1a\x1b",
    1,
    2**70,
    None,
    1.5,
    [1],
    {"k": "v"},
    "v" * 300_000,
]

SETTINGS: list[dict[str, Any]] = [{}, {"secret": "s" * 16}, {"compressor": "zlib"}, {"max_bytes": 400_000}]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., FileBasedCache]]:
    made = list[FileBasedCache]()

    def make(folder: str, **options: Any) -> FileBasedCache:
        made.append(FileBasedCache(tmp_path / folder, {"OPTIONS": {"max_entries": None} | options}))
        return made[-1]

    yield make
    for cache in made:
        cache._check_invariants()
        cache._engine.close()


@pytest.mark.parametrize("keys", [[], KEYS, KEYS[:3], KEYS[:4], *([key] for key in KEYS)])
def test_the_keys_of_many_entries_are_those_of_each(keys: list[str]) -> None:
    """Long and odd ones among them."""
    assert entry_keys_of(keys) == list(map(entry_key_of, keys))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_set_many_and_get_many_do_as_set_and_get(make: Callable[..., FileBasedCache], settings: dict[str, Any]) -> None:
    """Whatever lay there before: nothing, a shorter value, one with tags, one that has expired or expires later."""
    many, single, chance = make("many", **settings), make("single", **settings), random.Random(7)
    with FakeClock() as clock:
        for _ in range(60):
            batch = {key: chance.choice(VALUES) for key in chance.sample(KEYS, chance.randrange(len(KEYS)))}
            timeout, tags = chance.choice([None, 5, 50]), chance.choice([(), (), ("t",)])
            assert many.set_many(batch, timeout, tags=tags) == []
            for key, value in batch.items():
                single.set(key, value, timeout, tags=tags)
            clock.advance(chance.choice([0, 1, 6]))
            if "max_bytes" in settings:  # entries are evicted in another order
                assert many.get_many(KEYS).items() <= {key: many.get(key) for key in KEYS}.items()
                continue
            found = {key: value for key in KEYS if (value := single.get(key, single)) is not single}
            assert many.get_many(KEYS) == single.get_many(KEYS) == found
            assert [many.ttl(key) for key in KEYS] == [single.ttl(key) for key in KEYS]
            assert many.count() == single.count()
        counts = [(cache.stats().sets, cache.stats().errors, cache.stats().bytes) for cache in (many, single)]
        assert counts[0] == counts[1] or "max_bytes" in settings


def test_a_value_of_a_batch_that_cannot_be_stored_is_named(make: Callable[..., FileBasedCache]) -> None:
    """By its key, and none is stored."""
    cache = make("many")
    with pytest.raises(SerializationError, match="user:8"):
        cache.set_many({"user:7": "text", "user:8": lambda: None})
    assert cache.get_many(["user:7", "user:8"]) == {}


def test_a_batch_of_texts_takes_hardly_any_calls_for_each(make: Callable[..., FileBasedCache]) -> None:
    """A batch of a hundred takes few calls of Python functions more than one of ten."""
    cache = make("many")
    few, more = ({f"k:{number}": "text" for number in range(count)} for count in (10, 100))
    cache.set_many(more)
    assert calls_of(lambda: cache.set_many(more)) <= calls_of(lambda: cache.set_many(few)) + 10
    assert calls_of(lambda: cache.get_many(more)) <= calls_of(lambda: cache.get_many(few)) + 10
