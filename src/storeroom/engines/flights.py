"""Computations under way in this process, and the callers that wait for them.

A *flight* is a computation under way, of one key or of several; its *leader* computes, other callers that ask for one
of its keys follow. Waiting for one another must never become waiting for oneself, so each caller's chain of
computations is remembered and a wait that could not end is refused.

The chain is kept in a context variable: it reaches the tasks that a computation starts, and the threads that it starts
with ``asyncio.to_thread()``. A thread pool's workers start with a context of their own and are not seen.

Source: Go's ``singleflight`` for the coalescing; the refusal is a search of the wait-for graph, as for database locks.
"""

import os
import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple
from weakref import WeakSet

from storeroom import timeouts
from storeroom.exceptions import ComputationCycleError

__all__ = ["AbandonedError", "Flight", "Flights", "Landing", "Role", "computing"]

_MAX_RECENT: Final = 1000
"""Failed computations that are remembered; more, and those whose time is over are forgotten."""


class AbandonedError(Exception):
    """The leader was cancelled or interrupted: its followers begin anew."""


class Flight:
    """A computation under way in this process.

    Attributes:
        owner: the Flights that it belongs to.
        keys: the storage keys that are computed.
        outer: the flight within whose computation this one was started, or None.
        loop: the event loop that must run for this computation to end, or None.
        future: the result to come.
        followers: the number of callers that wait for it.
        for_storage: keys this flight has written: a follower that misses one knows that it was deleted since.
        waits_for: flights that callers within this computation wait for now.
    """

    __slots__ = ("followers", "for_storage", "future", "keys", "loop", "outer", "owner", "waits_for")

    def __init__(self, owner: "Flights", keys: Collection[str], outer: "Flight | None", loop: object) -> None:
        from concurrent.futures import Future  # noqa: PLC0415 -- 5 ms that only a miss need spend

        self.owner = owner
        self.keys = frozenset(keys)
        self.outer = outer
        self.loop = loop
        self.future: Future[Landing] = Future()
        self.followers = 0
        self.for_storage: Collection[str] = ()
        self.waits_for: list[Flight] = []


class Landing(NamedTuple):
    """The result of a flight. A key that is in neither attribute has no value.

    Attributes:
        values: the values by storage key.
        unsettled: keys whose values are computed elsewhere: their followers go on waiting.
    """

    values: Mapping[str, Any]
    unsettled: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Role:
    """A caller's part in a flight: the result of join().

    Attributes:
        flight: of all keys that nobody computes; if there are none, the one that computes the first.
        part: "leads" and must land it; "follows" and must leave(); or computes "alone",
            without telling anybody, because waiting would block the leader.
        line: the flights that wait while this caller waits: its own computations, innermost first.
        loop: the event loop that stands still while this caller waits, or None.
    """

    flight: Flight
    part: Literal["leads", "follows", "alone"]
    line: tuple[Flight, ...] = ()
    loop: object = None


computing: ContextVar[Flight | None] = ContextVar("storeroom_computing", default=None)
"""The flight whose computation this code is part of."""

_lock = threading.Lock()  # of the wait-for graph, which spans all caches; taken by misses only
_stalled: dict[object, Flight] = {}  # event loop -> the flight that its own thread waits for
_all_flights: WeakSet["Flights"] = WeakSet()


class _Recent:
    """Facts about keys, each for a time. Those whose time is over are forgotten when there are too many."""

    def __init__(self) -> None:
        self._by_key: dict[str, tuple[float, Any]] = {}

    def note(self, key: str, fact: object, until: float) -> None:
        if len(self._by_key) >= _MAX_RECENT:
            now = timeouts.now()
            self._by_key = {key: noted for key, noted in self._by_key.items() if noted[0] > now}
        self._by_key[key] = until, fact

    def get(self, key: str) -> Any:
        noted = self._by_key.get(key)
        return noted[1] if noted is not None and noted[0] > timeouts.now() else None

    def forget(self, key: str) -> None:
        if self._by_key:
            self._by_key.pop(key, None)

    def clear(self) -> None:
        self._by_key.clear()


