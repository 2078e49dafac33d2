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
from collections.abc import Callable, Collection
from typing import Any, Final

from storeroom import timeouts
from storeroom.computing.one_key import Computation, Work
from storeroom.engines.flights import AbandonedError, Flight, Landing
from storeroom.exceptions import ComputationTimeoutError
from storeroom.storage.hooks import MISSING
from storeroom.storage.steps import Steps

__all__ = ["LEASE_SECONDS", "compute_anew", "compute_once", "fly", "follow"]

LEASE_SECONDS = 30.0
"""How long a dead leader can delay the others: longer than most computations, so that a
living leader seldom loses its lease, and short enough to wait for."""

POLL_SECONDS: Final = (0.001, 0.05)
"""How long those without the lease sleep between looks: doubling from the first to the last."""


def compute_once(work: Work, *, blocking: bool, values: dict[str, Any] | None = None) -> Steps[dict[str, Any]]:
    """Return the values by storage key, computing those that nobody else does.

    What nobody in this process computes is led first, and only then others are waited for. A key that the result
    does not have has no value.

    Args:
        work: what there is to do.
        blocking: whether the caller waits with its whole thread, not as a task.
        values: is given what is found as soon as it is, MISSING for a key that has no value: what is known before an
            error ends this.
    """
    values = {} if values is None else values
    missing, asked_again = work.storage_keys, set[str]()
    while missing:
        gone: Collection[str] = ()
        place = work.flights.join(missing, blocking=blocking)
        part = work.part([key for key in missing if key in place.flight.keys])
        if place.part != "follows":
            landing = yield from fly(part, place.flight, is_leased=place.part == "leads")
            values |= landing.values
        else:
            try:
                landing = yield from follow(place.flight, None)
            except AbandonedError:
                continue
            finally:
                work.flights.leave(place)
            # Values of one's own where they were stored: callers must not share an object that can be changed.
            found = yield from part.read()
            # What is not there was deleted, or a tag invalidated, since the leader began; perhaps by this very caller,
            # before it asked.
            gone = set(place.flight.for_storage).difference(found, asked_again)
            asked_again |= gone
            theirs = landing.values.keys() - gone
            values |= {key: landing.values[key] for key in part.storage_keys if key in theirs} | found
        absent = place.flight.keys.difference(landing.values, landing.unsettled, gone) if work.may_lack_values else ()
        values |= {key: MISSING for key in part.storage_keys if key in absent and key not in values}
        missing = [key for key in missing if key not in values]
    return {key: value for key, value in values.items() if value is not MISSING}


def compute_anew(work: Computation) -> Steps[Any]:
    """Return the key's value, computed by this caller whatever is stored, and whoever else computes.

    What others compute may have begun before the change that this caller knows of: the lease is taken from them.
    """
    flight = work.flights.apart(work.key)
    try:
        yield from work.seize_lease(timeouts.now() + LEASE_SECONDS)
        values = yield from work.compute(flight, work.storage_keys)
        yield from work.withdraw()
        work.flights.resume(work.key)
    finally:
        work.flights.land(flight, Landing({}))
        yield from work.give_leases_back()
    return values[work.key]


def follow(flight: Flight, seconds: float | None) -> Steps[Landing]:
    """Wait for a flight of this process; return its result or raise its error.

    Raises:
        ComputationTimeoutError: it takes longer than `seconds`.
    """
    landing: Landing = yield _Waiting(flight), "result", (seconds,)
    return landing


def fly(
    work: Work,
    flight: Flight,
    *,
    is_leased: bool,
    waits: bool = True,
    on_error: Callable[[Exception], None] | None = None,
) -> Steps[Landing]:
    """Lead a flight, and land it whatever happens.

    Args:
        work: what there is to do: the keys of the flight.
        flight: the flight.
        is_leased: whether to agree with other processes on who computes.
        waits: whether to wait for one that does; else AbandonedError is raised.
        on_error: is told of an error before the next flight can begin.
    """
    try:
        landing = yield from _lead(work, flight, is_leased=is_leased, waits=waits)
    except Exception as error:
        if on_error is not None:
            on_error(error)
        work.flights.land(flight, error)
        raise
    except BaseException:
        work.flights.land(flight, AbandonedError())
        raise
    work.flights.land(flight, landing)
    return landing


def _lead(work: Work, flight: Flight, *, is_leased: bool, waits: bool) -> Steps[Landing]:
    """Compute and store what can be leased. If nothing can, wait for the other processes that compute it."""
    pause, longest = POLL_SECONDS
    deadline = timeouts.now() + LEASE_SECONDS
    keys = ours = work.storage_keys
    try:
        while is_leased and not (ours := (yield from work.take_leases(timeouts.now() + LEASE_SECONDS))):
            found = yield from work.read()
            if found:
                flight.for_storage = found.keys()
                return Landing(found, [key for key in keys if key not in found])
            if not waits:
                raise AbandonedError
            if timeouts.now() >= deadline:
                ours = keys  # leaders come and go without a value, or the storage takes no lease: wait no longer
                break
            yield _CLOCK, "pause", (pause,)
            pause = min(2 * pause, longest)
        values = yield from work.compute(flight, ours)
        return Landing(values, () if len(ours) == len(keys) else set(keys).difference(ours))
    finally:
        yield from work.give_leases_back()


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

    def result(self, seconds: float | None) -> Landing:
        """Return the leader's result or raise its error."""
        try:
            return self._flight.future.result(seconds)
        except TimeoutError:
            if not self._flight.future.done():
                raise _timed_out(seconds) from None
            return self._flight.future.result()  # the error is the computation's own, or it has landed just now

    async def aresult(self, seconds: float | None) -> Landing:
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
            if not self._flight.future.done():
                raise _timed_out(seconds) from None
        return self._flight.future.result()


def _timed_out(seconds: float | None) -> ComputationTimeoutError:
    return ComputationTimeoutError(
        f"The computation takes longer than {seconds} seconds. It goes on, and its result is stored."
    )
