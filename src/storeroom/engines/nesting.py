"""Operations in the midst of another one of the same thread.

Python's collector runs finalizers at any instruction, and a signal's handler may come at any. One that uses a cache
asks for a lock that its own thread holds, whose other work cannot go on before it returns. So these locks may be taken
again, which must not change what is half changed: a note tells it, and the inner operation ends by ReentrantUseError. A
write that nobody needs the result of is then made by another thread, a moment later: see later().
"""

import os
import threading
from _contextvars import Context
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar
from weakref import ref

from storeroom.engines import background
from storeroom.exceptions import ReentrantUseError
from storeroom.locks import note

__all__ = ["Alone", "OneByThread", "later", "nested"]

T = TypeVar("T")


def nested() -> ReentrantUseError:
    """Return the error of an operation in the midst of another one."""
    return ReentrantUseError(
        "A finalizer or a signal's handler has used a cache while its own thread was in the midst of an operation on "
        "the same storage: that cannot go on before this one has ended. Do it in a thread, or after the finalizer."
    )


class Alone:
    """The work of a thread under a lock, which is not to be done within itself: ``with lock, alone:``.

    The lock is taken by a ``with`` on itself, as an exception finds it taken and given back then, or not taken at all.

    Attributes:
        is_under_way: whether the work is; or an exception has cut it short.
    """

    __slots__ = ("_lock", "is_under_way")

    def __init__(self, lock: Any) -> None:
        """Note the lock, an RLock."""
        self._lock, self.is_under_way = lock, False

    def __enter__(self) -> None:
        if self.is_under_way:
            self.look()
        self.is_under_way = True

    def __exit__(self, *_: object) -> None:
        self.is_under_way = False

    def look(self) -> None:
        """Find out, under the lock, whose work is under way.

        Raises:
            ReentrantUseError: it is this thread's own, and not one that was cut short.
        """
        self._lock.release()
        try:
            threading.Condition(self._lock).notify(0)  # raises unless the lock is this thread's
        except RuntimeError:
            return
        finally:
            self._lock.acquire()
        raise nested()


class _Stay:
    """Refers to a call for as long as it lasts, however it ends."""


class OneByThread:
    """Work that each thread does by itself, and not within itself, where no lock of this process is held for it."""

    def __init__(self) -> None:
        self._under_way: dict[int, ref[_Stay]] = {}
        note(self)

    def do(self, work: Callable[..., T], *args: Any) -> T:
        """Return the work's result.

        Raises:
            ReentrantUseError: this thread is in the midst of other such work.
        """
        thread, stay = threading.get_ident(), _Stay()
        if (noted := self._under_way.get(thread)) is not None and noted() is not None:  # as _is_owned(), without a call
            raise nested()
        self._under_way[thread] = ref(stay)
        try:
            return work(*args)
        finally:
            self._under_way.pop(thread, None)

    def _is_owned(self) -> bool:
        """Tell whether this thread does such work: see locks.note()."""
        noted = self._under_way.get(threading.get_ident())
        return noted is not None and noted() is not None


_jobs: Final = deque[Callable[[], object]]()
_turn = threading.Lock()


def later(job: Callable[[], object]) -> None:
    """Let another thread do a job, after those that were handed over before.

    Raises:
        ReentrantUseError: there is none, as the process ends.
    """
    _jobs.append(job)
    if not background.submit(_do_next, Context()):
        with suppress(ValueError):  # it is done already
            _jobs.remove(job)
            raise nested()


def _do_next() -> None:
    """Do a job, and see to the next one; if another thread is doing one, it will do so."""
    if not _turn.acquire(blocking=False):
        return
    try:
        if _jobs:
            _jobs.popleft()()
    finally:
        _turn.release()
        if _jobs:
            background.submit(_do_next, Context())


def _after_fork_in_child() -> None:
    global _turn  # noqa: PLW0603 -- a thread of the parent may have it
    _turn = threading.Lock()
    _jobs.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
