"""Connections of one process to one database: taken for an operation, and given back.

The one given back last is taken first, so that there are no more than are used at a
time. Before a fork all come home: a child starts without any, and no lock of a driver
is held by a thread that the child does not have.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from storeroom.backends.db.errors import OutageError

__all__ = ["Pool"]

_LOOK_SECONDS: Final = 0.05
"""How long a waiter sleeps at most before it looks by itself: a connection may come back unheard."""

_FORK_SECONDS: Final = 10.0
"""How long a fork waits for operations that are under way, each of which has a shorter timeout."""


class Pool:
    """A stack of open connections, and the right to open more.

    Args:
        connect: opens a connection.
        close: closes one.
        limit: how many there may be.
        patience: seconds to wait for one when all are taken.
        lock: held while a connection is opened, and by whoever forks.
        keeps_idle: whether a connection stays open when nobody uses it.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        close: Callable[[Any], None],
        limit: int,
        patience: float,
        lock: threading.Lock,
        *,
        keeps_idle: bool = True,
    ) -> None:
        self._connect, self._close = connect, close
        self._keeps_idle = keeps_idle
        self._limit, self._patience, self._lock = limit, patience, lock
        self._freed = threading.Condition(lock)
        self._counting = threading.Lock()
        self._idle: deque[Any] = deque()
        self._opened = self._leaving = 0
        self._waiting = 0

    def take(self) -> Any:
        """Return a connection that nobody else uses.

        Raises:
            OutageError: all were in use for too long.
            Exception: of the driver, if one cannot be opened.
        """
        try:
            return self._idle.pop()
        except IndexError:
            pass
        with self._lock:
            while True:
                if self._idle:
                    return self._idle.pop()
                with self._counting:
                    if self._opened < self._limit:
                        self._opened += 1
                        break
                self._wait()
        try:
            return self._connect()
        except BaseException:
            self._closed_one()
            raise

    def _wait(self) -> None:
        deadline = time.monotonic() + self._patience
        self._waiting += 1
        try:
            while not self._idle and self._opened >= self._limit:
                if time.monotonic() > deadline:
                    raise OutageError(f"all {self._limit} connections were in use for {self._patience:g} s")
                self._freed.wait(_LOOK_SECONDS)
        finally:
            self._waiting -= 1

    @property
    def has_idle(self) -> bool:
        """Whether one can be taken without waiting, or opening it."""
        return bool(self._idle)

    def give(self, connection: Any) -> None:
        """Give a connection back for the next operation."""
        if self._keeps_idle:
            self._idle.append(connection)
            if self._leaving:
                self._let_one_go()
        else:
            self.discard(connection)
        if self._waiting:
            with self._lock:
                self._freed.notify()

    def discard(self, connection: Any) -> None:
        """Close a connection that is not fit for another operation."""
        self._closed_one()
        self._close(connection)

    def _closed_one(self) -> None:
        # Not under the other lock, which a fork may hold until this very connection is accounted for.
        with self._counting:
            self._opened -= 1

    def close(self) -> None:
        """Close what nobody uses now, and as many as are in use when they come back."""
        with self._counting:
            self._leaving = self._opened - len(self._idle)
        while self._idle:
            self._close_idle_one()

    def _let_one_go(self) -> None:
        with self._counting:
            if not self._leaving:
                return
            self._leaving -= 1
        self._close_idle_one()

    def _close_idle_one(self) -> None:
        try:
            connection = self._idle.pop()
        except IndexError:
            return
        self.discard(connection)

    # Around a fork, the lock being held ---------------------------------------------------------

    def gather(self) -> list[Any]:
        """Wait until all connections are home, and keep them there; return them."""
        deadline = time.monotonic() + _FORK_SECONDS
        home: list[Any] = []
        while len(home) < self._opened and time.monotonic() < deadline:
            try:
                home.append(self._idle.pop())
            except IndexError:
                time.sleep(0.0002)
        return home

    def restore(self, connections: list[Any], *, are_open: bool) -> None:
        """Go on with these, in the parent; without them if they have been closed."""
        if are_open:
            self._idle.extend(connections)
            return
        with self._counting:
            self._opened -= len(connections)

    def renew(self, lock: threading.Lock) -> None:
        """Forget connections and waiters, in the child: they are the parent's."""
        self._idle = deque()
        self._opened = self._leaving = 0
        self._lock, self._freed, self._waiting = lock, threading.Condition(lock), 0
        self._counting = threading.Lock()
