"""The database cache keeps the contract on PostgreSQL."""

import zlib
from typing import ClassVar

import pytest

from storeroom.backends.db import DatabaseCache
from storeroom.testing import CacheContract
from storeroom.testing.contract.foreign import ForeignCodeContract
from tests.servers.databases import PostgreSQLServer, postgresql

__all__ = ["postgresql"]

LACKS = {"objects": "a server's values may come from anybody, so without a secret only plain data is stored"}


class PostgreSQL:
    """A table per test; its location tells both, so that another process finds them."""

    url = ""
    own_options: ClassVar = {}

    @pytest.fixture(autouse=True)
    def location(self, postgresql: PostgreSQLServer) -> str:
        type(self).url = postgresql.url()
        return f"{self.url} {postgresql.table()}"

    def make_cache(self, location, params):
        # The test of sequences makes locations of its own, in this process.
        url, _, table = location.rpartition(" ")
        options = {"url": url or self.url, "socket_timeout": 20, "max_connections": 8}
        options |= self.own_options | params.get("OPTIONS", {})
        return DatabaseCache(table if url else f"t{zlib.crc32(location.encode())}", {**params, "OPTIONS": options})


class TestPostgreSQL(PostgreSQL, CacheContract):
    """Plain data, as without a secret."""

    lacks = LACKS
    sequences = 10  # those of SQLite; the statements differ
    in_both_modes: ClassVar = frozenset[str]()  # as the code around them, which SQLite's run in both


class TestPostgreSQLWithSecret(PostgreSQL, ForeignCodeContract):
    """Any object, whose own code runs while no row is locked."""

    own_options: ClassVar = {"secret": "a secret of this test alone"}
