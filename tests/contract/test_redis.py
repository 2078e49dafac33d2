"""The Redis cache keeps the contract on real servers.

One server runs through all of it. The other variants run in full what they change, and what is picked of the other
parts (see parts.py): TestRedis has the rest, by the same code.
"""

from typing import ClassVar

import pytest

from storeroom.backends.redis import RedisCache
from storeroom.backends.redis.requests import Use, one
from storeroom.testing import CacheContract
from storeroom.testing.contract.batches import BatchesContract
from storeroom.testing.contract.collected import FinalizersContract
from storeroom.testing.contract.counting import CountingContract
from storeroom.testing.contract.foreign import ForeignCodeContract
from storeroom.testing.contract.keys import KeysContract
from storeroom.testing.contract.locks import LocksContract
from storeroom.testing.contract.many import ManyContract
from storeroom.testing.contract.swaps import SwapsContract
from storeroom.testing.contract.tags import TagsContract
from storeroom.testing.contract.transactions import TransactionsContract
from storeroom.testing.contract.values import ValuesContract
from tests.contract.parts import IN_ANOTHER_CONTEXT, contract_of
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


class Redis:
    """A server that goes by its own clock: entries expire in real time."""

    moment = 0.4
    own_options: ClassVar = {}

    def make_cache(self, location, params):
        return RedisCache(location, {**params, "OPTIONS": PATIENT | self.own_options | params.get("OPTIONS", {})})


#: A server that answers as Redis does.
AnotherServer = contract_of("AnotherServer")
#: What is signed when it is written, and again when it moves.
SignedValues = contract_of(
    "SignedValues", ValuesContract, ForeignCodeContract, KeysContract, CountingContract, SwapsContract
)
#: What is read after it was written.
ReadsFromReplicas = contract_of(
    "ReadsFromReplicas", ManyContract, SwapsContract, TagsContract, without=IN_ANOTHER_CONTEXT
)
#: Each command, and each kind of key.
LeastRights = contract_of(
    "LeastRights",
    FinalizersContract,
    ManyContract,
    CountingContract,
    SwapsContract,
    LocksContract,
    TagsContract,
    TransactionsContract,
)
#: Keys that lie on several servers.
SpreadKeys = contract_of(
    "SpreadKeys",
    FinalizersContract,
    KeysContract,
    ManyContract,
    BatchesContract,
    SwapsContract,
    LocksContract,
    TagsContract,
    TransactionsContract,
)


class TestRedis(Redis, CacheContract):
    """One server, without a secret."""

    sequences = 10  # of the same operations on local memory and files there are more
    lacks = LACKS

    @pytest.fixture
    def location(self, redis_databases: Databases) -> str:
        return redis_databases.url()


@pytest.mark.long
class TestRedisWithSecret(Redis, SignedValues):
    """Values are signed for their keys: everything may be stored, and a key cannot simply be renamed."""

    lacks = WITH_SECRET
    own_options: ClassVar = {"secret": "a secret of this test alone"}

    @pytest.fixture
    def location(self, redis_databases: Databases) -> str:
        return redis_databases.url()


@pytest.mark.long
class TestValkey(Redis, AnotherServer):
    """The server that Redis was forked into."""

    lacks = LACKS

    @pytest.fixture
    def location(self, valkey_databases: Databases) -> str:
        return valkey_databases.url()


@pytest.mark.long
class TestRedisReplica(Redis, ReadsFromReplicas):
    """Written to one server and read from another, which a writer does not notice."""

    lacks = LACKS
    # The contract lets other processes and threads write, and then reads here at once, as a writer does.
    own_options: ClassVar = {"read_own_writes": 30}
    pair = None

    @pytest.fixture
    def location(self, redis_pair: ReplicaPair) -> str:
        type(self).pair = redis_pair
        return redis_pair.url()

    def make_cache(self, location, params):
        cache = super().make_cache(location, params)
        cache._engine.call(one(Use.ONCE, "PING"))
        if self.pair is not None:
            cache._check_invariants = self.pair.catch_up  # before what a test has left is looked at
        return cache


@pytest.mark.long
class TestRedisLeastRights(Redis, LeastRights):
    """The user has no rights but those that `storeroom check` prints."""

    lacks = LACKS
    users: ClassVar[dict[tuple[str, ...], str]] = {}

    @pytest.fixture
    def location(self, redis_databases: Databases) -> str:
        return redis_databases.url()

    def make_cache(self, location, params):
        whole = super().make_cache(location, params)
        (answer,) = whole.probe(20).servers
        name = f"least-rights-{len(self.users)}"
        name = self.users.setdefault(answer.rights, name)
        whole._engine.call(one(Use.ONCE, *answer.rights[:2], name, "reset", ">right", *answer.rights[3:]))
        login = {"username": name, "password": "right"}
        return super().make_cache(location, {**params, "OPTIONS": params.get("OPTIONS", {}) | login})


class TestRedisWithoutScripts(Redis, LeastRights):
    """The user may not run scripts: the server watches keys instead."""

    lacks = LACKS
    own_options: ClassVar = {"username": "without-scripts", "password": "right"}

    @pytest.fixture
    def location(self, redis_databases: Databases) -> str:
        rules = ("reset", "on", ">right", "~*", "&*", "+@all", "-@scripting")
        redis_databases.server.ask("ACL", "SETUSER", "without-scripts", *rules)
        return redis_databases.url()


@pytest.mark.long
class TestRedisSentinel(Redis, AnotherServer):
    """A primary that three Sentinels name."""

    lacks = LACKS

    @pytest.fixture
    def location(self, redis_sentinels: Sentinels) -> str:
        return redis_sentinels.url()


class TestRedisCluster(Redis, SpreadKeys):
    """Slots on three primaries, with a replica each."""

    lacks = IN_CLUSTER

    @pytest.fixture
    def location(self, redis_cluster: Cluster) -> str:
        return redis_cluster.url()
