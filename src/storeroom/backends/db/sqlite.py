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
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

from storeroom.backends.db.database import Database, pause
from storeroom.backends.db.errors import Fault
from storeroom.backends.db.statements import Grammar
from storeroom.backends.ownership import (
    HAS_USERS,
    OTHERS_WRITE,
    foreign_directory,
    foreign_file,
    foreign_link,
    give_to_group,
    refusal,
    when_given,
)
from storeroom.exceptions import StorageError

__all__ = ["SQLite", "intrusions", "is_private"]

logger = logging.getLogger("storeroom.db")

_OLDEST: Final = (3, 35, 0)
"""RETURNING came with it: https://sqlite.org/lang_returning.html"""

_SWITCH_SECONDS: Final = 0.02
"""The longest pause before another attempt to switch an old file to write-ahead logging."""

_WAL_PAGES: Final = 4000
"""The log is written back into the file every 16 MB: rarely, and it still fits into the system's memory."""

_LOW_BYTES: Final = 2**26
"""Room on the disk below which some is kept for removals."""

_BALLAST_BYTES: Final = 2**20
"""Room for a removal, and to write back a log of `_FEW_PAGES` after it."""

_FEW_PAGES: Final = 100
"""On a disk that is nearly full the log is written back so often, and adds little to the file."""

_OF_RIGHTS: Final = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
_GIVING_SECONDS: Final = 2.0

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


class Session:
    """A connection that knows which file it has opened. It closes when nobody refers to it, see Connections.

    sqlite3's own does not: it is in a circle with its statements.
    """

    __slots__ = ("__weakref__", "blocks", "connection", "execute", "file")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection, self.execute = connection, connection.execute
        self.file: tuple[int, int] | None = None
        self.blocks: tuple[object, ...] = ()

    def close(self) -> None:
        """Close it, and end its transaction."""
        self.connection.close()

    __del__ = close


_FOREIGN_TABLES: Final = (
    "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND sql NOT LIKE '%(cache_key %'"
)


class SQLite(Database):
    """A database in a file.

    Args:
        path: of the file; made when needed, with its directory, for this user only.
        busy_timeout: seconds to wait for another writer.
        group: the number of the group whose members share the file, or None.

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
    unreachable = sqlite3.OperationalError
    is_local = True
    _columns = "SELECT name FROM pragma_table_info(?)"

    def __init__(self, path: str, busy_timeout: float, group: int | None = None) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            raise StorageError(
                f"Python's SQLite is {sqlite3.sqlite_version}; the database cache needs 3.35 or newer. Use the file "
                "cache, storeroom.backends.filebased.FileBasedCache, which needs no SQLite at all."
            )
        self.name = f"SQLite ({path})"
        self.path, self._ballast = path, f"{path}-ballast"
        self._busy_timeout = busy_timeout
        self._group = group

    def _open(self) -> Session:
        try:
            return when_given(self._open_own, self._group, (os.path.dirname(self.path), self.path))
        except OSError as error:  # as SQLite says it of a file
            raise sqlite3.OperationalError(f"unable to make the database file: {error}") from error

    def _open_own(self) -> Session:
        self._refuse_intruders()  # before anything is made
        _make(self.path, self._group)
        self._refuse_intruders()
        connection = sqlite3.connect(
            self.path,
            timeout=0,  # SQLite's own wait looks every 100 ms in the end; the engine's does so without a pause
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        return Session(connection)

    def _refuse_intruders(self) -> None:
        for reason, owner in intrusions(self.path, self._group):
            raise refusal(reason, owner)

    def _prepare(self, session: Session) -> None:
        self._switch(session)
        session.execute("PRAGMA synchronous = OFF")
        session.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
        session.execute(f"PRAGMA journal_size_limit = {_WAL_PAGES * 4096}")  # one huge set_many() may exceed it
        session.execute("PRAGMA temp_store = MEMORY")
        session.file = _identity(self.path)
        self.settle_room(session)

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

    def is_idle(self, session: Session) -> bool:
        """See Database."""
        return bool(session.blocks) or not session.connection.in_transaction

    def rollback(self, session: Session) -> None:
        """See Database; after some errors the transaction is undone already."""
        if session.connection.in_transaction:
            session.execute("ROLLBACK")

    def fault(self, error: Exception) -> Fault:
        """See Database."""
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            return Fault.OUTAGE  # of the module itself: closed at the same moment
        if code == sqlite3.SQLITE_ERROR and "no such" in str(error):
            return Fault.MISSING
        if code & 0xFF in _OF_RIGHTS and self._is_being_given():
            return Fault.KEPT
        return _FAULTS.get(code & 0xFF, Fault.REFUSED)

    def _is_being_given(self) -> bool:
        """Tell whether another member of the group has made the log a moment ago: SQLite gives it to the group then."""
        made = 0.0
        for name in (f"{self.path}-shm", f"{self.path}-wal") if self._group is not None else ():
            with contextlib.suppress(OSError):
                made = max(made, os.stat(name).st_ctime)
        return abs(time.time() - made) < _GIVING_SECONDS

    def make_room(self, session: Session) -> None:
        """Write the log back into the file, so that further writes overwrite it."""
        try:
            session.execute("PRAGMA wal_checkpoint").fetchone()
        except sqlite3.OperationalError:
            logger.debug("The log of %s cannot be written back.", self.path, exc_info=True)

    def lend_room(self) -> bool:
        """See Database."""
        with contextlib.suppress(OSError):
            if is_private(self.path) and os.path.getsize(self._ballast):
                self.has_lent = True  # first: nobody is to take it back meanwhile
                os.truncate(self._ballast, 0)
        return self.has_lent

    def settle_room(self, session: Session) -> None:
        """Keep room in a file of its own where the disk is nearly full, and a short log if there is room for that."""
        with contextlib.suppress(OSError, AttributeError):  # Windows has no such call
            status = os.statvfs(os.path.dirname(self.path))
            if (room := status.f_bavail * status.f_frsize) > _LOW_BYTES or self.has_lent or not is_private(self.path):
                return
            session.execute(f"PRAGMA wal_autocheckpoint = {_FEW_PAGES}")
            pages, page_bytes = (session.execute(f"PRAGMA page_{each}").fetchone()[0] for each in ("count", "size"))
            if pages * page_bytes - os.path.getsize(self.path) < room:
                with contextlib.suppress(sqlite3.OperationalError):  # others read, or write
                    session.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            _fill(self._ballast)

    def give_back(self) -> int | None:
        """See Database; a file with others' tables in it is left alone, as it is written anew as a whole."""
        self._refuse_intruders()
        before = self._disk_bytes()
        connection = sqlite3.connect(self.path, timeout=self._busy_timeout, isolation_level=None)
        with contextlib.closing(connection):
            if connection.execute(_FOREIGN_TABLES).fetchone():
                return None
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return max(0, before - self._disk_bytes())

    def _disk_bytes(self) -> int:
        log = f"{self.path}-wal"
        return os.path.getsize(self.path) + (os.path.getsize(log) if os.path.exists(log) else 0)

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


