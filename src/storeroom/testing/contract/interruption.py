"""Work is cut short: cancelled at each turn of the loop, at any moment, again and again, or by an exception anywhere.

Whatever the moment: the next caller of the key goes on at once, no lease and no lock is left, the pools are whole, and
no computation, task or thread stays behind. Each test has a process of its own, which is ended if it hangs, and tells
all that did not hold. ``STOREROOM_SEED`` chooses other moments.
"""

import asyncio
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeAlias

import pytest

from storeroom import timeouts
from storeroom.base import BaseCache
from storeroom.exceptions import ComputationTimeoutError
from storeroom.storage.envelope import Envelope
from storeroom.testing.capabilities import needs
from storeroom.testing.concurrency import chance_of
from storeroom.testing.contract.suite import Driver, Suite, run_to_its_end
from storeroom.testing.processes import Child
from storeroom.transactions import transaction

__all__ = ["InterruptionContract"]

PATIENCE: Final = 40.0
"""Seconds after which a process is taken for one that hangs."""

AT_ONCE: Final = 2.5
"""Seconds within which the next caller goes on: far fewer than a lease lasts, and more than a busy machine takes."""

TURNS: Final = 10
"""Turns of the loop after which each operation is cancelled, one after the other."""

MOMENTS: Final = 6
"""Other moments for each operation."""

OURS: Final = ("MainThread", "storeroom-", "asyncio_", "ThreadPoolExecutor-", "pytest")
"""Beginnings of the names of threads that may be there: idle, for the next job."""

Operation: TypeAlias = Callable[[Driver, int], Coroutine[Any, Any, Any]]
"""Called with a number of its own, by which its keys differ from those of all others."""


class CutShortError(Exception):
    """Raised within an operation, as by a signal handler: a soft limit of a task queue, for example."""


class CutShortExit(BaseException):
    """The same, as KeyboardInterrupt and gevent's timeouts are."""


@needs("store")
class InterruptionContract(Suite):
    """Nothing is left behind by work that is cut short."""

    def test_cancelled_at_each_turn_of_the_loop(self, location: str) -> None:
        """A task that is cancelled after any number of turns leaves nothing behind."""
        self._cut_apart(location, cancel_in_turn)

    def test_cancelled_at_any_moment(self, location: str) -> None:
        """A task that is cancelled at any moment leaves nothing behind."""
        self._cut_apart(location, cancel_at_random)

    def test_cancelled_again_at_every_turn(self, location: str) -> None:
        """A task whose clean-up is cancelled, too, as in a cancel scope of anyio's, leaves nothing behind."""
        self._cut_apart(location, cancel_for_good)

    @needs("interruption")
    @pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no alarm")
    def test_an_exception_at_any_moment(self, location: str) -> None:
        """An exception out of a signal handler, at any moment, reaches the caller, and leaves nothing behind."""
        self._cut_apart(location, raise_anywhere)

    def _cut_apart(self, location: str, job: Callable[..., Any]) -> None:
        seed = int(os.environ.get("STOREROOM_SEED", "1"))
        sys.stdout.write(f"STOREROOM_SEED={seed}\n")  # pytest shows it where the test fails
        faults: dict[str, list[str]] = Child(type(self), location, {}, job, seed, talks=True).told(PATIENCE)
        assert not faults, "\n".join(f"{name}: {'; '.join(found)}" for name, found in faults.items())


# The operations -----------------------------------------------------------------------------


def computing(cache: Driver) -> Any:
    """Return a function that computes, for the driver's API."""
    if not cache.is_async:
        return lambda *_: "value"

    async def compute(*_: Any) -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(0.0005)
        return "value"

    return compute


def computing_many(cache: Driver) -> Any:
    """Return a function that computes many values, for the driver's API."""
    if not cache.is_async:
        return lambda keys: dict.fromkeys(keys, "value")

    async def compute(keys: list[str]) -> dict[str, str]:
        await asyncio.sleep(0.0005)
        return dict.fromkeys(keys, "value")

    return compute


