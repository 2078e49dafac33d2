"""memo(): a key that was read once is not read again, on every backend, and own writes are seen."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from storeroom.base import BaseCache
from storeroom.memos import memo
from storeroom.storage.overlay import HOOKS
from storeroom.testing.capabilities import needs
from storeroom.testing.concurrency import in_threads
from storeroom.testing.contract.suite import Driver, Suite

__all__ = ["MemosContract"]


@asynccontextmanager
async def remembering(cache: Driver, *args: Any) -> AsyncIterator[None]:
    """Remember within, by the kind of block that goes with the driver."""
    if cache.is_async:
        async with memo(*args):
            yield
    else:
        with memo(*args):
            yield


def outside(job: Callable[[], Any]) -> Any:
    """Return the result that another thread gets."""
    return in_threads(1, lambda _: job())[0]


def calls_of(cache: BaseCache) -> Counter[str]:
    """Count how often the hooks of the storage, or of a near tier, are called from now on, by hooks too."""
    calls: Counter[str] = Counter()

    def counted(name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            calls[name] += 1
            return hook(*args)

        return call

    near = vars(cache).get("_overlay")
    for hooks in (cache,) if near is None else (cache, near):
        for name in HOOKS:
            for form in (f"_{name}", f"_a{name}"):
                setattr(hooks, form, counted(name, getattr(hooks, form)))
    return calls


@needs("store")
class MemosContract(Suite):
    """Blocks that remember, alone and with others."""

    async def test_what_was_read_is_not_asked_for_again(self, cache: Driver) -> None:
        """Within memo() a key that was read, found or not, is not asked for again by any operation."""
        await cache.set_many({"a": 1, "b": [2]})
        await cache.set("t", 3, tags=["x"])
        calls = calls_of(cache.cache)
        async with remembering(cache):
            assert await cache.get("a") == 1
            assert await cache.get_many(["a", "b", "none"]) == {"a": 1, "b": [2]}
            assert await cache.get("t") == 3
            calls.clear()
            for _ in range(3):
                assert await cache.get("a") == 1
                assert await cache.get("none", "absent") == "absent"
                assert await cache.get_many(["a", "b", "none", "t"]) == {"a": 1, "b": [2], "t": 3}
                assert await cache.has_key("b") is True
                assert await cache.has_key("none") is False
                assert await cache.get_or_set("b", lambda: "other") == [2]
                assert await cache.get_or_set_many(["a", "b"], lambda _: {}) == {"a": 1, "b": [2]}
                assert await cache.get("t") == 3
            assert calls == {}
        assert await cache.get_many(["a"]) == {"a": 1}
        assert calls != {}

    async def test_own_writes_are_seen_and_made(self, cache: Driver) -> None:
        """Within memo() own writes are made at once, and seen by the block and by others."""
        await cache.set_many({"a": 1, "n": 1, "d": 1, "m": 1, "v": 1})
        everything = ["a", "n", "d", "m", "added", "counted", "v"]
        async with remembering(cache):
            assert len(await cache.get_many(everything)) == 5
            await cache.set("a", ["new"])
            await cache.set_many({"m": 2})
            assert await cache.add("a", 3) is False
            assert await cache.add("added", 3) is True
            assert await cache.incr("n") == 2
            assert await cache.incr("counted", default=5) == 6
            assert await cache.delete("d") is True
            assert await cache.incr_version("v") == 2
            expected = {"a": ["new"], "n": 2, "m": 2, "added": 3, "counted": 6}
            assert await cache.get_many(everything) == expected
            assert await cache.get("v", version=2) == 1
            assert outside(lambda: cache.cache.get_many(everything)) == expected
            assert await cache.touch("n", 0) is True
            assert await cache.get("n") is None
            await cache.clear()
            assert await cache.get_many(everything) == {}
            assert outside(lambda: cache.cache.get_many(everything)) == {}

    async def test_what_was_read_stays_as_it_was_read(self, cache: Driver) -> None:
        """Within memo() a read value stays as it was; others' writes are seen after the block."""
        await cache.set("k", "old")
        async with remembering(cache):
            assert await cache.get_many(["k", "none"]) == {"k": "old"}
            outside(lambda: cache.cache.set_many({"k": "new", "none": "new"}))
            assert await cache.get_many(["k", "none"]) == {"k": "old"}
            async with remembering(cache):
                assert await cache.get("k") == "old"
            assert await cache.get("k") == "old"
        assert await cache.get_many(["k", "none"]) == {"k": "new", "none": "new"}

    @needs("isolation")
    async def test_what_is_remembered_cannot_be_changed(self, cache: Driver) -> None:
        """Changing an object that was read or written does not change the remembered value."""
        await cache.set("k", [1])
        async with remembering(cache):
            for _ in range(2):
                (await cache.get("k")).append(2)
            assert await cache.get("k") == [1]
            value = [1]
            await cache.set("l", value)
            value.append(2)
            assert await cache.get("l") == [1]

    async def test_a_timeout_that_was_written_is_kept(self, cache: Driver) -> None:
        """An entry written within memo() expires within the block."""
        async with remembering(cache):
            await cache.set("k", 1, timeout=self.moment)
            await cache.set("l", 1, timeout=self.moment)
            await cache.touch("l", 1000)
            assert await cache.get_many(["k", "l"]) == {"k": 1, "l": 1}
            await self.pass_time(self.moment * 1.1)
            assert await cache.get_many(["k", "l"]) == {"l": 1}

    async def test_computing_sees_what_others_have_stored(self, cache: Driver) -> None:
        """A remembered miss does not let get_or_set() compute over a value that others have stored."""
        async with remembering(cache):
            assert await cache.get("k") is None
            outside(lambda: cache.cache.set("k", "theirs"))
            assert await cache.get_or_set("k", lambda: "ours") == "theirs"
            assert await cache.get("k") == "theirs"
            assert await cache.get_or_set("l", lambda: ["ours"]) == ["ours"]
            assert outside(lambda: cache.cache.get("l")) == ["ours"]

    async def test_invalidated_tags_are_seen(self, cache: Driver) -> None:
        """Within memo() entries are absent once the block has invalidated their tag."""
        await cache.set("k", 1, tags=["t"])
        async with remembering(cache):
            assert await cache.get("k") == 1
            await cache.invalidate_tags("t")
            assert await cache.get("k") is None
            await cache.set("k", 2, tags=["t"])
            assert await cache.get("k") == 2

    async def test_a_memo_is_bounded(self, cache: Driver) -> None:
        """A memo of five keys forgets the oldest, which is asked for again."""
        await cache.set_many({f"k{number}": number for number in range(10)})
        calls = calls_of(cache.cache)
        async with remembering(cache, 5):
            for number in range(10):
                assert await cache.get(f"k{number}") == number
            calls.clear()
            assert await cache.get("k9") == 9
            assert calls == {}
            assert await cache.get("k0") == 0
            assert calls != {}

    async def test_a_cache_may_stay_out_of_it(self, drive: Callable[..., Driver]) -> None:
        """A cache with OPTIONS["memo"] = False remembers nothing."""
        cache = drive(OPTIONS={"memo": False})
        async with remembering(cache):
            assert await cache.get("k") is None
            outside(lambda: cache.cache.set("k", 1))
            assert await cache.get("k") == 1

    def test_memos_of_threads_and_tasks_are_their_own(self, open_cache: Callable[..., BaseCache]) -> None:
        """A memo is of the block's own thread or task, and of those that the block starts."""
        cache = open_cache()
        cache.set("k", "old")

        async def alone() -> Any:
            async with memo():
                return await cache.aget("k")

        async def main() -> None:
            async with memo():
                assert await cache.aget("k") == "old"
                assert outside(lambda: cache.set("k", "new")) is None
                assert await asyncio.create_task(cache.aget("k")) == "old"
                assert await asyncio.to_thread(cache.get, "k") == "old"
            assert await asyncio.gather(*(alone() for _ in range(3))) == ["new"] * 3

        asyncio.run(main())
