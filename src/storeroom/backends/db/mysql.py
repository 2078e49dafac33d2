"""MariaDB 10.6 and MySQL 8.0, or newer, by PyMySQL.

Columns are binary, so that keys are compared byte by byte, whatever the collation of the
database. Writing statements return no columns here: what they would return is looked up
within the transaction, under its locks.
"""

import socket
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import pymysql
from pymysql.constants import CLIENT, CR
from pymysql.cursors import Cursor

from storeroom.backends.db.errors import Fault
from storeroom.backends.db.liveness import detach, has_news
from storeroom.backends.db.location import Target
from storeroom.backends.db.mysql_parameters import read_parameters
from storeroom.backends.db.rows import KEY_BYTES
from storeroom.backends.db.statements import COLUMNS, Grammar, Statements
from storeroom.exceptions import ValueTooLargeError

__all__ = ["GRAMMAR", "MySQL", "MySQLStatements"]

GRAMMAR: Final = Grammar(
    mark="%s",
    quote="`",
    types=(f"VARBINARY({KEY_BYTES}) PRIMARY KEY", "LONGBLOB", "BIGINT", "DOUBLE NOT NULL", *["BIGINT NOT NULL"] * 3),
    skip_locked=" FOR UPDATE SKIP LOCKED",
    lock=" FOR UPDATE",
    begin="BEGIN",
    snapshot=(
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    ),
    returning=False,
    table_suffix=" ENGINE=InnoDB",
)

_FAULTS: Final = {
    1050: Fault.CONFLICT,  # table exists
    1061: Fault.CONFLICT,  # index exists
    1062: Fault.CONFLICT,  # duplicate key, of a row that another has made at the same moment
    1213: Fault.CONFLICT,  # deadlock
    1412: Fault.CONFLICT,  # the table was made anew
    1021: Fault.FULL,  # disk
    1114: Fault.FULL,  # table
    1054: Fault.MISSING,  # unknown column
    1146: Fault.MISSING,  # no such table
    1040: Fault.OUTAGE,  # too many connections
    1053: Fault.OUTAGE,  # server shutdown in progress
    1205: Fault.OUTAGE,  # lock wait timeout: the whole of socket_timeout
    1290: Fault.OUTAGE,  # read only: a replica, after a failover
    1836: Fault.OUTAGE,  # read only
    1927: Fault.OUTAGE,  # connection was killed
}
"""https://mariadb.com/kb/en/mariadb-error-code-reference/. Those from 2000 on are the client's: see fault()."""

_CLIENTS: Final = range(2000, 3000)

_UNSIGNED: Final = 2**64


class MySQLStatements(Statements):
    """The statements that MySQL writes in a way of its own."""

    def __init__(self, table: str) -> None:
        super().__init__(GRAMMAR, table)
        # The sum is what the server reports as the statement's last inserted id:
        # https://dev.mysql.com/doc/refman/8.0/en/information-functions.html#function_last-insert-id
        self.incr = self.incr.replace("number = number + %s", "number = CAST(LAST_INSERT_ID(number + %s) AS SIGNED)")

    def _make_upsert(self, count: int, only_absent: bool) -> str:
        insert = self.insert(count)
        if only_absent:
            return insert.replace("INSERT", "INSERT IGNORE", 1)
        # One after the other, unlike elsewhere: what comes later sees the new size.
        changes = ["growth = VALUES(size) - size", *(f"{column} = VALUES({column})" for column in COLUMNS[1:5])]
        return f"{insert} ON DUPLICATE KEY UPDATE {', '.join(changes)}, sequence = VALUES(sequence)"

    def create(self) -> list[str]:
        """Return one statement: each of them is a transaction of its own here."""
        table, *_ = super().create()
        indexes = ", ".join(
            f"INDEX {self._quoted(f'{self.name}_{column}')} ({column})" for column in ("expires", "sequence")
        )
        return [table.replace(f"){GRAMMAR.table_suffix}", f", {indexes}){GRAMMAR.table_suffix}")]


