"""incr() and decr(): numbers change in place, and nothing else about their entry does."""

from typing import Any

import pytest

from storeroom.exceptions import KeyNotFoundError, ValueTypeError
from storeroom.testing.capabilities import needs
from storeroom.testing.contract.suite import Driver, Suite, is_left

__all__ = ["CountingContract"]


@needs("store")
class CountingContract(Suite):
    """Counters, by one caller at a time."""

    async def test_incr_adds_and_returns_the_new_number(self, cache: Driver) -> None:
        """By one, or by what is asked for."""
        await cache.set("n", 41)
        assert await cache.incr("n") == 42
        assert await cache.get("n") == 42
        assert await cache.incr("n", 10) == 52
        assert await cache.incr("n", 0) == 52
        assert await cache.incr("n", -60) == -8
        assert await cache.get("n") == -8

    async def test_decr_subtracts_and_returns_the_new_number(self, cache: Driver) -> None:
        """Below zero too."""
        await cache.set("n", 1)
        assert await cache.decr("n") == 0
        assert await cache.decr("n") == -1
        assert await cache.decr("n", 9) == -10
        assert await cache.decr("n", -12) == 2
        assert await cache.get("n") == 2

    @pytest.mark.parametrize("start", [2**31 - 1, 2**53, 2**63 - 1, 2**64 - 1, 10**30, -(2**63)])
    async def test_numbers_have_no_bound(self, cache: Driver, start: int) -> None:
        """No width of the engine's integers shows."""
        await cache.set("n", start)
        assert await cache.incr("n") == start + 1
        assert await cache.decr("n", 2) == start - 1
        assert await cache.get("n") == start - 1
        assert await cache.incr("n", 10**20) == start - 1 + 10**20

    async def test_an_int_stays_an_int(self, cache: Driver) -> None:
        """The type of the result is that of Python's own addition."""
        await cache.set("n", 1)
        assert type(await cache.incr("n")) is int
        assert type(await cache.get("n")) is int
        await cache.set("x", 1.5)
        assert await cache.incr("x") == 2.5
        assert await cache.decr("x", 0.25) == 2.25
        assert type(await cache.get("x")) is float

    async def test_a_counter_can_be_made_by_any_write(self, cache: Driver) -> None:
        """add(), set_many() and get_or_set() store numbers as set() does."""
        await cache.add("add", 1)
        await cache.set_many({"set_many": 1})
        await cache.get_or_set("get_or_set", lambda: 1)
        for key in ("add", "set_many", "get_or_set"):
            assert await cache.incr(key) == 2
            assert await cache.get_many([key]) == {key: 2}

    async def test_incr_keeps_the_timeout(self, cache: Driver) -> None:
        """Counting is no reason to live longer; without a timeout there stays none."""
        await cache.set("n", 1, timeout=100)
        await cache.set("m", 1, timeout=None)
        await cache.set("short", 1, timeout=self.moment)
        await cache.incr("short")
        await self.pass_time(self.moment * 1.1)
        await cache.incr("n")
        await cache.decr("m")
        assert is_left(await cache.ttl("n"), 100, self.moment * 1.1)
        assert await cache.ttl("m") is None
        assert await cache.get_many(["n", "m", "short"]) == {"n": 2, "m": 0}

    async def test_counting_what_is_not_there_is_an_error(self, cache: Driver) -> None:
        """A ValueError, as in Django, and nothing is created."""
        with pytest.raises(KeyNotFoundError):
            await cache.incr("n")
        with pytest.raises(ValueError, match="n"):
            await cache.decr("n")
        assert await cache.has_key("n") is False

    @pytest.mark.parametrize("value", ["5", None, [5], b"5", {"n": 5}], ids=repr)
    async def test_counting_what_is_no_number_is_an_error(self, cache: Driver, value: Any) -> None:
        """A TypeError; the value stays as it is."""
        await cache.set("k", value)
        with pytest.raises(ValueTypeError):
            await cache.incr("k")
        with pytest.raises(TypeError):
            await cache.decr("k")
        assert await cache.get("k", "absent") == value

    # Counters that come into being -----------------------------------------------------------

    async def test_incr_with_a_default_creates_the_number(self, cache: Driver) -> None:
        """What is absent counts as the default; what is there is counted as ever."""
        assert await cache.incr("n", default=0) == 1
        assert await cache.incr("n", default=100) == 2
        assert await cache.incr("m", 5, default=10) == 15
        assert await cache.decr("d", default=10) == 9
        assert await cache.decr("d", 2, default=10) == 7
        assert await cache.incr("x", 0.5, default=1.0) == 1.5
        assert await cache.get_many(["n", "m", "d", "x"]) == {"n": 2, "m": 15, "d": 7, "x": 1.5}
        assert await cache.incr("n", default=0, version=2) == 1

    async def test_a_number_that_is_created_has_the_timeout(self, cache: Driver) -> None:
        """One that exists keeps its own: a window that began is not prolonged."""
        assert await cache.incr("n", default=0, timeout=100) == 1
        assert await cache.incr("m", default=0, timeout=None) == 1
        assert await cache.ttl("m") is None
        assert await cache.incr("short", default=0, timeout=self.moment) == 1
        assert await cache.incr("short", default=0, timeout=1000) == 2
        await self.pass_time(self.moment * 1.1)
        assert await cache.incr("n", default=0, timeout=1000) == 2
        assert is_left(await cache.ttl("n"), 100, self.moment * 1.1)
        assert await cache.incr("short", default=0, timeout=1000) == 1

    async def test_a_number_that_would_expire_at_once_is_not_created(self, cache: Driver) -> None:
        """The result is as if; what exists is counted."""
        assert await cache.incr("n", default=5, timeout=0) == 6
        assert await cache.has_key("n") is False
        await cache.set("n", 1)
        assert await cache.incr("n", default=5, timeout=0) == 2
        assert await cache.get("n") == 2

    async def test_a_default_does_not_replace_what_is_no_number(self, cache: Driver) -> None:
        """It stays an error."""
        await cache.set("k", "text")
        with pytest.raises(ValueTypeError):
            await cache.incr("k", default=0)
        assert await cache.get("k") == "text"
        with pytest.raises(TypeError, match="expected the number"):
            await cache.incr("n", default="0")

    async def test_a_number_whose_tag_was_invalidated_is_created_anew(self, cache: Driver) -> None:
        """It counts as absent, like any such entry."""
        await cache.set("n", 41, tags=["a"])
        with pytest.raises(ValueTypeError):
            await cache.incr("n", default=0)
        await cache.invalidate_tags("a")
        assert await cache.incr("n", default=0, timeout=100) == 1
        assert await cache.incr("n", default=0) == 2
