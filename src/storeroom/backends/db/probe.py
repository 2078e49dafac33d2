"""Answers of a database about itself and the cache's table: see probes.py."""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from storeroom.backends.db import schema
from storeroom.backends.db.database import Database
from storeroom.backends.db.location import PORTS, Target
from storeroom.storage.probes import Endpoint, Probe, ServerProbe, TableProbe, measure, together

__all__ = ["endpoints", "probe"]

_OLDEST_SQLITE: Final = "3.35"
_OLDEST_MARIADB: Final = "10.6"

_ENCRYPTS: Final[Mapping[str, bool]] = {"require": True, "verify-ca": True, "verify-full": True, "disable": False}
"""PostgreSQL's sslmode to whether the session is encrypted; with the others, the server decides.
Source: https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-PROTECTION"""

_REFUSALS: Final = frozenset(range(1000, 2000)) - {1040, 1053}
"""Numbers of a MySQL server's errors, but for too many connections, and a shutdown in progress."""


@dataclass(frozen=True, slots=True)
class _Vendor:
    """The questions to one kind of server, each a statement of one column.

    Attributes:
        oldest: the oldest version that will do.
        time: epoch seconds, at the moment of asking.
        is_replica: whether it takes no writes.
        may_create: whether this user may make a table of that name; NULL where nothing tells.
        is_encrypted: returns whether the session is.
        has_password: returns whether one was asked for; None where nothing tells.
    """

    product: str
    version: str
    oldest: str
    time: str
    is_replica: str
    may_create: str
    is_encrypted: Callable[[Any], bool]
    has_password: Callable[[Any, Target], bool | None]


def _postgresql_password(session: Any, target: Target) -> bool | None:
    if session.pgconn.used_password:
        return True
    # A certificate or Kerberos may have been used instead.
    return None if dict(target.query).keys() & {"sslcert", "sslkey", "krbsrvname", "gsslib"} else False


_GRANTED: Final = "privilege_type = 'CREATE' AND grantee = who.grantee"
_MYSQL_MAY_CREATE: Final = f"""
    SELECT CASE
    WHEN EXISTS (SELECT 1 FROM information_schema.user_privileges WHERE {_GRANTED})
    OR EXISTS (SELECT 1 FROM information_schema.schema_privileges WHERE {_GRANTED} AND DATABASE() LIKE table_schema)
    OR EXISTS (SELECT 1 FROM information_schema.table_privileges WHERE {_GRANTED}
        AND table_schema = DATABASE() AND table_name = %(table)s)
    THEN 1
    WHEN COALESCE(CURRENT_ROLE(), 'NONE') <> 'NONE' THEN NULL
    ELSE 0 END
    FROM (SELECT CONCAT(
        "'", SUBSTRING_INDEX(CURRENT_USER(), '@', 1), "'@'", SUBSTRING_INDEX(CURRENT_USER(), '@', -1), "'"
    ) AS grantee) AS who
"""
"""The grants of a role are listed elsewhere: then it is unknown."""

