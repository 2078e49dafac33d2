"""refresh(): computing whatever is stored, beside callers that are served the old value meanwhile."""

from collections.abc import Callable
from typing import Any

import pytest

from storeroom.base import BaseCache
from storeroom.exceptions import ComputationCycleError
from storeroom.testing import concurrency
from storeroom.testing.capabilities import needs
from storeroom.testing.concurrency import Gate, in_background
from storeroom.testing.contract.suite import Driver, Suite, is_left

__all__ = ["RefreshingContract", "Unequal"]


class Unequal:
    """A value whose copies do not equal it."""

    def __init__(self, number: int) -> None:
        self.number = number


@needs("store")
class RefreshingContract(Suite):
    """refresh(), by one caller and beside others."""

    async def test_refresh_computes_whatever_is_stored(self, cache: Driver) -> None:
        """refresh() computes whether or not there is an entry, stores the value, None too, and returns it."""
        for value in ([1], [2], None, 3, "four"):
            assert await cache.refresh("k", lambda value=value: value, 100) == value
            assert await cache.get("k", "absent") == value
        assert await cache.ttl("k") == pytest.approx(100, rel=0.1)

    async def test_refresh_uses_timeout_version_and_tags(self, cache: Driver) -> None:
        """refresh() gives the entry the timeout, version and tags that get_or_set() would."""
        await cache.refresh("k", lambda: 1, lambda value: value * 100, version=2, tags=["t"])
        assert await cache.has_key("k") is False
        assert is_left(await cache.ttl("k", version=2), 100)
        await cache.refresh("k", lambda: 2, version=2, tags=["t"])
        assert await cache.get("k", version=2) == 2
        await cache.invalidate_tags("t")
        assert await cache.get("k", version=2) is None

    async def test_refresh_with_timeout_zero_removes(self, cache: Driver) -> None:
        """refresh() with a timeout of zero returns the value and removes the entry."""
        for tags in ([], ["t"]):
            await cache.set("k", 1, tags=tags)
            assert await cache.refresh("k", lambda: 2, timeout=0) == 2
            assert await cache.get("k", "absent") == "absent"

    async def test_refresh_that_fails_leaves_what_is_there(self, cache: Driver) -> None:
        """A refresh() that fails raises, and leaves the entry and its timeout, or the key free."""

        def fail() -> None:
            raise LookupError("no such page")

        for tags in ([], ["t"]):
            await cache.set("k", "old", timeout=100, tags=tags)
            with pytest.raises(LookupError, match="no such page"):
                await cache.refresh("k", fail)
            assert await cache.get("k") == "old"
            assert await cache.ttl("k") == pytest.approx(100, rel=0.1)
            assert await cache.refresh("k", lambda: "new") == "new"
        await cache.delete("k")
        with pytest.raises(LookupError):
            await cache.refresh("k", fail)
        assert await cache.has_key("k") is False
        assert await cache.add("k", "free") is True

    async def test_refresh_replaces_a_stale_value(self, cache: Driver) -> None:
        """refresh() replaces a stale value by one that may become stale in turn."""
        await cache.get_or_set("k", lambda: 1, timeout=self.moment, stale_if_error="1h")
        await self.pass_time(self.moment)
        assert await cache.refresh("k", lambda: 2, timeout=self.moment, stale_if_error="1h") == 2
        await self.pass_time(self.moment)

        def fail() -> None:
            raise LookupError

        assert await cache.get_or_set("k", fail, stale_if_error="1h") == 2

    async def test_refresh_within_the_computation_of_its_key_is_an_error(self, cache: Driver) -> None:
        """refresh() of a key within its own computation raises ComputationCycleError."""

        def compute() -> Any:
            return cache.cache.refresh("k", lambda: 1)

        with pytest.raises(ComputationCycleError):
            await cache.refresh("k", compute)
        with pytest.raises(ComputationCycleError):
            await cache.get_or_set("k", compute)

    @needs("objects")
    async def test_refresh_replaces_what_cannot_be_compared(self, cache: Driver) -> None:
        """refresh() replaces a value that does not equal its own copy."""
        await cache.set("k", Unequal(1))
        assert (await cache.refresh("k", lambda: Unequal(2))).number == 2
        assert (await cache.get("k")).number == 2

    # Beside others --------------------------------------------------------------------------

    @pytest.mark.parametrize("tags", [[], ["t"]], ids=["plain", "tagged"])
    def test_others_are_served_the_old_value_meanwhile(
        self, open_cache: Callable[..., BaseCache], tags: list[str]
    ) -> None:
        """During a refresh() every way of reading finds the old value."""
        cache, gate = open_cache(), Gate("new")
        cache.set("k", "old", timeout=100, tags=tags)
        refreshed = in_background(cache.refresh, "k", gate, tags=tags)
        assert gate.begun.wait(concurrency.PATIENCE)
        assert cache.get("k") == "old"
        assert cache.get_or_set("k", lambda: "other") == "old"
        assert cache.ttl("k") == pytest.approx(100, rel=0.1)
        assert cache.add("k", "other") is False
        gate.may_end.set()
        assert refreshed.result(concurrency.PATIENCE) == "new"
        assert cache.get("k") == "new"

    @pytest.mark.parametrize("before", ["old", None], ids=["there", "absent"])
    def test_what_is_deleted_meanwhile_is_not_put_back(
        self, open_cache: Callable[..., BaseCache], before: str | None
    ) -> None:
        """A delete during a refresh() keeps its result from being stored."""
        cache, gate = open_cache(), Gate("from before")
        if before:
            cache.set("k", before)
        refreshed = in_background(cache.refresh, "k", gate)
        assert gate.begun.wait(concurrency.PATIENCE)
        cache.delete("k")
        gate.may_end.set()
        assert refreshed.result(concurrency.PATIENCE) == "from before"
        assert cache.get("k", "absent") == "absent"

    def test_of_two_refreshes_the_later_one_counts(self, open_cache: Callable[..., BaseCache]) -> None:
        """Of two refreshes, the earlier one's result is not stored, and the later one's is."""
        cache, earlier, later = open_cache(), Gate("earlier"), Gate("later")
        cache.set("k", "old")
        one = in_background(cache.refresh, "k", earlier)
        assert earlier.begun.wait(concurrency.PATIENCE)
        other = in_background(cache.refresh, "k", later)
        assert later.begun.wait(concurrency.PATIENCE)
        earlier.may_end.set()
        assert one.result(concurrency.PATIENCE) == "earlier"
        assert cache.get("k", "absent") == "absent"
        later.may_end.set()
        assert other.result(concurrency.PATIENCE) == "later"
        assert cache.get("k") == "later"

    def test_what_is_set_meanwhile_stays(self, open_cache: Callable[..., BaseCache]) -> None:
        """A value that is set during a refresh() stays; the refresh returns its own."""
        cache, gate = open_cache(), Gate("from before")
        cache.set("k", "old")
        refreshed = in_background(cache.refresh, "k", gate)
        assert gate.begun.wait(concurrency.PATIENCE)
        cache.set("k", "newer")
        gate.may_end.set()
        assert refreshed.result(concurrency.PATIENCE) == "from before"
        assert cache.get("k") == "newer"

    def test_a_tag_invalidated_meanwhile_counts(self, open_cache: Callable[..., BaseCache]) -> None:
        """A value whose tag is invalidated during its refresh() is absent."""
        cache, gate = open_cache(), Gate("from before")
        cache.set("k", "old", tags=["t"])
        refreshed = in_background(cache.refresh, "k", gate, tags=["t"])
        assert gate.begun.wait(concurrency.PATIENCE)
        cache.invalidate_tags("t")
        gate.may_end.set()
        refreshed.result(concurrency.PATIENCE)
        assert cache.get("k", "absent") == "absent"

    def test_a_computation_that_began_before_is_not_stored(self, open_cache: Callable[..., BaseCache]) -> None:
        """A get_or_set() that began before a refresh() and ends after it stores nothing, and returns the new value."""
        cache, gate = open_cache(), Gate("from before")
        computed = in_background(cache.get_or_set, "k", gate)
        assert gate.begun.wait(concurrency.PATIENCE)
        assert cache.refresh("k", lambda: "new") == "new"
        gate.may_end.set()
        assert computed.result(concurrency.PATIENCE) == "new"
        assert cache.get("k") == "new"
