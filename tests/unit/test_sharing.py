"""The counts of several processes together: when they are written, in how many slots, and until when they count."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.db import DatabaseCache
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.filebased.counts import read_counts
from storeroom.base import sharing
from storeroom.engines import background, counts
from storeroom.testing.clock import FakeClock
from storeroom.testing.concurrency import PATIENCE
from storeroom.testing.isolation import engines_of_its_own

Make = Callable[..., Any]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make caches in one database, each as a process of its own would: with an engine of its own."""
    location = f"sqlite:///{tmp_path}/shared.db"
    with engines_of_its_own():

        def make(**options: Any) -> Any:
            with engines_of_its_own():
                return DatabaseCache(location, {"TIMEOUT": None, "OPTIONS": {"shared_stats": True, **options}})

        yield make


def written(cache: Any) -> tuple[int, int]:
    """Return how many processes have written their counts, and the sets among these."""
    assert background.drain(PATIENCE)
    stats = cache._stats_of_all("all", with_own=False)
    return stats.processes, stats.sets


def test_counts_are_written_with_the_first_operation_and_every_few_seconds(make: Make) -> None:
    """A process writes its counts when it first uses the storage, and not again until that is due."""
    cache, other = make(), make()
    assert written(other) == (0, 0)
    cache.set("a", 1)
    assert written(other) == (1, 0) or written(other) == (1, 1)  # the thread may have been the faster one
    for number in range(10):
        cache.set(f"k{number}", 1)
    assert written(other)[0] == 1
    assert written(other)[1] <= 1
    cache._counters.publish_at = cache._counters.look_at = 0.0  # as after some seconds
    cache.has_key("a")
    assert written(other) == (1, 11)
    assert other.stats(scope="all").sets == 11
    assert counts.PUBLISH_SECONDS <= 10


def test_a_further_process_takes_the_slot_that_was_written_the_longest_ago(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the slots that there are, those count that were heard of last."""
    monkeypatch.setattr(sharing, "_SLOTS", 2)
    with FakeClock() as clock:
        caches = [make() for _ in range(3)]
        for number, cache in enumerate(caches, start=1):
            cache.set_many({f"k{each}": 1 for each in range(10**number)})
            assert background.drain(PATIENCE)  # or it might write later, by another clock
            cache._counters.publishers[0].publish()
            clock.advance(1)
        assert written(make()) == (2, 100 + 1000)


def test_a_process_that_is_not_heard_of_is_counted_for_a_day(make: Make) -> None:
    """The counts of a process end a day after it has written them last."""
    with FakeClock() as clock:
        cache, other = make(), make()
        cache.set("a", 1)
        assert background.drain(PATIENCE)
        cache._counters.publishers[0].publish()
        clock.advance(sharing.KEEP_SECONDS - 1)
        assert written(other) == (1, 1)
        clock.advance(2)
        assert written(other) == (0, 0)
        cache._counters.publishers[0].publish()  # it lives on, and claims another slot
        assert written(other) == (1, 1)


def test_counts_of_other_prefixes_are_apart(make: Make) -> None:
    """Caches that share a table by their prefixes count for themselves; damaged entries count as none."""
    one = make()
    one.set("a", 1)
    one._counters.publishers[0].publish()
    (name,) = [each.name for each in one._counters.publishers]
    for slot in range(256):
        one._add(f"{name}{slot}", "no counts", float("inf"))
    assert written(make()) == (1, 1)
    with engines_of_its_own():
        other = DatabaseCache(one._location, {"KEY_PREFIX": "other", "OPTIONS": {"shared_stats": True}})
    assert written(other) == (0, 0)


def test_an_engine_whose_counts_are_written_can_be_forgotten(make: Make) -> None:
    """The handle by which counts are written is no use of the storage."""
    cache = make()
    engine = cache.engine
    assert engine.is_used is False
    second = DatabaseCache(cache._location, {"OPTIONS": {}})
    second.engine = engine
    assert engine.is_used is True


def test_counts_of_files_are_added_while_a_process_reads_more_than_it_writes(tmp_path: Path) -> None:
    """A process adds its counts to the record of all about once a second in which it writes, however much it reads."""
    with engines_of_its_own(), FakeClock() as clock:
        cache: Any = FileBasedCache(str(tmp_path), {"OPTIONS": {"max_entries": 100, "max_bytes": "1MB"}})
        for number in range(20):
            cache.set("a", number)
            assert [cache.get("a") for _ in range(5)] == [number] * 5
            added = cache._read(read_counts)
            assert cache.stats().hits - added["hits"] <= 5 * 4
            clock.advance(0.3)
        process = cache.stats("process")
        assert (process.scope, process.hits, process.sets) == ("process", 100, 20)
