"""The share of a cache that new entries get, and the lessons that move it.

The policy (`storeroom.eviction.s3fifo`) keeps new entries in one queue, small, and proven ones in another, main.
The best share differs by more than tenfold, and is learnt in three ways:

- **Returns.** A key that returns soon after it left small makes small larger; one that left main makes it smaller.
  The more return to small in a row, the longer are the steps. A read that misses teaches as a write does; where nothing
  is refilled, each further miss of the key teaches again.
- **Use**, as returns come too late for some traffic. Where the oldest of small are used and those of main are not,
  small gets most of the room. Where misses are not refilled, it keeps its first share while its oldest are used enough,
  a wider one while those of main are used less and less, and little where they are not, or those of main are instead.
  But where it is small that is read after it was evicted, it has its first share again: its oldest had no time.
  While small's are used, popularity may be changing, and those of main go round once more at the most.
- **Silence.** While no key returns for a turnover, small falls, so that a loop fills main.

Before anything is evicted, **repeated use** teaches: small begins shorter where the oldest are read twice or more.

Reasons and figures: docs/decisions/0020-eviction.md.
"""

import math
from typing import Final

__all__ = ["ALIVE", "BEYOND", "CHANGING", "DRIFT", "FLAGS", "KNOWN", "LOST_RATE", "MISSED", "PROVEN", "TAUGHT", "Share"]

TAUGHT: Final = 1
"""Flag of an evicted key: it has returned soon, and moved the share."""
MISSED: Final = 2
"""Flag of an evicted key: it was read, and not written since."""
FLAGS: Final = TAUGHT | MISSED
PROVEN: Final = 4
"""Flag of an evicted key, for the ghosts alone: it was evicted from main."""

KNOWN: Final = (0.9, 0.3)
"""Evictions from small, and from main, that a key is known for, as parts of the capacity."""
DRIFT: Final = 1.05
"""The expected number of entries may move by this ratio before the share is told: where bytes are bounded, small had a
tenth less than its share."""

