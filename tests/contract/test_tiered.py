"""Memory before a storage keeps the contract of that storage.

The whole contract is run where code of its own is exercised by all of it:

| suite | code |
| --- | --- |
| TestMemoryBeforeFiles | TieredCache and its hot path, over a storage that tells of no change |

TestMemoryBeforeRedis, over a storage that tells of changes, and TestFilesWithNear, OPTIONS["near"], run in full what
reads, fills and outdates the near tier; the other storages, which are behind the same tiers, what asks them most. Of
the other parts (see parts.py) they run what is picked:

| part | suites |
| --- | --- |
| values | encoded by the storage, whose suite has every type; copied by the near tier in TestMemoryBeforeFiles |
| keys, timeouts | made before any tier is asked: the suites of the storages, TestMemoryBeforeFiles |
| counters, locks, races, bounds, statistics | of the storage alone: its suite; test_coherence.py has processes |
| @cached, memos | before the tiers: TestMemoryBeforeFiles |
"""

import zlib
from pathlib import Path
from typing import Any, ClassVar

import pytest

from storeroom.backends.db import DatabaseCache
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.backends.memcached import PyMemcacheCache
from storeroom.backends.redis import RedisCache
from storeroom.backends.tiered import TieredCache
from storeroom.testing import CacheContract
from storeroom.testing.contract.batches import BatchesContract
from storeroom.testing.contract.collected import FinalizersContract
from storeroom.testing.contract.computing import ComputingContract
from storeroom.testing.contract.many import ManyContract
from storeroom.testing.contract.refreshing import RefreshingContract
from storeroom.testing.contract.swaps import SwapsContract
from storeroom.testing.contract.tags import TagsContract
from storeroom.testing.contract.transactions import TransactionsContract
from tests.contract.parts import IN_ANOTHER_CONTEXT, contract_of
from tests.servers.databases import PostgreSQLServer, postgresql
from tests.servers.memcached import Servers, memcached
from tests.servers.redis import Databases, redis_databases
from tests.servers.redis_groups import Cluster, ReplicaPair, redis_cluster, redis_pair

__all__ = ["memcached", "postgresql", "redis_cluster", "redis_databases", "redis_pair"]

TiersContract = contract_of(
    "TiersContract",
    FinalizersContract,
    ManyContract,
    ComputingContract,
    BatchesContract,
    SwapsContract,
    RefreshingContract,
    TagsContract,
    TransactionsContract,
    without=("test_processes_count_exactly",),
)
#: Another storage behind the tiers.
AnotherStorage = contract_of("AnotherStorage", SwapsContract, TagsContract, without=("test_processes_count_exactly",))
#: Another storage that tells of changes, in a thread of its own.
AnotherThatTells = contract_of(
    "AnotherThatTells", FinalizersContract, SwapsContract, TagsContract, without=("test_processes_count_exactly",)
)
#: A storage whose replicas may be behind.
ReadsFromReplicas = contract_of("ReadsFromReplicas", SwapsContract, TagsContract, without=IN_ANOTHER_CONTEXT)


OBJECTS = {"objects": "a server's values may come from anybody, so without a secret only plain data is stored"}
NEAR = {
    "bounds": "an entry that the storage has evicted is near for a moment still",
    "byte_bounds": "an entry that the storage has evicted is near for a moment still",
}
SERVER = {
    **OBJECTS,
    "statistics": "a server shares its memory among all its users, and expires entries unseen",
    "bounds": "the server bounds its memory as a whole",
    "byte_bounds": "the server bounds its memory as a whole",
}
REDIS = {**SERVER, "fake_clock": "the server goes by its own clock"}
MEMCACHED = {**SERVER, "enumerate": "Memcached has no command that lists keys"}


#: The machine may be busy with other tests; a server that is down has tests of its own.
PATIENT = {"socket_timeout": 20}


class Tiered:
    """All options but the tiered cache's own are the storage's."""

    storage: ClassVar[Any] = FileBasedCache
    storage_options: ClassVar[dict[str, Any]] = {"max_entries": None}

    def make_cache(self, location, params):
        options = {name.lower(): value for name, value in params.get("OPTIONS", {}).items()}
        own = {name: options.pop(name) for name in list(options) if name not in self.storage.options}
        storage = {"BACKEND": self.storage, "LOCATION": location, "OPTIONS": {**self.storage_options, **options}}
        return TieredCache("", {**params, "OPTIONS": {"tiers": self.tiers(location, storage), **own}})

    def tiers(self, location, storage):
        return [MEMORY, storage]


MEMORY = {"BACKEND": LocMemCache, "OPTIONS": {"max_entries": 1000}}


class TestMemoryBeforeFiles(Tiered, CacheContract):
    """The whole contract, on the fake clock."""

    sequences = 10  # of the same operations on local memory and files there are more
    in_both_modes: ClassVar = frozenset[str]()  # TestMemoryBeforeRedis runs in both what tiers change
    lacks = NEAR


class TestMemoryBeforeSQLite(Tiered, AnotherStorage):
    """A file that several processes change, and that tells of no change."""

    lacks = NEAR
    storage = DatabaseCache

    def tiers(self, location, storage):
        url = f"sqlite:///{Path(location) / 'cache.sqlite3'}"
        return [MEMORY, {**storage, "LOCATION": "cache_table", "OPTIONS": {**storage["OPTIONS"], "url": url}}]


