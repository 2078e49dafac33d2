"""Operations on many entries at once: one round trip each, where the storage has it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from storeroom import storage
from storeroom.base.counters import CountingCache
from storeroom.engines.nesting import later
from storeroom.exceptions import NotSupportedError, ReentrantUseError, SerializationError
from storeroom.keys import CLEARED
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import StorageHooks
from storeroom.storage.steps import Steps, arun, run
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
        if storage.batches.has_kind(found, Envelope):
            found = run(storage.conditions.open_many(hooks, found))
        return self._counted_many(typed, found)

    async def aget_many(self, keys: Iterable[T], version: int | None = None) -> dict[T, Any]:
        """Return a dict from the keys given to their values; keys that are not live are absent from it.

        See get_many().
        """
        typed = self._storage_keys(keys, version)
        hooks = self._overlay or self
        found = await hooks._aget_many(list(typed))
        if storage.batches.has_kind(found, Envelope):
            found = await arun(storage.conditions.open_many(hooks, found))
        return self._counted_many(typed, found)

    def _counted_many(self, typed: dict[str, T], values: dict[str, Any]) -> dict[T, Any]:
        self._counters.hits += len(values)
        self._counters.misses += len(typed) - len(values)
        self._pass_by()
        if (families := self._families) is not None and len(values) < len(typed):
            families.add_misses([key for storage_key, key in typed.items() if storage_key not in values])
        found: dict[T, Any] = storage.batches.renamed(typed, values)
        if (families := self._hit_families) is not None:
            families.add_hits(found, storage.batches.extent(found))
        return found

    def set_many(
        self, data: Mapping[T, Any], timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None, *,
        tags: Iterable[object] = (),
    ) -> list[T]:  # fmt: skip
        """Store all values, each with these tags. Return the list of keys that could not be stored.

        The older values of these are removed, where the storage can be reached.

        Args:
            data: key to value.
            timeout: for how long they are stored: seconds, a timedelta, words such as "5m", or None for ever.
            version: of the keys.
            tags: names by which invalidate_tags() makes them absent.

        Raises:
            SerializationError: a value could not be read back if it were stored; some may be stored.
            TypeError: `data` is no mapping.
        """
        _require_mapping(data)
        typed, expires_at = self._storage_keys(data, version), self._expires_at(timeout)
        hooks = self._overlay or self
        if expires_at == AT_ONCE:
            hooks._delete_many(list(typed))
            return []
        values = storage.batches.picked(typed, data)
        if tags:
            keys = self._tag_keys(tags)
            try:
                values = run(storage.tags.all_tagged(hooks, values, expires_at, keys))
            except ReentrantUseError:
                self._tag_later(values, expires_at, keys)
                return []
        failed = run(self._storing(hooks, list(typed), values, expires_at))
        return self._counted_failures(typed, failed)

    def _tag_later(self, values: Mapping[str, Any], expires_at: float, keys: Sequence[str]) -> None:
        """Store values with tags a moment later: a finalizer sets them in the midst of another operation."""
        frozen = {key: self._freeze(key, value) for key, value in values.items()}

        def store() -> None:
            hooks, thawed = self._overlay or self, {key: self._thaw(key, kept) for key, kept in frozen.items()}
            hooks._set_many(run(storage.tags.all_tagged(hooks, thawed, expires_at, keys)), expires_at)

        later(store)

    async def aset_many(
        self, data: Mapping[T, Any], timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None, *,
        tags: Iterable[object] = (),
    ) -> list[T]:  # fmt: skip
        """Store all values, each with these tags. See set_many()."""
        _require_mapping(data)
        typed, expires_at = self._storage_keys(data, version), self._expires_at(timeout)
        hooks = self._overlay or self
        if expires_at == AT_ONCE:
            await hooks._adelete_many(list(typed))
            return []
        values = storage.batches.picked(typed, data)
        if tags:
            values = await arun(storage.tags.all_tagged(hooks, values, expires_at, self._tag_keys(tags)))
        failed = await arun(self._storing(hooks, list(typed), values, expires_at))
        return self._counted_failures(typed, failed)

    def _storing(
        self, hooks: StorageHooks, storage_keys: list[str], values: dict[str, Any], expires_at: float
    ) -> Steps[list[str]]:
        """Store the values of these keys; there are none where the versions of their tags could not be written."""
        if not values:
            if storage_keys:
                yield hooks, "_delete_many", (storage_keys,)
            return storage_keys
        try:
            failed, refused = yield from storage.unstored.set_many(hooks, values, expires_at)
        except SerializationError as error:
            self._counters.refuse(storage.unstored.reason_of(error))
            for storage_key in values:
                if repr(storage_key) in str(error):
                    storage.unstored.remember(hooks.engine, storage_key, error)
            raise
        for refusal in refused.values():
            self._counters.refuse(storage.unstored.reason_of(refusal))
        for storage_key in (*failed, *refused):
            storage.unstored.remember(hooks.engine, storage_key, refused.get(storage_key, storage.unstored.NOT_TAKEN))
        return [*failed, *refused]

    def _counted_failures(self, typed: dict[str, T], failed: Iterable[str]) -> list[T]:
        failures = {storage_key: typed[storage_key] for storage_key in failed}
        self._counters.sets += len(typed) - len(failures)
        if (families := self._families) is not None:
            stored = {key: typed[key] for key in typed.keys() - failures.keys()} if failures else typed
            keys = list(stored.values())
            families.add_sets(keys, storage.batches.extent(keys))
        return list(failures.values())

    def delete_many(self, keys: Iterable[object], version: int | None = None) -> None:
        """Remove all these entries."""
        self._counted_deletes((self._overlay or self)._delete_many(list(self._storage_keys(keys, version))))

    async def adelete_many(self, keys: Iterable[object], version: int | None = None) -> None:
        """Remove all these entries. See delete_many()."""
        self._counted_deletes(await (self._overlay or self)._adelete_many(list(self._storage_keys(keys, version))))

    def clear(self) -> None:
        """Remove all entries of this cache: of its prefix, in every version, and nobody else's.

        Raises:
            NotSupportedError: KEY_FUNCTION does not let tell which they are (it hashes everything, say).
        """
        with self._clearing():
            (self._overlay or self)._clear()

    async def aclear(self) -> None:
        """Remove all entries of this cache: of its prefix, in every version, and nobody else's. See clear()."""
        with self._clearing():
            await (self._overlay or self)._aclear()

    @contextmanager
    def _clearing(self) -> Iterator[None]:
        """Keep to the storage keys of this moment, also where they are removed later, or by other handles."""
        space = self._learnt_space()
        if space.is_opaque and not (self.clears_by_prefix or self.settings.options.get("owns_location")):
            raise NotSupportedError(
                f"clear() cannot tell this cache's entries from others, as {self._key_maker} hides whose they are, in "
                "all storage keys or in those of long and odd keys. Let it keep prefix and version readable before "
                'every key, as in f"{key_prefix}:{version}:{digest}"; or, if all there is in LOCATION is this '
                "cache's, set OPTIONS['owns_location'] to True: clear() then removes all of it."
            )
        moment = CLEARED.set(space)
        try:
            yield
        finally:
            CLEARED.reset(moment)


def _require_mapping(data: object) -> None:
    if type(data) is not dict and not isinstance(data, Mapping):
        raise TypeError(f"set_many() was given a {type(data).__name__}; expected a dict from keys to values.")
