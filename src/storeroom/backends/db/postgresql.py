"""PostgreSQL 9.5 or newer, by psycopg 3."""

import itertools
import math
import re
import struct
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar, Final, Self, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.errors import InvalidSqlStatementName, error_from_result
from psycopg.generators import execute
from psycopg.pq import ExecStatus, TransactionStatus

from storeroom.backends.db.database import IDLE_SECONDS, Database
from storeroom.backends.db.errors import Fault
from storeroom.backends.db.location import PORTS, Login, Target
from storeroom.backends.db.statements import REMOVED, Grammar, Statements
from storeroom.backends.refusals import LOGIN_REMEDY, TLS_REMEDY
from storeroom.backends.strangers import POSTGRESQL
from storeroom.exceptions import ConfigurationError

__all__ = ["PostgreSQL"]

T = TypeVar("T")

_FAULTS: Final = {
    "40001": Fault.CONFLICT,  # serialization_failure
    "40P01": Fault.CONFLICT,  # deadlock_detected
    "23505": Fault.CONFLICT,  # unique_violation, where two processes make the table at once
    "42P01": Fault.MISSING,  # undefined_table
    "42703": Fault.MISSING,  # undefined_column
    "53100": Fault.FULL,  # disk_full
    "25P03": Fault.OUTAGE,  # idle_in_transaction_session_timeout
    "25006": Fault.OUTAGE,  # read_only_sql_transaction: a replica, after a failover
    "55P03": Fault.OUTAGE,  # lock_not_available
    "57014": Fault.OUTAGE,  # query_canceled, by statement_timeout
    "53300": Fault.OUTAGE,  # too_many_connections
}
"""SQLSTATEs: https://www.postgresql.org/docs/current/errcodes-appendix.html"""

_RIGHTS: Final = (
    "Let the user read and write the cache's table: GRANT SELECT, INSERT, UPDATE, DELETE; and CREATE on its schema, "
    "unless somebody else makes the table: storeroom createcachetable."
)

_REMEDIES: Final = {
    "password authentication failed": LOGIN_REMEDY,
    "no password supplied": LOGIN_REMEDY,
    "authentication failed": LOGIN_REMEDY,
    "is not permitted to log in": LOGIN_REMEDY,
    "no pg_hba.conf entry": "Let pg_hba.conf of the server admit this user, host and database.",
    "does not support SSL": TLS_REMEDY,
    "SSL error": TLS_REMEDY,
    "certificate": TLS_REMEDY,
    "permission denied for database": "GRANT CONNECT on the database to the user.",
    "does not exist": "Create the role and the database that the URL names, or name others.",
    "unsupported startup parameter": "PgBouncer passes no such parameter on: leave it out of the URL, or of OPTIONS in "
    "DATABASES, or add it to PgBouncer's ignore_startup_parameters.",
    "SSL negotiation": "The server there is no PostgreSQL: check the port in the URL.",
}
"""Words in which a server, or libpq, refuses a connection -> the remedy. libpq tells no SQLSTATE of these."""

_CROWDED: Final = ("too many clients", "too many connections", "connection slots")
"""Words of the server's refusals of one session too many: of all, of a role or a database, of all but superusers."""

_UNREACHABLE: Final = ("08", "57P")
"""Beginnings of SQLSTATEs: the connection failed, the server shuts down or starts."""

_LOOK_SECONDS: Final = 0.1
"""Between two looks of psycopg for interrupts, while it waits."""

_BOUNDS_IDLE: Final = 90600
"""The first version that bounds the time of a transaction in which nothing is asked for."""

_BROKEN: Final = ("57P01", "57P02", "57P05", "25P03")
"""admin_shutdown, crash_shutdown, idle_session_timeout, idle_in_transaction_session_timeout: this connection is at its
end, and others need not be."""


_INTEGER, _FLOAT = struct.Struct(">q"), struct.Struct(">d")

_KINDS: Final[Mapping[str, tuple[int, Callable[[Any], bytes], Callable[[bytes], Any]]]] = {
    "b": (17, bytes, bytes),
    "q": (20, _INTEGER.pack, lambda value: _INTEGER.unpack(value)[0]),
    "d": (701, _FLOAT.pack, lambda value: _FLOAT.unpack(value)[0]),
}
"""Letter of a type -> its OID, the way to its binary format, and the way back: bytea, bigint, double precision."""

_names: Final = map(b"storeroom_%d".__mod__, itertools.count())


class Brief(str):
    """A statement that TimedConnection runs without a cursor, and the letters of its parameters, and of its columns."""

    __slots__ = ("kinds",)
    kinds: tuple[list[Any], ...]

    def __new__(cls, text: str, *letters: str) -> Self:
        brief = super().__new__(cls, text)
        brief.kinds = tuple([_KINDS[letter] for letter in each] for each in letters)
        return brief


