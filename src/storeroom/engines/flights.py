"""Computations under way in this process, and the callers that wait for them.

A *flight* is a computation under way, of one key or of several; its *leader* computes, other callers that ask for one
of its keys follow. Waiting for one another must never become waiting for oneself, so each caller's chain of
computations is remembered and a wait that could not end is refused.

The chain is kept in a context variable: it reaches the tasks that a computation starts, and the threads that it starts
with ``asyncio.to_thread()``. A thread pool's workers start with a context of their own: see ``pools``.

Nobody waits for a leader that cannot arrive, or does not within FLIGHT_SECONDS: its flight is *forsaken*, and the next
to ask leads another.

Source: Go's ``singleflight`` for the coalescing; the refusal is a search of the wait-for graph, as for database locks.
"""

import math
import os
import sys
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, ClassVar, Literal, NamedTuple, Protocol
from weakref import WeakSet, ref

from storeroom.engines.outcomes import Outcome
from storeroom.engines.recent import Recent
from storeroom.exceptions import ComputationCycleError
from storeroom.living import Living
from storeroom.locks import holds_any, reentrant

__all__ = ["FLIGHT_SECONDS", "AbandonedError", "Flight", "Flights", "Landing", "Leader", "Role", "Wait", "computing"]

FLIGHT_SECONDS = 30.0
"""Seconds that a computation is waited for; then another caller, or another process, may begin the same."""


class AbandonedError(Exception):
    """The leader was cancelled or interrupted, or does not arrive: its followers begin anew.

    Attributes:
        cause: the end of the leader's computation that is no error for others, such as SystemExit.
    """

    def __init__(self, cause: BaseException | None = None) -> None:
        super().__init__()
        self.cause = cause


class Leader(Protocol):
    """A computation, which leads a flight while somebody holds on to it."""

    def let_go(self) -> None:
        """Let others compute: nobody waits for this one any more."""


class Flight:
    """A computation under way in this process.

    Attributes:
        owner: the Flights that it belongs to.
        keys: the storage keys that are computed.
        outer: the flight within whose computation this one was started, or None.
        loop: the event loop that must run for this computation to end, or None.
        future: the result to come.
        followers: the waits for it.
        for_storage: keys this flight has written: a follower that misses one knows that it was deleted since.
        waits: those of callers within this computation.
        until: monotonic time until which it is waited for.
        thread, flyer: the thread that computes, and the one that makes the steps without a loop; 0 if unknown.
        is_moved: whether a thread computes instead of the loop that it was asked in, an awaitable included.
        elsewhere: the ends (epoch seconds) of other processes' leases that this computation waits for, by who waits.
    """

    __slots__ = (
        "_leader", "elsewhere", "flyer", "followers", "for_storage", "future", "is_moved", "keys", "loop", "outer",
        "owner", "thread", "until", "waits",
    )  # fmt: skip

    def __init__(
        self, owner: "Flights", keys: Collection[str], outer: "Flight | None", loop: Any, leader: "Leader | None" = None
    ) -> None:
        self.owner = owner
        self.lead(leader)
        self.keys = frozenset(keys)
        self.outer = outer
        self.loop = loop
        self.future = Outcome[Landing]()
        self.followers, self.waits = Living[Wait](), Living[Wait]()
        self.for_storage: Collection[str] = ()
        self.until = time.monotonic() + FLIGHT_SECONDS
        self.thread = self.flyer = 0
        self.is_moved = False
        self.elsewhere: dict[Flight, float] = {}

    @property
    def leader(self) -> "Leader | None":
        """The leader, if it is there still."""
        return None if self._leader is None else self._leader()

    def lead(self, leader: "Leader | None") -> None:
        """Let this object stand for the leader: it lives as long as that computes. None when the flight has landed."""
        self._leader = None if leader is None else ref(leader, self.owner.torn.append)

    def move(self) -> None:
        """Let a thread of the process compute, and not the event loop that the computation was asked for in."""
        self.loop, self.is_moved = None, True

    def begin(self) -> None:
        """Note that this thread computes from now on."""
        self.until, self.thread = time.monotonic() + FLIGHT_SECONDS, threading.get_ident()

    @property
    def is_forsaken(self) -> bool:
        """Whether it is in vain to wait: its leader was torn out of it or takes too long, or its loop does not run."""
        is_left = self._leader is not None and self.leader is None
        return is_left or self.is_grounded or time.monotonic() > self.until

    @property
    def is_grounded(self) -> bool:
        """Whether the event loop that it needs does not run: it is closed, as a rule."""
        return self.loop is not None and (self.loop.is_closed() or not self.loop.is_running())

    def wait_elsewhere(self, until: float | None) -> None:
        """Note until when another process has the lease that this flight waits for; None when it does not wait.

        The leases of the computations around it last no longer: of processes that wait for each other, one goes on.
        """
        flight: Flight | None = self
        while flight is not None:
            if until is None:
                flight.elsewhere.pop(self, None)
            else:
                flight.elsewhere[self] = until
            flight = flight.outer

    def leased_until(self) -> float:
        """Return the latest end (epoch seconds) that its lease may have: endless, unless it waits elsewhere."""
        with _lock:
            ahead = _ahead(self)
        waits = [wait for flight in ahead for wait in list(flight.elsewhere.items())]
        return min((until for flight, until in waits if not flight.future.done()), default=math.inf)


