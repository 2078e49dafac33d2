"""The work of a computation: read, lease, compute, store. `stampede` and `serving` choose the caller, and the order."""

import math
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

from storeroom import timeouts
from storeroom.computing.counted import NOT_COUNTED, CountedFunction
from storeroom.computing.decision import shortened
from storeroom.computing.leases import Lease
from storeroom.computing.slow import note_slow
from storeroom.computing.whole import Whole, look_again
from storeroom.config.freshness import Freshness
from storeroom.engines.counts import Counters
from storeroom.engines.families import Families
from storeroom.engines.flights import Flight, Flights, computing
from storeroom.late import record
from storeroom.storage import tags, unstored
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import StorageHooks, Swap, swapped
from storeroom.storage.interruptions import is_from_outside
from storeroom.storage.outages import room_needed
from storeroom.storage.steps import Steps
from storeroom.timeouts import NEVER

__all__ = ["AROUND", "Function", "Terms", "Work"]

AROUND: Final[list[Callable[["Function", "Work"], Any]]] = []
"""At most one function, of a Function and its Work: it returns what is called in place of the Function, for spans."""

_IN_ANOTHER_CONTEXT: Final = suppress(ValueError)
"""Where a task is ended whose loop has gone."""


@record(frozen=True, slots=True)
class Terms:
    """The conditions under which computed values are stored.

    Attributes:
        expires_at: tells when a value stored now expires.
        freshness: bounds their age.
        tag_keys: storage keys of the entries' tags.
        raises: whether a value that cannot be stored is an error, and not returned.
        needs_storage: whether a storage that fails before anything is computed is an error.
        families: of the keys; None where they are not told apart.
        hit_families: the same; None where hits are not counted by family.
        slow_seconds: from which on a computation is logged as slow.
        alias: of the cache, for logs and spans; "" where it is not known.
    """

    expires_at: Callable[[Any], float]
    freshness: Freshness
    tag_keys: Sequence[str]
    raises: bool = False
    needs_storage: bool = False
    families: Families | None = None
    hit_families: Families | None = None
    slow_seconds: float = math.inf
    alias: str = ""

    def expiry(self, value: Any) -> float:
        """Return when the value expires, jitter included."""
        return shortened(self.expires_at(value), timeouts.now(), self.freshness.jitter)


