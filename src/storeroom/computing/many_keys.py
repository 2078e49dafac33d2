"""get_or_set_many(): what is missing is read, leased, computed and stored together.

Each key has its own lease, as with get_or_set(), so that callers whose keys overlap compute
each key once, whichever of the two they call; and each is stored in the place of its own mark.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from storeroom import timeouts
from storeroom.computing import serving, stampede
from storeroom.computing.decision import Decision, decide, shortened
from storeroom.computing.leases import Lease
from storeroom.computing.one_key import Function, conditioned
from storeroom.config.freshness import Freshness
from storeroom.engines.counts import Counters
from storeroom.engines.flights import Flight, Flights
from storeroom.exceptions import ComputationCycleError
from storeroom.storage import conditions, tags
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING, StorageHooks, Swap
from storeroom.storage.steps import Steps
from storeroom.timeouts import AT_ONCE

__all__ = ["Batch", "obtain_many"]


class Batch:
    """The computation of several keys: see computation.Work.

    Args:
        hooks: the storage.
        counters: count hits, misses and what is stored.
        typed: storage key to the key that the caller typed.
        function: called with the list of missing keys, as typed; returns a mapping of them to values.
        expires_at: tells when a value stored now expires.
        freshness: how old the values may be.
        tag_keys: storage keys of the entries' tags.
    """

    may_lack_values = True

    def __init__(
        self,
        hooks: StorageHooks,
        counters: Counters,
        typed: Mapping[str, Any],
        function: Callable[[list[Any]], Any],
        expires_at: Callable[[Any], float],
        freshness: Freshness,
        tag_keys: Sequence[str],
    ) -> None:
        self.hooks, self.counters, self.freshness = hooks, counters, freshness
        self.flights: Flights = hooks.flights
        self._typed, self._compute, self._expires_at, self._tag_keys = typed, function, expires_at, tag_keys
        self._function = Function(function, list(typed.values()))
        self.leases: Mapping[str, Lease] = {}

    @property
    def storage_keys(self) -> Sequence[str]:
        """The keys whose values are computed."""
        return list(self._typed)

    def part(self, storage_keys: Sequence[str]) -> "Batch":
        """Return the computation of some of the keys."""
        if len(storage_keys) == len(self._typed):
            return self
        return self.leasing({key: self.leases[key] for key in storage_keys})

    def leasing(self, leases: Mapping[str, Lease]) -> "Batch":
        """Return the computation of the keys of these leases."""
        typed = {key: self._typed[key] for key in leases}
        part = Batch(
            self.hooks, self.counters, typed, self._compute, self._expires_at, self.freshness,
            self._tag_keys,
        )  # fmt: skip
        part.leases = leases
        return part

    def read(self) -> Steps[dict[str, Any]]:
        """Return the values that are stored and fresh, by storage key."""
        found = yield self.hooks, "_get_many", (self.storage_keys,)
        for key, lease in self.leases.items():
            lease.found = found.get(key, MISSING)
        anew = {key for key, lease in self.leases.items() if lease.replaces is not None}
        fresh = {key: value for key, value in found.items() if key not in anew or value != self.leases[key].replaces}
        return (yield from conditions.open_many(self.hooks, fresh))

    def take_leases(self, until: float) -> Steps[Sequence[str]]:
        """Mark the entries as being computed, but for those that somebody has marked, or stored a value in."""
        taking = {key: lease.taking(until, is_shared=self.hooks.is_shared) for key, lease in self.leases.items()}
        swaps = {key: swap for key, swap in taking.items() if swap is not None}
        if not swaps:
            return []
        leased = yield self.hooks, "_lease_many", (swaps,)
        for key in swaps:
            if not leased[key]:
                self.leases[key].refused()
        return [key for key in swaps if leased[key] is not False]

    def give_leases_back(self) -> Steps[None]:
        """Take the marks away that are still there."""
        swaps = self._giving_back(self.leases)
        for lease in self.leases.values():
            lease.mark = None
        if swaps:
            yield self.hooks, "_swap_many", (swaps,)

    def _giving_back(self, storage_keys: Iterable[str]) -> dict[str, Swap]:
        giving_back = {key: self.leases[key].giving_back() for key in storage_keys}
        return {key: swap for key, swap in giving_back.items() if swap is not None}

    def compute(self, flight: Flight, storage_keys: Sequence[str]) -> Steps[dict[str, Any]]:
        """Return the values by storage key, computed and stored; or what another has stored meanwhile."""
        # The versions of before: what is invalidated during the computation is then a miss.
        versions = (yield from tags.current_versions(self.hooks, self._tag_keys)) if self._tag_keys else {}
        typed = {key: self._typed[key] for key in storage_keys}
        computed = yield self._function, "call", (flight, list(typed.values()))
        if not isinstance(computed, Mapping):
            raise TypeError(
                f"get_or_set_many() was given a function that returned a {type(computed).__name__}; "
                "expected a dict from the keys it was called with to their values."
            )
        values = {storage_key: computed[key] for storage_key, key in typed.items() if key in computed}
        expires_at = shortened(self._expires_at(values), timeouts.now(), self.freshness.jitter)
        storing: dict[str, Swap] = {}
        if values and expires_at != AT_ONCE:
            # Without a mark the storage may be out of reach, and nobody finds anything there.
            flight.for_storage = [key for key in values if self.leases[key].mark is not None]
            if versions is not None:
                cost = self._function.seconds
                stored, kept_until = conditioned(values, expires_at, self.freshness, cost, versions)
                yield from tags.renew(self.hooks, versions, kept_until)
                storing = {key: self.leases[key].storing(value, kept_until) for key, value in stored.items()}
        giving_back = self._giving_back(key for key in typed if key not in values)
        if not (storing or giving_back):
            return values
        swapped = yield self.hooks, "_swap_many", (storing | giving_back,)
        done = [key for key in storing if swapped[key]]
        for key in (*done, *giving_back):
            self.leases[key].mark = None
        self.counters.sets += len(done)
        changed = [key for key in giving_back if not swapped[key]]
        flight.for_storage = {*flight.for_storage, *done, *changed}
        overtaken = [key for key in storing if not swapped[key]]
        return values | (yield from self.part(overtaken).read()) if overtaken else values


def obtain_many(work: Batch, *, blocking: bool) -> Steps[dict[str, Any]]:
    """Return the values of all keys, by storage key; a key that the function left out is absent."""
    found = yield work.hooks, "_get_many", (work.storage_keys,)
    envelopes = {key: value for key, value in found.items() if type(value) is Envelope}
    live = set((yield from tags.live_envelopes(work.hooks, envelopes.values())))
    values, late, stale = {}, {}, {}
    for key, value in found.items():
        if key not in envelopes:
            values[key] = value
            continue
        entry = value if value.has_value and value in live else None
        paused = work.flights.is_paused(key)
        draw = 1.0 - random.random()  # noqa: S311 -- nothing secret
        decision = decide(entry, timeouts.now(), work.freshness, paused=paused, draw=draw)
        if decision in (Decision.SERVE, Decision.REFRESH):
            values[key] = value.value
            if decision is Decision.REFRESH:
                late[key] = Lease(value, replaces=value)
        elif decision is Decision.COMPUTE_OR_SERVE:
            stale[key] = value.value
    missing = {key: Lease(found.get(key, MISSING)) for key in work.storage_keys if key not in values}
    work.counters.hits += len(values)
    work.counters.misses += len(missing)
    if late:
        yield from serving.refresh(work.leasing(late))
    if missing:
        values |= yield from _computed(work.leasing(missing), stale, blocking=blocking)
    return values


def _computed(work: Batch, stale: dict[str, Any], *, blocking: bool) -> Steps[dict[str, Any]]:
    """Compute what is missing; where that fails, and there is a stale value of all that is left, return these."""
    values: dict[str, Any] = {}
    left: Sequence[str] = ()
    try:
        yield from stampede.compute_once(work, blocking=blocking, values=values)
    except ComputationCycleError:
        raise
    except Exception as error:
        left = [key for key in work.storage_keys if key not in values]
        if not stale.keys() >= set(left):
            raise
        serving.note_failure(work.part(left), error)
    for key in set(work.storage_keys).difference(left):
        work.flights.resume(key)
    values |= {key: stale[key] for key in left}
    return {key: value for key, value in values.items() if value is not MISSING}
