"""get_or_set(), once the key has been read: serve the entry, compute, or both.

A value that is computed while nobody waits, or only for a limited time, is computed by a background thread, or by a
task of the running event loop.
"""

import logging
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from storeroom import timeouts
from storeroom.computing import stampede
from storeroom.computing.decision import Decision, decide, draw
from storeroom.computing.one_key import Computation
from storeroom.computing.work import Work
from storeroom.config.freshness import Freshness
from storeroom.engines import background
from storeroom.engines.flights import AbandonedError, Flight
from storeroom.exceptions import ComputationCycleError, ComputationTimeoutError
from storeroom.storage import tags
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import StorageHooks
from storeroom.storage.steps import Steps, arun, run

if TYPE_CHECKING:
    import asyncio

__all__ = ["judge", "note_failure", "obtain", "refresh"]

_log = logging.getLogger("storeroom")


def judge(hooks: StorageHooks, storage_key: str, found: Any, options: Freshness) -> Steps[Decision]:
    """Return the decision about the entry that get_or_set() has read: an envelope or MISSING."""
    is_usable = type(found) is Envelope and found.has_value
    if is_usable and found.tags:
        is_usable = yield from tags.are_current(hooks, found)
    return decide(
        found if is_usable else None,
        timeouts.now(),
        options,
        paused=hooks.flights.is_paused(storage_key),
        failed=options.error_timeout > 0 and hooks.flights.error_of(storage_key) is not None,
        draw=draw(),
    )


def obtain(work: Computation, found: Any, decision: Decision, *, blocking: bool) -> Steps[Any]:
    """Return the value for get_or_set(), where the decision is not to serve the entry and do nothing else.

    The entry is an envelope or MISSING; `blocking` says that the caller waits with its whole thread, not as a task.
    """
    work.lease.found = found
    if decision is Decision.REFRESH:
        work.counters.hits += 1
        work.lease.replaces = found
        yield from refresh(work)
        return found.value
    work.counters.misses += 1
    if decision is Decision.RAISE and (kept := work.flights.error_of(work.key)) is not None:
        raise kept
    return (yield from _computed(work, found if decision is Decision.COMPUTE_OR_SERVE else None, blocking=blocking))


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
        if stale is None:
            _keep_error(work, error)
            raise
        if not isinstance(error, ComputationTimeoutError):
            note_failure(work, error)
        return stale.value
    work.flights.resume(work.key)
    return value


def refresh(work: Work) -> Steps[None]:
    """Let the values be computed in the background, but for those that somebody computes already."""
    try:
        role = work.flights.join(work.storage_keys, blocking=False)
    except ComputationCycleError:
        return  # asked for within the very computation
    if role.part == "leads":
        part = work.part([key for key in work.storage_keys if key in role.flight.keys])
        yield from _launch(part, role.flight, waits=False)
    elif role.part == "follows":
        work.flights.leave(role)


def _compute_in_time(work: Computation, *, has_stale: bool, blocking: bool) -> Steps[Any]:
    """Compute in the background, and wait for it as long as the options say."""
    limits = [work.terms.freshness.hard_timeout, work.terms.freshness.soft_timeout if has_stale else None]
    seconds = min((limit for limit in limits if limit is not None), default=None)
    while True:
        role = work.flights.join(work.storage_keys, blocking=blocking)
        if role.part == "alone" or (role.part == "leads" and not (yield from _launch(work, role.flight, waits=True))):
            # No thread is free to compute while this one watches the clock.
            return (yield from stampede.compute_once(work, blocking=blocking))[work.key]
        try:
            landing = yield from stampede.follow(role.flight, seconds)
            if work.key in landing.values:
                return landing.values[work.key]
        except AbandonedError:
            continue
        finally:
            if role.part == "follows":
                work.flights.leave(role)


def _launch(work: Work, flight: Flight, *, waits: bool) -> Steps[bool]:
    """Let a flight go its way. Return False, having landed it, if there is nobody to fly it."""
    if (yield _LAUNCHER, "start", (_unattended(work, flight, waits=waits),)):
        return True
    work.flights.land(flight, AbandonedError())
    return False


def _unattended(work: Work, flight: Flight, *, waits: bool) -> Steps[None]:
    """Compute where nobody takes the result or the error; followers get both from the flight."""

    def note(error: Exception) -> None:
        if not isinstance(error, AbandonedError):
            note_failure(work, error)
            if isinstance(work, Computation):
                _keep_error(work, error)

    # The function is the user's, and its error is noted.
    with suppress(Exception):
        yield from stampede.fly(work, flight, is_leased=True, waits=waits, on_error=note)
        for key in work.storage_keys:
            work.flights.resume(key)


def _keep_error(work: Computation, error: Exception) -> None:
    """Remember the error if that is asked for; one of waiting too long is not the computation's."""
    seconds = work.terms.freshness.error_timeout
    if seconds and not isinstance(error, ComputationTimeoutError):
        work.flights.fail(work.key, error, timeouts.now() + seconds)


def note_failure(work: Work, error: Exception) -> None:
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

    def start(self, steps: Steps[None]) -> bool:
        """Let a background thread carry the steps out. Return whether one will."""
        return background.submit(partial(run, steps), copy_context())

    async def astart(self, steps: Steps[None]) -> bool:
        """Let a task of the running loop carry the steps out."""
        import asyncio  # noqa: PLC0415 -- a synchronous program need not load it

        task = asyncio.get_running_loop().create_task(arun(steps))
        self._tasks.add(task)  # the loop itself keeps tasks weakly
        task.add_done_callback(self._tasks.discard)
        return True


_LAUNCHER: Final = _Launcher()