_VENDORS: Final[Mapping[str, _Vendor]] = {
    "postgresql": _Vendor(
        "PostgreSQL",
        "SHOW server_version",
        "9.5",
        "SELECT extract(epoch FROM clock_timestamp())",
        "SELECT pg_is_in_recovery()",
        "SELECT has_schema_privilege(current_schema(), 'CREATE')",
        lambda session: bool(session.pgconn.ssl_in_use),
        _postgresql_password,
    ),
    "mysql": _Vendor(
        "MySQL",
        "SELECT version()",
        "8.0",
        "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1000000",
        "SELECT @@innodb_read_only",
        _MYSQL_MAY_CREATE,
        lambda session: bool(session.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'").fetchone()[1]),
        lambda _, target: bool(target.password),
    ),
}


def endpoints(target: Target) -> tuple[Endpoint, ...]:
    """Return all that is known of the server without asking; a file has none."""
    if target.vendor == "sqlite":
        return ()
    query = dict(target.query)
    host = str(target.host or query.get("host") or query.get("hostaddr") or "")
    if host.startswith(("/", "@")) or "unix_socket" in query:
        host = ""  # PostgreSQL: the directory of its socket
    is_encrypted: bool | None = any(name.startswith("ssl") for name in query) or None
    has_password: bool | None = bool(target.password)
    if target.vendor == "postgresql":
        is_encrypted = _ENCRYPTS.get(str(query.get("sslmode")))
        has_password = has_password or None  # its library looks in the environment and in files, too
    named = f"[{host}]" if ":" in host else host
    port = f":{target.port or PORTS[target.vendor]}" if host else ""
    address = f"{target.vendor}://{named}{port}/{target.database or ''}"
    return (Endpoint(address, host, is_encrypted, has_password),)


def probe(database: Database, target: Target, seconds: float) -> Probe:
    """Ask the database."""
    if target.vendor == "sqlite":
        return _look_at_file(database, target)
    (endpoint,) = endpoints(target)
    (answer,) = together([partial(_ask, database, target, endpoint)], seconds)
    silent = ServerProbe(endpoint, failure=f"no answer within {seconds:g} s", seconds=seconds)
    return answer or Probe((silent,))


def _ask(database: Database, target: Target, endpoint: Endpoint) -> Probe:
    begun = time.monotonic()
    try:
        with closing(database.connect()) as session:
            return _answers(database, session, target, endpoint, begun)
    except database.errors as error:
        text = " ".join(str(error.args[-1] if error.args else error).split())
        failed = ServerProbe(endpoint, failure=text, is_refusal=_is_refusal(error), seconds=time.monotonic() - begun)
        return Probe((failed,))


def _answers(database: Database, session: Any, target: Target, endpoint: Endpoint, begun: float) -> Probe:
    vendor = _VENDORS[target.vendor]
    version = str(_value(session, vendor.version))
    seconds = time.monotonic() - begun
    round_trips, clock_ahead = measure(lambda: _value(session, "SELECT 1"), lambda: float(_value(session, vendor.time)))
    is_mariadb = "mariadb" in version.lower()
    found = ServerProbe(
        replace(endpoint, is_encrypted=vendor.is_encrypted(session), has_password=vendor.has_password(session, target)),
        product="MariaDB" if is_mariadb else vendor.product,
        version=version.split(maxsplit=1)[0],
        oldest=_OLDEST_MARIADB if is_mariadb else vendor.oldest,
        round_trips=round_trips,
        clock_ahead=clock_ahead,
        seconds=seconds,
    )
    if _value(session, vendor.is_replica):
        found = replace(found, role="replica", failure="it is a replica, which takes no writes", is_refusal=True)
    may_create = _value(session, vendor.may_create, {"table": target.table})
    return Probe((found,), _table(database, session, target, None if may_create is None else bool(may_create)))


def _value(session: Any, statement: str, parameters: Mapping[str, Any] | None = None) -> Any:
    return session.execute(statement, parameters).fetchone()[0]


def _table(database: Database, session: Any, target: Target, may_create: bool | None) -> TableProbe:
    columns = database.columns(session, target.table)
    return TableProbe(target.table, database.name, schema.state_of(columns), may_create, tuple(sorted(columns)))


def _is_refusal(error: Exception) -> bool:
    """Tell whether the server itself said no; one that is starting, or has too many clients, is only out of reach."""
    state = getattr(error, "sqlstate", None)
    if state is not None:
        return not state.startswith(("53", "57", "08"))
    if error.args and isinstance(error.args[0], int):
        return error.args[0] in _REFUSALS
    # libpq passes on the server's last words, as text alone.
    text = str(error)
    return "FATAL:" in text and not any(word in text for word in ("starting up", "shutting down", "too many"))


def _look_at_file(database: Database, target: Target) -> Probe:
    import sqlite3  # noqa: PLC0415 -- a driver like the others

    begun = time.monotonic()
    file = Path(target.path)
    found = ServerProbe(Endpoint(target.path), product="SQLite", version=sqlite3.sqlite_version, oldest=_OLDEST_SQLITE)
    if not file.exists():
        folder = next(folder for folder in file.parents if folder.exists())
        may_create = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
        failure = "" if may_create else f"it does not exist, and {folder} is none in which this user may make it"
        absent = TableProbe(target.table, database.name, "absent", may_create)
        return Probe((replace(found, failure=failure, is_refusal=bool(failure)),), absent)
    may_write, table = os.access(file, os.W_OK), None
    failure = "" if may_write else "this user may not write to it"
    try:
        # By a connection of its own, which cannot write.
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=1.0)) as session:
            table = _table(database, session, target, may_write)
    except sqlite3.Error as error:
        failure = str(error)
    seconds = time.monotonic() - begun
    return Probe((replace(found, failure=failure, is_refusal=bool(failure), seconds=seconds),), table)
