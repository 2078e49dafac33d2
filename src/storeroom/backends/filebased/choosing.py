"""The entries of a file cache to evict: as many as are asked for, chosen together.

The rule is that of `storeroom.eviction.s3fifo`. A call costs as much as several entries, so those of small that are
alike, used or not, leave it at once.
"""

import math
from collections.abc import Callable
from typing import Final

from storeroom.backends.filebased.ring import append, first, promote
from storeroom.backends.filebased.slotfile import AHEAD, MAIN, SMALL
from storeroom.backends.filebased.slots import IN_MAIN, IN_SMALL, SMALL_HAND, YOUNG, Slots
from storeroom.eviction.s3fifo import PATIENCE
from storeroom.eviction.share import ALIVE, BEYOND, CHANGING, Share

__all__ = ["Choice", "batch_of"]

_PART: Final = 50
_AT_ONCE: Final = 128
_FEW: Final = 32
_MANY: Final = 8
_UNUSED: Final = 0.01
_NARROW: Final = 200
"""A full cache evicts one entry in `_PART` at once, and `_AT_ONCE` at the most, since a page of several costs once; one
whose batch would be shorter than `_FEW`, one in `_FEW`, if these are `_MANY`. Each is missed where the oldest of small
are used: where more than `_UNUSED` of them are, one in `_NARROW` goes."""
_PARTS_AHEAD: Final = 10
"""Where fewer would go than `AHEAD`, so many, of a small cache this part, are chosen together, and go one by one."""


def batch_of(entries: int, small_used: float) -> tuple[int, int]:
    """Return how many of so many entries go at once, and how many are chosen together if these are more, else 0.

    Args:
        entries: in the cache.
        small_used: part of the oldest of small that were used, of late.
    """
    wide = max(entries // _PART, min(_FEW, entries // _FEW))
    if small_used <= _UNUSED and wide >= _MANY:
        return min(_AT_ONCE, wide), 0
    at_once, ahead = min(_AT_ONCE, entries // _NARROW), min(AHEAD, entries // _PARTS_AHEAD)
    return (at_once, 0) if at_once >= ahead else (1, ahead)


class Choice:
    """Entries that are taken out of their queues, and what is left in these meanwhile.

    Those that go on to main come behind all that were there, which may go round first: else they would go next.

    Args:
        slots, share: of the cache; a transaction has begun its changes.
        kept: the slot whose entry stays; -1 for none.
        is_spared: tells whether an entry that is flagged, or kept, stays.

    Attributes:
        room: entries that small may hold at present.
        is_settled: whether each unused one of small is to go while that holds more.
    """

    __slots__ = (
        "_chosen", "_is_spared", "_kept", "_late", "_longest", "_main", "_promotions", "_share", "_slots", "_small",
        "_stays", "is_settled", "room",
    )  # fmt: skip

    def __init__(self, slots: Slots, share: Share, kept: int, is_spared: Callable[[int], bool]) -> None:
        self._slots, self._share = slots, share
        self._small, self._main = slots.numbers[IN_SMALL], slots.numbers[IN_MAIN]
        self.room = share.room(self._small + self._main)
        self._kept, self._is_spared = kept, is_spared
        self._stays = slots.kinds[kept] if kept >= 0 else -1
        self._chosen, self._late = list[int](), list[int]()

    def take(self, count: int) -> list[int]:
        """Take up to so many entries out; return their slots.

        Raise LookupError if slots and counts disagree.
        """
        share, numbers, late = self._share, self._slots.numbers, self._late
        self._longest = self.room + 3 + max(count, share.capacity / 30)  # as small is before so many go
        self._promotions = count if share.silence > share.capacity else 0
        least, kept_in_main = self._stays in {SMALL, MAIN}, self._stays == MAIN
        while (wanted := count - len(self._chosen)) > 0 and self._small + self._main + len(late) > least:
            if late and self._main <= kept_in_main:
                self._main += promote(self._slots, late)
            if self._small >= self.room or self._main <= kept_in_main:
                self._take_from_small(wanted)
            else:
                self._take_from_main(wanted)
        numbers[IN_SMALL], numbers[IN_MAIN] = self._small, self._main + promote(self._slots, late)
        if share.silence > share.capacity:
            share.fall(len(self._chosen))
        return self._chosen

    def look_ahead(self, count: int) -> list[int]:
        """Let the used ones of the oldest of small go on to main, so many at the most; return those to go for them.

        The others of small are left, to go next, if it `is_settled`.
        """
        share, numbers = self._share, self._slots.numbers
        self._longest = self.room + 3 + max(count, share.capacity / 30)
        self.is_settled = share.small_used <= ALIVE and (
            share.silence <= share.capacity or self._small <= self._longest
        )
        if not self.is_settled:
            return self.take(count)
        while self._promote_used(count) and self._small >= self.room:
            pass
        if self._small < self.room:
            self._take_from_main(min(count, math.ceil(self.room - self._small)))
        numbers[IN_SMALL], numbers[IN_MAIN] = self._small, self._main
        return self._chosen

    def _promote_used(self, count: int) -> bool:
        """Let the used ones of so many of the oldest of small go on to main; tell whether these were all."""
        slots, numbers = self._slots, self._slots.numbers
        old = min(count, self._small - numbers[YOUNG])
        found, end = slots.small(numbers[SMALL_HAND], slots.count, old) if old > 0 else ([], 0)
        used = list(filter(slots.hits.__getitem__, found))
        are_all_used = 0 < len(found) == len(used)
        if are_all_used:
            numbers[SMALL_HAND] = end
        self._share.leave_small(len(used), used=True)
        self._small -= len(used)
        self._main += promote(slots, used)
        return are_all_used

    def _take_from_small(self, wanted: int) -> None:
        """Take the oldest out of small, as many as are alike; used ones go on to main."""
        share, slots, numbers, small = self._share, self._slots, self._slots.numbers, self._small
        goes_on = (self._promotions > 0 and small > self._longest) or (
            share.small_used > ALIVE and self._main > 0 and len(self._late) < PATIENCE
        )
        found = slots.alike(numbers[SMALL_HAND], min(wanted, max(1, int(small - self.room) + 1)), self._kept)
        if not found:
            raise LookupError("small is empty")
        old = small - numbers[YOUNG]  # hits of the others do not count yet
        used = old > 0 and slots.hits[found[0]] > 0
        if used or goes_on:
            del found[old if used else 1 :]
        slot, length = found[-1], len(found)
        numbers[SMALL_HAND], self._small = slot + 1, small - length
        if used or goes_on or ((slot == self._kept or slots.flags[slot]) and self._is_spared(slot)):
            self._promotions -= self._promotions > 0 and not used
            self._late += found
            share.leave_small(length, used=used)
            return
        share.evict_small(length)
        self._chosen += found

    def _take_from_main(self, wanted: int) -> None:
        """Take the first unused ones out of main; used ones go round."""
        share, slots, kept, patience = self._share, self._slots, self._kept, PATIENCE
        hits, flags = slots.hits, slots.flags
        last = max(self._main - wanted, self._stays == MAIN)
        while self._main > last:
            slot = first(slots)
            used = hits[slot] > 0
            share.main_used += (used - share.main_used) * share.rate
            if (used and patience) or ((slot == kept or flags[slot]) and self._is_spared(slot)):
                patience -= patience > 0
                hits[slot] = hits[slot] - used if share.small_used <= CHANGING else 0
                append(slots, slot)
            else:
                self._main, patience = self._main - 1, PATIENCE
                if self._small >= share.target:
                    share.small_used -= share.small_used * share.rate * BEYOND
                self._chosen.append(slot)
