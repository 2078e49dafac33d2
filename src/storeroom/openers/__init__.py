"""Caches without a CACHES dict, for scripts: ``storeroom.FileCache("dir", timeout="1h")``.

To type checkers each name is a class derived from a backend's. While the program runs it stands for that class, which
is loaded by the first cache: calling it reads and checks the arguments as an alias of CACHES, and returns the backend's
own handle.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from storeroom.openers.opening import stands_for
from storeroom.timeouts import DEFAULT_TIMEOUT, Timeout

if TYPE_CHECKING:
    from storeroom.backends import db, dummy, filebased, locmem, memcached, redis, tiered
else:
    db, dummy, filebased, locmem, memcached, redis, tiered = map(
        stands_for, ("db", "dummy", "filebased", "locmem", "memcached", "redis", "tiered")
    )

__all__ = [
    "DatabaseCache", "DummyCache", "FileCache", "LocMemCache", "PyLibMCCache", "PyMemcacheCache", "RedisCache",
    "TieredCache",
]  # fmt: skip

KeyFunction = Callable[[Any, str, int], str] | str


class FileCache(filebased.FileBasedCache):
    """A cache in a directory, which all processes of this machine that name it share, and that outlives them.

    Args:
        location: the directory; it is made. A relative one is in the working directory of now.
        timeout: of entries that are stored without one: seconds, a timedelta, words such as "5m", or None for never.
        max_entries: the most entries; then others are evicted.
        max_bytes: the most bytes of keys and values together, as a number or as "1GB".
        key_prefix: put before each key, so that several programs can share a directory.
        version: of keys without one.
        key_function: makes storage keys, as KEY_FUNCTION of CACHES; or its dotted path.
        **options: further ones, as OPTIONS of CACHES: see docs/backends/filebased.md.

    Raises:
        ConfigurationError: an argument is unknown or wrong. Nothing is opened before the first use.
    """

    def __init__(
        self, location: str | os.PathLike[str], *, timeout: Timeout = DEFAULT_TIMEOUT, max_entries: int = 100_000,
        max_bytes: int | str | None = "1GB", key_prefix: str = "", version: int = 1,
        key_function: KeyFunction | None = None, **options: Any,
    ) -> None: ...  # fmt: skip


class LocMemCache(locmem.LocMemCache):
    """A cache in the memory of this process.

    Args:
        location: a name: caches of the same name have the same entries.
        timeout: as of FileCache, and so are all others.
        max_entries: the most entries; then others are evicted.
        max_bytes: the most bytes of keys and values together, as a number or as "64MB".
        key_prefix: put before each key.
        version: of keys without one.
        key_function: makes storage keys.
        **options: further ones, as OPTIONS of CACHES: see docs/backends/locmem.md.

    Raises:
        ConfigurationError: an argument is unknown or wrong.
    """

    def __init__(
        self, location: str = "", *, timeout: Timeout = DEFAULT_TIMEOUT, max_entries: int = 10_000,
        max_bytes: int | str | None = "64MB", key_prefix: str = "", version: int = 1,
        key_function: KeyFunction | None = None, **options: Any,
    ) -> None: ...  # fmt: skip


class RedisCache(redis.RedisCache):
    """A cache on a server of Redis or Valkey, or on a group of them.

    Args:
        location: a URL such as "redis://127.0.0.1:6379/0", or several.
        timeout: as of FileCache, and so are all others.
        key_prefix: put before each key; on a server that others use, too, nearly always wanted.
        version: of keys without one.
        key_function: makes storage keys.
        **options: as OPTIONS of CACHES: see docs/backends/redis.md.

    Raises:
        ConfigurationError: an argument is unknown or wrong. Nothing is connected to before the first use.
        InvalidCacheBackendError: the driver is not installed.
    """

    def __init__(
        self, location: str | Sequence[str], *, timeout: Timeout = DEFAULT_TIMEOUT, key_prefix: str = "",
        version: int = 1, key_function: KeyFunction | None = None, **options: Any,
    ) -> None: ...  # fmt: skip


class DatabaseCache(db.DatabaseCache):
    """A cache in a table of PostgreSQL, MariaDB, MySQL or SQLite.

    Args:
        location: a URL such as "postgresql://127.0.0.1/shop" or "sqlite:///cache.db"; or the name of a table, and the
            URL as the option `url`.
        timeout: as of FileCache, and so are all others.
        key_prefix: put before each key.
        version: of keys without one.
        key_function: makes storage keys.
        **options: as OPTIONS of CACHES: see docs/backends/db.md.

    Raises:
        ConfigurationError: an argument is unknown or wrong. Nothing is connected to before the first use.
        InvalidCacheBackendError: the driver is not installed.
    """

    def __init__(
        self, location: str, *, timeout: Timeout = DEFAULT_TIMEOUT, key_prefix: str = "", version: int = 1,
        key_function: KeyFunction | None = None, **options: Any,
    ) -> None: ...  # fmt: skip


class PyMemcacheCache(memcached.PyMemcacheCache):
    """A cache on one server of Memcached or several, by the driver pymemcache.

    Args:
        location: an address such as "127.0.0.1:11211", or several.
        timeout: as of FileCache, and so are all others.
        key_prefix: put before each key.
        version: of keys without one.
        key_function: makes storage keys.
        **options: as OPTIONS of CACHES: see docs/backends/memcached.md.

    Raises:
        ConfigurationError: an argument is unknown or wrong. Nothing is connected to before the first use.
        InvalidCacheBackendError: the driver is not installed.
    """

    def __init__(
        self, location: str | Sequence[str], *, timeout: Timeout = DEFAULT_TIMEOUT, key_prefix: str = "",
        version: int = 1, key_function: KeyFunction | None = None, **options: Any,
    ) -> None: ...  # fmt: skip


class PyLibMCCache(memcached.PyLibMCCache):
    """A cache on one server of Memcached or several, by the driver pylibmc: see PyMemcacheCache."""

    def __init__(
        self, location: str | Sequence[str], *, timeout: Timeout = DEFAULT_TIMEOUT, key_prefix: str = "",
        version: int = 1, key_function: KeyFunction | None = None, **options: Any,
    ) -> None: ...  # fmt: skip


class TieredCache(tiered.TieredCache):
    """Caches one behind the other, the nearest first.

    Args:
        tiers: aliases of CACHES, or dicts as one has for an alias there.
        timeout: as of FileCache, and so are all others.
        key_prefix: put before each key.
        version: of keys without one.
        key_function: makes storage keys.
        **options: as OPTIONS of CACHES: see docs/tiers.md.

    Raises:
        ConfigurationError: an argument is unknown or wrong.
    """

    def __init__(
        self, *, tiers: Sequence[str | Mapping[str, Any]], timeout: Timeout = DEFAULT_TIMEOUT, key_prefix: str = "",
        version: int = 1, key_function: KeyFunction | None = None, **options: Any,
    ) -> None: ...  # fmt: skip


class DummyCache(dummy.DummyCache):
    """A cache that stores nothing: for tests, and to leave caching out. The arguments are those of FileCache."""

    def __init__(
        self, location: str = "", *, timeout: Timeout = DEFAULT_TIMEOUT, key_prefix: str = "", version: int = 1,
        key_function: KeyFunction | None = None, **options: Any,
    ) -> None: ...  # fmt: skip
