"""The database cache keeps the contract on MariaDB."""

import zlib

import pytest

from storeroom.backends.db import DatabaseCache
from storeroom.testing import CacheContract
from tests.servers.databases import MariaDBServer, mariadb

__all__ = ["mariadb"]

LACKS = {"objects": "a server's values may come from anybody, so without a secret only plain data is stored"}


class TestMariaDB(CacheContract):
    """A table per test; its location tells both, so that another process finds them."""

    lacks = LACKS
    sequences = 10  # those of SQLite; the statements differ
    url = ""

    @pytest.fixture(autouse=True)
    def location(self, mariadb: MariaDBServer) -> str:
        type(self).url = mariadb.url()
        return f"{self.url} {mariadb.table()}"

    def make_cache(self, location, params):
        # The test of sequences makes locations of its own, in this process.
        url, _, table = location.rpartition(" ")
        options = {"url": url or self.url, "socket_timeout": 20, "max_connections": 8} | params.get("OPTIONS", {})
        return DatabaseCache(table if url else f"t{zlib.crc32(location.encode())}", {**params, "OPTIONS": options})
