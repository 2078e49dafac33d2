"""What one row of the campaign has counted."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

__all__ = ["AT_ONCE", "LATENESS", "LEFT_AFTER", "PATIENCE", "Counts", "Tell"]

Tell: TypeAlias = Callable[[str], None]
"""Tells the parent process that there is progress."""

AT_ONCE: Final = 1.0
"""Seconds within which the next caller goes on."""

LEFT_AFTER: Final = 2.5
"""Seconds after which whatever is there still counts as left: half of a lease."""

PATIENCE: Final = 40.0
"""Seconds after which it is taken for one that waits for ever."""


class Lateness:
    """Seconds for which this process had to wait for a processor, by a thread that does nothing else.

    A turn of another thread of the process is shorter than what counts as a wait.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def start(self) -> None:
        """Begin to measure; a program does it once."""
        threading.Thread(target=self._beat, name="storeroom-lateness", daemon=True).start()

    def _beat(self) -> None:
        while True:
            begun = time.monotonic()
            time.sleep(0.005)
            late = time.monotonic() - begun - 0.005
            self.seconds += late if late > 0.05 else 0.0


LATENESS: Final = Lateness()


@dataclass
class Counts:
    """Cuts, and what they have left behind.

    Attributes:
        cases: operations that were to be cut short.
        cut: those that were; the others had ended before.
        waits: next callers that waited longer than AT_ONCE.
        longest: seconds that one waited.
        left: leases, locks, tasks, or old values.
        wrong: replies that were not those of the request.
        errors: errors that were not those of the cut, and how often.
    """

    cases: int = 0
    cut: int = 0
    waits: int = 0
    longest: float = 0.0
    left: int = 0
    wrong: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def note(self, outcome: Any, *, is_cut: bool | None = None) -> None:
        """Note the outcome of an operation, or of what came after it: an error of either kind."""
        if is_cut is not None:
            self.cases += 1
            self.cut += is_cut
        if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
            self.errors[repr(outcome)[:160]] += 1

    def waited(self, seconds: float, late: float = 0.0) -> None:
        """Note the time that the next caller took, for so much of which the process had no processor."""
        self.waits += seconds - late > AT_ONCE
        self.longest = max(self.longest, seconds)

    @property
    def faults(self) -> int:
        """The number of promises that did not hold."""
        return self.waits + self.left + self.wrong + sum(self.errors.values())
