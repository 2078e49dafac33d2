"""Handles: many of one storage agree, close() ends nothing, and a storage that forgets is still a cache."""

from collections.abc import Callable
from typing import Any

import pytest

from storeroom.exceptions import InvalidTimeoutError, KeyNotFoundError
from storeroom.testing.capabilities import needs
from storeroom.testing.contract.suite import Driver, Suite

__all__ = ["HandlesContract"]


class HandlesContract(Suite):
    """Behaviour of every cache, and of every handle of it."""

    async def test_an_empty_cache_has_nothing(self, cache: Driver) -> None:
        """In an empty cache reads find nothing, changes return False, and counting raises KeyNotFoundError."""
        assert await cache.get("k") is None
        assert await cache.get("k", "default") == "default"
        assert await cache.get_many(["k", "l"]) == {}
        assert await cache.has_key("k") is False
        assert "k" not in cache.cache
        assert await cache.ttl("k") == 0
        assert await cache.delete("k") is False
        assert await cache.delete_many(["k", "l"]) is None
        assert await cache.touch("k") is False
        assert await cache.expire_at("k", None) is False
        assert await cache.clear() is None
        with pytest.raises(KeyNotFoundError):
            await cache.incr("k")
        with pytest.raises(KeyNotFoundError):
            await cache.decr("k")
        with pytest.raises(KeyNotFoundError):
            await cache.incr_version("k")
        with pytest.raises(KeyNotFoundError):
            await cache.decr_version("k")

    async def test_writing_succeeds(self, cache: Driver) -> None:
        """Every write returns as if it had stored, also in a cache that stores nothing."""
        assert await cache.set("a", 1) is None
        assert await cache.add("b", 1) is True
        assert await cache.set_many({"c": 1}) == []
        assert await cache.get_or_set("d", lambda: [1]) == [1]

    @pytest.mark.parametrize(
        ("operation", "arguments"),
        [
            ("get", ["k"]),
            ("set", ["k", 1]),
            ("add", ["k", 1]),
            ("delete", ["k"]),
            ("touch", ["k"]),
            ("has_key", ["k"]),
            ("ttl", ["k"]),
            ("get_many", [["k"]]),
            ("set_many", [{"k": 1}]),
            ("delete_many", [["k"]]),
            ("get_or_set", ["k", 1]),
            ("clear", []),
            ("prune", []),
            ("stats", []),
            ("close", []),
        ],
    )
    async def test_any_operation_may_be_the_first(
        self, drive: Callable[..., Driver], operation: str, arguments: list[Any]
    ) -> None:
        """Any operation may be the first of a new storage, and makes it ready."""
        await getattr(drive(), operation)(*arguments)
        assert await drive().get("other", "absent") == "absent"

    @needs("enumerate")
    async def test_an_empty_cache_lists_nothing(self, cache: Driver) -> None:
        """keys() and count() of an empty cache are empty and 0."""
        assert await cache.keys() == []
        assert await cache.keys("k") == []
        assert await cache.count() == 0

    async def test_mistakes_are_told(self, cache: Driver) -> None:
        """A timeout or moment without meaning raises InvalidTimeoutError, also in a cache that stores nothing."""
        with pytest.raises(InvalidTimeoutError):
            await cache.set("k", 1, timeout="soon")
        with pytest.raises(InvalidTimeoutError):
            await cache.expire_at("k", "soon")

    @needs("store")
    async def test_handles_of_one_storage_agree(self, drive: Callable[..., Driver]) -> None:
        """A change by one handle is seen by every other handle of the storage."""
        first, second = drive(), drive()
        await first.set("k", 1)
        assert await second.get("k") == 1
        await second.incr("k")
        assert await first.get("k") == 2
        assert await drive().delete("k") is True
        assert await first.get("k", "absent") == "absent"
        await first.set("k", 3)
        await second.clear()
        assert await first.get("k", "absent") == "absent"

    @needs("store")
    async def test_handles_may_have_settings_of_their_own(self, drive: Callable[..., Driver]) -> None:
        """Handles with different TIMEOUTs share their entries, each written with its writer's."""
        patient, hasty = drive(TIMEOUT=None), drive(TIMEOUT=self.moment)
        await patient.set("a", 1)
        await hasty.set("b", 2)
        await self.pass_time(self.moment * 1.5)
        assert await hasty.get("a") == 1
        assert await patient.get("b", "absent") == "absent"

    @needs("store")
    async def test_close_ends_nothing(self, cache: Driver, drive: Callable[..., Driver]) -> None:
        """close() may be called after every request, with a signal's arguments, and the handle goes on."""
        await cache.set("k", 1)
        assert await cache.close() is None
        assert await cache.get("k") == 1
        await cache.close(signal="request_finished", sender=None)
        await cache.set("k", 2)
        assert await drive().get("k") == 2
