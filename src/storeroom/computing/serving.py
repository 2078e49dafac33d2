"""get_or_set(), once the key has been read: serve the entry, compute, or both.

A value that is computed while nobody waits, or only for a limited time, is computed by a background thread, or by a
task of the running event loop. If that loop ends before, a background thread begins anew; and where loops are known to
end, as with one for each request, a thread does it from the beginning.
"""

import sys
import time
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from storeroom import timeouts
from storeroom.computing import stampede
from storeroom.computing.decision import Decision, decide, draw
from storeroom.computing.errors import copy_of
from storeroom.computing.one_key import Computation
from storeroom.computing.work import Work
from storeroom.config.freshness import Freshness
from storeroom.engines import background
from storeroom.engines.counts import Counters
from storeroom.engines.families import Families
from storeroom.engines.flights import AbandonedError, Flight, Flights, Wait
from storeroom.exceptions import ComputationCycleError, ComputationTimeoutError
from storeroom.late import logger_of
from storeroom.storage import tags
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import StorageHooks
from storeroom.storage.interruptions import is_from_outside
from storeroom.storage.steps import Steps, arun, run

if TYPE_CHECKING:
    import asyncio

__all__ = ["drained", "judge", "note_failure", "note_served", "obtain", "refresh"]

SETTLED_SECONDS: Final = 5.0
"""Age from which on an event loop is taken for one that lives on, where others were seen to end."""

_log = logger_of("storeroom")


def judge(hooks: StorageHooks, storage_key: str, found: Any, options: Freshness) -> Steps[Decision]:
    """Return the decision about the entry that get_or_set() has read: an envelope or MISSING."""
    is_usable = type(found) is Envelope and found.has_value
    if is_usable and found.leased_until:
        hooks.flights.look_after(storage_key)
    if is_usable and found.tags:
        is_usable = yield from tags.are_current(hooks, found)
    return decide(
        found if is_usable else None,
        timeouts.now(),
        options,
        paused=hooks.flights.is_paused(storage_key),
        failed=options.error_timeout > 0 and hooks.flights.error_of(storage_key) is not None,
        draw=draw() if options.early else 1.0,
    )


def obtain(work: Computation, found: Any, decision: Decision, *, blocking: bool) -> Steps[Any]:
    """Return the value for get_or_set(), where the decision is not to serve the entry and do nothing else.

    The entry is an envelope or MISSING; `blocking` says that the caller waits with its whole thread, not as a task.
    """
    work.lease.found = found
    if decision is Decision.REFRESH:
        note_served(work.counters, work.terms.hit_families, work.typed[0], found)
        work.lease.replaces = found
        yield from refresh(work)
        return found.value
    work.note_misses()
    if decision is Decision.RAISE and (kept := work.flights.error_of(work.key)) is not None:
        raise copy_of(kept).with_traceback(None)
    stale = found if decision is Decision.COMPUTE_OR_SERVE else None
    value = yield from _computed(work, stale, blocking=blocking)
    work.note_answered_miss()
    return value


def _computed(work: Computation, stale: Envelope | None, *, blocking: bool) -> Steps[Any]:
    """Compute the value; where that fails, return the stale one, if there is one."""
    try:
        if work.terms.freshness.is_limited:
            value = yield from _compute_in_time(work, has_stale=stale is not None, blocking=blocking)
        else:
            value = (yield from stampede.compute_once(work, blocking=blocking))[work.key]
    except ComputationCycleError:
        raise
    except Exception as error:
        if is_from_outside(error):
            raise
        if stale is None:
            _keep_error(work, error)
            raise
        if not isinstance(error, ComputationTimeoutError):
            note_failure(work, error)
        work.counters.stale += 1
        return stale.value
    work.flights.resume(work.key)
    return value


def refresh(work: Work) -> Steps[None]:
    """Let the values be computed in the background, but for those that somebody computes already."""
    try:
        role = work.flights.join(work.storage_keys, Wait(is_over=True), blocking=False, leader=work)
    except ComputationCycleError:
        return  # asked for within the very computation
    if role.part == "leads":
        part = work.part([key for key in work.storage_keys if key in role.flight.keys])
        role.flight.lead(part)
        yield from _launch(part, role.flight, waits=False)
    elif role.part == "follows":
        background.look_after()


def _compute_in_time(work: Computation, *, has_stale: bool, blocking: bool) -> Steps[Any]:
    """Compute in the background, and wait for it as long as the options say."""
    limits = [work.terms.freshness.hard_timeout, work.terms.freshness.soft_timeout if has_stale else None]
    seconds = min((limit for limit in limits if limit is not None), default=None)
    while True:
        wait = Wait()
        try:
            role = work.flights.join(work.storage_keys, wait, blocking=blocking, leader=work)
            if role.part == "alone" or (
                role.part == "leads" and not (yield from _launch(work, role.flight, waits=True))
            ):
                # No thread is free to compute while this one watches the clock.
                return (yield from stampede.compute_once(work, blocking=blocking))[work.key]
            if role.part == "follows":
                work.note_wait()
            try:
                landing = yield from stampede.follow(role.flight, seconds)
            except AbandonedError as abandoned:
                if role.part == "leads" and abandoned.cause is not None:
                    raise abandoned.cause from None
                continue
            if work.key in landing.values:
                return landing.values[work.key]
        finally:
            wait.is_over = True


