"""transaction(): writes are held back, on every backend, and nothing from before a commit comes back after it."""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

import pytest

from storeroom.base import BaseCache
from storeroom.exceptions import KeyNotFoundError, SerializationError
from storeroom.testing import concurrency
from storeroom.testing.capabilities import needs
from storeroom.testing.concurrency import Gate, chance_of, eventually, in_background, in_threads
from storeroom.testing.contract.suite import Driver, Suite
from storeroom.testing.processes import Child
from storeroom.transactions import transaction

__all__ = ["TransactionsContract"]


@asynccontextmanager
async def held_back(cache: Driver) -> AsyncIterator[None]:
    """Hold back the writes within, by the kind of block that goes with the driver."""
    if cache.is_async:
        async with transaction():
            yield
    else:
        with transaction():
            yield


def outside(job: Callable[[], Any]) -> Any:
    """Return the result that another thread gets."""
    return in_threads(1, lambda _: job())[0]


class _Rows:
    """A small database: readers see what is committed, and writers of a row wait for one another."""

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys
        self._committed = dict.fromkeys(keys, 0)
        self._locks = {key: threading.Lock() for key in keys}

    def read(self, key: str, chance: random.Random | None = None) -> int:
        """Return the committed value; the reader's own work on it takes a moment."""
        value = self._committed[key]
        if chance is not None:
            time.sleep(chance.choice([0, 0, 0.002]))
        return value

    @contextmanager
    def writing(self, key: str) -> Iterator[Callable[[random.Random], None]]:
        """Let a row be written, and commit at the end."""
        written = False

        def write(chance: random.Random) -> None:
            nonlocal written
            self._locks[key].acquire()
            written = True
            time.sleep(chance.choice([0, 0.002]))

        try:
            yield write
            if written:
                self._committed[key] += 1
        finally:
            if written:
                self._locks[key].release()


