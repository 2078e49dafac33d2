"""The database cache keeps the whole contract in a SQLite file."""

from pathlib import Path

from storeroom.backends.db import DatabaseCache
from storeroom.testing import CacheContract


class TestSQLite(CacheContract):
    """A file, which processes share."""

    def make_cache(self, location, params):
        url = f"sqlite:///{Path(location) / 'cache.sqlite3'}"
        return DatabaseCache("cache_table", {**params, "OPTIONS": {**params.get("OPTIONS", {}), "url": url}})
