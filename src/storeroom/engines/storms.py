"""Eviction storms: many entries that go for room within a minute, so that the cache holds hardly anything for long.

Nobody looks at each eviction: a storage looks at their number now and then, where it has something else to do.
"""

import math
from typing import Any, Final

from storeroom import timeouts, wording
from storeroom.late import logger_of

__all__ = ["WINDOW_SECONDS", "EvictionWatch"]

_log = logger_of("storeroom.evictions")

WINDOW_SECONDS: Final = 60.0
"""A storm is more evictions within this than half of the entries that the cache may hold: none lives for long."""

_LONGEST_PAUSE: Final = 3600.0
"""Between two lines, where a storm goes on: the pause doubles from one line to the next."""


class EvictionWatch:
    """The evictions of one storage, as this process looks at them."""

    __slots__ = ("_base", "_begun", "_pause", "_told_at")

    def __init__(self) -> None:
        """Begin without any."""
        self._base, self._begun = 0, 0.0
        self._pause, self._told_at = WINDOW_SECONDS, -math.inf

    def look(self, evictions: int, bound: float, named: Any) -> None:
        """Log a storm, if there is one: once a minute at the most, and seldom where it goes on for long.

        Args:
            evictions: so far; 0 where there were none since the last look.
            bound: the entries that the cache may hold, or, without such a bound, those that it holds.
            named: the engine of the storage, which knows an alias of it.
        """
        if not evictions:
            return
        now, grown = timeouts.now(), evictions - self._base
        seconds = now - self._begun
        if not (0 <= seconds < WINDOW_SECONDS and grown >= 0):  # or the clock was put back, or the counts were
            self._base, self._begun = evictions, now
            return
        if bound <= 0 or 2 * grown <= bound:
            return
        self._base, self._begun = evictions, now
        quiet = now - self._told_at
        if 0 <= quiet < self._pause:
            return
        self._pause = min(2 * self._pause, _LONGEST_PAUSE) if 0 <= quiet <= 2 * self._pause else WINDOW_SECONDS
        self._told_at = now
        self._tell(grown, seconds, int(bound), named.alias or "default")

    @staticmethod
    def _tell(grown: int, seconds: float, bound: int, alias: str) -> None:
        fields = {
            "event": "eviction_storm",
            "alias": alias,
            "evictions": grown,
            "seconds": round(seconds, 3),
            "bound": bound,
        }
        _log.warning(
            "Cache %r has evicted %d entries within %.0f s, more than half of the %d that it holds. Raise its bounds, "
            "or cache less. %s",
            alias,
            grown,
            seconds,
            bound,
            wording.fields_text(fields),
            extra=fields,
        )
