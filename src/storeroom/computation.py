"""What there is to do for one key: read it, compute its value, store that.

In which order, and who does it, is the business of `stampede` and `obtaining`.
"""

import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from storeroom import liveness, tags, timeouts
from storeroom.entry import Envelope, placeholder
from storeroom.events import Counters
from storeroom.flights import Flight, Flights, computing
from storeroom.freshness import Freshness, shortened
from storeroom.hooks import LOOK, MISSING, StorageHooks
from storeroom.steps import Steps
from storeroom.timeouts import AT_ONCE, NEVER

__all__ = ["Computation", "Function", "Work"]

_TRIES: Final = 3
"""How often seize_lease() compares: others may come in between, but not for ever."""


class Work(Protocol):
    """What `stampede` needs to know of a computation."""

    key: str
    hooks: StorageHooks
    flights: Flights

    def read(self) -> Steps[Any]:
        """Return what is stored and fresh, or MISSING."""

    def take_lease(self, until: float) -> Steps[bool]:
        """Take the right to compute, until then (epoch seconds). Return whether nobody else has it."""

    def give_lease_back(self) -> Steps[None]:
        """Let others compute, if nothing was stored."""

    def compute(self, flight: Flight) -> Steps[Any]:
        """Return the value, computed and stored."""


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


class Computation:
    """The computation of one key.

    The lease is a mark within the entry (``entry.Envelope.leased``). The result is stored in the place
    of the mark and nowhere else: whoever deletes or sets the key meanwhile has the last word.

    Args:
        hooks: the storage.
        flights: the computations under way in this process.
        counters: count what is stored.
        key: the storage key.
        function: computes the value.
        expires_at: tells when a value stored now expires.
        freshness: how old it may be.
        tag_keys: storage keys of the entry's tags.

    Attributes:
        found: what was read of the entry last: an envelope, or MISSING.
        replaces: an entry that is to be computed anew although it is fresh.
    """

    def __init__(
        self,
        hooks: StorageHooks,
        flights: Flights,
        counters: Counters,
        key: str,
        function: Function,
        expires_at: Callable[[Any], float],
        freshness: Freshness,
        tag_keys: Sequence[str],
    ) -> None:
        self.hooks, self.flights, self.counters = hooks, flights, counters
        self.key, self.freshness = key, freshness
        self._function, self._expires_at, self._tag_keys = function, expires_at, tag_keys
        self.found: Any = MISSING
        self._mark: Envelope | None = None
        self._is_blocked = False
        self._is_anew = False
        self.replaces: Envelope | None = None

    @property
    def storage_keys(self) -> list[str]:
        """The one key."""
        return [self.key]

    def read(self) -> Steps[Any]:
        """Return what is stored and fresh, or MISSING."""
        self.found = yield self.hooks, "_get", (self.key,)
        if self.replaces is not None and self.found == self.replaces:
            return MISSING
        return (yield from liveness.opened(self.hooks, self.found))

    def take_lease(self, until: float) -> Steps[bool]:
        """Mark the entry as being computed, unless somebody has done so, or has stored a value."""
        found: Any = self.found if type(self.found) is Envelope else MISSING
        now = timeouts.now()
        # Where nobody else computes, a lease is what a parent process has left behind; and nobody takes one that
        # ends so much later than one of now.
        if found is not MISSING and now < found.leased_until < 2 * until - now and self.hooks.is_shared:
            return False
        mark: Envelope = placeholder(until) if found is MISSING else found.leased(until)
        # Noted before: who is interrupted after it was written has to take it away.
        self._mark = mark
        leased = yield self.hooks, "_lease", (self.key, found, mark, mark.kept_until)
        if leased is False and found is MISSING:
            # Another was faster; if there is still nothing to be read after that, it is bytes that nobody can read.
            if self._is_blocked:
                leased = yield self.hooks, "_compare_set", (self.key, MISSING, mark, mark.kept_until)
            self._is_blocked = True
        if not leased:
            self._mark = None
        return leased is not False

    def seize_lease(self, until: float) -> Steps[None]:
        """Mark the entry as being computed, whoever else does so; a value that is there is served meanwhile.

        The caller gets what it computes, also where another's write or a full server keeps it from being stored.
        """
        self._is_anew = True
        for _ in range(_TRIES):
            self.found = found = yield self.hooks, "_get", (self.key,)
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
                self._mark = mark if leased else None
                return
        # A value that does not equal its own copy cannot be compared and set: others wait for the new one, then.
        self._mark = mark = placeholder(until)
        yield self.hooks, "_set", (self.key, mark, mark.kept_until)

    def withdraw(self) -> Steps[None]:
        """Remove what was there before, if the value that was computed is not to be stored."""
        mark, self._mark = self._mark, None
        if mark is not None:
            yield self.hooks, "_compare_delete", (self.key, mark)

    def give_lease_back(self) -> Steps[None]:
        """Take the mark away, if it is still there."""
        mark, self._mark = self._mark, None
        if mark is None:
            return
        if mark.has_value:
            bare = mark.leased(0.0)
            yield self.hooks, "_compare_set", (self.key, mark, bare, bare.kept_until)
        else:
            yield self.hooks, "_compare_delete", (self.key, mark)

    def compute(self, flight: Flight) -> Steps[Any]:
        """Return the value, computed and stored; or what another has stored meanwhile."""
        # The versions of before: what is invalidated during the computation is then a miss.
        versions = (yield from tags.current_versions(self.hooks, self._tag_keys)) if self._tag_keys else {}
        value = yield self._function, "call", (flight,)
        expires_at = shortened(self._expires_at(value), timeouts.now(), self.freshness.jitter)
        if expires_at == AT_ONCE:
            return value
        # Without a mark the storage may be out of reach, and nobody finds anything there.
        flight.is_for_storage = self._mark is not None
        if versions is None:
            return value
        stored, kept_until = self._wrapped(value, expires_at, versions)
        yield from tags.renew(self.hooks, versions, kept_until)
        return (yield from self._store(flight, stored, value, kept_until))

    def _wrapped(self, value: Any, expires_at: float, versions: tags.Versions) -> tuple[Any, float]:
        if not versions and not self.freshness.needs_envelope:
            return value, expires_at
        marks = tuple((key, version) for key, (version, _) in versions.items())
        grace = self.freshness.grace if expires_at != NEVER else 0.0
        envelope = Envelope(value, expires_at, grace, self._function.seconds, marks)
        return envelope, envelope.kept_until

    def _store(self, flight: Flight, stored: Any, value: Any, kept_until: float) -> Steps[Any]:
        """Put it in the place of the mark, or of what was there before; another's later write wins."""
        place = self._mark or self.found
        if type(place) is Envelope:
            done = yield self.hooks, "_compare_set", (self.key, place, stored, kept_until)
        else:
            done = (yield self.hooks, "_add", (self.key, stored, kept_until)) is True
        if done:
            flight.is_for_storage = True
            self._mark = None
            self.counters.sets += 1
            return value
        theirs = MISSING if self._is_anew else (yield from self.read())
        return value if theirs is MISSING else theirs
