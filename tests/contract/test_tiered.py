"""Memory before a storage keeps the contract of that storage.

The whole contract is run where code of its own is exercised by all of it:

| suite | code |
| --- | --- |
| TestMemoryBeforeFiles | TieredCache and its hot path, over a storage that tells of no change |
| TestMemoryBeforeRedis | the same over one that does, and that goes by a clock of its own |
| TestMemoryBeforeFilesBeforeRedis | a middle tier |
| TestFilesWithNear | OPTIONS["near"], which any storage has |

The other storages are behind the same tiers. Their suites run what tiers can change: WHOLE names the parts of the
contract that are run in full, and PICKED the tests of the others, with the suites that cover the rest.
"""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest

from storeroom.backends.db import DatabaseCache
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.backends.memcached import PyMemcacheCache
from storeroom.backends.redis import RedisCache
from storeroom.backends.tiered import TieredCache
from storeroom.testing import CacheContract
from storeroom.testing.contract.batches import BatchesContract
from storeroom.testing.contract.bounds import BoundsContract
from storeroom.testing.contract.cached import CachedContract
from storeroom.testing.contract.computing import ComputingContract
from storeroom.testing.contract.counting import CountingContract
from storeroom.testing.contract.expiry import ExpiryContract
from storeroom.testing.contract.forks import ForkContract
from storeroom.testing.contract.freshness import FreshnessContract
from storeroom.testing.contract.handles import HandlesContract
from storeroom.testing.contract.keys import KeysContract
from storeroom.testing.contract.locks import LocksContract
from storeroom.testing.contract.many import ManyContract
from storeroom.testing.contract.memos import MemosContract
from storeroom.testing.contract.processes import ProcessesContract
from storeroom.testing.contract.races import RacesContract
from storeroom.testing.contract.refreshing import RefreshingContract
from storeroom.testing.contract.sequences import SequencesContract
from storeroom.testing.contract.stampede import StampedeContract
from storeroom.testing.contract.statistics import StatisticsContract
from storeroom.testing.contract.suite import Suite
from storeroom.testing.contract.swaps import SwapsContract
from storeroom.testing.contract.tags import TagsContract
from storeroom.testing.contract.threads import ThreadsContract
from storeroom.testing.contract.transactions import TransactionsContract
from storeroom.testing.contract.values import ValuesContract
from tests.servers.databases import PostgreSQLServer, postgresql
from tests.servers.memcached import Servers, memcached
from tests.servers.redis import Databases, redis_databases
from tests.servers.redis_groups import Cluster, ReplicaPair, redis_cluster, redis_pair

__all__ = ["memcached", "postgresql", "redis_cluster", "redis_databases", "redis_pair"]

#: Coherence, batches, computing, conditions and units of work: they read, fill and outdate the near tier.
WHOLE: Final = (
    ManyContract,
    ComputingContract,
    BatchesContract,
    SwapsContract,
    FreshnessContract,
    RefreshingContract,
    TagsContract,
    TransactionsContract,
    StampedeContract,
    ThreadsContract,
    ForkContract,
    ProcessesContract,
    SequencesContract,
)

#: A part of the contract -> the tests of it that a tier can change, and the suites that cover the others.
PICKED: Final[Mapping[type[Suite], tuple[Sequence[str], str]]] = {
    HandlesContract: (
        (
            "test_an_empty_cache_has_nothing",
            "test_handles_of_one_storage_agree",
            "test_handles_may_have_settings_of_their_own",
            "test_close_ends_nothing",
        ),
        "An operation that is the first meets the storage as without tiers: the suites of the storages.",
    ),
    ValuesContract: (
        (
            "test_get_returns_an_equal_object_of_the_programs_own_class",
            "test_get_tells_a_stored_none_from_absence",
            "test_set_overwrites",
            "test_add_keeps_the_first_value",
            "test_delete_removes_and_tells_whether_it_did",
            "test_add_stores_after_delete",
            "test_has_key_and_in_tell_whether_a_key_is_there",
            "test_changing_an_object_does_not_change_what_is_cached",
        ),
        (
            "A value is encoded by the storage, whose own suite has every type, size and refusal, and copied by the "
            "near tier, whatever the storage: TestMemoryBeforeFiles, TestFilesWithNear."
        ),
    ),
    KeysContract: (
        (
            "test_odd_keys_are_different_keys",
            "test_keys_and_count_pass_over_what_is_not_live",
            "test_prefixes_keep_caches_of_one_storage_apart",
            "test_clear_removes_everything",
            "test_clear_removes_every_version",
            "test_clear_removes_only_the_caches_own_keys",
            "test_versions_keep_entries_apart",
            "test_incr_version_moves_an_entry",
            "test_incr_version_replaces_what_is_there",
            "test_incr_version_keeps_the_timeout",
        ),
        (
            "Storage keys are made before any tier is asked: the suites of the storages, and TestMemoryBeforeFiles for "
            "KEY_FUNCTION and every odd key in every operation."
        ),
    ),
    CountingContract: (
        (
            "test_incr_adds_and_returns_the_new_number",
            "test_a_counter_can_be_made_by_any_write",
            "test_incr_keeps_the_timeout",
            "test_counting_what_is_not_there_is_an_error",
            "test_incr_with_a_default_creates_the_number",
            "test_a_number_whose_tag_was_invalidated_is_created_anew",
        ),
        "The storage counts, and its own suite has every number and mistake.",
    ),
    LocksContract: (
        ("test_lock_has_one_owner", "test_fence_grows_with_each_owner", "test_a_lock_is_no_entry"),
        "Locks pass all tiers by: the suites of the storages.",
    ),
    ExpiryContract: (
        (
            "test_an_entry_lives_until_its_timeout",
            "test_a_fraction_of_a_second_counts",
            "test_none_is_never",
            "test_ttl_tells_the_seconds_left",
            "test_set_gives_a_new_timeout",
            "test_touch_gives_a_new_timeout",
            "test_touch_may_take_the_timeout_away",
            "test_touch_with_zero_removes",
            "test_touch_never_revives",
            "test_expire_at_takes_a_point_in_time",
            "test_expire_at_a_time_in_the_past_removes",
            "test_add_stores_over_an_expired_entry",
            "test_get_or_set_computes_over_an_expired_entry",
            "test_counting_an_expired_entry_is_an_error",
            "test_entries_of_one_set_many_expire_together",
        ),
        "A timeout is a point in time before any tier sees it: TestMemoryBeforeFiles for every way to write one.",
    ),
    CachedContract: (
        (),
        (
            "@cached calls get_or_set(), refresh() and delete() of the other parts: TestMemoryBeforeFiles, "
            "TestMemoryBeforeRedis."
        ),
    ),
    MemosContract: (
        (
            "test_own_writes_are_seen_and_made",
            "test_computing_sees_what_others_have_stored",
            "test_invalidated_tags_are_seen",
        ),
        "A memo stands before the tiers, and knows no storage: TestMemoryBeforeFiles, TestFilesWithNear.",
    ),
    RacesContract: (
        (),
        (
            "The storage settles races of adding, counting, locking and bounding: its own suite; test_coherence.py has "
            "what processes read that change entries behind tiers."
        ),
    ),
    StatisticsContract: (
        ("test_reads_are_hits_or_misses", "test_get_or_set_is_one_read", "test_entries_removed_on_request_are_deletes"),
        "The storage counts its entries and bytes: its own suite.",
    ),
    BoundsContract: ((), "The storage bounds itself: its own suite; test_near.py has the bounds of the near tier."),
}

