"""Operations on an entry that has conditions, which no storage can judge by itself.

Where a hook answers LOOK, or cannot tell envelopes from other values, the entry is read, and judged by its own time and
its tags' versions. The change is a compare-and-set: another writer who comes in between wins.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import LOOK, MISSING, StorageHooks
from storeroom.storage.steps import Steps
from storeroom.storage.tags import are_current, live_envelopes, prolong

__all__ = ["add_over", "expiry", "has", "is_live", "live_keys", "move", "open_many", "opened", "touch"]

_BATCH: Final = 1000

TRIES: Final = 100
"""Attempts while others come in between: more means that the storage cannot compare, or keeps nothing."""


def is_live(hooks: StorageHooks, envelope: Envelope) -> Steps[bool]:
    """Tell whether an envelope counts as present."""
    return envelope.is_fresh and (yield from are_current(hooks, envelope))


def opened(hooks: StorageHooks, found: Any) -> Steps[Any]:
    """Return the value that was read, out of its envelope: MISSING if that is not live."""
    if type(found) is not Envelope:
        return found
    if not found.is_fresh or (found.tags and not (yield from are_current(hooks, found))):
        return MISSING
    return found.value


def open_many(hooks: StorageHooks, found: dict[str, Any]) -> Steps[dict[str, Any]]:
    """Return the values that were read, without those that are not live."""
    envelopes = {key: value for key, value in found.items() if type(value) is Envelope}
    fresh = [envelope for envelope in envelopes.values() if envelope.is_fresh]
    live = set((yield from live_envelopes(hooks, fresh)))
    return {
        key: value.value if key in envelopes else value
        for key, value in found.items()
        if key not in envelopes or value in live
    }


def add_over(hooks: StorageHooks, storage_key: str, value: Any, expires_at: float) -> Steps[bool]:
    """See StorageHooks._add(), which has found an entry: store the value if that is not live."""
    found = yield hooks, "_get", (storage_key,)
    if found is MISSING:
        return (yield hooks, "_add", (storage_key, value, expires_at)) is True
    if type(found) is not Envelope or (yield from is_live(hooks, found)):
        return False
    return bool((yield hooks, "_compare_set", (storage_key, found, value, expires_at)))


def has(hooks: StorageHooks, storage_key: str, there: Any = LOOK) -> Steps[bool]:
    """See StorageHooks._has(), whose answer this is, for an entry that has to be looked at to know."""
    if type(there) is Envelope:
        return (yield from is_live(hooks, there))
    if there is not LOOK:
        return bool(there)
    found = yield hooks, "_get", (storage_key,)
    return (yield from opened(hooks, found)) is not MISSING


def touch(hooks: StorageHooks, storage_key: str, expires_at: float, touched: Any = LOOK) -> Steps[bool]:
    """See StorageHooks._touch(), whose answer this is, for an entry that has to be looked at to know."""
    if touched is not LOOK and type(touched) is not Envelope:
        return bool(touched)

    def renew(found: Envelope) -> Steps[Any]:
        renewed = found.until(expires_at)
        yield from prolong(hooks, found, renewed.kept_until)
        return (yield hooks, "_compare_set", (storage_key, found, renewed, renewed.kept_until)) or LOOK

    if type(touched) is Envelope:
        if not (yield from is_live(hooks, touched)):
            return False
        if (yield from renew(touched)) is not LOOK:
            return True
    return bool((yield from _judged(hooks, "_touch", (storage_key, expires_at), renew)))


def move(hooks: StorageHooks, storage_key: str, new_storage_key: str) -> Steps[bool]:
    """See StorageHooks._rename(): others may find an envelope under both keys for a moment, and never under none."""
    if hooks.sees_envelopes and (moved := (yield hooks, "_rename", (storage_key, new_storage_key))) is not LOOK:
        return bool(moved)

    def rename(found: Envelope) -> Steps[Any]:
        yield hooks, "_set", (new_storage_key, found, found.kept_until)
        if (yield hooks, "_compare_delete", (storage_key, found)):
            return True
        yield hooks, "_compare_delete", (new_storage_key, found)
        return LOOK

    return bool((yield from _judged(hooks, "_rename", (storage_key, new_storage_key), rename)))


def expiry(hooks: StorageHooks, storage_key: str, expires_at: Any = LOOK) -> Steps[Any]:
    """See StorageHooks._expiry(), whose answer this is, for an entry that has to be looked at to know."""
    if type(expires_at) is Envelope:
        return expires_at.fresh_until if (yield from is_live(hooks, expires_at)) else None
    if expires_at is not LOOK:
        return expires_at

    def tell(found: Envelope) -> Steps[float]:
        yield from ()
        return found.fresh_until

    return (yield from _judged(hooks, "_expiry", (storage_key,), tell))


def _judged(
    hooks: StorageHooks, hook: str, args: tuple[Any, ...], change: Callable[[Envelope], Steps[Any]]
) -> Steps[Any]:
    """Return the hook's answer for a bare entry, or that of `change` for a live envelope; None if there is neither.

    Both may answer LOOK: another writer came in between.
    """
    for _ in range(TRIES):
        found = yield hooks, "_get", (args[0],)
        if found is MISSING:
            return None
        if type(found) is not Envelope:
            answer = yield hooks, hook, args
        elif (yield from is_live(hooks, found)):
            answer = yield from change(found)
        else:
            return None
        if answer is not LOOK and type(answer) is not Envelope:
            return answer
    return None


def live_keys(hooks: StorageHooks, storage_keys: Sequence[str]) -> Steps[set[str]]:
    """Return those of some storage keys whose entries are live: one read for every thousand of them."""
    live: set[str] = set()
    for start in range(0, len(storage_keys), _BATCH):
        found = yield hooks, "_get_many", (storage_keys[start : start + _BATCH],)
        live.update((yield from open_many(hooks, found)))
    return live
