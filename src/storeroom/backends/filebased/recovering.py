"""The state of an engine whose writes have waited for too long: the next one removes the entries that they dropped."""

import math
from typing import Any

from storeroom.backends.filebased.records import entry_key_of
from storeroom.backends.recovery import Dropped
from storeroom.engines import Engine
from storeroom.late import logger_of

__all__ = ["RecoveringEngine"]

logger = logger_of("storeroom.filebased")


class RecoveringEngine(Engine):
    """A part of an engine.

    Attributes:
        location: the directory.
        checked_at: epoch seconds; infinite while a write has given up, so that every operation takes the long way.
        dropped: keys whose writes were dropped, as another process was writing for too long.
        counts_due: epoch seconds from which on a write adds this process's counts to those of all.
        has_given_up: whether the last write has waited for too long.
    """

    location: str
    checked_at: float
    counts_due = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.dropped, self.has_given_up = Dropped(), False
        self._settling: dict[str, int] = {}

    def after_fork_in_child(self) -> None:
        """Begin with a lock of its own."""
        super().after_fork_in_child()
        self.dropped.after_fork_in_child()

    def give_up(self, error: Exception) -> None:
        """Note that a write has waited for too long: the next ones wait for a moment only, until one gets its turn."""
        if not self.has_given_up:
            logger.error("The file cache in %r follows its on_error policy. %s", self.location, error)
        self.has_given_up, self.checked_at = True, math.inf  # so that every operation comes by check(), or recovered()

    def settled(self, table: Any) -> Any:
        """Remove, in a write's transaction, the entries of writes that were dropped; return its table."""
        self._settling = dict(self.dropped.keys) if self.has_given_up else {}
        for storage_key in self._settling:
            table.remove(entry_key_of(storage_key))
        return table

    def recovered(self) -> None:
        """Note, after a write, that there are turns again."""
        self.counters.recovered += self.dropped.forget(self._settling)
        if not self.dropped.keys:
            self.has_given_up, self.checked_at = False, 0.0
            logger.warning("The file cache in %r is written to again.", self.location)
