"""Stands for cachelib's classes, and for Flask-Caching's, in their tests: StoreroomCache with the arguments of these.

SimpleCache is on the storage under test, the others on that of their name. Each instance has entries of its own, as
the suites empty their servers beforehand.
"""

import itertools
import json
import os
import tempfile
import warnings
from importlib import import_module
from types import SimpleNamespace

from cachelib import NullCache  # noqa: F401 -- asked for beside the others

from storeroom.integrations.cachelib import StoreroomCache

_PLAN = json.loads(os.environ["STOREROOM_CLIENT_PLAN"])
_numbers = itertools.count()


class _OfItsOwn(StoreroomCache):
    storage = ""

    def __init__(
        self, place=None, *, default_timeout=300, ignore_delete_many_errors=True, threshold=500, key_prefix="",
        cache_dir=None, ignore_errors=None, **options_of_a_driver,
    ):  # fmt: skip
        if ignore_errors is not None:
            warnings.warn("ignore_errors is deprecated", DeprecationWarning, stacklevel=2)
            ignore_delete_many_errors = ignore_errors
        super().__init__(default_timeout=default_timeout, ignore_delete_many_errors=ignore_delete_many_errors)
        path, location, options = _PLAN["caches"][self.storage]
        if self.storage == "filebased":
            location = str(place or cache_dir or tempfile.mkdtemp(dir=location))
        if self.storage != "locmem":
            options = {**options, "secret": "for the tests of cachelib"}
        if self.storage in {"locmem", "filebased", "db", "postgresql"}:
            options["max_entries"] = threshold or 500
        own = f"{os.getpid()}-{next(_numbers)}"
        params = {"KEY_PREFIX": f"{own}:{key_prefix or ''}", "OPTIONS": options}
        module, _, name = path.rpartition(".")
        backend = getattr(import_module(f"storeroom.backends.{module}"), name)
        self._handle = backend(f"{location}-{own}" if self.storage == "locmem" else location, params)
        self._write_client = SimpleNamespace(flushdb=self.clear)  # the suite empties its server by it
        self._client = None

    @property
    def cache(self):
        return self._handle


class SimpleCache(_OfItsOwn):
    """The storage under test."""

    storage = _PLAN["storage"]


class FileSystemCache(_OfItsOwn):
    """Files."""

    storage = "filebased"


class RedisCache(_OfItsOwn):
    """Redis."""

    storage = "redis"

    def __init__(self, host="localhost", **options):
        super().__init__(**options)


class MemcachedCache(_OfItsOwn):
    """Memcached."""

    storage = "pymemcache"
