"""get_or_set_many(): missing values are read, leased, computed and stored together.

Each key has its own lease, so that callers whose keys overlap compute each once, by this method or by get_or_set().
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from storeroom import timeouts
from storeroom.computing import serving, stampede
from storeroom.computing.decision import Decision, decide, draw
from storeroom.computing.leases import Lease
from storeroom.computing.work import Function, Terms, Work
from storeroom.engines.counts import Counters
from storeroom.engines.flights import Flight
from storeroom.exceptions import ComputationCycleError
from storeroom.storage import conditions, tags, unstored
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING, StorageHooks, Swap
from storeroom.storage.interruptions import is_from_outside
from storeroom.storage.steps import Steps
from storeroom.timeouts import AT_ONCE

__all__ = ["Batch", "obtain_many"]


class Batch(Work):
    """The computation of several keys, with the leases of those that are missing.

    `typed` leads from storage keys to keys as the caller typed them; the function is called with a list of these, and
    returns a mapping of them to values. The expiry is told by the dict of values.
    """

    may_lack_values = True

    def __init__(
        self,
        hooks: StorageHooks,
        counters: Counters,
        terms: Terms,
        typed: Mapping[str, Any],
        function: Callable[[list[Any]], Any],
    ) -> None:
        super().__init__(hooks, counters, terms, list(typed))
        self._typed, self._compute = typed, function
        self._function = Function(function, list(typed.values()))
        self.leases = {}

    @property
    def typed(self) -> Sequence[Any]:
        """See Work."""
        return list(self._typed.values())

    def part(self, storage_keys: Sequence[str]) -> "Batch":
        """Return the computation of some of the keys."""
        if len(storage_keys) == len(self._typed):
            return self
        return self.leasing({key: self.leases[key] for key in storage_keys})

    def leasing(self, leases: Mapping[str, Lease]) -> "Batch":
        """Return the computation of the keys of these leases."""
        part = Batch(self.hooks, self.counters, self.terms, {key: self._typed[key] for key in leases}, self._compute)
        part.leases = leases
        return part

    def read(self) -> Steps[dict[str, Any]]:
        """Return the values that are stored and fresh, by storage key."""
        found = yield self.hooks, "_get_many", (self.storage_keys,)
        for key, lease in self.leases.items():
            lease.found = found.get(key, MISSING)
        anew = {key for key, lease in self.leases.items() if lease.replaces is not None}
        fresh = {key: value for key, value in found.items() if key not in anew or self.leases[key].replaces != value}
        return (yield from conditions.open_many(self.hooks, fresh))

    def take_leases(self, until: float) -> Steps[Sequence[str]]:
        """Put leases into the entries, but for those where another has one, or has stored a value."""
        taking = {key: lease.taking(until, is_shared=self.hooks.is_shared) for key, lease in self.leases.items()}
        swaps = {key: swap for key, swap in taking.items() if swap is not None}
        if not swaps:
            return []
        leased = (yield from self._attempt("_lease_many", swaps)) or dict.fromkeys(swaps)
        for key in swaps:
            if not leased[key]:
                self.leases[key].refused()
        return [key for key in swaps if leased[key] is not False]

    def _giving_back(self, storage_keys: Iterable[str]) -> dict[str, Swap]:
        giving_back = {key: self.leases[key].giving_back() for key in storage_keys}
        return {key: swap for key, swap in giving_back.items() if swap is not None}

    def compute(self, flight: Flight, storage_keys: Sequence[str]) -> Steps[dict[str, Any]]:
        """See Work.compute(); a key that the function leaves out is absent."""
        versions = yield from self._versions()
        values = yield from self._computed(flight, storage_keys)
        expires_at = self.terms.expiry(values)
        storing: Mapping[str, Swap] = {}
        with unstored.Caught() as caught:
            storing = yield from self._storing(flight, values, expires_at, versions)
        if caught.error is not None:
            self._all_returned(flight, values, dict.fromkeys(values, caught.error))
        giving_back = self._giving_back(key for key in storage_keys if key not in values)
        if storing or giving_back:
            values |= yield from self._swap(flight, values, storing, giving_back)
        return values

    def _all_returned(self, flight: Flight, values: Mapping[str, Any], refused: unstored.Refused) -> None:
        """Note the values that are returned and not stored; then raise the first error, if the terms say so."""
        flight.for_storage = set(flight.for_storage).difference(refused)
        for key in refused:
            self.leases[key].is_outdated = True
        for key, error in refused.items():
            self._returned(key, values[key], error)

    def _computed(self, flight: Flight, storage_keys: Sequence[str]) -> Steps[dict[str, Any]]:
        typed = {key: self._typed[key] for key in storage_keys}
        computed = yield from self._called(flight, list(typed.values()))
        if not isinstance(computed, Mapping):
            raise TypeError(
                f"get_or_set_many() was given a function that returned a {type(computed).__name__}; "
                "expected a dict from the keys it was called with to their values."
            )
        return {storage_key: computed[key] for storage_key, key in typed.items() if key in computed}

    def _storing(
        self, flight: Flight, values: dict[str, Any], expires_at: float, versions: tags.Versions | None
    ) -> Steps[Mapping[str, Swap]]:
        """Return the swaps that store the values."""
        if not values or expires_at == AT_ONCE:
            return {}
        # Without a lease the storage may be out of reach, and followers find nothing there.
        flight.for_storage = [key for key in values if self.leases[key].held is not None]
        if versions is None:
            self._raise_refusal()
            return {}
        stored, kept_until = yield from self._conditioned(values, expires_at, self._function.seconds, versions)
        return {key: self.leases[key].storing(value, kept_until) for key, value in stored.items()}

    def _swap(
        self, flight: Flight, values: Mapping[str, Any], storing: Mapping[str, Swap], giving_back: Mapping[str, Swap]
    ) -> Steps[dict[str, Any]]:
        """Store values, and give the other leases back. Return the values of keys in which others have stored some."""
        swapped, refused = yield from unstored.swap_many(self.hooks, {**storing, **giving_back})
        done = [key for key in storing if swapped.get(key)]
        for key in (*done, *(key for key in giving_back if key in swapped)):
            self.leases[key].held = None
        self.note_sets(done)
        changed = [key for key in giving_back if swapped.get(key) is False]
        flight.for_storage = {*flight.for_storage, *done, *changed}
        self._all_returned(flight, values, {key: error for key, error in refused.items() if key in storing})
        overtaken = [key for key in storing if swapped.get(key) is False]
        return (yield from self.part(overtaken).read()) if overtaken else {}


def obtain_many(work: Batch, *, blocking: bool) -> Steps[dict[str, Any]]:
    """Return the values of all keys, by storage key; a key that the function left out is absent."""
    found = yield work.hooks, "_get_many", (work.storage_keys,)
    decisions = yield from _decisions(work, found)
    served = {key: found[key] for key, made in decisions.items() if made in (Decision.SERVE, Decision.REFRESH)}
    values = {key: value.value if type(value) is Envelope else value for key, value in served.items()}
    missing = {key: Lease(found.get(key, MISSING)) for key in decisions if key not in values}
    late = {key: Lease(found[key], replaces=found[key]) for key in values if decisions[key] is Decision.REFRESH}
    stale = {key: found[key].value for key in missing if decisions[key] is Decision.COMPUTE_OR_SERVE}
    work.counters.reused += len(values)
    work.counters.stale += sum(type(entry) is Envelope and not entry.is_fresh for entry in served.values())
    if work.terms.hit_families is not None:
        keys = zip(work.storage_keys, work.typed, strict=True)
        work.terms.hit_families.add_hits([key for storage_key, key in keys if storage_key in values])
    if late:
        yield from serving.refresh(work.leasing(late))
    if missing:
        absent = work.leasing(missing)
        absent.note_misses()
        values |= yield from _computed(absent, stale, blocking=blocking)
    return values


def _decisions(work: Batch, found: Mapping[str, Any]) -> Steps[dict[str, Decision]]:
    """Return the decision about each key."""
    envelopes = [value for value in found.values() if type(value) is Envelope]
    usable = {entry for entry in (yield from tags.live_envelopes(work.hooks, envelopes)) if entry.has_value}
    decisions = {}
    for key in work.storage_keys:
        value = found.get(key, MISSING)
        if value is not MISSING and type(value) is not Envelope:
            decisions[key] = Decision.SERVE
            continue
        entry = value if type(value) is Envelope and value in usable else None
        if entry is not None and entry.leased_until:
            work.flights.look_after(key)
        paused = work.flights.is_paused(key)
        decisions[key] = decide(entry, timeouts.now(), work.terms.freshness, paused=paused, draw=draw())
    return decisions


def _computed(work: Batch, stale: dict[str, Any], *, blocking: bool) -> Steps[dict[str, Any]]:
    """Compute the missing values; where that fails, return stale ones, if there is one for each key that is left."""
    values: dict[str, Any] = {}
    left: Sequence[str] = ()
    try:
        yield from stampede.compute_once(work, blocking=blocking, values=values)
    except ComputationCycleError:
        raise
    except Exception as error:
        left = [key for key in work.storage_keys if key not in values]
        if is_from_outside(error) or not stale.keys() >= set(left):
            raise
        serving.note_failure(work.part(left), error)
    for key in set(work.storage_keys).difference(left):
        work.flights.resume(key)
    values |= {key: stale[key] for key in left}
    work.counters.stale += len(left)
    return {key: value for key, value in values.items() if value is not MISSING}
