"""Local memory keeps the contract."""

from typing import ClassVar

from storeroom.backends.locmem import LocMemCache
from storeroom.testing import CacheContract


class TestLocMemCache(CacheContract):
    """Entries are copied in and out."""

    lacks: ClassVar = {
        "processes": "each process has its own memory",
        "persistence": "memory ends with its process",
    }

    def make_cache(self, location, params):
        return LocMemCache(location, params)


class TestLocMemCacheWithoutCopies(CacheContract):
    """OPTIONS["copy"] = False gives up isolation, and nothing else."""

    lacks: ClassVar = {
        **TestLocMemCache.lacks,
        "isolation": "it was asked to share the very objects",
        "refusal": "an object that is kept as it is need not be pickled",
    }

    def make_cache(self, location, params):
        return LocMemCache(location, {**params, "OPTIONS": {**params.get("OPTIONS", {}), "copy": False}})
