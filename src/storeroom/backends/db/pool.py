"""Sessions of one process on one database, which all its tables share, and which come home before a fork.

A child starts without any, and no lock of a driver is held by a thread that the child does not have.
"""

import contextlib
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NoReturn, TypeVar

from storeroom.backends.connections import TURN_SECONDS, Connections
from storeroom.backends.db.database import Database
from storeroom.backends.in_turn import in_turn
from storeroom.engines import Engine
from storeroom.exceptions import PoolTimeoutError

__all__ = ["Pool"]

T = TypeVar("T")

_FORK_SECONDS: Final = 10.0
"""A fork's longest wait for operations that are under way, each of which has a shorter timeout."""

_TURN_SECONDS: Final = 0.004
"""See Connections: some five writes, each of which is several requests. To hand a session over after nearly each of
them, as after 0.001 seconds, costs up to a quarter of their rate."""

_WRITERS: Final = 4
"""Transactions of a process on one table of a server at a time. All wait for its row of counts: where many do so in
the database, the last wait longer than for an outage, and where a few do, that row is never idle."""


class Turn:
    """The turn of one writer."""


class Writers(Connections[Turn]):
    """The turns of those who write to a table."""

    def __init__(self, database: Database, patience: float) -> None:
        super().__init__(database.name, Turn, lambda _: None, _WRITERS, patience)

    def _give_up(self, _: Exception | None) -> NoReturn:
        raise PoolTimeoutError(
            f"{self._name}: other threads of this process wrote to the table for {self._patience:g} s. Raise "
            "OPTIONS['pool_timeout'] to wait longer."
        ) from None


class Pool(Connections[Any], Engine):
    """See Connections."""

    can_be_forgotten = True
    alook: Callable[[], Awaitable[None]] | None = None
    """In a test run, awaited before an asynchronous operation: see following.py."""

    def __init__(self, database: Database, limit: int, patience: float) -> None:
        Engine.__init__(self)
        self.database = database
        turn = TURN_SECONDS if database.is_local else _TURN_SECONDS
        self._terms = database.name, self._connect, database.close, limit, patience, database.is_crowded, turn
        Connections.__init__(self, *self._terms)
        self.give = self.give_back
        self._gathered: list[Any] = []
        self._executor: ThreadPoolExecutor | None = None

    def _connect(self) -> Any:
        session = self.database.connect()
        self.note_opening()
        return session

    def apart(self, session: Any, make: Callable[[Any], T]) -> T:
        """Make a table, by this session or another."""
        return make(session)

    def writers(self) -> Writers | None:
        """Return the turns of one table's writers; None where there are no more sessions than turns, or a lock."""
        few = self.database.is_local or self._limit <= _WRITERS
        return None if few else Writers(self.database, self._patience)

    @property
    def has_idle(self) -> bool:
        """Whether one can be taken without waiting, or opening it."""
        return not self._queue and any(self._slots[-1:])

    def in_thread(self, job: Callable[[], Any], too_late: Callable[[PoolTimeoutError], Any]) -> Any:
        """Await a job in one of this database's threads, of which there are no more than sessions: see in_turn()."""
        with self.lock:  # close() ends the threads
            self._executor = self._executor or ThreadPoolExecutor(self._limit, "storeroom-db")
            future = self._executor.submit(job)
        return in_turn(future, self._patience, too_late)

    # The life of a process --------------------------------------------------------------------

    def close(self) -> None:
        """Close idle sessions, and the others when they come back; the next operation opens new ones."""
        self._close(waits=True)

    def rest(self) -> None:
        """Do the same without a wait for the lock: a fork may hold it, and wait for the caller's session."""
        self._close(waits=False)

    def _close(self, *, waits: bool) -> None:
        self.opened = 0
        super().close()
        if self.lock.acquire(blocking=waits):
            executor, self._executor = self._executor, None
            self.lock.release()
            if executor is not None:
                executor.shutdown(wait=False)

    def before_fork(self) -> None:
        """Get all sessions home, so that no thread is within a driver; close those that no child may have."""
        deadline = time.monotonic() + _FORK_SECONDS
        home: list[Any] = []
        with contextlib.suppress(PoolTimeoutError):
            while len(home) < self._limit - self._refused:
                home.append(self._wait(deadline, is_first=True))  # those who wait for one go on waiting
        if self.database.is_local:
            for session in filter(None, home):
                self.database.close(session)
            home = [self._right() for _ in home]
        self._gathered = home

    def after_fork_in_parent(self) -> None:
        """Go on with the sessions that are open."""
        home, self._gathered = self._gathered, []
        for session in reversed(home):
            self._put(session)

    def after_fork_in_child(self) -> None:
        """Begin with no sessions: those at the other end belong to the parent."""
        super().after_fork_in_child()
        self.database.abandon(list(filter(None, self._gathered)))
        self._gathered = []
        self._executor, self.opened = None, 0
        Connections.__init__(self, *self._terms)
