"""Threads that nobody waits for, and how they begin.

An exception that another thread sets (``PyThreadState_SetAsyncExc``), as dramatiq's time limit does, is meant for the
thread of a number. While that one starts a thread, CPython 3.11 knows the newborn by the same number, and may give the
exception to that: it dies at its first instruction, and ``Thread.start()`` waits for ever for it to begin.
"""

import sys
import threading
from collections.abc import Callable
from typing import Any, Final

__all__ = ["start"]

BIRTH_SECONDS: Final = 0.5
"""For how long a newborn is waited for where it may have died: a thread begins within a millisecond, as a rule."""


class _Begun(threading.Event):
    """Thread's own event, which is not waited for without end."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(BIRTH_SECONDS if timeout is None else timeout)


class _Thread(threading.Thread):
    def __init__(self, name: str, target: Callable[..., object], args: tuple[Any, ...]) -> None:
        super().__init__(name=name, target=target, args=args, daemon=True)
        if sys.version_info < (3, 12):
            self._started = _Begun()


def start(name: str, target: Callable[..., object], *args: Any) -> threading.Thread:
    """Start a thread that does not outlive the program, and return it.

    It may have died before it began. So it counts itself, and nobody takes its being there for granted.

    Raises:
        RuntimeError: the system allows no further one.
    """
    thread = _Thread(name, target, args)
    thread.start()
    return thread
