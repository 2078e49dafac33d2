"""SQLite: a table in a file that all processes of this machine share.

Write-ahead logging: reading waits for nobody, one writes at a time. Nothing is waited
for to reach the disk, as a cache can be made again: when a process ends or is killed,
all that was committed is there; when the machine fails, the file may be damaged, which
is noticed, and it is put aside.

Sources: https://sqlite.org/wal.html, https://sqlite.org/howtocorrupt.html (section 2.2: nobody else closes
the file in this process; 2.6: no connection is carried across a fork).
"""

import contextlib
import logging
import os
import random
import sqlite3
import stat
import time
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from storeroom.backends.db.errors import Fault
from storeroom.backends.db.statements import Grammar, Statements
from storeroom.exceptions import StorageError

__all__ = ["SQLite", "is_private"]

logger = logging.getLogger("storeroom.db")

GRAMMAR: Final = Grammar(
    mark="?",
    quote='"',
    types=("BLOB PRIMARY KEY", "BLOB", "INTEGER", *["REAL NOT NULL"], *["INTEGER NOT NULL"] * 3),
    skip_locked="",
    lock="",
    begin="BEGIN IMMEDIATE",
    snapshot=("BEGIN",),
    returning=True,
    table_suffix=" WITHOUT ROWID",
)

_OLDEST: Final = (3, 35, 0)
"""RETURNING came with it: https://sqlite.org/lang_returning.html"""

_SWITCH_SECONDS: Final = 0.02
"""The longest pause before another attempt to switch an old file to write-ahead logging; random, lest all who try
collide again."""

_WAL_PAGES: Final = 4000
"""The log is written back into the file every 16 MB: rarely, and it still fits into the system's memory."""

_FAULTS: Final = {
    sqlite3.SQLITE_BUSY: Fault.OUTAGE,  # for longer than busy_timeout
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


class SQLite:
    """A database in a file.

    Args:
        path: of the file; made when needed, with its directory, for this user only.
        busy_timeout: seconds to wait for another writer.

    Raises:
        StorageError: SQLite is too old.
    """

    is_local: ClassVar[bool] = True
    can_notify: ClassVar[bool] = False
    errors: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, path: str, busy_timeout: float) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            raise StorageError(
                f"Python's SQLite is {sqlite3.sqlite_version}; the database cache needs 3.35 or newer. Use the file "
                "cache, storeroom.backends.filebased.FileBasedCache, which needs no SQLite at all."
            )
        self.name = f"SQLite ({path})"
        self.path = path
        self._busy_timeout = busy_timeout

    def statements(self, table: str) -> Statements:
        """See Database."""
        return Statements(GRAMMAR, table)

    def connect(self) -> Session:
        """See Database."""
        _make(self.path)
        session = sqlite3.connect(
            self.path,
            timeout=self._busy_timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
            factory=Session,
        )
        try:
            self._prepare(session)
        except BaseException:
            session.close()
            raise
        session.file = _identity(self.path)
        return session

    def _prepare(self, session: Session) -> None:
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                session.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                # Others switch the same file to it: SQLite does not wait for them here.
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(random.random() * _SWITCH_SECONDS)  # noqa: S311 -- any will do
            else:
                break
        session.execute("PRAGMA synchronous = OFF")
        session.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
        session.execute(f"PRAGMA journal_size_limit = {_WAL_PAGES * 4096}")  # one huge set_many() may exceed it
        session.execute("PRAGMA temp_store = MEMORY")

    def close(self, session: Session) -> None:
        """See Database."""
        try:
            session.close()
        except sqlite3.Error:
            logger.debug("A connection to %s could not be closed.", self.path, exc_info=True)

    def is_stale(self, session: Session) -> bool:
        """Tell whether the file that was opened lies no longer at its path."""
        return _identity(self.path) != session.file

    def abandon(self, sessions: Sequence[Session]) -> None:
        """Do nothing: all were closed before the fork."""

    def rollback(self, session: Session) -> None:
        """See Database; of some errors the transaction is undone already."""
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

    def columns(self, session: Session, table: str) -> frozenset[str]:
        """See Database."""
        return frozenset(name for (name,) in session.execute("SELECT name FROM pragma_table_info(?)", (table,)))

    def lock_schema(self, session: Session, table: str) -> None:
        """Do nothing: the transaction is the only one that writes."""

    def incr(self, session: Session, statements: Statements, parameters: Sequence[Any]) -> int | None:
        """See Database."""
        row = session.execute(statements.incr, parameters).fetchone()
        return None if row is None else row[0]

    def make_room(self, session: Session) -> None:
        """Write the log back into the file, so that what comes next takes its place, and no more room."""
        try:
            session.execute("PRAGMA wal_checkpoint").fetchone()
        except sqlite3.OperationalError:
            logger.debug("The log of %s cannot be written back.", self.path, exc_info=True)

    def repair(self, session: Session) -> None:
        """Move the file aside, under a name that tells what it is; remove what belongs to it."""
        if session is not None and self.is_stale(session):
            return  # another thread or process was faster
        aside = f"{self.path}.damaged"
        try:
            os.replace(self.path, aside)
        except FileNotFoundError:
            return
        for suffix in ("-wal", "-shm"):
            try:
                os.unlink(self.path + suffix)
            except FileNotFoundError:
                continue
        logger.error("The cache's database %s is damaged. It was moved to %s, and a new one begun.", self.path, aside)


def is_private(path: str) -> bool:
    """Tell whether only this user can write to the file, or will be able to when it is made."""
    if not hasattr(os, "geteuid"):
        return True  # Windows keeps others out by other means
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        directory = os.path.dirname(path)
        while not os.path.isdir(directory):
            directory = os.path.dirname(directory)
        return directory_is_safe(directory)
    return (
        status.st_uid == os.geteuid()
        and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        and directory_is_safe(os.path.dirname(path))
    )


def directory_is_safe(directory: str) -> bool:
    """Tell whether nobody else can replace this user's files in a directory; in one like /tmp they cannot."""
    mode = os.stat(directory).st_mode
    return not mode & (stat.S_IWGRP | stat.S_IWOTH) or bool(mode & stat.S_ISVTX)


def _make(path: str) -> None:
    """Make the file, for this user only, unless it is there.

    One that is there is not so much as opened: to close it would let go of all locks that SQLite has on it in this
    process (howtocorrupt, section 2.2). So a new one gets its name only when it is complete, write-ahead logging
    included, for which many that begin at once would lock each other out.
    """
    if os.path.exists(path):
        return
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    draft = f"{path}.{os.getpid()}-{os.urandom(4).hex()}.new"
    try:
        # SQLite gives the files of its log the mode of this one.
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600))
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
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
