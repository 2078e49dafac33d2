"""The changes that a unit of work has made to the cache, and nobody else has seen yet.

They are kept in *segments*, in order. A savepoint begins one, and its rollback removes it and those after it. Within a
segment there is one change for each entry, the net effect of all operations on it; changes of a stored value (a
counter, a timeout) stay relative: they can be made to any value that is stored when the database has committed.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from storeroom import timeouts
from storeroom.engines.flights import Flights
from storeroom.locks import reentrant
from storeroom.storage.hooks import MISSING, StorageHooks
from storeroom.storage.overlay import Slot

__all__ = ["Change", "Kind", "Segment", "Unit", "View"]

_ATTEMPTS: Final = 1000
"""Times that a change is made, before it is noted whatever another thread has noted meanwhile."""


class Kind(Enum):
    """The operation on an entry after the commit."""

    SET = "stored, over anything that is there"
    ADD = "stored, if nothing is there"
    DELETE = "removed"
    INVALIDATE = "removed, being a tag's version"
    AMEND = "counted, or given another expiry, if it is there"
    COUNT = "counted, or created"
    SWAP = "stored over the value that was there, and no other"
    COMPUTED = "stored over its fence, if nobody has touched that"


@dataclass(frozen=True, slots=True)
class Change:
    """The net effect of a segment on an entry."""

    kind: Kind
    below: StorageHooks  # carry it out
    handle: Any  # the cache
    frozen: Any = None  # a copy of the value
    expires_at: float | None = timeouts.NEVER  # None, for AMEND alone, where it expires as before
    delta: float = 0  # added by AMEND and COUNT
    start: float = 0  # the number that COUNT starts from
    # The value that has to be there: for COMPUTED the fence, or None if it has none. Of a clear() the cache's KeySpace.
    expected: Any = None
    under: "Change | None" = None  # made in place of COMPUTED without a fence

    @property
    def removes(self) -> bool:
        """Whether nothing is there afterwards."""
        return self.kind in (Kind.DELETE, Kind.INVALIDATE)

    def value(self, storage_key: str) -> Any:
        """Return the value that is there afterwards, where that does not depend on the stored one."""
        if self.kind is Kind.COUNT:
            return self.start + self.delta
        return self.handle._thaw(storage_key, self.frozen)


@dataclass(slots=True, eq=False)
class Segment:
    """A part of a unit of work that is kept or dropped as a whole."""

    changes: OrderedDict[Slot, Change] = field(default_factory=OrderedDict)  # in the order of the last operations
    clears: Change | None = None  # removes all entries of a cache first
    savepoint: Any = None  # its unit's own note of the savepoint that it belongs to

    def has_cleared(self, slot: Slot) -> bool:
        """Tell whether clear() has removed the entry."""
        if self.clears is None:
            return False
        return slot[0] is self.clears.handle.engine and bool(self.clears.expected.owns(slot[1]))


@dataclass(frozen=True, slots=True)
class View:
    """An entry as the unit of work sees it."""

    change: Change | None = None  # the one that holds its value; None if the storage does
    is_absent: bool = False  # whether the unit of work has removed it
    delta: float = 0  # the number added since
    expires_at: float | None = None  # the expiry it was given since; None if none

    @property
    def is_below(self) -> bool:
        """Whether the storage has to be asked."""
        return self.change is None and not self.is_absent

    @property
    def expiry(self) -> float:
        """When the entry expires, if the storage need not be asked."""
        own = None if self.change is None else self.change.expires_at
        return self.expires_at if self.expires_at is not None else timeouts.NEVER if own is None else own

    @property
    def has_expired(self) -> bool:
        """Whether its time is over, as far as the storage need not be asked."""
        return self.expiry <= timeouts.now()

    def value(self, storage_key: str, stored: Any = MISSING) -> Any:
        """Return the value, or MISSING. If the storage has to be asked, `stored` is the one that it has."""
        if self.has_expired:
            return MISSING
        value = stored if self.change is None else self.change.value(storage_key)
        return value + self.delta if self.delta and value is not MISSING else value


class Unit:
    """The changes of one unit of work. Its tasks and threads share it.

    No code of a value runs under its lock: neither one that is made into bytes, nor one that is freed.

    Attributes:
        is_open: whether writes are held back. After a rollback they are, for ever: a computation that
            goes on, with data that was never true, stores nothing.
        has_ended: whether new operations are none of its own.
        taken: segments that were taken last.
    """

    def __init__(self) -> None:
        self._segments: list[Segment] = []
        self.taken: list[Segment] = []
        self._flights: dict[object, Flights] = {}
        self.lock = reentrant()
        self.is_open = True
        self.has_ended = False

    def flights(self, storage: object) -> Flights:
        """Return the computations under way in this unit: nobody else waits for values that depend on its changes."""
        with self.lock:
            return self._flights.setdefault(storage, Flights())

    def segments(self) -> list[Segment]:
        """Return those that count, in order."""
        return self._segments

    def begin(self, clears: Change | None = None) -> Segment:
        """Begin a segment."""
        segment = Segment(clears=clears)
        self._segments.append(segment)
        return segment

    def current(self) -> Segment:
        """Return the segment that changes go to now."""
        segments = self.segments()
        return segments[-1] if segments else self.begin()

    def drop_from(self, count: int) -> None:
        """Drop all segments but so many."""
        with self.lock:
            dropped = self._segments[count:]  # they live until the lock is given back, here and below
            del self._segments[count:]
        dropped.clear()

    def take(self) -> list[Segment]:
        """Return all segments, to be applied, and begin anew."""
        before = self.taken
        with self.lock:
            self.taken, self._segments = self._segments, []
        del before
        return self.taken

    def view(self, slot: Slot) -> View:
        """Return an entry as the unit of work sees it."""
        delta: float = 0
        expires_at: float | None = None
        segments = self.segments()
        with self.lock:
            for segment in reversed(segments):
                change = segment.changes.get(slot)
                if change is None:
                    if segment.has_cleared(slot):
                        return View(is_absent=True)
                elif change.kind is Kind.AMEND:
                    delta += change.delta
                    expires_at = change.expires_at if expires_at is None else expires_at
                elif change.removes:
                    return View(is_absent=True)
                else:
                    return View(change, False, delta, expires_at)
        return View(None, False, delta, expires_at)

    def record(self, slot: Slot, make: Callable[[Change | None], Change | None]) -> None:
        """Note a change as the last one, made of the one that the current segment has for the entry; or none.

        It is made anew where another thread, or the value's own code, has changed the entry meanwhile.
        """
        for left in reversed(range(_ATTEMPTS)):
            self.segments()  # lets go of those that have been rolled back
            with self.lock:
                changes = self.current().changes
                before = changes.get(slot)
            change = make(before)
            with self.lock:
                now = self.current().changes
                if not left or (now is changes and now.get(slot) is before):
                    _note(now, slot, change)
                    return

    def slots(self) -> Iterable[Slot]:
        """Return the entries that there are changes for."""
        segments = self.segments()
        with self.lock:
            return list(dict.fromkeys(slot for segment in segments for slot in segment.changes))


def _note(changes: OrderedDict[Slot, Change], slot: Slot, change: Change | None) -> None:
    if change is None:
        changes.pop(slot, None)
    else:
        changes[slot] = change
        changes.move_to_end(slot)
