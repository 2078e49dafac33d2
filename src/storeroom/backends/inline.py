"""Caches whose operations take microseconds: their async methods do them inline, but for those on many entries."""

from collections.abc import Callable, Iterable
from typing import Any, Final, ParamSpec, TypeVar

from storeroom import storage, timeouts
from storeroom.base import BaseCache
from storeroom.base.backend_class import declared_as
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING
from storeroom.storage.inline import WouldWaitError
from storeroom.timeouts import DEFAULT_TIMEOUT, Timeout

__all__ = ["InlineCache"]

P = ParamSpec("P")
T = TypeVar("T")

_FEW: Final = 500
"""Entries that an operation may take up without a thread: less than two milliseconds."""

_ON_ALL: Final = frozenset({"_clear", "_prune", "_scanned", "_tally", "_usage", "stats"})
_ON_MANY: Final = frozenset({"_delete_many", "_get_dated", "_get_many", "_lease_many", "_set_many", "_swap_many"})
"""Hooks whose time grows with the number of entries, or of those passed."""


class InlineCache(BaseCache, abstract=True):
    """A cache whose aget() and aset() are its get() and set(), unless an overlay may have to wait."""

    async_inline = True

    def _entries_about(self) -> int:
        """Return how many entries there are, about, at once."""
        raise NotImplementedError

    def _opened(self, envelope: Envelope) -> Any:
        """Do as conditions.opened(), for a handle without an overlay, whose hooks need no steps: they wait for nothing.

        The tags are read one after the other. All of them were current when the first was read, if they are found to
        be: a version that has changed never comes back.
        """
        if envelope.fresh_until <= timeouts.now():
            return MISSING
        for key, version in envelope.tags:
            if not storage.tags.is_written(self._get(key), version):
                return MISSING
        return envelope.value

    async def _run(self, hook: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a hook inline; in a thread where there are so many entries that the event loop would stand still."""
        name = getattr(hook, "__name__", "")
        is_long = name in _ON_ALL and self._entries_about() > _FEW
        if is_long or not self.async_inline or (name in _ON_MANY and _is_long(args[0])):
            return await self._in_thread(hook, *args, **kwargs)
        try:
            return hook(*args, **kwargs)
        except WouldWaitError:
            return await self._in_thread(hook, *args, **kwargs)

    @declared_as(BaseCache.aget)
    async def aget(self, key: object, default: Any = None, version: int | None = None) -> Any:
        """Return the value stored under the key, or `default` if there is none. See get()."""
        if self._overlay is not None:
            return await BaseCache.aget(self, key, default, version)
        try:
            return self.get(key, default, version)
        except WouldWaitError:
            return await self._in_thread(self.get, key, default, version)

    async def aset(
        self, key: object, value: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None, *,
        tags: Iterable[object] = (),
    ) -> None:  # fmt: skip
        """Store the value; with a timeout of zero or less, remove the entry. See set()."""
        if self._overlay is not None:
            await BaseCache.aset(self, key, value, timeout, version, tags=tags)
            return
        try:
            self.set(key, value, timeout, version, tags=tags)
        except WouldWaitError:
            await self._in_thread(self.set, key, value, timeout, version, tags=tags)


def _is_long(keyed: Any) -> bool:
    return len(keyed) > _FEW
