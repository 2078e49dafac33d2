"""Whose turn it is to write: one thread at a time in this process, and one process at a time on this machine.

LMDB has a mutex of its own for that, in shared memory. Where a process is killed while it waits for it, the others that
wait may never be woken: the mutex is robust against the death of its holder alone. And a process may be stopped within
a write. So nobody waits for the mutex here. Processes take turns by a file lock; one waits by looking again and again,
with no lock of its own, which a signal interrupts and which has an end (`Waiting`). A process that has the environment
for itself does without: it notes in shared memory that it is writing, until another one opens the environment, and
waits for the end of that write.

The end of each turn is noted, too: a file that was changed later was changed by something else than a turn.
"""

import contextlib
import mmap
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import lmdb

from storeroom.backends.filebased.files import reserve
from storeroom.backends.filebased.folder import open_own
from storeroom.engines.nesting import Alone
from storeroom.exceptions import WriteTimeoutError
from storeroom.locks import reentrant

try:
    import fcntl
except ImportError:  # Windows: the system wakes who waits for a mutex there
    fcntl = None  # type: ignore[assignment]

__all__ = ["AT_LAST_SECONDS", "GAP_SECONDS", "GIVEN_UP_SECONDS", "ReplacedError", "TakenError", "Turns", "Waiting"]

AT_LAST_SECONDS: Final = 0.2
"""For how long the last write of a process waits for others: it adds its counts, which nobody needs that much."""

GIVEN_UP_SECONDS: Final = 0.05
"""For how long a write waits while those before it have given up: some of the longest pauses."""

NOTICE_SECONDS: Final = 2.0
"""The time that processes may need that use a lock.mdb which was removed. They look at most a second after they have
begun an operation; one that uses the cache no longer lets go of the file only when it does so again."""

_FIRST_PAUSE: Final = 20e-6
_LONGEST_PAUSE: Final = 1e-3
"""Seconds between two looks: most writes take ten microseconds."""

GAP_SECONDS: Final = 2 * _LONGEST_PAUSE
"""Seconds between two of the writes of a long task: everybody who waits looks meanwhile."""

HUNGRY_SECONDS: Final = 0.02
"""A process that has waited for longer says so. Threads of another process that write one after the other leave no
moment between their turns that a look every millisecond would meet, and may hold each for as long as other threads hold
Python's lock."""

_GONE_SECONDS: Final = 1.0
"""A process that has not looked for so long looks no more."""

_LEFT_SECONDS: Final = 0.01
"""The time that a turn is left to one that has said so: some looks, on a busy machine."""

# The notes in the file: bytes, and words of eight, two of them as floats.
_IS_SHARED: Final = 0
_IS_WRITING: Final = 1
"""That is, without the lock."""
_IS_TAKEN: Final = 2
_ENDED: Final = 1
_HUNGRY_AT: Final = 3
"""The monotonic time at which a process has last looked in vain that has waited for long; 0 for none."""
_LOCK: Final = 2
"""The number of the file lock.mdb that all who write must have opened."""

_TICK: Final = 0.01
"""Seconds by which the time of a file's change may lag behind the clock, and for which most writes do not last."""


class TakenError(lmdb.Error):
    """Another process is writing, or opens the files; nothing was done."""


class ReplacedError(lmdb.Error):
    """The file lock.mdb that this process has opened was removed, and another process has made one."""


