"""One computation per key, however many callers ask for it at once.

When a hot key expires, every caller misses and every caller computes: a stampede. Here the first to miss becomes the
*leader* of a *flight* and computes; the others in this process wait for its result (see ``flights``). Among processes
and hosts the leaders compete for a *lease* (see ``leases``): an envelope in the shared entry, with a time at which it
ends, so that a leader who dies delays the others by no more. It is renewed while the leader computes (``renewals``).

Source: the lease follows "Scaling Memcache at Facebook" (NSDI 2013), section 3.2.1, by compare-and-set; there it is a
token of the server's.
"""

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any, Final

from storeroom import timeouts
from storeroom.computing.one_key import Computation
from storeroom.computing.renewals import renewed
from storeroom.computing.work import Work
from storeroom.engines import background, flights
from storeroom.engines.flights import AbandonedError, Flight, Landing, Role, Wait
from storeroom.exceptions import ComputationTimeoutError, StorageError
from storeroom.storage.hooks import MISSING
from storeroom.storage.interruptions import is_from_outside
from storeroom.storage.steps import Steps, pause

__all__ = ["LEASE_SECONDS", "compute_anew", "compute_once", "fly", "follow"]

LEASE_SECONDS = 5.0
"""Seconds that a dead leader can delay the others: long enough for a renewal that a busy machine or server holds up."""

POLL_SECONDS: Final = (0.001, 0.05)
"""Seconds that leaders without the lease sleep between looks: doubling from the first to the last."""

LOOK_SECONDS: Final = 0.25
"""Seconds between looks of a follower at its flight, which may never land."""

POOL_SECONDS: Final = 1.0
"""Seconds after which a follower looks whether it works for its own leader, in a thread pool."""


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
        wait = Wait()
        try:
            role = work.flights.join(missing, wait, blocking=blocking, leader=work, flies=True)
            part = work.part([key for key in missing if key in role.flight.keys])
            if role.part == "follows":
                values |= yield from _followed(part, role, asked_again)
            else:
                landing = yield from fly(part, role.flight, is_leased=role.part == "leads")
                values |= {**_without_value(part, landing), **landing.values}
        finally:
            wait.is_over = True
        missing = [key for key in missing if key not in values]
    return {key: value for key, value in values.items() if value is not MISSING}


def _followed(work: Work, role: Role, asked_again: set[str]) -> Steps[dict[str, Any]]:
    """Return the values of another's flight, MISSING for keys without one; keys that are gone are added to the set."""
    work.note_wait()
    try:
        landing = yield from follow(role.flight, None)
    except AbandonedError:
        return {}
    finally:
        role.wait.is_over = True
    # Values of one's own where they were stored: callers must not share an object that can be changed.
    try:
        found, written = (yield from work.read()), role.flight.for_storage
    except StorageError:  # the value that was computed is there all the same
        found, written = {}, ()
    # An absent key was deleted, or its tag invalidated, since the leader began: perhaps before this caller asked.
    gone = set(written).difference(found, asked_again)
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
        yield from work.seize_lease(_lease_end(work))
        with renewed(work, flight, LEASE_SECONDS):
            values = yield from work.compute(flight, work.storage_keys)
        yield from work.withdraw()
        work.flights.resume(work.key)
    finally:
        try:
            work.flights.land(flight, Landing({}))
            yield from work.give_leases_back()
        finally:
            work.let_go()  # if the giving back itself was cut short
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
    except BaseException as error:
        # An error of the computation's own is its followers', too.
        outcome = error if isinstance(error, Exception) and not is_from_outside(error) else AbandonedError(error)
        work.let_go()  # if the giving back itself was cut short
        on_error(outcome)
        work.flights.land(flight, outcome)
        raise
    work.flights.land(flight, landing)
    return landing


def _lead(work: Work, flight: Flight, *, is_leased: bool, waits: bool) -> Steps[Landing]:
    """Compute and store the values of keys that can be leased. If none can, wait for the processes that compute."""
    keys = ours = work.storage_keys
    waiting: _Elsewhere | None = None
    try:
        while is_leased and not (ours := (yield from work.take_leases(_lease_end(work)))):
            found = yield from work.read()
            if found:
                flight.for_storage = found.keys()
                return Landing(found, [key for key in keys if key not in found])
            if not waits:
                raise AbandonedError
            if waiting is None:
                waiting = _Elsewhere(flight)
                work.note_wait()
            if waiting.is_over(max(lease.others_until for lease in work.leases.values())):
                ours = keys
                break
            yield from pause(waiting.pause())
        if waiting:
            waiting.end()
        with renewed(work, flight, LEASE_SECONDS):
            values = yield from work.compute(flight, ours)
        return Landing(values, () if len(ours) == len(keys) else set(keys).difference(ours))
    finally:
        if waiting:
            waiting.end()
        yield from work.give_leases_back()


