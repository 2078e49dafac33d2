"""The computation of one key, for get_or_set() and refresh()."""

from collections.abc import Sequence
from typing import Any, Final

from storeroom.computing.leases import Lease, over
from storeroom.computing.work import Function, Terms, Work
from storeroom.engines.counts import Counters
from storeroom.engines.flights import Flight
from storeroom.storage import conditions
from storeroom.storage.envelope import placeholder
from storeroom.storage.hooks import ABSENT, MISSING, StorageHooks, swapped
from storeroom.storage.steps import Steps
from storeroom.timeouts import AT_ONCE

__all__ = ["Computation"]

_TRIES: Final = 3
"""Comparisons of seize_lease(): others may come in between, but not for ever."""


class Computation(Work):
    """The computation of one key, whose lease it has."""

    def __init__(self, hooks: StorageHooks, counters: Counters, terms: Terms, key: str, function: Function) -> None:
        super().__init__(hooks, counters, terms, [key])
        self.key, self._function = key, function
        self.lease = Lease()
        self._is_anew = False

    def read(self) -> Steps[dict[str, Any]]:
        """Return the value if it is stored and fresh."""
        lease = self.lease
        lease.found = found = yield self.hooks, "_get", (self.key,)
        if lease.replaces is not None and found == lease.replaces:
            return {}
        value = yield from conditions.opened(self.hooks, found)
        return {} if value is MISSING else {self.key: value}

    def take_leases(self, until: float) -> Steps[Sequence[str]]:
        """Put the lease into the entry, unless another leader has one there, or somebody has stored a value."""
        swap = self.lease.taking(until, is_shared=self.hooks.is_shared)
        if swap is None:
            return []
        if swap.expected is MISSING:
            leased = yield from swapped(self.hooks, self.key, swap)
        else:
            seen = MISSING if swap.expected is ABSENT else swap.expected
            leased = yield self.hooks, "_lease", (self.key, seen, swap.value, swap.expires_at)
        if not leased:
            self.lease.refused()
        return [] if leased is False else [self.key]

    def seize_lease(self, until: float) -> Steps[None]:
        """Put the lease into the entry, whoever else has one there; a value in it is served meanwhile.

        The caller gets the value that it computes, also where that cannot be stored.
        """
        self._is_anew = True
        for _ in range(_TRIES):
            self.lease.found = found = yield self.hooks, "_get", (self.key,)
            envelope = yield from over(self.hooks, self.key, found, until)
            if envelope is None:
                continue
            leased = yield self.hooks, "_lease", (self.key, found, envelope, envelope.kept_until)
            if leased is not False:
                self.lease.held = envelope if leased else None
                return
        # A value that does not equal its own copy cannot be compared and set: others wait for the new one, then.
        self.lease.held = envelope = placeholder(until)
        yield self.hooks, "_set", (self.key, envelope, envelope.kept_until)

    def withdraw(self) -> Steps[None]:
        """Remove the entry of before, if the value that was computed is not to be stored."""
        lease, self.lease.held = self.lease.held, None
        if lease is not None:
            yield self.hooks, "_compare_delete", (self.key, lease)

    def give_leases_back(self) -> Steps[None]:
        """Take the lease out of the entry, if it is still there."""
        swap = self.lease.giving_back()
        self.lease.held = None
        if swap is not None:
            yield from swapped(self.hooks, self.key, swap)

    def compute(self, flight: Flight, storage_keys: Sequence[str]) -> Steps[dict[str, Any]]:
        """See Work.compute()."""
        versions = yield from self._versions()
        value = yield self._function, "call", (flight,)
        values, expires_at = {self.key: value}, self.terms.expiry(value)
        if expires_at == AT_ONCE:
            return values
        # Without a lease the storage may be out of reach, and followers find nothing there.
        flight.for_storage = () if self.lease.held is None else flight.keys
        if versions is None:
            return values
        stored, kept_until = yield from self._conditioned(values, expires_at, self._function.seconds, versions)
        if not (yield from swapped(self.hooks, self.key, self.lease.storing(stored[self.key], kept_until))):
            # Another has written to the entry since.
            return values if self._is_anew else {**values, **(yield from self.read())}
        flight.for_storage = flight.keys
        self.lease.held = None
        self.counters.sets += 1
        return values
