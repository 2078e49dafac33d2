"""From a handle's settings to the engine that it shares with all handles of the same table."""

# ruff: noqa: PLC0415 -- a database's driver is loaded when a cache is in such a database

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from storeroom.backends.db.database import Database
from storeroom.backends.db.engine import DatabaseEngine
from storeroom.backends.db.following import FollowingPool
from storeroom.backends.db.location import Target, parse
from storeroom.backends.db.pool import Pool
from storeroom.backends.db.site import Site, find_site
from storeroom.config import Settings
from storeroom.engines import shared
from storeroom.exceptions import InvalidCacheBackendError
from storeroom.wording import installation

__all__ = ["distrusted", "engine_of", "located", "names_database"]

_TIMES: Final = ("busy_timeout", "pool_timeout", "socket_connect_timeout", "socket_timeout")
_SHARED: Final = frozenset({*_TIMES, "create_table", "group", "max_connections", "unlogged"})
"""Options that handles of one engine have in common."""


def names_database(location: str, options: Mapping[str, Any]) -> bool:
    """Tell whether LOCATION and OPTIONS name the database of the table."""
    return options["url"] is not None or "://" in str(location)


def located(location: str, options: Mapping[str, Any]) -> tuple[Target, Site | None]:
    """Return the table, without connecting to it, and the database of the Django project if it is in one.

    Raises:
        ConfigurationError: LOCATION and OPTIONS make no sense together.
    """
    site = None if names_database(location, options) else find_site()
    return parse(location, options, site.target if site else None), site


def distrusted(location: str, settings: Settings) -> list[str]:
    """Return the reasons why the first use would refuse a SQLite file, as others may have planted it."""
    from storeroom.backends.db.sqlite import intrusions

    target, _ = located(location, settings.options)
    found = intrusions(target.path, settings.options["group"]) if target.vendor == "sqlite" else ()
    return [reason for reason, _ in found]


def engine_of(target: Target, options: Mapping[str, Any], site: Site | None) -> tuple[DatabaseEngine, bool]:
    """Return the engine of a table, and whether this user alone can write to it."""
    settings = {name: options[name] for name in _SHARED}
    database, is_trusted = _database(target, settings, site)
    whose = site and (site.alias, site.test_process)
    where = replace(target, table="*")
    known_by = repr((where, target.user, target.password, target.query, sorted(settings.items()), whose))
    # Passwords are part of the identity, which no repr shows.
    identity = f"{where!r} {hashlib.blake2b(known_by.encode(), digest_size=16).hexdigest()}"
    bounds = options["max_connections"], options["pool_timeout"]

    def make() -> Pool:
        return FollowingPool(database, bounds[1], site) if site and site.test_process else Pool(database, *bounds)

    pool = shared(Pool, identity, make)
    table = target.table
    return shared(DatabaseEngine, (pool, table), lambda: DatabaseEngine(pool, table, settings)), is_trusted


def _database(target: Target, settings: Mapping[str, Any], site: Site | None) -> tuple[Database, bool]:
    login = site.login if site else None
    try:
        if target.vendor == "postgresql":
            from storeroom.backends.db.postgresql import PostgreSQL

            return PostgreSQL(target, settings, login), False
        if target.vendor == "mysql":
            from storeroom.backends.db.mysql import MySQL

            return MySQL(target, settings, login), False
    except ModuleNotFoundError as error:
        raise InvalidCacheBackendError(
            f"LOCATION leads to a database of {target.vendor}, which needs the module {error.name!r}, and that is not "
            f"installed. {installation(target.vendor)}"
        ) from error
    from storeroom.backends.db.sqlite import SQLite, is_private

    group = settings["group"]
    return SQLite(target.path, settings["busy_timeout"], group), group is None and is_private(target.path)
