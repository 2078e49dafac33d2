"""lock(): one owner at a time, on every backend."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from storeroom.base import BaseCache
from storeroom.base.locks import Lock
from storeroom.exceptions import LockError, LockLostError, LockTimeoutError
from storeroom.testing.capabilities import needs
from storeroom.testing.clock import clock_ahead
from storeroom.testing.concurrency import PATIENCE, in_background, in_threads
from storeroom.testing.contract.suite import Driver, Suite

__all__ = ["LocksContract"]


def backwards(key: object, key_prefix: str, version: int) -> str:
    """Make storage keys that nobody can tell from others'."""
    return f"{key_prefix}{version}{key}"[::-1]


def lock_of(cache: Driver, *args: Any, **kwargs: Any) -> Driver:
    """Return a driver of a lock, in the mode of the cache's."""
    lock: Any = cache.cache.lock(*args, **kwargs)
    return Driver(lock, "async" if cache.is_async else "sync")


@asynccontextmanager
async def _either(lock: Lock, *, is_async: bool) -> AsyncIterator[None]:
    """Hold the lock by one of its two kinds of block."""
    if is_async:
        async with lock:
            yield
    else:
        with lock:
            yield


class LocksContract(Suite):
    """Locks, by one caller and by several."""

    async def test_lock_has_one_owner(self, cache: Driver) -> None:
        """A lock has one owner until it is released; locked() and owned() tell so."""
        mine, other = lock_of(cache, "l", timeout=100), lock_of(cache, "l", timeout=100)
        assert await mine.locked() is False
        assert await mine.acquire() is True
        assert await other.acquire(blocking=False) is False
        assert [await mine.locked(), await other.locked()] == [True, True]
        assert [await mine.owned(), await other.owned()] == [True, False]
        await mine.release()
        assert await other.locked() is False
        assert await other.acquire(blocking=False) is True
        assert await mine.owned() is False
        await other.release()

    async def test_lock_is_held_within_its_block(self, cache: Driver) -> None:
        """A block holds its lock, and releases it when it raises."""
        lock, other = cache.cache.lock("l", timeout=100), lock_of(cache, "l")

        async def fail_within() -> None:
            async with _either(lock, is_async=cache.is_async):
                assert await other.locked()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail_within()
        assert await other.locked() is False

    async def test_lock_that_is_not_free_in_time_is_an_error(self, cache: Driver) -> None:
        """A block whose lock is not free within blocking_timeout raises LockTimeoutError."""
        mine, late = lock_of(cache, "l", timeout=100), cache.cache.lock("l", blocking_timeout=0.01)
        await mine.acquire()
        with pytest.raises(LockTimeoutError, match=r"'l' was not free within 0\.01 s"):
            await _either(late, is_async=cache.is_async).__aenter__()
        await mine.release()

    async def test_lock_is_free_when_its_time_is_over(self, cache: Driver) -> None:
        """A lock is free after its timeout; the late owner gets LockLostError, and does not touch the next one's."""
        late, following = lock_of(cache, "l", timeout=self.moment), lock_of(cache, "l", timeout=100)
        await late.acquire()
        await self.pass_time(self.moment * 1.1)
        assert await late.owned() is False
        assert await following.acquire(blocking=False) is True
        for operation in (late.extend, late.fence, late.release):
            with pytest.raises(LockLostError, match="'l' is not ours any more"):
                await operation()
        assert await following.owned() is True
        await following.release()

    async def test_host_whose_clock_is_wrong_gets_no_lock_that_is_held(self, cache: Driver) -> None:
        """A host that is held off by a lock is told so by the storage's clock, be the host's own ahead or behind."""
        lock, other = lock_of(cache, "l", timeout=10), lock_of(cache, "l", timeout=10)
        for ours, theirs in ((0, 20), (-20, 0)):
            with clock_ahead(ours):
                await lock.acquire()
            with clock_ahead(theirs):
                assert await other.acquire(blocking=False) is False
                assert await other.locked() is True
            with clock_ahead(ours):
                assert await lock.owned() is True
                await lock.extend()
                await lock.release()

    async def test_extend_holds_the_lock_for_longer(self, cache: Driver) -> None:
        """extend() counts the lock's own timeout, or the one given, from now."""
        lock, other = lock_of(cache, "l", timeout=self.moment * 2), lock_of(cache, "l")
        await lock.acquire()
        await self.pass_time(self.moment * 1.1)
        await lock.extend()
        await self.pass_time(self.moment * 1.1)
        assert await lock.owned() is True
        await lock.extend("1h")
        await self.pass_time(self.moment)
        assert await lock.owned() is True
        assert await other.acquire(blocking=False) is False
        await lock.release()

    async def test_fence_grows_with_each_owner(self, cache: Driver) -> None:
        """fence() is an int that grows with each owner, and stays while the lock is held."""
        tokens = []
        for _ in range(5):
            lock = lock_of(cache, "l", timeout=100)
            await lock.acquire()
            tokens.append(await lock.fence())
            assert await lock.fence() == tokens[-1]
            await lock.extend()
            assert await lock.fence() == tokens[-1]
            await lock.release()
        assert tokens == sorted(set(tokens))
        assert all(type(token) is int for token in tokens)

    async def test_lock_of_one_name_is_not_that_of_another(self, drive: Callable[..., Driver]) -> None:
        """Prefix and version are parts of a lock's name, as with keys."""
        ours, theirs = drive(KEY_PREFIX="ours"), drive(KEY_PREFIX="theirs")
        locks = [
            lock_of(ours, "l", timeout=100),
            lock_of(ours, "m", timeout=100),
            lock_of(ours, "l", version=2, timeout=100),
            lock_of(theirs, "l", timeout=100),
            lock_of(ours, "ключ " * 100, timeout=100),
        ]
        for lock in locks:
            assert await lock.acquire(blocking=False) is True
        assert await lock_of(ours, "l", 2).acquire(blocking=False) is False
        for lock in locks:
            await lock.release()

    async def test_a_lock_is_no_entry(self, cache: Driver) -> None:
        """Reading, listing, deleting and clearing entries neither finds a lock nor removes it."""
        lock = lock_of(cache, "l", timeout=100)
        await lock.acquire()
        assert await cache.get("l", "absent") == "absent"
        assert await cache.has_key("l") is False
        if "enumerate" not in self.lacks:
            assert await cache.keys() == []
        await cache.set("l", "entry", timeout=100)
        await cache.delete("l")
        await cache.clear()
        assert await lock.owned() is True
        await lock.release()

    async def test_a_lock_survives_where_keys_cannot_be_turned_back(self, drive: Callable[..., Driver]) -> None:
        """clear() with a KEY_FUNCTION that cannot be turned back leaves locks."""
        cache = drive(KEY_FUNCTION=backwards, OPTIONS={"owns_location": True})
        lock = lock_of(cache, "l", timeout=100)
        await lock.acquire()
        await cache.clear()
        assert await lock.owned() is True
        await lock.release()

    @needs("bounds")
    async def test_a_lock_is_not_evicted(self, drive: Callable[..., Driver]) -> None:
        """A lock is not evicted, however many entries are written."""
        cache = drive(OPTIONS={"MAX_ENTRIES": 10})
        lock = lock_of(cache, "l", timeout=1000)
        await lock.acquire()
        for number in range(200):
            await cache.set(f"k{number}", number)
        assert await lock.owned() is True
        await lock.release()

    async def test_using_what_is_not_held_is_an_error(self, cache: Driver) -> None:
        """Using a lock that is not held raises LockLostError; acquiring it twice raises LockError."""
        lock = lock_of(cache, "l", timeout=100)
        for operation in (lock.release, lock.extend, lock.fence):
            with pytest.raises(LockLostError, match=r"call acquire\(\) before"):
                await operation()
        await lock.acquire()
        with pytest.raises(LockError, match="not reentrant"):
            await lock.acquire()
        await lock.release()
        with pytest.raises(LockLostError):
            await lock.release()
        for timeout in (0, -1):
            with pytest.raises(ValueError, match="expected more than 0 seconds"):
                cache.cache.lock("l", timeout=timeout)

    # Several callers ------------------------------------------------------------------------

    def test_threads_hold_a_lock_in_turn(self, open_cache: Callable[..., BaseCache]) -> None:
        """Threads that read and write within a lock lose no update."""
        cache, number = open_cache(), 0

        def job(_: int) -> None:
            nonlocal number
            for _ in range(5):
                with cache.lock("l", timeout=100, sleep=0.002):
                    seen = number
                    time.sleep(0)
                    number = seen + 1

        in_threads(8, job)
        assert number == 40

    def test_threads_try_a_lock_that_comes_and_goes(self, open_cache: Callable[..., BaseCache]) -> None:
        """Threads that try a lock which changes hands get it or False; two never hold it together."""
        cache, holders, together = open_cache(), 0, 0

        def job(_: int) -> int:
            nonlocal holders, together
            held = 0
            for _ in range(50):
                lock = cache.lock("l", timeout=100)
                if not lock.acquire(blocking=False):
                    continue
                holders += 1
                together += holders > 1
                held += 1
                holders -= 1
                lock.release()
            return held

        assert sum(in_threads(8, job)) >= 1
        assert together == 0

    def test_tasks_hold_a_lock_in_turn(self, open_cache: Callable[..., BaseCache]) -> None:
        """Tasks that read and write within a lock lose no update, and their loop goes on."""
        cache, number = open_cache(), 0

        async def job() -> None:
            nonlocal number
            async with cache.lock("l", timeout=100, sleep=0.002):
                seen = number
                await asyncio.sleep(0)
                number = seen + 1

        async def main() -> None:
            await asyncio.gather(*(job() for _ in range(10)))

        asyncio.run(main())
        assert number == 10

    def test_a_cancelled_task_leaves_no_lock_behind(self, open_cache: Callable[..., BaseCache]) -> None:
        """A task that is cancelled while it holds a lock, or waits for it, leaves none behind."""
        cache, holding = open_cache(), asyncio.Event()

        async def job() -> None:
            async with cache.lock("l", timeout=100):
                holding.set()
                await asyncio.sleep(100)

        async def main() -> None:
            tasks = [asyncio.create_task(job()) for _ in range(2)]
            await holding.wait()
            await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert not await cache.lock("l").alocked()

        asyncio.run(main())

    def test_who_waits_gets_the_lock_when_it_is_free(self, open_cache: Callable[..., BaseCache]) -> None:
        """A waiting thread gets the lock when it is released."""
        cache = open_cache()
        lock = cache.lock("l", timeout=100)
        assert lock.acquire()

        def follow() -> bool:
            with cache.lock("l", timeout=100, sleep=0.01) as following:
                return following.owned()

        waiting = in_background(follow)
        time.sleep(0.01)
        assert not waiting.done()
        lock.release()
        assert waiting.result(PATIENCE) is True
