"""Stale values: the calls that are served one, the computation meanwhile, and the view of all other operations."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from storeroom.base import BaseCache
from storeroom.engines import background
from storeroom.exceptions import ComputationTimeoutError, KeyNotFoundError
from storeroom.testing import concurrency
from storeroom.testing.capabilities import needs
from storeroom.testing.concurrency import Gate, aeventually, eventually, in_background
from storeroom.testing.contract.suite import Driver, Suite, is_left

__all__ = ["FreshnessContract"]


class Source:
    """A function that returns 1, 2, 3, …, or raises its `error`."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: Exception | None = None

    def __call__(self) -> int:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return self.calls


@needs("store")
class FreshnessContract(Suite):
    """The options of get_or_set()."""

    async def settle(self, cache: Driver) -> None:
        """Wait until nothing is computed in the background any more."""
        if cache.is_async:
            await aeventually(lambda: not cache.cache.engine.flights.has_any)
        assert background.drain(concurrency.PATIENCE)

    async def test_a_stale_value_is_served_while_one_is_computed(self, cache: Driver) -> None:
        """With stale_while_revalidate, the first call after the timeout returns the old value and refreshes it."""
        source = Source()
        options: dict[str, Any] = {"timeout": self.moment, "stale_while_revalidate": "1h"}
        assert await cache.get_or_set("k", source, **options) == 1
        assert await cache.get_or_set("k", source, **options) == 1
        await self.pass_time(self.moment)
        assert await cache.get_or_set("k", source, **options) == 1
        await self.settle(cache)
        assert source.calls == 2
        assert await cache.get_or_set("k", source, **options) == 2
        assert source.calls == 2

    async def test_a_stale_entry_is_absent_to_everybody_else(self, cache: Driver) -> None:
        """An entry that is stale is absent to every operation that does not ask for stale values."""
        await cache.get_or_set("k", lambda: 1, timeout=self.moment, stale_if_error="1h")
        assert await cache.get("k") == 1
        assert is_left(await cache.ttl("k"), self.moment)
        await self.pass_time(self.moment)
        assert await cache.get("k", "absent") == "absent"
        assert await cache.get_many(["k"]) == {}
        assert await cache.has_key("k") is False
        assert await cache.ttl("k") == 0
        assert await cache.touch("k", 100) is False
        with pytest.raises(KeyNotFoundError):
            await cache.incr("k")
        with pytest.raises(KeyNotFoundError):
            await cache.incr_version("k")
        if "enumerate" not in self.lacks:
            assert await cache.keys() == []
            assert await cache.count() == 0
        assert await cache.add("k", 2, timeout=100) is True
        assert await cache.get("k") == 2

    async def test_a_stale_value_is_no_value_to_a_plain_call(self, cache: Driver) -> None:
        """get_or_set() without the option computes where another call would be served a stale value."""
        source = Source()
        await cache.get_or_set("k", source, timeout=self.moment, stale_while_revalidate="1h")
        await self.pass_time(self.moment)
        assert await cache.get_or_set("k", source, timeout=100) == 2

    async def test_touch_gives_a_value_with_conditions_a_new_timeout(self, cache: Driver) -> None:
        """touch() keeps a value that may become stale fresh for the new timeout."""
        await cache.get_or_set("k", lambda: 1, timeout=self.moment, stale_if_error="1h")
        assert await cache.touch("k", 1000) is True
        assert await cache.ttl("k") == pytest.approx(1000, rel=0.1)
        await self.pass_time(self.moment)
        assert await cache.get("k") == 1

    async def test_add_and_incr_version_respect_a_value_with_conditions(self, cache: Driver) -> None:
        """A fresh value that may become stale is an entry to add(), incr_version() and delete()."""
        await cache.get_or_set("k", lambda: 1, timeout=100, stale_if_error="1h")
        assert await cache.add("k", 2) is False
        assert await cache.incr_version("k") == 2
        assert await cache.get("k", version=2) == 1
        assert await cache.get("k", "absent") == "absent"
        assert await cache.delete("k", version=2) is True

    async def test_a_stale_value_is_served_if_the_computation_fails(self, cache: Driver) -> None:
        """With stale_if_error, a failing computation serves the old value, and is not tried again for retry_pause."""
        source = Source()
        options: dict[str, Any] = {"timeout": self.moment, "stale_if_error": "1h", "retry_pause": "1m"}
        assert await cache.get_or_set("k", source, **options) == 1
        await self.pass_time(self.moment)
        source.error = LookupError("the source is down")
        assert await cache.get_or_set("k", source, **options) == 1
        assert source.calls == 2
        assert await cache.get_or_set("k", source, **options) == 1
        assert source.calls == 2, "it is left alone for a minute"
        with pytest.raises(LookupError, match="the source is down"):
            await cache.get_or_set("k", source, timeout=self.moment)
        source.error = None
        assert await cache.get_or_set("k", source, timeout=100) == 4

    async def test_an_error_is_raised_if_there_is_no_stale_value(self, cache: Driver) -> None:
        """Without a stale value, the error of the computation is raised and nothing is stored."""
        source = Source()
        source.error = LookupError("the source is down")
        with pytest.raises(LookupError):
            await cache.get_or_set("k", source, stale_if_error="1h", stale_while_revalidate="1h")
        assert await cache.has_key("k") is False

    async def test_an_error_is_kept_if_that_is_asked_for(self, cache: Driver) -> None:
        """With error_timeout an error is raised again without computing, to calls that ask for it alone."""
        source = Source()
        source.error = LookupError("the source is down")
        for _ in range(3):
            with pytest.raises(LookupError, match="the source is down"):
                await cache.get_or_set("k", source, error_timeout="1h")
        assert source.calls == 1
        with pytest.raises(LookupError):
            await cache.get_or_set("k", source)
        assert source.calls == 2, "a call that does not ask for it is not given it"
        source.error = None
        assert await cache.refresh("k", source, timeout=100) == 3
        assert await cache.delete("k")
        assert await cache.get_or_set("k", source, timeout=100, error_timeout="1h") == 4

    async def test_an_error_that_is_raised_again_does_not_grow(self, cache: Driver) -> None:
        """Each caller gets the error with its own traceback alone, and with what it was caused by."""
        source, lengths = Source(), list[int]()
        source.error = OSError(28, "the disk is full")
        for _ in range(5):
            with pytest.raises(OSError, match="the disk is full") as raised:
                await cache.get_or_set("k", source, error_timeout="1h")
            lengths.append(len(raised.traceback))
            assert raised.value.errno == 28
        assert len(set(lengths[1:])) == 1

    async def test_an_error_that_is_kept_is_forgotten_in_time(self, cache: Driver) -> None:
        """After error_timeout the computation is tried again."""
        source = Source()
        source.error = LookupError("the source is down")
        with pytest.raises(LookupError):
            await cache.get_or_set("k", source, error_timeout=self.moment)
        await self.pass_time(self.moment)
        source.error = None
        assert await cache.get_or_set("k", source, timeout=100, error_timeout=self.moment) == 2

    async def test_a_failing_refresh_leaves_the_stale_value(self, cache: Driver) -> None:
        """A refresh in the background that fails leaves the stale value, however often it fails."""
        source = Source()
        options: dict[str, Any] = {"timeout": self.moment, "stale_while_revalidate": "1h", "retry_pause": 0}
        assert await cache.get_or_set("k", source, **options) == 1
        await self.pass_time(self.moment)
        source.error = LookupError("the source is down")
        for _ in range(3):
            assert await cache.get_or_set("k", source, **options) == 1
            await self.settle(cache)
        assert source.calls == 4
        source.error = None
        assert await cache.get_or_set("k", source, **options) == 1
        await self.settle(cache)
        assert await cache.get_or_set("k", source, **options) == 5

    async def test_the_timeout_may_depend_on_the_value(self, cache: Driver) -> None:
        """The timeout may be a function of the value; zero stores nothing."""
        assert await cache.get_or_set("k", lambda: 100, timeout=lambda value: value * 2) == 100
        assert await cache.ttl("k") == pytest.approx(200, rel=0.1)
        assert await cache.get_or_set("zero", lambda: 0, timeout=lambda value: value) == 0
        assert await cache.has_key("zero") is False

    async def test_jitter_shortens_the_timeout_at_random(self, cache: Driver) -> None:
        """Jitter shortens each timeout at random, by up to its share."""
        left = []
        for number in range(20):
            await cache.get_or_set(f"k{number}", lambda: 1, timeout=1000, jitter=0.5)
            left.append(await cache.ttl(f"k{number}"))
        assert all(450 < seconds <= 1000 for seconds in left)
        assert max(left) - min(left) > 10

    async def test_early_refreshes_a_fresh_value(self, cache: Driver) -> None:
        """Early expiration of a very eager factor refreshes a fresh value at its first hit."""
        source = Source()
        assert await cache.get_or_set("k", source, timeout=1000, early=1e18) == 1
        assert await cache.get_or_set("k", source, timeout=1000, early=1e18) == 1
        await self.settle(cache)
        assert source.calls == 2
        assert await cache.get("k") == 2

    async def test_an_option_that_does_not_exist_is_refused(self, cache: Driver) -> None:
        """An unknown option raises TypeError at a hit, too; a meaningless value raises ValueError at a miss."""
        await cache.set("there", 1)
        for key in ("k", "there"):
            with pytest.raises(TypeError, match="stale_while_revalidating"):
                await cache.get_or_set(key, lambda: 1, stale_while_revalidating=1)
        with pytest.raises(TypeError, match="its options are stale_while_revalidate"):
            await cache.refresh("k", lambda: 1, stale_while_revalidating=1)
        with pytest.raises(ValueError, match="jitter is 2"):
            await cache.get_or_set("k", lambda: 1, jitter=2)

    async def test_options_of_the_alias_are_those_of_every_call(self, drive: Callable[..., Driver]) -> None:
        """Options of the alias hold for every call that does not give its own."""
        cache, source = drive(OPTIONS={"stale_while_revalidate": "1h"}), Source()
        assert await cache.get_or_set("k", source, timeout=self.moment) == 1
        await self.pass_time(self.moment)
        assert await cache.get_or_set("k", source, timeout=self.moment) == 1
        await self.settle(cache)
        assert await cache.get_or_set("k", source, timeout=100, stale_while_revalidate=0) == 2

    # Several callers ------------------------------------------------------------------------

    def test_one_refreshes_however_many_are_served(self, open_cache: Callable[..., BaseCache]) -> None:
        """Twenty callers are served the old value at once, and one refresh is made."""
        cache = open_cache()
        options: dict[str, Any] = {"timeout": 1000, "early": 1e18}
        cache.get_or_set("k", lambda: "old", **options)
        gate = Gate("new")
        for _ in range(20):
            assert cache.get_or_set("k", gate, **options) == "old"
        assert gate.begun.wait(concurrency.PATIENCE)
        gate.may_end.set()
        assert background.drain(concurrency.PATIENCE)
        assert gate.calls == 1
        assert cache.get("k") == "new"

    def test_a_hard_timeout_ends_the_wait_and_not_the_computation(self, open_cache: Callable[..., BaseCache]) -> None:
        """hard_timeout raises ComputationTimeoutError; the computation goes on, and its late result is stored."""
        cache, gate = open_cache(), Gate("late")
        with pytest.raises(ComputationTimeoutError):
            cache.get_or_set("k", gate, hard_timeout=0.01)
        gate.may_end.set()
        assert background.drain(concurrency.PATIENCE)
        assert cache.get("k") == "late"
        assert gate.calls == 1

    def test_a_hard_timeout_ends_the_wait_of_a_task(self, open_cache: Callable[..., BaseCache]) -> None:
        """hard_timeout ends the wait of a task; the coroutine goes on, and its late result is stored."""
        cache = open_cache()

        async def main() -> None:
            may_end = asyncio.Event()

            async def compute() -> str:
                await may_end.wait()
                return "late"

            with pytest.raises(ComputationTimeoutError):
                await cache.aget_or_set("k", compute, hard_timeout=0.01)
            may_end.set()
            await aeventually(lambda: cache.get("k") == "late")

        asyncio.run(main())

    def test_a_computation_in_time_is_returned(self, open_cache: Callable[..., BaseCache]) -> None:
        """A computation within hard_timeout returns its value, or raises its own error, a TimeoutError too."""
        cache = open_cache()
        assert cache.get_or_set("k", lambda: "in time", hard_timeout=concurrency.PATIENCE) == "in time"

        def compute() -> None:
            raise TimeoutError("the source's own")

        with pytest.raises(TimeoutError, match="the source's own"):
            cache.get_or_set("l", compute, hard_timeout=concurrency.PATIENCE)

    def test_what_is_deleted_while_it_is_refreshed_stays_deleted(self, open_cache: Callable[..., BaseCache]) -> None:
        """An entry that is deleted during its refresh stays absent: the late result is not stored."""
        cache, gate = open_cache(), Gate("new")
        options: dict[str, Any] = {"timeout": 1000, "early": 1e18}
        cache.get_or_set("k", lambda: "old", **options)
        assert cache.get_or_set("k", gate, **options) == "old"
        assert gate.begun.wait(concurrency.PATIENCE)
        assert cache.get("k") == "old", "fresh as ever"
        assert cache.delete("k") is True
        gate.may_end.set()
        assert background.drain(concurrency.PATIENCE)
        assert cache.get("k", "absent") == "absent"

    def test_what_is_deleted_while_it_is_computed_stays_deleted(self, open_cache: Callable[..., BaseCache]) -> None:
        """A key that is deleted during its computation stays absent; the caller gets the result."""
        cache, gate = open_cache(), Gate("old")
        leader = in_background(cache.get_or_set, "k", gate)
        assert gate.begun.wait(concurrency.PATIENCE)
        cache.delete("k")
        gate.may_end.set()
        assert leader.result(concurrency.PATIENCE) == "old"
        assert cache.get("k", "absent") == "absent"

    def test_who_asks_after_the_delete_gets_what_is_computed_after_it(
        self, open_cache: Callable[..., BaseCache]
    ) -> None:
        """A follower that asked after a delete computes anew, although a computation from before is under way."""
        cache, gate = open_cache(), Gate("old")
        leader = in_background(cache.get_or_set, "k", gate)
        assert gate.begun.wait(concurrency.PATIENCE)
        cache.delete("k")
        later = in_background(cache.get_or_set, "k", lambda: "new")
        eventually(lambda: cache.engine.flights.followers(cache.make_key("k")) == 1)
        gate.may_end.set()
        leader.result(concurrency.PATIENCE)
        assert later.result(concurrency.PATIENCE) == "new"

    def test_a_value_that_is_set_while_it_is_computed_stays(self, open_cache: Callable[..., BaseCache]) -> None:
        """A value set by set() or set_many() during a computation stays, and the computation's caller gets it."""
        cache = open_cache()
        for write in (lambda: cache.set("k", "set"), lambda: cache.set_many({"k": "set"})):
            gate = Gate("computed")
            leader = in_background(cache.get_or_set, "k", gate)
            assert gate.begun.wait(concurrency.PATIENCE)
            write()
            gate.may_end.set()
            assert leader.result(concurrency.PATIENCE) == "set"
            assert cache.get("k") == "set"
            cache.delete("k")
