"""``manage.py createcachetable``, for Storeroom's database cache beside Django's own."""

from typing import Any

from django import conf
from django.core.cache import caches
from django.core.management.commands import createcachetable

from storeroom.backends.db import DatabaseCache
from storeroom.backends.db.site import may_migrate

__all__ = ["Command"]


class Command(createcachetable.Command):
    """Makes the tables of all database caches in CACHES, or those that are named."""

    help = "Creates the tables needed to use the SQL cache backend."

    def handle(self, *tablenames: str, **options: Any) -> None:
        """Make Django's tables as Django does, and Storeroom's by themselves."""
        ours = [cache for cache in map(caches.__getitem__, conf.settings.CACHES) if isinstance(cache, DatabaseCache)]
        by_name = {cache.table_name: cache for cache in ours}
        foreign = [name for name in tablenames if name not in by_name]
        if foreign or not tablenames:
            super().handle(*foreign, **options)
        for cache in [by_name[name] for name in tablenames if name in by_name] if tablenames else ours:
            self._make(cache, options)

    def _make(self, cache: DatabaseCache, options: dict[str, Any]) -> None:
        alias = cache.database_alias
        # A cache with a URL of its own is in none of the site's databases.
        if alias is not None and (alias != options["database"] or not may_migrate(alias)):
            return
        if options["dry_run"]:
            for statement in cache.create_statements():
                self.stdout.write(f"{statement};")
            return
        # Django tells of a table that is there already, and of one that it made where more is asked for.
        made = cache.create_table()
        if options["verbosity"] > made:
            self.stdout.write(f"Cache table {cache.table_name!r} {'created' if made else 'already exists'}.")
