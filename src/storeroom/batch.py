"""get_or_set_many(): all that is missing is computed by one call, and stored by one write.

Callers who miss the same keys at the same time compute once, as for a single key: their
lease and their flight are named by the set of keys.
"""

import hashlib
import os
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from storeroom import liveness, obtaining, stampede, tags, timeouts
from storeroom.computation import Function
from storeroom.entry import Envelope
from storeroom.events import Counters
from storeroom.exceptions import ComputationCycleError
from storeroom.flights import Flight, Flights
from storeroom.freshness import Decision, Freshness, decide, shortened
from storeroom.hooks import MISSING, StorageHooks
from storeroom.keys import LEASE_MARK
from storeroom.steps import Steps
from storeroom.timeouts import AT_ONCE, NEVER

__all__ = ["Batch", "obtain_many"]


class Batch:
    """The computation of several keys. It is a Work of `stampede` for those that are missing.

    Args:
        hooks: the storage.
        flights: the computations under way in this process.
        counters: count hits, misses and what is stored.
        typed: storage key to the key that the caller typed.
        function: called with the list of missing keys, as typed; returns a mapping of them to values.
        expires_at: tells when a value stored now expires.
        freshness: how old the values may be.
        tag_keys: storage keys of the entries' tags.

    Attributes:
        is_early: whether values are computed anew although there may be fresh ones.
    """

    def __init__(
        self,
        hooks: StorageHooks,
        flights: Flights,
        counters: Counters,
        typed: Mapping[str, Any],
        function: Function,
        expires_at: Callable[[Any], float],
        freshness: Freshness,
        tag_keys: Sequence[str],
    ) -> None:
        self.hooks, self.flights, self.counters, self.freshness = hooks, flights, counters, freshness
        self._typed, self._function, self._expires_at, self._tag_keys = typed, function, expires_at, tag_keys
        digest = hashlib.blake2b(digest_size=16)
        for key in sorted(typed):
            digest.update(f"{len(key)}:{key}".encode("utf-8", "surrogatepass"))
        self.key = f"\x00many\x00{digest.hexdigest()}"
        self._token: str | None = None
        self.is_early = False

    @property
    def storage_keys(self) -> list[str]:
        """The keys whose values are computed."""
        return list(self._typed)

    def only(self, storage_keys: Sequence[str]) -> "Batch":
        """Return the computation of some of the keys."""
        typed = {key: self._typed[key] for key in storage_keys}
        return Batch(
            self.hooks, self.flights, self.counters, typed, self._function, self._expires_at, self.freshness,
            self._tag_keys,
        )  # fmt: skip

    def read(self) -> Steps[Any]:
        """Return all values by storage key, or MISSING if one is not stored and fresh."""
        found = yield self.hooks, "_get_many", (list(self._typed),)
        values = yield from liveness.open_many(self.hooks, found)
        return values if len(values) == len(self._typed) else MISSING

    def take_lease(self, until: float) -> Steps[bool]:
        """Take the right to compute this set of keys: an entry of its own."""
        if not self.hooks.is_shared:
            return True
        token = f"{os.getpid():x}-{os.urandom(8).hex()}"
        self._token = token  # before: see Computation.take_lease()
        leased = yield self.hooks, "_lease", (f"{LEASE_MARK}{self.key}", MISSING, token, until)
        if not leased:
            self._token = None
        return leased is not False

    def give_lease_back(self) -> Steps[None]:
        """Remove the entry if it is still this one's."""
        token, self._token = self._token, None
        if token is not None:
            yield self.hooks, "_compare_delete", (f"{LEASE_MARK}{self.key}", token)

    def compute(self, flight: Flight) -> Steps[dict[str, Any]]:
        """Return the values by storage key, computed and stored."""
        if not self.is_early:  # somebody may have stored them between the first look and the lease
            values: dict[str, Any] | Any = yield from self.read()
            if values is not MISSING:
                return values
        versions = (yield from tags.current_versions(self.hooks, self._tag_keys)) if self._tag_keys else {}
        computed = yield self._function, "call", (flight, list(self._typed.values()))
        if not isinstance(computed, Mapping):
            raise TypeError(
                f"get_or_set_many() was given a function that returned a {type(computed).__name__}; "
                "expected a dict from the keys it was called with to their values."
            )
        values = {storage_key: computed[key] for storage_key, key in self._typed.items() if key in computed}
        expires_at = shortened(self._expires_at(values), timeouts.now(), self.freshness.jitter)
        if values and expires_at != AT_ONCE and versions is not None:
            yield from self._store(values, expires_at, versions)
        return values

    def _store(self, values: dict[str, Any], expires_at: float, versions: tags.Versions) -> Steps[None]:
        stored, kept_until = values, expires_at
        if versions or self.freshness.needs_envelope:
            marks = tuple((key, version) for key, (version, _) in versions.items())
            grace = self.freshness.grace if expires_at != NEVER else 0.0
            cost = self._function.seconds
            stored = {key: Envelope(value, expires_at, grace, cost, marks) for key, value in values.items()}
            kept_until = expires_at + grace
            yield from tags.renew(self.hooks, versions, kept_until)
        failed = yield self.hooks, "_set_many", (stored, kept_until)
        self.counters.sets += len(values) - len(failed)


def obtain_many(work: Batch, *, blocking: bool) -> Steps[dict[str, Any]]:
    """Return the values of all keys, by storage key; a key that the function left out is absent."""
    found = yield work.hooks, "_get_many", (work.storage_keys,)
    envelopes = {key: value for key, value in found.items() if type(value) is Envelope}
    live = set((yield from tags.live_envelopes(work.hooks, envelopes.values())))
    values, late, stale = {}, [], {}
    for key, value in found.items():
        if key not in envelopes:
            values[key] = value
            continue
        entry = value if value in live else None
        paused = work.flights.is_paused(key)
        draw = 1.0 - random.random()  # noqa: S311 -- nothing secret
        decision = decide(entry, timeouts.now(), work.freshness, paused=paused, draw=draw)
        if decision in (Decision.SERVE, Decision.REFRESH):
            values[key] = value.value
            late += [key] if decision is Decision.REFRESH else []
        elif decision is Decision.COMPUTE_OR_SERVE:
            stale[key] = value.value
    missing = [key for key in work.storage_keys if key not in values]
    work.counters.hits += len(values)
    work.counters.misses += len(missing)
    if late:
        early = work.only(late)
        early.is_early = True
        yield from obtaining.refresh(early)
    if missing:
        values |= yield from _computed(work.only(missing), stale, blocking=blocking)
    return values


def _computed(work: Batch, stale: dict[str, Any], *, blocking: bool) -> Steps[dict[str, Any]]:
    """Compute what is missing; if that fails, and there is a stale value of each, return these."""
    try:
        values: dict[str, Any] = yield from stampede.compute_once(work, blocking=blocking)
    except ComputationCycleError:
        raise
    except Exception as error:
        if len(stale) < len(work.storage_keys):
            raise
        obtaining.note_failure(work, error)
        return stale
    return values
