"""From LOCATION and OPTIONS to a database and its table.

LOCATION names the table, as in Django, and ``OPTIONS["url"]`` the database; or LOCATION is the
URL, as CACHE_URL has it, and ``OPTIONS["table"]`` names the table. Without any URL it is the site's
own database in Django (see site.py), and elsewhere a SQLite file of this program's own.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from storeroom.exceptions import ConfigurationError
from storeroom.registry.sources import program_directory
from storeroom.wording import mask_url, nearest, shown

__all__ = ["PORTS", "Login", "Target", "parse"]

_VENDORS: Final = {
    "sqlite": "sqlite",
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
}
"""Scheme of a URL, without the driver that may follow a "+", to the kind of database."""

Login: TypeAlias = Callable[[], dict[str, Any]]
"""Returns a driver's arguments, as they are at the moment."""

PORTS: Final = {"postgresql": 5432, "mysql": 3306}

_LONGEST_TABLE: Final = 54
"""Bytes: PostgreSQL cuts names to 63, and the longest name of an index is nine longer than the table's."""

_WHERE: Final = frozenset({"dbname", "host", "hostaddr", "port", "service", "unix_socket"})
"""Parameters of a driver that lead to another database."""


@dataclass(frozen=True, slots=True)
class Target:
    """A cache's table, whose name is checked, and the way to it.

    Attributes:
        vendor: "sqlite", "postgresql" or "mysql".
        table: its name.
        path: of the file, for SQLite.
        user, password, host, port, database: None where the URL does not say.
        query: parameters of the driver, after the question mark.
    """

    vendor: str
    table: str
    path: str = ""
    user: str | None = None
    password: str | None = None
    host: str | None = None
    port: int | None = None
    database: str | None = None
    query: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        length = len(self.table.encode("utf-8", "replace"))
        if not 0 < length <= _LONGEST_TABLE or "\x00" in self.table or mask_url(self.table) != self.table:
            raise ConfigurationError(
                f"is {mask_url(self.table)!r}; expected the name of a table, of up to {_LONGEST_TABLE} bytes, such as "
                "'my_cache_table'."
            )

    @property
    def address(self) -> str:
        """Host, port and database on a server, for the log."""
        return f"{self.host or 'local'}:{self.port or PORTS[self.vendor]}/{self.database or ''}"

    @property
    def identity(self) -> tuple[object, ...]:
        """The table's identity, without the way to it: users, passwords and drivers' parameters may differ."""
        if self.path:
            return self.vendor, os.path.realpath(self.path), self.table
        where = [(name, value) for name, value in sorted(self.query) if name in _WHERE]
        return self.vendor, self.address, *where, self.table

    def login(self, database: str) -> dict[str, Any]:
        """Return a driver's arguments; `database` is its name for the database."""
        given = {"user": self.user, "password": self.password, "host": self.host, "port": self.port}
        return {**given, database: self.database}

    def __repr__(self) -> str:
        """Tell it from others, without the password."""
        where = self.path or f"{self.host or ''}:{self.port or ''}/{self.database or ''}"
        return f"{self.vendor} {where} {self.table}"


def parse(location: Any, options: Mapping[str, Any], in_site: Callable[[str], Target] | None = None) -> Target:
    """Return the table that LOCATION and OPTIONS name; `in_site` returns a table in the site's database, if any.

    Raises:
        ConfigurationError: they make no sense; the text goes on after "LOCATION".
    """
    if not isinstance(location, str | os.PathLike):
        raise ConfigurationError(f"is {shown(location)}; expected the name of one table, or the URL of one database.")
    location = os.fspath(location)
    if "://" in location:
        if options["url"] is not None:
            raise ConfigurationError(
                f"is {mask_url(location)!r} and OPTIONS['url'] is given too; expected the table's name as LOCATION."
            )
        return _parse_url(location, options["table"] or "storeroom_cache")
    if options["table"] is not None:
        raise ConfigurationError(
            f"is {mask_url(location)!r} and OPTIONS['table'] is given too; expected the table's name in one place."
        )
    if options["url"] is not None:
        return _parse_url(options["url"], location)
    return in_site(location) if in_site else Target("sqlite", location, path=f"{program_directory()}.sqlite3")


def _parse_url(url: str, table: str) -> Target:
    wrong = f"leads to the URL {mask_url(url)!r}"
    if url.count("://") > 1:
        raise ConfigurationError(f"{wrong}; expected the URL of one database.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigurationError(f"{wrong}, which is not a URL.") from None
    vendor = _VENDORS.get(parts.scheme.partition("+")[0])
    if vendor is None:
        raise ConfigurationError(
            f"{wrong}, whose scheme is unknown.{nearest(parts.scheme, _VENDORS)} Expected one of "
            "sqlite:////path, postgresql://user:password@host/database, mysql://user:password@host/database."
        )
    if vendor == "sqlite":
        return Target(vendor, table, path=_path(parts, wrong))
    user, password, host = (
        None if part is None else unquote(part) for part in (parts.username, parts.password, parts.hostname)
    )
    query = tuple(parse_qsl(parts.query, keep_blank_values=True))
    return Target(vendor, table, "", user, password, host, port, unquote(parts.path[1:]) or None, query)


def _path(parts: SplitResult, wrong: str) -> str:
    """Return the path in SQLAlchemy's spelling: after three slashes it is relative, after four it is absolute."""
    path = unquote(parts.path[1:])
    if parts.netloc or path in {"", ":memory:"} or parts.query:
        raise ConfigurationError(
            f"{wrong}; expected the path of a file after three slashes, which is relative, or after four, which is "
            "absolute. For a cache in memory use storeroom.backends.locmem.LocMemCache."
        )
    return str(Path(path).expanduser().absolute())
