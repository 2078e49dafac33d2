"""Which entry to evict: windowed, adaptive S3-FIFO.

A hit only bumps a counter that saturates at 2; ranks are worked out when room is needed. New
entries pass through a small queue, those used again go on to the main one::

               new ──► young ──► old ──used──► main ◄─┐ used: counter - 1
                         counter │              │  └──┘
                         cleared ▼ unused       ▼ unused
                               ghost           near        hashes of evicted keys

Three things differ from S3-FIFO. Hits that follow an insertion closely say nothing about later use,
so the counter is cleared between young and old. The small queue's share adapts: a key that
returns soon after leaving small makes it larger, one that returns soon after leaving main makes it
smaller. Until the first eviction, what exceeds small's share goes to main, without which a loop
over more keys than small holds would never hit.

Source: S3-FIFO, SOSP 2023, doi 10.1145/3600006.3613147; the window from Clock2Q+, arXiv 2511.21958;
the adaptation from ARC, FAST 2003; the filling rule from libCacheSim. Constants and figures:
docs/decisions/0020-eviction.md.

Not thread-safe: the caller holds a lock, except while bumping ``freq``.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final, Generic, Protocol, TypeVar

YOUNG: Final = 0
OLD: Final = 1
MAIN: Final = 2
REMOVED: Final = 3

_SMALL_SHARE: Final = 0.05
"""Small's share of the capacity at the start; also, as shares of the capacity, the longest window
and what counts as a return soon after an eviction."""
_LEAST_SHARE: Final = 0.02
_LARGEST_SHARE: Final = 0.5
_GHOST_SHARE: Final = 0.9
_DOWN_STEP: Final = 1.5
"""A step down in steps up: main holds the proven entries, so its regrets weigh more."""
_LONGEST_SEARCH: Final = 128
"""Used entries of main passed over in one eviction: bounds the time spent under the lock."""
_SLACK: Final = 64
"""Removed entries left in the queues before the first compaction."""


class Ranked(Protocol):
    """What the policy needs of an entry."""

    key: str
    freq: int
    """Hits since the entry was last looked at, 0 to 2. A hit bumps it without a lock."""
    queue: int
    """YOUNG, OLD, MAIN or REMOVED. The policy's."""


RankedT = TypeVar("RankedT", bound=Ranked)


class Ghosts:
    """The hashes of the last keys evicted from one place, each with its number.

    Two generations: when the recent one has outgrown the window it becomes the previous one, which
    is dropped. Half the cost of a queue of hashes, for about the same memory.
    """

    __slots__ = ("_previous", "_recent", "evicted", "window")

    def __init__(self) -> None:
        self.window = 0.0
        self.clear()

    def clear(self) -> None:
        """Forget all keys."""
        self.evicted = 0
        self._recent: dict[int, int] = {}
        self._previous: dict[int, int] = {}

    def __len__(self) -> int:
        """Return the number of hashes kept, those outside the window included."""
        return len(self._recent) + len(self._previous)

    def add(self, hashed: int) -> None:
        """Remember a key that has just been evicted."""
        recent = self._recent
        recent[hashed] = self.evicted
        self.evicted += 1
        if len(recent) >= self.window:
            self._previous = recent
            self._recent = {}

    def take(self, hashed: int) -> float:
        """Forget a key; return how many evictions ago it went, ``math.inf`` if not in the window."""
        number = self._recent.pop(hashed, None)
        if number is None:
            number = self._previous.pop(hashed, None)
            if number is None:
                return math.inf
        age = self.evicted - number
        return age if age <= self.window else math.inf


