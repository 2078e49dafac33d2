"""Which entry to evict: windowed, adaptive S3-FIFO.

A hit only bumps a counter that saturates at 2; ranks are worked out when room is needed. New
entries pass through a small queue, and those used again go on to the main one::

    new ──► young ──► old ── used ──► main ◄─┐ used: counter - 1
             counter   │               │  └──┘
             cleared   ▼ unused        ▼ unused
                     ghost           near          hashes of evicted keys

Three things differ from S3-FIFO. Hits that follow an insertion closely say nothing about later use:
the counter is cleared between young and old. The small queue's share adapts: a key that returns
soon after it left small makes small larger, one that returns soon after it left main makes small
smaller. And until the first eviction, what exceeds small's share goes to main; without that, a loop
over more keys than small holds would never hit.

Sources: S3-FIFO, SOSP 2023, doi 10.1145/3600006.3613147; the window, Clock2Q+, arXiv 2511.21958; the
adaptation, ARC, FAST 2003; the filling, libCacheSim. Constants and figures:
docs/decisions/0020-eviction.md.

Not thread-safe: the caller holds a lock, except for bumping ``freq``.
"""

import math
from collections import deque
from typing import Final, Generic, Protocol, TypeVar

__all__ = ["MOST_HITS", "AdaptiveS3Fifo", "Ranked"]

YOUNG: Final = 0
OLD: Final = 1
MAIN: Final = 2
REMOVED: Final = 3

_SMALL_SHARE: Final = 0.05
"""Small's share of the capacity at the start. Of the capacity as well: the longest window (young),
and how many evictions ago a return counts as soon."""
_LEAST_SHARE: Final = 0.02
_LARGEST_SHARE: Final = 0.5
_GHOST_SHARE: Final = 0.9
MOST_HITS: Final = 2
"""Where the counter of hits saturates."""
_DOWN_STEP: Final = 1.5
"""A step down, in steps up: losing a proven entry is worse than losing a new one."""
_PATIENCE: Final = 128
"""Used entries of main passed over in one eviction: bounds the time under the lock."""
_SLACK: Final = 64
"""Removed entries that may be left in any queues: keeps small ones from being compacted often."""


class Ranked(Protocol):
    """What the policy needs of an entry."""

    key: str
    freq: int
    """Hits since the entry was last looked at, 0 to 2. Bumped by hits, without the lock."""
    queue: int
    """YOUNG, OLD, MAIN or REMOVED: the policy's."""


RankedT = TypeVar("RankedT", bound=Ranked)


class Ghosts:
    """The hashes of the last keys evicted from one queue, each with its number.

    In two generations: when the recent one fills the window it becomes the previous one, and the
    one before is dropped. That is half the cost of a queue beside a dict, for about the same memory.

    Attributes:
        window: how many evictions back a key is known.
        recent, previous: dicts from hash to number; some may be out of the window.
    """

    __slots__ = ("_evicted", "previous", "recent", "window")

    def __init__(self) -> None:
        self.window = 0.0
        self.clear()

    def clear(self) -> None:
        """Forget all keys."""
        self._evicted = 0
        self.recent: dict[int, int] = {}
        self.previous: dict[int, int] = {}

    def resize(self, window: float) -> None:
        """Change the window."""
        if window < self.window:
            known = {**self.previous, **self.recent}
            self.previous = {hashed: number for hashed, number in known.items() if self._evicted - number <= window}
            self.recent = {}
        self.window = window

    def add(self, hashed: int) -> None:
        """Remember a key that is being evicted."""
        number = self._evicted
        recent = self.recent
        recent[hashed] = number
        self._evicted = number + 1
        if len(recent) >= self.window:
            self.previous = recent
            self.recent = {}

    def take(self, hashed: int) -> float:
        """Forget a key; return how many evictions ago it went, or ``math.inf`` if that is not known."""
        number = self.recent.pop(hashed, None)
        if number is None:
            number = self.previous.pop(hashed, None)
            if number is None:
                return math.inf
        age = self._evicted - number
        return age if age <= self.window else math.inf


