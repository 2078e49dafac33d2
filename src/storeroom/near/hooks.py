"""A near tier before a storage: the hooks of both together.

The storage is the truth. Reads are answered from the table where it holds them, and fill
it otherwise; every change is made in the storage, and what it concerns is dropped from the
table afterwards, whatever came of it. Nothing that is written is kept at once: two who write the same key
would have to agree on whose value was the last.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from storeroom.engines.counts import CacheStats
from storeroom.keys import KeySpace
from storeroom.near.table import NearTable
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import LOOK, MISSING, StorageHooks, Swap
from storeroom.storage.steps import Steps, arun, run
from storeroom.storage.tags import TAG_MARK

__all__ = ["NearHooks", "NearOverlay"]


class NearHooks(StorageHooks):
    """The hooks of a storage behind a near tier."""

    _far: StorageHooks
    """The storage's hooks."""

    _near: NearTable
    """The near tier."""

    _attended: tuple[object, object] = (None, None)
    """The table's life and the keys for which a channel was asked for."""

    def _keys(self) -> KeySpace:
        """Return which storage keys are read through this tier."""
        raise NotImplementedError

    def _attend(self) -> None:
        """See to it that changes are heard of, before a process first reads, and tells of its own, before it writes."""
        life, keys = self._attended
        if life is self._near.life and keys is self._keys():
            return
        self._attended = self._near.life, self._keys()
        channel = self._far._channel()
        if channel is not None:
            start = self._keys().start()
            channel.watch(self._near, [start, f"{TAG_MARK}{start}"] if start else [""])

    # Reading --------------------------------------------------------------------------------

    def _read(self, storage_keys: Sequence[str]) -> Steps[dict[str, Any]]:
        """Read from the storage, and keep what is found."""
        near = self._near
        self._attend()
        ticket = near.begin(storage_keys)
        try:
            found = yield self._far, "_get_dated", (storage_keys,)
            near.fill(ticket, found)
        finally:
            near.end(ticket)
        return {storage_key: value for storage_key, (value, _) in found.items()}

    def _read_rest(self, found: dict[str, Any]) -> Steps[dict[str, Any]]:
        """Read what the near tier has not found, and return all in the order asked for."""
        missing = [storage_key for storage_key, value in found.items() if value is MISSING]
        found |= dict.fromkeys(missing, MISSING) | (yield from self._read(missing))
        return {storage_key: value for storage_key, value in found.items() if value is not MISSING}

    def _found_near(self, storage_keys: Sequence[str]) -> dict[str, Any]:
        near = self._near
        return {storage_key: near.get(storage_key) for storage_key in storage_keys}

    def _get(self, storage_key: str) -> Any:
        value = self._near.get(storage_key)
        return run(self._read([storage_key])).get(storage_key, MISSING) if value is MISSING else value

    async def _aget(self, storage_key: str) -> Any:
        value = self._near.get(storage_key)
        return (await arun(self._read([storage_key]))).get(storage_key, MISSING) if value is MISSING else value

    def _get_many(self, storage_keys: Sequence[str]) -> dict[str, Any]:
        found = self._found_near(storage_keys)
        return run(self._read_rest(found)) if any(value is MISSING for value in found.values()) else found

    async def _aget_many(self, storage_keys: Sequence[str]) -> dict[str, Any]:
        found = self._found_near(storage_keys)
        return await arun(self._read_rest(found)) if any(value is MISSING for value in found.values()) else found

    def _has(self, storage_key: str) -> Any:
        value = self._near.get(storage_key)
        return self._far._has(storage_key) if value is MISSING else _presence(value)

    async def _ahas(self, storage_key: str) -> Any:
        value = self._near.get(storage_key)
        return await self._far._ahas(storage_key) if value is MISSING else _presence(value)

    # What the storage alone can tell --------------------------------------------------------

    def _expiry(self, storage_key: str) -> Any:
        return self._far._expiry(storage_key)

    async def _aexpiry(self, storage_key: str) -> Any:
        return await self._far._aexpiry(storage_key)

    def _scan(self, start: str) -> Iterator[str]:
        return self._far._scan(start)

    async def _ascan(self, start: str) -> list[str]:
        return await self._far._ascan(start)

    def _usage(self) -> tuple[int | None, int | None]:
        return self._far._usage()

    async def _ausage(self) -> tuple[int | None, int | None]:
        return await self._far._ausage()

    def _prune(self) -> int:
        return self._far._prune()

    async def _aprune(self) -> int:
        return await self._far._aprune()

    # Writing --------------------------------------------------------------------------------

    def _drop(self, storage_keys: Sequence[str]) -> None:
        """Forget these entries: they have changed."""
        self._near.drop(storage_keys)

    async def _adrop(self, storage_keys: Sequence[str]) -> None:
        self._near.drop(storage_keys)

    def _drop_all(self) -> None:
        """Forget all entries."""
        self._near.drop_all()

    async def _adrop_all(self) -> None:
        self._near.drop_all()

    def _through(self, name: str, storage_keys: Sequence[str], *args: Any) -> Any:
        """Let the storage do it, and drop the entries concerned, also where it failed: it may have been done."""
        self._attend()
        try:
            return getattr(self._far, name)(*args)
        finally:
            self._drop(storage_keys)

    async def _athrough(self, name: str, storage_keys: Sequence[str], *args: Any) -> Any:
        self._attend()
        try:
            return await getattr(self._far, name)(*args)
        finally:
            await self._adrop(storage_keys)

    def _set(self, storage_key: str, value: Any, expires_at: float) -> bool:
        return bool(self._through("_set", (storage_key,), storage_key, value, expires_at))

    async def _aset(self, storage_key: str, value: Any, expires_at: float) -> bool:
        return bool(await self._athrough("_aset", (storage_key,), storage_key, value, expires_at))

    def _set_many(self, values: Mapping[str, Any], expires_at: float) -> Sequence[str]:
        failed: Sequence[str] = self._through("_set_many", list(values), values, expires_at)
        return failed

    async def _aset_many(self, values: Mapping[str, Any], expires_at: float) -> Sequence[str]:
        failed: Sequence[str] = await self._athrough("_aset_many", list(values), values, expires_at)
        return failed

    def _add(self, storage_key: str, value: Any, expires_at: float) -> Any:
        return self._through("_add", (storage_key,), storage_key, value, expires_at)

    async def _aadd(self, storage_key: str, value: Any, expires_at: float) -> Any:
        return await self._athrough("_aadd", (storage_key,), storage_key, value, expires_at)

    def _delete(self, storage_key: str) -> bool:
        return bool(self._through("_delete", (storage_key,), storage_key))

    async def _adelete(self, storage_key: str) -> bool:
        return bool(await self._athrough("_adelete", (storage_key,), storage_key))

    def _delete_many(self, storage_keys: Sequence[str]) -> int:
        return int(self._through("_delete_many", storage_keys, storage_keys))

    async def _adelete_many(self, storage_keys: Sequence[str]) -> int:
        return int(await self._athrough("_adelete_many", storage_keys, storage_keys))

    def _touch(self, storage_key: str, expires_at: float) -> Any:
        return self._through("_touch", (storage_key,), storage_key, expires_at)

    async def _atouch(self, storage_key: str, expires_at: float) -> Any:
        return await self._athrough("_atouch", (storage_key,), storage_key, expires_at)

    def _incr(self, storage_key: str, delta: float) -> float:
        total: float = self._through("_incr", (storage_key,), storage_key, delta)
        return total

    async def _aincr(self, storage_key: str, delta: float) -> float:
        total: float = await self._athrough("_aincr", (storage_key,), storage_key, delta)
        return total

    def _rename(self, storage_key: str, new_storage_key: str) -> Any:
        return self._through("_rename", (storage_key, new_storage_key), storage_key, new_storage_key)

    async def _arename(self, storage_key: str, new_storage_key: str) -> Any:
        return await self._athrough("_arename", (storage_key, new_storage_key), storage_key, new_storage_key)

    def _lease(self, storage_key: str, *args: Any) -> Any:
        return self._through("_lease", (storage_key,), storage_key, *args)

    async def _alease(self, storage_key: str, *args: Any) -> Any:
        return await self._athrough("_alease", (storage_key,), storage_key, *args)

    def _lease_many(self, swaps: Mapping[str, Swap]) -> dict[str, bool | None]:
        leased: dict[str, bool | None] = self._through("_lease_many", list(swaps), swaps)
        return leased

    async def _alease_many(self, swaps: Mapping[str, Swap]) -> dict[str, bool | None]:
        leased: dict[str, bool | None] = await self._athrough("_alease_many", list(swaps), swaps)
        return leased

    def _swap_many(self, swaps: Mapping[str, Swap]) -> dict[str, bool]:
        swapped: dict[str, bool] = self._through("_swap_many", list(swaps), swaps)
        return swapped

    async def _aswap_many(self, swaps: Mapping[str, Swap]) -> dict[str, bool]:
        swapped: dict[str, bool] = await self._athrough("_aswap_many", list(swaps), swaps)
        return swapped

    def _compare_set(self, storage_key: str, expected: Any, value: Any, expires_at: float) -> bool:
        return bool(self._through("_compare_set", (storage_key,), storage_key, expected, value, expires_at))

    async def _acompare_set(self, storage_key: str, expected: Any, value: Any, expires_at: float) -> bool:
        return bool(await self._athrough("_acompare_set", (storage_key,), storage_key, expected, value, expires_at))

    def _compare_delete(self, storage_key: str, expected: Any) -> bool:
        return bool(self._through("_compare_delete", (storage_key,), storage_key, expected))

    async def _acompare_delete(self, storage_key: str, expected: Any) -> bool:
        return bool(await self._athrough("_acompare_delete", (storage_key,), storage_key, expected))

    def _invalidate(self, storage_keys: Sequence[str]) -> int:
        return int(self._through("_invalidate", storage_keys, storage_keys))

    async def _ainvalidate(self, storage_keys: Sequence[str]) -> int:
        return int(await self._athrough("_ainvalidate", storage_keys, storage_keys))

    def _clear(self) -> None:
        self._attend()
        try:
            self._far._clear()
        finally:
            self._drop_all()

    async def _aclear(self) -> None:
        self._attend()
        try:
            await self._far._aclear()
        finally:
            await self._adrop_all()


