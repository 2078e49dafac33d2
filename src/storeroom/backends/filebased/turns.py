"""Whose turn it is to write: one thread at a time in this process, and one process at a time on this machine.

LMDB has a mutex of its own for that, in shared memory. Where a process is killed while it waits for it, the others that
wait may never be woken: the mutex is robust against the death of its holder alone. So nobody waits for it here.
Processes take turns by a file lock; one waits by looking again and again, which a signal interrupts and which has an
end. A process that has the environment for itself does without: it notes in shared memory that it is writing, until
another one opens the environment, and waits for the end of that write.

The end of each turn is noted, too: a file that was changed later was changed by something else than a turn.
"""

import contextlib
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn

from storeroom.backends.filebased.files import reserve
from storeroom.exceptions import StorageError

try:
    import fcntl
except ImportError:  # Windows: the system wakes who waits for a mutex there
    fcntl = None  # type: ignore[assignment]

__all__ = ["Turns"]

PATIENCE_SECONDS: Final = 60.0
"""How long a write waits for those of other processes. The longest, which makes all slots anew, takes seconds."""

_FIRST_PAUSE: Final = 20e-6
_LONGEST_PAUSE: Final = 1e-3
"""Seconds between two looks: most writes take ten microseconds."""

# The notes in the file: bytes, and a word of eight as a float.
_IS_SHARED: Final = 0
_IS_WRITING: Final = 1
"""That is, without the lock."""
_IS_TAKEN: Final = 2
_ENDED: Final = 1

_TICK: Final = 0.01
"""Seconds by which the time of a file's change may lag behind the clock, and for which most writes do not last."""


class Turns:
    """The turns of this process at writing to one environment.

    A writer takes `threads` by a ``with`` on the lock itself, so that an exception out of a signal handler finds it
    taken and given back, or not taken at all; and in it, `take()` and at last `give()`.

    Args:
        path: the file that all processes lock.

    Attributes:
        threads: the lock of the threads of this process.
        begin: LMDB's method that starts a transaction in the environment.
    """

    begin: Callable[..., Any]

    def __init__(self, path: str) -> None:
        """Open the file, made when needed."""
        self.threads = threading.Lock()
        self._is_taken = self._was_cut_short = False
        self._descriptor = -1
        reserve(path, mmap.PAGESIZE)
        self._descriptor = os.open(path, os.O_RDWR)
        self._notes = memoryview(mmap.mmap(self._descriptor, mmap.PAGESIZE))
        self._times = self._notes.cast("d")

    def __del__(self) -> None:
        """Close the file, when the last thread has let go of it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def join(self, is_in_use: Callable[[], bool]) -> None:
        """Let other processes take turns with this one; no other may join at the same time.

        Args:
            is_in_use: tells whether another process has the environment open.

        Raises:
            StorageError: a process that had it for itself does not end a write.
        """
        notes, patience = self._notes, time.monotonic() + PATIENCE_SECONDS
        if not is_in_use():
            self._was_cut_short = bool(notes[_IS_WRITING] or notes[_IS_TAKEN])
            notes[_IS_SHARED] = notes[_IS_WRITING] = notes[_IS_TAKEN] = 0
            return
        notes[_IS_SHARED] = 1
        while notes[_IS_WRITING] and is_in_use():
            if time.monotonic() > patience:
                _give_up()
            time.sleep(_LONGEST_PAUSE)

    def were_last_at(self, modified: float) -> bool:
        """Tell whether a turn may have changed the environment's file last, at this epoch second.

        A turn that was cut short by the death of its process may have lasted for a tick of the clock.
        """
        return modified <= self._times[_ENDED] + (_TICK if self._was_cut_short else 0) <= time.time() + _TICK

    def take(self, *, waits: bool = True) -> None:
        """Wait for this process's turn.

        Raises:
            BlockingIOError: another process is writing, and is not to be waited for.
            StorageError: another process has been writing all the time.
        """
        notes = self._notes
        notes[_IS_WRITING] = 1  # before the look at the other, as who joins does it the other way round
        if not notes[_IS_SHARED] or fcntl is None:
            return
        notes[_IS_WRITING] = 0
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not waits:
                raise
            self._wait()
        self._is_taken = True
        notes[_IS_TAKEN] = 1

    def _wait(self) -> None:
        patience, pause = time.monotonic() + PATIENCE_SECONDS, _FIRST_PAUSE
        while time.monotonic() < patience:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
        _give_up()

    def give(self) -> None:
        """End this process's turn, if it has one."""
        notes = self._notes
        if notes[_IS_WRITING]:
            self._times[_ENDED] = time.time()
            notes[_IS_WRITING] = 0
        if not notes[_IS_SHARED] or fcntl is None:
            return
        if self._is_taken:  # else that note is another process's
            self._is_taken = False
            self._times[_ENDED] = time.time()
            notes[_IS_TAKEN] = 0
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def taken(self, *, waits: bool = True) -> Iterator[None]:
        """Have the turn within a ``with`` block; raise as take() does."""
        if not waits and self.threads.locked():
            raise BlockingIOError
        with self.threads:
            try:
                self.take(waits=waits)
                yield
            finally:
                self.give()


def _give_up() -> NoReturn:
    raise StorageError(
        f"The file cache could not be written to for {PATIENCE_SECONDS:.0f} seconds: another process has begun a "
        "write and not ended it. It may have been stopped: let it go on, or end it."
    )
