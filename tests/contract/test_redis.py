"""The Redis cache keeps the contract on real servers."""

from typing import ClassVar

import pytest

from storeroom.backends.redis import RedisCache
from storeroom.backends.redis.requests import Use, one
from storeroom.testing import CacheContract
from tests.servers.redis import Databases, redis_databases, valkey_databases
from tests.servers.redis_groups import Cluster, ReplicaPair, Sentinels, redis_cluster, redis_pair, redis_sentinels

__all__ = ["redis_cluster", "redis_databases", "redis_pair", "redis_sentinels", "valkey_databases"]

LACKS = {
    "objects": "a server's values may come from anybody, so without a secret only plain data is stored",
    "statistics": "a server shares its memory among all its users, and expires entries unseen",
    "bounds": "the server's maxmemory bounds all it holds",
    "byte_bounds": "the server's maxmemory bounds all it holds",
    "fake_clock": "the server goes by its own clock",
}

IN_CLUSTER = LACKS | {"atomic_rename": "the two keys may lie on two servers"}
WITH_SECRET = {name: reason for name, reason in LACKS.items() if name != "objects"}


#: The machine may be busy with other tests; a server that is down has tests of its own.
PATIENT = {"socket_timeout": 20}


class RedisContract(CacheContract):
    """A server that goes by its own clock: entries expire in real time."""

    moment = 0.4
    own_options: ClassVar = {}

    def make_cache(self, location, params):
        return RedisCache(location, {**params, "OPTIONS": PATIENT | self.own_options | params.get("OPTIONS", {})})


class TestRedis(RedisContract):
    """One server, without a secret."""

    lacks = LACKS

    @pytest.fixture
    def location(self, redis_databases: Databases) -> str:
        return redis_databases.url()


class TestRedisWithSecret(RedisContract):
    """Values are signed for their keys: everything may be stored, and a key cannot simply be renamed."""

    lacks = WITH_SECRET
    own_options: ClassVar = {"secret": "a secret of this test alone"}

    @pytest.fixture
    def location(self, redis_databases: Databases) -> str:
        return redis_databases.url()


class TestValkey(RedisContract):
    """The server that Redis was forked into."""

    lacks = LACKS

    @pytest.fixture
    def location(self, valkey_databases: Databases) -> str:
        return valkey_databases.url()


class TestRedisReplica(RedisContract):
    """Written to one server and read from another, which a writer does not notice."""

    lacks = LACKS
    # The contract lets other processes and threads write, and then reads here at once, as a writer does.
    own_options: ClassVar = {"read_own_writes": 30}

    @pytest.fixture
    def location(self, redis_pair: ReplicaPair) -> str:
        return redis_pair.url()

    def make_cache(self, location, params):
        cache = super().make_cache(location, params)
        cache._engine.call(one(Use.ONCE, "PING"))
        return cache


class TestRedisSentinel(RedisContract):
    """A primary that three Sentinels name."""

    lacks = LACKS

    @pytest.fixture
    def location(self, redis_sentinels: Sentinels) -> str:
        return redis_sentinels.url()


class TestRedisCluster(RedisContract):
    """Slots on three primaries, with a replica each."""

    lacks = IN_CLUSTER

    @pytest.fixture
    def location(self, redis_cluster: Cluster) -> str:
        return redis_cluster.url()
