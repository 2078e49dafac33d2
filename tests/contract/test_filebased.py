"""The file cache keeps the whole contract."""

from storeroom.backends.filebased import FileBasedCache
from storeroom.testing import CacheContract


class TestFileBasedCache(CacheContract):
    """One LMDB environment, which processes share; it lacks nothing."""

    def make_cache(self, location, params):
        return FileBasedCache(location, params)
