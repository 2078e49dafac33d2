"""The database of a Django project, for a cache whose OPTIONS name no URL.

Django's routers choose it, as for Django's own cache, and the cache connects to it by itself, with
the parameters of Django's settings. On SQLite it gets a file beside the site's: in the same file it
would wait for the very transaction that its caller has open, and in vain.

Django is found by being loaded and set up; it is never imported to find out.
"""

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from storeroom.backends.db.location import Target
from storeroom.exceptions import ConfigurationError

__all__ = ["Site", "find_site", "is_test_run", "may_migrate"]

_VENDORS: Final = {
    "sqlite3": "sqlite",
    "spatialite": "sqlite",
    "postgresql": "postgresql",
    "postgis": "postgresql",
    "mysql": "mysql",
}
"""The last part of Django's ENGINE to the kind of database."""

_OWN: Final = frozenset(
    {"assume_role", "isolation_level", "pool", "server_side_binding"}  # Django's own
    | {"autocommit", "client_encoding", "context", "cursor_factory", "prepare_threshold", "row_factory"}  # psycopg's
    | {"client_flag", "compress", "connect_timeout", "conv", "cursorclass", "local_infile"}  # mysqlclient's
    | {"read_timeout", "sql_mode", "write_timeout"}
)
"""Keys of OPTIONS in DATABASES that are no matter of a cache: they concern the program's connections alone."""


@dataclass(frozen=True, slots=True)
class Site:
    """One of settings.DATABASES.

    Attributes:
        alias: its name there.
        settings: its dict, shared with Django's connections: a test run puts another NAME into it.
        name: NAME when it was found.
    """

    alias: str
    settings: Mapping[str, Any]
    name: str

    @property
    def has_moved(self) -> bool:
        """Whether its NAME is another one now, as in a test run."""
        return str(self.settings["NAME"] or "") != self.name

    @property
    def unreachable(self) -> type[Exception]:
        """The class of Django's error that means an outage."""
        error: type[Exception] = import_module("django.db").OperationalError
        return error

    def target(self, table: str) -> Target:
        """Return a table of this database.

        Raises:
            ConfigurationError: it is of a kind that the cache cannot use.
        """
        engine = str(self.settings["ENGINE"])
        vendor = _VENDORS.get(engine.rpartition(".")[2])
        if vendor is None:
            raise ConfigurationError(
                f"leads to DATABASES[{self.alias!r}], whose ENGINE is {engine!r}; expected PostgreSQL, MySQL, MariaDB "
                "or SQLite. Name another database in OPTIONS['url'], or use another backend."
            )
        if vendor == "sqlite":
            return Target(vendor, table, path=_file_beside(self.name))
        options = {name: value for name, value in self.settings.get("OPTIONS", {}).items() if name not in _OWN}
        user, password, host, port = (self.settings[name] or None for name in ("USER", "PASSWORD", "HOST", "PORT"))
        if vendor == "mysql" and host and host.startswith("/"):  # as Django reads it; of PostgreSQL, libpq does
            host, options["unix_socket"] = None, host
        port, query = None if port is None else int(port), tuple(sorted(options.items()))
        return Target(vendor, table, "", user, password, host, port, self.name or None, query)


class _Options:
    db_table = "storeroom_cache"
    app_label = "django_cache"
    model_name = "cacheentry"
    verbose_name = "cache entry"
    verbose_name_plural = "cache entries"
    object_name = "CacheEntry"
    managed = True
    abstract = proxy = swapped = False


class CacheEntry:
    """The model whose database the routers are asked for: that of Django's own cache."""

    _meta = _Options


def find_site() -> Site | None:
    """Return the database that the routers name for a cache; None where no Django runs, or it has no database."""
    conf = sys.modules.get("django.conf")
    if conf is None or not hasattr(conf, "settings") or not conf.settings.configured:
        return None
    database = import_module("django.db")
    alias = database.router.db_for_write(CacheEntry)
    settings = database.connections.databases[alias]
    if settings["ENGINE"].endswith(".dummy"):
        return None
    return Site(alias, settings, str(settings["NAME"] or ""))


def is_test_run() -> bool:
    """Tell whether Django runs tests: its runner drops the database in the end, which an open connection prevents."""
    return hasattr(sys.modules.get("django.core.mail"), "outbox")


def may_migrate(alias: str) -> bool:
    """Tell whether the routers let the cache's table be made in a database."""
    return bool(import_module("django.db").router.allow_migrate_model(alias, CacheEntry))


def _file_beside(name: str) -> str:
    if name.startswith("file:") and "mode=memory" not in name:
        name = unquote(urlsplit(name).path)  # https://www.sqlite.org/uri.html
    if name and name != ":memory:" and "mode=memory" not in name:
        return f"{os.path.abspath(name)}.cache"
    # A database of a test run, in memory: the cache's ends with the process as well.
    return os.path.join(_temporary_directory(os.getpid()), f"{len(name)}-{abs(hash(name))}.cache")


@cache
def _temporary_directory(pid: int) -> str:
    """Return a directory of this process, and not of a forked child; removed when it ends."""
    directory = tempfile.mkdtemp(prefix="storeroom-")
    atexit.register(_remove, directory, pid)
    return directory


def _remove(directory: str, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(directory, ignore_errors=True)
