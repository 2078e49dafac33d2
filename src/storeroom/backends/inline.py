"""Caches whose operations take microseconds: their async methods do them inline."""

from collections.abc import Iterable
from typing import Any

from storeroom.base import BaseCache
from storeroom.timeouts import DEFAULT_TIMEOUT, Timeout

__all__ = ["InlineCache"]


class InlineCache(BaseCache, abstract=True):
    """A cache whose aget() and aset() are its get() and set(), unless an overlay may have to wait."""

    async_inline = True

    async def aget(self, key: object, default: Any = None, version: int | None = None) -> Any:
        """See get()."""
        if self._overlay is not None:
            return await BaseCache.aget(self, key, default, version)
        return self.get(key, default, version)

    async def aset(
        self, key: object, value: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None, *,
        tags: Iterable[object] = (),
    ) -> None:  # fmt: skip
        """See set()."""
        if self._overlay is not None:
            await BaseCache.aset(self, key, value, timeout, version, tags=tags)
        else:
            self.set(key, value, timeout, version, tags=tags)
