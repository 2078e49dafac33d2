"""A cache's traffic, replayed on miniatures of many sizes at once, within a fixed memory.

A key is replayed if its hash is below a limit, so that all its reads are, or none. When the miniatures hold as many
entries as the memory allows, the limit is lowered, and the keys above it leave.

Source: "Efficient MRC Construction with SHARDS", FAST 2015, for the sampling by hash and the limit that falls.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final

from storeroom.advice.miniature import ByTimeout, Miniature
from storeroom.timeouts import NEVER

__all__ = ["MOST_ENTRIES", "Simulation", "ladder", "near_sizes"]

MOST_ENTRIES: Final = 7_500
"""Entries of all miniatures together: with ghosts and keys they take up to 500 bytes each, so less than 4 MB."""

near_sizes: Final = (1_000, 10_000)
"""Sizes of a near tier that are looked at."""

_SCALE: Final = 1 << 24
"""Hashes are compared by their lowest 24 bits."""
_CHECKED_EVERY: Final = 256
_MOST_NOTED: Final = 1_000
"""Keys that were missed and not written yet, and keys that were written and not read yet, likewise."""
_STEPS: Final = range(-3, 5)
_MOST_SEEN: Final = 8_192
"""Keys that are told from each other where the memory is limited; of more it is known that they are as many."""


def ladder(
    size: int | None, keys: int | None = None, others: Iterable[int] = (), steps: Iterable[int] = _STEPS
) -> list[int]:
    """Return the sizes to look at: the one in use, its halves and doubles, and others; none that is beyond the keys.

    >>> ladder(1000)
    [125, 250, 500, 1000, 2000, 4000, 8000, 16000]
    >>> ladder(1000, keys=1500)
    [125, 250, 500, 1000, 1500]
    """
    sizes = {max(1, int((size or 1_000) * 2.0**step)) for step in steps} | set(others)
    if keys is not None:
        sizes = {each for each in sizes if each < keys or each == size} | {max(1, keys)}
    return sorted(sizes)


class Simulation:
    """A replay of reads, writes and deletes on miniatures.

    Args:
        sizes: bounds of the whole cache to look at, in entries.
        rate: the part of the keys to replay, at first.
        size: the bound in use; None if there is none.
        timeouts: to look at, in seconds.
        timeout: seconds that an entry lives which a read fills; ``math.inf`` for ever.
        cull_frequency: as of the cache.
        most_entries: entries of all miniatures together; None for no limit.

    Attributes:
        rate: the part of the keys that is replayed now.
        reads, writes: those replayed, as they would be at this rate.
        unread: writes that nobody read before the next one, likewise; those of the last are in it.
        sizes: the miniatures.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        rate: float = 1.0,
        size: int | None = None,
        timeouts: Sequence[float] = (),
        timeout: float = NEVER,
        cull_frequency: int | None = None,
        most_entries: int | None = None,
    ) -> None:
        self.limit = max(1, round(rate * _SCALE))
        self.reads = self.writes = self._unread = 0.0
        self._begun, self._now = math.inf, -math.inf
        self.timeout = timeout
        self.sizes = [Miniature(each, rate, cull_frequency) for each in sizes]
        self.by_timeout = ByTimeout(timeouts, size, rate, cull_frequency) if timeouts else None
        self._most_entries = most_entries
        self._awaited: dict[str, int] = {}
        self._waiting: dict[str, int] = {}
        self._seen: set[int] = set()
        self._until_check = _CHECKED_EVERY

    @property
    def rate(self) -> float:
        """The part of the keys that is replayed now."""
        return self.limit / _SCALE

    @property
    def keys(self) -> int:
        """The number of keys seen that are replayed now."""
        return len(self._seen)

    @property
    def seconds(self) -> float:
        """Seconds from the first read to the last."""
        return max(0.0, self._now - self._begun)

    @property
    def unread(self) -> float:
        """Writes that nobody read before the next one, or at all."""
        return self._unread + len(self._waiting)

    def takes(self, hashed: int) -> bool:
        """Tell whether a key with this hash is replayed."""
        return hashed & (_SCALE - 1) < self.limit

    def read(self, key: str, hashed: int, now: float = 0.0, *, found: bool | None = None) -> None:
        """Replay a read.

        Args:
            key: one that is taken, or a short text that stands for it.
            hashed: its hash, of at least 28 well-mixed bits.
            now: epoch seconds.
            found: whether the real cache had it; then a write follows, or the program stores nothing. None if that
                is not known: then a miss is filled.
        """
        self._see(hashed)
        self._begun, self._now = min(self._begun, now), max(self._now, now)
        self.reads += 1
        self._waiting.pop(key, None)
        until = None
        if found is not False:
            until = now + self.timeout
        else:
            self._awaited[key] = hashed
        for miniature in self.sizes:
            miniature.read(key, hashed, now, until)
        if self.by_timeout is not None:
            self.by_timeout.read(key, hashed, now)

    def write(self, key: str, hashed: int, now: float = 0.0, until: float = NEVER) -> None:
        """Replay a write of an entry that lives until this moment."""
        self._see(hashed)
        self.writes += 1
        is_refill = self._awaited.pop(key, None) is not None
        self._unread += key in self._waiting
        self._waiting[key] = hashed
        for miniature in self.sizes:
            miniature.write(key, hashed, now, until, is_refill=is_refill)
        if self.by_timeout is not None:
            self.by_timeout.write(key, hashed, now, is_refill=is_refill)

    def delete(self, key: str) -> None:
        """Replay a removal."""
        for miniature in self.sizes:
            miniature.delete(key)
        if self.by_timeout is not None:
            self.by_timeout.delete(key)

    def _see(self, hashed: int) -> None:
        if self._most_entries is None or len(self._seen) < _MOST_SEEN:
            self._seen.add(hashed)
        self._until_check -= 1
        if self._until_check <= 0 and self._most_entries is not None:
            self._until_check = _CHECKED_EVERY
            self._unread += _oldest_gone(self._waiting)
            _oldest_gone(self._awaited)
            if self._held() > self._most_entries:
                self.lower()

    def _held(self) -> int:
        return sum(map(len, self.sizes)) + (0 if self.by_timeout is None else len(self.by_timeout))

    def lower(self) -> None:
        """Replay three keys of four from now on; what was counted counts as much less."""
        before, self.limit = self.limit, max(1, self.limit * 3 // 4)
        part = self.limit / before
        self._seen = set(filter(self.takes, self._seen))
        for noted in (self._awaited, self._waiting):
            for key in [key for key, hashed in noted.items() if not self.takes(hashed)]:
                del noted[key]
        self.reads, self.writes, self._unread = self.reads * part, self.writes * part, self._unread * part
        for miniature in self.sizes:
            miniature.shrink(self.rate, part, self.takes)
        if self.by_timeout is not None:
            self.by_timeout.shrink(self.rate, part, self.takes)


def _oldest_gone(noted: dict[str, int]) -> int:
    """Forget the oldest of too many keys; return how many."""
    gone = list(noted)[: max(0, len(noted) - _MOST_NOTED)]
    for key in gone:
        del noted[key]
    return len(gone)
