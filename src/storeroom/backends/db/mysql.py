"""MariaDB 10.6 and MySQL 8.0, or newer, by PyMySQL.

Columns are binary, so that keys are compared byte by byte, whatever the collation of the
database. Writing statements return no columns here, but for MariaDB's INSERT: they are
looked up afterwards within the transaction, under its locks.
"""

import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, Final

import pymysql
from pymysql.constants import CLIENT, CR, SERVER_STATUS
from pymysql.cursors import Cursor

from storeroom.backends.db.database import IDLE_SECONDS, Database
from storeroom.backends.db.errors import Fault
from storeroom.backends.db.location import PORTS, Login, Target
from storeroom.backends.db.mysql_parameters import read_parameters
from storeroom.backends.db.rows import KEY_BYTES
from storeroom.backends.db.statements import COLUMNS, Grammar, Statements
from storeroom.backends.refusals import LOGIN_REMEDY, TLS_REMEDY
from storeroom.backends.strangers import MYSQL
from storeroom.exceptions import ValueTooLargeError

__all__ = ["MySQL"]

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
    1040: Fault.OUTAGE,  # too many connections: see _CROWDED
    1053: Fault.OUTAGE,  # server shutdown in progress
    1205: Fault.OUTAGE,  # lock wait timeout: the whole of socket_timeout
    1290: Fault.OUTAGE,  # read only: a replica, after a failover
    1836: Fault.OUTAGE,  # read only
    1927: Fault.OUTAGE,  # connection was killed
    1044: Fault.OUTAGE,  # no right to the database; these refuse the login
    1045: Fault.OUTAGE,  # wrong password
    1049: Fault.OUTAGE,  # unknown database
    1130: Fault.OUTAGE,  # host is not allowed
    1698: Fault.OUTAGE,  # as 1045
    3118: Fault.OUTAGE,  # account is locked
}
"""https://mariadb.com/kb/en/mariadb-error-code-reference/. Those from 2000 on are the client's: see fault()."""

_RIGHTS: Final = (
    "Let the user read and write the cache's table: GRANT SELECT, INSERT, UPDATE, DELETE; and CREATE, INDEX and DROP, "
    "unless somebody else makes the table: storeroom createcachetable."
)
_REMEDIES: Final = {
    1044: "Let the user use the database: GRANT.",
    1045: LOGIN_REMEDY,
    1049: "Create the database that the URL names, or name another.",
    1130: "Let the server admit this host: CREATE USER 'name'@'host'.",
    1142: _RIGHTS,
    1143: _RIGHTS,
    1698: LOGIN_REMEDY,
    2026: TLS_REMEDY,
    3118: LOGIN_REMEDY,
}
_LOST: Final = {0, 1053, 1927, 2006, 2013, 2055}
"""Errors of a connection that has come to its end. 0 is PyMySQL's own."""

_CROWDED: Final = (1040, 1203)
"""Too many connections: of all users, of this one."""

_LOGIN: Final = frozenset({"database", "host", "password", "port", "user"})
"""The arguments of PyMySQL that are no parameters of a URL."""

_CLIENTS: Final = range(2000, 3000)


def _code(error: Exception) -> int:
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0


def _login(target: Target) -> dict[str, Any]:
    return {**target.login("database"), **dict(target.query)}


class MySQLStatements(Statements):
    """The statements that MySQL writes in a way of its own."""

    def __init__(self, grammar: Grammar, table: str) -> None:
        super().__init__(grammar, table)
        # The server reports the sum as the statement's last inserted id:
        # https://dev.mysql.com/doc/refman/8.0/en/information-functions.html#function_last-insert-id
        self.incr = self.incr.replace("number = number + %s", "number = CAST(LAST_INSERT_ID(number + %s) AS SIGNED)")

    def _several(self, text: str, after: str = "") -> Callable[[int], str]:
        # For a list that is a good part of the table the planner reads, and locks, the whole table unless it is told.
        if text.startswith("DELETE"):
            delete = super()._several(text, f"{after} ORDER BY cache_key LIMIT ")
            return lambda count: f"{delete(count)}{count}"
        for table in ("FROM $", "UPDATE $"):
            text = text.replace(table, f"{table} FORCE INDEX (PRIMARY)")
        return super()._several(text, after)

    def _add_many(self, count: int) -> str:
        return self.insert(count).replace("INSERT", "INSERT IGNORE", 1)

    def _put_many(self, count: int) -> str:
        # Assigned one after the other, unlike elsewhere: the later ones see the new size.
        changes = ["growth = VALUES(size) - size", *(f"{column} = VALUES({column})" for column in COLUMNS[1:5])]
        changes.append("sequence = VALUES(sequence)")
        # MySQL, which returns nothing, takes the end for a comment. Source: https://mariadb.com/kb/en/insertreturning
        returned = "/*M!100500 RETURNING growth, size */"
        return f"{self.insert(count)} ON DUPLICATE KEY UPDATE {', '.join(changes)} {returned}"

    def create(self) -> list[str]:
        """Return one statement: each is a transaction of its own here."""
        indexes = "".join(f", INDEX {name} ({column})" for name, column in self._indexes())
        return [f"CREATE TABLE {self.table} ({self._columns()}{indexes}){self.grammar.table_suffix}"]


