"""One computation per key, however many ask for it at once.

When a hot key expires, every caller misses and every caller computes: a stampede.
Here the first to miss becomes the *leader* of a *flight* and computes; the others
in this process wait for the leader's result (see ``flights``). Among processes and hosts the leaders
compete for a *lease*, an entry added to the shared storage with an owner's token and
a timeout, so that a leader who dies delays the others by at most the lease.

The steps are written once, as a generator that yields what is to be done; a
synchronous and an asynchronous driver do it.

Source: the lease follows "Scaling Memcache at Facebook" (NSDI 2013), section 3.2.1,
with an owner's token in place of the server's.
"""

import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Final

from storeroom import timeouts
from storeroom.flights import AbandonedError, Flight, Flights, computing
from storeroom.hooks import MISSING
from storeroom.keys import LEASE_MARK

if TYPE_CHECKING:
    from storeroom.base import BaseCache
    from storeroom.timeouts import Timeout

__all__ = ["LEASE_SECONDS", "Computation", "Flights", "acompute_once", "compute_once"]

LEASE_SECONDS = 30.0
"""How long a dead leader can delay the others: longer than most computations, so that a
living leader seldom loses its lease, and short enough to wait for."""

POLL_SECONDS: Final = (0.001, 0.05)
"""How long those without the lease sleep between looks: doubling from the first to the last."""

Step = tuple[str, tuple[Any, ...]]


class Computation:
    """What there is to do for one key: each step, and its asynchronous twin."""

    def __init__(self, cache: "BaseCache", key: object, default: Any, timeout: "Timeout", version: int | None) -> None:
        """Prepare to compute what `default` says, for get_or_set() of `cache`."""
        self._cache, self._typed_key, self._default = cache, key, default
        self._timeout, self._version = timeout, version
        self.key = cache._storage_key(key, version)  # noqa: SLF001 -- the cache's own mechanism
        self.flights = cache._flights  # noqa: SLF001
        self.is_shared = cache.is_shared
        self._lease_key = f"{LEASE_MARK}{self.key}"

    def read(self) -> Any:
        """Return the stored value, or MISSING."""
        return self._cache._get(self.key)  # noqa: SLF001

    async def aread(self) -> Any:
        """See read()."""
        return await self._cache._aget(self.key)  # noqa: SLF001

    def compute(self, flight: Flight) -> Any:
        """Call the caller's function, or take the value that was given in its place."""
        outer = computing.set(flight)
        try:
            value = self._default() if callable(self._default) else self._default
        finally:
            computing.reset(outer)
        if isinstance(value, Coroutine):
            value.close()
            raise TypeError(
                f"get_or_set() of key {self._typed_key!r} was given a coroutine function; use aget_or_set()."
            )
        return value

    async def acompute(self, flight: Flight) -> Any:
        """See compute(); what the function returns is awaited where it can be."""
        outer = computing.set(flight)
        try:
            value = self._default() if callable(self._default) else self._default
            return await value if hasattr(type(value), "__await__") else value
        finally:
            computing.reset(outer)

    def store(self, value: Any) -> Any:
        """Add the value; return what is stored then, as another writer may have come first."""
        if self._cache.add(self._typed_key, value, self._timeout, self._version):
            return value
        stored = self.read()
        return value if stored is MISSING else stored

    async def astore(self, value: Any) -> Any:
        """See store()."""
        if await self._cache.aadd(self._typed_key, value, self._timeout, self._version):
            return value
        stored = await self.aread()
        return value if stored is MISSING else stored

    def lease(self, token: str) -> bool:
        """Try to become the one who computes, among all that share the storage."""
        return self._cache._lease(self._lease_key, token, timeouts.now() + LEASE_SECONDS)  # noqa: SLF001

    async def alease(self, token: str) -> bool:
        """See lease()."""
        return await self._cache._alease(self._lease_key, token, timeouts.now() + LEASE_SECONDS)  # noqa: SLF001

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

        loop = asyncio.get_running_loop()
        landed = loop.create_future()

        def settle() -> None:
            if not landed.done():
                landed.set_result(None)

        def wake(_: object) -> None:
            # A waiter that was cancelled may have left a loop that is closed by now.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle)

        flight.future.add_done_callback(wake)
        await landed
        return flight.future.result()

    def pause(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)

    async def apause(self, seconds: float) -> None:
        """See pause()."""
        import asyncio  # noqa: PLC0415 -- a synchronous program need not load it

        await asyncio.sleep(seconds)


def _steps(work: Computation, *, blocking: bool) -> Generator[Step, Any, Any]:
    """Yield what is to be done next, get its result sent back, and return the value."""
    while True:
        place = work.flights.join(work.key, blocking=blocking)
        if place.part != "follows":
            return (yield from _fly(work, place.flight, is_shared=work.is_shared and place.part == "leads"))
        try:
            leaders = yield "follow", (place.flight,)
        except AbandonedError:
            continue
        finally:
            work.flights.leave(place)
        # A value of one's own where it was stored: callers must not share an object that can be changed.
        value = yield "read", ()
        return leaders if value is MISSING else value


def _fly(work: Computation, flight: Flight, *, is_shared: bool) -> Generator[Step, Any, Any]:
    """Lead a flight, and land it whatever happens."""
    try:
        value = yield from _lead(flight, is_shared=is_shared)
    except Exception as error:
        work.flights.land(flight, error=error)
        raise
    except BaseException:
        work.flights.land(flight, error=AbandonedError())
        raise
    work.flights.land(flight, value)
    return value


def _lead(flight: Flight, *, is_shared: bool) -> Generator[Step, Any, Any]:
    """Compute and store, or wait for another process that does: the first to hold the lease computes."""
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
            computed = yield "compute", (flight,)
            value = yield "store", (computed,)
        return value
    finally:
        if is_shared:
            yield "release", (token,)


def compute_once(work: Computation) -> Any:
    """Return the key's value, computing it if nobody else does."""
    steps = _steps(work, blocking=True)
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
    steps = _steps(work, blocking=False)
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
