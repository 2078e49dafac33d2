"""OPTIONS of the database cache."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from storeroom import config
from storeroom.backends.network import NETWORK_OPTIONS
from storeroom.backends.ownership import GROUP
from storeroom.config import Option

__all__ = ["OPTIONS"]

_MAX_CONNECTIONS: Final = 16
"""Of one process: servers admit 100 (PostgreSQL, each a process of its own) or 151 (MariaDB) clients by default."""

_BUSY_TIMEOUT: Final = 5.0
"""Seconds; as in Python's sqlite3 module. A write takes far less than a millisecond, so that hundreds may queue."""


def _url(value: Any) -> str | None:
    if hasattr(value, "render_as_string"):  # SQLAlchemy's URL, whose str() hides the password
        value = value.render_as_string(hide_password=False)
    if value is None or (isinstance(value, str) and "://" in value):
        return value
    raise ValueError("a URL such as postgresql://user:password@host/database or sqlite:////var/cache/app/cache.sqlite3")


def _optional_text(value: Any) -> str | None:
    return None if value is None else config.text(value)


OPTIONS: Final[Mapping[str, Option]] = {
    **config.ENTRY_BOUNDS,
    **NETWORK_OPTIONS,
    "url": Option(
        _url,
        None,
        "Where the database is: sqlite:////path, postgresql://user:password@host/database, or mysql://… or "
        "mariadb://…. None is the site's own in Django, and elsewhere a SQLite file of this program.",
    ),
    "table": Option(_optional_text, None, "The table's name where LOCATION is a URL."),
    "create_table": Option(
        config.boolean, True, "Whether the table is made on first use, and made anew where its shape is an old one."
    ),
    "unlogged": Option(
        config.boolean,
        False,
        "PostgreSQL: whether the table is made UNLOGGED: faster writes, no replicas, and empty after a crash.",
    ),
    "max_connections": Option(
        config.whole_number(1), _MAX_CONNECTIONS, "How many connections a process keeps at most."
    ),
    "group": replace(GROUP, meaning=f"SQLite: {GROUP.meaning[0].lower()}{GROUP.meaning[1:]}"),
    "busy_timeout": Option(
        config.number(0.001), _BUSY_TIMEOUT, "SQLite: seconds to wait for another process that writes."
    ),
}
