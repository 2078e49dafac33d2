"""Connections of one process to one database, which come home before a fork.

A child starts without any, and no lock of a driver is held by a thread that the child does not have.
"""

import time
from typing import Any, Final

from storeroom.backends.db.database import Database
from storeroom.backends.db.errors import OutageError
from storeroom.backends.network import Connections

__all__ = ["Pool"]

_FORK_SECONDS: Final = 10.0
"""A fork's longest wait for operations that are under way, each of which has a shorter timeout."""


class Pool(Connections[Any]):
    """See Connections; without `keeps_idle` none stays open when nobody uses it."""

    def __init__(self, database: Database, limit: int, patience: float, *, keeps_idle: bool) -> None:
        super().__init__(database.connect, database.close, limit, patience, OutageError)
        self.give = self.give_back if keeps_idle else self.discard

    def _wait(self) -> Any:
        try:
            return super()._wait()
        except OutageError:
            raise OutageError(f"all {self._limit} connections were in use for {self._patience:g} s") from None

    @property
    def has_idle(self) -> bool:
        """Whether one can be taken without waiting, or opening it."""
        return any(self._slots[-1:])

    def gather(self) -> list[Any]:
        """Wait until all connections are home; return them, and None for each that nobody may open until restore()."""
        deadline = time.monotonic() + _FORK_SECONDS
        home: list[Any] = []
        with self._returned:  # those who wait for one go on waiting
            while len(home) < self._limit and time.monotonic() < deadline:
                try:
                    home.append(self._slots.pop())
                except IndexError:
                    time.sleep(0.0002)
        return home

    def restore(self, home: list[Any]) -> None:
        """Go on with these, in the parent."""
        with self._returned:
            self._slots[:0] = reversed(home)
            self._returned.notify_all()