class NearOverlay(NearHooks):
    """A near tier before the hooks of one handle: what ``OPTIONS["near"]`` puts there.

    Args:
        far: the handle.
        keys: returns which storage keys it makes, which may change.
        table: returns the near tier; called on first use, when the handle is complete.
    """

    def __init__(self, far: StorageHooks, keys: Callable[[], KeySpace], table: Callable[[], NearTable]) -> None:
        self._far = far
        self._find_keys, self._make_table = keys, table
        # What the storage says of itself holds of both.
        self.async_inline = far.async_inline
        self.is_shared = far.is_shared
        self.sees_envelopes = far.sees_envelopes

    def _keys(self) -> KeySpace:
        return self._find_keys()

    def forget(self) -> None:
        """Drop everything: the handle has changed entries by another way than its hooks."""
        self._near.drop_all()

    def tiers(self) -> dict[str, CacheStats]:
        """Return the counts of both tiers."""
        return {"near": self._near.stats(), "far": self._near.far_stats(*self._far._usage())}

    @cached_property
    def _near(self) -> NearTable:  # type: ignore[override]  # assigned once, by its first use
        return self._make_table()


def _presence(value: Any) -> Any:
    """Return what `_has` answers for an entry that is there."""
    return LOOK if type(value) is Envelope else True
