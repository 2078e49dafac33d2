"""Worker threads of this process, for work that nobody waits for, or not to its end.

Threads are started as they are needed and end when idle. Jobs that hang take no thread from the others for long: one
that has waited for a moment gets a thread of its own. All are daemons: a process that ends waits for them only a
moment, for the computations that are about to finish.

A job that is to begin later takes no thread until then: one thread keeps the time for all of them.
"""

import atexit
import itertools
import os
import threading
import time
from _contextvars import Context
from _heapq import heappop, heappush  # the C module alone
from collections import deque
from collections.abc import Callable
from typing import Final

from storeroom.engines import threads
from storeroom.late import logger_of
from storeroom.locks import reentrant

__all__ = ["MAX_THREADS", "MAX_WAITING", "MAX_WORKERS", "drain", "look_after", "submit", "submit_later"]

MAX_WORKERS: Final = 32
"""Threads of a process for jobs that nobody waits for, unless these take long."""

MAX_THREADS: Final = 512
"""Threads of a process at the most, hung ones included."""

PATIENCE_SECONDS: Final = 0.5
"""For how long a job waits until it gets another thread, beyond MAX_WORKERS."""

MAX_WAITING: Final = 1000
"""Jobs that wait for a thread; more are refused."""

IDLE_SECONDS: Final = 5.0
"""For how long a thread waits for another job."""

EXIT_SECONDS: Final = 0.5
"""For how long the end of the process waits for jobs under way."""

TICK_SECONDS: Final = 0.02
"""The most that a job for later begins too late by; also the pause before it is tried again, if it was refused."""

_log = logger_of("storeroom")


class _Workers:
    """The threads, and the jobs that wait for them."""

    def __init__(self) -> None:
        # A finalizer that submits a job may come in between. `with` takes the lock itself: a signal's handler may raise
        # anywhere, and the conditions' own way out of the block, in Python, would leave it taken.
        self.lock = reentrant()
        self.changed = threading.Condition(self.lock)
        self.rested = threading.Condition(self.lock)
        # Since when it waits, the job, and whether it is done even if the process ends.
        self.jobs: deque[tuple[float, Callable[[], object], bool]] = deque()
        self.threads = 0
        self.idle = 0
        self.later: list[tuple[float, int, Callable[[], object]]] = []  # a heap: when each is due, and its number
        self.numbers = itertools.count()
        self.keeps_time = False
        self.is_closed = False

    def submit(self, job: Callable[[], object], *, is_awaited: bool = False, is_kept: bool = False) -> bool:
        waiting = time.monotonic(), job, is_kept
        with self.lock:
            if self.is_closed or len(self.jobs) >= MAX_WAITING:
                return False
            (self.jobs.appendleft if is_awaited else self.jobs.append)(waiting)
            self.changed.notify()
        if not self.grow(is_awaited=is_awaited):
            with self.lock:
                if self.threads == 0 and waiting in self.jobs:
                    self.jobs.remove(waiting)
                    return False
        return True

    def submit_later(self, seconds: float, job: Callable[[], object]) -> bool:
        if seconds <= 0 and self.submit(job, is_awaited=True, is_kept=True):
            return True
        with self.lock:
            if self.is_closed:
                return False
            heappush(self.later, (time.monotonic() + seconds, next(self.numbers), job))
        self._see_to_time()
        return True

    def _see_to_time(self) -> None:
        if self.later and not self.keeps_time:
            self.submit(self._keep_time, is_awaited=True)

    def _keep_time(self) -> None:
        """Submit jobs as they are due, until there are none; at once, if the process ends."""
        with self.lock:
            if self.keeps_time:
                return
            self.keeps_time = True
        while True:
            now = time.monotonic()
            with self.lock:
                if not self.later:
                    self.keeps_time = False
                    return
                due = self.later[0][0]
                job = heappop(self.later)[2] if due <= now or self.is_closed else None
            if job is None:
                time.sleep(min(due - now, TICK_SECONDS))
            elif not self.submit(job, is_awaited=True, is_kept=True) and not self.submit_later(TICK_SECONDS, job):
                _run(job)

    def grow(self, *, is_awaited: bool = False) -> bool:
        """Start another thread, if the jobs need one. Return False if the system allows no further one."""
        with self.lock:
            if self.idle >= len(self.jobs) or self.threads >= MAX_THREADS:
                self.changed.notify(len(self.jobs))  # once more: who submitted them may have been cut short
                return True
            is_late = time.monotonic() - min(since for since, *_ in self.jobs) >= PATIENCE_SECONDS
            if self.threads >= MAX_WORKERS and not (is_awaited or is_late):
                return True
        try:
            threads.start("storeroom-background", self._work)
        except RuntimeError:  # the jobs are left to the others, if there are any
            return False
        return True

    def _work(self) -> None:
        with self.lock:
            if (self.is_closed and not self.jobs) or self.threads >= MAX_THREADS:
                return
            self.threads += 1  # here, as who starts it may be cut short before or after
        try:
            while (job := self._next_job()) is not None:
                _run(job)
                self._see_to_time()  # a job for later may have found no thread for this
        finally:
            with self.lock:
                self.threads -= 1
                self.rested.notify_all()
            if self.jobs:  # one that came since, or that another thread's exception has kept from this one
                self.grow()

    def _next_job(self) -> Callable[[], object] | None:
        with self.lock:
            self.idle += 1
            try:
                self.rested.notify_all()
                self.changed.wait_for(lambda: self.jobs or self.is_closed, IDLE_SECONDS)
            finally:
                self.idle -= 1
            return self.jobs.popleft()[1] if self.jobs else None

    def close(self) -> None:
        deadline = time.monotonic() + EXIT_SECONDS
        with self.lock:
            self.is_closed = True
            self.jobs = deque(job for job in self.jobs if job[2])
            self.changed.notify_all()
            self.rested.wait_for(lambda: self.threads == 0, max(0.0, deadline - time.monotonic()))


def _run(job: Callable[[], object]) -> None:
    try:
        job()
    except BaseException:  # noqa: BLE001 -- the error of a user's function; those who wait for it have it already
        _log.exception("A computation in the background failed.")


_workers = _Workers()


def submit(job: Callable[[], object], context: Context, *, is_awaited: bool = False) -> bool:
    """Let a worker thread run the job in this context; at once, if somebody waits for it.

    Return False if it is refused: too many wait already, the system allows no thread, or the process is ending.
    """
    return _workers.submit(lambda: context.run(job), is_awaited=is_awaited)


def submit_later(seconds: float, job: Callable[[], object], context: Context) -> bool:
    """Let a worker thread run the job in this context, so many seconds from now, however many others wait by then.

    Return False if the process is ending. Jobs that are not due by then are run at its end, if there is time.
    """
    return _workers.submit_later(seconds, lambda: context.run(job))


def look_after() -> None:
    """Start another thread if a job has waited for one too long: called by those who come by."""
    if _workers.jobs:
        _workers.grow()


def drain(seconds: float = 10.0) -> bool:
    """Wait until no job is waiting or under way: for tests. Return whether that came true."""
    with _workers.lock:
        return _workers.rested.wait_for(lambda: not _workers.jobs and _workers.idle == _workers.threads, seconds)


def _close() -> None:
    _workers.close()


def _after_fork_in_child() -> None:
    global _workers  # noqa: PLW0603 -- the parent's threads are not here
    _workers = _Workers()


atexit.register(_close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