class Session(pymysql.connections.Connection):  # type: ignore[misc]  # no types are shipped
    """A connection that knows how long a statement may be."""

    longest_statement = 2**24

    def connect(self, sock: socket.socket | None = None) -> None:
        """Connect; a Unix socket that nobody listens on is closed at once, which PyMySQL leaves to chance."""
        if sock is None and self.unix_socket:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(self.connect_timeout)
            try:
                sock.connect(self.unix_socket)
            except OSError as error:
                sock.close()
                raise pymysql.OperationalError(CR.CR_CONN_HOST_ERROR, f"{self.unix_socket}: {error}") from error
            self.host_info, self._secure = "Localhost via UNIX socket", True
        super().connect(sock)

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Cursor:
        """Run a statement; return its cursor."""
        cursor = self.cursor()
        cursor.execute(statement, parameters)
        return cursor

    def query(self, sql: Any, unbuffered: bool = False) -> Any:
        """Send a statement, unless the server would break the connection off because of its length."""
        if len(sql) >= self.longest_statement:
            raise ValueTooLargeError(
                f"A statement of {len(sql)} bytes is longer than the server's max_allowed_packet "
                f"({self.longest_statement}) allows; store less, compress it, or raise max_allowed_packet."
            )
        return super().query(sql, unbuffered)


class MySQL:
    """A database of a MariaDB or MySQL server.

    Args:
        target: where it is.
        settings: the cache's options.
    """

    is_local: ClassVar[bool] = False
    can_notify: ClassVar[bool] = False
    errors: tuple[type[Exception], ...] = (pymysql.Error,)

    def __init__(self, target: Target, settings: Mapping[str, Any]) -> None:
        self.name = f"MySQL ({target.host or 'local'}:{target.port or 3306}/{target.database or ''})"
        seconds = settings["socket_timeout"]
        given = {
            "user": target.user,
            "password": target.password,
            "host": target.host,
            "port": target.port,
            "database": target.database,
            **read_parameters(dict(target.query), self.name),
        }
        self._arguments: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        self._arguments |= {
            "connect_timeout": settings["socket_connect_timeout"],
            "read_timeout": seconds,
            "write_timeout": seconds,
            "charset": "utf8mb4",
            "autocommit": True,
            "client_flag": CLIENT.FOUND_ROWS,  # an UPDATE tells how many rows it found, changed or not
        }
        self._lock_seconds = max(1, round(seconds))

    def statements(self, table: str) -> Statements:
        """See Database."""
        return MySQLStatements(table)

    def connect(self) -> Session:
        """See Database."""
        session = Session(**self._arguments)
        try:
            return self.prepare(session)
        except BaseException:
            self.close(session)
            raise

    def prepare(self, session: Session) -> Session:
        """Set what is to hold on a new connection."""
        session.execute(
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        )
        session.execute(f"SET SESSION sql_mode = 'STRICT_ALL_TABLES', innodb_lock_wait_timeout = {self._lock_seconds}")
        session.longest_statement = session.execute("SELECT @@max_allowed_packet").fetchone()[0]
        return session

    def close(self, session: Session) -> None:
        """See Database."""
        if session.open:
            session._force_close()  # noqa: SLF001 -- close() says good-bye first, to a server that may not be there

    def is_stale(self, session: Session) -> bool:
        """See Database."""
        return not session.open or has_news(session._sock.fileno())  # noqa: SLF001 -- it has no other name

    def abandon(self, sessions: Sequence[Session]) -> None:
        """See Database."""
        detach(session._sock.fileno() for session in sessions if session.open)  # noqa: SLF001 -- as above

    def rollback(self, session: Session) -> None:
        """See Database."""
        session.execute("ROLLBACK")

    def fault(self, error: Exception) -> Fault:
        """See Database."""
        code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        # 0 is PyMySQL's own, for a connection that it has closed.
        is_clients = code in _CLIENTS or (code == 0 and isinstance(error, pymysql.InterfaceError))
        return Fault.OUTAGE if is_clients else _FAULTS.get(code, Fault.REFUSED)

    def columns(self, session: Session, table: str) -> frozenset[str]:
        """See Database."""
        found = session.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = %s",
            (table,),
        )
        return frozenset(name for (name,) in found.fetchall())

    def lock_schema(self, session: Session, table: str) -> None:
        """Do nothing: who comes second is told that the table exists, and looks again."""

    def incr(self, session: Session, statements: Statements, parameters: Sequence[Any]) -> int | None:
        """See Database."""
        cursor = session.execute(statements.incr, parameters)
        if not cursor.rowcount:
            return None
        total: int = cursor.lastrowid
        return total if total < _UNSIGNED // 2 else total - _UNSIGNED

    def make_room(self, session: Any) -> None:
        """Do nothing: a server does what it can."""

    def repair(self, session: Any) -> None:
        """Do nothing: a server repairs itself."""