class Session(pymysql.connections.Connection):  # type: ignore[misc]  # PyMySQL ships no types
    """A connection that knows how long a statement may be, and whether one was cut short."""

    longest_statement = 2**24
    is_busy = False
    blocks: tuple[object, ...] = ()
    _rfile: Any
    _sock: Any

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

    def close(self) -> None:
        """Close without saying good-bye first, as PyMySQL does, to a server that may not be there."""
        self._force_close()

    def _force_close(self) -> None:
        # PyMySQL would take what a signal's handler raises here for an error of the socket's.
        closing, self._rfile, self._sock = (self._rfile, self._sock), None, None
        for each in filter(None, closing):
            with suppress(OSError):
                each.close()

    __del__ = _force_close

    def fileno(self) -> int:
        """Return the descriptor of the socket; -1 if it is closed."""
        return self._sock.fileno() if self.open else -1

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Cursor:
        """Run a statement."""
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
        self.is_busy = True
        try:
            changed = super().query(sql, unbuffered)
        except pymysql.Error:
            self.is_busy = False  # the server's answer, or the end of the connection
            raise
        self.is_busy = False
        return changed


class MySQL(Database):
    """A database of a MariaDB or MySQL server."""

    tells_time = "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1000000"

    grammar = Grammar(
        parameter="%s",
        quote="`",
        types=(
            f"VARBINARY({KEY_BYTES}) PRIMARY KEY",
            "LONGBLOB",
            "BIGINT",
            "DOUBLE NOT NULL",
            *["BIGINT NOT NULL"] * 3,
        ),
        begin=("BEGIN",),
        snapshot=(
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
        ),
        lock=" FOR UPDATE",
        skip_locked=" FOR UPDATE SKIP LOCKED",
        returning=False,
        table_suffix=" ENGINE=InnoDB",
    )
    errors: ClassVar[tuple[type[Exception], ...]] = (pymysql.Error,)
    unreachable = pymysql.OperationalError
    _columns = "SELECT column_name FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = %s"

    def __init__(self, target: Target, settings: Mapping[str, Any], login: Login | None = None) -> None:
        self.name = f"MySQL ({target.address})"
        self.spoken = MYSQL, target.host or "", target.port or PORTS[target.vendor]
        seconds = settings["socket_timeout"]
        self._login: Login = login or partial(_login, target)
        if login is None:
            self._read_login()
        self._arguments: dict[str, Any] = {
            "connect_timeout": settings["socket_connect_timeout"],
            "read_timeout": seconds,
            "write_timeout": seconds,
            "charset": "utf8mb4",
            "autocommit": True,
            "client_flag": CLIENT.FOUND_ROWS,  # an UPDATE counts the rows it found, changed or not
        }
        self._lock_seconds = max(1, round(seconds))
        self.idle_seconds = max(IDLE_SECONDS, 2 * seconds)

    def _read_login(self) -> dict[str, Any]:
        given = self._login()
        login = {name: given.pop(name) for name in _LOGIN & given.keys()}
        read = {**login, **read_parameters(given, self.name)}
        return {name: value for name, value in read.items() if value is not None}

    def _open(self) -> Session:
        return Session(**self._read_login(), **self._arguments)

    def _prepare(self, session: Session) -> None:
        session.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        # MySQL knows no bound of idle transactions, and takes MariaDB's for a comment.
        idle = f"/*M!100301 , idle_transaction_timeout = {round(self.idle_seconds)} */"
        waits = f"innodb_lock_wait_timeout = {self._lock_seconds}"
        session.execute(f"SET SESSION sql_mode = 'STRICT_ALL_TABLES', {waits} {idle}")
        session.longest_statement = session.execute("SELECT @@max_allowed_packet").fetchone()[0]

    def _descriptor(self, session: Session) -> int:
        return session.fileno()

    def is_idle(self, session: Session) -> bool:
        """See Database."""
        is_amid = session.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS and not session.blocks
        return not (session.is_busy or is_amid)

    def rollback(self, session: Session) -> None:
        """See Database."""
        if not session.is_busy:
            session.execute("ROLLBACK")

    def fault(self, error: Exception) -> Fault:
        """See Database."""
        code = _code(error)
        # 0 is PyMySQL's own, for a connection that it has closed.
        is_clients = code in _CLIENTS or (code == 0 and isinstance(error, pymysql.InterfaceError))
        return Fault.OUTAGE if is_clients else _FAULTS.get(code, Fault.REFUSED)

    def is_broken(self, error: Exception) -> bool:
        """See Database."""
        return _code(error) in _LOST and "timed out" not in str(error)

    def remedy(self, error: Exception) -> str:
        """See Database."""
        return _REMEDIES.get(_code(error), "")

    def is_crowded(self, error: Exception) -> bool:
        """See Database."""
        return bool(error.args) and error.args[0] in _CROWDED

    def statements(self, table: str) -> Statements:
        """See Database."""
        return MySQLStatements(self.grammar, table)

    def incr(self, session: Session, statements: Statements, parameters: Sequence[Any]) -> int | None:
        """See Database."""
        cursor = session.execute(statements.incr, parameters)
        if not cursor.rowcount:
            return None
        total: int = cursor.lastrowid  # unsigned
        return total if total < 2**63 else total - 2**64
