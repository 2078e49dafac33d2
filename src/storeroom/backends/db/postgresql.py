"""PostgreSQL 9.5 or newer, by psycopg 3."""

import math
import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final

import psycopg
from psycopg.conninfo import make_conninfo

from storeroom.backends.db.database import Database
from storeroom.backends.db.errors import Fault
from storeroom.backends.db.location import Target
from storeroom.backends.db.statements import Grammar
from storeroom.exceptions import ConfigurationError

__all__ = ["PostgreSQL"]

_FAULTS: Final = {
    "40001": Fault.CONFLICT,  # serialization_failure
    "40P01": Fault.CONFLICT,  # deadlock_detected
    "23505": Fault.CONFLICT,  # unique_violation, where two processes make the table at once
    "42P01": Fault.MISSING,  # undefined_table
    "42703": Fault.MISSING,  # undefined_column
    "53100": Fault.FULL,  # disk_full
    "23502": Fault.OVERFULL,  # not_null_violation, which one statement alone can meet: see Statements.put_one
    "25006": Fault.OUTAGE,  # read_only_sql_transaction: a replica, after a failover
    "55P03": Fault.OUTAGE,  # lock_not_available
    "57014": Fault.OUTAGE,  # query_canceled, by statement_timeout
    "53300": Fault.OUTAGE,  # too_many_connections
}
"""SQLSTATEs: https://www.postgresql.org/docs/current/errcodes-appendix.html"""

_UNREACHABLE: Final = ("08", "57P")
"""Beginnings of SQLSTATEs: the connection failed, the server shuts down or starts."""


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


class PostgreSQL(Database):
    """A database of a PostgreSQL server."""

    grammar = Grammar(
        parameter="%s",
        types=("bytea PRIMARY KEY", "bytea", "bigint", "double precision NOT NULL", *["bigint NOT NULL"] * 3),
        begin=("BEGIN",),
        snapshot=("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",),
        lock=" FOR UPDATE",
        skip_locked=" FOR UPDATE SKIP LOCKED",
        chains=True,
    )
    errors: ClassVar[tuple[type[Exception], ...]] = (psycopg.Error,)
    can_notify = True
    _columns = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"

    def __init__(self, target: Target, settings: Mapping[str, Any]) -> None:
        self.name = f"PostgreSQL ({target.address})"
        self._answer_seconds: float = settings["socket_timeout"]
        if settings["unlogged"]:
            self.grammar = replace(self.grammar, create="CREATE UNLOGGED TABLE")
        given = {
            **target.login("dbname"),
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

    def _open(self) -> TimedConnection:
        return TimedConnection.connect(self._conninfo, autocommit=True)

    def _prepare(self, session: TimedConnection) -> None:
        session.answer_seconds = self._answer_seconds
        milliseconds = max(1, int(self._answer_seconds * 1000))
        # A cache can wait for the disk's confirmation or be fast; a crash loses the last moment.
        session.execute(f"SET synchronous_commit = off; SET statement_timeout = {milliseconds}")

    def _descriptor(self, session: TimedConnection) -> int:
        return -1 if session.closed else session.pgconn.socket

    def fault(self, error: Exception) -> Fault:
        """See Database."""
        state = getattr(error, "sqlstate", None)
        if state is None:
            is_gone = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
            return Fault.OUTAGE if is_gone else Fault.REFUSED
        return Fault.OUTAGE if state.startswith(_UNREACHABLE) else _FAULTS.get(state, Fault.REFUSED)

    def columns(self, session: TimedConnection, table: str) -> frozenset[str]:
        """See Database."""
        return super().columns(session, '"' + table.replace('"', '""') + '"')

    def lock_schema(self, session: TimedConnection, table: str) -> None:
        """See Database; the number is Storeroom's own choice, and the lock ends with the transaction."""
        session.execute("SELECT pg_advisory_xact_lock(7367868, hashtext(%s))", (table,))