async def locked(cache: Driver, number: int) -> None:
    """Hold a lock for a moment."""
    lock = cache.cache.lock(f"lock {number}", timeout=60)
    if cache.is_async:
        async with lock:
            await asyncio.sleep(0.0005)
    else:
        with lock:
            pass


async def in_transaction(cache: Driver, number: int) -> None:
    """Store two values at once, over older ones."""
    await cache.set_many({f"ta {number}": "old", f"tb {number}": "old"})
    if cache.is_async:
        async with transaction():
            await cache.set(f"ta {number}", "new")
            await asyncio.sleep(0)
            await cache.set(f"tb {number}", "new")
    else:
        with transaction():
            await cache.set(f"ta {number}", "new")
            await cache.set(f"tb {number}", "new")


OPERATIONS: Final[dict[str, Operation]] = {
    "get_or_set": lambda cache, number: cache.get_or_set(f"k {number}", computing(cache), 60),
    "get_or_set with conditions": lambda cache, number: cache.get_or_set(
        f"k {number}", computing(cache), 60, tags=["a", "b"], stale_while_revalidate=30
    ),
    "get_or_set with hard_timeout": lambda cache, number: cache.get_or_set(
        f"k {number}", computing(cache), 60, hard_timeout=20
    ),
    "get_or_set_many": lambda cache, number: cache.get_or_set_many(
        [f"k {number}", f"l {number}"], computing_many(cache)
    ),
    "refresh": lambda cache, number: cache.refresh(f"k {number}", computing(cache), 60),
    "lock": locked,
    "transaction": in_transaction,
    "set": lambda cache, number: cache.set(f"s {number}", [number] * 20, 60),
    "set with tags": lambda cache, number: cache.set(f"s {number}", number, 60, tags=["a"]),
    "set_many": lambda cache, number: cache.set_many({f"s {number} {each}": each for each in range(20)}, 60),
    "get_many": lambda cache, number: cache.get_many([f"s {number} {each}" for each in range(20)]),
    "incr": lambda cache, _: cache.incr("counter", default=0),
    "touch": lambda cache, _: cache.touch("counter", 60),
    "delete": lambda cache, number: cache.delete(f"s {number}"),
    "invalidate_tags": lambda cache, _: cache.invalidate_tags("a", "b"),
}


# Afterwards ---------------------------------------------------------------------------------


class Faults(dict[str, list[str]]):
    """Promises that did not hold, by operation."""

    def note(self, name: str, fault: str) -> None:
        """Note a fault."""
        found = self.setdefault(name, [])
        if fault not in found:
            found.append(fault)


async def until_true(is_so: Callable[[], Awaitable[bool]], *, is_async: bool) -> bool:
    """Wait for something that is to come true at once; return whether it did."""
    deadline = time.monotonic() + AT_ONCE
    while not await is_so():
        if time.monotonic() > deadline:
            return False
        if is_async:
            await asyncio.sleep(0.001)
        else:
            time.sleep(0.001)
    return True


async def check(cache: Driver, name: str, number: int, faults: Faults) -> None:
    """Note what an operation that was cut short has left behind."""
    if name.startswith(("get_or_set", "refresh")):
        await _check_key(cache, name, number, faults)
    if name == "lock":
        await _check_lock(cache, number, faults)
    if name == "transaction":
        await _check_transaction(cache, number, faults)
    told = random.random()
    await cache.set("told", told)
    if await cache.get("told") != told:
        faults.note(name, "the next read has another's reply")


