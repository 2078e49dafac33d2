"""Small copies of a cache: the policy itself, on a part of the keys and of the entries.

Source: "Cache Modeling and Optimization using Miniature Simulations", USENIX ATC 2017.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from storeroom.eviction import MOST_HITS, BoundedMap
from storeroom.timeouts import NEVER

__all__ = ["GROUPS", "ByTimeout", "Miniature", "group_of"]

GROUPS: Final = 16
"""Groups of keys that misses are counted by: as they differ, so does one sample from another."""


_GROUP_SHIFT: Final = 24
"""The 24 bits below say whether a key is replayed at all."""

Keeps = Callable[[int], bool]
"""Tells by the hash of a key whether it is still replayed."""


def group_of(hashed: int) -> int:
    """Return the group of a key, by its hash."""
    return (hashed >> _GROUP_SHIFT) % GROUPS


def _leave(bounded: BoundedMap, hashes: list[tuple[str, int]], keeps: Keeps) -> None:
    for key, hashed in hashes:
        if not keeps(hashed):
            bounded.delete(key)


class Miniature:
    """A copy of a cache with one bound.

    Args:
        size: the bound of the whole cache.
        rate: the part of the keys that is replayed, and of the bound that the copy has.
        cull_frequency: as of the cache.

    Attributes:
        misses: reads that did not find their key, by group; those before the rate was lowered count in part.
    """

    __slots__ = ("_bounded", "_cull_frequency", "misses", "size")

    def __init__(self, size: int, rate: float, cull_frequency: int | None = None) -> None:
        self.size = size
        self.misses = [0.0] * GROUPS
        self._bounded = BoundedMap(max(1, round(size * rate)), cull_frequency=cull_frequency)

    def __len__(self) -> int:
        return len(self._bounded)

    def read(self, key: str, hashed: int, now: float, until: float | None) -> None:
        """Read a key; a miss stores it until this moment, or leaves that to a write if it is None."""
        bounded = self._bounded
        entry = bounded.entries.get(key)
        if entry is not None and entry.expires_at > now:
            entry.freq = min(entry.freq + 1, MOST_HITS)
            return
        self.misses[group_of(hashed)] += 1
        bounded.miss(key)
        if until is not None:
            self.write(key, hashed, now, until, is_refill=False)

    def write(self, key: str, hashed: int, now: float, until: float, *, is_refill: bool) -> None:
        """Store a key; the refill after a miss would not have come where the key was found."""
        bounded = self._bounded
        entry = bounded.entries.get(key)
        if entry is None:
            bounded.insert(key, hashed, None, until, 0, now)
        elif not is_refill or entry.expires_at <= now:
            bounded.replace(entry, hashed, None, until, 0, now)

    def delete(self, key: str) -> None:
        """Remove a key."""
        self._bounded.delete(key)

    def shrink(self, rate: float, part: float, keeps: Keeps) -> None:
        """Go on with this part of the keys."""
        hashes: Any = [(key, entry.value) for key, entry in self._bounded.entries.items()]
        _leave(self._bounded, hashes, keeps)
        self._bounded.max_entries = max(1, round(self.size * rate))
        self.misses = [count * part for count in self.misses]


class ByTimeout:
    """A copy of the cache with the size in use, and the moments at which each key was filled under each timeout.

    Args:
        timeouts: in seconds; ``math.inf`` for never.
        size, rate, cull_frequency: as of `Miniature`.

    Attributes:
        misses: for each timeout, by group.
    """

    __slots__ = ("_bounded", "_size", "misses", "timeouts")

    def __init__(self, timeouts: Sequence[float], size: int | None, rate: float, cull_frequency: int | None) -> None:
        self.timeouts = timeouts
        self.misses = [[0.0] * GROUPS for _ in timeouts]
        self._size = size
        bound = None if size is None else max(1, round(size * rate))
        self._bounded = BoundedMap(bound, cull_frequency=cull_frequency)

    def __len__(self) -> int:
        return len(self._bounded)

    def read(self, key: str, hashed: int, now: float) -> None:
        """Read a key; where it is too old for a timeout, it is filled anew under that."""
        entry, group = self._bounded.entries.get(key), group_of(hashed)
        if entry is None:
            for misses in self.misses:
                misses[group] += 1
            self._bounded.miss(key)
            self.write(key, hashed, now, is_refill=False)
            return
        entry.freq = min(entry.freq + 1, MOST_HITS)
        filled: Any = entry.value  # and the hash of the key behind them
        for number, timeout in enumerate(self.timeouts):
            if now - filled[number] >= timeout:
                self.misses[number][group] += 1
                filled[number] = now

    def write(self, key: str, hashed: int, now: float, *, is_refill: bool) -> None:
        """Store a key under all timeouts, but for the refill after a miss, which the miss has seen to."""
        entry = self._bounded.entries.get(key)
        filled = [*[now] * len(self.timeouts), hashed]
        if entry is None:
            self._bounded.insert(key, filled, None, NEVER, 0, now)
        elif not is_refill:
            entry.value = filled

    def delete(self, key: str) -> None:
        """Remove a key."""
        self._bounded.delete(key)

    def shrink(self, rate: float, part: float, keeps: Keeps) -> None:
        """Go on with this part of the keys."""
        filled: Any = [(key, entry.value) for key, entry in self._bounded.entries.items()]
        _leave(self._bounded, [(key, each[-1]) for key, each in filled], keeps)
        if self._size is not None:
            self._bounded.max_entries = max(1, round(self._size * rate))
        self.misses = [[count * part for count in misses] for misses in self.misses]
