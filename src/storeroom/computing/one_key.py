"""The computation of one key, for get_or_set() and refresh()."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from storeroom.computing.leases import Lease, holder, over
from storeroom.computing.work import Function, Terms, Work
from storeroom.engines.counts import Counters
from storeroom.engines.flights import Flight
from storeroom.storage import conditions, tags, unstored
from storeroom.storage.envelope import Envelope, placeholder
from storeroom.storage.hooks import ABSENT, MISSING, StorageHooks, swapped
from storeroom.storage.outages import room_needed
from storeroom.storage.steps import Steps
from storeroom.timeouts import AT_ONCE

__all__ = ["Computation"]

_TRIES: Final = 3
"""Comparisons of seize_lease(): others may come in between, but not for ever."""

_LEASABLE: Final = frozenset({Envelope, type(MISSING)})


class Computation(Work):
    """The computation of one key, whose lease it has."""

    def __init__(self, hooks: StorageHooks, counters: Counters, terms: Terms, key: str, function: Function) -> None:
        super().__init__(hooks, counters, terms, [key])
        self.key, self._function = key, function
        self.lease = Lease()
        self.leases = {key: self.lease}
        self._is_anew = False

    def read(self) -> Steps[dict[str, Any]]:
        """Return the value if it is stored and fresh."""
        lease = self.lease
        lease.found = found = yield self.hooks, "_get", (self.key,)
        if lease.replaces is not None and lease.replaces == found:  # an envelope's ==, never the value's
            return {}
        value = yield from conditions.opened(self.hooks, found)
        return {} if value is MISSING else {self.key: value}

    def take_leases(self, until: float) -> Steps[Sequence[str]]:
        """Put the lease into the entry, unless another leader has one there, or somebody has stored a value."""
        swap = self.lease.taking(until, is_shared=self.hooks.is_shared)
        if swap is None:
            return []
        if swap.expected is MISSING:
            leased = yield from self._attempt("_compare_set", self.key, *swap)
        else:
            seen = MISSING if swap.expected is ABSENT else swap.expected
            leased = yield from self._attempt("_lease", self.key, seen, swap.value, swap.expires_at)
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
            self.lease.held = envelope
            leased = yield from self._attempt("_lease", self.key, found, envelope, envelope.kept_until)
            if not leased:
                self.lease.held = None
            if leased is not False:
                return
        # A value that cannot be told from others (see copies.alike) is no lease's ground: others wait for the new one.
        self.lease.held = envelope = placeholder(until, holder())
        if not (yield from self._attempt("_set", self.key, envelope, envelope.kept_until)):
            self.lease.held = None

    def withdraw(self) -> Steps[None]:
        """Remove the entry of before, if the value that was computed is not to be stored."""
        if self.lease.held is not None:
            self.lease.is_outdated = True
            yield from self.give_leases_back()

    def give_leases_back(self) -> Steps[None]:
        """See Work; an outdated value may be one without conditions, to refresh()."""
        lease = self.lease
        if lease.held is None and not lease.is_outdated:
            return
        is_bare = lease.is_outdated and lease.giving_back() is None and type(lease.found) not in _LEASABLE
        yield from super().give_leases_back()
        if is_bare:
            with unstored.overlooked(self.key):
                yield self.hooks, "_delete", (self.key,)

    def compute(self, flight: Flight, storage_keys: Sequence[str]) -> Steps[dict[str, Any]]:
        """See Work.compute()."""
        versions = yield from self._versions()
        value = yield from self._called(flight)
        values, expires_at = {self.key: value}, self.terms.expiry(value)
        if expires_at == AT_ONCE:
            return values
        # Without a lease the storage may be out of reach, and followers find nothing there.
        flight.for_storage = () if self.lease.held is None else flight.keys
        with unstored.Caught() as caught:
            return values | (yield from self._store(flight, values, expires_at, versions))
        flight.for_storage = ()
        self.lease.is_outdated = True
        self._returned(self.key, value, caught.error)
        return values

    def _store(
        self, flight: Flight, values: Mapping[str, Any], expires_at: float, versions: tags.Versions | None
    ) -> Steps[dict[str, Any]]:
        """Store the value. Return the one that another has stored meanwhile, if get_or_set() finds one."""
        if versions is None:
            self._raise_refusal()
            return {}
        stored, kept_until = yield from self._conditioned(values, expires_at, self._function.seconds, versions)
        with room_needed():
            is_stored = yield from swapped(self.hooks, self.key, self.lease.storing(stored[self.key], kept_until))
        if not is_stored and self._is_anew:
            self._raise_refusal()  # without a lease the entry of before is in the way
            return {}
        if not is_stored:
            return (yield from self.read())
        flight.for_storage = flight.keys
        self.lease.held = None
        self.note_sets(self.storage_keys)
        return {}
