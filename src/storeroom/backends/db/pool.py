"""Connections of one process to one database: taken for an operation, and given back.

The one given back last is taken first, so that there are no more than are used at a
time. Before a fork all come home: a child starts without any, and no lock of a driver
is held by a thread that the child does not have.
"""

import threading
import time
from collections import deque
from typing import Any, Final

from storeroom.backends.db.database import Database
from storeroom.backends.db.errors import OutageError

__all__ = ["Pool"]

_LOOK_SECONDS: Final = 0.05
"""A waiter's longest sleep before it looks by itself: a connection may come back unheard."""

_FORK_SECONDS: Final = 10.0
"""A fork's longest wait for operations that are under way, each of which has a shorter timeout."""


class Pool:
    """A stack of open connections, and the right to open more.

    Args:
        database: to which connections are opened.
        limit: the most that may be open.
        patience: seconds to wait for one when all are taken.
        lock: held by waiters while they look, and across a fork.
        keeps_idle: whether a connection stays open when nobody uses it.
    """

    def __init__(
        self, database: Database, limit: int, patience: float, lock: threading.Lock, *, keeps_idle: bool
    ) -> None:
        self._database = database
        self._keeps_idle = keeps_idle
        self._limit, self._patience = limit, patience
        self.renew(lock)

    def renew(self, lock: threading.Lock) -> None:
        """Begin without connections and waiters; in a forked child they are the parent's."""
        self._lock, self._freed = lock, threading.Condition(lock)
        # Apart from the other lock, which a fork may hold until a connection is accounted for.
        self._counting = threading.Lock()
        self._idle: deque[Any] = deque()
        self._opened = self._leaving = self._waiting = 0

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
            while (connection := self._idle_one()) is None and not self._may_open():
                self._wait()
        if connection is not None:
            return connection
        try:
            return self._database.connect()
        except BaseException:
            self._closed_one()
            raise

    def _idle_one(self) -> Any:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _may_open(self) -> bool:
        """Tell whether one more may be opened; it is counted from now on."""
        with self._counting:
            may_open = self._opened < self._limit
            self._opened += may_open
        return may_open

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
        if self._keeps_idle and not (self._leaving and self._lets_go()):
            self._idle.append(connection)
        else:
            self.discard(connection)
        if self._waiting:
            with self._lock:
                self._freed.notify()

    def discard(self, connection: Any) -> None:
        """Close a connection that is not fit for another operation."""
        self._closed_one()
        self._database.close(connection)

    def _closed_one(self) -> None:
        with self._counting:
            self._opened -= 1

    def close(self) -> None:
        """Close the idle connections, and as many as are in use when they come back."""
        with self._counting:
            self._leaving = self._opened - len(self._idle)
        while (connection := self._idle_one()) is not None:
            self.discard(connection)

    def _lets_go(self) -> bool:
        """Tell whether a connection that comes back was in use when all were closed."""
        with self._counting:
            lets_go = self._leaving > 0
            self._leaving -= lets_go
        return lets_go

    def gather(self) -> list[Any]:
        """Wait until all connections are home, and keep them there; return them."""
        deadline = time.monotonic() + _FORK_SECONDS
        home: list[Any] = []
        while len(home) < self._opened and time.monotonic() < deadline:
            if (connection := self._idle_one()) is None:
                time.sleep(0.0002)
            else:
                home.append(connection)
        return home

    def restore(self, connections: list[Any]) -> None:
        """Go on with these, in the parent."""
        self._idle.extend(connections)
