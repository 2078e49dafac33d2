"""Which items have expired: an index by deadline that is cheap to keep.

Most caches give most entries the same timeout, so deadlines arrive in order: those go to the tail of a queue, and only
the others pay for a heap. Moving a deadline to later costs nothing: the old position is looked at when it comes due,
and the item gets its new one then. Stale positions are dropped when they come due, or all at once when there are many.

Not thread-safe: the caller holds a lock.
"""

import math
from collections import deque
from heapq import heapify, heappop, heappush
from itertools import compress
from typing import Final

from storeroom.eviction.entry import Entry

__all__ = ["NEVER", "NOWHERE", "ExpiryIndex"]

NEVER: Final = math.inf
"""The ``expires_at`` of an item that does not expire."""

NOWHERE: Final = math.nan
"""The ``indexed`` of an item that has left: equal to no deadline, so that all its positions are stale."""

_SLACK: Final = 64
"""Positions that may be stale in any index: keeps a small one from being compacted often."""


class ExpiryIndex:
    """Items by deadline.

    To take an item out, set its ``indexed`` to `NOWHERE`.

    Attributes:
        due: nothing expires before this moment; `NEVER` when nothing does at all. Comparing it
            with the present saves a call of `pop_expired`.
    """

    __slots__ = ("_deadlines", "_heap", "_items", "_last", "_pushed", "_room", "due")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.due = NEVER
        # Two queues side by side rather than one of pairs: 48 bytes less for each item.
        self._deadlines: deque[float] = deque()
        self._items: deque[Entry] = deque()
        self._last = -math.inf
        self._heap: list[tuple[float, int, Entry]] = []
        self._pushed = 0
        self._room = _SLACK

    def __len__(self) -> int:
        """Return the number of positions, stale ones included."""
        return len(self._deadlines) + len(self._heap)

    def add(self, item: Entry) -> None:
        """Give an item a position at its ``expires_at``.

        Needed only if ``expires_at < indexed``. Cost: amortised constant when deadlines arrive in
        order, else logarithmic.
        """
        deadline = item.indexed = item.expires_at
        if deadline >= self._last:
            self._last = deadline
            self._deadlines.append(deadline)
            self._items.append(item)
        else:
            self._pushed += 1  # decides between equal deadlines: items have no order
            heappush(self._heap, (deadline, self._pushed, item))
        if deadline < self.due:  # noqa: PLR1730 -- calling min() takes five times as long
            self.due = deadline
        self._room -= 1
        if self._room < 0:
            self._compact()

    def pop_expired(self, now: float) -> Entry | None:
        """Remove and return an item that has expired by `now`, or None if there is none."""
        while (position := self._pop_due(now)) is not None:
            deadline, item = position
            if item.indexed != deadline:
                continue
            item.indexed = NEVER
            if item.expires_at <= now:
                return item
            if item.expires_at < NEVER:
                self.add(item)
        return None

    def _pop_due(self, now: float) -> tuple[float, Entry] | None:
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
        queued = self._deadlines[0] if self._deadlines else NEVER
        heaped = self._heap[0][0] if self._heap else NEVER
        self.due = min(queued, heaped)

    def _compact(self) -> None:
        """Drop stale positions; then let as many be added as are left, which makes the cost constant per addition."""
        positions = zip(self._deadlines, self._items, strict=True)
        valid = [item.indexed == deadline for deadline, item in positions]
        self._deadlines = deque(compress(self._deadlines, valid))
        self._items = deque(compress(self._items, valid))
        self._last = self._deadlines[-1] if self._deadlines else -math.inf
        self._heap = [position for position in self._heap if position[2].indexed == position[0]]
        heapify(self._heap)
        self._find_due()
        self._room = len(self) + _SLACK

    def check_invariants(self, items: list[Entry]) -> None:
        """Raise AssertionError if the index of these items is not as it should be. For tests; linear."""
        positions = {(item.indexed, id(item)) for item in items if item.indexed != NEVER}
        kept = {*zip(self._deadlines, map(id, self._items), strict=True)}
        kept |= {(deadline, id(item)) for deadline, _, item in self._heap}
        promises = {
            "an item is never indexed later than it expires": all(item.indexed <= item.expires_at for item in items),
            "an indexed item has its position": positions <= kept,
            "an item that expires is indexed": all(item.indexed < NEVER for item in items if item.expires_at < NEVER),
            "the queue is in order": list(self._deadlines) == sorted(self._deadlines),
            "nothing comes due before due": all(deadline >= self.due for deadline, _ in kept),
            "stale positions are bounded": self._room >= 0,
        }
        if broken := [promise for promise, holds in promises.items() if not holds]:
            raise AssertionError(f"The expiry index has broken these promises: {broken}")
