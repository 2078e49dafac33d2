"""cachelib's interface over a cache of Storeroom's: for Flask-Caching, Flask-Session, and whatever else takes one.

    CACHE_TYPE = "storeroom.integrations.cachelib.StoreroomCache"  # Flask-Caching
    SESSION_CACHELIB = StoreroomCache("sessions")  # Flask-Session, with SESSION_TYPE = "cachelib"

Flask-Caching takes a class whose path has "cachelib" in it as it is, without a factory().
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cachelib import BaseCache

from storeroom.exceptions import StorageError, UnansweredError, ValueTooLargeError
from storeroom.registry import caches
from storeroom.timeouts import DEFAULT_TIMEOUT, Timeout

if TYPE_CHECKING:
    import storeroom.base

__all__ = ["StoreroomCache"]


class StoreroomCache(BaseCache):
    """The cache of an alias, looked up by each call, with cachelib's methods, arguments and results.

    In cachelib a timeout of 0 is for ever, and None the default. Fractions and words such as "5m" are taken, too.

    Args:
        alias: of the cache in CACHES.
        default_timeout: of entries that are set without one; None for the alias's TIMEOUT. Flask-Caching always passes
            its own CACHE_DEFAULT_TIMEOUT.
        ignore_delete_many_errors: whether delete_many() returns an empty list where the storage fails, or raises.
    """

    default_timeout: Any

    def __init__(
        self,
        alias: str = "default",
        default_timeout: float | timedelta | str | None = None,
        ignore_delete_many_errors: bool = True,
    ) -> None:
        super().__init__(ignore_delete_many_errors=ignore_delete_many_errors)
        self.alias, self.default_timeout = alias, default_timeout

    @property
    def cache(self) -> "storeroom.base.BaseCache":
        """The cache itself, with all that cachelib has no word for: tags, locks, get_or_set()."""
        return caches[self.alias]

    def get(self, key: str) -> Any:
        """Return the value, or None."""
        return self.cache.get(key)

    def get_many(self, *keys: str) -> list[Any]:
        """Return the values in the order of the keys, by one read; None for those that are absent."""
        found = self.cache.get_many(keys)
        return [found.get(key) for key in keys]

    def has(self, key: str) -> bool:
        """Tell whether there is an entry; None may be its value."""
        return self.cache.has_key(key)

    def set(self, key: str, value: Any, timeout: Any = None) -> bool:
        """Store a value. Return False if it is too large; the older value is gone then, too."""
        try:
            self.cache.set(key, value, self._timeout(timeout))
        except ValueTooLargeError:
            return False
        return True

    def add(self, key: str, value: Any, timeout: Any = None) -> bool:
        """Store a value where there is none, atomically. Return whether it was stored."""
        try:
            return self.cache.add(key, value, self._timeout(timeout))
        except ValueTooLargeError:
            return False

    def set_many(self, mapping: dict[str, Any], timeout: Any = None) -> list[str]:
        """Store several values by one write. Return the keys of those that were stored."""
        failed = set(self.cache.set_many(mapping, self._timeout(timeout)))
        return [key for key in mapping if key not in failed]

    def delete(self, key: str) -> bool:
        """Remove an entry. Return whether there was one."""
        return self.cache.delete(key)

    def delete_many(self, *keys: str) -> list[str]:
        """Remove several entries. Return the keys that are absent now: all of them."""
        try:
            self.cache.delete_many(keys)
        except StorageError:
            if self.ignore_delete_many_errors:
                return []
            raise
        return list(keys)

    def clear(self) -> bool:
        """Remove all entries of the alias, and nobody else's."""
        self.cache.clear()
        return True

    def inc(self, key: str, delta: int = 1) -> int | None:
        """Add to a number, atomically; an absent one is 0. Return the new number, or None in an outage."""
        try:
            number: int = self.cache.incr(key, delta, default=0, timeout=self._timeout(None))
        except UnansweredError:
            return None
        return number

    def dec(self, key: str, delta: int = 1) -> int | None:
        """See inc()."""
        return self.inc(key, -delta)

    def _timeout(self, timeout: Any) -> Timeout:
        given = self.default_timeout if timeout is None else timeout
        return DEFAULT_TIMEOUT if given is None else given or None