@needs("store")
class TransactionsContract(Suite):
    """Units of work, alone and with others."""

    async def test_writes_are_seen_by_others_after_the_block(self, cache: Driver) -> None:
        """Writes within transaction() are seen there at once, and by others after the block."""
        everything = ["set", "many", "added", "old", "n", "counted", "touched", "moved", "tagged"]
        await cache.set_many({"old": 1, "n": 10, "touched": 1, "moved": ["m"]}, timeout=1000)
        await cache.set("tagged", 1, tags=["t"])
        before = await cache.get_many(everything)
        async with held_back(cache):
            await cache.set("set", ["value"])
            await cache.set_many({"many": 1})
            assert await cache.add("added", 1) is True
            assert await cache.add("added", 2) is False
            assert await cache.delete("old") is True
            assert await cache.delete("old") is False
            assert await cache.incr("n", 5) == 15
            assert await cache.incr("counted", default=100, timeout=1000) == 101
            assert await cache.incr("counted") == 102
            assert await cache.touch("touched", 100) is True
            assert await cache.incr_version("moved") == 2
            assert await cache.invalidate_tags("t") == 1
            within = await cache.get_many(everything)
            assert within == {"set": ["value"], "many": 1, "added": 1, "n": 15, "counted": 102, "touched": 1}
            assert await cache.get("moved", version=2) == ["m"]
            assert await cache.ttl("touched") == pytest.approx(100, rel=0.1)
            assert await cache.has_key("old") is False
            if "enumerate" not in self.lacks:
                assert sorted(await cache.keys()) == sorted(within)
            assert outside(lambda: cache.cache.get_many(everything)) == before
            assert outside(lambda: cache.cache.get("moved", version=2)) is None
        assert await cache.get_many(everything) == within
        assert await cache.get("moved", version=2) == ["m"]
        assert await cache.ttl("touched") == pytest.approx(100, rel=0.1)
        assert await cache.ttl("n") == pytest.approx(1000, rel=0.1)
        assert await cache.ttl("counted") == pytest.approx(1000, rel=0.1)

    async def test_an_exception_drops_what_was_held_back(self, cache: Driver) -> None:
        """An exception drops the writes of its block, and of blocks within; those of the block around stay."""
        await cache.set_many({"a": 1, "b": 1, "n": 1})
        with pytest.raises(ZeroDivisionError):
            await self.fail_within(cache)
        assert await cache.get_many(["a", "b", "n", "t"]) == {"a": 1, "b": 1, "n": 1}
        async with held_back(cache):
            await cache.set("a", 2)
            with pytest.raises(ZeroDivisionError):
                await self.fail_within(cache)
            assert await cache.get_many(["a", "b", "n", "t"]) == {"a": 2, "b": 1, "n": 1}
        assert await cache.get_many(["a", "b", "n", "t"]) == {"a": 2, "b": 1, "n": 1}

    async def fail_within(self, cache: Driver) -> None:
        """Write all kinds of things, and fail."""
        async with held_back(cache):
            await cache.set("a", 3)
            await cache.incr("n")
            await cache.set("t", 1, tags=["t"])
            await cache.clear()
            await cache.set("b", 3)
            assert await cache.get_many(["a", "b", "n", "t"]) == {"b": 3}
            raise ZeroDivisionError

    async def test_clear_is_held_back(self, cache: Driver) -> None:
        """clear() is held back, and so are the writes that come after it."""
        await cache.set_many({"a": 1, "b": 1, "c": 1}, version=2)
        async with held_back(cache):
            await cache.clear()
            await cache.set("b", 2, version=2)
            assert await cache.get_many([*"abc"], version=2) == {"b": 2}
            with pytest.raises(KeyNotFoundError):
                await cache.incr("a", version=2)
            assert outside(lambda: cache.cache.get_many([*"abc"], version=2)) == {"a": 1, "b": 1, "c": 1}
        assert await cache.get_many([*"abc"], version=2) == {"b": 2}

    async def test_counters_count_what_others_have_counted(self, cache: Driver) -> None:
        """Counting holds back a sum: the counts of others are kept, also of a number that both create."""
        await cache.set("n", 10)
        async with held_back(cache):
            assert await cache.incr("n") == 11
            assert await cache.incr("new", default=0) == 1
            outside(lambda: [cache.cache.incr("n", 100), cache.cache.incr("new", 5, default=0)])
            assert await cache.incr("n") == 112
        assert await cache.get_many(["n", "new"]) == {"n": 112, "new": 6}

    async def test_tags_are_followed_within(self, cache: Driver) -> None:
        """Invalidated entries are absent within the block, and to others after it."""
        await cache.set("a", 1, tags=["t"])
        async with held_back(cache):
            await cache.set("b", 1, tags=["t"])
            assert await cache.get_many(["a", "b"]) == {"a": 1, "b": 1}
            await cache.invalidate_tags("t")
            assert await cache.get_many(["a", "b"]) == {}
            await cache.set("c", 1, tags=["t"])
            assert await cache.get("c") == 1
            assert outside(lambda: cache.cache.get_many(["a", "b", "c"])) == {"a": 1}
        assert await cache.get_many(["a", "b", "c"]) == {"c": 1}
        await cache.invalidate_tags("t")
        assert await cache.get("c") is None

    @needs("isolation")
    async def test_what_is_held_back_cannot_be_changed(self, cache: Driver) -> None:
        """Changing an object that was written or read does not change the value that is held back."""
        async with held_back(cache):
            value = {"list": [1]}
            await cache.set("k", value)
            value["list"].append(2)
            (await cache.get("k"))["list"].append(3)
            assert await cache.get("k") == {"list": [1]}
        assert await cache.get("k") == {"list": [1]}

    @needs("refusal")
    async def test_a_value_that_cannot_be_stored_is_refused_at_once(self, cache: Driver) -> None:
        """A value that cannot be stored raises SerializationError within the block."""
        async with held_back(cache):
            with pytest.raises(SerializationError):
                await cache.set("k", lambda: None)
            await cache.set("l", 1)
        assert await cache.get_many(["k", "l"]) == {"l": 1}

    async def test_a_cache_may_stay_out_of_it(self, drive: Callable[..., Driver]) -> None:
        """A cache with OPTIONS["transactional"] = False writes at once."""
        cache = drive(OPTIONS={"transactional": False})
        with pytest.raises(ZeroDivisionError):
            await self.write_and_fail(cache)
        assert await cache.get("k") == 1

    async def write_and_fail(self, cache: Driver) -> None:
        """Write within a block that fails."""
        async with held_back(cache):
            await cache.set("k", 1)
            raise ZeroDivisionError

    async def test_a_lock_is_not_held_back(self, cache: Driver) -> None:
        """A lock acquired within the block is held at once."""
        async with held_back(cache):
            lock = cache.cache.lock("l", timeout=100)
            assert lock.acquire()
            assert outside(lambda: cache.cache.lock("l").acquire(blocking=False)) is False
            lock.release()

    # Computing ------------------------------------------------------------------------------

    async def test_what_is_computed_is_stored_after_the_block(self, cache: Driver) -> None:
        """A value computed within the block is seen there, and stored after it."""
        async with held_back(cache):
            assert await cache.get_or_set("k", lambda: "uncommitted") == "uncommitted"
            assert await cache.get_or_set("k", lambda: "again") == "uncommitted"
            assert await cache.get("k") == "uncommitted"
            assert outside(lambda: cache.cache.get("k")) is None
        assert await cache.get("k") == "uncommitted"

    async def test_what_is_computed_is_not_stored_if_somebody_has_touched_the_entry(self, cache: Driver) -> None:
        """A computed value is not stored where the entry has been deleted, set or computed meanwhile."""
        async with held_back(cache):
            for key in ("deleted", "set", "computed"):
                assert await cache.get_or_set(key, lambda: "old") == "old"
            outside(lambda: cache.cache.delete("deleted"))
            outside(lambda: cache.cache.set("set", "new"))
            assert outside(lambda: cache.cache.get_or_set("computed", lambda: "new")) == "new"
            await cache.delete("own")
            assert await cache.get_or_set("own", lambda: "own") == "own"
        assert await cache.get_many(["deleted", "set", "computed", "own"]) == {"set": "new", "computed": "new"}

    async def test_what_is_computed_is_dropped_with_the_block(self, cache: Driver) -> None:
        """A block that fails drops its computed values, and leaves the keys free."""
        with pytest.raises(ZeroDivisionError):
            await self.compute_and_fail(cache)
        assert await cache.get_many([*"klm"]) == {}
        assert await cache.add("k", "new") is True
        assert await cache.add("l", "new") is True

    async def test_what_is_computed_for_many_keys_is_held_back_as_for_one(self, cache: Driver) -> None:
        """Values of get_or_set_many() are held back, and stored where nobody has changed the entry."""
        await cache.set("stored", "before")
        async with held_back(cache):
            await cache.set("held", "within")
            found = await cache.get_or_set_many(["stored", "held", "a", "b", "c"], dict.fromkeys)
            assert found == {"stored": "before", "held": "within", "a": None, "b": None, "c": None}
            assert await cache.get("a", "absent") is None
            assert outside(lambda: cache.cache.get_many([*"abc"])) == {}
            outside(lambda: cache.cache.delete("b"))
            outside(lambda: cache.cache.set("c", "theirs"))
        stored = await cache.get_many(["stored", "held", "a", "b", "c"])
        assert stored == {"stored": "before", "held": "within", "a": None, "c": "theirs"}

    async def compute_and_fail(self, cache: Driver) -> None:
        """Compute within a block that fails."""
        async with held_back(cache):
            await cache.get_or_set("k", lambda: "uncommitted")
            await cache.get_or_set_many(["l", "m"], dict.fromkeys)
            raise ZeroDivisionError

    async def test_what_is_computed_with_a_tag_of_before_is_dropped_when_that_is_invalidated(
        self, cache: Driver
    ) -> None:
        """A computed value whose tag is invalidated meanwhile, by others or the block, is not stored."""
        await cache.set("other", 1, tags=["t", "own"])
        async with held_back(cache):
            await cache.get_or_set("k", lambda: "old", tags=["t"])
            await cache.get_or_set("l", lambda: "old", tags=["own"])
            outside(lambda: cache.cache.invalidate_tags("t"))
            await cache.invalidate_tags("own")
            await cache.get_or_set("m", lambda: "own", tags=["own"])
        assert await cache.get_many(["k", "l", "m"]) == {}

    # Several callers ------------------------------------------------------------------------

    def test_a_reader_of_before_does_not_put_the_old_value_back(self, open_cache: Callable[..., BaseCache]) -> None:
        """A computation that began before a commit does not store over the commit's delete."""
        cache, reader = open_cache(), Gate("from before")
        reading = in_background(lambda: cache.get_or_set("k", reader))
        assert reader.begun.wait(concurrency.PATIENCE)
        with transaction():
            cache.delete("k")
        reader.may_end.set()
        assert reading.result(concurrency.PATIENCE) == "from before"
        assert cache.get("k", "absent") == "absent"

    def test_a_reader_of_before_does_not_replace_the_new_value(self, open_cache: Callable[..., BaseCache]) -> None:
        """A computation that began before a commit does not replace the value of the commit, and returns that."""
        cache, reader = open_cache(), Gate("from before")
        reading = in_background(lambda: cache.get_or_set("k", reader))
        assert reader.begun.wait(concurrency.PATIENCE)
        with transaction():
            cache.set("k", "new")
        reader.may_end.set()
        assert reading.result(concurrency.PATIENCE) == "new"
        assert cache.get("k") == "new"

    @needs("processes")
    def test_a_reader_in_another_process_does_not_put_the_old_value_back(
        self, location: str, open_cache: Callable[..., BaseCache]
    ) -> None:
        """A computation of another process that began before a commit stores nothing over it."""
        cache = open_cache()
        for change, left in ((lambda: cache.delete("k"), "absent"), (lambda: cache.set("k", "new"), "new")):
            child = Child(type(self), location, {}, compute_when_told, talks=True)
            assert child.pipe.recv() == "reading"
            with transaction():
                change()
            child.pipe.send("store")
            child.result()
            assert cache.get("k", "absent") == left

    def test_nobody_gets_what_a_unit_of_work_computes(self, open_cache: Callable[..., BaseCache]) -> None:
        """A unit of work and others compute a key apart, and the value of the others is stored."""
        cache, uncommitted, committed = open_cache(), Gate("uncommitted"), Gate("committed")

        def work() -> Any:
            with transaction():
                return cache.get_or_set("k", uncommitted)

        working = in_background(work)
        assert uncommitted.begun.wait(concurrency.PATIENCE)
        reading = in_background(lambda: cache.get_or_set("k", committed))
        eventually(committed.begun.is_set)
        committed.may_end.set()
        assert reading.result(concurrency.PATIENCE) == "committed"
        uncommitted.may_end.set()
        assert working.result(concurrency.PATIENCE) == "uncommitted"
        assert cache.get("k") == "committed"

    @pytest.mark.parametrize("seed", range(3))
    def test_no_old_value_stays_however_readers_and_writers_meet(
        self, open_cache: Callable[..., BaseCache], seed: int
    ) -> None:
        """After readers and writers have ended, an entry is absent or has the value of the database."""
        cache, rows = open_cache(), _Rows(["a", "b"])

        def work(number: int) -> None:
            chance = chance_of(1000 * seed + number)
            for _ in range(15):
                key = chance.choice(rows.keys)
                what = chance.choice(["read", "read", "read within", "delete", "delete by tag", "fail"])
                if what == "read":
                    cache.get_or_set(key, lambda key=key: rows.read(key, chance), tags=[f"tag of {key}"])
                    continue
                with suppress(ZeroDivisionError), transaction(), rows.writing(key) as write:
                    if what == "read within":
                        cache.get_or_set(key, lambda key=key: rows.read(key, chance), tags=[f"tag of {key}"])
                        time.sleep(chance.choice([0, 0.005]))
                    elif what == "delete by tag":
                        write(chance)
                        cache.invalidate_tags(f"tag of {key}")
                    else:
                        write(chance)
                        cache.delete(key)
                        cache.get_or_set(key, lambda: "uncommitted")
                    if what == "fail":
                        raise ZeroDivisionError

        in_threads(6, work)
        for key in rows.keys:
            assert cache.get(key) in (None, rows.read(key)), f"seed {seed}"

    def test_units_of_work_of_threads_are_their_own(self, open_cache: Callable[..., BaseCache]) -> None:
        """Each thread's unit of work sees its own writes, and all are made."""
        cache = open_cache()
        cache.set("n", 0)

        def work(number: int) -> Any:
            with transaction():
                cache.set(f"k{number}", number)
                cache.incr("n")
                return cache.get_many([f"k{other}" for other in range(8)])

        for number, seen in enumerate(in_threads(8, work)):
            assert seen[f"k{number}"] == number
        assert cache.get_many([f"k{number}" for number in range(8)]) == {f"k{number}": number for number in range(8)}
        assert cache.get("n") == 8

    def test_a_cancelled_task_leaves_no_old_value(self, open_cache: Callable[..., BaseCache]) -> None:
        """A task that is cancelled when the block is over, once or again and again, ends when all changes are made."""
        cache, keys = open_cache(), ["a", "b", "c"]

        async def unit(over: asyncio.Event) -> None:
            async with transaction():
                await cache.aset_many({"a": "new", "b": "new"})
                await cache.adelete("c")
                over.set()

        async def main() -> None:
            for turns in range(24):
                await cache.aset_many(dict.fromkeys(keys, "old"))
                over = asyncio.Event()
                task = asyncio.create_task(unit(over))
                await over.wait()
                for _ in range(turns // 2):
                    await asyncio.sleep(0)
                while task.cancel() and turns % 2:
                    await asyncio.sleep(0)
                await asyncio.gather(task, return_exceptions=True)
                found = await cache.aget_many(keys)
                assert found.items() <= {"a": "new", "b": "new"}.items(), f"cancelled after {turns // 2} turns"

        asyncio.run(main())


def compute_when_told(cache: BaseCache, pipe: Connection) -> Any:
    """Compute from data of before, and store that when the other side says so."""

    def compute() -> str:
        pipe.send("reading")
        pipe.recv()
        return "from before"

    return cache.get_or_set("k", compute)
