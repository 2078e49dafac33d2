"""The contents of a cache: its keys, their number, and its statistics."""

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal

from storeroom import storage
from storeroom.base.many import ManyCache
from storeroom.exceptions import NotSupportedError
from storeroom.keys import KeySpace
from storeroom.storage.hooks import Conditional
from storeroom.storage.steps import Steps, arun, pause, run

if TYPE_CHECKING:
    from storeroom.advice import Advice
    from storeroom.engines.stats import CacheStats

__all__ = ["ListingCache"]

_NOT_TOGETHER: Final = (
    'stats(scope="all") needs OPTIONS["shared_stats"] True, in all processes: each counts for itself otherwise.'
)
_OWN: Final = (
    'stats(scope="all") needs a storage that processes share; this one is each process\'s own, and so are its counts.'
)

_PART: Final = 1000
"""Keys after which other threads and tasks may go on: about a millisecond."""


class ListingCache(ManyCache):
    """The operations that look at everything in a cache."""

    def keys(self, prefix: str = "", version: int | None = None) -> list[str]:
        """Return the live keys that begin with `prefix`, as callers typed them, in no order.

        Raises:
            NotSupportedError: the storage cannot list its keys, or KEY_FUNCTION cannot be turned back (it hashes, say).
        """
        return run(self._listing(prefix, version))

    async def akeys(self, prefix: str = "", version: int | None = None) -> list[str]:
        """Return the live keys that begin with `prefix`, as callers typed them, in no order. See keys()."""
        return await arun(self._listing(prefix, version))

    def count(self, version: int | None = None) -> int:
        """Return how many live entries keys() would list; raise NotSupportedError as it does."""
        return run(self._counting(version))

    async def acount(self, version: int | None = None) -> int:
        """Return how many live entries keys() would list; raise NotSupportedError as it does. See count()."""
        return await arun(self._counting(version))

    def _counting(self, version: int | None) -> Steps[int]:
        space = self._listing_space(version)
        version = self._version if version is None else version
        head = space.head(version)
        tally: tuple[int, list[str]] | None = None
        if space.family(head) is not None:  # keys end as they like
            tally = yield self._overlay or self, "_tally", (head,)
        if tally is None:
            found = yield self._overlay or self, "_scan", (head,)
            return (yield from self._listed(found, space, version, len))
        count, conditional = tally
        return count + len((yield from storage.conditions.live_keys(self._overlay or self, conditional)))

    def _listing(self, prefix: str, version: int | None) -> Steps[list[str]]:
        space, keys = self._listing_space(version), list[str]()
        version = self._version if version is None else version
        found = yield self._overlay or self, "_scan", (space.beginning(prefix, version),)
        yield from self._listed(found, space, version, keys.extend)
        return keys

    def _listing_space(self, version: int | None) -> KeySpace:
        """Return the storage keys of this moment; raise NotSupportedError if they can't be turned back."""
        space = self._key_space
        if not space.lists(self._version if version is None else version):
            raise NotSupportedError(
                f"keys() and count() need to turn storage keys back into keys, which {self._key_maker} does not allow: "
                "it must keep prefix, version and any key as they are, one after the other. Let it pass long and odd "
                "keys unchanged, as every storage takes them, or keep the keys you need to find in an entry of their "
                "own."
            )
        return space

    def _listed(
        self, found: Iterable[str], space: KeySpace, version: int, take: Callable[[list[str]], object]
    ) -> Steps[int]:
        """Take the keys that callers typed, of those storage keys that are live; return how many there are.

        Those found are used up, and not copied: very many at once take long, to let go of, too.
        """
        if not isinstance(found, list):  # of a thread it is one
            found = list(found)
        count = 0
        while found:
            part = found[-_PART:]
            del found[-_PART:]
            live = yield from self._without_dead(part)
            yield from pause(0)
            typed = (space.caller_key(storage_key, version) for storage_key in live)
            keys = [key for key in typed if key is not None]
            take(keys)
            count += len(keys)
        return count

    def _without_dead(self, found: list[str]) -> Steps[list[str]]:
        """Return the storage keys found, without the entries that are over by their own storage.conditions."""
        hooks = self._overlay or self
        doubtful = [key for key in found if type(key) is Conditional] if hooks.sees_envelopes else found
        if not doubtful:
            return found
        live = yield from storage.conditions.live_keys(hooks, doubtful)
        dead = set(doubtful).difference(live)
        return [key for key in found if key not in dead]

    def prune(self) -> int:
        """Remove all expired entries now. Return how many were removed.

        No program needs to call this: expired entries never show, and go as room is needed.
        """
        return (self._overlay or self)._prune()

    async def aprune(self) -> int:
        """Remove all expired entries now. See prune()."""
        return await (self._overlay or self)._aprune()

    def stats(self, scope: Literal["process", "all"] | None = None) -> "CacheStats":
        """Return the counts of this cache's storage, and its size: see CacheStats.

        Args:
            scope: None for the counts that are at hand, whose `scope` tells whose they are; "process" for those of this
                process alone; "all" for those of all processes together, which costs one read of many keys.

        Raises:
            NotSupportedError: there is no counting together: OPTIONS["shared_stats"] is not True, or the storage is
                this process's own.
            StorageError: the server is out of reach, and the scope is "all".
        """
        if scope not in {None, "process"}:
            return self._stats_of_all(scope)
        entries, size = (self._overlay or self)._usage()
        more = {"entries": entries, "bytes": size, "tiers": self._tiers()}
        if scope is None:
            return self._counted_stats(self._counted_here(), **more, **self._whose())
        whose = "process" if self._engine.is_common else "handle"
        return self._counted_stats(self._counted_by_this_process(), **more, scope=whose)

    def _whose(self) -> dict[str, Any]:
        """Return the scope of _counted_here(), and of how many processes these are."""
        return {"scope": "process" if self._engine.is_common else "handle"}

    def _counted_here(self) -> dict[str, Any]:
        """Return the counts of this process, by the names of CacheStats."""
        counted: dict[str, Any] = self._engine.counted()
        return counted

    def _shown(self) -> dict[str, Any]:
        """Return this cache as `storeroom top` shows it, with the counts of this process: no server is asked."""
        entries, size = self._size_at_hand()
        return {
            "backend": type(self).__name__,
            "key_prefix": self.key_prefix,
            "is_shared": self.is_shared,
            "entries": entries,
            "bytes": size,
            "max_entries": self.settings.options.get("max_entries"),
            "counts_hits": self._hit_families is not None,
            "counted": self._counted_by_this_process(),
        }

    def _size_at_hand(self) -> tuple[int | None, int | None]:
        """Return entries and bytes, where they are known without much work; this is called each second."""
        return None, None

    def _counted_by_this_process(self) -> dict[str, Any]:
        """Return the same where _counted_here() is of more processes than this."""
        return self._counted_here()

    def _stats_of_all(self, scope: str | None, *, with_own: bool = True) -> "CacheStats":
        """Return the sum of all processes' counts: see stats()."""
        if scope != "all":
            raise ValueError(f'stats() was given the scope {scope!r}; expected None, "process" or "all".')
        if not self._publishes:
            raise NotSupportedError(_NOT_TOGETHER if self.is_shared else _OWN)
        counted, processes = import_module("storeroom.base.sharing").counted_together(self, with_own=with_own)
        entries, size = (self._overlay or self)._usage()
        more = {"entries": entries, "bytes": size, "scope": scope, "processes": processes}
        return self._counted_stats(counted, **more, tiers=self._tiers() if with_own else {})

    def _reset_stats(self) -> None:
        """Let the counts of all processes begin at zero."""
        if self._publishes:
            import_module("storeroom.base.sharing").reset(self)
        self._counters.reset()

    def _counted_stats(self, counted: Mapping[str, Any], **more: Any) -> "CacheStats":
        kind: type[CacheStats] = import_module("storeroom.engines.stats").CacheStats
        return kind.of(counted, counts_hits=self._hit_families is not None, **more)

    async def astats(self, scope: Literal["process", "all"] | None = None) -> "CacheStats":
        """Return the counts of this cache's storage, and its size: see CacheStats. See stats()."""
        return await self._run(self.stats, scope)

    def advice(self) -> "Advice":
        """Return the numbers to write into CACHES, from this process's traffic since the cache was first used.

        Raises:
            NotSupportedError: ``OPTIONS["advise"]`` does not ask for a record of the traffic.
        """
        told: Advice = import_module("storeroom.recording").advice_of(self)
        return told

    async def aadvice(self) -> "Advice":
        """Return the numbers to write into CACHES, from this process's traffic since the cache was first used.

        See advice().
        """
        return await self._run(self.advice)