class _Elsewhere:
    """A leader's wait for the leader of another process."""

    def __init__(self, flight: Flight) -> None:
        self._flight = flight
        self._seconds, self._longest = POLL_SECONDS
        self._patience, self._deadline = timeouts.now() + LEASE_SECONDS, timeouts.now() + flights.FLIGHT_SECONDS

    def is_over(self, others_until: float) -> bool:
        """Tell whether to wait no longer: leaders come and go without a value, or the storage takes no lease.

        The end of the lease that was seen is noted; 0 for none.
        """
        if others_until:
            self._flight.wait_elsewhere(others_until)
            self._patience = timeouts.now() + LEASE_SECONDS
        return timeouts.now() >= min(self._patience, self._deadline)

    def pause(self) -> float:
        """Return the seconds until the next look."""
        seconds, self._seconds = self._seconds, min(2 * self._seconds, self._longest)
        return seconds

    def end(self) -> None:
        """Note that it waits no longer."""
        self._flight.wait_elsewhere(None)


def _lease_end(work: Work) -> float:
    """Return the end of a lease that is taken now; one that nobody else sees need not be renewed."""
    return timeouts.now() + (LEASE_SECONDS if work.hooks.is_shared else flights.FLIGHT_SECONDS)


class _Waiting:
    """Waits for a flight of this process, looking now and then whether that can still land."""

    def __init__(self, flight: Flight) -> None:
        self._flight = flight

    def result(self, seconds: float | None) -> Landing:
        """Return the leader's result or raise its error."""
        flight, begun, look_at = self._flight, time.monotonic(), POOL_SECONDS
        left = self._until_look(begun, seconds)
        while True:
            try:
                return flight.future.result(left)
            except TimeoutError:
                if flight.future.done():
                    break  # the error is the computation's own, or it has landed just now
            if time.monotonic() - begun >= look_at:
                look_at *= 2
                flight.owner.check_pools(flight)
            left = self._look(begun, seconds)
        return flight.future.result()

    async def aresult(self, seconds: float | None) -> Landing:
        """See result(); the event loop goes on."""
        import asyncio  # noqa: PLC0415 -- a synchronous program need not load it

        loop, landed = asyncio.get_running_loop(), asyncio.Event()

        def wake(_: object) -> None:
            # A waiter that was cancelled may have left a loop that is closed by now.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(landed.set)

        self._flight.future.add_done_callback(wake)
        begun = time.monotonic()
        left = self._until_look(begun, seconds)
        while True:
            timer = loop.call_later(left, landed.set)
            try:
                await landed.wait()
            finally:
                timer.cancel()
            if self._flight.future.done():
                return self._flight.future.result()
            landed.clear()
            left = self._look(begun, seconds)

    def _until_look(self, begun: float, seconds: float | None) -> float:
        """Return the seconds until the next look, or the end of the wait."""
        left = math.inf if seconds is None else begun + seconds - time.monotonic()
        return min(LOOK_SECONDS, max(0.0, left))

    def _look(self, begun: float, seconds: float | None) -> float:
        """Give the flight up if it cannot land any more; return the seconds until the next look.

        Raises:
            ComputationTimeoutError: it takes longer than `seconds`.
        """
        flight = self._flight
        background.look_after()
        if flight.is_forsaken:
            flight.owner.give_up(flight)
        left = self._until_look(begun, seconds)
        if left <= 0 and not flight.future.done():
            raise _timed_out(seconds, flight)
        return left


def _timed_out(seconds: float | None, flight: Flight) -> ComputationTimeoutError:
    if flight.thread:
        return ComputationTimeoutError(
            f"The computation takes longer than {seconds} seconds. It goes on, and its result is stored."
        )
    return ComputationTimeoutError(
        f"The computation has not begun within {seconds} seconds: all worker threads of this process are busy, or "
        "another process computes the value. It is computed when its turn comes, and its result is stored."
    )
