"""The hooks of a cache within a unit of work: writes are held back, and reads see them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

from storeroom.engines.flights import Flights
from storeroom.storage.copies import alike
from storeroom.storage.counters import numeric
from storeroom.storage.envelope import Envelope, placeholder
from storeroom.storage.hooks import ABSENT, LOOK, MISSING, StorageHooks, Swap, swapped
from storeroom.storage.overlay import Overlay
from storeroom.storage.steps import Steps
from storeroom.storage.tags import TAG_PREFIX
from storeroom.timeouts import NEVER
from storeroom.transactions.changes import Change, Kind, Unit, View

__all__ = ["TransactionOverlay"]


class TransactionOverlay(Overlay):
    """A unit of work before the hooks of a handle.

    Three changes do go to the storage at once, and tell nobody anything: the *fence* that a computation leaves in an
    entry, to notice whether anybody touches that before the commit; a tag's first version; and a longer life for one.
    """

    def __init__(self, handle: Any, below: StorageHooks, unit: Unit) -> None:
        super().__init__(handle, below)
        self._unit, self._storage = unit, handle.engine
        # Nobody else computes with this unit's changes, and envelopes are judged by them, too.
        self.is_shared = False
        self.sees_envelopes = False

    @property
    def is_open(self) -> bool:
        """Whether the unit of work has not been committed."""
        return self._unit.is_open

    @property
    def flights(self) -> Flights:
        """Those of this unit of work: nobody else is to wait for values that depend on its changes."""
        return self._unit.flights(self._storage)

    def _computing(self) -> StorageHooks:
        return TransactionOverlay(self._handle, self._below._computing(), self._unit)

    def _view(self, storage_key: str) -> View:
        return self._unit.view(self._slot(storage_key))

    def _change(self, kind: Kind, **attributes: Any) -> Change:
        return Change(kind, self._below, self._handle, **attributes)

    def _record(self, storage_key: str, make: Callable[[Change | None], Change | None]) -> None:
        self._unit.record(self._slot(storage_key), make)

    def _hold(self, storage_key: str, value: Any, expires_at: float, kind: Kind = Kind.SET) -> None:
        """Hold a value back that was written. An entry that this segment has removed is replaced, not added."""
        frozen = self._freeze(storage_key, value)
        self._record(
            storage_key,
            lambda before: self._change(Kind.SET if before else kind, frozen=frozen, expires_at=expires_at),
        )

    def _remove(self, storage_keys: Sequence[str], kind: Kind = Kind.DELETE) -> None:
        for storage_key in storage_keys:
            self._record(storage_key, lambda _: self._change(kind))

    def get(self, storage_key: str) -> Steps[Any]:
        """See StorageHooks._get()."""
        return (yield from self.get_many([storage_key])).get(storage_key, MISSING)

    def get_many(self, storage_keys: Sequence[str]) -> Steps[dict[str, Any]]:
        """See StorageHooks._get_many()."""
        views = {storage_key: self._view(storage_key) for storage_key in storage_keys}
        asked = [storage_key for storage_key, view in views.items() if view.is_below]
        found: dict[str, Any] = {}
        if len(asked) == 1:  # some storages have a shorter way
            found = {asked[0]: (yield self._below, "_get", (asked[0],))}
        elif asked:
            found = yield self._below, "_get_many", (asked,)
        values = {key: view.value(key, found.get(key, MISSING)) for key, view in views.items()}
        return {storage_key: value for storage_key, value in values.items() if value is not MISSING}

    def sight(self, storage_key: str) -> Steps[list[Any]]:
        """See StorageHooks._sight()."""
        sightings, view = import_module("storeroom.storage.sightings"), self._view(storage_key)
        own = sightings.Sighting("transaction")
        if not view.is_below:
            value = view.value(storage_key)
            own = replace(own, value=value, is_there=True, expires_at=view.expiry)
            if value is MISSING:
                own = sightings.Sighting("transaction", note="this transaction has removed it", is_final=True)
        return [own, *(yield from sightings.sighted(self._below, storage_key))]

    def has(self, storage_key: str) -> Steps[bool]:
        """See StorageHooks._has()."""
        return (yield from self.get(storage_key)) is not MISSING

    def expiry(self, storage_key: str) -> Steps[Any]:
        """See StorageHooks._expiry()."""
        view = self._view(storage_key)
        if view.is_below and view.expires_at is None:
            return (yield self._below, "_expiry", (storage_key,))
        if (yield from self.get(storage_key)) is MISSING:
            return None
        return view.expiry

    def scan(self, start: str) -> Steps[list[str]]:
        """See StorageHooks._scan()."""
        found = yield self._below, "_scan", (start,)
        keys = {str(storage_key): None for storage_key in found if self._view(storage_key).is_below}
        for storage, storage_key in self._unit.slots():
            if storage is self._storage and storage_key.startswith(start):
                view = self._view(storage_key)
                if not view.is_below and view.value(storage_key) is not MISSING:
                    keys[storage_key] = None
        return list(keys)

    def tally(self, _start: str) -> Steps[None]:
        """See StorageHooks._tally(): the storage does not know this unit's changes."""
        yield from ()

    def set(self, storage_key: str, value: Any, expires_at: float) -> Steps[bool]:
        """See StorageHooks._set()."""
        return not (yield from self.set_many({storage_key: value}, expires_at))

    def set_many(self, values: Mapping[str, Any], expires_at: float) -> Steps[Sequence[str]]:
        """See StorageHooks._set_many()."""
        yield from ()
        for storage_key, value in values.items():
            self._hold(storage_key, value, expires_at)
        return []

    def add(self, storage_key: str, value: Any, expires_at: float) -> Steps[Any]:
        """See StorageHooks._add()."""
        if storage_key.startswith(TAG_PREFIX) and self._view(storage_key).is_below:
            return (yield self._below, "_add", (storage_key, value, expires_at))
        if (yield from self.get(storage_key)) is not MISSING:
            return False
        self._hold(storage_key, value, expires_at, Kind.ADD)
        return True

    def delete(self, storage_key: str) -> Steps[bool]:
        """See StorageHooks._delete()."""
        return (yield from self.delete_many([storage_key])) > 0

    def delete_many(self, storage_keys: Sequence[str], kind: Kind = Kind.DELETE) -> Steps[int]:
        """See StorageHooks._delete_many()."""
        found = yield from self.get_many(storage_keys)
        self._remove(storage_keys, kind)
        return sum(type(value) is not Envelope or value.is_fresh for value in found.values())

    def invalidate(self, storage_keys: Sequence[str]) -> Steps[int]:
        """See StorageHooks._invalidate()."""
        return (yield from self.delete_many(storage_keys, Kind.INVALIDATE))

    def clear(self) -> Steps[None]:
        """See StorageHooks._clear()."""
        yield from ()
        with self._unit.lock:
            self._unit.begin(clears=self._change(Kind.DELETE, expected=self._handle._key_space))

    def touch(self, storage_key: str, expires_at: float) -> Steps[Any]:
        """See StorageHooks._touch()."""
        if (yield from self.get(storage_key)) is MISSING:
            return False

        amended = self._change(Kind.AMEND, expires_at=expires_at)
        self._record(storage_key, lambda before: replace(before, expires_at=expires_at) if before else amended)
        return True

    def incr(self, storage_key: str, delta: float) -> Steps[float]:
        """See StorageHooks._incr()."""
        number = numeric(storage_key, (yield from self.get(storage_key)))

        def make(before: Change | None) -> Change:
            if before is None:
                return self._change(Kind.AMEND, expires_at=None, delta=delta)
            if before.kind in (Kind.AMEND, Kind.COUNT):
                return replace(before, delta=before.delta + delta)
            return replace(before, frozen=self._freeze(storage_key, before.value(storage_key) + delta))

        self._record(storage_key, make)
        return number + delta

    def count(self, storage_key: str, delta: float, start: float, expires_at: float) -> Steps[float | None]:
        """See StorageHooks._count()."""
        if (yield from self.get(storage_key)) is not MISSING:
            return (yield from self.incr(storage_key, delta))
        if self._view(storage_key).is_below:
            created = self._change(Kind.COUNT, delta=delta, start=start, expires_at=expires_at)
            self._record(storage_key, lambda _: created)
        else:
            self._hold(storage_key, start + delta, expires_at)
        return start + delta

    def rename(self, storage_key: str, new_storage_key: str) -> Steps[Any]:
        """See StorageHooks._rename()."""
        value = yield from self.get(storage_key)
        if value is MISSING:
            return False
        if type(value) is Envelope:
            return LOOK
        expires_at = yield from self.expiry(storage_key)
        self._hold(new_storage_key, value, NEVER if expires_at is None or expires_at is LOOK else expires_at)
        self._remove([storage_key])
        return True

    def compare_set(self, storage_key: str, expected: Any, value: Any, expires_at: float) -> Steps[bool]:
        """See StorageHooks._compare_set()."""
        view = self._view(storage_key)
        if view.is_below and storage_key.startswith(TAG_PREFIX):
            return bool((yield self._below, "_compare_set", (storage_key, expected, value, expires_at)))
        if not alike((yield from self.get(storage_key)), expected):
            return False
        frozen, held = self._freeze(storage_key, value), view.change

        def make(before: Change | None) -> Change:
            kept = before or held
            if kept is None:
                return self._change(Kind.SWAP, frozen=frozen, expires_at=expires_at, expected=expected)
            if before is None and kept.kind is not Kind.COMPUTED:
                return self._change(Kind.SET, frozen=frozen, expires_at=expires_at)
            return replace(kept, frozen=frozen, expires_at=expires_at)

        self._record(storage_key, make)
        return True

    def compare_delete(self, storage_key: str, expected: Any) -> Steps[bool]:
        """See StorageHooks._compare_delete()."""
        if not alike((yield from self.get(storage_key)), expected):
            return False
        held = self._view(storage_key).change
        if held is None or held.kind is not Kind.COMPUTED:
            self._remove([storage_key])
            return True
        self._record(storage_key, lambda before: before.under if before else self._change(Kind.DELETE))
        if held.expected is not None and not held.expected.has_value:
            yield self._below, "_compare_delete", (storage_key, held.expected)
        return True

    def lease(self, storage_key: str, seen: Any, lease: Any, expires_at: float) -> Steps[bool]:
        """See StorageHooks._lease()."""
        swap = Swap(ABSENT if seen is MISSING else seen, lease, expires_at)
        yield from self.lease_many({storage_key: swap})
        return True

    def lease_many(self, swaps: Mapping[str, Swap]) -> Steps[dict[str, bool | None]]:
        """See StorageHooks._lease_many(): this unit of work computes for itself, and leaves fences."""
        fences = {
            storage_key: swap._replace(value=_fence(swap.expected))
            for storage_key, swap in swaps.items()
            if self._view(storage_key).is_below
        }
        fenced = (yield self._below, "_swap_many", (fences,)) if fences else {}
        for storage_key, swap in swaps.items():
            fence = fences[storage_key].value if fenced.get(storage_key) else None
            self._hold_computed(storage_key, swap, fence)
        return dict.fromkeys(swaps, True)

    def _hold_computed(self, storage_key: str, swap: Swap, fence: Envelope | None) -> None:
        frozen = self._freeze(storage_key, swap.value)

        def make(before: Change | None) -> Change:
            under = before.under if before and before.kind is Kind.COMPUTED else before
            return self._change(Kind.COMPUTED, frozen=frozen, expires_at=swap.expires_at, expected=fence, under=under)

        self._record(storage_key, make)

    def swap_many(self, swaps: Mapping[str, Swap]) -> Steps[dict[str, bool]]:
        """See StorageHooks._swap_many()."""
        done = {}
        for storage_key, swap in swaps.items():
            done[storage_key] = yield from swapped(self, storage_key, swap)
        return done


def _fence(expected: Any) -> Envelope:
    """Return the fence to leave in an entry, which others see as it was before."""
    return expected.leased(0.0) if type(expected) is Envelope else placeholder(0.0)
