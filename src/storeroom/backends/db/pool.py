"""Sessions of one process on one database, which all its tables share, and which come home before a fork.

A child starts without any, and no lock of a driver is held by a thread that the child does not have.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from storeroom.backends.db.database import Database
from storeroom.backends.db.errors import OutageError
from storeroom.backends.network import Connections
from storeroom.engines import Engine

__all__ = ["Pool"]

_FORK_SECONDS: Final = 10.0
"""A fork's longest wait for operations that are under way, each of which has a shorter timeout."""


class Pool(Connections[Any], Engine):
    """See Connections; without `keeps_idle` none stays open when nobody uses it."""

    can_be_forgotten = True

    def __init__(self, database: Database, limit: int, patience: float, *, keeps_idle: bool) -> None:
        Engine.__init__(self)
        self.database, self.patience = database, patience
        self._terms = self._connect, database.close, limit, patience, OutageError
        Connections.__init__(self, *self._terms)
        self.give = self.give_back if keeps_idle else self.discard
        self._gathered: list[Any] = []
        self._executor: ThreadPoolExecutor | None = None

    def _connect(self) -> Any:
        session = self.database.connect()
        self.note_opening()
        return session

    def _wait(self) -> Any:
        try:
            return super()._wait()
        except OutageError:
            raise OutageError(f"all {self._limit} connections were in use for {self._patience:g} s") from None

    @property
    def has_idle(self) -> bool:
        """Whether one can be taken without waiting, or opening it."""
        return any(self._slots[-1:])

    def in_thread(self, job: Callable[[], Any]) -> Any:
        """Await a job in one of this database's threads, of which there are no more than sessions."""
        import asyncio  # noqa: PLC0415 -- a synchronous program need not load it

        with self.lock:  # close() ends the threads
            self._executor = self._executor or ThreadPoolExecutor(self._limit, "storeroom-db")
            return asyncio.get_running_loop().run_in_executor(self._executor, job)

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
        with self._returned:  # those who wait for one go on waiting
            while len(home) < self._limit and time.monotonic() < deadline:
                try:
                    home.append(self._slots.pop())
                except IndexError:
                    time.sleep(0.0002)
        if self.database.is_local:
            for session in filter(None, home):
                self.database.close(session)
            home = [None] * len(home)
        self._gathered = home

    def after_fork_in_parent(self) -> None:
        """Go on with the sessions that are open."""
        home, self._gathered = self._gathered, []
        with self._returned:
            self._slots[:0] = reversed(home)
            self._returned.notify_all()

    def after_fork_in_child(self) -> None:
        """Begin with no sessions: those at the other end belong to the parent."""
        super().after_fork_in_child()
        self.database.abandon([session for session in self._gathered if session is not None])
        self._gathered = []
        self._executor, self.opened = None, 0
        Connections.__init__(self, *self._terms)