Picked = type("Picked", (Suite,), {name: getattr(part, name) for part, (names, _) in PICKED.items() for name in names})


class TiersContract(Picked, *WHOLE):
    """The part of the contract that tiers can change."""

    sequences = 10


def test_every_part_of_the_contract_is_picked_from_or_run_in_full() -> None:
    """WHOLE and PICKED name every part of CacheContract, so that a new one is given a decision here."""
    assert {*WHOLE, *PICKED} == set(CacheContract.__bases__)


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

    lacks = NEAR


class TestMemoryBeforeSQLite(Tiered, TiersContract):
    """A file that several processes change, and that tells of no change."""

    lacks = NEAR
    storage = DatabaseCache

    def tiers(self, location, storage):
        url = f"sqlite:///{Path(location) / 'cache.sqlite3'}"
        return [MEMORY, {**storage, "LOCATION": "cache_table", "OPTIONS": {**storage["OPTIONS"], "url": url}}]


class TestMemoryBeforePostgreSQL(Tiered, TiersContract):
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


class TestMemoryBeforeMemcached(Tiered, TiersContract):
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


class TestMemoryBeforeRedis(TieredRedis, CacheContract):
    """The whole contract, on the server's clock."""


class TestMemoryBeforeRedisWithSecret(TieredRedis, TiersContract):
    """Anything may be stored."""

    lacks: ClassVar = {name: reason for name, reason in REDIS.items() if name != "objects"}
    storage_options: ClassVar = PATIENT | {"secret": "a secret of this test alone"}


class TestMemoryBeforeRedisReplica(TieredRedis, TiersContract):
    """Changes are heard of at the replica too, which is read from."""

    storage_options: ClassVar = PATIENT | {"read_own_writes": 30}

    @pytest.fixture
    def location(self, redis_pair: ReplicaPair) -> str:
        return redis_pair.url()


class TestMemoryBeforeRedisCluster(TieredRedis, TiersContract):
    """Changes are heard of at each server of the cluster."""

    lacks: ClassVar = {**REDIS, "atomic_rename": "the two keys may lie on two servers"}

    @pytest.fixture
    def location(self, redis_cluster: Cluster) -> str:
        return redis_cluster.url()


class TestMemoryBeforeFilesBeforeRedis(TieredRedis, CacheContract):
    """Three tiers: the location tells the folder of the files, too, for all processes of a test."""

    lacks: ClassVar = {**REDIS, "persistence": "the files are bounded by time, and may be older than another's write"}

    @pytest.fixture
    def location(self, redis_databases: Databases, tmp_path: Path) -> str:
        return f"{redis_databases.url()} {tmp_path / 'files'}"

    def tiers(self, location, storage):
        url, _, folder = location.partition(" ")
        return [MEMORY, {"BACKEND": FileBasedCache, "LOCATION": folder}, {**storage, "LOCATION": url}]


class TestRedisWithNear(TiersContract):
    """OPTIONS["near"] before a storage that tells of changes."""

    lacks = REDIS
    moment = 0.4

    @pytest.fixture
    def location(self, redis_databases: Databases) -> str:
        return redis_databases.url()

    def make_cache(self, location, params):
        options = PATIENT | {"near": {"max_entries": 100}} | params.get("OPTIONS", {})
        return RedisCache(location, {**params, "OPTIONS": options})


class TestFilesWithNear(CacheContract):
    """OPTIONS["near"]: the whole contract, on the fake clock."""

    lacks = NEAR

    def make_cache(self, location, params):
        options = {"near": True, "max_entries": None, **params.get("OPTIONS", {})}
        return FileBasedCache(location, {**params, "OPTIONS": options})
