"""SQLite: a table in a file that all processes of this machine share.

Write-ahead logging: reading waits for nobody, one writes at a time. Nothing is waited for to reach
the disk: a process that is killed loses nothing; a machine that fails may leave a damaged file,
which is noticed, and put aside.

Sources: https://sqlite.org/wal.html, https://sqlite.org/howtocorrupt.html (section 2.2: nobody else closes
the file in this process; 2.6: no connection is carried across a fork).
"""

import contextlib
import logging
import os
import sqlite3
import stat
import time
from typing import ClassVar, Final

from storeroom.backends.db.database import Database, pause
from storeroom.backends.db.errors import Fault
from storeroom.backends.db.statements import Grammar
from storeroom.exceptions import StorageError

__all__ = ["SQLite", "is_private"]

logger = logging.getLogger("storeroom.db")

_OLDEST: Final = (3, 35, 0)
"""RETURNING came with it: https://sqlite.org/lang_returning.html"""

_SWITCH_SECONDS: Final = 0.02
"""The longest pause before another attempt to switch an old file to write-ahead logging."""

_WAL_PAGES: Final = 4000
"""The log is written back into the file every 16 MB: rarely, and it still fits into the system's memory."""

_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH

_FAULTS: Final = {
    sqlite3.SQLITE_BUSY: Fault.BUSY,
    sqlite3.SQLITE_LOCKED: Fault.CONFLICT,
    sqlite3.SQLITE_IOERR: Fault.OUTAGE,
    sqlite3.SQLITE_CANTOPEN: Fault.OUTAGE,
    sqlite3.SQLITE_READONLY: Fault.OUTAGE,  # its file was removed or replaced
    sqlite3.SQLITE_FULL: Fault.FULL,
    sqlite3.SQLITE_CORRUPT: Fault.DAMAGED,
    sqlite3.SQLITE_NOTADB: Fault.DAMAGED,
}


class Session(sqlite3.Connection):
    """A connection that knows which file it has opened."""

    file: tuple[int, int] | None = None


class SQLite(Database):
    """A database in a file.

    Args:
        path: of the file; made when needed, with its directory, for this user only.
        busy_timeout: seconds to wait for another writer.

    Raises:
        StorageError: SQLite is too old.
    """

    grammar = Grammar(
        parameter="?",
        types=("BLOB PRIMARY KEY", "BLOB", "INTEGER", "REAL NOT NULL", *["INTEGER NOT NULL"] * 3),
        begin=("BEGIN IMMEDIATE",),
        snapshot=("BEGIN",),
        table_suffix=" WITHOUT ROWID",
    )
    errors: ClassVar[tuple[type[Exception], ...]] = (sqlite3.Error,)
    is_local = True
    _columns = "SELECT name FROM pragma_table_info(?)"

    def __init__(self, path: str, busy_timeout: float) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            raise StorageError(
                f"Python's SQLite is {sqlite3.sqlite_version}; the database cache needs 3.35 or newer. Use the file "
                "cache, storeroom.backends.filebased.FileBasedCache, which needs no SQLite at all."
            )
        self.name = f"SQLite ({path})"
        self.path = path
        self._busy_timeout = busy_timeout

    def _open(self) -> Session:
        _make(self.path)
        return sqlite3.connect(
            self.path,
            timeout=0,  # SQLite's own wait looks every 100 ms in the end; the engine's does so without a pause
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
            factory=Session,
        )

    def _prepare(self, session: Session) -> None:
        self._switch(session)
        session.execute("PRAGMA synchronous = OFF")
        session.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
        session.execute(f"PRAGMA journal_size_limit = {_WAL_PAGES * 4096}")  # one huge set_many() may exceed it
        session.execute("PRAGMA temp_store = MEMORY")
        session.file = _identity(self.path)

    def _switch(self, session: Session) -> None:
        """Switch the file to write-ahead logging, as others may do at the same time: SQLite does not wait for them."""
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                session.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                pause(_SWITCH_SECONDS)
            else:
                return

    def close(self, session: Session) -> None:
        """See Database."""
        try:
            session.close()
        except sqlite3.Error:
            logger.debug("A connection to %s could not be closed.", self.path, exc_info=True)

    def is_stale(self, session: Session) -> bool:
        """Tell whether the file that was opened lies no longer at its path."""
        return _identity(self.path) != session.file

    def rollback(self, session: Session) -> None:
        """See Database; after some errors the transaction is undone already."""
        if session.in_transaction:
            session.execute("ROLLBACK")

    def fault(self, error: Exception) -> Fault:
        """See Database."""
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            return Fault.OUTAGE  # of the module itself: closed at the same moment
        if code == sqlite3.SQLITE_ERROR and "no such" in str(error):
            return Fault.MISSING
        return _FAULTS.get(code & 0xFF, Fault.REFUSED)

    def make_room(self, session: Session) -> None:
        """Write the log back into the file, so that further writes overwrite it."""
        try:
            session.execute("PRAGMA wal_checkpoint").fetchone()
        except sqlite3.OperationalError:
            logger.debug("The log of %s cannot be written back.", self.path, exc_info=True)

    def repair(self, session: Session | None) -> None:
        """Move the file aside, as ".damaged"; remove its log."""
        if session is not None and self.is_stale(session):
            return  # another thread or process was faster
        aside = f"{self.path}.damaged"
        try:
            os.replace(self.path, aside)
        except FileNotFoundError:
            return
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path + suffix)
        logger.error("The cache's database %s is damaged. It was moved to %s, and a new one begun.", self.path, aside)


def is_private(path: str) -> bool:
    """Tell whether only this user can write to the file, or will be able to when it is made."""
    if not hasattr(os, "geteuid"):
        return True  # Windows keeps others out by other means
    directory = os.path.dirname(path)
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        while not os.path.isdir(directory):
            directory = os.path.dirname(directory)
    else:
        if status.st_uid != os.geteuid() or status.st_mode & _OTHERS_WRITE:
            return False
    # Others cannot replace this user's files in a directory like /tmp.
    mode = os.stat(directory).st_mode
    return not mode & _OTHERS_WRITE or bool(mode & stat.S_ISVTX)


def _make(path: str) -> None:
    """Make the file, for this user only, unless it is there.

    One that is there is not even opened: to close it would let go of SQLite's locks (howtocorrupt, section 2.2). A new
    one gets its name when it is complete, with its log, which many that begin at once would keep each other from.
    """
    if os.path.exists(path):
        return
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    draft = f"{path}.{os.getpid()}-{os.urandom(4).hex()}.new"
    try:
        _make_empty(draft)  # SQLite gives the files of its log the mode of this one
        with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as session:
            session.execute("PRAGMA journal_mode = WAL")
        _take_name(draft, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)


def _take_name(draft: str, path: str) -> None:
    with contextlib.suppress(FileExistsError):  # another was faster
        try:
            os.link(draft, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            _make_empty(path)


def _make_empty(path: str) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600))


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
