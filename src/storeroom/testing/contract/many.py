"""get_many(), set_many(), delete_many(): many entries in one call, told by the keys the caller typed."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from storeroom.base import BaseCache
from storeroom.testing.capabilities import needs
from storeroom.testing.contract.suite import Driver, Suite

__all__ = ["ManyContract"]


@needs("store")
class ManyContract(Suite):
    """Operations on several keys."""

    async def test_get_many_returns_what_is_there(self, cache: Driver) -> None:
        """get_many() returns the live keys and their values, a None among them; absent keys are left out."""
        await cache.set("a", 1)
        await cache.set("b", None)
        assert await cache.get_many(["a", "b", "c"]) == {"a": 1, "b": None}
        assert await cache.get_many(["c", "d"]) == {}

    async def test_results_have_the_keys_that_the_caller_typed(self, cache: Driver) -> None:
        """The keys of a result are the caller's own objects: an int stays an int."""
        await cache.set_many({1: "one", "two": 2, ("three", 3): 3})
        assert await cache.get_many([1, "two", ("three", 3), 4]) == {1: "one", "two": 2, ("three", 3): 3}
        assert list(await cache.get_many([1])) == [1]
        assert list(await cache.get_many(["1"])) == ["1"]

    async def test_keys_may_come_twice(self, cache: Driver) -> None:
        """A key that is given twice is read and deleted once."""
        await cache.set_many({"a": 1, "b": 2})
        assert await cache.get_many(["a", "b", "a", "a"]) == {"a": 1, "b": 2}
        assert await cache.delete_many(["a", "a"]) is None
        assert await cache.get_many(["a", "b", "b"]) == {"b": 2}

    async def test_keys_may_come_from_any_iterable(self, cache: Driver) -> None:
        """Keys may come from a generator, a dict or a set."""
        await cache.set_many({"a": 1, "b": 2, "c": 3})
        assert await cache.get_many(key for key in "abx") == {"a": 1, "b": 2}
        assert await cache.get_many({"a": "ignored"}) == {"a": 1}
        assert await cache.get_many({"c"}) == {"c": 3}
        await cache.delete_many(key for key in "ab")
        assert await cache.get_many([*"abc"]) == {"c": 3}

    async def test_nothing_may_be_asked_for(self, cache: Driver) -> None:
        """Operations on many keys accept none."""
        assert await cache.get_many([]) == {}
        assert await cache.set_many({}) == []
        assert await cache.delete_many([]) is None

    async def test_set_many_stores_and_returns_the_keys_that_failed(self, cache: Driver) -> None:
        """set_many() stores all entries, and returns no key where none failed."""
        await cache.set("a", "old")
        assert await cache.set_many({"a": 1, "b": [2], 3: {"c": None}}) == []
        assert await cache.get_many(["a", "b", 3]) == {"a": 1, "b": [2], 3: {"c": None}}

    async def test_delete_many_removes_what_is_there(self, cache: Driver) -> None:
        """delete_many() removes the entries that are there, and passes over absent keys."""
        await cache.set_many({"a": 1, "b": 2, 3: 3, "d": 4})
        assert await cache.delete_many(["a", 3, "absent"]) is None
        assert await cache.get_many(["a", "b", 3, "d"]) == {"b": 2, "d": 4}

    async def test_many_may_be_very_many(self, drive: Callable[..., Driver]) -> None:
        """Thousands of keys are written, read and deleted in one call."""
        params = {} if "bounds" in self.lacks else {"OPTIONS": {"MAX_ENTRIES": 10_000}}
        cache = drive(**params)
        values = {f"key {number}": number for number in range(2000)}
        assert await cache.set_many(values) == []
        assert await cache.get_many(values) == values
        await cache.delete_many(list(values)[1:])
        assert await cache.get_many(values) == {"key 0": 0}

    @needs("enumerate")
    def test_tasks_go_on_while_all_entries_are_looked_at(self, open_cache: Callable[..., BaseCache]) -> None:
        """akeys(), acount() and aclear() of many entries do not keep an event loop from its other tasks."""
        params = {} if "bounds" in self.lacks else {"OPTIONS": {"MAX_ENTRIES": 10_000}}
        cache = open_cache(**params)
        cache.set_many({f"key {number}": number for number in range(1500)})

        async def main() -> None:
            counted, *turns = await _with_another_task(cache.acount())
            for work in (cache.akeys, cache.aclear):
                turns.append((await _with_another_task(work()))[1])
            assert counted == 1500
            assert all(turns), turns
            assert await cache.acount() == 0

        asyncio.run(main())


async def _with_another_task(work: Coroutine[Any, Any, Any]) -> tuple[Any, int]:
    """Return the result of some work, and how many turns another task had meanwhile."""
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.create_task(take_turns())
    result = await work
    other.cancel()
    return result, turns
