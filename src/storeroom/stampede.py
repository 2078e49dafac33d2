"""One computation per key, however many ask for it at once.

When a hot key expires, every caller misses and every caller computes: a stampede.
Here the first to miss becomes the *leader* of a *flight* and computes; the others
in this process wait for the leader's result. Among processes and hosts the leaders
compete for a *lease*, an entry added to the shared storage with an owner's token and
a timeout, so that a leader who dies delays the others by at most the lease.

The steps are written once, as a generator that yields what is to be done; a
synchronous and an asynchronous driver do it.

Source: the coalescing is Go's ``singleflight``; the lease follows "Scaling Memcache
at Facebook" (NSDI 2013), section 3.2.1, with an owner's token in place of the
server's.
"""

import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Final

from storeroom import timeouts
from storeroom.exceptions import ComputationCycleError
from storeroom.hooks import MISSING

if TYPE_CHECKING:
    from concurrent.futures import Future

    from storeroom.base import BaseCache
    from storeroom.timeouts import Timeout

__all__ = ["LEASE_SECONDS", "Computation", "Flights", "acompute_once", "compute_once"]

LEASE_SECONDS: Final = 30.0
"""How long a dead leader can delay the others: longer than most computations, so that a
living leader seldom loses its lease, and short enough to wait for."""

POLL_SECONDS: Final = (0.001, 0.05)
"""How long those without the lease sleep between looks: doubling from the first to the last."""

Step = tuple[str, tuple[Any, ...]]


class Flight:
    """A computation under way in this process: who does it, and its result to come."""

    __slots__ = ("future", "loop", "owner")

    def __init__(self, owner: object) -> None:
        """Start a flight led by `owner`, a thread's number or a task."""
        from concurrent.futures import Future  # noqa: PLC0415 -- 5 ms that only a miss need spend

        self.owner = owner
        self.loop = None if isinstance(owner, int) else _running_loop()
        self.future: Future[Any] = Future()


def _running_loop() -> object:
    """Return the event loop that runs in this thread, or None; without loading asyncio for it."""
    asyncio = sys.modules.get("asyncio")
    return asyncio._get_running_loop() if asyncio else None  # noqa: SLF001 -- documented for event loop code


class _AbandonedError(Exception):
    """The leader was cancelled or interrupted: those who wait begin anew."""


class Flights:
    """The computations of one engine that are under way in this process, by storage key."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self._by_key: dict[str, Flight] = {}
        self._waiting: dict[object, Flight] = {}

    def join(self, key: str, caller: object) -> tuple[Flight | None, bool]:
        """Return the key's flight and whether the caller leads it.

        There is no flight to wait for where a synchronous caller would block the very
        event loop in which the leader runs.

        Raises:
            ComputationCycleError: waiting would never end, as the flight's leader waits,
                directly or through others, for this caller.
        """
        with self._lock:
            flight = self._by_key.get(key)
            if flight is None:
                flight = self._by_key[key] = Flight(caller)
                return flight, True
            self._refuse_cycle(flight, caller)
            if isinstance(caller, int) and flight.loop is not None and flight.loop is _running_loop():
                return None, False
            self._waiting[caller] = flight
            return flight, False

    def _refuse_cycle(self, flight: Flight, caller: object) -> None:
        ahead: Flight | None = flight
        while ahead is not None:
            if ahead.owner == caller:
                raise ComputationCycleError(
                    "get_or_set() was called for a key whose value is being computed by this very caller: "
                    "the computation would wait for itself. Compute the inner value without the cache, "
                    "or under another key."
                )
            ahead = self._waiting.get(ahead.owner)

    def leave(self, caller: object) -> None:
        """Note that the caller waits no longer."""
        with self._lock:
            self._waiting.pop(caller, None)

    def land(self, key: str, flight: Flight) -> None:
        """End the flight: the next caller who misses leads a new one."""
        with self._lock:
            if self._by_key.get(key) is flight:
                del self._by_key[key]

    def reset(self) -> None:
        """Forget everything, in a child process: whoever led here stayed in the parent."""
        self.__init__()  # type: ignore[misc]


class Computation:
    """What there is to do for one key: each step, and its asynchronous twin."""

    def __init__(
        self, cache: "BaseCache", key: object, default: Any, timeout: "Timeout", version: int | None
    ) -> None:
        """Prepare to compute what `default` says, for get_or_set() of `cache`."""
        self._cache, self._typed_key, self._default = cache, key, default
        self._timeout, self._version = timeout, version
        self.key = cache._storage_key(key, version)  # noqa: SLF001 -- the cache's own mechanism
        self.flights = cache._flights  # noqa: SLF001
        self.is_shared = cache.is_shared
        # No storage key that a program makes begins like this: keys() and clear() pass it by.
        self._lease_key = f"\x00lease\x00{self.key}"

    def read(self) -> Any:
        """Return the stored value, or MISSING."""
        return self._cache._get(self.key)  # noqa: SLF001

    async def aread(self) -> Any:
        """See read()."""
        return await self._cache._aget(self.key)  # noqa: SLF001

    def compute(self) -> Any:
        """Call the caller's function, or take the value that was given in its place."""
        value = self._default() if callable(self._default) else self._default
        if isinstance(value, Coroutine):
            value.close()
            raise TypeError(
                f"get_or_set() of key {self._typed_key!r} was given a coroutine function; use aget_or_set()."
            )
        return value

    async def acompute(self) -> Any:
        """See compute(); what the function returns is awaited where it can be."""
        value = self._default() if callable(self._default) else self._default
        return await value if hasattr(type(value), "__await__") else value

    def store(self, value: Any) -> Any:
        """Add the value; return what is stored then, as another writer may have come first."""
        if self._cache.add(self._typed_key, value, self._timeout, self._version):
            return value
        return self._cache.get(self._typed_key, value, self._version)

    async def astore(self, value: Any) -> Any:
        """See store()."""
        if await self._cache.aadd(self._typed_key, value, self._timeout, self._version):
            return value
        return await self._cache.aget(self._typed_key, value, self._version)

    def lease(self, token: str) -> bool:
        """Try to become the one who computes, among all that share the storage."""
        return self._cache._add(self._lease_key, token, timeouts.now() + LEASE_SECONDS)  # noqa: SLF001

    async def alease(self, token: str) -> bool:
        """See lease()."""
        return await self._cache._aadd(self._lease_key, token, timeouts.now() + LEASE_SECONDS)  # noqa: SLF001

    def release(self, token: str) -> None:
        """Give the lease back if it is still ours."""
        self._cache._compare_delete(self._lease_key, token)  # noqa: SLF001

    async def arelease(self, token: str) -> None:
        """See release()."""
        await self._cache._acompare_delete(self._lease_key, token)  # noqa: SLF001

    def follow(self, flight: Flight) -> Any:
        """Wait for another caller of this process; return its result or raise its error."""
        return flight.future.result()

    async def afollow(self, flight: Flight) -> Any:
        """See follow(); the event loop goes on."""
        import asyncio  # noqa: PLC0415 -- a synchronous program need not load it

        # Shielded: a waiter that is cancelled must not cancel the flight for the others.
        return await asyncio.shield(asyncio.wrap_future(flight.future))

    def pause(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)

    async def apause(self, seconds: float) -> None:
        """See pause()."""
        import asyncio  # noqa: PLC0415 -- a synchronous program need not load it

        await asyncio.sleep(seconds)


