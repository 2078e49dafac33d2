"""Locks on local memory, beyond the contract."""

import asyncio
import threading
import time

import pytest

from storeroom.backends.dummy import DummyCache
from storeroom.backends.locmem import LocMemCache
from storeroom.base.locks import Lock
from storeroom.exceptions import InvalidTimeoutError, LockError, LockLostError, LockTimeoutError
from storeroom.storage import outages
from storeroom.testing import FakeClock
from storeroom.testing.isolation import engines_of_its_own


@pytest.fixture
def cache():
    with engines_of_its_own():
        yield LocMemCache("locks", {})


def test_fencing_tokens_go_on_where_the_storage_has_lost_them(cache) -> None:
    """After the storage has lost its counter, tokens still rise, since they count from the clock."""
    with FakeClock() as clock:
        tokens = []
        for _ in range(3):
            with cache.lock("l") as lock:
                tokens.append(lock.fence())
            cache._engine.locks._entries.clear()
            clock.advance(0.001)
        assert tokens == sorted(set(tokens))


def test_counters_of_fencing_tokens_do_not_pile_up(cache) -> None:
    """The counter of a lock expires, and a later token of it is higher all the same."""
    with FakeClock() as clock:
        with cache.lock("l") as lock:
            first = lock.fence()
        for _ in range(3):
            for number in range(500):
                with cache.lock((clock.now(), number)) as lock:
                    lock.fence()
            clock.advance(31 * 86_400)
        with cache.lock("l") as lock:
            assert lock.fence() > first
        assert len(cache._engine.locks) < 1000


def test_a_lost_lock_does_not_hide_the_error_of_its_block(cache) -> None:
    """The error of a block passes through, with the lost lock as a note on it."""
    with FakeClock() as clock, pytest.raises(ZeroDivisionError) as caught, cache.lock("l", timeout=10):  # noqa: PT012
        clock.advance(11)
        raise ZeroDivisionError
    assert caught.value.__notes__[0].startswith("And at the end: The lock 'l' is not ours any more")


def test_a_block_that_was_too_slow_raises(cache) -> None:
    """A block that outlasts its lock's timeout raises LockLostError."""
    with FakeClock() as clock, pytest.raises(LockLostError, match=r"its timeout \(10.0 s\) was shorter"):  # noqa: SIM117
        with cache.lock("l", timeout=10):
            clock.advance(11)


def test_acquire_waits_as_long_as_it_is_told(cache) -> None:
    """A blocking_timeout of the call counts before that of the lock, in seconds or words."""
    with cache.lock("l"):
        lock = cache.lock("l", blocking_timeout=100)
        begun = time.monotonic()
        assert lock.acquire(blocking_timeout=0.02) is False
        assert 0.02 <= time.monotonic() - begun < 5
        assert lock.acquire(blocking=False) is False
        assert asyncio.run(lock.aacquire(blocking_timeout="20ms")) is False


def test_errors_are_those_of_a_family() -> None:
    """The errors of locks are LockErrors or, for a timeout, TimeoutErrors."""
    assert issubclass(LockTimeoutError, LockError | TimeoutError)
    assert issubclass(LockLostError, LockError)


def test_timeouts_are_looked_at_before_anything_is_done(cache) -> None:
    """An invalid timeout raises when the lock is made, before it is acquired."""
    with pytest.raises(InvalidTimeoutError):
        cache.lock("l", timeout="soon")
    with pytest.raises(InvalidTimeoutError):
        cache.lock("l", blocking_timeout="soon")
    assert repr(cache.lock("l", timeout="1m")) == "<Lock 'l', timeout 60.0>"


def test_a_dummy_caches_lock_is_one_for_the_process() -> None:
    """A lock on a dummy cache excludes others: caching can be switched off, locking cannot."""
    with engines_of_its_own():
        with DummyCache("", {}).lock("l"):
            assert not DummyCache("", {}).lock("l").acquire(blocking=False)
        assert isinstance(DummyCache("", {}).lock("l"), Lock)


def test_a_lock_takes_no_room(cache) -> None:
    """A lock is held while other entries fill a cache with room for a single one."""
    tight = LocMemCache("tight", {"OPTIONS": {"MAX_ENTRIES": 1}})
    with tight.lock("l") as lock:
        for number in range(10):
            tight.set(f"k{number}", number)
            assert tight.get(f"k{number}") == number
        assert lock.owned()


def test_answers_are_refused_within_only() -> None:
    """Answers in place of an outage are refused within no_answers() and not after it."""
    assert not outages.are_answers_refused()
    with outages.no_answers():
        assert outages.are_answers_refused()
    assert not outages.are_answers_refused()


class SlowCache(LocMemCache):
    """Hooks run in threads, and adding waits until it may go on."""

    async_inline = False
    is_adding, may_go_on, has_added = threading.Event(), threading.Event(), threading.Event()

    def _locking(self):
        return self

    def _add(self, storage_key, value, expires_at):
        self.is_adding.set()
        assert self.may_go_on.wait(10)
        try:
            return super()._add(storage_key, value, expires_at)
        finally:
            self.has_added.set()


def test_a_task_that_is_cancelled_while_it_acquires_leaves_no_lock_behind() -> None:
    """A lock that a thread acquires for a task is released if the task has been cancelled meanwhile."""

    async def main() -> None:
        with engines_of_its_own():
            cache = SlowCache("slow", {})
            task = asyncio.create_task(cache.lock("l").aacquire())
            await asyncio.to_thread(cache.is_adding.wait)
            task.cancel()
            await asyncio.wait([task], timeout=0.05)
            cache.may_go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(cache.has_added.wait)
            assert not await cache.lock("l").alocked()

    asyncio.run(main())
