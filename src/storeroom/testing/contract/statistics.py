"""stats(): the counts that a cache keeps of its own work, and the size of its storage."""

from collections.abc import Callable

import pytest

from storeroom.testing.capabilities import needs
from storeroom.testing.contract.suite import Driver, Suite

__all__ = ["StatisticsContract"]


@needs("store")
class StatisticsContract(Suite):
    """Counters, entries and bytes."""

    async def test_a_new_cache_has_counted_nothing(self, cache: Driver) -> None:
        """The counters of a new cache are zero."""
        stats = await cache.stats()
        assert (stats.hits, stats.misses, stats.sets, stats.deletes, stats.errors) == (0, 0, 0, 0, 0)
        assert (stats.evictions, stats.expirations, stats.hit_ratio) == (0, 0, 0.0)

    async def test_reads_are_hits_or_misses(self, cache: Driver) -> None:
        """Each key that is read counts as a hit or a miss; has_key() and ttl() count as neither."""
        await cache.set_many({"a": 1, "b": None})
        await cache.get("a")
        await cache.get("b")
        await cache.get("c")
        await cache.get_many(["a", "b", "c", "d"])
        await cache.has_key("a")
        await cache.ttl("c")
        stats = await cache.stats()
        assert (stats.hits, stats.misses) == (4, 3)
        assert stats.hit_ratio == pytest.approx(4 / 7)

    async def test_get_or_set_is_one_read(self, cache: Driver) -> None:
        """get_or_set() counts one hit, or one miss and one set."""
        await cache.get_or_set("k", lambda: 1)
        stats = await cache.stats()
        assert (stats.hits, stats.misses, stats.sets) == (0, 1, 1)
        await cache.get_or_set("k", lambda: 1)
        stats = await cache.stats()
        assert (stats.hits, stats.misses, stats.sets) == (1, 1, 1)

    async def test_entries_written_are_sets(self, cache: Driver) -> None:
        """Each entry that is written counts as a set; an add() that stores nothing does not."""
        await cache.set("a", 1)
        await cache.set("a", 2)
        await cache.add("a", 3)
        await cache.add("b", 1)
        await cache.set_many({"c": 1, "d": 2})
        assert (await cache.stats()).sets == 5

    async def test_entries_removed_on_request_are_deletes(self, cache: Driver) -> None:
        """Each entry that is deleted counts as a delete; an absent key does not."""
        await cache.set_many(dict.fromkeys("abcd", 1))
        await cache.delete("a")
        await cache.delete("a")
        await cache.delete_many(["b", "c", "x"])
        assert (await cache.stats()).deletes == 3

    @needs("statistics")
    async def test_entries_and_bytes_are_what_is_stored(self, cache: Driver) -> None:
        """Entries and bytes grow with what is stored, and shrink to the values of an empty cache."""
        assert (await cache.stats()).entries == 0
        empty = (await cache.stats()).bytes
        await cache.set_many({"a": b"x", "b": b"y"})
        small = await cache.stats()
        assert small.entries == 2
        assert small.bytes > empty
        await cache.set("b", bytes(50_000))
        large = await cache.stats()
        assert large.entries == 2
        assert 49_000 <= large.bytes - small.bytes <= 60_000
        await cache.delete("b")
        assert (await cache.stats()).entries == 1
        assert (await cache.stats()).bytes < small.bytes
        await cache.clear()
        assert (await cache.stats()).entries == 0
        assert (await cache.stats()).bytes == empty

    @needs("statistics")
    async def test_expired_entries_are_pruned_and_counted(self, cache: Driver) -> None:
        """prune() removes the expired entries, counts them as expirations and returns their number."""
        await cache.set_many({"a": 1, "b": 2, "c": 3}, timeout=self.moment)
        await cache.set("stays", 4, timeout=None)
        assert await cache.prune() == 0
        await self.pass_time(self.moment * 1.5)
        assert await cache.prune() == 3
        stats = await cache.stats()
        assert (stats.expirations, stats.evictions, stats.entries) == (3, 0, 1)
        assert await cache.get("stays") == 4

    @needs("statistics")
    async def test_expired_entries_go_without_being_read(self, cache: Driver) -> None:
        """Writes to a cache that is never full remove entries that have expired unread."""
        await cache.set_many({f"short {number}": 1 for number in range(50)}, timeout=self.moment)
        await self.pass_time(self.moment * 1.5)
        for number in range(100):
            await cache.set(f"k{number % 10}", number, timeout=None)
            await cache.delete(f"k{number % 10}")
            await cache.set(f"k{number % 10}", number, timeout=None)
        stats = await cache.stats()
        assert (stats.entries, stats.expirations) == (10, 50)

    @needs("statistics", "bounds")
    async def test_entries_removed_for_room_are_evictions(self, drive: Callable[..., Driver]) -> None:
        """Each entry that is removed for room counts as an eviction."""
        cache = drive(OPTIONS={"MAX_ENTRIES": 10})
        for number in range(25):
            await cache.set(str(number), number)
        stats = await cache.stats()
        assert stats.entries <= 10
        assert stats.evictions == 25 - stats.entries
        assert (stats.sets, stats.deletes, stats.expirations) == (25, 0, 0)
