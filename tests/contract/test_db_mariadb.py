"""The database cache keeps the contract on MariaDB.

Its statements are its own, and run in full; what stands above them, test_db_postgresql.py has.
"""

import zlib

import pytest

from storeroom.backends.db import DatabaseCache
from storeroom.testing.contract.bounds import BoundsContract
from storeroom.testing.contract.counting import CountingContract
from storeroom.testing.contract.eviction import EvictionContract
from storeroom.testing.contract.expiry import ExpiryContract
from storeroom.testing.contract.keys import KeysContract
from storeroom.testing.contract.locks import LocksContract
from storeroom.testing.contract.many import ManyContract
from storeroom.testing.contract.races import RacesContract
from storeroom.testing.contract.separation import SeparationContract
from storeroom.testing.contract.statistics import StatisticsContract
from storeroom.testing.contract.swaps import SwapsContract
from storeroom.testing.contract.tags import TagsContract
from storeroom.testing.contract.values import ValuesContract
from tests.contract.parts import contract_of
from tests.servers.databases import MariaDBServer, mariadb

__all__ = ["mariadb"]

LACKS = {"objects": "a server's values may come from anybody, so without a secret only plain data is stored"}


Statements = contract_of(
    "Statements",
    ValuesContract,
    KeysContract,
    SeparationContract,
    ManyContract,
    CountingContract,
    ExpiryContract,
    LocksContract,
    SwapsContract,
    TagsContract,
    StatisticsContract,
    BoundsContract,
    EvictionContract,
    RacesContract,
)


class TestMariaDB(Statements):
    """A table per test; its location tells both, so that another process finds them."""

    lacks = LACKS
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