class Flights:
    """The computations of one engine that are under way in this process, by storage key."""

    def __init__(self) -> None:
        self._by_key: dict[str, Flight] = {}
        self._paused, self._failed = _Recent(), _Recent()
        _all_flights.add(self)

    def join(self, keys: Sequence[str], *, blocking: bool) -> Role:
        """Lead a flight of the keys that nobody computes; if there are none, follow that of the first: see Role.

        Nobody waits while others wait for him: a leader follows no other flight until its own has landed.

        Args:
            keys: the storage keys.
            blocking: whether the caller would wait with its whole thread, not as a task.

        Raises:
            ComputationCycleError: waiting would never end, as the flight's leader waits,
                directly or through others, for this caller.
        """
        loop, line = _running_loop(), _line()
        outer = line[0] if line else None
        with _lock:
            if any(flight.owner is self and not flight.keys.isdisjoint(keys) for flight in line):
                raise _cycle_error()
            free = [key for key in keys if key not in self._by_key]
            if free:
                flight = Flight(self, free, outer, None if blocking else loop)
                self._by_key.update(dict.fromkeys(free, flight))
                return Role(flight, "leads")
            role = Role(self._by_key[keys[0]], "follows", line, loop if blocking else None)
            return role if _follow(role) else Role(Flight(self, keys, outer, None), "alone")

    def apart(self, key: str) -> Flight:
        """Return a flight of one's own, whoever computes the key meanwhile; nobody follows it.

        Raises:
            ComputationCycleError: this code is part of the key's computation.
        """
        line = _line()
        if any(flight.owner is self and key in flight.keys for flight in line):
            raise _cycle_error()
        return Flight(self, (key,), line[0] if line else None, None)

    def leave(self, role: Role) -> None:
        """Note that a follower waits no longer."""
        with _lock:
            role.flight.followers -= 1
            for waiting in role.line:
                waiting.waits_for.remove(role.flight)
            if role.loop is not None:
                _stalled.pop(role.loop, None)

    def land(self, flight: Flight, outcome: Landing | Exception) -> None:
        """End the flight, handing its followers the result or the error; the next to miss leads a new one."""
        with _lock:
            for key in flight.keys:
                if self._by_key.get(key) is flight:
                    del self._by_key[key]
        if isinstance(outcome, Exception):
            flight.future.set_exception(outcome)
        else:
            flight.future.set_result(outcome)

    @property
    def has_any(self) -> bool:
        """Whether anything is computed now."""
        return bool(self._by_key)

    def followers(self, key: str) -> int:
        """Return the number of callers that wait for the key's flight now: 0 if there is none."""
        with _lock:
            flight = self._by_key.get(key)
            return flight.followers if flight else 0

    def pause(self, key: str, until: float) -> None:
        """Remember that the key's computation failed, and is not to be tried again until then (epoch seconds)."""
        with _lock:
            self._paused.note(key, fact=True, until=until)

    def is_paused(self, key: str) -> bool:
        """Tell whether the key's computation failed a moment ago."""
        return self._paused.get(key) is not None

    def fail(self, key: str, error: Exception, until: float) -> None:
        """Remember the error of a computation, for all who ask until then (epoch seconds)."""
        with _lock:
            self._failed.note(key, error, until)

    def error_of(self, key: str) -> Exception | None:
        """Return the error that is remembered of the key's computation."""
        error: Exception | None = self._failed.get(key)
        return error

    def resume(self, key: str) -> None:
        """Forget that the key's computation failed."""
        self._paused.forget(key)
        self._failed.forget(key)

    def reset(self) -> None:
        """Forget everything, in a child process: the leaders stayed in the parent."""
        for noted in (self._by_key, self._paused, self._failed):
            noted.clear()


def _follow(role: Role) -> bool:
    """Note that a caller is about to wait. Return False, having noted nothing, if its event loop would stand still.

    Raises:
        ComputationCycleError: the flight waits for the caller.
    """
    ahead = _ahead(role.flight)
    if not ahead.isdisjoint(role.line):
        raise _cycle_error()
    if role.loop is not None and any(other.loop is role.loop for other in ahead):
        return False
    role.flight.followers += 1
    for waiting in role.line:
        waiting.waits_for.append(role.flight)
    if role.loop is not None:
        _stalled[role.loop] = role.flight
    return True


def _running_loop() -> object:
    """Return the event loop that runs in this thread, or None; without loading asyncio for it."""
    asyncio = sys.modules.get("asyncio")
    return asyncio._get_running_loop() if asyncio else None  # noqa: SLF001 -- documented for event loop code


def _line() -> tuple[Flight, ...]:
    """Return the flights within whose computations this code runs, innermost first."""
    line, flight = [], computing.get()
    while flight is not None:
        # A task may outlive the computation that started it: it is then part of it no more.
        if not flight.future.done():
            line.append(flight)
        flight = flight.outer
    return tuple(line)


def _ahead(flight: Flight) -> set[Flight]:
    """Return all flights that have to land before this one can, itself included."""
    found: set[Flight] = set()
    to_do = [flight]
    while to_do:
        if (flight := to_do.pop()) not in found:
            found.add(flight)
            to_do += flight.waits_for
            if flight.loop in _stalled:
                to_do.append(_stalled[flight.loop])
    return found


def _cycle_error() -> ComputationCycleError:
    return ComputationCycleError(
        "get_or_set() was called for a key whose value is being computed, and that computation waits for this "
        "very call: it would wait for itself. Compute the inner value without the cache, or under another key."
    )


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 -- a thread that stayed in the parent may hold the old one
    _lock = threading.Lock()
    _stalled.clear()
    computing.set(None)
    for flights in list(_all_flights):
        flights.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