class AdaptiveS3Fifo(Generic[RankedT]):
    """The order of eviction.

    Args:
        capacity: how many entries are expected to be kept; ``math.inf`` if there is no bound.
    """

    __slots__ = (
        "_filling",
        "_ghost",
        "_largest",
        "_least",
        "_main",
        "_near",
        "_old",
        "_proven",
        "_small",
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
        """Forget all entries, all evictions, and what was learnt from them."""
        # Removed entries stay in the queues until their turn comes, or until there are many.
        self._young: deque[RankedT] = deque()
        self._old: deque[RankedT] = deque()
        self._main: deque[RankedT] = deque()
        self._small = 0  # entries in young and old, without removed ones
        self._proven = 0  # entries in main, likewise
        self._filling = True
        self._ghost.clear()
        self._near.clear()
        self._target = 0.0
        self.resize(self.capacity)

    def resize(self, capacity: float) -> None:
        """Change the capacity; small keeps its share.

        Entries that came while there was no bound are all taken as proven: they have no rank yet.
        """
        share = _SMALL_SHARE
        if self.capacity == math.inf:
            self._promote_small()
        elif not self._filling:
            share = self._target / self.capacity
        self.capacity = capacity
        self._least = max(1.0, _LEAST_SHARE * capacity)
        self._largest = max(self._least, _LARGEST_SHARE * capacity)
        self._step = min(max(capacity / 100, 1.0), 8.0)
        self._soon = _SMALL_SHARE * capacity
        self._near.resize(_SMALL_SHARE * capacity)
        self._ghost.resize(_GHOST_SHARE * capacity)
        self._aim(share * capacity)

    def _promote_small(self) -> None:
        for queue in (self._old, self._young):
            for entry in queue:
                if entry.queue != REMOVED:
                    entry.queue = MAIN
                    self._main.append(entry)
            queue.clear()
        self._proven += self._small
        self._small = 0

    def _aim(self, target: float) -> None:
        self._target = min(max(target, self._least), self._largest)
        self._window = min(self._soon, self._target / 2)

    def admit(self, entry: RankedT, full: bool) -> RankedT | None:
        """Give a new entry its position; if there is no room, evict another one and return it."""
        hashed = hash(entry.key)
        ghost, near = self._ghost, self._near
        returning = False
        if hashed in ghost.recent or hashed in ghost.previous or hashed in near.recent or hashed in near.previous:
            returning = self._learn(hashed)
        victim = self.evict() if full else None
        if returning or (self._filling and self._small >= self._target):
            entry.queue = MAIN
            self._main.append(entry)
            self._proven += 1
        else:
            entry.queue = YOUNG
            self._young.append(entry)
            self._small += 1
        return victim

    def _learn(self, hashed: int) -> bool:
        """Adapt small's share to an evicted key that returns; return whether it had left small."""
        since_small, since_main = self._ghost.take(hashed), self._near.take(hashed)
        if since_small < self._soon:
            self._aim(self._target + self._step)
        elif since_main < math.inf:
            self._aim(self._target - _DOWN_STEP * self._step)
        return since_small < math.inf

    def evict(self, keep: RankedT | None = None) -> RankedT:  # noqa: C901 -- one loop: calls would double its time
        """Choose the entry to evict, take it out, and return it.

        There must be one besides `keep`, which is spared: if its turn comes, it goes to the tail of
        main. Cost: amortised constant; a step for each recent hit, at most _PATIENCE in main.
        """
        self._filling = False
        young, old, main = self._young, self._old, self._main
        small, proven = self._small, self._proven
        target, window = self._target, self._window
        spared = 1 if keep is not None and keep.queue == MAIN else 0
        patience = _PATIENCE
        while True:
            if small >= target or proven <= spared:
                while len(young) > window or not old:
                    entry = young.popleft()
                    if entry.queue == YOUNG:
                        entry.freq = 0
                        entry.queue = OLD
                        old.append(entry)
                entry = old.popleft()
                if entry.queue == REMOVED:
                    continue
                small -= 1
                if not entry.freq and entry is not keep:
                    self._ghost.add(hash(entry.key))
                    break
                entry.freq = 0
                entry.queue = MAIN
                main.append(entry)
                proven += 1
                if entry is keep:
                    spared = 1
            else:
                entry = main.popleft()
                if entry.queue == REMOVED:
                    continue
                if entry is not keep:
                    if not entry.freq or not patience:
                        proven -= 1
                        self._near.add(hash(entry.key))
                        break
                    patience -= 1
                    entry.freq -= 1
                main.append(entry)
        entry.queue = REMOVED
        self._small, self._proven = small, proven
        return entry

    def remove(self, entry: RankedT) -> None:
        """Take out an entry that goes for another reason than room."""
        if entry.queue == MAIN:
            self._proven -= 1
        else:
            self._small -= 1
        entry.queue = REMOVED
        live = self._small + self._proven
        if len(self._young) + len(self._old) + len(self._main) > 2 * live + _SLACK:
            self._compact()

    def _compact(self) -> None:
        self._young = deque([entry for entry in self._young if entry.queue != REMOVED])
        self._old = deque([entry for entry in self._old if entry.queue != REMOVED])
        self._main = deque([entry for entry in self._main if entry.queue != REMOVED])

    def check_invariants(self, entries: list[RankedT]) -> None:
        """Raise AssertionError if these entries are not ranked as they should be. For tests; linear."""
        queues = {YOUNG: self._young, OLD: self._old, MAIN: self._main}
        live = {name: [entry for entry in queue if entry.queue == name] for name, queue in queues.items()}
        ranked = [id(entry) for name in live.values() for entry in name]
        promises = {
            "each entry has one position": sorted(ranked) == sorted(map(id, entries)),
            "what is in a queue belongs there or was removed": all(
                entry.queue in {name, REMOVED} for name, queue in queues.items() for entry in queue
            ),
            "small is counted": self._small == len(live[YOUNG]) + len(live[OLD]),
            "main is counted": self._proven == len(live[MAIN]),
            "counters are between 0 and 2": all(0 <= entry.freq <= MOST_HITS for entry in entries),
            "small's share is within its bounds": self._least <= self._target <= self._largest,
            "ghosts are bounded": all(
                len(generation) <= max(1.0, ghosts.window + 1)
                for ghosts in (self._ghost, self._near)
                for generation in (ghosts.recent, ghosts.previous)
            ),
        }
        if broken := [promise for promise, holds in promises.items() if not holds]:
            raise AssertionError(f"The eviction policy has broken these promises: {broken}")
