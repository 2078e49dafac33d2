"""Bounds: room is made by expired entries first, then by the least useful ones."""

from collections.abc import Callable

import pytest

from storeroom.exceptions import ValueTooLargeError
from storeroom.testing.capabilities import needs
from storeroom.testing.concurrency import chance_of
from storeroom.testing.contract.suite import Driver, Suite
from storeroom.testing.isolation import engines_of_its_own

__all__ = ["BoundsContract"]


@needs("store", "bounds")
class BoundsContract(Suite):
    """MAX_ENTRIES, CULL_FREQUENCY and max_bytes."""

    async def live(self, cache: Driver, keys: list[str]) -> int:
        """Return how many of the keys are live."""
        return len(await cache.get_many(keys))

    async def test_max_entries_holds(self, drive: Callable[..., Driver]) -> None:
        """No write lets more than MAX_ENTRIES live, and most of that room is used."""
        cache = drive(OPTIONS={"MAX_ENTRIES": 20})
        keys = [str(number) for number in range(120)]
        for number, key in enumerate(keys):
            write = (cache.set, cache.add, cache.get_or_set)[number % 3]
            await write(key, number)
            assert await cache.get(key) == number, "what was just written is there"
            if number % 10 == 9:
                assert await self.live(cache, keys) <= 20
        assert await self.live(cache, keys) >= 15

    async def test_max_entries_holds_within_set_many(self, drive: Callable[..., Driver]) -> None:
        """set_many() of more entries than there is room for succeeds, and leaves at most MAX_ENTRIES."""
        cache = drive(OPTIONS={"MAX_ENTRIES": 20})
        keys = [str(number) for number in range(100)]
        assert await cache.set_many(dict.fromkeys(keys, "v")) == []
        assert 10 <= await self.live(cache, keys) <= 20

    async def test_max_entries_holds_within_get_or_set_many(self, drive: Callable[..., Driver]) -> None:
        """get_or_set_many() returns more values than there is room for, and leaves at most MAX_ENTRIES."""
        cache = drive(OPTIONS={"MAX_ENTRIES": 20})
        keys = [str(number) for number in range(2000)]
        found = await cache.get_or_set_many(keys, lambda missing: dict.fromkeys(missing, "v"))
        assert found == dict.fromkeys(keys, "v")
        assert 10 <= await self.live(cache, keys) <= 20

    async def test_max_entries_may_be_one(self, drive: Callable[..., Driver]) -> None:
        """With MAX_ENTRIES of 1, the newest entry is kept."""
        cache = drive(OPTIONS={"MAX_ENTRIES": 1})
        for number in range(5):
            await cache.set(f"k{number}", number)
            assert await cache.get(f"k{number}") == number
        assert await self.live(cache, [f"k{number}" for number in range(5)]) == 1

    async def test_max_entries_may_be_none(self, drive: Callable[..., Driver]) -> None:
        """With MAX_ENTRIES of None, nothing is evicted."""
        cache = drive(OPTIONS={"MAX_ENTRIES": None})
        values = {str(number): number for number in range(1000)}
        await cache.set_many(values)
        assert await cache.get_many(values) == values

    async def test_without_a_setting_it_is_300(self, cache: Driver) -> None:
        """Without the setting, at most 300 entries are kept, as in Django."""
        keys = [str(number) for number in range(400)]
        await cache.set_many(dict.fromkeys(keys, "v"))
        assert 200 <= await self.live(cache, keys) <= 300

    async def test_prefixes_share_the_bound_of_their_storage(self, drive: Callable[..., Driver]) -> None:
        """Caches of two prefixes keep MAX_ENTRIES together, as they share a storage."""
        left = drive(KEY_PREFIX="left", OPTIONS={"MAX_ENTRIES": 20})
        right = drive(KEY_PREFIX="right", OPTIONS={"MAX_ENTRIES": 20})
        keys = [str(number) for number in range(20)]
        for key in keys:
            await left.set(key, 1)
            await right.set(key, 1)
        assert await self.live(left, keys) + await self.live(right, keys) <= 20

    async def test_overwriting_evicts_nothing(self, drive: Callable[..., Driver]) -> None:
        """Writing to entries of a full cache, by any operation, evicts none."""
        cache = drive(OPTIONS={"MAX_ENTRIES": 20})
        keys = [str(number) for number in range(20)]
        for key in keys:
            await cache.set(key, 0)
        for key in keys:
            await cache.set(key, 1)
            await cache.add(key, 2)
            await cache.incr(key)
            await cache.touch(key)
            await cache.get_or_set(key, 3)
        assert await cache.get_many(keys) == dict.fromkeys(keys, 2)
        await cache.set_many(dict.fromkeys(keys, 5))
        assert await cache.get_many(keys) == dict.fromkeys(keys, 5)

    async def test_deleting_makes_room(self, drive: Callable[..., Driver]) -> None:
        """As many new entries find room as were deleted, and none is evicted for them."""
        cache = drive(OPTIONS={"MAX_ENTRIES": 20})
        keys = [str(number) for number in range(20)]
        for key in keys:
            await cache.set(key, 0)
        await cache.delete_many(keys[:5])
        await cache.delete(keys[5])
        for number in range(6):
            await cache.set(f"new {number}", 0)
        assert await self.live(cache, keys) == 14
        assert await self.live(cache, [f"new {number}" for number in range(6)]) == 6

    async def test_expired_entries_go_before_live_ones(self, drive: Callable[..., Driver]) -> None:
        """Expired entries make room for new ones before any live entry does, however old and unread that is."""
        cache = drive(OPTIONS={"MAX_ENTRIES": 20})
        old = [f"old {number}" for number in range(10)]
        short = [f"short {number}" for number in range(10)]
        new = [f"new {number}" for number in range(10)]
        for key in old:
            await cache.set(key, 1, timeout=None)
        for key in short:
            await cache.set(key, 1, timeout=self.moment)
            await cache.get(key)
        await self.pass_time(self.moment * 1.5)
        for key in new:
            await cache.set(key, 1, timeout=None)
        assert await self.live(cache, old + new) == 20

    @pytest.mark.parametrize(("frequency", "left"), [(2, 7), (3, 9), (4, 10), (0, 1)])
    async def test_cull_frequency_evicts_a_part_at_once(
        self, drive: Callable[..., Driver], frequency: int, left: int
    ) -> None:
        """A new entry in a full cache evicts one in CULL_FREQUENCY, and all others if that is 0, as in Django."""
        cache = drive(OPTIONS={"MAX_ENTRIES": 12, "CULL_FREQUENCY": frequency})
        keys = [str(number) for number in range(13)]
        for key in keys[:-1]:
            await cache.set(key, 1)
        assert await self.live(cache, keys) == 12
        await cache.set(keys[-1], 1)
        assert await self.live(cache, keys) == left
        assert await cache.get(keys[-1]) == 1

    # Handles without bounds of their own -----------------------------------------------------

    async def test_a_handle_without_bounds_keeps_to_the_storages(self, drive: Callable[..., Driver]) -> None:
        """A handle that is given no bounds evicts nothing that the storage has room for, and no more fits for it."""
        typed = [str(number) for number in range(420)]
        await drive(OPTIONS={"MAX_ENTRIES": 400}).set_many(dict.fromkeys(typed[:380], 1))
        plain = drive()
        await plain.set_many(dict.fromkeys(typed[380:390], 1))
        await plain.set(typed[390], 1)
        await plain.add(typed[391], 1)
        await plain.get_or_set(typed[392], 1)
        assert await self.live(plain, typed) == 393
        await plain.set_many(dict.fromkeys(typed, 1))
        assert 300 < await self.live(plain, typed) <= 400

    @needs("processes")
    async def test_bounds_are_kept_with_the_storage(self, drive: Callable[..., Driver], location: str) -> None:
        """Another process that is given no bounds keeps to those that were given last, also after a clear()."""
        cache = drive(OPTIONS={"MAX_ENTRIES": 600})
        await cache.set_many({str(number): 1 for number in range(500)})
        await cache.clear()
        await cache.set_many({str(number): 1 for number in range(500)})
        cache.cache.close()
        with engines_of_its_own():
            other = self.make_cache(location, {})
            other.set("k", 1)
            assert len(other.get_many([*map(str, range(500)), "k"])) == 501
            other.close()

    @needs("byte_bounds", "statistics")
    async def test_max_bytes_of_another_handle_holds(self, drive: Callable[..., Driver]) -> None:
        """A handle that is given no max_bytes keeps to that of the storage."""
        await drive(OPTIONS={"MAX_ENTRIES": None, "max_bytes": 200_000}).set("first", 1)
        plain = drive()
        for number in range(20):
            await plain.set(str(number), bytes(30_000))
        assert (await plain.stats()).bytes <= 200_000
        with pytest.raises(ValueTooLargeError):
            await plain.set("k", bytes(200_000))

    # Bytes ----------------------------------------------------------------------------------

    @needs("byte_bounds", "statistics")
    async def test_max_bytes_holds(self, drive: Callable[..., Driver]) -> None:
        """Entries of any size stay within max_bytes, and use at least half of it."""
        bound = 200_000
        cache = drive(OPTIONS={"MAX_ENTRIES": None, "max_bytes": bound})
        chance = chance_of(7)
        for number in range(200):
            await cache.set(str(number), chance.randbytes(chance.randrange(100, 20_000)))
            assert await cache.get(str(number)) is not None, "what was just written is there"
            if number % 20 == 19:
                assert (await cache.stats()).bytes <= bound
        assert (await cache.stats()).bytes >= bound / 2

    @needs("byte_bounds", "statistics")
    async def test_max_bytes_holds_when_entries_grow(self, drive: Callable[..., Driver]) -> None:
        """An entry that grows stays, and others are evicted to keep max_bytes."""
        bound = 200_000
        cache = drive(OPTIONS={"MAX_ENTRIES": None, "max_bytes": bound})
        keys = [str(number) for number in range(20)]
        await cache.set_many(dict.fromkeys(keys, b"small"))
        for key in keys:
            await cache.set(key, bytes(30_000))
            assert await cache.get(key) == bytes(30_000)
            assert (await cache.stats()).bytes <= bound

    @needs("byte_bounds", "statistics")
    async def test_max_bytes_bounds_what_stats_tells(self, drive: Callable[..., Driver]) -> None:
        """Small entries count alike from the first to the last, and no more than max_bytes in all."""
        bound = 20_000
        cache = drive(OPTIONS={"MAX_ENTRIES": None, "max_bytes": bound})
        for number in range(10):
            await cache.set(f"key {number:07}", "v" * 10)
        each = (await cache.stats()).bytes / 10
        assert each % 1 == 0
        assert 24 < each < bound / 20
        for number in range(10, 400):
            await cache.set(f"key {number:07}", "v" * 10)
        stats = await cache.stats()
        assert (stats.bytes, stats.evictions > 0) == (each * stats.entries, True)
        assert bound / 2 <= stats.bytes <= bound

    @needs("byte_bounds", "statistics")
    async def test_a_tagged_value_counts_with_its_bytes(self, drive: Callable[..., Driver]) -> None:
        """Values with tags take their room of max_bytes."""
        cache = drive(OPTIONS={"MAX_ENTRIES": None, "max_bytes": 200_000})
        for number in range(20):
            await cache.set(str(number), "x" * 30_000, tags=["a"])
        assert 1 <= (await cache.stats()).entries <= 6

    @needs("byte_bounds")
    @pytest.mark.parametrize("unit", [65_536, "64KiB", "64KB"])
    async def test_a_value_larger_than_everything_is_refused(
        self, drive: Callable[..., Driver], unit: int | str
    ) -> None:
        """A value above max_bytes raises ValueTooLargeError, which names the bound, and evicts nothing."""
        cache = drive(OPTIONS={"MAX_ENTRIES": None, "max_bytes": unit})
        await cache.set_many({"a": 1, "b": 2})
        with pytest.raises(ValueTooLargeError, match=r"65[_,]?536"):
            await cache.set("k", bytes(65_536))
        with pytest.raises(ValueTooLargeError):
            await cache.add("k", bytes(65_536))
        assert await cache.get_many(["a", "b", "k"]) == {"a": 1, "b": 2}
