"""Which items have expired: an index by deadline that is cheap to keep.

Most caches give most entries the same timeout, so deadlines arrive in order: those go to the tail of a queue, and only
the others pay for a heap. Moving a deadline to later costs nothing: the old position is looked at when it comes due,
and the item gets its new one then. Stale positions are dropped when they come due, or in passes over all positions, a
few with each addition: none pays for a million.

Not thread-safe: the caller holds a lock.
"""

import math
from _heapq import heappop, heappush  # the C module alone
from collections import deque
from collections.abc import Iterable
from itertools import chain
from operator import attrgetter
from typing import Final

from storeroom.eviction.collector import Untrack
from storeroom.eviction.entry import Entry
from storeroom.eviction.shards import Debris

__all__ = ["NEVER", "NOWHERE", "ExpiryIndex"]

NEVER: Final = math.inf
"""The ``expires_at`` of an item that does not expire."""

NOWHERE: Final = math.nan
"""The ``indexed`` of an item that has left: equal to no deadline, so that all its positions are stale."""

_SLACK: Final = 64
"""Positions that may be stale in any index: keeps a small one from being compacted often."""

_STEP: Final = 64
"""Positions of the queue, and of the heap, that a pass looks at with each addition."""


class ExpiryIndex:
    """Items by deadline.

    To take an item out, set its ``indexed`` to `NOWHERE`.

    Attributes:
        due: nothing expires before this moment; `NEVER` when nothing does at all. Comparing it
            with the present saves a call of `pop_expired`.
    """

    __slots__ = ("_heaps", "_last", "_pushed", "_queues", "_room", "_untrack", "due")

    def __init__(self) -> None:
        self._queues: list[tuple[deque[float], deque[Entry]]] = []
        self._heaps: list[list[tuple[float, int, Entry]]] = []
        self._untrack: Untrack | None = None
        self.clear()

    def clear(self) -> Debris:
        """Forget everything; return what is to be freed."""
        debris: Debris = [*chain(*self._queues), *self._heaps]
        # The first of each takes what is added; the second has what the pass under way has looked at, which is older.
        # Two queues side by side rather than one of pairs: 48 bytes less for each item.
        self._queues = [(deque(), deque()), (deque(), deque())]
        self._heaps = [[], []]
        self.due = NEVER
        self._last = -math.inf
        self._pushed = 0
        self._room = _SLACK
        return debris

    def __len__(self) -> int:
        """Return the number of positions, stale ones included."""
        return sum(len(deadlines) for deadlines, _ in self._queues) + sum(map(len, self._heaps))

    def add(self, item: Entry) -> None:
        """Give an item a position at its ``expires_at``.

        Needed only if ``expires_at < indexed``. Cost: amortised constant when deadlines arrive in
        order, else logarithmic.
        """
        deadline = item.indexed = item.expires_at
        if deadline >= self._last:
            self._last = deadline
            deadlines, items = self._queues[0]
            deadlines.append(deadline)
            items.append(item)
        else:
            self._pushed += 1  # decides between equal deadlines: items have no order
            position = (deadline, self._pushed, item)
            if self._untrack is not None:
                self._untrack(id(position))
            heappush(self._heaps[0], position)
        if deadline < self.due:  # noqa: PLR1730 -- calling min() takes five times as long
            self.due = deadline
        self._room -= 1
        if self._room < 0:
            self._drop_stale()

    def trim(self) -> None:
        """Let go of stale positions that come first: cheaper by and by than all at once."""
        for deadlines, items in self._queues:
            while deadlines and items[0].indexed != deadlines[0]:
                deadlines.popleft()
                items.popleft()
                self._room += 1

    def begin_untracking(self, untrack: Untrack) -> list[tuple[float, int, Entry]]:
        """Keep all positions to come from the garbage collector; return those to be kept from it."""
        self._untrack = untrack
        for kept in (*self._heaps, *chain(*self._queues)):
            untrack(id(kept))
        return list(chain(*self._heaps))

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
        for deadlines, items in self._queues:
            if deadlines and deadlines[0] <= now:
                self._room += 1
                return deadlines.popleft(), items.popleft()
        for heap in self._heaps:
            if heap and heap[0][0] <= now:
                self._room += 1
                deadline, _, item = heappop(heap)
                return deadline, item
        self._find_due()
        return None

    def _find_due(self) -> None:
        queued = [deadlines[0] for deadlines, _ in self._queues if deadlines]
        heaped = [heap[0][0] for heap in self._heaps if heap]
        self.due = min([*queued, *heaped], default=NEVER)

    def _drop_stale(self) -> None:
        """Look at some positions, and at the end of a pass let as many be added as are left.

        So the cost of an addition is constant. The last position of a heap can be taken without another one moving.
        """
        (deadlines, items), (kept_deadlines, kept_items) = self._queues
        for _ in range(min(_STEP, len(deadlines))):
            deadline, item = deadlines.popleft(), items.popleft()
            if item.indexed == deadline:
                kept_deadlines.append(deadline)
                kept_items.append(item)
        heap, kept_heap = self._heaps
        for _ in range(min(_STEP, len(heap))):
            position = heap.pop()
            if position[2].indexed == position[0]:
                heappush(kept_heap, position)
        if not deadlines and not heap:
            self._queues.reverse()
            self._heaps.reverse()
            self._last = kept_deadlines[-1] if kept_deadlines else -math.inf
            self._find_due()
            self._room = len(self) + _SLACK

    def rebuild(self, items: Iterable[Entry]) -> None:
        """Give these items a position each, and forget all others, as a change was cut short. Cost: a sort."""
        self.clear()
        ordered = sorted(items, key=attrgetter("expires_at"))
        while ordered and ordered[-1].expires_at == NEVER:
            ordered.pop().indexed = NEVER
        for item in ordered:
            item.indexed = item.expires_at
        deadlines, queued = self._queues[0]
        deadlines.extend([item.expires_at for item in ordered])
        queued.extend(ordered)
        self._last = deadlines[-1] if deadlines else -math.inf
        self._find_due()
        self._room = len(self) + _SLACK

    def check_invariants(self, items: list[Entry]) -> None:
        """Raise AssertionError if the index of these items is not as it should be. For tests; linear."""
        positions = {(item.indexed, id(item)) for item in items if item.indexed != NEVER}
        queue = [position for queued in reversed(self._queues) for position in zip(*queued, strict=True)]
        heaped = [(deadline, item) for heap in self._heaps for deadline, _, item in heap]
        kept = {(deadline, id(item)) for deadline, item in queue + heaped}
        promises = {
            "an item is never indexed later than it expires": all(item.indexed <= item.expires_at for item in items),
            "an indexed item has its position": positions <= kept,
            "an item that expires is indexed": all(item.indexed < NEVER for item in items if item.expires_at < NEVER),
            "the queue is in order": [deadline for deadline, _ in queue] == sorted(deadline for deadline, _ in queue),
            "nothing comes due before due": all(deadline >= self.due for deadline, _ in kept),
        }
        if broken := [promise for promise, holds in promises.items() if not holds]:
            raise AssertionError(f"The expiry index has broken these promises: {broken}")
