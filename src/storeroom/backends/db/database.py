"""A database: its sessions, its transactions, and the meaning of its errors."""

import contextlib
import os
import random
import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, TypeVar

from storeroom import timeouts
from storeroom.backends.db.errors import Fault
from storeroom.backends.db.statements import Grammar, Statements
from storeroom.storage.clocks import SERVER, Clock, machine_clock

__all__ = ["IDLE_SECONDS", "Database", "pause"]

T = TypeVar("T")

IDLE_SECONDS: Final = 5.0
"""The shortest silence of a program within a transaction after which a server ends it: longer than a busy machine lets
a program wait, and short for those who wait for its rows."""

_SAVEPOINT: Final = "SAVEPOINT storeroom"
_RELEASE: Final = f"RELEASE {_SAVEPOINT}"


class Database:
    """Base of sqlite.py, postgresql.py and mysql.py; its defaults are those of a server.

    A session is a driver's connection in autocommit mode with a method ``execute(statement, parameters)`` that
    returns a cursor. Its `blocks` are those of a test that it keeps step with, in a transaction that encloses all
    others: see following.py.

    Attributes:
        name: for the log and for errors; without password.
        spoken: its protocol, host and port: see ``served.NetworkEngine``.
        grammar: of its SQL.
        errors: the driver's.
        unreachable: the class of those that mean an outage, as programs catch them.
        is_local: whether reads wait for nobody, and one writer at a time is all there is.
        tells_time: statement that returns the server's epoch seconds, at the moment of asking; None for a file.
        has_lent: whether a removal on a full disk has the room that is kept for it.
        idle_seconds: of a program's silence within a transaction, after which the server ends it, lest one that was
            stopped, or whose machine is gone, keeps its rows from all others; 0 for no bound.
        can_notify: whether it tells other processes of changes: see notifications.py.
    """

    name: str
    spoken: tuple[str, str, int] = ("", "", 0)
    grammar: Grammar
    errors: ClassVar[tuple[type[Exception], ...]]
    unreachable: ClassVar[type[Exception]]
    is_local: ClassVar[bool] = False
    can_notify: ClassVar[bool] = False
    idle_seconds = 0.0
    has_lent = False
    tells_time: ClassVar[str | None] = None

    _columns: ClassVar[str]
    """Statement that takes a table's name, and returns those of its columns."""

    def _open(self) -> Any:
        """Return a new session."""
        raise NotImplementedError

    def _prepare(self, session: Any) -> None:
        """Set a new session's parameters."""
        raise NotImplementedError

    def _descriptor(self, session: Any) -> int:
        """Return the descriptor of a session's socket; -1 if it is closed."""
        raise NotImplementedError

    def fault(self, error: Exception) -> Fault:
        """Return the meaning of a driver's error."""
        raise NotImplementedError

    def is_broken(self, error: Exception) -> bool:
        """Tell of an outage's error whether a connection broke, rather than that none was made or none answered."""
        return False

    def remedy(self, error: Exception) -> str:
        """Return the remedy against an error by which the database refuses a login, or lacks a right; else ""."""
        return ""

    def is_crowded(self, error: Exception) -> bool:
        """Tell whether the server has refused a session as one too many."""
        return False

    def close(self, session: Any) -> None:
        """Close a session, whatever state it is in; nothing is raised."""
        session.close()

    def clock(self, session: Any) -> Clock | None:
        """Return the time that all who use the database go by."""
        if self.tells_time is None:
            return machine_clock()
        told = session.execute(self.tells_time, ()).fetchone()[0]
        return Clock(SERVER, float(told) + timeouts.skipped)

    def connect(self) -> Any:
        """Open a session."""
        session = self._open()
        try:
            self._prepare(session)
        except BaseException:
            self.close(session)
            raise
        return session

    def is_stale(self, session: Any) -> bool:
        """Tell whether an idle session has been closed at the other end."""
        descriptor = self._descriptor(session)
        if descriptor < 0:
            return True
        # Nothing but an end, or an error, comes unasked.
        if not hasattr(select, "poll"):
            return bool(select.select([descriptor], [], [], 0)[0])
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def is_idle(self, session: Any) -> bool:
        """Tell whether nothing is under way on a session: neither a statement, nor a transaction."""
        raise NotImplementedError

    def abandon(self, sessions: Sequence[Any]) -> None:
        """Let go, in a forked child, of sessions that are the parent's.

        Their descriptors lead nowhere from now on: a driver would say good-bye to the parent's server process.
        """
        nowhere, other = socket.socketpair()
        other.close()
        for descriptor in map(self._descriptor, sessions):
            if descriptor >= 0:
                os.dup2(nowhere.fileno(), descriptor, inheritable=False)
        nowhere.close()

    def make_room(self, session: Any) -> None:
        """Free room on a full disk that the database takes without need; a server does so by itself."""

    def lend_room(self) -> bool:
        """Give a removal the room that is kept for it on a full disk; tell whether there is any."""
        return False

    def settle_room(self, session: Any) -> None:
        """See to it that a removal will find room on the disk."""

    def give_back(self) -> int | None:
        """Give the disk space of removed rows back; return the bytes, or None where the server does that in time."""
        return None

    def repair(self, session: Any) -> None:
        """Put the damaged database of a session aside, so that a new one is made; a server repairs itself."""

    def within(self, session: Any, begin: Sequence[str], work: Callable[..., T], *args: Any) -> T:
        """Run ``work(*args)`` in a transaction: committed in the end, rolled back if anything is raised.

        Where neither could be done, the session is not idle: its caller closes it, and the transaction ends with it.
        """
        try:
            for statement in (_SAVEPOINT,) if session.blocks else begin:
                session.execute(statement, ())
            result = work(*args)
            session.execute(_RELEASE if session.blocks else "COMMIT", ())
        except Exception as error:
            if not (isinstance(error, self.errors) and self.fault(error).ends_session):
                (self._undo if session.blocks else self.rollback)(session)
            raise
        except BaseException:
            session.blocks = ()  # so that it is not idle
            raise
        return result

    def _undo(self, session: Any) -> None:
        """Undo a transaction that a test's encloses; if that fails, the session is not idle."""
        blocks, session.blocks = session.blocks, ()
        with contextlib.suppress(*self.errors):
            session.execute(f"ROLLBACK TO {_SAVEPOINT}", ())
            session.execute(_RELEASE, ())
            session.blocks = blocks

    def rollback(self, session: Any) -> None:
        """Undo a session's transaction, if it is in one, and no statement was cut short."""
        raise NotImplementedError

    def statements(self, table: str) -> Statements:
        """Return the SQL on a table."""
        return Statements(self.grammar, table)

    def columns(self, session: Any, table: str) -> frozenset[str]:
        """Return the names of a table's columns; none if there is no such table."""
        return frozenset(name for (name,) in session.execute(self._columns, (table,)).fetchall())

    def lock_schema(self, session: Any, table: str) -> None:
        """Keep others, within a transaction, from making the same table; on MySQL they fail, and look again."""

    def incr(self, session: Any, statements: Statements, parameters: Sequence[Any]) -> int | None:
        """Add to a live plain integer within bounds; return the sum, or None if there is none."""
        row = session.execute(statements.incr, parameters).fetchone()
        return None if row is None else row[0]


def pause(longest: float) -> None:
    """Sleep for up to so many seconds: at random, lest all that collided collide again."""
    time.sleep(random.random() * longest)  # noqa: S311 -- a pause is no secret
