"""A near tier before a storage: the hooks of both together.

Reads fill the table. A change is made in the storage, and its entries are dropped from the table afterwards, whether it
succeeded or not. Nothing that is written is kept: two writers would have to agree on whose value was the last.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from typing import Any

from storeroom.engines.stats import CacheStats
from storeroom.near.table import NearTable
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import LOOK, MISSING, StorageHooks
from storeroom.storage.overlay import Overlay, every, first, first_two
from storeroom.storage.steps import Steps, arun, run
from storeroom.storage.tags import TAG_PREFIX

__all__ = ["NearOverlay"]


class NearOverlay(Overlay):
    """A near tier over the hooks of a handle; `table` is called on first use, when the handle is complete."""

    _attended: tuple[object, object] = (None, None)
    """The table's life and the keys for which a channel was asked for."""

    def __init__(self, handle: Any, below: StorageHooks, table: Callable[[], NearTable]) -> None:
        super().__init__(handle, below)
        self._make_table = table

    @cached_property
    def table(self) -> NearTable:
        """The entries that are near."""
        return self._make_table()

    def forget(self) -> None:
        """Drop everything: the handle has changed entries by another way than its hooks."""
        self.table.drop_all()

    def tiers(self) -> dict[str, CacheStats]:
        """Return the counts of both tiers."""
        return {"near": self.table.stats(), "far": self.table.far_stats(*self._below._usage())}

    def _attend(self) -> None:
        """Ask for a channel, before a process first reads, or tells of its own changes, before it writes."""
        space = self._handle._fixed_space
        life, keys = self._attended
        if life is self.table.life and keys is space:
            return
        self._attended = self.table.life, space
        channel = self._below._channel()
        if channel is not None:
            start = "" if space is None else space.start()  # keys that depend on the moment may begin with anything
            channel.watch(self.table, [start, f"{TAG_PREFIX}{start}"] if start else [""])

    def _get(self, storage_key: str) -> Any:
        value = self.table.get(storage_key)
        return run(self._read([storage_key])).get(storage_key, MISSING) if value is MISSING else value

    async def _aget(self, storage_key: str) -> Any:
        value = self.table.get(storage_key)
        return (await arun(self._read([storage_key]))).get(storage_key, MISSING) if value is MISSING else value

    def _get_many(self, storage_keys: Sequence[str]) -> dict[str, Any]:
        found = {storage_key: self.table.get(storage_key) for storage_key in storage_keys}
        return run(self._read_rest(found)) if _lacks_any(found) else found

    async def _aget_many(self, storage_keys: Sequence[str]) -> dict[str, Any]:
        found = {storage_key: self.table.get(storage_key) for storage_key in storage_keys}
        return await arun(self._read_rest(found)) if _lacks_any(found) else found

    def _read_rest(self, found: dict[str, Any]) -> Steps[dict[str, Any]]:
        """Read those that are missing, and return all, in the order asked for."""
        found |= yield from self._read([storage_key for storage_key, value in found.items() if value is MISSING])
        return {storage_key: value for storage_key, value in found.items() if value is not MISSING}

    def _has(self, storage_key: str) -> Any:
        value = self.table.get(storage_key)
        return self._below._has(storage_key) if value is MISSING else _presence(value)

    async def _ahas(self, storage_key: str) -> Any:
        value = self.table.get(storage_key)
        return await self._below._ahas(storage_key) if value is MISSING else _presence(value)

    def _read(self, storage_keys: Sequence[str]) -> Steps[dict[str, Any]]:
        """Read from the storage, and keep the entries found."""
        self._attend()
        ticket = self.table.begin(storage_keys)
        try:
            found: Mapping[str, tuple[Any, float | None]] = yield self._below, "_get_dated", (storage_keys,)
            self.table.fill(ticket, found)
        finally:
            self.table.end(ticket)
        return {storage_key: value for storage_key, (value, _) in found.items()}

    def _drop(self, storage_keys: Sequence[str]) -> None:
        self.table.drop(storage_keys)

    async def _adrop(self, storage_keys: Sequence[str]) -> None:
        self._drop(storage_keys)

    def sight(self, storage_key: str) -> Steps[list[Any]]:
        """See StorageHooks._sight()."""
        sightings = import_module("storeroom.storage.sightings")
        near = import_module("storeroom.near.sight").sight(self.table, storage_key)
        return [near, *(yield from sightings.sighted(self._below, storage_key))]

    def clear(self) -> Steps[None]:
        """See StorageHooks._clear()."""
        self._attend()
        try:
            yield self._below, "_clear", ()
        finally:
            self.table.drop_all()


def _change(name: str, keys_of: Callable[..., Sequence[str]]) -> None:
    """Let the storage carry a hook out, and drop its entries, also where it failed and may be done."""
    hook, twin = f"_{name}", f"_a{name}"

    def change(self: NearOverlay, *args: Any) -> Any:
        self._attend()
        try:
            return getattr(self._below, hook)(*args)
        finally:
            self._drop(keys_of(*args))

    async def achange(self: NearOverlay, *args: Any) -> Any:
        self._attend()
        try:
            return await getattr(self._below, twin)(*args)
        finally:
            await self._adrop(keys_of(*args))

    setattr(NearOverlay, hook, change)
    setattr(NearOverlay, twin, achange)


for _name in ("set", "add", "delete", "touch", "incr", "count", "lease", "compare_set", "compare_delete"):
    _change(_name, first)
for _name in ("set_many", "delete_many", "lease_many", "swap_many", "invalidate"):
    _change(_name, every)
_change("rename", first_two)


def _presence(value: Any) -> Any:
    return LOOK if type(value) is Envelope else True


def _lacks_any(found: dict[str, Any]) -> bool:
    return any(value is MISSING for value in found.values())
