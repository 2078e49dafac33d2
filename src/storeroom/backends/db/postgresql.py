"""PostgreSQL 9.5 or newer, by psycopg 3."""

import math
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any, ClassVar, Final

import psycopg
from psycopg.conninfo import make_conninfo

from storeroom.backends.db.errors import Fault
from storeroom.backends.db.liveness import detach, has_news
from storeroom.backends.db.location import Target
from storeroom.backends.db.statements import Grammar, Statements
from storeroom.exceptions import ConfigurationError

__all__ = ["GRAMMAR", "PostgreSQL"]

GRAMMAR: Final = Grammar(
    mark="%s",
    quote='"',
    types=("bytea PRIMARY KEY", "bytea", "bigint", "double precision NOT NULL", *["bigint NOT NULL"] * 3),
    skip_locked=" FOR UPDATE SKIP LOCKED",
    lock=" FOR UPDATE",
    begin="BEGIN",
    snapshot=("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",),
    returning=True,
    chains=True,
)

_CONFLICTS: Final = {
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
    "23505",  # unique_violation, where two processes make the table at once
}
_MISSING: Final = {
    "42P01",  # undefined_table
    "42703",  # undefined_column
}
_FULL: Final = "53100"  # disk_full
_OVERFULL: Final = "23502"  # not_null_violation, which one statement alone can meet: see Statements.put_one
_OUTAGES: Final = {
    "25006",  # read_only_sql_transaction: a replica, after a failover
    "55P03",  # lock_not_available
    "57014",  # query_canceled, by statement_timeout
    "53300",  # too_many_connections
}
"""SQLSTATEs: https://www.postgresql.org/docs/current/errcodes-appendix.html"""


class TimedConnection(psycopg.Connection[Any]):
    """A connection that waits for an answer only so long."""

    answer_seconds = math.inf

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Run one of psycopg's generators, but no longer than `answer_seconds`."""
        return super().wait(self._bounded(gen), *args, **kwargs)

    def _bounded(self, gen: Any) -> Generator[Any, Any, Any]:
        deadline = time.monotonic() + self.answer_seconds
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                # Nothing is ready each time that psycopg looks for interrupts.
                if not ready and time.monotonic() > deadline:
                    self.close()
                    raise psycopg.OperationalError(f"no answer within {self.answer_seconds:g} s")
                wanted = gen.send(ready)
        except StopIteration as stop:
            return stop.value


class PostgreSQL:
    """A database of a PostgreSQL server.

    Args:
        target: where it is.
        settings: the cache's options.
    """

    is_local: ClassVar[bool] = False
    can_notify: ClassVar[bool] = True
    errors: tuple[type[Exception], ...] = (psycopg.Error,)

    def __init__(self, target: Target, settings: Mapping[str, Any]) -> None:
        self.name = f"PostgreSQL ({target.host or 'local'}:{target.port or 5432}/{target.database or ''})"
        self._unlogged: bool = settings["unlogged"]
        self._answer_seconds: float = settings["socket_timeout"]
        given = {
            "user": target.user,
            "password": target.password,
            "host": target.host,
            "port": target.port,
            "dbname": target.database,
            # libpq takes whole seconds, and two at least.
            "connect_timeout": max(2, math.ceil(settings["socket_connect_timeout"])),
            "application_name": "storeroom",
            **dict(target.query),
        }
        try:
            self._conninfo = make_conninfo(**{name: value for name, value in given.items() if value is not None})
        except psycopg.ProgrammingError as error:
            raise ConfigurationError(
                f"{self.name} is given parameters that PostgreSQL's library does not know: {str(error).strip()}. See "
                "https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS"
            ) from error

    def statements(self, table: str) -> Statements:
        """See Database."""
        return Statements(GRAMMAR, table, unlogged=self._unlogged)

    def connect(self) -> TimedConnection:
        """See Database."""
        session = TimedConnection.connect(self._conninfo, autocommit=True)
        try:
            return self.prepare(session)
        except BaseException:
            self.close(session)
            raise

    def prepare(self, session: TimedConnection) -> TimedConnection:
        """Set what is to hold on a new connection."""
        session.answer_seconds = self._answer_seconds
        milliseconds = max(1, int(self._answer_seconds * 1000))
        # A cache can wait for the disk's confirmation or be fast; what is lost by a crash is the last moment.
        session.execute(f"SET synchronous_commit = off; SET statement_timeout = {milliseconds}")
        return session

    def close(self, session: TimedConnection) -> None:
        """See Database."""
        session.close()

    def is_stale(self, session: TimedConnection) -> bool:
        """See Database."""
        return session.closed or has_news(session.pgconn.socket)

    def abandon(self, sessions: Sequence[TimedConnection]) -> None:
        """See Database."""
        detach(session.pgconn.socket for session in sessions if not session.closed)

    def rollback(self, session: TimedConnection) -> None:
        """See Database."""
        session.execute("ROLLBACK")

    def fault(self, error: Exception) -> Fault:
        """See Database."""
        state = getattr(error, "sqlstate", None)
        if state in _CONFLICTS:
            return Fault.CONFLICT
        if state in _MISSING:
            return Fault.MISSING
        if state == _FULL:
            return Fault.FULL
        if state == _OVERFULL:
            return Fault.OVERFULL
        is_gone = state is None and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        # Classes 08 and 57P: the connection failed, the server shuts down or starts.
        if is_gone or state in _OUTAGES or str(state).startswith(("08", "57P")):
            return Fault.OUTAGE
        return Fault.REFUSED

    def columns(self, session: TimedConnection, table: str) -> frozenset[str]:
        """See Database."""
        found = session.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
            ('"' + table.replace('"', '""') + '"',),
        )
        return frozenset(name for (name,) in found.fetchall())

    def lock_schema(self, session: TimedConnection, table: str) -> None:
        """See Database; the number is that of Storeroom's own choice, and the lock ends with the transaction."""
        session.execute("SELECT pg_advisory_xact_lock(7367868, hashtext(%s))", (table,))

    def incr(self, session: TimedConnection, statements: Statements, parameters: Sequence[Any]) -> int | None:
        """See Database."""
        row = session.execute(statements.incr, parameters).fetchone()
        return None if row is None else row[0]

    def make_room(self, session: Any) -> None:
        """Do nothing: a server does what it can."""

    def repair(self, session: Any) -> None:
        """Do nothing: a server repairs itself."""
