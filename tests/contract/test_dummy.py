"""The cache that stores nothing keeps the part of the contract that needs no storage."""

from typing import ClassVar

from storeroom.backends.dummy import DummyCache
from storeroom.testing import CacheContract


class TestDummyCache(CacheContract):
    """Every write succeeds, and no read finds anything."""

    lacks: ClassVar = {"store": "it remembers nothing, on purpose"}

    def make_cache(self, location, params):
        return DummyCache(location, params)
