"""A lock among all programs that use a server: ``cache.lock(key)``, as django-redis has it.

The lock is an entry that holds its owner's token. Only who knows the token gives it back or
prolongs it, so that an owner who was too slow does not take it from the next one.

Good for saving work, as everything about a cache is. A server that fails over may forget a
lock that was taken a moment before.

Source: https://redis.io/docs/latest/develop/use/patterns/distributed-locks/, for one server.
"""

import time
import uuid
from typing import TYPE_CHECKING, Any, Self

from storeroom import timeouts
from storeroom.exceptions import StorageError
from storeroom.timeouts import NEVER

if TYPE_CHECKING:
    from storeroom.backends.redis import RedisCache

__all__ = ["RedisLock"]


class RedisLock:
    """A lock, for ``with`` and ``async with``. Not reentrant; an object per use.

    Args:
        cache: where the lock is kept.
        storage_key: the entry that is the lock.
        timeout: seconds after which it is free again, whatever its owner does; None for never.
        sleep: seconds between attempts.
        blocking_timeout: seconds to wait at most; None to wait for ever.
    """

    def __init__(
        self,
        cache: "RedisCache",
        storage_key: str,
        timeout: float | None,
        sleep: float,
        blocking_timeout: float | None,
    ) -> None:
        self._cache = cache
        self._storage_key = storage_key
        self._timeout = timeout
        self._sleep = sleep
        self._blocking_timeout = blocking_timeout
        self._token = uuid.uuid4().hex

    def acquire(self, *, blocking: bool = True, blocking_timeout: float | None = None) -> bool:
        """Take the lock; return whether it was to be had in time.

        Raises:
            StorageError: the server is out of reach.
        """
        deadline = self._deadline(blocking, blocking_timeout)
        while self._cache._reach("lock", self._attempt()) is not True:  # noqa: SLF001 -- the cache's own mechanism
            if time.monotonic() + self._sleep > deadline:
                return False
            time.sleep(self._sleep)
        return True

    async def aacquire(self, *, blocking: bool = True, blocking_timeout: float | None = None) -> bool:
        """See acquire()."""
        import asyncio  # noqa: PLC0415 -- a synchronous program need not load it

        deadline = self._deadline(blocking, blocking_timeout)
        while await self._cache._areach("lock", self._attempt()) is not True:  # noqa: SLF001
            if time.monotonic() + self._sleep > deadline:
                return False
            await asyncio.sleep(self._sleep)
        return True

    def _deadline(self, blocking: bool, blocking_timeout: float | None) -> float:
        if not blocking:
            return 0.0
        patience = self._blocking_timeout if blocking_timeout is None else blocking_timeout
        return NEVER if patience is None else time.monotonic() + patience

    def _attempt(self) -> Any:
        expires_at = NEVER if self._timeout is None else timeouts.now() + self._timeout
        return self._cache._operations.add(self._storage_key, self._token, expires_at)  # noqa: SLF001

    def release(self) -> None:
        """Give the lock back.

        Raises:
            StorageError: it is not ours any more, or the server is out of reach.
        """
        if not self._cache._reach("lock", self._give_back()):  # noqa: SLF001
            raise self._lost()

    async def arelease(self) -> None:
        """See release()."""
        if not await self._cache._areach("lock", self._give_back()):  # noqa: SLF001
            raise self._lost()

    def _give_back(self) -> Any:
        return self._cache._operations.compare_delete(self._storage_key, self._token)  # noqa: SLF001

    def _lost(self) -> StorageError:
        return StorageError(
            f"The lock {self._storage_key!r} is not ours any more: its timeout of {self._timeout} s was shorter than "
            "the work, or somebody removed it."
        )

    def __enter__(self) -> Self:
        if not self.acquire():
            raise self._taken()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    async def __aenter__(self) -> Self:
        if not await self.aacquire():
            raise self._taken()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.arelease()

    def _taken(self) -> StorageError:
        return StorageError(
            f"The lock {self._storage_key!r} was not free within {self._blocking_timeout} s (blocking_timeout)."
        )