async def _check_key(cache: Driver, name: str, number: int, faults: Faults) -> None:
    hooks = cache.cache._overlay or cache.cache

    async def is_free() -> bool:
        for key in (f"k {number}", f"l {number}"):
            storage_key = cache.cache.make_key(key)
            found = await hooks._aget(storage_key) if cache.is_async else hooks._get(storage_key)
            if type(found) is Envelope and found.leased_until > timeouts.now():
                return False
        return True

    if not await until_true(is_free, is_async=cache.is_async):
        faults.note(name, "a lease is left")
    try:
        if await cache.get_or_set(f"k {number}", computing(cache), hard_timeout=AT_ONCE) != "value":
            faults.note(name, "the next caller gets another value")
    except ComputationTimeoutError:
        faults.note(name, "the next caller waits")


async def _check_lock(cache: Driver, number: int, faults: Faults) -> None:
    lock = cache.cache.lock(f"lock {number}", timeout=60)
    if cache.is_async:
        is_ours = await lock.aacquire(blocking_timeout=AT_ONCE)
    else:
        is_ours = lock.acquire(blocking_timeout=AT_ONCE)
    if not is_ours:
        faults.note("lock", "it is held still")
    elif cache.is_async:
        await lock.arelease()
    else:
        lock.release()


async def _check_transaction(cache: Driver, number: int, faults: Faults) -> None:
    # An entry may be gone, but none may be left as it was where the other one has been stored.
    if {await cache.get(f"ta {number}"), await cache.get(f"tb {number}")} == {"old", "new"}:
        faults.note("transaction", "half of it is stored")


def check_process(cache: BaseCache, faults: Faults) -> None:
    """Note what is left in the process when all is over."""
    others = [thread.name for thread in threading.enumerate() if not thread.name.startswith(OURS)]
    if others:
        faults.note("threads", f"left: {others}")
    if cache.engine.flights.has_any:
        faults.note("flights", "a computation is under way still")
    for engine in (cache.engine, *cache.engine.parts):
        for pool in [engine, *vars(engine).values()]:
            if hasattr(pool, "take") and hasattr(pool, "give_back") and hasattr(pool, "_limit"):
                _check_pool(pool, faults)
    invariants = getattr(cache, "_check_invariants", lambda: None)
    try:
        invariants()
    except AssertionError as error:
        faults.note("invariants", str(error)[:500])


def _check_pool(pool: Any, faults: Faults) -> None:
    """Take all connections that a pool may have, and give them back."""
    before, pool._patience = pool._patience, AT_ONCE
    taken = []
    try:
        for _ in range(pool._limit):
            taken.append(pool.take()[0])  # noqa: PERF401 -- those taken before an error go back
    except Exception as error:
        faults.note("pool", f"{len(taken)} of {pool._limit} connections are to be had: {error!r:.200}")
    finally:
        pool._patience = before
        for connection in taken:
            pool.give_back(connection)


# Cancelling ---------------------------------------------------------------------------------

Cut: TypeAlias = Callable[["asyncio.Future[Any]"], Awaitable[Any]]


async def cancel_all(cache: BaseCache, cuts: list[Cut], pipe: Any) -> Faults:
    """Cut each operation short in each of these ways; return the faults."""
    faults, driver, number = Faults(), Driver(cache, "async"), 0
    for name, operation in OPERATIONS.items():
        for cut in cuts:
            number += 1
            pipe.send(f"{name}, case {number}")
            task = asyncio.ensure_future(operation(driver, number))
            await cut(task)
            outcome: Any = (await asyncio.gather(task, return_exceptions=True))[0]
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                faults.note(name, f"raises {outcome!r:.200}")
            pipe.send(f"the check after {name}, case {number}")
            await check(driver, name, number, faults)
            if name in faults:
                break  # a check that fails takes long

    async def is_alone() -> bool:
        return len(asyncio.all_tasks()) == 1

    pipe.send("the end")
    if not await until_true(is_alone, is_async=True):
        faults.note("tasks", f"left: {[task.get_name() for task in asyncio.all_tasks()]}")
    await asyncio.to_thread(check_process, cache, faults)
    return faults


