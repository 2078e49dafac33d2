"""What the cache needs of a database: how to connect to it, and what its errors mean."""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from storeroom.backends.db.errors import Fault
from storeroom.backends.db.statements import Statements

__all__ = ["Database"]


class Database(Protocol):
    """One of sqlite.py, postgresql.py, mysql.py.

    A session is a driver's connection in autocommit mode with a method
    ``execute(statement, parameters)`` that returns a cursor.
    """

    name: str
    """For the log and for errors; without password."""

    is_local: ClassVar[bool]
    """Whether reading waits for nobody, and one writer at a time is all there is."""

    can_notify: ClassVar[bool]
    """Whether it tells other processes what has changed: see notifications.py."""

    errors: tuple[type[Exception], ...]
    """What the driver raises."""

    def statements(self, table: str) -> Statements:
        """Return the SQL on a table."""

    def connect(self) -> Any:
        """Open a session."""

    def close(self, session: Any) -> None:
        """Close it; whatever state it is in, nothing is raised."""

    def is_stale(self, session: Any) -> bool:
        """Tell whether a session that was idle has been closed at the other end."""

    def abandon(self, sessions: Sequence[Any]) -> None:
        """Let go, in a forked child, of sessions that are the parent's."""

    def rollback(self, session: Any) -> None:
        """End the transaction that a session is in, if it still is in one, and undo it."""

    def fault(self, error: Exception) -> Fault:
        """Say what an error of the driver means."""

    def columns(self, session: Any, table: str) -> frozenset[str]:
        """Return the names of a table's columns; none if there is no such table."""

    def lock_schema(self, session: Any, table: str) -> None:
        """Keep other processes, within a transaction, from making the same table."""

    def incr(self, session: Any, statements: Statements, parameters: Sequence[Any]) -> int | None:
        """Add to a plain integer that is live and not too large; return the sum, or None if there is none."""

    def make_room(self, session: Any) -> None:
        """Give back what the database takes of a full disk without need."""

    def repair(self, session: Any) -> None:
        """Put the damaged database that a session has opened aside, so that a new one takes its place."""
