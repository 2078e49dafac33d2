"""The work of a computation: read, lease, compute, store. `stampede` and `serving` choose the caller, and the order."""

import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from storeroom import timeouts
from storeroom.computing.decision import shortened
from storeroom.config.freshness import Freshness
from storeroom.engines.counts import Counters
from storeroom.engines.flights import Flight, Flights, computing
from storeroom.storage import tags
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import StorageHooks
from storeroom.storage.steps import Steps
from storeroom.timeouts import NEVER

__all__ = ["Function", "Terms", "Work"]


@dataclass(frozen=True, slots=True)
class Terms:
    """The conditions under which computed values are stored.

    Attributes:
        expires_at: tells when a value stored now expires.
        freshness: bounds their age.
        tag_keys: storage keys of the entries' tags.
    """

    expires_at: Callable[[Any], float]
    freshness: Freshness
    tag_keys: Sequence[str]

    def expiry(self, value: Any) -> float:
        """Return when the value expires, jitter included."""
        return shortened(self.expires_at(value), timeouts.now(), self.freshness.jitter)


class Work:
    """The computation of one key (``one_key``), or of several (``many_keys``)."""

    may_lack_values = False
    """Whether a key may turn out to have no value."""

    def __init__(self, hooks: StorageHooks, counters: Counters, terms: Terms, storage_keys: Sequence[str]) -> None:
        self.hooks, self.counters, self.terms, self.storage_keys = hooks, counters, terms, storage_keys
        self.flights: Flights = hooks.flights

    def part(self, storage_keys: Sequence[str]) -> "Work":
        """Return the computation of some of the keys: of one, this."""
        return self

    def read(self) -> Steps[dict[str, Any]]:
        """Return the values that are stored and fresh, by storage key."""
        raise NotImplementedError

    def take_leases(self, until: float) -> Steps[Sequence[str]]:
        """Take the right to compute, until then (epoch seconds). Return those of the keys that nobody else computes."""
        raise NotImplementedError

    def give_leases_back(self) -> Steps[None]:
        """Let others compute, where nothing was stored."""
        raise NotImplementedError

    def compute(self, flight: Flight, storage_keys: Sequence[str]) -> Steps[dict[str, Any]]:
        """Return the values of these keys, computed and stored; or those that others have stored meanwhile."""
        raise NotImplementedError

    def _versions(self) -> Steps[tags.Versions | None]:
        """Return the tags' versions of now: to invalidate a tag during the computation makes the entry a miss."""
        return (yield from tags.current_versions(self.hooks, self.terms.tag_keys)) if self.terms.tag_keys else {}

    def _conditioned(
        self, values: Mapping[str, Any], expires_at: float, seconds: float, versions: tags.Versions
    ) -> Steps[tuple[Mapping[str, Any], float]]:
        """Return the values as they are stored, in envelopes if they have conditions, and until when they are kept.

        The computation took so many seconds, and the versions are those of the tags before it.
        """
        freshness = self.terms.freshness
        if not versions and not freshness.needs_envelope:
            return values, expires_at
        grace = freshness.grace if expires_at != NEVER else 0.0
        yield from tags.renew(self.hooks, versions, expires_at + grace)
        stamps = tags.stamps_of(versions)
        stored = {key: Envelope(value, expires_at, grace, seconds, stamps) for key, value in values.items()}
        return stored, expires_at + grace


class Function:
    """The function of a caller, or the value that was given instead of one.

    Attributes:
        seconds: the duration of the last call.
    """

    def __init__(self, function: Any, key: object) -> None:
        self._function, self._key = function, key
        self.seconds = 0.0

    def call(self, flight: Flight, *args: Any) -> Any:
        """Call the function within a flight."""
        with self._within(flight):
            value = self._function(*args) if callable(self._function) else self._function
        if isinstance(value, Coroutine):
            value.close()
            raise TypeError(f"get_or_set() of key {self._key!r} was given a coroutine function; use aget_or_set().")
        return value

    async def acall(self, flight: Flight, *args: Any) -> Any:
        """See call(); an awaitable that the function returns is awaited."""
        with self._within(flight):
            value = self._function(*args) if callable(self._function) else self._function
            return await value if hasattr(type(value), "__await__") else value

    @contextmanager
    def _within(self, flight: Flight) -> Iterator[None]:
        outer, begun = computing.set(flight), time.monotonic()
        try:
            yield
        finally:
            computing.reset(outer)
            self.seconds = time.monotonic() - begun
