"""Facts about keys that hold for a moment, such as that a computation has failed."""

from heapq import heapify, heappop, heappush
from typing import Any, Final

from storeroom import timeouts

__all__ = ["Recent"]

_MOST: Final = 10_000
"""Facts that are remembered at once; beyond that the one that would be forgotten first is."""


class Recent:
    """Facts about keys, each for a time, and forgotten after it: whenever a fact is noted, or forget_over() called."""

    def __init__(self) -> None:
        """Begin with none."""
        self._by_key: dict[str, tuple[float, Any]] = {}
        self._ends: list[tuple[float, str]] = []  # a heap, with facts in it that others have replaced since

    def note(self, key: str, fact: object, until: float) -> None:
        """Remember a fact until then (epoch seconds)."""
        self._by_key[key] = until, fact
        heappush(self._ends, (until, key))
        self.forget_over()
        while len(self._by_key) > _MOST:
            self._forget_first()
        if len(self._ends) > 2 * len(self._by_key) + _MOST:
            self._ends = [(until, key) for key, (until, _) in self._by_key.items()]
            heapify(self._ends)

    def forget_over(self) -> None:
        """Forget those whose time is over."""
        while self._ends and self._ends[0][0] <= timeouts.now():
            self._forget_first()

    def _forget_first(self) -> None:
        until, key = heappop(self._ends)
        if self._by_key.get(key, (None, None))[0] == until:
            self._by_key.pop(key, None)

    def get(self, key: str) -> Any:
        """Return the fact that holds now, or None."""
        noted = self._by_key.get(key)
        return noted[1] if noted is not None and noted[0] > timeouts.now() else None

    def forget(self, key: str) -> None:
        """Forget the fact about a key."""
        if self._by_key:
            self._by_key.pop(key, None)

    def clear(self) -> None:
        """Forget all."""
        self._by_key.clear()
        self._ends.clear()
