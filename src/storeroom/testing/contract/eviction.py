"""Eviction: a full cache keeps the entries that its program asks for again."""

from collections.abc import Callable, Iterator
from itertools import count

from storeroom.testing.capabilities import needs
from storeroom.testing.concurrency import chance_of
from storeroom.testing.contract.suite import Driver, Suite

__all__ = ["EvictionContract"]

BOUND = 100


@needs("store", "bounds")
class EvictionContract(Suite):
    """The order of eviction, by patterns of use that each storage has to serve about as LRU does."""

    async def full(self, drive: Callable[..., Driver], *, reads: int = 1) -> Driver:
        """Return a cache that is full of entries which were read so many times, and never will be again."""
        cache = drive(OPTIONS={"MAX_ENTRIES": BOUND})
        old = [f"old {number}" for number in range(BOUND)]
        for key in old:
            await cache.set(key, 1)
        for _ in range(reads):
            for key in old:
                await cache.get(key)
        return cache

    async def found_later(self, cache: Driver, writes: int, distance: int) -> float:
        """Write new keys, read each when a number of others have been written, and return the part that is found."""
        found = 0
        for number in range(writes + distance):
            if number < writes:
                await cache.set(f"new {number}", 1)
            if number >= distance:
                found += await cache.get(f"new {number - distance}") is not None
        return found / writes

    async def test_an_entry_just_written_is_found(self, drive: Callable[..., Driver]) -> None:
        """A new key can be read after five further writes, although the cache is full of entries that were read."""
        cache = await self.full(drive)
        assert await self.found_later(cache, 2 * BOUND, 5) >= 0.98

    async def test_an_entry_is_found_half_a_turnover_later(self, drive: Callable[..., Driver]) -> None:
        """A new key can be read when half as many others as there is room for have been written."""
        cache = await self.full(drive)
        assert await self.found_later(cache, 2 * BOUND, BOUND // 2) >= 0.9

    async def test_keys_computed_again_and_again_stay(self, drive: Callable[..., Driver]) -> None:
        """Of new keys that there is room for three times over, asked for in ten rounds, few are computed twice."""
        cache = await self.full(drive)
        computed = count()
        for _ in range(10):
            for number in range(BOUND // 3):
                await cache.get_or_set(f"new {number}", lambda: next(computed))
        assert next(computed) <= BOUND // 3 * 2

    async def test_sessions_stay_while_they_live(self, drive: Callable[..., Driver]) -> None:
        """Sessions that are written once and read eight times are found, though no miss is refilled."""
        cache = await self.full(drive)
        begun, reads, found = set[str](), 0, 0
        for key in sessions(active=BOUND * 3 // 8, reads=8, requests=10 * BOUND):
            if key in begun:
                reads += 1
                found += await cache.get(key) is not None
            else:
                begun.add(key)
                await cache.set(key, 1)
        assert found >= 0.97 * reads

    async def keep(self, cache: Driver, value: object) -> tuple[int, int]:
        """Fill, and read 40 keys again and again between 200 that are written once; return how many of each stay."""
        chance = chance_of(7)
        for number in range(2 * BOUND):
            await cache.set(f"old {number}", value)
        hot, once = [f"hot {number}" for number in range(40)], [f"once {number}" for number in range(200)]
        for key in hot:
            await cache.set(key, value)
        for key in once:
            for again in chance.choices(hot, k=4):
                await cache.get(again)
            await cache.set(key, value)
        return len(await cache.get_many(hot)), len(await cache.get_many(once))

    async def test_entries_in_use_stay(self, drive: Callable[..., Driver]) -> None:
        """A crowd of keys that are written once does not evict the keys that are read again and again."""
        hot, once = await self.keep(drive(OPTIONS={"MAX_ENTRIES": BOUND}), 1)
        assert hot >= 30
        assert once <= 70

    @needs("byte_bounds")
    async def test_entries_in_use_stay_where_bytes_are_bounded(self, drive: Callable[..., Driver]) -> None:
        """Nor does it where bytes are bounded, and the number of entries is not known before there are some."""
        hot, once = await self.keep(drive(OPTIONS={"MAX_ENTRIES": None, "max_bytes": 2_000 * BOUND}), bytes(1_800))
        assert hot >= 30
        assert once <= 80

    async def test_a_new_popularity_is_followed_within_a_turnover(self, drive: Callable[..., Driver]) -> None:
        """When other keys become popular, these are there after as many misses as there is room for."""
        cache, chance = drive(OPTIONS={"MAX_ENTRIES": BOUND}), chance_of(11)

        async def ask(keys: list[str], requests: int) -> float:
            hits = 0
            for key in chance.choices(keys, k=requests):
                if await cache.get(key) is not None:
                    hits += 1
                else:
                    await cache.set(key, 1)
            return hits / requests

        before, after = ([f"{name} {number}" for number in range(BOUND // 2)] for name in ("before", "after"))
        await ask(before, 5 * BOUND)
        await ask(after, 3 * BOUND)
        assert await ask(after, BOUND) >= 0.9


def sessions(active: int, reads: int, requests: int) -> Iterator[str]:
    """Yield keys in the order of use: as many live at a time, and each is used once more than it is read."""
    chance, numbers = chance_of(3), count()
    living: list[tuple[str, int]] = []
    for _ in range(requests):
        if len(living) < active:
            living.append((f"session {next(numbers)}", reads + 1))
        position = chance.randrange(len(living))
        key, left = living[position]
        yield key
        if left > 1:
            living[position] = key, left - 1
        else:
            living[position] = living[-1]
            living.pop()
