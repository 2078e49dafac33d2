"""The connections of one process to one server, and the queue of those who wait for one.

A caller who finds none joins the queue. When a connection comes back, the first in the queue is woken to look for it.
A thread that runs may have been faster, as a change of threads takes longer than a request: then all that come back are
left to such threads for a moment, their turn, and the next one is kept for the first. So it is first come, first
served, but for a moment each; and one connection at a time is on its way to a thread that has yet to wake up.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, NoReturn, TypeVar
from weakref import ref

from storeroom.exceptions import PoolTimeoutError
from storeroom.living import Living
from storeroom.locks import reentrant

__all__ = ["CROWDED_SECONDS", "TURN_SECONDS", "Connections", "Right"]

C = TypeVar("C")

TURN_SECONDS: Final = 0.001
"""The time for which threads that run may overtake the first in the queue, after it was woken in vain: some ten
requests to a server nearby. To hand over after each of them costs up to a fifth of the throughput."""

CROWDED_SECONDS: Final = 0.1
"""Between two attempts of a process to connect to a server that has refused another connection as one too many."""

LOOK_SECONDS: Final = 1.0
"""Between two looks of those who wait: for slots that were lost, see Connections, and for a call that was."""

_NOTHING: Final[Any] = object()


class Right:
    """The right to make a connection."""

    def __bool__(self) -> bool:
        """Return False: no connection is open."""
        return False


class _Ticket:
    """A place in the queue.

    Attributes:
        due: monotonic time from which the next connection is kept for it; infinity until it was woken in vain.
        slot: as it was handed over.
        is_called: whether the lock was released, for the holder to look again.
        lock: what the holder waits for.
    """

    __slots__ = ("due", "is_called", "lock", "slot")

    def __init__(self, due: float) -> None:
        self.due, self.slot, self.is_called = due, _NOTHING, False
        self.lock = threading.Lock()
        self.lock.acquire()

    def call(self) -> None:
        """Wake the holder."""
        if not self.is_called:
            self.is_called = True
            self.lock.release()

    def hear(self) -> bool:
        """Let the holder be called again; tell whether it was."""
        was_called, self.is_called = self.is_called, False
        if was_called:
            self.lock.acquire(blocking=False)  # free still, if the holder woke for another reason
        return was_called


class Connections(Generic[C]):
    """A stack, so that few connections stay busy and the rest may idle out, and a queue.

    A slot is an open connection, or the right to make one, so that the bound costs nothing. An exception out of a
    signal's handler may come between any two steps, and a slot that was in hand be lost: then it is not alive any more,
    and closed, and who finds no other takes its place. So connections are such as close when nobody refers to them.

    Attributes:
        waits: callers that have waited for a slot, and the seconds that they did, as counts by name.

    Args:
        name: of the server, for errors.
        make: returns a connection.
        disconnect: closes one.
        limit: the most there may be.
        patience: seconds to wait for one when all are busy.
        is_crowded: tells whether an error of `make` is the server's, which has too many connections. These are waited
            for, as those of this process are: one of them may come back first.
        turn: seconds for which threads that run may overtake the first in the queue.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], C],
        disconnect: Callable[[C], None],
        limit: int,
        patience: float,
        is_crowded: Callable[[Exception], bool] = lambda _: False,
        turn: float = TURN_SECONDS,
    ) -> None:
        self._name, self._make, self._disconnect, self._is_crowded = name, make, disconnect, is_crowded
        self._limit, self._patience, self._turn = limit, patience, turn
        self._alive = Living[C | Right]()
        self._slots: list[C | Right] = [self._right() for _ in range(limit)]
        self._queue: deque[_Ticket] = deque()
        self._woken: _Ticket | None = None  # one whose holder was called, and has not looked yet
        self._leaving, self._generation = 0, 0
        self._born: dict[ref[C], int] = {}  # its generation, of each connection that is not of the first
        self.waits: dict[str, float] = {"connection_waits": 0, "connection_wait_seconds": 0.0}
        self._refused, self._again_at = 0, 0.0  # rights that the server does not grant now, and when to ask it again
        self._mutex = reentrant()

    def take(self) -> tuple[C, bool]:
        """Return a connection that nobody else uses, and whether it has been open before.

        Raises:
            PoolTimeoutError: there was none in time. The server is not to blame.
        """
        try:
            slot = self._slots.pop()
        except IndexError:
            slot = self._waited_for()
        return self._opened() if isinstance(slot, Right) else (slot, True)

    def _waited_for(self) -> C | Right:
        begun = time.monotonic()
        try:
            return self._wait()
        finally:
            self.waits["connection_waits"] += 1
            self.waits["connection_wait_seconds"] += time.monotonic() - begun

    def _right(self) -> Right:
        right = Right()
        self._alive.add(right)
        return right

    def _opened(self) -> tuple[C, bool]:
        """Make a connection; or return another, if the server refuses one more until that one comes back."""
        deadline = math.inf
        while True:
            generation = self._generation
            try:
                connection = self._make()
                self._alive.add(connection)
                if generation:
                    self._born[ref(connection, self._born.pop)] = generation  # see Living
            except Exception as error:
                if not self._is_crowded(error):
                    self._vacate()
                    raise
                refusal = error
            except BaseException:
                self._vacate()
                raise
            else:
                return connection, False
            deadline = min(deadline, time.monotonic() + self._patience)
            with self._mutex:
                self._refused += 1
                self._again_at = time.monotonic() + CROWDED_SECONDS
            slot = self._wait(deadline, refusal=refusal, is_first=True)
            if not isinstance(slot, Right):
                return slot, True

    # The queue ------------------------------------------------------------------------------

    def _wait(
        self, deadline: float | None = None, *, refusal: Exception | None = None, is_first: bool = False
    ) -> C | Right:
        """Return a slot in turn, or as soon as one is free; `is_first` does not queue up behind others."""
        ticket = _Ticket(-math.inf if is_first else math.inf)
        until = time.monotonic() + self._patience if deadline is None else deadline
        try:
            with self._mutex:
                (self._queue.appendleft if is_first else self._queue.append)(ticket)
            while (slot := self._claim(ticket)) is _NOTHING:
                now = time.monotonic()
                if now >= until:
                    self._give_up(refusal)
                # A slot that came back before it was due lies there still, perhaps, and nobody wakes it for that.
                look_at = ticket.due + self._turn if now < ticket.due < math.inf else until
                look_at = min(look_at, now + (CROWDED_SECONDS if self._refused else LOOK_SECONDS))
                ticket.lock.acquire(timeout=max(0.0, min(look_at, until) - now))
        except BaseException:  # also of a signal's handler
            self._leave(ticket)
            raise
        taken: C | Right = slot
        return taken

    def _claim(self, ticket: _Ticket) -> Any:
        """Return the slot that was kept for a ticket, or a free one; _NOTHING if it has to wait."""
        with self._mutex:
            if self._woken is ticket:
                self._woken = None
            was_called = ticket.hear()
            if ticket.slot is _NOTHING:
                try:
                    ticket.slot = self._slots.pop()
                except IndexError:
                    if not self._may_ask_again() and len(self._alive) + self._refused >= self._limit:
                        if was_called and ticket.due == math.inf:
                            ticket.due = time.monotonic() + self._turn
                        return _NOTHING
                    ticket.slot = self._right()
                self._queue.remove(ticket)
            self._wake_first()
            return ticket.slot

    def _leave(self, ticket: _Ticket) -> None:
        """Leave the queue without a slot; one that was kept meanwhile is the next one's."""
        with self._mutex:
            if self._woken is ticket:
                self._woken = None
            if ticket in self._queue:
                self._queue.remove(ticket)
            self._wake_first()
        if ticket.slot is not _NOTHING:
            self._put(ticket.slot)

    def _put(self, slot: C | Right) -> None:
        """Let a slot be used again."""
        if isinstance(slot, Right):
            self._slots.insert(0, slot)  # the open ones lie on top
        else:
            self._slots.append(slot)
        if self._queue and self._woken is None:  # else that one wakes the next
            with self._mutex:
                self._wake_first()

    def _wake_first(self) -> None:
        """Wake the first in the queue if there is a slot, which is kept for it if it is due one."""
        if self._woken is not None or not self._queue:
            return
        first = self._queue[0]
        if time.monotonic() >= first.due:
            try:
                first.slot = self._slots.pop()
            except IndexError:  # somebody was faster
                return
            self._queue.popleft()
        elif first.due < math.inf or not self._slots:  # it looks by itself soon
            return
        self._woken = first
        first.call()

    def _may_ask_again(self) -> bool:
        """Tell whether one more connection may be tried, of those that the server has refused."""
        if not self._refused or time.monotonic() < self._again_at:
            return False
        self._refused -= 1
        self._again_at = time.monotonic() + CROWDED_SECONDS
        return True

    def _give_up(self, refusal: Exception | None) -> NoReturn:
        if refusal is not None:
            raise PoolTimeoutError(
                f"{self._name} has refused another connection for {self._patience:g} s ({refusal}), and none of this "
                "process came free. Lower OPTIONS['max_connections'] of the processes, or let the server admit more."
            ) from refusal
        raise PoolTimeoutError(
            f"{self._name}: all {self._limit} connections of this process were busy for {self._patience:g} s. Raise "
            "OPTIONS['max_connections'], or OPTIONS['pool_timeout'] to wait longer."
        ) from None

    # The connections ------------------------------------------------------------------------

    @property
    def idle(self) -> int:
        """Number of open connections that nobody uses."""
        return sum(not isinstance(slot, Right) for slot in self._slots)

    def give_back(self, connection: C) -> None:
        """Keep a connection for the next operation."""
        if self._leaving and self._is_old(connection):
            self.discard(connection)
            return
        if self._refused:
            self._try_more()
        self._slots.append(connection)  # as _put() does, without the call
        if self._queue and self._woken is None:
            with self._mutex:
                self._wake_first()

    def discard(self, connection: C) -> None:
        """Close a connection that is not fit for another operation."""
        if self._leaving and self._is_old(connection):
            with self._mutex:
                self._leaving = max(0, self._leaving - 1)
        try:
            self._disconnect(connection)
        finally:
            self._vacate()
            self._alive.discard(connection)  # afterwards, lest its slot be taken for a lost one

    def close_idle(self) -> None:
        """Close the connections that nobody uses."""
        while self._close_one():
            pass

    def close(self) -> None:
        """Close the connections that nobody uses now, and those in use when they come back."""
        with self._mutex:
            self._generation += 1
            self._leaving = self._limit - self._refused - len(self._slots) + self.idle
        self.close_idle()

    def _close_one(self) -> bool:
        """Close an idle connection; return False if there is none."""
        try:
            connection = self._slots.pop()
        except IndexError:
            return False
        if isinstance(connection, Right):  # the open ones lie on top
            self._put(connection)
            return False
        self.discard(connection)
        return True

    def _is_old(self, connection: C) -> bool:
        """Tell whether a connection was open, or about to be, when all were closed."""
        return self._born.get(ref(connection), 0) < self._generation

    def _try_more(self) -> None:
        with self._mutex:
            right = self._right() if self._may_ask_again() else None
        if right is not None:
            self._put(right)

    def _vacate(self) -> None:
        self._put(self._right())
