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
        """incr() adds one, or the delta given, and returns the new number."""
        await cache.set("n", 41)
        assert await cache.incr("n") == 42
        assert await cache.get("n") == 42
        assert await cache.incr("n", 10) == 52
        assert await cache.incr("n", 0) == 52
        assert await cache.incr("n", -60) == -8
        assert await cache.get("n") == -8

    async def test_decr_subtracts_and_returns_the_new_number(self, cache: Driver) -> None:
        """decr() subtracts one, or the delta given, also below zero, and returns the new number."""
        await cache.set("n", 1)
        assert await cache.decr("n") == 0
        assert await cache.decr("n") == -1
        assert await cache.decr("n", 9) == -10
        assert await cache.decr("n", -12) == 2
        assert await cache.get("n") == 2

    @pytest.mark.parametrize("start", [2**31 - 1, 2**53, 2**63 - 1, 2**64 - 1, 10**30, -(2**63)])
    async def test_numbers_have_no_bound(self, cache: Driver, start: int) -> None:
        """Numbers beyond 32, 53 and 64 bits are counted exactly."""
        await cache.set("n", start)
        assert await cache.incr("n") == start + 1
        assert await cache.decr("n", 2) == start - 1
        assert await cache.get("n") == start - 1
        assert await cache.incr("n", 10**20) == start - 1 + 10**20

    async def test_an_int_stays_an_int(self, cache: Driver) -> None:
        """Counting keeps ints ints and floats floats, as Python's addition does."""
        await cache.set("n", 1)
        assert type(await cache.incr("n")) is int
        assert type(await cache.get("n")) is int
        await cache.set("x", 1.5)
        assert await cache.incr("x") == 2.5
        assert await cache.decr("x", 0.25) == 2.25
        assert type(await cache.get("x")) is float

    async def test_a_counter_can_be_made_by_any_write(self, cache: Driver) -> None:
        """Numbers written by add(), set_many() and get_or_set() can be counted."""
        await cache.add("add", 1)
        await cache.set_many({"set_many": 1})
        await cache.get_or_set("get_or_set", lambda: 1)
        for key in ("add", "set_many", "get_or_set"):
            assert await cache.incr(key) == 2
            assert await cache.get_many([key]) == {key: 2}

    async def test_incr_keeps_the_timeout(self, cache: Driver) -> None:
        """Counting leaves the expiry of an entry as it is, also where there is none."""
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
        """Counting an absent key raises a ValueError, as in Django, and creates nothing."""
        with pytest.raises(KeyNotFoundError):
            await cache.incr("n")
        with pytest.raises(ValueError, match="n"):
            await cache.decr("n")
        assert await cache.has_key("n") is False

    @pytest.mark.parametrize("value", ["5", None, [5], b"5", {"n": 5}], ids=repr)
    async def test_counting_what_is_no_number_is_an_error(self, cache: Driver, value: Any) -> None:
        """Counting a value that is no number raises a TypeError and leaves the value."""
        await cache.set("k", value)
        with pytest.raises(ValueTypeError):
            await cache.incr("k")
        with pytest.raises(TypeError):
            await cache.decr("k")
        assert await cache.get("k", "absent") == value

    # Counters that come into being -----------------------------------------------------------

    async def test_incr_with_a_default_creates_the_number(self, cache: Driver) -> None:
        """With a default, an absent key counts from there; a number that exists is counted as it is."""
        assert await cache.incr("n", default=0) == 1
        assert await cache.incr("n", default=100) == 2
        assert await cache.incr("m", 5, default=10) == 15
        assert await cache.decr("d", default=10) == 9
        assert await cache.decr("d", 2, default=10) == 7
        assert await cache.incr("x", 0.5, default=1.0) == 1.5
        assert await cache.get_many(["n", "m", "d", "x"]) == {"n": 2, "m": 15, "d": 7, "x": 1.5}
        assert await cache.incr("n", default=0, version=2) == 1

    async def test_a_number_that_is_created_has_the_timeout(self, cache: Driver) -> None:
        """A timeout is that of a number that is created; one that exists keeps its own."""
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
        """With a timeout of zero the result is returned, but no number is created; one that exists is counted."""
        assert await cache.incr("n", default=5, timeout=0) == 6
        assert await cache.has_key("n") is False
        await cache.set("n", 1)
        assert await cache.incr("n", default=5, timeout=0) == 2
        assert await cache.get("n") == 2

    async def test_a_default_does_not_replace_what_is_no_number(self, cache: Driver) -> None:
        """A default leaves a value that is no number, which raises; a default that is no number raises TypeError."""
        await cache.set("k", "text")
        with pytest.raises(ValueTypeError):
            await cache.incr("k", default=0)
        assert await cache.get("k") == "text"
        with pytest.raises(TypeError, match="expected the number"):
            await cache.incr("n", default="0")

    async def test_a_number_whose_tag_was_invalidated_is_created_anew(self, cache: Driver) -> None:
        """A number whose tag was invalidated counts as absent, and is created from the default."""
        await cache.set("n", 41, tags=["a"])
        with pytest.raises(ValueTypeError):
            await cache.incr("n", default=0)
        await cache.invalidate_tags("a")
        assert await cache.incr("n", default=0, timeout=100) == 1
        assert await cache.incr("n", default=0) == 2
