"""One computation per key, however many ask for it at once.

When a hot key expires, every caller misses and every caller computes: a stampede.
Here the first to miss becomes the *leader* of a *flight* and computes; the others
in this process wait for the leader's result (see ``flights``). Among processes and
hosts the leaders compete for a *lease*, a mark in the shared entry with a time at which it ends, so
that a leader who dies delays the others by at most the lease. What is computed is
stored in the place of the mark alone: a delete meanwhile removes the mark, and so
keeps out what was computed from before.

The steps are written once, for synchronous and asynchronous callers: see ``steps``.

Source: the lease follows "Scaling Memcache at Facebook" (NSDI 2013), section 3.2.1,
by compare-and-set in the place of a token of the server's.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any, Final

from storeroom import timeouts
from storeroom.computation import Computation, Work
from storeroom.exceptions import ComputationTimeoutError
from storeroom.flights import AbandonedError, Flight
from storeroom.hooks import MISSING
from storeroom.steps import Steps

__all__ = ["LEASE_SECONDS", "compute_anew", "compute_once", "fly", "follow"]

LEASE_SECONDS = 30.0
"""How long a dead leader can delay the others: longer than most computations, so that a
living leader seldom loses its lease, and short enough to wait for."""

POLL_SECONDS: Final = (0.001, 0.05)
"""How long those without the lease sleep between looks: doubling from the first to the last."""


def compute_once(work: Work, *, blocking: bool) -> Steps[Any]:
    """Return the key's value, computing it if nobody else does.

    Args:
        work: what there is to do.
        blocking: whether the caller waits with its whole thread, not as a task.
    """
    began_before = True
    while True:
        place = work.flights.join(work.key, blocking=blocking)
        if place.part != "follows":
            return (yield from fly(work, place.flight, is_leased=place.part == "leads"))
        try:
            leaders = yield from follow(place.flight, None)
        except AbandonedError:
            continue
        finally:
            work.flights.leave(place)
        # A value of one's own where it was stored: callers must not share an object that can be changed.
        value = yield from work.read()
        if value is not MISSING:
            return value
        if not (place.flight.is_for_storage and began_before):
            return leaders
        # It was deleted, or a tag invalidated, since the leader began; perhaps by this very caller, before it asked.
        began_before = False


def compute_anew(work: Computation) -> Steps[Any]:
    """Return the key's value, computed by this caller whatever is stored, and whoever else computes.

    What others compute may have begun before the change that this caller knows of: the lease is taken from them.
    """
    flight = work.flights.apart(work.key)
    try:
        yield from work.seize_lease(timeouts.now() + LEASE_SECONDS)
        value = yield from work.compute(flight)
        yield from work.withdraw()
        work.flights.resume(work.key)
    finally:
        work.flights.land(flight)
        yield from work.give_lease_back()
    return value


def follow(flight: Flight, seconds: float | None) -> Steps[Any]:
    """Wait for a flight of this process; return its result or raise its error.

    Raises:
        ComputationTimeoutError: it takes longer than `seconds`.
    """
    return (yield _Waiting(flight), "result", (seconds,))


def fly(
    work: Work,
    flight: Flight,
    *,
    is_leased: bool,
    waits: bool = True,
    on_error: Callable[[Exception], None] | None = None,
) -> Steps[Any]:
    """Lead a flight, and land it whatever happens.

    Args:
        work: what there is to do.
        flight: the flight.
        is_leased: whether to agree with other processes on who computes.
        waits: whether to wait for one that does; else AbandonedError is raised.
        on_error: is told of an error before the next flight can begin.
    """
    try:
        value = yield from _lead(work, flight, is_leased=is_leased, waits=waits)
    except Exception as error:
        if on_error is not None:
            on_error(error)
        work.flights.land(flight, error=error)
        raise
    except BaseException:
        work.flights.land(flight, error=AbandonedError())
        raise
    work.flights.land(flight, value)
    return value


def _lead(work: Work, flight: Flight, *, is_leased: bool, waits: bool) -> Steps[Any]:
    """Compute and store, or wait for another process that does: the first to hold the lease computes."""
    pause, longest = POLL_SECONDS
    deadline = timeouts.now() + LEASE_SECONDS
    try:
        while is_leased and not (yield from work.take_lease(timeouts.now() + LEASE_SECONDS)):
            value = yield from work.read()
            if value is not MISSING:
                flight.is_for_storage = True
                return value
            if not waits:
                raise AbandonedError
            if timeouts.now() >= deadline:
                break  # leaders come and go without a value, or the storage takes no lease: wait no longer
            yield _CLOCK, "pause", (pause,)
            pause = min(2 * pause, longest)
        return (yield from work.compute(flight))
    finally:
        yield from work.give_lease_back()


class _Clock:
    """Lets time pass."""

    def pause(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)

    async def apause(self, seconds: float) -> None:
        """See pause()."""
        import asyncio  # noqa: PLC0415 -- a synchronous program need not load it

        await asyncio.sleep(seconds)


_CLOCK: Final = _Clock()


class _Waiting:
    """Waits for a flight of this process."""

    def __init__(self, flight: Flight) -> None:
        self._flight = flight

    def result(self, seconds: float | None) -> Any:
        """Return the leader's result or raise its error."""
        try:
            return self._flight.future.result(seconds)
        except TimeoutError:
            if self._flight.future.done():  # the computation's own
                raise
            raise _timed_out(seconds) from None

    async def aresult(self, seconds: float | None) -> Any:
        """See result(); the event loop goes on."""
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

        self._flight.future.add_done_callback(wake)
        try:
            await asyncio.wait_for(landed, seconds)
        except TimeoutError:
            raise _timed_out(seconds) from None
        return self._flight.future.result()


def _timed_out(seconds: float | None) -> ComputationTimeoutError:
    return ComputationTimeoutError(
        f"The computation takes longer than {seconds} seconds. It goes on, and its result is stored."
    )