class Landing(NamedTuple):
    """The result of a flight. A key that is in neither attribute has no value.

    Attributes:
        values: the values by storage key.
        unsettled: keys whose values are computed elsewhere: their followers go on waiting.
    """

    values: Mapping[str, Any]
    unsettled: Collection[str] = ()


class Wait:
    """A caller's wait for a flight, which is known weakly.

    It is made before anybody notes it, and ends by a store, which nothing comes between, wherever it is cut short.

    Attributes:
        is_over: whether nobody waits any more; from the beginning if nobody will.
        flight: whose result is waited for.
        loop: the event loop that stands still meanwhile, or None.
    """

    __slots__ = ("__weakref__", "flight", "is_over", "loop")

    def __init__(self, *, is_over: bool = False) -> None:
        self.is_over = is_over
        self.flight: Flight | None = None
        self.loop: object = None


class Role(NamedTuple):
    """A caller's part in a flight: the result of join().

    Attributes:
        flight: of all keys that nobody computes; if there are none, the one that computes the first.
        part: "leads" and must land it; "follows", until its wait is over; or computes "alone",
            without telling anybody, because waiting would block the leader.
        wait: of one that follows.
    """

    flight: Flight
    part: Literal["leads", "follows", "alone"]
    wait: Wait


computing: ContextVar[Flight | None] = ContextVar("storeroom_computing", default=None)
"""The flight whose computation this code is part of."""

# Of the wait-for graph, which spans all caches; taken by misses only. The collector may run a finalizer under it whose
# code asks for keys, or ends a computation: no step below relies on what an earlier one has seen of other flights.
_lock = reentrant()
_stalled = Living[Wait]()  # of threads whose event loop stands still
_all_flights: WeakSet["Flights"] = WeakSet()


