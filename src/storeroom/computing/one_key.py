"""What there is to do for one key: read it, compute its value, store that (``batch``: for several).

In which order, and who does it, is the business of `stampede` and `obtaining`.
"""

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, Protocol, Self

from storeroom import timeouts
from storeroom.computing.decision import shortened
from storeroom.computing.leases import Lease, swapped
from storeroom.config.freshness import Freshness
from storeroom.engines.counts import Counters
from storeroom.engines.flights import Flight, Flights, computing
from storeroom.storage import conditions, tags
from storeroom.storage.envelope import Envelope, placeholder
from storeroom.storage.hooks import ABSENT, LOOK, MISSING, StorageHooks
from storeroom.storage.steps import Steps
from storeroom.timeouts import AT_ONCE, NEVER

__all__ = ["Computation", "Function", "Work", "conditioned"]

_TRIES: Final = 3
"""How often seize_lease() compares: others may come in between, but not for ever."""


class Work(Protocol):
    """What `stampede` needs to know of a computation."""

    hooks: StorageHooks
    flights: Flights
    may_lack_values: bool
    """Whether a key may turn out to have no value."""

    @property
    def storage_keys(self) -> Sequence[str]:
        """The keys whose values are computed."""

    def part(self, storage_keys: Sequence[str]) -> Self:
        """Return the computation of some of the keys."""

    def read(self) -> Steps[dict[str, Any]]:
        """Return the values that are stored and fresh, by storage key."""

    def take_leases(self, until: float) -> Steps[Sequence[str]]:
        """Take the right to compute, until then (epoch seconds). Return those of the keys that nobody else computes."""

    def give_leases_back(self) -> Steps[None]:
        """Let others compute, where nothing was stored."""

    def compute(self, flight: Flight, storage_keys: Sequence[str]) -> Steps[dict[str, Any]]:
        """Return the values of these keys, computed and stored."""


class Function:
    """The function of a caller, called in the place and the way that its value is needed."""

    def __init__(self, function: Any, key: object) -> None:
        """Prepare to call the function, or to return the value that was given in its place."""
        self._function, self._key = function, key
        self.seconds = 0.0
        """How long the last call took."""

    def call(self, flight: Flight, *args: Any) -> Any:
        """Call the function within a flight."""
        outer = computing.set(flight)
        begun = time.monotonic()
        try:
            value = self._function(*args) if callable(self._function) else self._function
        finally:
            computing.reset(outer)
            self.seconds = time.monotonic() - begun
        if isinstance(value, Coroutine):
            value.close()
            raise TypeError(f"get_or_set() of key {self._key!r} was given a coroutine function; use aget_or_set().")
        return value

    async def acall(self, flight: Flight, *args: Any) -> Any:
        """See call(); what the function returns is awaited where it can be."""
        outer = computing.set(flight)
        begun = time.monotonic()
        try:
            value = self._function(*args) if callable(self._function) else self._function
            return await value if hasattr(type(value), "__await__") else value
        finally:
            computing.reset(outer)
            self.seconds = time.monotonic() - begun


def conditioned(
    values: Mapping[str, Any], expires_at: float, freshness: Freshness, cost: float, versions: tags.Versions
) -> tuple[Mapping[str, Any], float]:
    """Return what is stored of values that were computed, and until when: in envelopes, where they have conditions.

    Args:
        values: by storage key.
        expires_at: when they expire.
        freshness: how old they may be.
        cost: seconds that the computation took.
        versions: of their tags.
    """
    if not versions and not freshness.needs_envelope:
        return values, expires_at
    marks = tuple((key, version) for key, (version, _) in versions.items())
    grace = freshness.grace if expires_at != NEVER else 0.0
    return {key: Envelope(value, expires_at, grace, cost, marks) for key, value in values.items()}, expires_at + grace


