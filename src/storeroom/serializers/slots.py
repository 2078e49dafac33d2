"""The slots of Python's tables, to tell whether keys were chosen so that each is led past all others.

Source: Objects/dictobject.c and Objects/setobject.c of CPython, the same from 3.10 to 3.14.
"""

from collections.abc import Callable, Collection, Sequence
from time import thread_time_ns
from typing import Any, Final

from storeroom.serializers.bounds import TooMuchError

__all__ = ["FREE_KEYS", "Pace", "Slots"]

FREE_KEYS: Final = 1000
"""Keys of a table that may all be in each other's way: each is led past 500 others, in two thirds of a microsecond."""

_STEPS: Final = 24
"""Slots that a key is led past on average, or runs of them, each time that the table grows too: one or two as a rule,
a dozen for multiples of 2**44 or of 1/1024."""

_SAVED: Final = 200_000
"""Steps that may be saved for keys that are led past more of them, as when a table is nearly full."""

_QUICK_NS: Final = 5_000_000
_KEY_NS: Final = 250
"""The time that a key may take before anybody looks, three times as long as a rule."""

_STEPS_AT_ONCE: Final = 2**23
"""Steps until the next look at the clock, if all are in each other's way: some 20 ms."""

_LEAST: Final = 8


class Pace:
    """Puts keys into a table a few at a time, and looks whether they were chosen if that takes long.

    The clock tells when to look, and nothing else: no key is refused for the time that it takes on a slow machine.
    """

    def __init__(self, table: Collection[Any]) -> None:
        self._table = table
        self._taken_ns = 0
        self._allowed_ns = _QUICK_NS

    def allow(self, hash_ns: int) -> None:
        """Allow the time that some keys take to hash."""
        self._allowed_ns += hash_ns

    def put(self, count: int, update: Callable[[int, int], object]) -> None:
        """Put some keys into the table; raise TooMuchError if they were chosen to be in each other's way.

        Args:
            count: the number of the keys.
            update: puts those from one position to another into the table.
        """
        self._allowed_ns += _KEY_NS * count
        start = 0
        while start < count:
            end = min(count, start + max(_LEAST, min(FREE_KEYS, _STEPS_AT_ONCE // (len(self._table) + 1))))
            begun = thread_time_ns()
            update(start, end)
            self._taken_ns += thread_time_ns() - begun
            if self._taken_ns > self._allowed_ns:
                Slots(is_set=isinstance(self._table, set)).add(list(dict.fromkeys(map(hash, self._table))))
                self._allowed_ns = 2 * self._taken_ns
            start = end


_NEAR: Final = 9  # LINEAR_PROBES of a set

_SOON: Final = 50_000  # members of a set that becomes four times as large


class Slots:
    """Takes a slot for each hash, in a table that grows as a dict does, or as a set."""

    def __init__(self, *, is_set: bool) -> None:
        self._is_set = is_set
        self._size = 8
        self._hashes: list[int] = []
        self._taken = bytearray(self._size)
        self._left = _SAVED

    def add(self, hashes: Sequence[int]) -> None:
        """Take slots for different hashes; raise TooMuchError if that leads past too many others."""
        position = 0
        while position < len(hashes):
            most = (3 * self._size + 1) // 5 if self._is_set else 2 * self._size // 3
            some = hashes[position : position + most - len(self._hashes)]
            self._hashes += some
            position += len(some)
            if len(self._hashes) == most:
                self._size *= 4 if self._is_set and most <= _SOON else 2
                self._taken = bytearray(self._size)
                some = self._hashes
            self._take(some)

    def _take(self, hashes: Sequence[int]) -> None:
        take = self._free_of_set if self._is_set else self._free
        taken, last = self._taken, self._size - 1
        for start in range(0, len(hashes), FREE_KEYS):
            some = hashes[start : start + FREE_KEYS]
            self._left = min(self._left, _SAVED) + _STEPS * len(some)
            for each in some:
                slot = each & last
                if taken[slot]:
                    slot = take(slot, each % 2**64)
                taken[slot] = 1
            if self._left < 0:
                raise TooMuchError("has keys or members that were chosen to be in each other's way")

    def _free(self, slot: int, hashed: int) -> int:
        """Return the first slot of a dict that is free of those to which the hash leads."""
        taken, last, left = self._taken, self._size - 1, self._left
        while taken[slot] and left >= 0:
            left -= 1
            hashed >>= 5
            slot = (slot * 5 + hashed + 1) & last
        self._left = left
        return slot

    def _free_of_set(self, slot: int, hashed: int) -> int:
        """Do the same for a set, which looks at the slots next to each first."""
        taken, last = self._taken, self._size - 1
        while self._left >= 0:
            end = slot + 1 + (_NEAR if slot + _NEAR <= last else 0)
            near = taken.find(0, slot, end)
            if near >= 0:
                return near
            self._left -= 1
            hashed >>= 5
            slot = (slot * 5 + hashed + 1) & last
        return slot