def _steps(work: Computation, caller: object) -> Generator[Step, Any, Any]:
    """Yield what is to be done next, get its result sent back, and return the value."""
    while True:
        flight, leads = work.flights.join(work.key, caller)
        if leads:
            break
        if flight is None:
            return (yield from _lead(work, is_shared=False))
        try:
            return (yield "follow", (flight,))
        except _AbandonedError:
            continue
        finally:
            work.flights.leave(caller)
    assert flight is not None  # noqa: S101 -- a leader has one
    try:
        value = yield from _lead(work, is_shared=work.is_shared)
    except Exception as error:
        work.flights.land(work.key, flight)
        flight.future.set_exception(error)
        raise
    except BaseException:
        work.flights.land(work.key, flight)
        flight.future.set_exception(_AbandonedError())
        raise
    work.flights.land(work.key, flight)
    flight.future.set_result(value)
    return value


def _lead(work: Computation, *, is_shared: bool) -> Generator[Step, Any, Any]:
    token = f"{os.getpid():x}-{os.urandom(8).hex()}"
    pause, longest = POLL_SECONDS
    while is_shared and not (yield "lease", (token,)):
        yield "pause", (pause,)
        pause = min(2 * pause, longest)
        value = yield "read", ()
        if value is not MISSING:
            return value
    try:
        # Somebody may have stored it between this caller's miss and its lead.
        value = yield "read", ()
        if value is MISSING:
            computed = yield "compute", ()
            value = yield "store", (computed,)
        return value
    finally:
        if is_shared:
            yield "release", (token,)


def compute_once(work: Computation) -> Any:
    """Return the key's value, computing it if nobody else does."""
    steps = _steps(work, threading.get_ident())
    try:
        method, args = next(steps)
        while True:
            try:
                result = getattr(work, method)(*args)
            except BaseException as error:  # noqa: BLE001 -- the generator decides, and raises it again
                method, args = steps.throw(error)
            else:
                method, args = steps.send(result)
    except StopIteration as stop:
        return stop.value


async def acompute_once(work: Computation) -> Any:
    """Return the key's value, as compute_once() does; every step is awaited."""
    import asyncio  # noqa: PLC0415 -- a synchronous program need not load it

    steps = _steps(work, asyncio.current_task())
    try:
        method, args = next(steps)
        while True:
            step: Callable[..., Awaitable[Any]] = getattr(work, f"a{method}")
            try:
                result = await step(*args)
            except BaseException as error:  # noqa: BLE001 -- the generator decides, and raises it again
                method, args = steps.throw(error)
            else:
                method, args = steps.send(result)
    except StopIteration as stop:
        return stop.value
