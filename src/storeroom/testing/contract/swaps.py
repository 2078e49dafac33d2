"""Swaps: many entries changed at once, each if it is as expected, as get_or_set_many() stores."""

from collections.abc import Callable, Mapping

from storeroom import timeouts
from storeroom.storage.envelope import Envelope, placeholder
from storeroom.storage.hooks import ABSENT, MISSING, Swap
from storeroom.testing.capabilities import needs
from storeroom.testing.concurrency import in_threads
from storeroom.testing.contract.suite import Driver, Suite

__all__ = ["SwapsContract"]


async def swap_many(cache: Driver, swaps: Mapping[str, Swap]) -> dict[str, bool]:
    """Make swaps of keys as they are typed; return of each whether it was made."""
    hooks = cache.cache._overlay or cache.cache
    by_key = {cache.cache.make_key(key): swap for key, swap in swaps.items()}
    made = await hooks._aswap_many(by_key) if cache.is_async else hooks._swap_many(by_key)
    return dict(zip(swaps, (made[storage_key] for storage_key in by_key), strict=True))


def until(seconds: float) -> float:
    """Return an expires_at."""
    return timeouts.now() + seconds


@needs("store")
class SwapsContract(Suite):
    """Many compare-and-set, compare-and-delete and add, at once."""

    async def test_a_swap_is_made_where_the_entry_is_as_expected(self, cache: Driver) -> None:
        """Each swap is made if its own entry is as expected, whatever becomes of the others."""
        envelope, other, lease = Envelope([1], until(100)), Envelope([1], until(100)), placeholder(until(100))
        await cache.set_many({"envelope": envelope, "other": envelope, "lease": lease, "bare": [1], "taken": 1})
        swaps = {
            "envelope": Swap(envelope, ["new"], until(100)),
            "other": Swap(other, ["new"], until(100)),
            "lease": Swap(lease, Envelope(["new"], until(100)), until(100)),
            "bare": Swap([1], "new", until(100)),
            "taken": Swap(ABSENT, "new", until(100)),
            "free": Swap(ABSENT, "new", until(100)),
            "gone": Swap(envelope, "new", until(100)),
        }
        made = {
            "envelope": True,
            "other": False,
            "lease": True,
            "bare": True,
            "taken": False,
            "free": True,
            "gone": False,
        }
        assert await swap_many(cache, swaps) == made
        stored = {"envelope": ["new"], "other": [1], "lease": ["new"], "bare": "new", "taken": 1, "free": "new"}
        assert await cache.get_many(swaps) == stored

    async def test_an_entry_is_removed_where_it_is_as_expected(self, cache: Driver) -> None:
        """A swap may remove an entry that is as expected, beside swaps that store."""
        envelope, other = Envelope(1, until(100)), Envelope(1, until(100))
        await cache.set_many({"a": envelope, "b": envelope, "c": "bare"})
        swaps = {
            "a": Swap(envelope, MISSING, until(100)),
            "b": Swap(other, MISSING, until(100)),
            "c": Swap("bare", MISSING, until(100)),
            "d": Swap(ABSENT, "new", until(100)),
            "gone": Swap(envelope, MISSING, until(100)),
        }
        assert await swap_many(cache, swaps) == {"a": True, "b": False, "c": True, "d": True, "gone": False}
        assert await cache.get_many(swaps) == {"b": 1, "d": "new"}

    async def test_each_swap_has_an_expiry_of_its_own(self, cache: Driver) -> None:
        """Each swap gives its entry an expiry of its own."""
        envelope = Envelope(1, until(500))
        await cache.set("a", envelope)
        short = until(0.9 * self.moment)  # a server counts from when it hears of it
        swaps = {
            "a": Swap(envelope, 1, short),
            "b": Swap(ABSENT, 2, short),
            "c": Swap(ABSENT, 3, until(500)),
            "d": Swap(ABSENT, 4, timeouts.NEVER),
        }
        assert await swap_many(cache, swaps) == dict.fromkeys("abcd", True)
        assert await cache.get_many([*"abcd"]) == {"a": 1, "b": 2, "c": 3, "d": 4}
        assert 400 < await cache.ttl("c") <= 500
        assert await cache.ttl("d") is None
        await self.pass_time(self.moment)
        assert await cache.get_many([*"abcd"]) == {"c": 3, "d": 4}
        assert await swap_many(cache, {"a": Swap(ABSENT, "new", until(100))}) == {"a": True}, "it has expired"

    async def test_no_swaps_change_nothing(self, cache: Driver) -> None:
        """An empty batch of swaps succeeds and changes nothing."""
        assert await swap_many(cache, {}) == {}

    @needs("bounds")
    async def test_swaps_keep_to_the_bounds(self, drive: Callable[..., Driver]) -> None:
        """Swaps leave at most MAX_ENTRIES, as any other write does."""
        cache = drive(OPTIONS={"MAX_ENTRIES": 20})
        swaps = {f"k{number}": Swap(ABSENT, number, until(100)) for number in range(50)}
        await swap_many(cache, swaps)
        assert 0 < len(await cache.get_many(swaps)) <= 20

    async def test_of_many_who_want_the_same_each_entry_has_one_winner(self, cache: Driver) -> None:
        """Of eight threads that swap 50 keys at the same time, one wins each."""
        keys, expires_at = [f"k{number}" for number in range(50)], until(100)
        hooks = cache.cache._overlay or cache.cache

        def job(number: int) -> list[str]:
            own = keys[number:] + keys[:number]
            made = hooks._swap_many({cache.cache.make_key(key): Swap(ABSENT, number, expires_at) for key in own})
            return [key for key in own if made[cache.cache.make_key(key)]]

        won = in_threads(8, job)
        assert sorted(key for own in won for key in own) == sorted(keys)
        assert await cache.get_many(keys) == {key: number for number, own in enumerate(won) for key in own}
