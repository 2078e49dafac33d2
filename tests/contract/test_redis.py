"""The Redis cache keeps the contract on real servers."""

import pytest

from storeroom.backends.redis import RedisCache
from storeroom.testing import CacheContract
from tests.servers.redis import Databases, redis_databases, valkey_databases

__all__ = ["redis_databases", "valkey_databases"]

LACKS = {
    "objects": "what a server holds may come from anybody, so without a secret only plain data is stored",
    "statistics": "a server shares its memory among all its users, and expires entries unseen",
    "bounds": "the server's maxmemory bounds all it holds",
    "byte_bounds": "the server's maxmemory bounds all it holds",
    "fake_clock": "the server goes by its own clock",
}

WITH_SECRET = {name: reason for name, reason in LACKS.items() if name != "objects"}


class RedisContract(CacheContract):
    moment = 0.4

    def make_cache(self, location, params):
        return RedisCache(location, params)


class TestRedis(RedisContract):
    lacks = LACKS

    @pytest.fixture
    def location(self, redis_databases: Databases) -> str:
        return redis_databases.url()


class TestRedisWithSecret(RedisContract):
    """Values are signed for their keys: everything may be stored, and a key cannot simply be renamed."""

    lacks = WITH_SECRET

    @pytest.fixture
    def location(self, redis_databases: Databases) -> str:
        return redis_databases.url()

    def make_cache(self, location, params):
        options = params.get("OPTIONS", {}) | {"secret": "a secret of this test alone"}
        return RedisCache(location, {**params, "OPTIONS": options})


class TestValkey(RedisContract):
    lacks = LACKS

    @pytest.fixture
    def location(self, valkey_databases: Databases) -> str:
        return valkey_databases.url()
