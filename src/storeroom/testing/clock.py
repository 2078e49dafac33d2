"""A clock that stands still until it is told to go: expiry without sleeping."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Self

from storeroom import timeouts

__all__ = ["FakeClock", "clock_ahead"]


@contextmanager
def clock_ahead(seconds: float) -> Iterator[None]:
    """Let this process's clock be wrong within the block, as on a host whose clock nobody sets: behind, if negative."""
    before = timeouts.now
    timeouts.now = lambda: before() + seconds
    try:
        yield
    finally:
        timeouts.now = before


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
        self._now, self._uptime = time.time(), timeouts.uptime()
        self._outer: list[tuple[Callable[[], float], Callable[[], float], float]] = []

    def now(self) -> float:
        """Return the fake time in epoch seconds."""
        return self._now

    def uptime(self) -> float:
        """Return the fake time since the machine was started."""
        return self._uptime

    def advance(self, duration: float | timedelta | str) -> None:
        """Let time pass: seconds, a timedelta, or words such as "5m".

        Raises:
            ValueError: the duration is negative or endless, or has no meaning.
        """
        seconds = timeouts.parse_timeout(duration)
        if seconds is None or seconds < 0:
            raise ValueError(f"The clock cannot advance by {duration!r}; expected a duration of zero or more.")
        self._now += seconds
        self._uptime += seconds
        timeouts.skipped += seconds

    def __enter__(self) -> Self:
        self._outer.append((timeouts.now, timeouts.uptime, timeouts.skipped))
        timeouts.now, timeouts.uptime = self.now, self.uptime
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        timeouts.now, timeouts.uptime, timeouts.skipped = self._outer.pop()