def after(turns: int, *, again: bool = False) -> Cut:
    """Cancel after so many turns; `again` at each later one, too, as long as the task lasts."""

    async def cut(task: "asyncio.Future[Any]") -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        while again and not task.done():
            await asyncio.sleep(0)
            task.cancel()

    return cut


def in_seconds(seconds: float, *, again: bool = False) -> Cut:
    """Cancel after some time; `again` as after()."""

    async def cut(task: "asyncio.Future[Any]") -> None:
        await asyncio.sleep(seconds)
        await after(0, again=again)(task)

    return cut


def cancel_in_turn(cache: BaseCache, _: int, pipe: Any) -> dict[str, list[str]]:
    """Cancel after each number of turns."""
    return dict(asyncio.run(cancel_all(cache, [after(turns) for turns in range(TURNS)], pipe)))


def cancel_at_random(cache: BaseCache, seed: int, pipe: Any) -> dict[str, list[str]]:
    """Cancel at any moment."""
    chance = chance_of(seed)
    return dict(asyncio.run(cancel_all(cache, [in_seconds(chance.random() * 0.004) for _ in range(MOMENTS)], pipe)))


def cancel_for_good(cache: BaseCache, seed: int, pipe: Any) -> dict[str, list[str]]:
    """Cancel, and go on cancelling."""
    chance = chance_of(seed)
    cuts = [after(turns, again=True) for turns in (1, 3)]
    cuts += [in_seconds(chance.random() * 0.003, again=True) for _ in range(MOMENTS)]
    return dict(asyncio.run(cancel_all(cache, cuts, pipe)))


# Raising ------------------------------------------------------------------------------------


class Alarm:
    """A signal's handler that raises an exception, where Python looks for signals: not within every instruction."""

    def __init__(self) -> None:
        self._error: BaseException | None = None
        self.has_rung = False
        signal.signal(signal.SIGALRM, self._ring)
        sys.unraisablehook = self._lose

    def _lose(self, _: object) -> None:
        self.has_rung = False  # within a destructor, whose errors Python gives to nobody

    def _ring(self, *_: object) -> None:
        if (error := self._error) is not None:
            self._error, self.has_rung = None, True
            raise error

    def cut(self, operation: Awaitable[Any], error: BaseException, seconds: float) -> BaseException | None:
        """Run an operation that never waits, and raise the error in so many seconds; return the error it ends with."""
        coroutine: Any = operation
        try:
            try:
                self._error, self.has_rung = error, False
                signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))
                with suppress(StopIteration):
                    coroutine.send(None)
            finally:
                self._error = None
        except BaseException as raised:
            return raised
        return None


def raise_anywhere(cache: BaseCache, seed: int, pipe: Any) -> dict[str, list[str]]:
    """Raise exceptions out of a signal handler, at random moments of each operation."""
    faults, driver, chance, number, alarm = Faults(), Driver(cache, "sync"), chance_of(seed), 0, Alarm()
    for name, operation in OPERATIONS.items():
        lasts = []
        for _ in range(3):
            number += 1
            begun = time.perf_counter()
            run_to_its_end(operation(driver, number))
            lasts.append(time.perf_counter() - begun)
        for moment in range(3 * MOMENTS):
            number += 1
            pipe.send(f"{name}, case {number}")
            error = (CutShortError, CutShortExit)[moment % 2]("cut short")
            raised = alarm.cut(operation(driver, number), error, chance.random() * sorted(lasts)[1])
            if raised is not None and raised is not error:
                faults.note(name, f"raises {raised!r:.200}")
            elif raised is None and alarm.has_rung:
                faults.note(name, f"swallows what a handler raises: {type(error).__name__}")
            error.__traceback__ = None  # its caller has done with it, and with the frames that it leads through
            pipe.send(f"the check after {name}, case {number}")
            run_to_its_end(check(driver, name, number, faults))
            if name in faults:
                break  # a check that fails takes long
    pipe.send("the end")
    check_process(cache, faults)
    return dict(faults)
