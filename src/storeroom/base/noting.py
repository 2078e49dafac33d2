"""Removals and writes of this process at a storage that others change, too, noted for explain().

The overlay lies over the storage's own hooks, below all others. It is there for ``OPTIONS["removals"]`` alone, and not
where the engine itself sees what it removes.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from storeroom.engines.remembered import DELETED, Remembered
from storeroom.engines.stats import CacheStats
from storeroom.keys import TAG_PREFIX
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING, Swap
from storeroom.storage.overlay import Overlay
from storeroom.storage.steps import Steps

__all__ = ["NotingOverlay"]

_Note: TypeAlias = Callable[..., None]
"""Called with the memory, the result of a hook, and its arguments."""


def _noted(name: str, note: _Note) -> Callable[..., Steps[Any]]:
    """Return a hook that is carried out below, and noted then."""

    def steps(self: "NotingOverlay", *args: Any) -> Steps[Any]:
        result = yield self._below, f"_{name}", args
        note(self.engine.remember(self._handle._remembers), result, *args)
        return result

    return steps


def _written(memory: Remembered, storage_key: str, value: Any, expires_at: float) -> None:
    if storage_key.startswith(TAG_PREFIX):
        return
    if type(value) is not Envelope:
        memory.note_write(storage_key, expires_at)
    elif value.has_value:  # else it is a lease
        memory.note_write(storage_key, value.fresh_until)


def _removed(memory: Remembered, storage_keys: Iterable[str]) -> None:
    for storage_key in storage_keys:
        memory.note(storage_key, DELETED)


def _stored(memory: Remembered, result: Any, *args: Any) -> None:
    if result is True:
        _written(memory, args[0], *args[-2:])


def _set_many(memory: Remembered, failed: Iterable[str], values: Mapping[str, Any], expires_at: float) -> None:
    for storage_key in values.keys() - set(failed):
        _written(memory, storage_key, values[storage_key], expires_at)


def _touch(memory: Remembered, result: Any, storage_key: str, expires_at: float) -> None:
    if result is True:
        memory.note_write(storage_key, expires_at)


def _swapped(memory: Remembered, result: Any, storage_key: str, expected: Any) -> None:
    if result and not (type(expected) is Envelope and not expected.has_value):
        _removed(memory, [storage_key])


def _swap_many(memory: Remembered, result: Mapping[str, bool], swaps: Mapping[str, Swap]) -> None:
    for storage_key, (expected, value, expires_at) in swaps.items():
        if value is MISSING:
            _swapped(memory, result.get(storage_key), storage_key, expected)
        else:
            _stored(memory, bool(result.get(storage_key)), storage_key, value, expires_at)


class NotingOverlay(Overlay):
    """The memory of removals before the hooks of a handle."""

    # By hand, as steps would take a tenth of a set() on a server nearby.

    def _set(self, storage_key: str, value: Any, expires_at: float) -> bool:
        stored = self._below._set(storage_key, value, expires_at)
        if stored is True:
            _written(self.engine.remember(self._handle._remembers), storage_key, value, expires_at)
        return stored

    async def _aset(self, storage_key: str, value: Any, expires_at: float) -> bool:
        stored = await self._below._aset(storage_key, value, expires_at)
        if stored is True:
            _written(self.engine.remember(self._handle._remembers), storage_key, value, expires_at)
        return stored

    add = _noted("add", _stored)
    compare_set = _noted("compare_set", _stored)
    set_many = _noted("set_many", _set_many)
    delete = _noted("delete", lambda memory, result, key: _removed(memory, [key] if result else ()))
    delete_many = _noted("delete_many", lambda memory, count, keys: _removed(memory, keys if count else ()))
    invalidate = _noted("invalidate", lambda memory, _, keys: _removed(memory, keys))
    touch = _noted("touch", _touch)
    compare_delete = _noted("compare_delete", _swapped)
    swap_many = _noted("swap_many", _swap_many)

    def clear(self) -> Steps[None]:
        """See StorageHooks._clear()."""
        yield self._below, "_clear", ()
        self.engine.remember(self._handle._remembers).note_clear(self._handle._key_space.owns)

    def tiers(self) -> dict[str, CacheStats]:
        """Return the counts of each tier: there is but one."""
        return {}