class PostgreSQLStatements(Statements):
    """The statements that PostgreSQL writes in a way of its own."""

    def __init__(self, grammar: Grammar, table: str) -> None:
        super().__init__(grammar, table)
        self.get, self.put_over = Brief(self.get, "b", "bqd"), Brief(self.put_over, "bqdqbq", "")
        self.put_one = Brief(self.put_one, "bqqqbbqdqqqb", "qqq")
        self.add_one = Brief(self.add_one, "bqqqbbqdqqqdb", "qqq")
        self.touch, self.incr = Brief(self.touch, "dbd", ""), Brief(self.incr, "qbdqq", "q")

    def _deletes(self) -> Callable[[int], str]:
        # A plan may take the rows as they lie on the disk; two of them, in two orders, would wait for each other.
        ordered = "cache_key = ANY(ARRAY(SELECT cache_key FROM $ WHERE"
        returned = self._returned(REMOVED)
        one = super()._deletes()(1)
        several = self._several(f"DELETE FROM $ WHERE {ordered}", f" ORDER BY cache_key FOR UPDATE)){returned}")
        return lambda count: one if count == 1 else several(count)


class SilentError(psycopg.OperationalError):
    """The server does not answer in time."""


class TimedConnection(psycopg.Connection[Any]):
    """A connection that waits for an answer only so long."""

    answer_seconds = math.inf
    blocks: tuple[object, ...] = ()
    is_pooled = False
    """Whether a pooler is between, such as PgBouncer: the next transaction may be in another session of the server."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.known: dict[str, bytes | int] = {}  # each Brief's name in the server; the number of its uses before

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        """Run a statement; a Brief without a cursor, whose making and reading would take half of its time."""
        if type(query) is Brief and not self.blocks and (name := self._name(query)):
            values = [it if it is None else kind[1](it) for kind, it in zip(query.kinds[0], params, strict=True)]
            try:
                self.pgconn.send_query_prepared(name, values, [1] * len(values), 1)
                return self._answer(query.kinds[1])
            except InvalidSqlStatementName:  # somebody has removed those of the session
                self.known.clear()
        return super().execute(query, params, **options)

    def _name(self, brief: Brief) -> bytes | None:
        """Return a statement's name in the server; None while it has none. It is prepared when psycopg would do so."""
        known, before = self.known.get(brief, 0), self.prepare_threshold
        if isinstance(known, bytes):
            return known
        if before is None or known < before or len(self.known) > (self.prepared_max or 0):
            self.known[brief] = known + 1
            return None
        name, numbers = next(_names), itertools.count(1)
        text = re.sub("%(.)", lambda found: "%" if found[1] == "%" else f"${next(numbers)}", brief)
        self.pgconn.send_prepare(name, text.encode(), [kind[0] for kind in brief.kinds[0]])
        self._answer(())
        self.known[brief] = name
        return name

    def _answer(self, columns: Sequence[Any]) -> Any:
        """Wait for the answer to what was sent; raise the server's error, or return as much of a cursor as is used."""
        result = self.wait(execute(self.pgconn))[-1]
        if result.status == ExecStatus.FATAL_ERROR:
            raise error_from_result(result, encoding=self.info.encoding)
        found = [(it[2], result.get_value(0, number)) for number, it in enumerate(columns)] if result.ntuples else ()
        row = tuple([it if it is None else read(it) for read, it in found]) or None
        return SimpleNamespace(fetchone=lambda: row, rowcount=result.command_tuples)

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Run one of psycopg's generators, but no longer than `answer_seconds`."""
        return super().wait(bounded(gen, self.answer_seconds, self.close), *args, **kwargs)

    def __del__(self, *_: object) -> None:
        """Close it: one may be lost, see Connections, and psycopg would complain."""
        if hasattr(self, "pgconn"):
            self.close()