@pytest.mark.long
class TestMemoryBeforePostgreSQL(Tiered, AnotherThatTells):
    """A server that tells of changes by NOTIFY."""

    lacks: ClassVar = {**OBJECTS, **NEAR}
    storage = DatabaseCache
    storage_options: ClassVar = PATIENT | {"max_entries": None, "max_connections": 8}
    url = ""

    @pytest.fixture(autouse=True)
    def location(self, postgresql: PostgreSQLServer) -> str:
        type(self).url = postgresql.url()
        return f"{self.url} {postgresql.table()}"

    def tiers(self, location, storage):
        # The test of sequences makes locations of its own, in this process.
        url, _, table = location.rpartition(" ")
        table = table if url else f"t{zlib.crc32(location.encode())}"
        return [MEMORY, {**storage, "LOCATION": table, "OPTIONS": {**storage["OPTIONS"], "url": url or self.url}}]


class TestMemoryBeforeMemcached(Tiered, AnotherStorage):
    """A server that tells neither of changes nor of expiry."""

    lacks = MEMCACHED
    storage = PyMemcacheCache
    storage_options: ClassVar = PATIENT
    #: The servers of a test that makes locations of its own; each of those is a prefix on them.
    servers = None

    @pytest.fixture
    def location(self, memcached: Servers) -> str:
        return memcached.location()

    def make_cache(self, location, params):
        if self.servers is not None:
            return super().make_cache(self.servers, {**params, "KEY_PREFIX": location})
        return super().make_cache(location, params)

    def test_any_sequence_of_operations_agrees_with_a_dict(self, tmp_path, mode, location):
        """See SequencesContract: each sequence has a prefix of its own on the server."""
        self.servers = location
        super().test_any_sequence_of_operations_agrees_with_a_dict(tmp_path, mode)


class TieredRedis(Tiered):
    """Redis, which tells of changes by client tracking."""

    lacks = REDIS
    storage = RedisCache
    storage_options: ClassVar = PATIENT
    moment = 0.4

    @pytest.fixture
    def location(self, redis_databases: Databases) -> str:
        return redis_databases.url()


class TestMemoryBeforeRedis(TieredRedis, TiersContract):
    """A server that tells of changes, and goes by a clock of its own."""


@pytest.mark.long
class TestMemoryBeforeRedisReplica(TieredRedis, ReadsFromReplicas):
    """Changes are heard of at the replica too, which is read from."""

    storage_options: ClassVar = PATIENT | {"read_own_writes": 30}

    pair = None

    @pytest.fixture
    def location(self, redis_pair: ReplicaPair) -> str:
        type(self).pair = redis_pair
        return redis_pair.url()

    def make_cache(self, location, params):
        cache = super().make_cache(location, params)
        if self.pair is not None:
            cache._check_invariants = self.pair.catch_up  # before what a test has left is looked at
        return cache


@pytest.mark.long
class TestMemoryBeforeRedisCluster(TieredRedis, AnotherStorage):
    """Changes are heard of at each server of the cluster."""

    lacks: ClassVar = {**REDIS, "atomic_rename": "the two keys may lie on two servers"}

    @pytest.fixture
    def location(self, redis_cluster: Cluster) -> str:
        return redis_cluster.url()


@pytest.mark.long
class TestMemoryBeforeFilesBeforeRedis(TieredRedis, AnotherStorage):
    """Three tiers: the location tells the folder of the files, too, for all processes of a test."""

    lacks: ClassVar = {**REDIS, "persistence": "the files are bounded by time, and may be older than another's write"}

    @pytest.fixture
    def location(self, redis_databases: Databases, tmp_path: Path) -> str:
        return f"{redis_databases.url()} {tmp_path / 'files'}"

    def tiers(self, location, storage):
        url, _, folder = location.partition(" ")
        return [MEMORY, {"BACKEND": FileBasedCache, "LOCATION": folder}, {**storage, "LOCATION": url}]


class TestRedisWithNear(AnotherStorage):
    """OPTIONS["near"] before a storage that tells of changes."""

    lacks = REDIS
    moment = 0.4

    @pytest.fixture
    def location(self, redis_databases: Databases) -> str:
        return redis_databases.url()

    def make_cache(self, location, params):
        options = PATIENT | {"near": {"max_entries": 100}} | params.get("OPTIONS", {})
        return RedisCache(location, {**params, "OPTIONS": options})


class TestFilesWithNear(TiersContract):
    """OPTIONS["near"] before a storage that tells of no change."""

    lacks = NEAR

    def make_cache(self, location, params):
        options = {"near": True, "max_entries": None, **params.get("OPTIONS", {})}
        return FileBasedCache(location, {**params, "OPTIONS": options})


class TestTagsBeforeBoundedFiles(TagsContract):
    """OPTIONS["near"] with the bounds of its storage: versions of tags take no room in either."""

    lacks: ClassVar = {"byte_bounds": NEAR["byte_bounds"]}

    def make_cache(self, location, params):
        options = {"max_entries": None, **{name.lower(): value for name, value in params.get("OPTIONS", {}).items()}}
        options["near"] = {name: options[name] for name in ("max_entries", "max_tags") if name in options}
        return FileBasedCache(location, {**params, "OPTIONS": options})
