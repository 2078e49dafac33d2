"""What went wrong, whichever driver says so."""

from enum import Enum

from storeroom.exceptions import StorageError

__all__ = ["Fault", "FullError", "OutageError"]


class OutageError(Exception):
    """The database cannot be reached, or does not answer in time; the cause is the driver's error."""


class FullError(StorageError):
    """The database has no room on its disk for what was to be written."""


class Fault(Enum):
    """What a driver's error means for a cache."""

    CONFLICT = "another transaction was in the way: this one is undone, and may be tried again"
    OUTAGE = "the database cannot be reached, or does not answer in time"
    MISSING = "the table is not there, or has not the columns it should have"
    FULL = "there is no room on the disk for what was to be written"
    OVERFULL = "the statement would have left more in the table than its bounds allow"
    DAMAGED = "the file is damaged, or is none of a database"
    REFUSED = "the database understood, and said no"
