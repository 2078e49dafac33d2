"""Operations on many entries at once: one round trip each, where the storage has it."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from storeroom.base.counters import CountingCache
from storeroom.storage import conditions
from storeroom.storage.envelope import Envelope
from storeroom.storage.steps import arun, run
from storeroom.storage.tags import all_tagged
from storeroom.timeouts import AT_ONCE, DEFAULT_TIMEOUT, Timeout

__all__ = ["ManyCache"]

T = TypeVar("T")


class ManyCache(CountingCache):
    """The operations on many entries."""

    def get_many(self, keys: Iterable[T], version: int | None = None) -> dict[T, Any]:
        """Return a dict from the keys given to their values; keys that are not live are absent from it."""
        typed = self._storage_keys(keys, version)
        hooks = self._overlay or self
        found = hooks._get_many(list(typed))
        if any(type(value) is Envelope for value in found.values()):
            found = run(conditions.open_many(hooks, found))
        return self._counted_many(typed, found)

    async def aget_many(self, keys: Iterable[T], version: int | None = None) -> dict[T, Any]:
        """See get_many()."""
        typed = self._storage_keys(keys, version)
        hooks = self._overlay or self
        found = await hooks._aget_many(list(typed))
        if any(type(value) is Envelope for value in found.values()):
            found = await arun(conditions.open_many(hooks, found))
        return self._counted_many(typed, found)

    def _counted_many(self, typed: dict[str, T], values: dict[str, Any]) -> dict[T, Any]:
        self._counters.hits += len(values)
        self._counters.misses += len(typed) - len(values)
        return {typed[storage_key]: value for storage_key, value in values.items()}

    def set_many(
        self, data: Mapping[T, Any], timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None, *,
        tags: Iterable[object] = (),
    ) -> list[T]:  # fmt: skip
        """Store all values, each with these tags. Return the list of keys that could not be stored."""
        typed, expires_at = self._storage_keys(data, version), self._expires_at(timeout)
        hooks = self._overlay or self
        if expires_at == AT_ONCE:
            hooks._delete_many(list(typed))
            return []
        values = {storage_key: data[key] for storage_key, key in typed.items()}
        if tags:
            values = run(all_tagged(hooks, values, expires_at, self._tag_keys(tags)))
        failed = hooks._set_many(values, expires_at) if values else list(typed)
        return self._counted_failures(typed, failed)

    async def aset_many(
        self, data: Mapping[T, Any], timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None, *,
        tags: Iterable[object] = (),
    ) -> list[T]:  # fmt: skip
        """See set_many()."""
        typed, expires_at = self._storage_keys(data, version), self._expires_at(timeout)
        hooks = self._overlay or self
        if expires_at == AT_ONCE:
            await hooks._adelete_many(list(typed))
            return []
        values = {storage_key: data[key] for storage_key, key in typed.items()}
        if tags:
            values = await arun(all_tagged(hooks, values, expires_at, self._tag_keys(tags)))
        failed = await hooks._aset_many(values, expires_at) if values else list(typed)
        return self._counted_failures(typed, failed)

    def _counted_failures(self, typed: dict[str, T], failed: Iterable[str]) -> list[T]:
        failures = [typed[storage_key] for storage_key in failed]
        self._counters.sets += len(typed) - len(failures)
        return failures

    def delete_many(self, keys: Iterable[object], version: int | None = None) -> None:
        """Remove all these entries."""
        self._counted_deletes((self._overlay or self)._delete_many(list(self._storage_keys(keys, version))))

    async def adelete_many(self, keys: Iterable[object], version: int | None = None) -> None:
        """See delete_many()."""
        self._counted_deletes(await (self._overlay or self)._adelete_many(list(self._storage_keys(keys, version))))

    def clear(self) -> None:
        """Remove all entries of this cache: of its prefix, in every version, and nobody else's."""
        (self._overlay or self)._clear()

    async def aclear(self) -> None:
        """See clear()."""
        await (self._overlay or self)._aclear()