class Computation:
    """The computation of one key: see Work.

    Args:
        hooks: the storage.
        counters: count what is stored.
        key: the storage key.
        function: computes the value.
        expires_at: tells when a value stored now expires.
        freshness: how old it may be.
        tag_keys: storage keys of the entry's tags.

    Attributes:
        lease: the key's.
    """

    may_lack_values = False

    def __init__(
        self,
        hooks: StorageHooks,
        counters: Counters,
        key: str,
        function: Function,
        expires_at: Callable[[Any], float],
        freshness: Freshness,
        tag_keys: Sequence[str],
    ) -> None:
        self.hooks, self.counters = hooks, counters
        self.flights: Flights = hooks.flights
        self.key, self.freshness = key, freshness
        self._function, self._expires_at, self._tag_keys = function, expires_at, tag_keys
        self.lease = Lease()
        self._is_anew = False

    @property
    def storage_keys(self) -> list[str]:
        """The one key."""
        return [self.key]

    def part(self, storage_keys: Sequence[str]) -> Self:
        """Return this."""
        return self

    def read(self) -> Steps[dict[str, Any]]:
        """Return the value if it is stored and fresh."""
        value = yield from self._read()
        return {} if value is MISSING else {self.key: value}

    def _read(self) -> Steps[Any]:
        lease = self.lease
        lease.found = found = yield self.hooks, "_get", (self.key,)
        if lease.replaces is not None and found == lease.replaces:
            return MISSING
        return (yield from conditions.opened(self.hooks, found))

    def take_leases(self, until: float) -> Steps[Sequence[str]]:
        """Mark the entry as being computed, unless somebody has done so, or has stored a value."""
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
        """Mark the entry as being computed, whoever else does so; a value that is there is served meanwhile.

        The caller gets what it computes, also where another's write or a full server keeps it from being stored.
        """
        self._is_anew = True
        lease = self.lease
        for _ in range(_TRIES):
            lease.found = found = yield self.hooks, "_get", (self.key,)
            if found is MISSING:
                mark: Envelope = placeholder(until)
            elif type(found) is Envelope:
                # Of two who refresh, the first to end must not be served the value from before both.
                is_taken = found.leased_until > timeouts.now()
                mark = placeholder(until) if is_taken else found.leased(until)
            else:
                expires_at = yield self.hooks, "_expiry", (self.key,)
                if expires_at is LOOK or expires_at is None:
                    continue  # it is another entry by now
                mark = Envelope(found, expires_at, leased_until=until)
            leased = yield self.hooks, "_lease", (self.key, found, mark, mark.kept_until)
            if leased is not False:
                lease.mark = mark if leased else None
                return
        # A value that does not equal its own copy cannot be compared and set: others wait for the new one, then.
        lease.mark = mark = placeholder(until)
        yield self.hooks, "_set", (self.key, mark, mark.kept_until)

    def withdraw(self) -> Steps[None]:
        """Remove what was there before, if the value that was computed is not to be stored."""
        mark, self.lease.mark = self.lease.mark, None
        if mark is not None:
            yield self.hooks, "_compare_delete", (self.key, mark)

    def give_leases_back(self) -> Steps[None]:
        """Take the mark away, if it is still there."""
        swap = self.lease.giving_back()
        self.lease.mark = None
        if swap is not None:
            yield from swapped(self.hooks, self.key, swap)

    def compute(self, flight: Flight, storage_keys: Sequence[str]) -> Steps[dict[str, Any]]:
        """Return the value, computed and stored; or what another has stored meanwhile."""
        # The versions of before: what is invalidated during the computation is then a miss.
        versions = (yield from tags.current_versions(self.hooks, self._tag_keys)) if self._tag_keys else {}
        value = yield self._function, "call", (flight,)
        expires_at = shortened(self._expires_at(value), timeouts.now(), self.freshness.jitter)
        if expires_at == AT_ONCE:
            return {self.key: value}
        # Without a mark the storage may be out of reach, and nobody finds anything there.
        flight.for_storage = () if self.lease.mark is None else flight.keys
        if versions is None:
            return {self.key: value}
        values = {self.key: value}
        stored, kept_until = conditioned(values, expires_at, self.freshness, self._function.seconds, versions)
        yield from tags.renew(self.hooks, versions, kept_until)
        return {self.key: (yield from self._store(flight, stored[self.key], value, kept_until))}

    def _store(self, flight: Flight, stored: Any, value: Any, kept_until: float) -> Steps[Any]:
        """Store it, unless another has written to the entry since; return what get_or_set() does then."""
        if (yield from swapped(self.hooks, self.key, self.lease.storing(stored, kept_until))):
            flight.for_storage = flight.keys
            self.lease.mark = None
            self.counters.sets += 1
            return value
        theirs = MISSING if self._is_anew else (yield from self._read())
        return value if theirs is MISSING else theirs