class AdaptiveS3Fifo(Generic[RankedT]):
    """The order of eviction.

    Args:
        capacity: how many entries are expected to be kept; ``math.inf`` when there is no bound.
    """

    __slots__ = (
        "_dead",
        "_filling",
        "_ghost",
        "_largest",
        "_least",
        "_main",
        "_near",
        "_old",
        "_soon",
        "_step",
        "_target",
        "_window",
        "_young",
        "capacity",
    )

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self._ghost = Ghosts()
        self._near = Ghosts()
        self.clear()

    def clear(self) -> None:
        """Forget all entries and all evictions."""
        self._young: deque[RankedT] = deque()
        self._old: deque[RankedT] = deque()
        self._main: deque[RankedT] = deque()
        self._dead = [0, 0, 0]  # removed entries still in young, old, main
        self._filling = True
        self._ghost.clear()
        self._near.clear()
        self._target = 0.0
        self.resize(self.capacity)

    def resize(self, capacity: float) -> None:
        """Change the capacity; what has been learnt about small's share is kept.

        When there was none before, all entries are taken as proven: none has a rank yet.
        """
        if self.capacity == math.inf > capacity:
            self._promote_young()
        share = self._target / self.capacity if 0 < self._target < math.inf else _SMALL_SHARE
        self.capacity = capacity
        self._least = max(1.0, _LEAST_SHARE * capacity)
        self._largest = max(self._least, _LARGEST_SHARE * capacity)
        self._step = min(max(capacity / 100, 1.0), 8.0)
        self._soon = self._near.window = _SMALL_SHARE * capacity
        self._ghost.window = _GHOST_SHARE * capacity
        self._aim(share * capacity)

    def _aim(self, target: float) -> None:
        self._target = min(max(target, self._least), self._largest)
        self._window = min(self._soon, self._target / 2)

    def _promote_young(self) -> None:
        for entry in self._young:
            if entry.queue != REMOVED:
                entry.queue = MAIN
                self._main.append(entry)
        self._young.clear()
        self._dead[YOUNG] = 0

    def recall(self, hashed: int) -> bool:
        """Learn from a key that is about to be inserted; return whether it returns from small."""
        age = self._ghost.take(hashed)
        near = self._near.take(hashed)
        if age < self._soon:
            self._aim(self._target + self._step)
        elif near < math.inf:
            self._aim(self._target - _DOWN_STEP * self._step)
        return age < math.inf

    def admit(self, entry: RankedT, *, returning: bool) -> None:
        """Give a new entry its place."""
        if returning or (self._filling and self._small() >= self._target):
            entry.queue = MAIN
            self._main.append(entry)
        else:
            entry.queue = YOUNG
            self._young.append(entry)

    def _small(self) -> int:
        return len(self._young) + len(self._old) - self._dead[YOUNG] - self._dead[OLD]

    def remove(self, entry: RankedT) -> None:
        """Take an entry out that goes for another reason than room."""
        dead = self._dead
        dead[entry.queue] += 1
        entry.queue = REMOVED
        removed = sum(dead)
        if removed > _SLACK and 2 * removed > self._length() + _SLACK:
            self._compact()

    def _length(self) -> int:
        return len(self._young) + len(self._old) + len(self._main)

    def _compact(self) -> None:
        self._young = deque([entry for entry in self._young if entry.queue != REMOVED])
        self._old = deque([entry for entry in self._old if entry.queue != REMOVED])
        self._main = deque([entry for entry in self._main if entry.queue != REMOVED])
        self._dead = [0, 0, 0]

    def evict(self, keep: RankedT | None = None) -> RankedT:
        """Choose the entry to evict, take it out and return it.

        There must be one besides `keep`, which is passed over if its turn comes: it then goes to
        the tail of main. Cost: amortised constant; a move for each recent hit.
        """
        self._filling = False
        searched = 0
        while True:
            kept = keep is not None and keep.queue == MAIN
            main = len(self._main) - self._dead[MAIN] - kept
            if self._small() >= self._target or main == 0:
                victim = self._advance_small(keep)
            else:
                victim = self._advance_main(keep, searched < _LONGEST_SEARCH)
                searched += 1
            if victim is not None:
                victim.queue = REMOVED
                return victim

    def _advance_small(self, keep: RankedT | None) -> RankedT | None:
        """Move old's head on; return it instead when it is to go."""
        young, old, dead = self._young, self._old, self._dead
        while not old or len(young) - dead[YOUNG] > self._window:
            entry = young.popleft()
            if entry.queue == REMOVED:
                dead[YOUNG] -= 1
            else:
                entry.freq = 0
                entry.queue = OLD
                old.append(entry)
        entry = old.popleft()
        if entry.queue == REMOVED:
            dead[OLD] -= 1
        elif entry.freq or entry is keep:
            entry.freq = 0
            entry.queue = MAIN
            self._main.append(entry)
        else:
            self._ghost.add(hash(entry.key))
            return entry
        return None

    def _advance_main(self, keep: RankedT | None, patient: bool) -> RankedT | None:
        """Move main's head to the tail; return it instead when it is to go."""
        entry = self._main.popleft()
        if entry.queue == REMOVED:
            self._dead[MAIN] -= 1
        elif entry is keep:
            self._main.append(entry)
        elif entry.freq and patient:
            entry.freq -= 1
            self._main.append(entry)
        else:
            self._near.add(hash(entry.key))
            return entry
        return None
