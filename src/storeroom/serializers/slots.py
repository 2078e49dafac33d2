"""The slots of Python's tables, to tell whether keys were chosen so that each is led past all others.

Source: Objects/dictobject.c and Objects/setobject.c of CPython, the same from 3.10 to 3.14.
"""

from collections.abc import Sequence
from typing import Final

from storeroom.serializers.bounds import TooMuchError

__all__ = ["FREE_KEYS", "Slots"]

FREE_KEYS: Final = 1000
"""Keys of a table that may all be in each other's way: each is led past 500 others, in two thirds of a microsecond."""

_STEPS: Final = 32
"""Slots that a key is led past on average, or runs of them: one or two as a rule, 20 for multiples of 2**44."""

_SAVED: Final = 100_000
"""Steps that may be saved for keys that are led past more of them, as when a table is nearly full."""

_NEAR: Final = 9  # LINEAR_PROBES of a set


_SOON: Final = 50_000  # members of a set that becomes four times as large


class Slots:
    """Takes a slot for each hash, in a table that grows as a dict does, or as a set."""

    def __init__(self, *, is_set: bool) -> None:
        self._near = _NEAR if is_set else 0
        self._is_set = is_set
        self._size = 8
        self._hashes: list[int] = []
        self._taken: set[int] = set()
        self._left = _SAVED

    def add(self, hashes: Sequence[int]) -> None:
        """Take slots for different hashes; raise TooMuchError if that leads past too many others."""
        position = 0
        while position < len(hashes):
            most = (3 * self._size + 1) // 5 if self._is_set else 2 * self._size // 3
            some = hashes[position : position + most - len(self._hashes)]
            self._hashes += some
            self._take(some)
            position += len(some)
            if len(self._hashes) == most:
                self._size *= 4 if self._is_set and most <= _SOON else 2
                self._taken.clear()
                self._take(self._hashes)

    def _take(self, hashes: Sequence[int]) -> None:
        last = self._size - 1
        firsts = {each & last for each in hashes}
        if len(firsts) == len(hashes) and self._taken.isdisjoint(firsts):
            self._taken |= firsts
            return
        for start in range(0, len(hashes), FREE_KEYS):
            some = hashes[start : start + FREE_KEYS]
            self._left = min(self._left, _SAVED) + _STEPS * len(some)
            for each in some:
                slot = each & last
                self._taken.add(self._free(slot, each % 2**64) if slot in self._taken else slot)

    def _free(self, slot: int, hashed: int) -> int:
        """Return the first slot that is free of those to which the hash leads."""
        last = self._size - 1
        while True:
            for near in range(slot, slot + 1 + (self._near if slot + self._near <= last else 0)):
                if near not in self._taken:
                    return near
            self._left -= 1
            if self._left < 0:
                raise TooMuchError("has keys or members that were chosen to be in each other's way")
            hashed >>= 5
            slot = (slot * 5 + hashed + 1) & last