class Turns:
    """The turns of this process at writing to one environment.

    A writer takes `threads` by a ``with`` on the lock itself, so that an exception out of a signal handler finds it
    taken and given back, or not taken at all; and in it, unless `alone` has work under way, `take()`, at last `give()`.

    Args:
        path: the file that all processes lock.

    Attributes:
        threads: the lock of the threads of this process.
        alone: a thread's turn, which is not to be taken within itself.
        begin: LMDB's method that starts a transaction in the environment.
        lock_number: of the file lock.mdb that this process has opened.
        together: keys to all that was read of them together: see TransactingCache._get_together().
    """

    begin: Callable[..., Any]

    def __init__(self, path: str) -> None:
        """Open the file, made when needed."""
        self.threads = reentrant()
        self.alone = Alone(self.threads)
        self._is_taken = self._was_cut_short = False
        self._descriptor = -1
        reserve(path, mmap.PAGESIZE)
        self._descriptor = open_own(path, os.O_RDWR)
        self._notes = memoryview(mmap.mmap(self._descriptor, mmap.PAGESIZE))
        self._times, self._words = self._notes.cast("d"), self._notes.cast("Q")
        self.lock_number = 0
        self.together: dict[tuple[Any, ...], tuple[int, float, tuple[Any, ...]]] = {}

    def __del__(self) -> None:
        """Close the file, when the last thread has let go of it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def join(self, is_in_use: Callable[[], bool]) -> None:
        """Let other processes take turns with this one; no other may join at the same time.

        Args:
            is_in_use: tells whether another process has the environment open.

        Raises:
            TakenError: a process that had it for itself is within a write.
        """
        notes = self._notes
        if not is_in_use():
            self._was_cut_short = bool(notes[_IS_WRITING] or notes[_IS_TAKEN])
            notes[_IS_SHARED] = notes[_IS_WRITING] = notes[_IS_TAKEN] = 0
            return
        notes[_IS_SHARED] = 1
        if notes[_IS_WRITING] and is_in_use():
            raise TakenError("another process is writing")

    @property
    def is_outdated(self) -> bool:
        """Tell whether another process has made another lock.mdb since this one has opened its own."""
        return bool(self._words[_LOCK] != self.lock_number)

    def agree_on(self, lock_number: int, is_data_used: Callable[[], bool]) -> None:
        """Have all who write use this file lock.mdb; others who use another, which was removed, get time to see it.

        Args:
            lock_number: of the file.
            is_data_used: tells whether another process uses data.mdb.
        """
        words, self.lock_number = self._words, lock_number
        if words[_LOCK] == lock_number:
            return
        words[_LOCK] = lock_number  # first: from now on they begin no write
        patience = time.monotonic() + NOTICE_SECONDS
        while is_data_used() and time.monotonic() < patience:
            time.sleep(10 * _LONGEST_PAUSE)

    def were_last_at(self, modified: float) -> bool:
        """Tell whether a turn may have changed the environment's file last, at this epoch second.

        A turn that was cut short by the death of its process may have lasted for a tick of the clock.
        """
        return modified <= self._times[_ENDED] + (_TICK if self._was_cut_short else 0) <= time.time() + _TICK

    def take(self, waiting: "Waiting | None" = None) -> None:
        """Take this process's turn, for which the caller may have been waiting.

        Raises:
            TakenError: another process is writing.
            ReplacedError: the environment has to be opened anew.
        """
        notes, self.alone.is_under_way = self._notes, True
        notes[_IS_WRITING] = 1  # before the look at the other, as who joins does it the other way round
        if not notes[_IS_SHARED] or fcntl is None:
            return
        notes[_IS_WRITING] = 0
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TakenError("another process is writing") from None
        self._is_taken = True
        if waiting is not None:
            self._times[_HUNGRY_AT] = 0.0
        if self._words[_LOCK] != self.lock_number:
            raise ReplacedError("lock.mdb was replaced")
        notes[_IS_TAKEN] = 1

    def note_hunger(self) -> None:
        """Let the others leave this process a turn."""
        self._times[_HUNGRY_AT] = time.monotonic()

    def give(self) -> None:
        """End this process's turn, if it has one."""
        notes, self.alone.is_under_way = self._notes, False
        if notes[_IS_WRITING]:
            self._times[_ENDED] = time.time()
            notes[_IS_WRITING] = 0
        if not notes[_IS_SHARED] or fcntl is None:
            return
        was_taken, self._is_taken = self._is_taken, False
        if was_taken:  # else that note is another process's
            self._times[_ENDED] = time.time()
            notes[_IS_TAKEN] = 0
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        if was_taken and self._times[_HUNGRY_AT]:  # one that has looked in vain may be the hungry one itself
            self._leave_the_next()

    def _leave_the_next(self) -> None:
        """Let a process that has waited for long take the next turn; the threads of this one wait, too."""
        until = time.monotonic() + _LEFT_SECONDS
        while (hungry_at := self._times[_HUNGRY_AT]) and (now := time.monotonic()) < until:
            if now - hungry_at > _GONE_SECONDS:
                self._times[_HUNGRY_AT] = 0.0
            time.sleep(_FIRST_PAUSE)

    @contextlib.contextmanager
    def taken(self, seconds: float = 0.0) -> Iterator[None]:
        """Have the turn within a ``with`` block; raise as take() does, after so many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                with self.threads:
                    if self.alone.is_under_way:
                        self.alone.look()
                    try:
                        self.take()
                        yield
                        return
                    finally:
                        try:
                            self.give()
                        except BaseException:  # of a signal's handler: others wait for it
                            self.give()
                            raise
            except TakenError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_LONGEST_PAUSE)


class Waiting:
    """A wait for a turn, for so many seconds at most."""

    def __init__(self, seconds: float) -> None:
        self._begun, self._seconds, self._pause = time.monotonic(), seconds, _FIRST_PAUSE

    def look_again(self, turns: Turns | None) -> None:
        """Let a moment pass.

        Raises:
            WriteTimeoutError: the wait is over.
        """
        waited = time.monotonic() - self._begun
        if waited >= self._seconds:
            raise WriteTimeoutError(
                f"The file cache could not be written to for {self._seconds:g} seconds: another process has begun a "
                "write and not ended it. It may have been stopped: let it go on, or end it; or raise "
                "OPTIONS['write_timeout']."
            )
        if turns is not None and waited > HUNGRY_SECONDS:
            turns.note_hunger()
        # A look at files that are not open yet opens several.
        time.sleep(min(10 * _LONGEST_PAUSE if turns is None else self._pause, self._seconds - waited))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
