"""A tier between the nearest and the storage, such as the files that a machine's processes share.

Many fill it, and each hears of changes for itself alone, so that nobody vouches for what
another has put there. Hence its entries are bounded by time, whatever tells of changes: none
lives longer than the bound after the read that it came from. Nor do those of the tiers
before it, which go by the expiry that they find here.
"""

import contextlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, TypeAlias

from storeroom import timeouts
from storeroom.exceptions import StoreroomError
from storeroom.near import NearHooks, NearTable, Ticket, Tolerance
from storeroom.storage.channel import Channel
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING, StorageHooks
from storeroom.storage.steps import Steps, arun, run

__all__ = ["MiddleTier"]

Dated: TypeAlias = dict[str, tuple[Any, float | None]]
"""Storage key to value and expires_at."""


class MiddleTier(NearHooks):
    """The hooks of a storage behind a tier.

    Args:
        tier: the tier's hooks.
        far: the storage's hooks, or those of what stands before it.
        max_staleness: seconds for which an entry of the tier may differ from the storage.
    """

    def __init__(self, tier: StorageHooks, far: StorageHooks, max_staleness: float) -> None:
        self._tier, self._far, self._bound = tier, far, max_staleness
        # It keeps nothing itself, but gives out the tickets.
        self._near = NearTable(Tolerance(0, None, None, copy=True, max_staleness=max_staleness))
        # What the storage says of itself holds of both.
        self.async_inline = far.async_inline
        self.is_shared = far.is_shared
        self.sees_envelopes = far.sees_envelopes

    def _attend(self) -> None:
        """Leave it to the tier before."""

    def _channel(self) -> Channel | None:
        return self._far._channel()

    # Reading --------------------------------------------------------------------------------

    def _dated(self, storage_keys: Sequence[str]) -> Steps[Dated]:
        """Read from the tier, and what is not there from the storage."""
        found: Dated = yield self._tier, "_get_dated", (storage_keys,)
        now = timeouts.now()
        # An expiry that nobody knows is one that no other tier must rely on.
        found = {key: (value, now if expires_at is None else expires_at) for key, (value, expires_at) in found.items()}
        missing = [storage_key for storage_key in storage_keys if storage_key not in found]
        if not missing:
            return found
        ticket = self._near.begin(missing)
        try:
            read: Dated = yield self._far, "_get_dated", (missing,)
            bound = ticket.begun + self._bound
            read = {
                key: (value, bound if expires_at is None else min(expires_at, bound))
                for key, (value, expires_at) in read.items()
            }
            yield from self._keep(ticket, read)
        finally:
            self._near.end(ticket)
        return found | read

    def _keep(self, ticket: Ticket, read: Dated) -> Steps[None]:
        """Put into the tier what was read, but for what has changed since."""
        now, by_expiry = timeouts.now(), defaultdict[float, dict[str, Any]](dict)
        for key, (value, expires_at) in read.items():
            is_leased = type(value) is Envelope and value.leased_until > now
            if expires_at is not None and expires_at > now and not is_leased and self._near.is_good(ticket, key):
                by_expiry[expires_at][key] = value
        with contextlib.suppress(StoreroomError):  # what the tier cannot hold is read from the storage again
            for expires_at, values in by_expiry.items():
                yield self._tier, "_set_many", (values, expires_at)
        changed = [key for key in read if not self._near.is_good(ticket, key)]
        if changed:
            yield self._tier, "_delete_many", (changed,)

    def _values(self, storage_keys: Sequence[str]) -> Steps[dict[str, Any]]:
        return {key: value for key, (value, _) in (yield from self._dated(storage_keys)).items()}

    def _get_dated(self, storage_keys: Sequence[str]) -> Dated:
        return run(self._dated(storage_keys))

    async def _aget_dated(self, storage_keys: Sequence[str]) -> Dated:
        return await arun(self._dated(storage_keys))

    def _get_many(self, storage_keys: Sequence[str]) -> dict[str, Any]:
        return run(self._values(storage_keys))

    async def _aget_many(self, storage_keys: Sequence[str]) -> dict[str, Any]:
        return await arun(self._values(storage_keys))

    def _get(self, storage_key: str) -> Any:
        return self._get_many([storage_key]).get(storage_key, MISSING)

    async def _aget(self, storage_key: str) -> Any:
        return (await self._aget_many([storage_key])).get(storage_key, MISSING)

    def _has(self, storage_key: str) -> Any:
        return self._far._has(storage_key)

    async def _ahas(self, storage_key: str) -> Any:
        return await self._far._ahas(storage_key)

    # Writing --------------------------------------------------------------------------------

    def _drop(self, storage_keys: Sequence[str]) -> None:
        super()._drop(storage_keys)
        self._tier._delete_many(storage_keys)

    async def _adrop(self, storage_keys: Sequence[str]) -> None:
        super()._drop(storage_keys)
        await self._tier._adelete_many(storage_keys)

    def _drop_all(self) -> None:
        super()._drop_all()
        self._tier._clear()

    async def _adrop_all(self) -> None:
        super()._drop_all()
        await self._tier._aclear()
