"""The overlay that notes what goes by."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from storeroom.recording.recorder import MASK, Recorder, has_value, recorder_of
from storeroom.storage.hooks import LOOK, MISSING, StorageHooks, Swap
from storeroom.storage.overlay import Overlay, every, first
from storeroom.storage.steps import Steps

__all__ = ["RecordingOverlay"]


class RecordingOverlay(Overlay):
    """Hooks that note what is read, written and removed, over all that answer by themselves."""

    @property
    def below(self) -> StorageHooks | None:
        """The overlay that is below this one; None if that is the handle."""
        return None if self._below is self._handle else self._below

    @cached_property
    def recorder(self) -> Recorder:
        """That of the handle's engine."""
        return recorder_of(self._handle)

    def tiers(self) -> Any:
        """Return the counts of a near tier below, if there is one."""
        below: Any = self.below
        return {} if below is None else below.tiers()

    def _get(self, storage_key: str) -> Any:
        value = self._below._get(storage_key)
        if hash(storage_key) & MASK < self.recorder.limit:
            self.recorder.note("read", storage_key, value)
        return value

    async def _aget(self, storage_key: str) -> Any:
        value = await self._below._aget(storage_key)
        if hash(storage_key) & MASK < self.recorder.limit:
            self.recorder.note("read", storage_key, value)
        return value

    # By hand, as _get(): the others pay for the tests of a change.

    def _set(self, storage_key: str, value: Any, expires_at: float) -> bool:
        stored = self._below._set(storage_key, value, expires_at)
        if stored and hash(storage_key) & MASK < self.recorder.limit and has_value(value):
            self.recorder.note("write", storage_key, expires_at)
        return stored

    async def _aset(self, storage_key: str, value: Any, expires_at: float) -> bool:
        stored = await self._below._aset(storage_key, value, expires_at)
        if stored and hash(storage_key) & MASK < self.recorder.limit and has_value(value):
            self.recorder.note("write", storage_key, expires_at)
        return stored

    def get_many(self, storage_keys: Sequence[str]) -> Steps[dict[str, Any]]:
        """See StorageHooks._get_many()."""
        found: dict[str, Any] = yield self._below, "_get_many", (storage_keys,)
        limit, note = self.recorder.limit, self.recorder.note
        for storage_key in storage_keys:
            if hash(storage_key) & MASK < limit:
                note("read", storage_key, found.get(storage_key, MISSING))
        return found

    def swap_many(self, swaps: Mapping[str, Swap]) -> Steps[dict[str, bool]]:
        """See StorageHooks._swap_many()."""
        done: dict[str, bool] = yield self._below, "_swap_many", (swaps,)
        for storage_key, swap in swaps.items():
            if done.get(storage_key) and has_value(swap.value):
                self._note("write" if swap.value is not MISSING else None, [storage_key], swap.expires_at)
        return done

    def _note(self, operation: str | None, storage_keys: Iterable[str], expires_at: Any) -> None:
        for storage_key in storage_keys:
            if hash(storage_key) & MASK < self.recorder.limit:
                self.recorder.note(operation, storage_key, expires_at)


def _change(name: str, operation: str | None, keys_of: Callable[..., Sequence[str]]) -> None:
    """Note a hook's change once it is made: its last two arguments are what it writes, and the expiry of that."""
    hook, twin = f"_{name}", f"_a{name}"

    def is_made(done: Any, args: Sequence[Any]) -> bool:
        return done is not False and done is not LOOK and (operation is None or has_value(args[-2]))

    def change(self: RecordingOverlay, *args: Any) -> Any:
        done = getattr(self._below, hook)(*args)
        if is_made(done, args):
            self._note(operation, keys_of(*args), args[-1])
        return done

    async def achange(self: RecordingOverlay, *args: Any) -> Any:
        done = await getattr(self._below, twin)(*args)
        if is_made(done, args):
            self._note(operation, keys_of(*args), args[-1])
        return done

    setattr(RecordingOverlay, hook, change)
    setattr(RecordingOverlay, twin, achange)


for _name in ("add", "compare_set"):
    _change(_name, "write", first)
_change("set_many", "write", every)
_change("delete", None, first)
_change("delete_many", None, every)
