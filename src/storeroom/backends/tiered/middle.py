"""A tier between the nearest and the storage, such as the files that a machine's processes share.

Many processes fill it, and each hears of changes for itself alone: nobody vouches for another's entries. So none lives
longer than the bound after the read that it came from, nor do those of the tiers before it, which go by its expiry.
"""

import contextlib
from collections import defaultdict
from collections.abc import Sequence
from importlib import import_module
from typing import Any, TypeAlias

from storeroom import timeouts
from storeroom.exceptions import StoreroomError
from storeroom.near import NearOverlay, NearTable, Ticket, Tolerance
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING, StorageHooks
from storeroom.storage.overlay import Relay
from storeroom.storage.steps import Steps

__all__ = ["MiddleTier"]

Dated: TypeAlias = dict[str, tuple[Any, float | None]]
"""Storage key to value and expires_at."""


class MiddleTier(NearOverlay):
    """A tier over the hooks of a storage, or of the tier before it; an entry may differ for `max_staleness` seconds."""

    def __init__(self, handle: Any, tier: StorageHooks, below: StorageHooks, max_staleness: float) -> None:
        # The table keeps nothing itself, but gives out the tickets.
        tickets = NearTable(Tolerance(0, None, None, copy=True, max_staleness=max_staleness, max_tags=0))
        super().__init__(handle, below, lambda: tickets)
        self._tier, self._bound = tier, max_staleness

    def _attend(self) -> None:
        """Leave it to the nearer tier."""

    def get_dated(self, storage_keys: Sequence[str]) -> Steps[Dated]:
        """Read from the tier, and missing entries from the storage: see StorageHooks._get_dated()."""
        found: Dated = yield self._tier, "_get_dated", (storage_keys,)
        now = timeouts.now()
        # An expiry that nobody knows is one that no other tier must rely on.
        found = {key: (value, now if expires_at is None else expires_at) for key, (value, expires_at) in found.items()}
        missing = [storage_key for storage_key in storage_keys if storage_key not in found]
        if not missing:
            return found
        ticket = self.table.begin(missing)
        try:
            read: Dated = yield self._below, "_get_dated", (missing,)
            bound = ticket.begun + self._bound
            read = {
                key: (value, bound if expires_at is None else min(expires_at, bound))
                for key, (value, expires_at) in read.items()
            }
            yield from self._keep(ticket, read)
        finally:
            self.table.end(ticket)
        return found | read

    def _keep(self, ticket: Ticket, read: Dated) -> Steps[None]:
        """Put the entries read into the tier, but for those that have changed since."""
        now, by_expiry = timeouts.now(), defaultdict[float, dict[str, Any]](dict)
        for key, (value, expires_at) in read.items():
            is_leased = type(value) is Envelope and value.leased_until > now
            if expires_at is not None and expires_at > now and not is_leased and self.table.is_good(ticket, key):
                by_expiry[expires_at][key] = value
        with contextlib.suppress(StoreroomError):  # entries that the tier cannot hold are read from the storage again
            for expires_at, values in by_expiry.items():
                yield self._tier, "_set_many", (values, expires_at)
        changed = [key for key in read if not self.table.is_good(ticket, key)]
        if changed:
            yield self._tier, "_delete_many", (changed,)

    def sight(self, storage_key: str) -> Steps[list[Any]]:
        """See StorageHooks._sight()."""
        sighted = import_module("storeroom.storage.sightings").sighted
        own = yield from sighted(self._tier, storage_key)
        return [*own, *(yield from sighted(self._below, storage_key))]

    def get_many(self, storage_keys: Sequence[str]) -> Steps[dict[str, Any]]:
        """See StorageHooks._get_many()."""
        return {key: value for key, (value, _) in (yield from self.get_dated(storage_keys)).items()}

    def get(self, storage_key: str) -> Steps[Any]:
        """See StorageHooks._get()."""
        return (yield from self.get_many([storage_key])).get(storage_key, MISSING)

    # The storage knows by itself.
    _has, _ahas = Relay._has, Relay._ahas

    def _drop(self, storage_keys: Sequence[str]) -> None:
        super()._drop(storage_keys)
        self._tier._delete_many(storage_keys)

    async def _adrop(self, storage_keys: Sequence[str]) -> None:
        super()._drop(storage_keys)
        await self._tier._adelete_many(storage_keys)

    def clear(self) -> Steps[None]:
        """See StorageHooks._clear()."""
        try:
            yield self._below, "_clear", ()
        finally:
            self.table.drop_all()
            yield self._tier, "_clear", ()
