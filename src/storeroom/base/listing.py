"""The contents of a cache: its keys, their number, and its statistics."""

from collections.abc import Iterable

from storeroom.base.many import ManyCache
from storeroom.engines.counts import CacheStats
from storeroom.exceptions import NotSupportedError
from storeroom.storage import conditions
from storeroom.storage.hooks import Conditional
from storeroom.storage.steps import Steps, arun, run

__all__ = ["ListingCache"]


class ListingCache(ManyCache):
    """The operations that look at everything in a cache."""

    def keys(self, prefix: str = "", version: int | None = None) -> list[str]:
        """Return the live keys that begin with `prefix`, as callers typed them, in no order.

        Raises:
            NotSupportedError: the storage cannot list its keys, or KEY_FUNCTION cannot be turned back (it hashes, say).
        """
        return run(self._listing(prefix, version))

    async def akeys(self, prefix: str = "", version: int | None = None) -> list[str]:
        """See keys()."""
        return await arun(self._listing(prefix, version))

    def count(self, version: int | None = None) -> int:
        """Return how many live entries keys() would list; raise NotSupportedError as it does."""
        return run(self._counting(version))

    async def acount(self, version: int | None = None) -> int:
        """See count()."""
        return await arun(self._counting(version))

    def _counting(self, version: int | None) -> Steps[int]:
        head = self._listing_head(version)
        tally: tuple[int, list[str]] | None = None
        if self._key_space.family(head) is not None:  # keys end as they like
            tally = yield self._overlay or self, "_tally", (head,)
        if tally is None:
            return len((yield from self._listing("", version)))
        count, conditional = tally
        return count + len((yield from conditions.live_keys(self._overlay or self, conditional)))

    def _listing(self, prefix: str, version: int | None) -> Steps[list[str]]:
        hooks, start = self._overlay or self, self._listing_head(version) + prefix
        found = list((yield hooks, "_scan", (start,)))
        return self._listed((yield from self._without_dead(found)), version)

    def _listing_head(self, version: int | None) -> str:
        """Return the beginning of a version's storage keys; raise NotSupportedError if KEY_FUNCTION can't be undone."""
        if not self._key_space.is_reversible:
            raise NotSupportedError(
                f"keys() and count() need to turn storage keys back into keys, which KEY_FUNCTION "
                f"{getattr(self.key_func, '__qualname__', self.key_func)!r} does not allow: it must keep prefix, "
                "version and key readable, one after the other."
            )
        return self._key_space.head(self._version if version is None else version)

    def _listed(self, storage_keys: Iterable[str], version: int | None) -> list[str]:
        """Return the keys that callers typed."""
        version = self._version if version is None else version
        found = (self._key_space.caller_key(storage_key, version) for storage_key in storage_keys)
        return [key for key in found if key is not None]

    def _without_dead(self, found: list[str]) -> Steps[list[str]]:
        """Return the storage keys found, without the entries that are over by their own conditions."""
        hooks = self._overlay or self
        doubtful = [key for key in found if type(key) is Conditional] if hooks.sees_envelopes else found
        if not doubtful:
            return found
        live = yield from conditions.live_keys(hooks, doubtful)
        dead = set(doubtful).difference(live)
        return [key for key in found if key not in dead]

    def prune(self) -> int:
        """Remove all expired entries now. Return how many were removed.

        No program needs to call this: expired entries never show, and go as room is needed.
        """
        return (self._overlay or self)._prune()

    async def aprune(self) -> int:
        """See prune()."""
        return await (self._overlay or self)._aprune()

    def stats(self) -> CacheStats:
        """Return the counts of this cache's storage, and its size: see CacheStats."""
        entries, size = (self._overlay or self)._usage()
        return CacheStats(**self._counters.as_dict(), entries=entries, bytes=size, tiers=self._tiers())

    async def astats(self) -> CacheStats:
        """See stats()."""
        return await self._run(self.stats)
