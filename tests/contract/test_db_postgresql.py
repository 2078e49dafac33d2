"""The database cache keeps the contract on PostgreSQL."""

import zlib

import pytest

from storeroom.backends.db import DatabaseCache
from storeroom.testing import CacheContract
from tests.servers.databases import PostgreSQLServer, postgresql

__all__ = ["postgresql"]

LACKS = {"objects": "a server's values may come from anybody, so without a secret only plain data is stored"}


class TestPostgreSQL(CacheContract):
    """A table per test; its location tells both, so that another process finds them."""

    lacks = LACKS
    sequences = 10  # those of SQLite; the statements differ
    url = ""

    @pytest.fixture(autouse=True)
    def location(self, postgresql: PostgreSQLServer) -> str:
        type(self).url = postgresql.url()
        return f"{self.url} {postgresql.table()}"

    def make_cache(self, location, params):
        # The test of sequences makes locations of its own, in this process.
        url, _, table = location.rpartition(" ")
        options = {"url": url or self.url, "socket_timeout": 20, "max_connections": 8} | params.get("OPTIONS", {})
        return DatabaseCache(table if url else f"t{zlib.crc32(location.encode())}", {**params, "OPTIONS": options})
