"""Which items have expired: an index by deadline that is cheap to keep.

Most caches give most entries the same timeout, so deadlines arrive in order: those go to the
tail of a queue, and only the others pay for a heap. Changing an item's deadline to a later one
costs nothing: its old place is looked at when it comes due, and the item is moved then. Places
that have become stale are dropped when they come due, or all at once when there are many.

Not thread-safe: the caller holds a lock.
"""

from __future__ import annotations

import math
from collections import deque
from heapq import heapify, heappop, heappush
from typing import Generic, Protocol, TypeVar

NOWHERE = math.nan
"""The ``indexed`` of an item that has left: equal to no deadline, so each of its places is stale."""

_SLACK = 64
"""Stale places kept before the first compaction; keeps small indexes from compacting often."""


class Indexed(Protocol):
    """What an item needs to be kept in an `ExpiryIndex`."""

    expires_at: float
    """When the item expires, absolute; ``math.inf`` for never. The owner's to change."""
    indexed: float
    """The deadline of the item's valid place: never after ``expires_at``. Starts as ``math.inf``."""


Item = TypeVar("Item", bound=Indexed)


class ExpiryIndex(Generic[Item]):
    """Items by deadline.

    A place is valid while its deadline equals the item's ``indexed``. To take an item out, set its
    ``indexed`` to `NOWHERE`.

    Attributes:
        due: nothing expires before this moment; ``math.inf`` when nothing ever does. Compare it
            with the present before calling `pop_expired`.
    """

    __slots__ = ("_deadlines", "_heap", "_items", "_last", "_pushed", "_room", "due")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.due = math.inf
        # Two parallel queues rather than one of pairs: 48 bytes less for each item.
        self._deadlines: deque[float] = deque()
        self._items: deque[Item] = deque()
        self._last = -math.inf
        self._heap: list[tuple[float, int, Item]] = []
        self._pushed = 0
        self._room = _SLACK

    def __len__(self) -> int:
        """Return the number of places, stale ones included."""
        return len(self._deadlines) + len(self._heap)

    def add(self, item: Item) -> None:
        """Give an item a place at its ``expires_at``.

        Needed only if ``item.expires_at < item.indexed``. Cost: amortised constant when deadlines
        arrive in order, else logarithmic.
        """
        deadline = item.indexed = item.expires_at
        if deadline >= self._last:
            self._last = deadline
            self._deadlines.append(deadline)
            self._items.append(item)
        else:
            self._pushed += 1  # breaks ties, since items have no order
            heappush(self._heap, (deadline, self._pushed, item))
        if deadline < self.due:
            self.due = deadline
        self._room -= 1
        if self._room < 0:
            self._compact()

    def pop_expired(self, now: float) -> Item | None:
        """Remove and return an item that has expired by `now`, or None when there is none."""
        while (place := self._pop_due(now)) is not None:
            deadline, item = place
            if item.indexed != deadline:
                continue
            item.indexed = math.inf
            if item.expires_at <= now:
                return item
            if item.expires_at < math.inf:
                self.add(item)
        return None

    def _pop_due(self, now: float) -> tuple[float, Item] | None:
        if self._deadlines and self._deadlines[0] <= now:
            self._room += 1
            return self._deadlines.popleft(), self._items.popleft()
        if self._heap and self._heap[0][0] <= now:
            self._room += 1
            deadline, _, item = heappop(self._heap)
            return deadline, item
        self._find_due()
        return None

    def _find_due(self) -> None:
        queued = self._deadlines[0] if self._deadlines else math.inf
        heaped = self._heap[0][0] if self._heap else math.inf
        self.due = min(queued, heaped)

    def _compact(self) -> None:
        """Drop stale places; after it as many may be added as are left, so the cost is amortised."""
        valid = [
            (deadline, item)
            for deadline, item in zip(self._deadlines, self._items, strict=True)
            if item.indexed == deadline
        ]
        self._deadlines = deque([deadline for deadline, _ in valid])
        self._items = deque([item for _, item in valid])
        self._last = self._deadlines[-1] if self._deadlines else -math.inf
        self._heap = [place for place in self._heap if place[2].indexed == place[0]]
        heapify(self._heap)
        self._find_due()
        self._room = len(self) + _SLACK