class Work:
    """The computation of one key (``one_key``), or of several (``many_keys``)."""

    may_lack_values = False
    """Whether a key may turn out to have no value."""

    _function: "Function"

    leases: Mapping[str, Lease]
    """By storage key."""

    def __init__(self, hooks: StorageHooks, counters: Counters, terms: Terms, storage_keys: Sequence[str]) -> None:
        self.hooks, self.counters, self.terms, self.storage_keys = hooks, counters, terms, storage_keys
        self.flights: Flights = hooks.flights
        self._refusal: Exception | None = None  # of a lease, or of the tags' versions
        self._whole = Whole(hooks)

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
        """Let others compute, where nothing was stored; nothing can cut this short."""
        giving_back = {key: swap for key, lease in self.leases.items() if (swap := lease.giving_back()) is not None}
        if giving_back:
            yield self._whole, "undo", (partial(self._take_away, giving_back),)
        for lease in self.leases.values():
            lease.held, lease.is_outdated = None, False

    def let_go(self) -> None:
        """Let others compute where the leader cannot give back by itself: another thread does it."""
        giving_back = {key: swap for key, lease in self.leases.items() if (swap := lease.giving_back()) is not None}
        if giving_back:
            look_again(partial(self._take_away, giving_back))

    def _take_away(self, giving_back: Mapping[str, Swap]) -> Steps[bool]:
        """Make the swaps where the leases are still there. Return whether they all were."""
        key, swap = next(iter(giving_back.items()))
        with unstored.overlooked(key):
            if len(giving_back) == 1:
                return (yield from swapped(self.hooks, key, swap))
            return all((yield self.hooks, "_swap_many", (giving_back,)).values())
        return False

    def renew_leases(self, until: float, seconds: float) -> Steps[bool]:
        """Hold the leases until then (epoch seconds), if they have little of their seconds left.

        Return whether any is still there, as far as this tells.
        """
        renewing = {key: swap for key, lease in self.leases.items() if (swap := lease.renewing(until, seconds))}
        if not renewing:
            return True
        renewed = yield self.hooks, "_swap_many", (renewing,)
        for key, swap in renewing.items():
            lease = self.leases[key]
            if renewed[key] and lease.held is swap.expected:
                lease.held = swap.value
        return any(renewed.values())

    def compute(self, flight: Flight, storage_keys: Sequence[str]) -> Steps[dict[str, Any]]:
        """Return the values of these keys, computed and stored; or those that others have stored meanwhile."""
        raise NotImplementedError

    @property
    def typed(self) -> Sequence[Any]:
        """The keys as the caller typed them, in the order of the storage keys."""
        return [self._function.key]

    def note_misses(self) -> None:
        """Count the keys as misses."""
        self.counters.misses += len(self.storage_keys)
        self._function.counts.misses += 1
        if (moment := time.perf_counter()) >= self.counters.look_at:
            self.counters.look(moment)
        if self.terms.families is not None:
            self.terms.families.add_misses(self.typed)

    def note_wait(self) -> None:
        """Count a wait for the computation of another."""
        self.counters.waited += 1
        self._function.counts.waited += 1

    def note_answered_miss(self) -> None:
        """Count a miss whose caller gets a value."""
        self._function.counts.answered_misses += 1

    def note_sets(self, storage_keys: Sequence[str]) -> None:
        """Count entries that were written."""
        self.counters.sets += len(storage_keys)
        self.hooks.engine.look_for_storm()
        if self.terms.families is not None:
            typed = dict(zip(self.storage_keys, self.typed, strict=True))
            self.terms.families.add_sets([typed[key] for key in storage_keys])

    def _called(self, flight: Flight, *args: Any) -> Steps[Any]:
        """Return the result of the function, and count it: each value of a mapping, where that is asked for."""
        function, families = self._function, self.terms.families
        try:
            result = yield AROUND[0](function, self) if AROUND else function, "call", (flight, *args)
        except BaseException as error:
            is_own = isinstance(error, Exception) and not is_from_outside(error)
            self.counters.failed += is_own
            self.counters.abandoned += not is_own
            function.counts.failed += is_own
            if is_own and families is not None:
                families.of(self.typed[0]).failed += 1
            if is_own and function.seconds >= self.terms.slow_seconds:
                note_slow(self, function, error)
            raise
        if function.is_computed:
            if function.seconds >= self.terms.slow_seconds:
                note_slow(self, function)
            keys = list(result) if args and isinstance(result, Mapping) else self.typed
            self.counters.computed += len(keys)
            self.counters.compute_seconds += function.seconds
            function.counts.add_computed(function.seconds)
            if families is not None and keys:
                families.add_computed(keys, function.seconds)
        return result

    def _versions(self) -> Steps[tags.Versions | None]:
        """Return the tags' versions of now: to invalidate a tag during the computation makes the entry a miss.

        None if they cannot be written now.
        """
        if not self.terms.tag_keys:
            return {}
        with unstored.Caught() as caught, room_needed():
            return (yield from tags.current_versions(self.hooks, self.terms.tag_keys))
        self._compute_without(caught.error)
        return None

    def _raise_refusal(self) -> None:
        """Raise the error for which a lease, or the tags' versions, could not be written, if there is one."""
        if self._refusal is not None:
            raise self._refusal

    def _attempt(self, hook: str, *args: Any) -> Steps[Any]:
        """Return the answer of a hook that is to take leases; None if it fails: each computes for itself then."""
        with unstored.Caught() as caught, room_needed():
            return (yield self._whole, "make", (hook, *args))
        self._compute_without(caught.error)
        return None

    def _compute_without(self, error: Exception) -> None:
        """Note why a lease, or the tags' versions, could not be written: the value is computed all the same."""
        if self.terms.raises or self.terms.needs_storage:
            raise error
        self._refusal = error

    def _returned(self, storage_key: str, value: Any, error: Exception) -> None:
        """Note that a value is returned and not stored; raise the error instead, if the terms say so."""
        if self.terms.raises:
            self.counters.refuse(unstored.reason_of(error))
            raise error
        unstored.note(self.counters, storage_key, value, error, self._function.origin)
        unstored.remember(self.hooks.engine, storage_key, error)

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
        key: as the caller typed it.
        seconds: the duration of the last call.
        counts: where its calls are counted beside the cache's counters.
    """

    def __init__(self, function: Any, key: object) -> None:
        self._function, self.key = function, key
        self.seconds, self.counts = 0.0, CountedFunction.of(function)

    @property
    def is_computed(self) -> bool:
        """Whether there is something to compute."""
        return callable(self._function)

    @property
    def origin(self) -> str:
        """The function's name, for the log."""
        function = getattr(self._function, "func", self._function)  # a partial's
        if self.counts is not NOT_COUNTED:
            function = self.counts.uncached  # a @cached function's
        name = getattr(function, "__qualname__", None)
        return f"{function.__module__}.{name}" if name else "get_or_set() without a function"

    def call(self, flight: Flight, *args: Any) -> Any:
        """Call the function within a flight; an awaitable that it returns is awaited if no loop is to be had."""
        with self._within(flight):
            value = self._function(*args) if callable(self._function) else self._function
            if flight.is_moved and hasattr(type(value), "__await__"):
                return sys.modules["asyncio"].run(_awaited(value))  # loaded, as the caller was asynchronous
        if isinstance(value, Coroutine):
            value.close()
            raise TypeError(f"get_or_set() of key {self.key!r} was given a coroutine function; use aget_or_set().")
        return value

    async def acall(self, flight: Flight, *args: Any) -> Any:
        """See call(); an awaitable that the function returns is awaited."""
        with self._within(flight):
            value = self._function(*args) if callable(self._function) else self._function
            return await value if hasattr(type(value), "__await__") else value

    @contextmanager
    def _within(self, flight: Flight) -> Iterator[None]:
        outer, begun = computing.set(flight), time.monotonic()
        flight.begin()
        try:
            yield
        finally:
            with _IN_ANOTHER_CONTEXT:
                computing.reset(outer)
            self.seconds = time.monotonic() - begun


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value
