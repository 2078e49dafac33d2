"""A clock that stands still until it is told to go: expiry without sleeping."""

import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self

from storeroom import timeouts

__all__ = ["FakeClock"]


class FakeClock:
    """The clock of every cache in this process, for the time of a ``with`` block.

    It starts at the real time and moves by `advance` alone, so that a test of a
    five-minute timeout takes no longer than any other::

        with FakeClock() as clock:
            cache.set("greeting", "hello", timeout="5m")
            clock.advance("4m 59s")
            assert cache.get("greeting") == "hello"
            clock.advance(1)
            assert cache.get("greeting") is None

    It governs what Storeroom itself times: memory, files, the database, leases. A
    server that expires entries by its own clock, and another process, do not see it.
    Thread-safe. Blocks may be nested: the innermost clock counts.
    """

    def __init__(self) -> None:
        self._now = time.time()
        self._outer: list[Callable[[], float]] = []

    def now(self) -> float:
        """Return the fake time in epoch seconds."""
        return self._now

    def advance(self, duration: float | timedelta | str) -> None:
        """Let time pass: seconds, a timedelta, or words such as "5m".

        Raises:
            ValueError: the duration is negative or endless, or has no meaning.
        """
        seconds = timeouts.parse_timeout(duration)
        if seconds is None or seconds < 0:
            raise ValueError(f"The clock cannot advance by {duration!r}; expected a duration of zero or more.")
        self._now += seconds

    def __enter__(self) -> Self:
        self._outer.append(timeouts.now)
        timeouts.now = self.now
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        timeouts.now = self._outer.pop()
