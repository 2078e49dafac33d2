"""Sessions of starsessions in a cache that keeps them: they are not evicted before their time.

    app.add_middleware(SessionMiddleware, store=StoreroomStore("default"), lifetime=86400)

They are in the alias's storage as its locks are: they count toward no bound, and neither ``clear()`` nor a listing of
keys comes upon them. A Memcached or Redis server that is full evicts by its own rules all the same.
"""

from datetime import timedelta
from typing import Any, Final

from starsessions.stores.base import SessionStore

from storeroom import timeouts
from storeroom.exceptions import ConfigurationError
from storeroom.keys import LOCK_PREFIX
from storeroom.registry import caches
from storeroom.storage.envelope import Envelope
from storeroom.timeouts import NEVER, parse_timeout

__all__ = ["StoreroomStore"]

BROWSER_SESSION: Final = "30d"
"""Lifetime of a session that ends with the browser: the server never hears of that."""


class StoreroomStore(SessionStore):
    """Stores sessions in the cache of an alias, which is looked up by each call.

    Args:
        alias: of the cache.
        prefix: of the sessions' keys.
        browser_session: the time for which a session is kept whose ``lifetime`` is 0, as it ends with the browser. Each
            request of its visitor that loads it prolongs it.

    Raises:
        ConfigurationError: `browser_session` is no duration.
        StorageError: a session cannot be stored or read, where ``OPTIONS["on_error"]`` is "raise".
    """

    def __init__(
        self,
        alias: str = "default",
        prefix: str = "starsessions:",
        browser_session: float | timedelta | str | None = BROWSER_SESSION,
    ) -> None:
        self._alias, self._prefix = alias, prefix
        self._browser_session = parse_timeout(browser_session)
        if self._browser_session is not None and self._browser_session <= 0:
            raise ConfigurationError(
                f"StoreroomStore: browser_session is {browser_session!r}; expected the time for which a session is "
                'kept that ends with the browser: seconds, a timedelta, words such as "30d", or None for ever.'
            )

    def _entry(self, session_id: str) -> tuple[Any, str]:
        """Return the hooks and the storage key of a session."""
        cache: Any = caches[self._alias]
        return cache._locking(), f"{LOCK_PREFIX}{cache._storage_key(f'{self._prefix}{session_id}', None)}"

    async def read(self, session_id: str, lifetime: int) -> bytes:
        """Return the data of a session; b"" if there is none."""
        hooks, name = self._entry(session_id)
        found = await hooks._aget(name)
        is_there = type(found) is Envelope and found.is_fresh and type(found.value) is bytes
        return found.value if is_there else b""

    async def write(self, session_id: str, data: bytes, lifetime: int, ttl: int) -> str:
        """Store a session for `ttl` seconds, or as long as one of a browser is kept; return its id."""
        hooks, name = self._entry(session_id)
        seconds = ttl if lifetime else self._browser_session
        until = NEVER if seconds is None else timeouts.now() + seconds
        if until <= timeouts.now():
            await hooks._adelete(name)
        else:
            await hooks._aset(name, Envelope(bytes(data), until), until)
        return session_id

    async def remove(self, session_id: str) -> None:
        """Remove a session, if it is there."""
        hooks, name = self._entry(session_id)
        await hooks._adelete(name)
