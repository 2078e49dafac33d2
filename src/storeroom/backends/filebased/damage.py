"""Damage of an environment: found before LMDB maps the file, as far as it can be, and moved aside."""

import contextlib
import os
from typing import Final

import lmdb

from storeroom.backends.filebased.files import ClosingNote, find_fault, last_transaction, origin
from storeroom.backends.filebased.holds import Holds
from storeroom.backends.filebased.slotfile import last_attempt
from storeroom.backends.filebased.turns import Turns
from storeroom.late import logger_of

__all__ = ["DAMAGE", "is_damaged", "move_aside"]

logger = logger_of("storeroom.filebased")

DAMAGE: Final = (
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
    lmdb.BadDbiError,
    lmdb.CursorFullError,
    lmdb.IncompatibleError,
)
"""LMDB's errors that tell of it."""


def is_damaged(directory: str, location: str, closing_note: ClosingNote, turns: Turns, holds: Holds) -> bool:
    """Look at the file before LMDB maps it: of a truncated one, a read would end the process."""
    path = os.path.join(directory, "data.mdb")
    try:
        is_new = os.path.getsize(path) == 0  # made by a process that died before it wrote
    except FileNotFoundError:
        is_new = True
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(directory, "lock.mdb"))  # its users have another data.mdb, which was removed
    # A file that others have open is as whole as they need it, and moves under our eyes.
    if is_new or holds.is_used():
        return False
    fault = find_fault(path, lambda: not (closing_note.is_of(path) or _was_only_killed(directory, path, turns)))
    if fault is not None:
        logger.warning("The file cache in %r is damaged: %s", location, fault)
    return fault is not None


def _was_only_killed(directory: str, path: str, turns: Turns) -> bool:
    """Tell whether the file is as its last writer left it, which was killed since this start of the machine.

    No other way to end leaves a page half written: a commit is of new pages, until its last write.
    """
    attempt = last_attempt(os.path.join(directory, "slots"), origin(path))
    return (
        attempt is not None
        and attempt - last_transaction(path) in {0, 1}
        and turns.were_last_at(os.stat(path).st_mtime)
    )


def move_aside(directory: str) -> None:
    """Rename the files, over those of an earlier damage, so that a new environment takes their place."""
    for name in ("data.mdb", "lock.mdb", "slots"):
        path = os.path.join(directory, name)
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, f"{path}.damaged")
    logger.warning("The damaged files were renamed to *.damaged in %r and the cache starts empty.", directory)
