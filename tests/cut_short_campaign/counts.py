"""What one row of the campaign has counted."""

import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from traceback import walk_stack
from types import FrameType
from typing import Any, Final, TypeAlias

from storeroom.testing.concurrency import in_background

__all__ = ["AT_ONCE", "LEFT_AFTER", "PATIENCE", "WATCH", "Counts", "Tell", "next_in_background"]

Tell: TypeAlias = Callable[[str], None]
"""Tells the parent process that there is progress."""

AT_ONCE: Final = 1.0
"""Seconds within which the next caller goes on."""

SEEN_AFTER: Final = 0.7
"""Seconds after which the places of all threads and tasks are noted: a wait that is about to be counted."""

LEFT_AFTER: Final = 2.5
"""Seconds after which whatever is there still counts as left: half of a lease."""

PATIENCE: Final = 40.0
"""Seconds after which it is taken for one that waits for ever."""


class Watch:
    """A thread that only looks: whether this process gets a processor, and where those are who wait for long.

    Attributes:
        seconds: for which the process had to wait for a processor. A turn of another of its threads is shorter than
            counts as a wait.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since: dict[object, float] = {}
        self._seen: dict[object, str] = {}

    def start(self) -> None:
        """Begin to look; a program does it once."""
        threading.Thread(target=self._beat, name="storeroom-watch", daemon=True).start()

    def _beat(self) -> None:
        while True:
            begun = time.monotonic()
            time.sleep(0.005)
            now = time.monotonic()
            late = now - begun - 0.005
            self.seconds += late if late > 0.05 else 0.0
            for waiting, since in list(self._since.items()):
                if now - since > SEEN_AFTER and waiting not in self._seen:
                    self._seen[waiting] = places()

    @contextmanager
    def next_caller(self, counts: "Counts") -> Iterator[None]:
        """Count the time of the block as a next caller's, and his errors; tell where all were if it is long."""
        waiting, late = object(), self.seconds
        self._since[waiting] = begun = time.monotonic()
        try:
            yield
        except Exception as error:  # noqa: BLE001 -- it is the finding
            counts.note(error)
        finally:
            del self._since[waiting]
            counts.waited(time.monotonic() - begun, self.seconds - late, self._seen.pop(waiting, ""))


def next_in_background(counts: "Counts", call: Callable[..., Any], *args: Any) -> Any:
    """Return the result of a next caller in a thread of its own; the time until that has begun is none of his.

    A newborn thread may wait for a processor for a second, while WATCH's does not.
    """

    def timed() -> Any:
        with WATCH.next_caller(counts):
            return call(*args)

    try:
        return in_background(timed).result(PATIENCE)
    except TimeoutError as error:
        counts.note(error)


def places() -> str:
    """Return where the threads of this process are, and the tasks of their loops: how many at each place."""
    found: Counter[str] = Counter()
    for thread, frame in sys._current_frames().items():
        if thread != threading.get_ident():
            found[_told(list(walk_stack(frame)))] += 1
    for task in asyncio.tasks._all_tasks.copy():  # type: ignore[attr-defined]
        frames, inner = [], task.get_coro()
        while inner is not None and (frame := getattr(inner, "cr_frame", None)) is not None:
            frames.insert(0, (frame, frame.f_lineno))
            inner = inner.cr_await
        found[f"task {_told(frames)}"] += 1
    return "; ".join(f"{times} × {place}" for place, times in found.most_common(8))


def _told(frames: Iterable[tuple[FrameType, int]]) -> str:
    named = [f"{Path(frame.f_code.co_filename).name}:{line} {frame.f_code.co_name}" for frame, line in frames]
    return " < ".join(named[:4])


WATCH: Final = Watch()


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
        seen: where all were while a next caller waited for that long.
    """

    cases: int = 0
    cut: int = 0
    waits: int = 0
    longest: float = 0.0
    left: int = 0
    wrong: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    seen: list[str] = field(default_factory=list)

    def note(self, outcome: Any, *, is_cut: bool | None = None) -> None:
        """Note the outcome of an operation, or of what came after it: an error of either kind."""
        if is_cut is not None:
            self.cases += 1
            self.cut += is_cut
        if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
            self.errors[repr(outcome)[:160]] += 1

    def waited(self, seconds: float, late: float = 0.0, seen: str = "") -> None:
        """Note the time that the next caller took, for so much of which the process had no processor."""
        if seconds - late > AT_ONCE:
            self.waits += 1
            self.seen.append(f"{seconds:.2f} s, {late:.2f} s of them without a processor: {seen}")
        self.longest = max(self.longest, seconds)

    @property
    def faults(self) -> int:
        """The number of promises that did not hold."""
        return self.waits + self.left + self.wrong + sum(self.errors.values())