_FIRST: Final = 0.55
"""The share at first, and the largest by returns: a key read half a turnover after its write is still there."""
_LEAST: Final = 0.02
_SILENT: Final = 0.05
"""The share that small falls to while nothing returns."""
_LIVELY: Final = 0.8
"""The share where small is used and main is not."""
_HELD: Final = 0.2
_REPEATED: Final = 0.28
"""Where more than this part of the entries that fill main were read twice or more, small begins with `_HELD`: what is
read again and again is to outlive a scan, which cannot be told from entries that are read later."""
_FILL: Final = 2 / 3
"""Entries by which small gets shorter with each of them: so that three go on to main for one that comes. A return among
the first evictions from small takes that back: they were sessions that have ended, and those that go on are lost."""
_FILLED_HITS: Final = 1
"""Hits that an entry takes along to main at the most, while a cache fills: what was read often and is over would
outlive by two rounds what is young and was not read yet; without any, main would know nothing of what it has."""
ALIVE: Final = 0.7
"""Where more than this part of the oldest of small were read, one that was not waits for its first read, as sessions
do: it goes on to main all the same, and while the cache fills, with more hits than one that may be over."""
CHANGING: Final = 0.2
"""Where more than this part of the oldest of small were used, popularity may be changing: a used entry of main has one
more round, whatever its hits. Where nothing is refilled, small has its first share."""
_WIDE: Final = 0.7
_PLENTY: Final = 0.27
_FADING: Final = 0.45
"""The share where nothing is refilled, more than the second of these parts of small's oldest are used, and less than
the third of main's: main is fading, as popularity has changed."""
_SHORTENED: Final = 0.52
_SPARING: Final = 0.3
"""Where misses are not refilled, main is used, small is not, and lessons have made small shorter than the first of
these shares, it gets no more than the second: a proven entry that makes room is lost for good."""
_RARE: Final = 0.12
_SCARCE: Final = 0.1
"""Likewise where less than the first of these parts of small's oldest are used: it gets no more than the second."""
_LOST: Final = 0.155
LOST_RATE: Final = 1 / 12
"""But where more than the first of these parts of what small evicts is read afterwards, it gets its first share again:
popularity has changed, and main, of which none is evicted, is dead. The average is over twelve times as many entries
as the others: on the traces, where as many are read for a while, it hardly is ever higher then."""
_SOON: Final = 0.05
"""A return within so many evictions counts as soon, as a part of the capacity. The longest window as well."""
_UNFILLED_SOON: Final = 0.25
"""Likewise where nothing is refilled: hardly any key of main, of which few are evicted, returns in a shorter time."""
_DOWN_STEP: Final = 1.2
"""A step down, in steps up: losing a proven entry is worse than losing a new one."""
_UNFILLED_UP: Final = 0.4
_UNFILLED_DOWN: Final = -2.0
"""Steps up and down where nothing is refilled, likewise: a proven entry that is lost is lost for good."""
_RUN: Final = 4
_LONGEST: Final = 4
"""Where more than the first of these keys return to small in a row, none to main among them, a step up is longer in
proportion, up to the second of these steps: popularity has changed, and most of main is dead. In a loop, too, many
return; but there none of the oldest of small is used."""
_FALL: Final = 0.1
"""Entries by which small falls with each eviction, while nothing returns."""
_SILENCE: Final = 400
"""Evictions without a return that are a silence at least: in a small cache, few keys return soon."""
BEYOND: Final = 0.5
"""Weight of an eviction from main for an entry of small beyond the target, in those of an unused entry of small: while
small grows, its oldest are not looked at, and what is known of their use gets old."""
_FEWEST: Final = 100
"""The averages are over so many entries at least: small caches lost proven entries by chance."""
_MOST: Final = 0.5
_LEAD: Final = 0.25
"""Of the oldest of small more than `_MOST` are used, and more than of main by this: small is used and main is not."""
_SMALL_LEAD: Final = 0.1
"""Of the oldest of main more are used than of small by this: main is used and small is not."""
_REFILL_WEIGHT: Final = 0.1
_MISS_WEIGHT: Final = 0.05
"""Weights of one refill and of one miss. Where each miss is refilled they balance at 0.68. A small cache has few misses
of keys that it knows, and loses its best entries within its first turnovers."""
_BALANCE: Final = 0.68


