"""A near tier before a storage: the hooks of both together.

The storage is the truth. Reads are answered from the table where it holds them, and fill it otherwise; every change is
made in the storage, and its entries are dropped from the table afterwards, whether it succeeded or not. Nothing that
is written is kept at once: two writers of one key would have to agree on whose value was the last.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from storeroom.engines.counts import CacheStats
from storeroom.near.table import NearTable
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import LOOK, MISSING, StorageHooks
from storeroom.storage.overlay import Overlay, every, first, first_two
from storeroom.storage.steps import Steps, arun, run
from storeroom.storage.tags import TAG_PREFIX

__all__ = ["NearOverlay"]


def _changing(name: str, keys_of: Callable[..., Iterable[str]]) -> Callable[..., Steps[Any]]:
    """Return a hook that the storage carries out; its entries are dropped, also where it failed and may be done."""

    def steps(self: "NearOverlay", *args: Any) -> Steps[Any]:
        self._attend()
        try:
            return (yield self._below, f"_{name}", args)
        finally:
            yield from self._drop(keys_of(*args))

    return steps


class NearOverlay(Overlay):
    """A near tier over the hooks of a handle.

    Args:
        handle: the cache.
        below: the storage's hooks: the handle's own, or those of further tiers.
        table: returns the near tier; called on first use, when the handle is complete.
    """

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
        life, keys = self._attended
        if life is self.table.life and keys is self._handle._key_space:
            return
        self._attended = self.table.life, self._handle._key_space
        channel = self._below._channel()
        if channel is not None:
            start = self._handle._key_space.start()
            channel.watch(self.table, [start, f"{TAG_PREFIX}{start}"] if start else [""])

    def _get(self, storage_key: str) -> Any:
        value = self.table.get(storage_key)
        return run(self._read([storage_key])).get(storage_key, MISSING) if value is MISSING else value

    async def _aget(self, storage_key: str) -> Any:
        value = self.table.get(storage_key)
        return (await arun(self._read([storage_key]))).get(storage_key, MISSING) if value is MISSING else value

    def get_many(self, storage_keys: Sequence[str]) -> Steps[dict[str, Any]]:
        """See StorageHooks._get_many()."""
        found = {storage_key: self.table.get(storage_key) for storage_key in storage_keys}
        missing = [storage_key for storage_key, value in found.items() if value is MISSING]
        if missing:
            found |= yield from self._read(missing)
        return {storage_key: value for storage_key, value in found.items() if value is not MISSING}

    def has(self, storage_key: str) -> Steps[Any]:
        """See StorageHooks._has()."""
        value = self.table.get(storage_key)
        if value is MISSING:
            return (yield self._below, "_has", (storage_key,))
        return LOOK if type(value) is Envelope else True

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

    set = _changing("set", first)
    set_many = _changing("set_many", every)
    add = _changing("add", first)
    delete = _changing("delete", first)
    delete_many = _changing("delete_many", every)
    touch = _changing("touch", first)
    incr = _changing("incr", first)
    count = _changing("count", first)
    rename = _changing("rename", first_two)
    lease = _changing("lease", first)
    lease_many = _changing("lease_many", every)
    swap_many = _changing("swap_many", every)
    compare_set = _changing("compare_set", first)
    compare_delete = _changing("compare_delete", first)
    invalidate = _changing("invalidate", every)

    def clear(self) -> Steps[None]:
        """See StorageHooks._clear()."""
        self._attend()
        try:
            yield self._below, "_clear", ()
        finally:
            yield from self._drop_all()

    def _drop(self, storage_keys: Iterable[str]) -> Steps[None]:
        """Forget these entries: they have changed."""
        self.table.drop(storage_keys)
        yield from ()

    def _drop_all(self) -> Steps[None]:
        """Forget all entries."""
        self.table.drop_all()
        yield from ()
