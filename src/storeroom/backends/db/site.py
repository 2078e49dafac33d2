"""The database of a Django project, for a cache whose OPTIONS name no URL.

Django's routers choose it, as for Django's own cache, and the cache connects to it by itself, with
the parameters of Django's connection. On SQLite it gets a file beside the site's: in the same file it
would wait for the very transaction that its caller has open, and in vain.

Django is found by being loaded and set up; it is never imported to find out.
"""

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from weakref import WeakMethod

from storeroom.backends.db.location import Target
from storeroom.exceptions import ConfigurationError

__all__ = ["Site", "find_site", "may_migrate", "tell_of_app", "test_blocks"]

logger = logging.getLogger("storeroom.db")

_VENDORS: Final = {"sqlite": ("lite",), "postgresql": ("postg", "psql"), "mysql": ("mysql",)}
"""Vendors of Django's connections that a cache can be in, to parts of an ENGINE's name. MariaDB's is "mysql"."""

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
        test_process: the process whose tests ran then; 0 where none did.
    """

    alias: str
    settings: Mapping[str, Any]
    name: str
    test_process: int

    @property
    def has_moved(self) -> bool:
        """Whether its NAME is another one now, as in a test run, or the process: each that runs tests has its own."""
        is_forked = self.test_process and self.test_process != os.getpid()
        return is_forked or str(self.settings["NAME"] or "") != self.name

    @property
    def connection(self) -> Any:
        """Django's connection of this thread, which may not be open."""
        return import_module("django.db").connections[self.alias]

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
        vendor = self._vendor()
        if vendor == "sqlite":
            return Target(vendor, table, path=_file_beside(self.name, in_tests=bool(self.test_process)))
        options = {name: value for name, value in self.settings.get("OPTIONS", {}).items() if name not in _OWN}
        user, password, host, port = (self.settings[name] or None for name in ("USER", "PASSWORD", "HOST", "PORT"))
        if vendor == "mysql" and host and host.startswith("/"):  # as Django reads it; of PostgreSQL, libpq does
            host, options["unix_socket"] = None, host
        port, query = None if port is None else int(port), tuple(sorted(options.items()))
        return Target(vendor, table, "", user, password, host, port, self.name or None, query)

    def _vendor(self) -> str:
        """Return the kind of database: an ENGINE may have any name, and its connection knows."""
        wrong = f"leads to DATABASES[{self.alias!r}], whose ENGINE is {self.settings['ENGINE']!r}"
        remedy = "Name another database in OPTIONS['url'], or use another backend."
        try:
            vendor: str = self.connection.vendor
        except Exception as error:  # of an ENGINE, whatever it does when it is loaded
            engine = str(self.settings["ENGINE"])
            likely = [kind for kind, words in _VENDORS.items() if any(word in engine for word in words)]
            if not likely or import_module("django.apps").apps.ready:
                raise ConfigurationError(f"{wrong}, and that cannot be loaded: {error} {remedy}") from error
            return likely[0]  # it needs models, as that of django-tenants does, which are loaded after this cache
        if vendor not in _VENDORS:
            raise ConfigurationError(f"{wrong}; expected PostgreSQL, MySQL, MariaDB or SQLite. {remedy}")
        return vendor

    def login(self) -> dict[str, Any]:
        """Return the parameters that Django's connection would connect with now, but for its own.

        An ENGINE may ask for another password each time, or know the host by itself.
        """
        given = self.connection.get_connection_params()
        return {name: value for name, value in given.items() if name not in _OWN}

    # A test run -------------------------------------------------------------------------------

    def when_dropping(self, make_way: Callable[[], None]) -> None:
        """Call a method before Django drops or copies a test database, which nobody may be connected to then."""

        def told(connection: Any, **_: Any) -> None:
            if connection.alias == "__no_db__" and (method := weak()):  # Django's NO_DB_ALIAS: from outside of it
                method()

        weak = WeakMethod(make_way)
        import_module("django.db.backends.signals").connection_created.connect(told, weak=False)

    async def in_thread_of_tests(self, look: Callable[[], None]) -> None:
        """Call a function in the thread that waits for this asynchronous test, by Django's own way to get there."""
        called: Awaitable[None] = import_module("asgiref.sync").sync_to_async(look, thread_sensitive=True)()
        await called


def test_blocks(connection: Any) -> Sequence[object]:
    """Return those of a connection's atomic blocks that Django's TestCase has opened: for its class, and its test."""
    return [block for block in connection.atomic_blocks if getattr(block, "_from_testcase", False)]


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
    return Site(alias, settings, str(settings["NAME"] or ""), os.getpid() if is_test_run() else 0)


def is_test_run() -> bool:
    """Tell whether Django runs tests."""
    return hasattr(sys.modules.get("django.core.mail"), "outbox")


def may_migrate(alias: str) -> bool:
    """Tell whether the routers let the cache's table be made in a database."""
    return bool(import_module("django.db").router.allow_migrate_model(alias, CacheEntry))


_told: Final = set[str]()
"""Tables whose missing app was told of."""


def tell_of_app(table: str) -> None:
    """Say, once, that Django's createcachetable passes over a table of this cache: it runs where the app is missing."""
    if "django.core.management.commands.createcachetable" not in sys.modules or table in _told or is_test_run():
        return
    _told.add(table)
    apps = import_module("django.apps").apps
    if apps.ready and not apps.is_installed("storeroom.integrations.django"):
        logger.warning(
            "Django's createcachetable makes no table %r, as it does not know Storeroom's class. Put "
            "'storeroom.integrations.django' into INSTALLED_APPS and run it again, or run: storeroom createcachetable. "
            "Unless OPTIONS['create_table'] is False, the table is made on first use.",
            table,
        )


def _file_beside(name: str, *, in_tests: bool) -> str:
    if name.startswith("file:") and "mode=memory" not in name:
        name = unquote(urlsplit(name).path)  # https://www.sqlite.org/uri.html
    if not in_tests and name and name != ":memory:" and "mode=memory" not in name:
        return f"{os.path.abspath(name)}.cache"
    # A database in memory, or of a test run, whose workers may all use one name: the cache's ends with the process.
    return os.path.join(_temporary_directory(), f"{len(name)}-{abs(hash(name))}.cache")


_directories: Final[dict[int, str]] = {}
"""Temporary directories: of this process, and before it of those that it was forked from."""


def _temporary_directory() -> str:
    """Return a directory of this process, and not of a forked child, which has one within its parent's."""
    pid = os.getpid()
    if pid not in _directories:
        above = next(reversed(_directories.values()), None)
        _directories[pid] = tempfile.mkdtemp(prefix="storeroom-", dir=above)
        if above is None:  # atexit does nothing in a process of multiprocessing
            import_module("multiprocessing.util").Finalize(None, _remove, (_directories[pid], pid), exitpriority=0)
    return _directories[pid]


def _remove(directory: str, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(directory, ignore_errors=True)