class Flights:
    """The computations of one engine that are under way in this process, by storage key.

    Attributes:
        has_met_closed_loops: whether an event loop of this process has ended before its computations.
        torn: a reference for each leader that has gone before its flight landed.
    """

    has_met_closed_loops: ClassVar[bool] = False

    def __init__(self) -> None:
        self._by_key: dict[str, Flight] = {}
        self._paused, self._failed = Recent(), Recent()
        self.torn: list[ref[Leader]] = []
        _all_flights.add(self)

    def join(
        self, keys: Sequence[str], wait: Wait, *, blocking: bool, leader: "Leader | None" = None, flies: bool = False
    ) -> Role:
        """Lead a flight of the keys that nobody computes; if there are none, follow that of the first: see Role.

        Nobody waits while others wait for him: a leader follows no other flight until its own has landed.

        Args:
            keys: the storage keys.
            wait: of the caller, if it is to follow.
            blocking: whether the caller would wait with its whole thread, not as a task.
            leader: an object that lives as long as the caller computes, if it is to lead.
            flies: whether a leader makes the flight's steps in this very thread.

        Raises:
            ComputationCycleError: waiting would never end, as the flight's leader waits for this caller.
        """
        loop, line = _running_loop(), _line()
        outer = line[0] if line else None
        for key in (*keys, *self._torn_keys()) if self._by_key else ():
            self.look_after(key)
        is_within = blocking and keys[0] in self._by_key and holds_any()  # as a finalizer, for which a leader may wait
        with _lock:
            self._failed.forget_over()
            if any(flight.owner is self and not flight.keys.isdisjoint(keys) for flight in line):
                raise _cycle_error()
            first = self._by_key.get(keys[0])
            free = [key for key in keys if key not in self._by_key]
            if first is None or free:
                flight = Flight(self, free, outer, None if blocking else loop, leader)
                flight.flyer = threading.get_ident() if flies and loop is None else 0
                self._by_key.update(dict.fromkeys(free, flight))
                return Role(flight, "leads", wait)
            wait.flight, wait.loop = first, loop if blocking else None
            is_within |= loop is None and first.flyer == threading.get_ident()
            if is_within or not _follow(first, wait, line):
                return Role(Flight(self, keys, outer, None), "alone", wait)
            return Role(first, "follows", wait)

    def apart(self, key: str) -> Flight:
        """Return a flight of one's own, whoever computes the key meanwhile; nobody follows it.

        Raises:
            ComputationCycleError: this code is part of the key's computation.
        """
        line = _line()
        if any(flight.owner is self and key in flight.keys for flight in line):
            raise _cycle_error()
        return Flight(self, (key,), line[0] if line else None, None)

    def land(self, flight: Flight, outcome: Landing | Exception) -> None:
        """End the flight, handing its followers the result or the error; the next to miss leads a new one."""
        with _lock:
            for key in flight.keys:
                if self._by_key.get(key) is flight:
                    self._by_key.pop(key, None)
            if flight.future.done():
                pass  # it was given up
            elif isinstance(outcome, Exception):
                flight.future.set_exception(outcome)
            else:
                flight.future.set_result(outcome)
            flight.lead(None)  # at last: whoever is cut short before leaves a flight that is forsaken

    def _torn_keys(self) -> list[str]:
        """Return the keys of flights whose leaders were torn out of them, which nobody may ever ask for again."""
        if not self.torn:
            return []
        self.torn.clear()
        return [key for key, flight in self._by_key.copy().items() if flight.is_forsaken]

    def look_after(self, key: str) -> None:
        """Give the key's flight up if it is in vain to wait for it."""
        flight = self._by_key.get(key)
        if flight is not None and flight.is_forsaken:
            self.give_up(flight)

    def check_pools(self, flight: Flight) -> None:
        """Raise ComputationCycleError if this thread works for the flight's, which waits for that."""
        from storeroom.engines import pools  # noqa: PLC0415 -- few wait for as long

        if flight.thread and pools.works_for(flight.thread):
            raise _cycle_error()

    def give_up(self, flight: Flight) -> None:
        """Let nobody wait for a flight any more; its leader may store a result all the same, if it ever has one."""
        if flight.is_grounded:
            Flights.has_met_closed_loops = True
        leader = flight.leader
        self.land(flight, AbandonedError())
        if leader is not None:
            leader.let_go()

    @property
    def has_any(self) -> bool:
        """Whether anything is computed now."""
        for key in self._torn_keys():
            self.look_after(key)
        return bool(self._by_key)

    def computed_by(self, key: str) -> int | None:
        """Return the thread of this process that computes the key's value, 0 if unknown; None if none does."""
        flight = self._by_key.get(key)
        return None if flight is None else flight.thread

    def followers(self, key: str) -> int:
        """Return the number of callers that wait for the key's flight now: 0 if there is none."""
        with _lock:
            flight = self._by_key.get(key)
            return len(_under_way(flight.followers)) if flight else 0

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


def _follow(flight: Flight, wait: Wait, line: tuple[Flight, ...]) -> bool:
    """Note that a caller, and its line of computations, is about to wait for a flight.

    Return False, having noted nothing, if the event loop that the flight needs would stand still.

    Raises:
        ComputationCycleError: the flight waits for the caller.
    """
    ahead = _ahead(flight)
    if not ahead.isdisjoint(line):
        raise _cycle_error()
    if wait.loop is not None and any(other.loop is wait.loop for other in ahead):
        return False
    for waits in (flight.followers, *(waiting.waits for waiting in line), *([] if wait.loop is None else [_stalled])):
        waits.add(wait)
    return True


def _under_way(waits: Iterable[Wait]) -> list[Flight]:
    """Return the flight of each wait that is not over."""
    return [wait.flight for wait in waits if wait.flight is not None and not wait.is_over]


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
            to_do += _under_way(flight.waits)
            if flight.loop is not None:
                to_do += _under_way(wait for wait in _stalled if wait.loop is flight.loop)
    return found


def _cycle_error() -> ComputationCycleError:
    return ComputationCycleError(
        "get_or_set() was called for a key whose value is being computed, and that computation waits for this "
        "very call: it would wait for itself. Compute the inner value without the cache, or under another key."
    )


def _after_fork_in_child() -> None:
    global _lock, _stalled
    _lock, _stalled = reentrant(), Living()  # a thread that stayed in the parent may hold the old one, and waits
    computing.set(None)
    for flights in list(_all_flights):
        flights.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