def _launch(work: Work, flight: Flight, *, waits: bool) -> Steps[bool]:
    """Let a flight go its way. Return False, having landed it, if there is nobody to fly it."""
    if (yield _LAUNCHER, "start", (work, flight, waits)):
        return True
    work.flights.land(flight, AbandonedError())
    return False


def _unattended(work: Work, flight: Flight, *, waits: bool) -> Steps[None]:
    """Compute where nobody takes the result or the error; followers get both from the flight.

    Only an exception that ends more than the computation is raised.
    """

    def note(error: Exception) -> None:
        if not isinstance(error, AbandonedError):
            note_failure(work, error)
            if isinstance(work, Computation):
                _keep_error(work, error)
        elif error.cause is not None and not flight.is_grounded and not _is_cancelled():
            note_failure(work, error.cause)

    # The function is the user's, and its error is noted.
    with suppress(Exception):
        yield from stampede.fly(work, flight, is_leased=True, waits=waits, on_error=note)
        for key in work.storage_keys:
            work.flights.resume(key)


def _is_cancelled() -> bool:
    """Tell whether this code runs in a task that is being cancelled; a CancelledError may be the function's own."""
    with suppress(RuntimeError, KeyError):  # there is no running loop
        task = sys.modules["asyncio"].current_task()
        return task is not None and task.cancelling() > 0
    return False


def _keep_error(work: Computation, error: Exception) -> None:
    """Remember the error if that is asked for; one of waiting too long is not the computation's."""
    seconds = work.terms.freshness.error_timeout
    if seconds and not isinstance(error, ComputationTimeoutError):
        work.flights.fail(work.key, copy_of(error), timeouts.now() + seconds)


def note_served(counters: Counters, families: Families | None, key: object, found: Envelope) -> None:
    """Count a hit of get_or_set(); an entry that is refreshed early is no stale one."""
    counters.reused += 1
    counters.stale += not found.is_fresh
    if families is not None:
        families.of(key).hits += 1


def note_failure(work: Work, error: BaseException) -> None:
    """Log the first of a series of failures, and leave the keys alone for a while."""
    work.counters.errors += 1
    keys = work.storage_keys
    if not work.flights.is_paused(keys[0]):
        _log.warning("The value of key %r cannot be computed; a stale one may be served.", keys[0], exc_info=error)
    for key in keys:
        work.flights.pause(key, timeouts.now() + work.terms.freshness.retry_pause)


class _Launcher:
    """Starts work that goes on when its caller is answered."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops = WeakKeyDictionary[Any, float]()  # since when they are known, where loops end

    def start(self, work: Work, flight: Flight, waits: bool) -> bool:
        """Let a background thread do the work. Return whether one will."""
        return background.submit(partial(_fly, work, flight, waits=waits), copy_context(), is_awaited=waits)

    async def astart(self, work: Work, flight: Flight, waits: bool) -> bool:
        """Let a task of the running loop do the work, or a thread if that loop is likely to end before."""
        import asyncio  # noqa: PLC0415 -- a synchronous program need not load it

        loop = asyncio.get_running_loop()
        if Flights.has_met_closed_loops and not self._is_settled(loop):
            flight.move()
            return self.start(work, flight, waits)
        self._tasks -= {task for task in self._tasks if task.get_loop().is_closed()}
        task: Any = loop.create_task(self._fly(work, flight, waits=waits))
        task._log_destroy_pending = False  # noqa: SLF001 -- as asyncio.gather() does: its end with its loop is seen to
        self._tasks.add(task)  # the loop itself keeps tasks weakly
        task.add_done_callback(self._end)
        return True

    async def adrain(self, seconds: float) -> bool:
        """Wait for the tasks of the running loop; return whether all of them have ended."""
        asyncio = sys.modules["asyncio"]  # a loop is running
        own = {task for task in self._tasks if task.get_loop() is asyncio.get_running_loop()}
        return not own or not (await asyncio.wait(own, timeout=seconds))[1]

    def _is_settled(self, loop: object) -> bool:
        now = time.monotonic()
        return now - self._loops.setdefault(loop, now) >= SETTLED_SECONDS

    async def _fly(self, work: Work, flight: Flight, *, waits: bool) -> None:
        try:
            await arun(_unattended(work, flight, waits=waits))
        except BaseException:
            if _is_cancelled():  # as asyncio.run() does at its end
                Flights.has_met_closed_loops = True
                background.submit(partial(_fly_anew, work), copy_context())
            raise

    def _end(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # the flight has it


def _fly(work: Work, flight: Flight, *, waits: bool) -> None:
    """Do unattended work in a background thread, which no error of the function's is to end."""
    with suppress(BaseException):  # it is noted, and handed to the caller that waits
        run(_unattended(work, flight, waits=waits))


def _fly_anew(work: Work) -> None:
    """Do work whose loop has ended, unless somebody else does by now."""
    role = work.flights.join(work.storage_keys, Wait(is_over=True), blocking=False, leader=work)
    if role.part == "leads" and len(role.flight.keys) == len(work.storage_keys):
        role.flight.move()
        _fly(work, role.flight, waits=True)
    elif role.part == "leads":
        work.flights.land(role.flight, AbandonedError())


_LAUNCHER: Final = _Launcher()


async def drained(seconds: float) -> bool:
    """Wait until the running loop computes nothing in the background; return whether that came true in time."""
    return await _LAUNCHER.adrain(seconds)
