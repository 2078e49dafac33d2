"""Errors of all drivers, by their meaning for a cache."""

from enum import Enum

from storeroom.exceptions import StorageError

__all__ = ["Fault", "FullError", "OutageError", "OverfullError"]


class OutageError(Exception):
    """The database cannot be reached, or does not answer in time; the cause is the driver's error.

    Attributes:
        is_broken: whether a connection broke.
        remedy: where the database refuses the login; else "".
    """

    def __init__(self, text: str, *, is_broken: bool = False, remedy: str = "") -> None:
        super().__init__(text)
        self.is_broken, self.remedy = is_broken, remedy


class FullError(StorageError):
    """The database's disk has no room for a write."""


class OverfullError(Exception):
    """A write is undone, or not begun, as more than itself is due.

    The table would hold more than its bounds allow, has lost its row of counts, or cannot tell what is to be counted.
    """


class Fault(Enum):
    """Meaning of a driver's error."""

    CONFLICT = "another transaction was in the way: this one is undone, and may be tried again"
    BUSY = "another process writes to the file: it is waited for, and the same tried again"
    KEPT = "another member of the group has made a file a moment ago, and gives it to the group next: it is waited for"
    OUTAGE = "the database cannot be reached, or does not answer in time"
    MISSING = "the table is not there, or has not the columns it should have"
    FULL = "the disk has no room for the write"
    DAMAGED = "the file is damaged, or is no database"
    REFUSED = "the database understood the statement, and refused it"

    @property
    def ends_session(self) -> bool:
        """Whether the session is of no further use; its transaction is undone with it."""
        return self in {Fault.OUTAGE, Fault.DAMAGED, Fault.KEPT}