class Share:
    """The number of entries that small may hold.

    Attributes:
        capacity: entries that the cache is expected to hold; ``math.inf`` if there is no bound.
        target: entries that small aims at by the returns.
        window: entries of small that are too young for their hits to count.
        soon: a return within so many evictions moves the target.
        rate: weight of the latest entry in the two averages that follow.
        small_used: part of the oldest of small that were used, of late.
        main_used: likewise of main.
        refilled: part of the misses of evicted keys that were refilled, of late.
        silence: entries that left small unused since the last lesson; it begins below zero in a small cache.
        run: keys that have returned soon to small, since the last that did to main.
        lost: part of the entries evicted from small that were read afterwards, of late.
    """

    __slots__ = (
        "_least",
        "_step",
        "capacity",
        "lost",
        "main_used",
        "rate",
        "refilled",
        "run",
        "silence",
        "small_used",
        "soon",
        "target",
        "window",
    )

    def __init__(self, capacity: float) -> None:
        self.reset(capacity)

    def reset(self, capacity: float) -> None:
        """Forget all lessons."""
        self.small_used = self.main_used = self.silence = self.run = self.lost = 0.0
        self.refilled = _BALANCE
        self.target, self.capacity = _FIRST, 1.0
        self.resize(capacity)

    def resize(self, capacity: float) -> None:
        """Change the capacity; small keeps its share."""
        share = _FIRST if self.capacity == math.inf else self.target / self.capacity
        self.capacity = capacity = float(capacity)  # all numbers are floats: compiled code reads them
        self.soon = _SOON * capacity
        self.rate = 1 / max(_FEWEST, capacity / 10)
        self.silence = self.silence or min(0.0, capacity - _SILENCE)
        self._least = max(1.0, _LEAST * capacity)
        self._step = min(max(capacity / 100, 1.0), 8.0)
        self.aim(share * capacity)

    def aim(self, target: float) -> None:
        """Set the target, within its bounds."""
        self.target = max(self._least, min(target, _FIRST * self.capacity))
        self.window = min(self.soon, self.target / 2)

    @property
    def _refills(self) -> bool:
        return self.refilled >= _MOST

    def room(self, entries: int) -> float:
        """Return how many of so many entries small may hold at present."""
        room, capacity, used = self.target, self.capacity, self.small_used
        if used > _MOST and used - self.main_used > _LEAD:
            room = max(room, _LIVELY * capacity)
        elif not self._refills:
            if used > CHANGING:
                is_fading = used > _PLENTY and self.main_used < _FADING
                room = max(room, (_WIDE if is_fading else _FIRST) * capacity)
            elif used < _RARE:
                room = max(room, _FIRST * capacity) if self.lost > _LOST else min(room, _SCARCE * capacity)
            elif self.main_used - used > _SMALL_LEAD and room < _SHORTENED * capacity:
                room = min(room, _SPARING * capacity)
        return room if entries >= capacity else room * entries / capacity

    def learn(self, age: float, flags: int, *, proven: bool, is_read: bool, evictions: float = math.inf) -> int:
        """Learn from an evicted key that is read or written; return its new flags.

        Args:
            age: evictions from its queue since its own.
            flags: `TAUGHT` and `MISSED`, as far as they hold of it.
            proven: whether it was evicted from main.
            is_read: whether it is read; else it is written.
            evictions: from its queue, so far.
        """
        if not is_read:
            if flags & MISSED:
                self.refilled += (1 - self.refilled) * _REFILL_WEIGHT
        elif not flags & MISSED:
            self.refilled -= self.refilled * _MISS_WEIGHT
            self.lost += 0 if proven else self.rate * LOST_RATE
            flags |= MISSED
        refills, again = self._refills, flags & TAUGHT
        soon = self.soon if refills else _UNFILLED_SOON * self.capacity
        if (again and (not is_read or refills)) or (not again and age >= soon):
            return flags
        self.silence = min(0.0, self.capacity - _SILENCE) if refills else 0.0
        is_early = not proven and evictions < self.soon
        self.aim(_FIRST * self.capacity if is_early else self.target + self._step_by(proven, refills))
        if not again:
            self.run = 0.0 if proven else self.run + 1
        return flags | TAUGHT

    def _step_by(self, proven: bool, refills: bool) -> float:
        """Return the step that a key which returns makes: a longer one up while none returns to main."""
        step = ((1.0, -_DOWN_STEP) if refills else (_UNFILLED_UP, _UNFILLED_DOWN))[proven] * self._step
        if proven or (refills and self.small_used < CHANGING):
            return step
        return step * min(max(1.0, self.run / _RUN), _LONGEST)

    def fill(self, hits: int) -> int:
        """Learn from the oldest of small, which goes on to main as nothing was evicted yet; return the hits it keeps.

        Args:
            hits: of it, so far.
        """
        self.small_used += ((hits > 0) - self.small_used) * self.rate
        self.main_used += ((hits > 1) - self.main_used) * self.rate
        if self.main_used > _REPEATED and self.target > _HELD * self.capacity:
            self.aim(self.target - _FILL)
        return 2 - (hits > 0) if self.small_used > ALIVE else min(hits, _FILLED_HITS)

    def leave_small(self, entries: int, *, used: bool) -> None:
        """Count the oldest of small that leave it: all used, or none."""
        left = (1 - self.rate) ** entries
        self.small_used = used * (1 - left) + self.small_used * left

    def evict_small(self, entries: int) -> None:
        """Count the oldest of small that are evicted unused."""
        self.leave_small(entries, used=False)
        self.silence += entries
        self.lost *= (1 - self.rate * LOST_RATE) ** entries

    def fall(self, evictions: int = 1) -> None:
        """Make small a little shorter with each eviction, as nothing has returned for a turnover."""
        if self.target > _SILENT * self.capacity:
            self.aim(self.target - _FALL * evictions)
