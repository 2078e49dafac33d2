"""Tags: many entries made absent by one write."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from storeroom.base import BaseCache
from storeroom.exceptions import KeyNotFoundError, ValueTypeError
from storeroom.storage.tags import TAG_PREFIX
from storeroom.testing import concurrency
from storeroom.testing.capabilities import needs
from storeroom.testing.concurrency import Gate, eventually, in_background, in_threads
from storeroom.testing.contract.suite import Driver, Suite

__all__ = ["TagsContract"]


@needs("store")
class TagsContract(Suite):
    """set(tags=…), get_or_set(tags=…) and invalidate_tags()."""

    async def test_a_tagged_entry_is_an_entry_like_any_other(self, cache: Driver) -> None:
        """A tagged entry is there to every operation until it is invalidated."""
        await cache.set("k", ["value"], timeout=100, tags=["a", "b"])
        assert await cache.get("k") == ["value"]
        assert await cache.get_many(["k", "l"]) == {"k": ["value"]}
        assert await cache.has_key("k") is True
        assert await cache.ttl("k") == pytest.approx(100, rel=0.1)
        assert await cache.touch("k", 1000) is True
        assert await cache.ttl("k") == pytest.approx(1000, rel=0.1)
        assert await cache.add("k", "other") is False
        assert await cache.get_or_set("k", lambda: "other") == ["value"]
        if "enumerate" not in self.lacks:
            assert await cache.keys() == ["k"]
            assert await cache.count() == 1
        assert await cache.incr_version("k") == 2
        assert await cache.get("k", version=2) == ["value"]
        assert await cache.delete("k", version=2) is True
        assert await cache.get("k", version=2) is None

    @needs("fake_clock")
    async def test_a_tagged_entry_lives_as_long_as_touch_says(self, cache: Driver) -> None:
        """Its tags live on with it, however much longer that is than the time it was stored for."""
        assert self._clock is not None
        for seconds in (10_000, 1_000_000):
            await cache.set("k", 1, timeout=60, tags=["t"])
            assert await cache.touch("k", seconds) is True
            self._clock.advance(seconds - 1)
            assert await cache.get("k") == 1
            self._clock.advance(1)
            assert await cache.get("k") is None

    async def test_invalidate_tags_makes_entries_absent_to_every_operation(self, cache: Driver) -> None:
        """An invalidated entry is absent to every operation."""
        await cache.set("k", 1, tags=["a"])
        assert await cache.invalidate_tags("a") == 1
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
        assert await cache.add("k", 2) is True
        assert await cache.get("k") == 2

    async def test_invalidate_tags_concerns_the_entries_with_one_of_the_tags(self, cache: Driver) -> None:
        """invalidate_tags() makes the entries absent that carry one of the tags, and no others."""
        await cache.set("ab", 1, tags=["a", "b"])
        await cache.set("b", 1, tags=["b"])
        await cache.set("c", 1, tags=["c"])
        await cache.set_many({"c1": 1, "c2": 2}, tags=["c"])
        await cache.set("none", 1)
        assert await cache.invalidate_tags("a") == 1
        everything = ["ab", "b", "c", "c1", "c2", "none"]
        assert set(await cache.get_many(everything)) == {"b", "c", "c1", "c2", "none"}
        await cache.invalidate_tags("b", "c", "unknown")
        assert set(await cache.get_many(everything)) == {"none"}

    async def test_a_tag_can_be_used_again(self, cache: Driver) -> None:
        """Entries stored after an invalidation are there."""
        for turn in range(3):
            assert await cache.get_or_set("k", lambda turn=turn: turn, tags=["a"]) == turn
            assert await cache.get("k") == turn
            await cache.invalidate_tags("a")

    async def test_invalidating_what_nothing_carries_does_nothing(self, cache: Driver) -> None:
        """invalidate_tags() of tags that no entry carries returns 0."""
        assert await cache.invalidate_tags("a", "b") == 0
        assert await cache.invalidate_tags() == 0

    async def test_a_tag_is_any_text(self, cache: Driver) -> None:
        """A tag is any text, or a number, which stands for its text; a bare string as the list raises TypeError."""
        tags: list[Any] = ["user:1", "鍵", "x" * 1000, "x" * 70_000, "鍵" * 70_000, " ", 7]
        for tag in tags:
            await cache.set("k", 1, tags=[tag])
            assert await cache.get("k") == 1
            assert await cache.invalidate_tags(tag) == 1
            assert await cache.get("k") is None
        await cache.set("k", 1, tags=[7])
        await cache.invalidate_tags("7")
        assert await cache.get("k") is None
        with pytest.raises(TypeError, match="expected a list of tags"):
            await cache.set("k", 1, tags="user:1")

    async def test_tags_belong_to_a_prefix_and_to_all_versions(self, drive: Callable[..., Driver]) -> None:
        """A tag is of one prefix and of all versions."""
        ours, theirs = drive(KEY_PREFIX="ours"), drive(KEY_PREFIX="theirs")
        await ours.set("k", 1, tags=["a"])
        await ours.set("k", 2, version=2, tags=["a"])
        await theirs.set("k", 1, tags=["a"])
        await ours.invalidate_tags("a")
        assert await ours.get("k") is None
        assert await ours.get("k", version=2) is None
        assert await theirs.get("k") == 1

    async def test_a_lost_version_means_misses(self, cache: Driver) -> None:
        """Entries whose tag's version is lost are absent, also after another version is written."""
        await cache.set("k", 1, tags=["a"])
        (tag_key,) = cache.cache._tag_keys(["a"])
        assert tag_key.startswith(TAG_PREFIX)
        assert cache.cache._delete(tag_key)
        assert await cache.get("k") is None
        await cache.set("l", 1, tags=["a"])
        assert await cache.get("k") is None
        assert await cache.get("l") == 1

    async def test_clear_removes_tagged_entries(self, cache: Driver) -> None:
        """clear() removes tagged entries, and their tags may be used again."""
        await cache.set("k", 1, tags=["a"])
        await cache.clear()
        assert await cache.get("k") is None
        await cache.set("k", 2, tags=["a"])
        assert await cache.get("k") == 2

    async def test_clear_forgets_the_caches_own_tags(self, drive: Callable[..., Driver]) -> None:
        """After clear() no tag of the cache is in use, and those of another prefix are."""
        ours, theirs = drive(KEY_PREFIX="ours"), drive(KEY_PREFIX="theirs")
        for cache in (ours, theirs):
            await cache.set_many({"k": 1, "l": 2}, tags=["a", "x" * 1000])
        await ours.clear()
        assert await ours.invalidate_tags("a", "x" * 1000) == 0
        assert await theirs.get_many(["k", "l"]) == {"k": 1, "l": 2}
        assert await theirs.invalidate_tags("a", "x" * 1000) == 2

    @needs("bounds")
    async def test_tags_evict_no_entry(self, drive: Callable[..., Driver]) -> None:
        """As many entries live as there is room for, if each has a tag of its own, and however many tags there were."""
        cache = drive(OPTIONS={"MAX_ENTRIES": 30})
        for number in range(90):
            await cache.set(str(number), number, tags=[f"user:{number}"])
        found = await cache.get_many([str(number) for number in range(90)])
        assert len(found) >= 28
        for number in range(30):
            await cache.set(f"plain {number}", number)
        assert len(await cache.get_many([f"plain {number}" for number in range(15, 30)])) >= 14

    @needs("bounds")
    async def test_an_entry_may_have_more_tags_than_there_are_entries(self, drive: Callable[..., Driver]) -> None:
        """An entry of a small cache can be read with many tags, and each of them invalidates it."""
        cache = drive(OPTIONS={"MAX_ENTRIES": 5})
        await cache.set("k", 1, tags=[f"tag {number}" for number in range(50)])
        assert await cache.get("k") == 1
        assert await cache.invalidate_tags("tag 37") == 1
        assert await cache.get("k") is None

    @needs("statistics")
    async def test_versions_are_no_entries(self, cache: Driver) -> None:
        """stats() and prune() count entries, and not their tags' versions."""
        await cache.set_many({"a": 1, "b": 2}, tags=["x", "y", "z"])
        assert cache.cache.stats().entries == 2
        await cache.delete_many(["a", "b"])
        assert cache.cache.stats().entries == 0
        assert await cache.prune() == 0

    @needs("bounds")
    async def test_max_tags_bounds_the_versions(self, drive: Callable[..., Driver]) -> None:
        """Of more tags than max_tags, the entries of those used last are there."""
        cache = drive(OPTIONS={"MAX_ENTRIES": None, "max_tags": 20})
        for number in range(100):
            await cache.set(str(number), number, tags=[f"user:{number}"])
        assert await cache.get_many(["97", "98", "99"]) == {"97": 97, "98": 98, "99": 99}
        assert len(await cache.get_many([str(number) for number in range(100)])) <= 25

    @needs("fake_clock")
    async def test_a_version_goes_when_no_entry_needs_it(self, cache: Driver) -> None:
        """A tag's version is gone some time after the last entry that needed it."""
        await cache.set("k", 1, timeout=60, tags=["a"])
        await cache.set("l", 1, timeout=3600, tags=["b"])
        await self.pass_time(3 * 3600)
        assert await cache.invalidate_tags("a", "b") == 0

    async def test_a_tagged_number_cannot_be_counted(self, cache: Driver) -> None:
        """incr() of a tagged number raises ValueTypeError and leaves it."""
        await cache.set("n", 1, tags=["a"])
        with pytest.raises(ValueTypeError):
            await cache.incr("n")
        assert await cache.get("n") == 1

    async def test_a_tagged_entry_expires(self, cache: Driver) -> None:
        """A tagged entry expires by its own timeout, and others of the tag stay."""
        await cache.set("k", 1, timeout=self.moment, tags=["a"])
        await cache.set("l", 1, timeout=1000, tags=["a"])
        await self.pass_time(self.moment)
        assert await cache.get_many(["k", "l"]) == {"l": 1}

    async def test_overwriting_takes_the_tags_away(self, cache: Driver) -> None:
        """An entry that is overwritten without tags carries none."""
        await cache.set("k", 1, tags=["a"])
        await cache.set("k", 2)
        await cache.invalidate_tags("a")
        assert await cache.get("k") == 2
        assert await cache.incr("k") == 3

    @needs("fake_clock")
    async def test_a_version_lives_as_long_as_the_entries_that_need_it(self, cache: Driver) -> None:
        """A tag's version lives as long as its entries, also for weeks or for ever."""
        await cache.set("day", 1, timeout="1h", tags=["a"])
        await cache.set("weeks", 1, timeout="5w", tags=["a"])
        await cache.set("ever", 1, timeout=None, tags=["b"])
        await self.pass_time(4 * 7 * 86_400)
        assert await cache.get_many(["day", "weeks", "ever"]) == {"weeks": 1, "ever": 1}
        await self.pass_time(10 * 365 * 86_400)
        assert await cache.get_many(["day", "weeks", "ever"]) == {"ever": 1}
        assert await cache.invalidate_tags("a", "b") >= 1
        assert await cache.get("ever") is None

    # Several callers ------------------------------------------------------------------------

    def test_what_is_invalidated_while_it_is_computed_is_absent(self, open_cache: Callable[..., BaseCache]) -> None:
        """A value whose tag is invalidated during its computation is returned, and absent afterwards."""
        cache, gate = open_cache(), Gate("old")
        leader = in_background(lambda: cache.get_or_set("k", gate, tags=["a"]))
        assert gate.begun.wait(concurrency.PATIENCE)
        assert cache.invalidate_tags("a") == 1
        gate.may_end.set()
        assert leader.result(concurrency.PATIENCE) == "old"
        assert cache.get("k", "absent") == "absent"
        assert cache.get_or_set("k", lambda: "new", tags=["a"]) == "new"
        assert cache.get("k") == "new"

    def test_who_asks_after_an_invalidation_gets_nothing_from_before(
        self, open_cache: Callable[..., BaseCache]
    ) -> None:
        """A follower that asked after an invalidation gets a new value, although an older computation is under way."""
        cache, gate = open_cache(), Gate("old")
        leader = in_background(lambda: cache.get_or_set("k", gate, tags=["a"]))
        assert gate.begun.wait(concurrency.PATIENCE)
        cache.invalidate_tags("a")
        follower = in_background(lambda: cache.get_or_set("k", lambda: "new", tags=["a"]))
        eventually(lambda: cache.engine.flights.followers(cache.make_key("k")) == 1)
        gate.may_end.set()
        assert leader.result(concurrency.PATIENCE) == "old"
        assert follower.result(concurrency.PATIENCE) == "new"
        assert cache.get("k") == "new"

    def test_threads_agree_on_a_new_version(self, open_cache: Callable[..., BaseCache]) -> None:
        """Threads that are the first with a tag lose no entry."""
        cache = open_cache()
        in_threads(8, lambda number: cache.set(f"k{number}", number, tags=["a", "b"]))
        assert cache.get_many([f"k{number}" for number in range(8)]) == {f"k{number}": number for number in range(8)}
        cache.invalidate_tags("b")
        assert cache.get_many([f"k{number}" for number in range(8)]) == {}

    def test_tasks_may_use_tags_at_once(self, open_cache: Callable[..., BaseCache]) -> None:
        """Tasks that are the first with a tag lose no entry."""
        cache = open_cache()

        async def main() -> int:
            await asyncio.gather(*(cache.aset(f"k{number}", number, tags=["a"]) for number in range(20)))
            found = len(await cache.aget_many([f"k{number}" for number in range(20)]))
            await cache.ainvalidate_tags("a")
            assert await cache.aget_many([f"k{number}" for number in range(20)]) == {}
            return found

        assert asyncio.run(main()) == 20
