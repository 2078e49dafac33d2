"""The share of a cache that new entries get, and the lessons that move it.

The policy (`storeroom.eviction.s3fifo`) keeps new entries in one queue, small, and proven ones in another,
main. The share that serves best differs by more than tenfold: where most keys are asked for once, small has
to be short; where each key lives for a while, as sessions do, it has to be long.

A **return** is a key that is asked for, or written again, after it was evicted. One that left small soon
before makes small larger, one that left main soon before makes it smaller. A read that misses teaches as a
write does, since not every program refills; where nothing is refilled, each further miss of the key teaches
again, for each is a hit that was lost.

Returns are too late a lesson for two kinds of traffic, which the entries themselves tell: when the oldest of
small have nearly all been used and those of main have not, small gets most of the room; and when misses are
not refilled, and a good part of the oldest of small have been used, small keeps the share that it begins with.

Figures: docs/decisions/0020-eviction.md.
"""

from typing import Final

__all__ = ["MISSED", "TAUGHT", "Share"]

TAUGHT: Final = 1
"""Flag of an evicted key: it has returned soon, and moved the share."""
MISSED: Final = 2
"""Flag of an evicted key: it was read, and not written since."""

_START: Final = 0.55
"""The share at first, and at the most: a key that is read half a turnover after it was written is still there."""
_LEAST: Final = 0.02
_IDLE: Final = 0.05
"""The share that small falls to where nothing returns."""
_LIVELY: Final = 0.8
"""The share where small is used and main is not."""
_SOON: Final = 0.05
"""A return within so many evictions counts as soon, as a part of the capacity; and the longest window."""
_DOWN_STEP: Final = 1.5
"""A step down, in steps up: losing a proven entry is worse than losing a new one."""
_UNFILLED_STEP: Final = 0.4
"""A step up where nothing is refilled, likewise: a proven entry that is lost is lost for good."""
_FALL: Final = 0.1
"""Entries that small gets shorter by, with each eviction, while nothing has returned for a whole turnover."""


class Share:
    """How many entries small holds.

    Attributes:
        capacity: entries that the cache is expected to hold; ``math.inf`` if there is no bound.
        target: entries that small aims at by the returns.
        window: entries of small that are too young for their hits to count.
        soon: a return within so many evictions moves the target.
        rate: weight of the latest entry in the two averages that follow.
        small_used: share of the oldest of small that were used, of late.
        main_used: likewise of main.
        refilled: share of the misses of evicted keys that were followed by a write, of late.
        idle: evictions since the last lesson.
    """

    __slots__ = (
        "_least",
        "_step",
        "capacity",
        "idle",
        "main_used",
        "rate",
        "refilled",
        "small_used",
        "soon",
        "target",
        "window",
    )

    def __init__(self, capacity: float) -> None:
        self.target = self.capacity = 1.0
        self.reset(capacity)

    def reset(self, capacity: float) -> None:
        """Forget all lessons."""
        self.small_used = self.main_used = self.idle = 0.0
        self.refilled = 0.68
        self.target, self.capacity = _START, 1.0
        self.resize(capacity)

    def resize(self, capacity: float) -> None:
        """Change the capacity; small keeps its share."""
        share = _START if self.capacity == float("inf") else self.target / self.capacity
        self.capacity = capacity
        self.soon = _SOON * capacity
        self.rate = 1 / max(8.0, capacity / 10)
        self._least = max(1.0, _LEAST * capacity)
        self._step = min(max(capacity / 100, 1.0), 8.0)
        self.aim(share * capacity)

    def aim(self, target: float) -> None:
        """Set the target, within its bounds."""
        self.target = min(max(target, self._least), max(self._least, _START * self.capacity))
        self.window = min(self.soon, self.target / 2)

    def room(self) -> float:
        """Return how many entries small may hold at present."""
        used = self.small_used
        if used > 0.5 and used - self.main_used > 0.25:
            return max(self.target, _LIVELY * self.capacity)
        if used > 0.3 and self.refilled < 0.5:
            return max(self.target, _START * self.capacity)
        return self.target

    def learn(self, age: float, flags: int, *, from_main: bool, is_read: bool) -> int:
        """Learn from an evicted key that is asked for or written; return its new flags.

        Args:
            age: evictions from its queue since its own.
            flags: what is known of it, `TAUGHT` and `MISSED`.
            from_main: whether it was evicted from main.
            is_read: whether it was read; else it is being written.
        """
        if not is_read:
            if flags & MISSED:
                self.refilled += (1 - self.refilled) * 0.05
        elif not flags & MISSED:
            self.refilled -= self.refilled * 0.025
            flags |= MISSED
        if flags & TAUGHT:
            if not is_read or self.refilled >= 0.5:
                return flags
        elif age >= self.soon:
            return flags
        self.idle = 0.0
        if from_main:
            self.aim(self.target - _DOWN_STEP * self._step)
        else:
            self.aim(self.target + self._step * (_UNFILLED_STEP if self.refilled < 0.5 else 1))
        return flags | TAUGHT

    def pass_unused(self) -> None:
        """Note that an entry left small unused: where no key returns for a turnover, small falls."""
        self.idle += 1
        if self.idle > self.capacity and self.target > _IDLE * self.capacity:
            self.aim(self.target - _FALL)
