"""get_or_set(), by one caller: computing, storing and returning. Many callers are in `stampede`."""

import asyncio
from typing import Any

import pytest

from storeroom.exceptions import ComputationCycleError
from storeroom.testing.capabilities import needs
from storeroom.testing.contract.suite import Driver, Suite, is_left

__all__ = ["ComputingContract"]


class Computation:
    """A function that counts its calls."""

    def __init__(self, *results: Any) -> None:
        """Return or raise these, one a call; the last one again and again."""
        self._results = list(results)
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        result = self._results.pop(0) if len(self._results) > 1 else self._results[0]
        if isinstance(result, Exception):
            raise result
        return result


@needs("store")
class ComputingContract(Suite):
    """Get, or compute and store."""

    async def test_get_or_set_returns_what_is_stored(self, cache: Driver) -> None:
        """A stored value is returned without computing, also if it is None or false."""
        compute = Computation("computed")
        for value in ("stored", 0, "", None, False):
            await cache.set("k", value)
            assert await cache.get_or_set("k", compute) == value
        assert compute.calls == 0

    async def test_get_or_set_computes_stores_and_returns(self, cache: Driver) -> None:
        """The value of an absent key is computed once, stored and returned."""
        compute = Computation({"a": [1]})
        assert await cache.get_or_set("k", compute) == {"a": [1]}
        assert await cache.get("k") == {"a": [1]}
        assert await cache.get_or_set("k", compute) == {"a": [1]}
        assert compute.calls == 1

    async def test_get_or_set_takes_a_value(self, cache: Driver) -> None:
        """A plain value may be given in the function's stead; None is one."""
        assert await cache.get_or_set("k", [1]) == [1]
        assert await cache.get_or_set("k", [2]) == [1]
        assert await cache.get_or_set("l", None) is None
        assert await cache.has_key("l") is True

    async def test_get_or_set_caches_a_computed_none(self, cache: Driver) -> None:
        """A computed None is stored like any other value."""
        compute = Computation(None)
        assert await cache.get_or_set("k", compute) is None
        assert await cache.get_or_set("k", compute) is None
        assert compute.calls == 1

    async def test_get_or_set_uses_timeout_and_version(self, cache: Driver) -> None:
        """The entry has the timeout and the version that were given."""
        await cache.get_or_set("k", 1, timeout=100, version=2)
        assert await cache.has_key("k") is False
        assert is_left(await cache.ttl("k", version=2), 100)

    async def test_get_or_set_with_timeout_zero_computes_each_time(self, cache: Driver) -> None:
        """With a timeout of zero nothing is stored, and every call computes."""
        compute = Computation("first", "second")
        assert await cache.get_or_set("k", compute, timeout=0) == "first"
        assert await cache.get_or_set("k", compute, timeout=0) == "second"
        assert await cache.has_key("k") is False

    async def test_get_or_set_raises_what_the_computation_raises(self, cache: Driver) -> None:
        """An error of the computation is raised, nothing is stored, and the next call computes again."""
        compute = Computation(LookupError("no such page"), "found")
        with pytest.raises(LookupError, match="no such page"):
            await cache.get_or_set("k", compute)
        assert await cache.has_key("k") is False
        assert await cache.get_or_set("k", compute) == "found"
        assert compute.calls == 2

    async def test_get_or_set_returns_what_is_stored_meanwhile(self, cache: Driver) -> None:
        """A value that is stored during the computation stays, and is returned in place of the computed one."""

        def compute() -> str:
            cache.cache.set("k", "theirs")
            return "ours"

        assert await cache.get_or_set("k", compute) == "theirs"
        assert await cache.get("k") == "theirs"

    async def test_a_computation_may_use_other_keys(self, cache: Driver) -> None:
        """A computation may itself call get_or_set() with another key."""

        def outer() -> Any:
            return ["outer", cache.cache.get_or_set("inner", lambda: ["inner"])]

        assert await cache.get_or_set("outer", outer) == ["outer", ["inner"]]
        assert await cache.get("inner") == ["inner"]

    async def test_a_computation_may_not_ask_for_its_own_key(self, cache: Driver) -> None:
        """get_or_set() of a key within its own computation raises an error, and leaves the key free."""
        with pytest.raises(ComputationCycleError):
            await cache.get_or_set("k", lambda: cache.cache.get_or_set("k", 1))
        assert await cache.get_or_set("k", 2) == 2

    def test_get_or_set_refuses_a_coroutine_function(self, open_cache: Any) -> None:
        """get_or_set() with a coroutine function raises TypeError, which names aget_or_set(), and stores nothing."""

        async def compute() -> str:
            return "never awaited"

        cache = open_cache()
        with pytest.raises(TypeError, match="aget_or_set"):
            cache.get_or_set("k", compute)
        assert "k" not in cache

    def test_aget_or_set_awaits_what_can_be_awaited(self, open_cache: Any) -> None:
        """aget_or_set() takes a coroutine function, a function that returns a task, a plain one, or a value."""
        cache = open_cache()

        async def compute() -> str:
            await asyncio.sleep(0)
            return "awaited"

        async def main() -> None:
            assert await cache.aget_or_set("coroutine", compute) == "awaited"
            assert await cache.aget_or_set("task", lambda: asyncio.create_task(compute())) == "awaited"
            assert await cache.aget_or_set("function", lambda: "plain") == "plain"
            assert await cache.aget_or_set("value", "plain") == "plain"

        asyncio.run(main())
        assert cache.get_many(["coroutine", "task", "function", "value"]) == {
            "coroutine": "awaited",
            "task": "awaited",
            "function": "plain",
            "value": "plain",
        }

    def test_aget_or_set_raises_what_a_coroutine_raises(self, open_cache: Any) -> None:
        """An error of a coroutine is raised by aget_or_set(), and nothing is stored."""
        cache = open_cache()

        async def compute() -> str:
            await asyncio.sleep(0)
            raise LookupError("no such page")

        with pytest.raises(LookupError, match="no such page"):
            asyncio.run(cache.aget_or_set("k", compute))
        assert "k" not in cache
