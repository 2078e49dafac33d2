"""From a handle's settings to the engine that it shares with all handles of the same table."""

import hashlib
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from storeroom.backends.db import location as locations
from storeroom.backends.db.database import Database
from storeroom.backends.db.engine import DatabaseEngine
from storeroom.backends.db.location import Target
from storeroom.backends.db.site import Site, find_site, is_test_run
from storeroom.engines import shared
from storeroom.exceptions import InvalidCacheBackendError

__all__ = ["engine_of", "site_of"]


def site_of(location: str, options: Mapping[str, Any]) -> Site | None:
    """Return the database of the Django project that the table is in, if it is in one."""
    return find_site() if options["url"] is None and "://" not in str(location) else None


def engine_of(location: str, options: Mapping[str, Any], site: Site | None) -> tuple[DatabaseEngine, bool]:
    """Return the engine, and whether nobody but this user can write to its table.

    Raises:
        ConfigurationError: LOCATION and OPTIONS make no sense together.
    """
    target = locations.parse(location, options, site)
    settings = {
        name: options[name]
        for name in (
            "socket_connect_timeout",
            "socket_timeout",
            "busy_timeout",
            "unlogged",
            "max_connections",
            "create_table",
        )
    }
    database, is_trusted = _database(target, settings)
    settings["keeps_idle"] = database.is_local or site is None or not is_test_run()
    engine = shared(DatabaseEngine, _identity(target, settings), lambda: _engine(database, target, settings))
    return engine, is_trusted


def _engine(database: Database, target: Target, settings: Mapping[str, Any]) -> DatabaseEngine:
    return DatabaseEngine(
        database,
        target.table,
        settings["max_connections"],
        settings["busy_timeout"] if database.is_local else settings["socket_timeout"],
        creates=settings["create_table"],
        keeps_idle=settings["keeps_idle"],
    )


def _database(target: Target, settings: Mapping[str, Any]) -> tuple[Database, bool]:
    # Which kind of database it is decides which driver is loaded.
    if target.vendor == "sqlite":
        from storeroom.backends.db import sqlite  # noqa: PLC0415 -- as above

        return sqlite.SQLite(target.path, settings["busy_timeout"]), sqlite.is_private(target.path)
    kind = {"postgresql": "PostgreSQL", "mysql": "MySQL"}[target.vendor]
    return getattr(_driver(target.vendor), kind)(target, settings), False


def _driver(vendor: str) -> Any:
    try:
        return import_module(f"storeroom.backends.db.{vendor}")
    except ModuleNotFoundError as error:
        raise InvalidCacheBackendError(
            f"LOCATION leads to a database of {vendor}, which needs the module {error.name!r}, and that is not "
            f'installed. Install it with: pip install "storeroom[{vendor}]"'
        ) from error


def _identity(target: Target, settings: Mapping[str, Any]) -> str:
    """Return what two handles that share an engine have in common: passwords too, which no repr shows."""
    known_by = repr((target, target.user, target.password, target.query, sorted(settings.items())))
    return f"{target!r} {hashlib.blake2b(known_by.encode(), digest_size=16).hexdigest()}"
