"""Many callers at once, in tests: threads that start together, computations that end when told.

Everything here gives up after `PATIENCE` seconds, so that a deadlock fails a test
instead of hanging the run.
"""

import asyncio
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, TypeVar

from storeroom.engines.outcomes import Outcome

__all__ = ["PATIENCE", "Flag", "Gate", "aeventually", "chance_of", "eventually", "in_background", "in_threads"]

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds after which a wait is taken for a deadlock; far longer than any test needs."""


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until another thread or process has done its part.

    Raises:
        AssertionError: it has not, after PATIENCE seconds.
    """
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > deadline:
            raise AssertionError(f"What was waited for did not happen within {PATIENCE:g} seconds.")
        time.sleep(0.0005)


async def aeventually(is_so: Callable[[], bool]) -> None:
    """See eventually(); the other tasks of the loop go on.

    Raises:
        TimeoutError: it has not, after PATIENCE seconds.
    """
    async with asyncio.timeout(PATIENCE):
        while not is_so():
            await asyncio.sleep(0.0005)


def chance_of(seed: int) -> random.Random:
    """Return the chance of a workload, which is the same in every run."""
    return random.Random(seed)


def in_threads(count: int, job: Callable[[int], T]) -> list[T]:
    """Call ``job(number)`` in so many threads that start together; return the results in order.

    Raises:
        BaseException: the error of a job, of the first by number.
        AssertionError: a job did not end.
    """
    runs = [_Run(job, number) for number in range(count)]
    together = threading.Barrier(count)
    threads = [threading.Thread(target=run, args=(together,), daemon=True) for run in runs]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    stuck = sum(thread.is_alive() for thread in threads)
    if stuck:
        raise AssertionError(f"{stuck} of {count} threads did not end within {PATIENCE:g} seconds.")
    return [run.outcome() for run in runs]


def in_background(job: Callable[..., T], *arguments: Any, **named: Any) -> "Future[T]":
    """Call a job in a thread of its own, which does not outlive the program; return its result to come."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(job(*arguments, **named))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


class _Run(Generic[T]):
    """One thread's call of a job, and what came of it."""

    def __init__(self, job: Callable[[int], T], number: int) -> None:
        self._job, self._number = job, number
        self._results: list[T] = []
        self._error: BaseException | None = None

    def __call__(self, together: threading.Barrier) -> None:
        try:
            together.wait(PATIENCE)
            self._results.append(self._job(self._number))
        except BaseException as error:
            self._error = error

    def outcome(self) -> T:
        if self._error is not None:
            raise self._error
        return self._results[0]


class Flag:
    """A ``threading.Event`` for those whom an exception may interrupt as they wait: it has no lock to be left taken."""

    def __init__(self) -> None:
        self._outcome = Outcome[None]()

    def set(self) -> None:
        """Let all go on that wait, and that will."""
        if not self.is_set():
            self._outcome.set_result(None)

    def is_set(self) -> bool:
        """Tell whether it is set."""
        return self._outcome.done()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, so many seconds at most; return whether it is."""
        with suppress(TimeoutError):
            self._outcome.result(timeout)
        return self.is_set()


class Gate:
    """A computation that tells when it begins and ends when it may.

    Attributes:
        calls: the number of its calls.
        begun: set by the first call.
        may_end: to be set; every call then ends.
    """

    def __init__(self, value: Any = "computed") -> None:
        """Compute this value; raise it, if it is an exception."""
        self._value = value
        self._lock = threading.Lock()
        self.calls = 0
        self.begun = Flag()
        self.may_end = Flag()

    def __call__(self) -> Any:
        """Compute."""
        with self._lock:
            self.calls += 1
        self.begun.set()
        if not self.may_end.wait(PATIENCE):
            raise AssertionError("The computation was never told to end.")
        if isinstance(self._value, BaseException):
            raise self._value
        return self._value
