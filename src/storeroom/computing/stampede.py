"""One computation per key, however many callers ask for it at once.

When a hot key expires, every caller misses and every caller computes: a stampede. Here the first to miss becomes the
*leader* of a *flight* and computes; the others in this process wait for its result (see ``flights``). Among processes
and hosts the leaders compete for a *lease* (see ``leases``): an envelope in the shared entry, with a time at which it
ends, so that a leader who dies delays the others by no more.

Source: the lease follows "Scaling Memcache at Facebook" (NSDI 2013), section 3.2.1, by compare-and-set; there it is a
token of the server's.
"""

import contextlib
from collections.abc import Callable
from typing import Any, Final

from storeroom import timeouts
from storeroom.computing.one_key import Computation
from storeroom.computing.work import Work
from storeroom.engines.flights import AbandonedError, Flight, Landing, Role
from storeroom.exceptions import ComputationTimeoutError
from storeroom.storage.hooks import MISSING
from storeroom.storage.steps import Steps, pause

__all__ = ["LEASE_SECONDS", "compute_anew", "compute_once", "fly", "follow"]

LEASE_SECONDS = 30.0
"""Seconds that a dead leader can delay the others: longer than most computations, and short enough to wait for."""

POLL_SECONDS: Final = (0.001, 0.05)
"""Seconds that leaders without the lease sleep between looks: doubling from the first to the last."""


def compute_once(work: Work, *, blocking: bool, values: dict[str, Any] | None = None) -> Steps[dict[str, Any]]:
    """Return the values by storage key, computing those that nobody else does.

    Keys that nobody in this process computes are led first, and only then others are waited for. A key that the
    result does not have has no value.

    Args:
        work: the computation.
        blocking: whether the caller waits with its whole thread, not as a task.
        values: is given each value as soon as it is known, also before an error; MISSING for a key that has none.
    """
    values = {} if values is None else values
    missing, asked_again = work.storage_keys, set[str]()
    while missing:
        role = work.flights.join(missing, blocking=blocking)
        part = work.part([key for key in missing if key in role.flight.keys])
        if role.part == "follows":
            values |= yield from _followed(part, role, asked_again)
        else:
            landing = yield from fly(part, role.flight, is_leased=role.part == "leads")
            values |= {**_without_value(part, landing), **landing.values}
        missing = [key for key in missing if key not in values]
    return {key: value for key, value in values.items() if value is not MISSING}


def _followed(work: Work, role: Role, asked_again: set[str]) -> Steps[dict[str, Any]]:
    """Return the values of another's flight, MISSING for keys without one; keys that are gone are added to the set."""
    try:
        landing = yield from follow(role.flight, None)
    except AbandonedError:
        return {}
    finally:
        work.flights.leave(role)
    # Values of one's own where they were stored: callers must not share an object that can be changed.
    found = yield from work.read()
    # An absent key was deleted, or its tag invalidated, since the leader began: perhaps before this caller asked.
    gone = set(role.flight.for_storage).difference(found, asked_again)
    asked_again |= gone
    values = {**_without_value(work, landing), **landing.values, **found}
    return {key: values[key] for key in work.storage_keys if key in values and key not in gone}


def _without_value(work: Work, landing: Landing) -> dict[str, Any]:
    """Return MISSING for the keys that have turned out to have no value."""
    if not work.may_lack_values:
        return {}
    return dict.fromkeys(set(work.storage_keys).difference(landing.values, landing.unsettled), MISSING)


def compute_anew(work: Computation) -> Steps[Any]:
    """Return the key's value, computed by this caller whatever is stored, and whoever else computes.

    Others' computations may have begun before the change that this caller knows of: the lease is taken from them.
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
    on_error: Callable[[Exception], None] = lambda _: None,
) -> Steps[Landing]:
    """Lead a flight, and land it whatever happens; `on_error` is told of an error before the next one can begin.

    If it is leased, processes agree on the one that computes. The others wait, or AbandonedError is raised.
    """
    try:
        landing = yield from _lead(work, flight, is_leased=is_leased, waits=waits)
    except Exception as error:
        on_error(error)
        work.flights.land(flight, error)
        raise
    except BaseException:
        work.flights.land(flight, AbandonedError())
        raise
    work.flights.land(flight, landing)
    return landing


def _lead(work: Work, flight: Flight, *, is_leased: bool, waits: bool) -> Steps[Landing]:
    """Compute and store the values of keys that can be leased. If none can, wait for the processes that compute."""
    seconds, longest = POLL_SECONDS
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
            yield from pause(seconds)
            seconds = min(2 * seconds, longest)
        values = yield from work.compute(flight, ours)
        return Landing(values, () if len(ours) == len(keys) else set(keys).difference(ours))
    finally:
        yield from work.give_leases_back()


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

        loop, landed = asyncio.get_running_loop(), asyncio.Event()

        def wake(_: object) -> None:
            # A waiter that was cancelled may have left a loop that is closed by now.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(landed.set)

        self._flight.future.add_done_callback(wake)
        try:
            await asyncio.wait_for(landed.wait(), seconds)
        except TimeoutError:
            if not self._flight.future.done():
                raise _timed_out(seconds) from None
        return self._flight.future.result()


def _timed_out(seconds: float | None) -> ComputationTimeoutError:
    return ComputationTimeoutError(
        f"The computation takes longer than {seconds} seconds. It goes on, and its result is stored."
    )