def bounded(gen: Any, seconds: float, give_up: Callable[[], None]) -> Generator[Any, Any, Any]:
    """Run one of psycopg's generators until there was no answer for so long; then give up, and raise."""
    deadline, silence = time.monotonic() + seconds, 0.0
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            # Nothing is ready each time that psycopg looks for interrupts. These waits alone are the server's: a thread
            # may not have run for longer, and the answer may have come meanwhile.
            silence += 0 if ready else _LOOK_SECONDS
            if not ready and silence >= seconds and time.monotonic() > deadline:
                give_up()
                raise SilentError(f"no answer within {seconds:g} s")
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
    unreachable = psycopg.OperationalError
    tells_time = "SELECT extract(epoch FROM clock_timestamp())"
    can_notify = True
    _columns = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"

    def __init__(self, target: Target, settings: Mapping[str, Any], login: Login | None = None) -> None:
        self.name = f"PostgreSQL ({target.address})"
        self.spoken = POSTGRESQL, target.host or "", target.port or PORTS[target.vendor]
        self._answer_seconds: float = settings["socket_timeout"]
        self.idle_seconds = max(IDLE_SECONDS, 2 * self._answer_seconds)
        if settings["unlogged"]:
            self.grammar = replace(self.grammar, create="CREATE UNLOGGED TABLE")
        # libpq takes whole seconds, and two at least.
        self._connect_seconds = max(2, math.ceil(settings["socket_connect_timeout"]))
        self._login = login
        self._conninfo = "" if login else self._conninfo_of({**target.login("dbname"), **dict(target.query)})

    def _conninfo_of(self, given: Mapping[str, Any]) -> str:
        given = {"connect_timeout": self._connect_seconds, "application_name": "storeroom", **given}
        try:
            return make_conninfo(**{name: value for name, value in given.items() if value is not None})
        except psycopg.ProgrammingError as error:
            raise ConfigurationError(
                f"{self.name} is given parameters that PostgreSQL's library does not know: {str(error).strip()}. See "
                "https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS"
            ) from error

    def _open(self) -> TimedConnection:
        conninfo = self._conninfo_of(self._login()) if self._login else self._conninfo
        return TimedConnection.connect(conninfo, autocommit=True)

    def _prepare(self, session: TimedConnection) -> None:
        session.answer_seconds = self._answer_seconds
        (told,) = session.execute("SELECT pg_backend_pid()").fetchone() or (0,)
        session.is_pooled = told != session.pgconn.backend_pid
        if session.is_pooled:
            session.prepare_threshold = None
        else:
            session.execute(self._settings(session, "SESSION"))

    def _settings(self, session: TimedConnection, scope: str) -> str:
        # A cache can wait for the disk's confirmation or be fast; a crash loses the last moment.
        values = {"synchronous_commit": "off", "statement_timeout": max(1, int(self._answer_seconds * 1000))}
        if session.info.server_version >= _BOUNDS_IDLE:
            values["idle_in_transaction_session_timeout"] = int(self.idle_seconds * 1000)
        return "; ".join(f"SET {scope} {name} = {value}" for name, value in values.items())

    def within(self, session: TimedConnection, begin: Sequence[str], work: Callable[..., T], *args: Any) -> T:
        """See Database; settings of a session behind a pooler hold for a transaction, lest another program has them."""
        if session.is_pooled:
            begin = [f"{statement}; {self._settings(session, 'LOCAL')}" for statement in begin]
        return super().within(session, begin, work, *args)

    def _descriptor(self, session: TimedConnection) -> int:
        return -1 if session.closed else session.pgconn.socket

    def is_idle(self, session: TimedConnection) -> bool:
        """See Database."""
        expected = TransactionStatus.INTRANS if session.blocks else TransactionStatus.IDLE
        return session.pgconn.transaction_status == expected

    def rollback(self, session: TimedConnection) -> None:
        """See Database."""
        if session.pgconn.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            session.known.clear()  # psycopg removes all names, with its own, before the next statement that it runs
            session.execute("ROLLBACK")

    def fault(self, error: Exception) -> Fault:
        """See Database."""
        state = getattr(error, "sqlstate", None)
        if state is None:
            is_gone = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
            return Fault.OUTAGE if is_gone else Fault.REFUSED
        return Fault.OUTAGE if state.startswith(_UNREACHABLE) else _FAULTS.get(state, Fault.REFUSED)

    def is_broken(self, error: Exception) -> bool:
        """See Database."""
        if isinstance(error, SilentError) or (getattr(error, "sqlstate", None) or "57P01") not in _BROKEN:
            return False
        text = str(error)
        return not text.startswith("connection") or "terminating connection" in text or "closed" in text

    def remedy(self, error: Exception) -> str:
        """See Database."""
        if (state := getattr(error, "sqlstate", None)) is not None:
            return _RIGHTS if state == "42501" else ""
        return next((remedy for words, remedy in _REMEDIES.items() if words in str(error)), "")

    def statements(self, table: str) -> Statements:
        """See Database."""
        return PostgreSQLStatements(self.grammar, table)

    def is_crowded(self, error: Exception) -> bool:
        """See Database. What is refused before there is a session comes without its SQLSTATE, 53300."""
        return isinstance(error, psycopg.OperationalError) and any(words in str(error) for words in _CROWDED)

    def columns(self, session: TimedConnection, table: str) -> frozenset[str]:
        """See Database."""
        return super().columns(session, '"' + table.replace('"', '""') + '"')

    def lock_schema(self, session: TimedConnection, table: str) -> None:
        """See Database; the number is Storeroom's own choice, and the lock ends with the transaction."""
        session.known.clear()  # as in rollback(), after DROP TABLE
        session.execute("SELECT pg_advisory_xact_lock(7367868, hashtext(%s))", (table,))
