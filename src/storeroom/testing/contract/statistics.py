"""stats(): the counts that a cache keeps of its own work, and the size of its storage."""

import asyncio
import os
import secrets
import threading
from collections.abc import Callable
from typing import Any

import pytest

from storeroom import engines
from storeroom.base import BaseCache
from storeroom.base.sharing import stats_apart
from storeroom.engines import background
from storeroom.exceptions import NotSupportedError, SerializationError
from storeroom.testing import concurrency
from storeroom.testing.capabilities import needs
from storeroom.testing.concurrency import aeventually, eventually
from storeroom.testing.contract.suite import Driver, Suite
from storeroom.testing.processes import START_METHODS, Child

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

    async def test_what_is_computed_and_what_that_saves_is_counted(self, cache: Driver) -> None:
        """Each value that a function computes counts, with its time; each hit of get_or_set() saves the mean of it."""
        for _ in range(3):
            await cache.get_or_set("a", lambda: 1)
            await cache.get_or_set_many(["b", "c"], lambda keys: dict.fromkeys(keys, 2))
        await cache.refresh("a", lambda: 3)
        await cache.get_or_set("given", 4)
        await cache.get("a")
        stats = await cache.stats()
        assert (stats.computed, stats.failed, stats.abandoned, stats.waited) == (4, 0, 0, 0)
        assert (stats.reused, stats.hits, stats.misses) == (6, 7, 4)
        assert stats.compute_seconds > 0
        assert stats.saved_seconds == pytest.approx(6 * stats.compute_seconds / 4)

    async def test_a_function_that_fails_is_counted(self, cache: Driver) -> None:
        """A function that raises an error has failed, and has computed nothing."""
        for call, key in ((cache.get_or_set, "user:1"), (cache.refresh, "user:1"), (cache.get_or_set_many, ["user:1"])):
            with pytest.raises(LookupError):
                await call(key, self._fail)
        stats = await cache.stats()
        assert (stats.failed, stats.computed, stats.compute_seconds, stats.saved_seconds) == (3, 0, 0.0, 0.0)
        assert stats.families["user"].failed == 3

    def _fail(self, _keys: object = None) -> Any:
        raise LookupError

    def test_a_cancelled_computation_is_abandoned(self, open_cache: Callable[..., BaseCache]) -> None:
        """A computation whose task is cancelled has neither failed nor computed anything."""
        cache = open_cache()

        async def main() -> None:
            begun = asyncio.Event()

            async def compute() -> None:
                begun.set()
                await asyncio.sleep(concurrency.PATIENCE)

            task = asyncio.create_task(cache.aget_or_set("k", compute))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        stats = cache.stats()
        assert (stats.abandoned, stats.failed, stats.computed) == (1, 0, 0)

    def test_those_who_wait_for_another_are_counted(self, open_cache: Callable[..., BaseCache]) -> None:
        """Of ten tasks that ask for an absent key one computes, and nine wait."""
        cache = open_cache()

        async def compute() -> int:
            await aeventually(lambda: cache.engine.flights.followers(cache.make_key("k")) == 9)
            return 1

        async def main() -> None:
            await asyncio.gather(*(cache.aget_or_set("k", compute) for _ in range(10)))

        asyncio.run(main())
        stats = cache.stats()
        assert (stats.computed, stats.waited, stats.misses) == (1, 9, 10)

    async def test_stale_values_that_are_served_are_counted(self, cache: Driver) -> None:
        """A value past its timeout counts as stale where it is served: while one is computed, or as that fails."""
        await cache.get_or_set("k", lambda: 1, self.moment, stale_while_revalidate="1h")
        await cache.get_or_set_many(["m"], lambda _: {"m": 1}, self.moment, stale_if_error="1h")
        await cache.get_or_set("k", lambda: 2, stale_while_revalidate="1h")
        assert (await cache.stats()).stale == 0
        await self.pass_time(self.moment)
        assert await cache.get_or_set("k", lambda: 3, stale_while_revalidate="1h") == 1
        if cache.is_async:
            await aeventually(lambda: not cache.cache.engine.flights.has_any)
        assert background.drain(concurrency.PATIENCE)
        assert (await cache.stats()).stale == 1
        assert await cache.get_or_set_many(["m"], self._fail, stale_if_error="1h") == {"m": 1}
        stats = await cache.stats()
        assert (stats.stale, stats.reused, stats.failed) == (2, 2, 1)

    @needs("refusal")
    async def test_refused_values_are_counted_by_reason(self, cache: Driver) -> None:
        """A value that cannot be serialized is refused for that, whoever stores it, and whether it was computed."""
        with pytest.raises(SerializationError):
            await cache.set("a", threading.Lock())
        with pytest.raises(SerializationError):
            await cache.set_many({"b": threading.Lock()})
        await cache.get_or_set("c", threading.Lock)
        assert (await cache.stats()).refused == {"unserializable": 3}

    @needs("byte_bounds")
    async def test_values_that_are_too_large_are_counted(self, drive: Callable[..., Driver]) -> None:
        """A value beyond max_bytes is refused as too large."""
        cache = drive(OPTIONS={"max_bytes": 100_000})
        await cache.get_or_set("a", lambda: bytes(200_000))
        assert await cache.set_many({"b": bytes(200_000), "c": 1}) == ["b"]
        assert (await cache.stats()).refused == {"too_large": 2}

    async def test_families_of_keys_are_told_apart(self, cache: Driver) -> None:
        """Keys count for the family of their first part, with numbers and identifiers collapsed."""
        await cache.set_many({"user:1": 1, "user:2:name": 2})
        await cache.set("row-7", 1)
        await cache.add("row-8", 1)
        await cache.get("user:1")
        await cache.get("user:3")
        await cache.get_many(["row-7", "row-9"])
        await cache.get_or_set("page:1", lambda: 1)
        await cache.get_or_set_many(["page:1", "page:2"], lambda keys: dict.fromkeys(keys, 1))
        stats = await cache.stats()
        families = stats.families
        assert {name: (it.misses, it.sets, it.computed) for name, it in families.items()} == {
            "user": (1, 2, 0),
            "row-*": (1, 2, 0),
            "page": (2, 2, 2),
        }
        assert families["page"].compute_seconds == pytest.approx(stats.compute_seconds)
        assert {it.hits for it in families.values()} in ({1}, {None})

    async def test_families_may_be_named_by_patterns(self, drive: Callable[..., Driver]) -> None:
        """The first of the patterns counts that a key matches; the others' families are as ever."""
        cache = drive(OPTIONS={"families": ["user:*:name", "user:*"]})
        await cache.set_many({"user:1:name": 1, "user:2": 2, "page:1": 3})
        assert {name: it.sets for name, it in (await cache.stats()).families.items()} == {
            "user:*:name": 1,
            "user:*": 1,
            "page": 1,
        }

    async def test_families_are_few(self, cache: Driver) -> None:
        """Beyond 64 families, the keys of all others are counted together."""
        await cache.set_many({f"{chr(97 + number // 10)}{chr(97 + number % 10)}:": 1 for number in range(100)})
        families = (await cache.stats()).families
        assert len(families) == 65
        assert families["other"].sets == 36

    async def test_statistics_tell_whose_they_are(self, cache: Driver) -> None:
        """stats() counts for this handle, process or machine, and refuses to count for all where nobody does."""
        stats = await cache.stats()
        assert (stats.scope, stats.processes) in {("handle", 1), ("process", 1), ("machine", None)}
        if stats.scope == "machine":
            assert (await cache.stats(scope="all")).scope == "machine"
        else:
            with pytest.raises(NotSupportedError):
                await cache.stats(scope="all")
        process = await cache.stats(scope="process")
        assert (process.scope, process.sets) == ("handle" if stats.scope == "handle" else "process", stats.sets)
        with pytest.raises(ValueError, match="expected None, "):
            await cache.stats(scope="galaxy")

    @needs("processes")
    async def test_processes_count_together(self, location: str, drive: Callable[..., Driver]) -> None:
        """With shared_stats, the counts of all processes are added up, of those that have ended, too."""
        # The counts outlive clear(), by which tests part on a server that they share.
        params: dict[str, Any] = {"KEY_PREFIX": secrets.token_hex(8), "OPTIONS": {"shared_stats": True}}
        cache = drive(**params)
        await cache.set_many({"user:1": 1, "user:2": 2})
        assert Child(type(self), location, params, count_some).result() == [1, None, 3]
        # Started afresh in one mode: that takes ten times as long as all else here.
        method = START_METHODS[0 if cache.is_async else -1]
        assert Child(type(self), location, params, count_some, method=method).result() == [1, None, 3]
        eventually(lambda: cache.cache.stats(scope="all").computed == 2)
        stats = await cache.stats(scope="all")
        assert (stats.hits, stats.misses, stats.sets, stats.families["page"].computed) == (2, 4, 4, 2)
        assert (stats.scope, stats.processes) in {("all", 3), ("machine", None)}
        own, apart = await cache.stats(scope="process"), stats_apart(cache.cache)
        assert (own.scope, own.sets, own.computed) == ("process", 2, 0)
        if apart is not None:
            assert sorted(each.sets for each in apart.values()) == [1, 1, 2]
            assert sum(each.computed for each in apart.values()) == 2
        if "enumerate" not in self.lacks:
            assert len(await cache.keys()) == 4
            assert (await cache.stats()).entries in {4, None}
        await cache.clear()
        assert (await cache.stats(scope="all")).sets == 4
        cache.cache._reset_stats()
        stats = await cache.stats(scope="all")
        assert (stats.hits, stats.misses, stats.sets, stats.computed) == (0, 0, 0, 0)
        await cache.set("user:1", 1)
        assert (await cache.stats(scope="all")).sets == 1


def count_some(cache: BaseCache) -> list[Any]:
    """Read an entry and an absent one, and compute one; end as a process of a program does."""
    found = [cache.get("user:1"), cache.get("absent:1"), cache.get_or_set(f"page:{os.getpid()}", lambda: 3)]
    engines.close_all()
    return found
