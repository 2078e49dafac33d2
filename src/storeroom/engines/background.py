"""Worker threads of this process, for work that nobody waits for, or not to its end.

Threads are started as they are needed and end when idle. They are daemons: a process that ends waits for them only a
moment, for the computations that are about to finish.
"""

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Final

__all__ = ["MAX_WAITING", "MAX_WORKERS", "drain", "submit"]

MAX_WORKERS: Final = 32
"""Threads of a process."""

MAX_WAITING: Final = 1000
"""Jobs that wait for a thread; more are refused."""

IDLE_SECONDS: Final = 5.0
"""For how long a thread waits for another job."""

EXIT_SECONDS: Final = 0.5
"""For how long the end of the process waits for jobs under way."""

_log = logging.getLogger("storeroom")


class _Workers:
    """The threads, and the jobs that wait for them."""

    def __init__(self) -> None:
        lock = threading.Lock()
        self.changed = threading.Condition(lock)
        self.rested = threading.Condition(lock)
        self.jobs: deque[Callable[[], object]] = deque()
        self.threads = 0
        self.idle = 0
        self.is_closed = False

    def submit(self, job: Callable[[], object]) -> bool:
        with self.changed:
            if self.is_closed or len(self.jobs) >= MAX_WAITING:
                return False
            self.jobs.append(job)
            if self.idle >= len(self.jobs) or self.threads == MAX_WORKERS:
                self.changed.notify_all()
                return True
            self.threads += 1
        try:
            threading.Thread(target=self._work, name="storeroom-background", daemon=True).start()
        except RuntimeError:  # the system allows no further one: the job is left to the others, if there are any
            with self.changed:
                self.threads -= 1
                self.rested.notify_all()
                if self.threads == 0 and job in self.jobs:
                    self.jobs.remove(job)
                    return False
        return True

    def _work(self) -> None:
        while True:
            with self.changed:
                self.idle += 1
                self.rested.notify_all()
                found = self.changed.wait_for(lambda: self.jobs or self.is_closed, IDLE_SECONDS)
                self.idle -= 1
                if not found or not self.jobs:
                    self.threads -= 1
                    self.rested.notify_all()
                    return
                job = self.jobs.popleft()
            try:
                job()
            except BaseException:  # noqa: BLE001 -- the error of a user's function; those who wait for it have it already
                _log.exception("A computation in the background failed.")

    def close(self) -> None:
        deadline = time.monotonic() + EXIT_SECONDS
        with self.changed:
            self.is_closed = True
            self.jobs.clear()
            self.changed.notify_all()
            self.rested.wait_for(lambda: self.threads == 0, max(0.0, deadline - time.monotonic()))


_workers = _Workers()


def submit(job: Callable[[], object], context: Context) -> bool:
    """Let a worker thread run the job in this context.

    Return False if it is refused: too many wait already, the system allows no thread, or the process is ending.
    """
    return _workers.submit(lambda: context.run(job))


def drain(seconds: float = 10.0) -> bool:
    """Wait until no job is waiting or under way: for tests. Return whether that came true."""
    with _workers.rested:
        return _workers.rested.wait_for(lambda: not _workers.jobs and _workers.idle == _workers.threads, seconds)


def _close() -> None:
    _workers.close()


def _after_fork_in_child() -> None:
    global _workers  # noqa: PLW0603 -- the parent's threads are not here
    _workers = _Workers()


atexit.register(_close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