def _fill(ballast: str) -> None:
    """Give the file its size, as far as there is room; raise OSError where that ends."""
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        while os.fstat(descriptor).st_size < _BALLAST_BYTES:
            os.write(descriptor, bytes(4096))
    finally:
        os.close(descriptor)


def is_private(path: str) -> bool:
    """Tell whether only this user can write to the file and its logs, or will be able to when they are made.

    Nobody else may be able to put a file beside it either: SQLite takes a log that lies there for its own.
    """
    if not HAS_USERS:
        return True  # Windows keeps others out by other means
    path, directory = os.path.realpath(path), os.path.dirname(os.path.realpath(path))
    if any(foreign_file(status, file, names=2) for file, status in _files(path)):
        return False
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    above = (directory, *map(str, Path(directory).parents))
    return not os.stat(directory).st_mode & OTHERS_WRITE and not any(
        foreign_directory(os.stat(each), each) for each in above
    )


def intrusions(path: str, group: int | None = None) -> Iterator[tuple[str, int | None]]:
    """Yield reasons not to open the file, and the user who owns what is wrong, if there is one.

    A group of users may share a file, by its mode and owner: then nothing but plain data is read of it, unless
    OPTIONS["group"] names the `group`, and values are signed.
    """
    if not HAS_USERS:
        return
    if reason := foreign_link(path):
        yield reason, None
    path = os.path.realpath(path)
    directory = os.path.dirname(path)
    if os.path.isdir(directory) and _is_strange(status := os.stat(directory), group):
        yield foreign_directory(status, directory) or "", status.st_uid
    for file, status in _files(path):
        if not stat.S_ISREG(status.st_mode) or _is_strange(status, group):
            yield foreign_file(status, file, names=2) or "", status.st_uid


def _files(path: str) -> Iterator[tuple[str, os.stat_result]]:
    for suffix in ("", "-wal", "-shm", "-journal"):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            yield path + suffix, os.lstat(path + suffix)


def _is_strange(status: os.stat_result, group: int | None) -> bool:
    """Tell whether it belongs neither to this user, nor to root, nor to a group that this user shares it with."""
    if status.st_uid in {0, os.geteuid()} or not foreign_directory(status, "", group):
        return False
    is_shared = status.st_mode & stat.S_IWGRP and status.st_gid in {os.getegid(), *os.getgroups()}
    return not is_shared or os.geteuid() == 0


def _make(path: str, group: int | None) -> None:
    """Make the file, for this user only or the group, unless it is there.

    One that is there is not even opened: to close it would let go of SQLite's locks (howtocorrupt, section 2.2). A new
    one gets its name when it is complete, with its log, which many that begin at once would keep each other from.
    """
    if os.path.exists(path):
        return
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        os.makedirs(directory, mode=0o700, exist_ok=True)
        if group is not None:
            give_to_group(directory, group, 0o2770)  # the files of the log are the group's by the directory
    draft = f"{path}.{os.getpid()}-{os.urandom(4).hex()}.new"
    try:
        _make_empty(draft, group)  # SQLite gives the files of its log the mode of this one
        with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as session:
            session.execute("PRAGMA journal_mode = WAL")
        _take_name(draft, path, group)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)


def _take_name(draft: str, path: str, group: int | None) -> None:
    with contextlib.suppress(FileExistsError):  # another was faster
        try:
            os.link(draft, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            _make_empty(path, group)


def _make_empty(path: str, group: int | None) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        if group is not None:
            give_to_group(descriptor, group, 0o660)
    finally:
        os.close(descriptor)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
