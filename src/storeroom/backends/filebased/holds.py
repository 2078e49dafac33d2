"""Locks by which a process tells the others that it has the environment open, and on which files.

LMDB says so by a lock of fcntl() on ``lock.mdb``. That is lost when anything in this process closes the file, as a
backup of the directory does, and says nothing of a file that was removed. So each process holds three locks more, which
belong to a descriptor of its own:

- On the first byte of ``lock.mdb``, by F_OFD_SETLK (Linux): while it is there, LMDB does not make the file anew.
- On ``data.mdb``, by flock(): somebody uses this very file, with this ``lock.mdb`` or with one that was removed.
- On the folder, by flock(): systemd-tmpfiles leaves a folder that is locked alone.

Other cleaners of temporary files go by the times of a file. One that is changed through memory never gets younger, so
the times are set now and then.

Sources: fcntl(2), "Open file description locks"; tmpfiles.d(5), "Age"; lockfile code in LMDB's mdb.c.
"""

import contextlib
import os
import struct
import time
from typing import Any, Final

from storeroom.backends.filebased.files import identity, is_in_use
from storeroom.backends.filebased.folder import open_folder, open_own

try:
    import fcntl
except ImportError:  # Windows: no file is removed while it is open
    fcntl = None  # type: ignore[assignment]

__all__ = ["Holds"]

_TOUCH_SECONDS: Final = 3600.0
"""Seconds after which the times of the files are set anew. Cleaners remove what is older than a day at least."""

_WATCHED: Final = ("data.mdb", "lock.mdb", "writer")
_TOUCHED: Final = ("lock.mdb", "writer", "slots", "guard", "ballast")

_SET_LOCK: Final = getattr(fcntl, "F_OFD_SETLK", None)


class Holds:
    """The locks and the files of one opening.

    Attributes:
        folder: the descriptor of the folder; -1 on Windows.
        lock_number: of the file ``lock.mdb``, once the environment is open.

    Raises:
        StorageError, OSError: as open_folder() does.
    """

    def __init__(self, directory: str) -> None:
        """Open the folder, made when needed, and keep systemd-tmpfiles out of it."""
        self._descriptors: list[int] = []
        self._directory = directory
        self.folder = open_folder(directory)
        self.lock_number = 0
        self._descriptors += [self.folder] if self.folder >= 0 else []
        self._identities: dict[str, Any] = {}
        self._touch_at = 0.0
        if self.folder >= 0:
            self._flock(self.folder, "LOCK_SH")

    def __del__(self) -> None:
        """Let go of what an opening that failed has left."""
        self.close()

    @staticmethod
    def _flock(descriptor: int, how: str) -> bool:
        if fcntl is None:
            return True
        try:
            fcntl.flock(descriptor, getattr(fcntl, how) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def take(self) -> None:
        """Hold the files that LMDB has just opened; the guard file is locked meanwhile."""
        lock, data = self._path("lock.mdb"), self._path("data.mdb")
        if fcntl is not None:
            self._lock = open_own(lock, os.O_RDWR)
            self._descriptors.append(self._lock)
            if _SET_LOCK is not None:
                with contextlib.suppress(BlockingIOError):
                    fcntl.fcntl(self._lock, _SET_LOCK, struct.pack("hhqqi", fcntl.F_RDLCK, os.SEEK_SET, 0, 1, 0))
            descriptor = open_own(data, os.O_RDONLY)
            self._descriptors.append(descriptor)
            self._flock(descriptor, "LOCK_SH")
        self.lock_number = self.number_of_lock()
        self._identities = {name: identity(self._path(name)) for name in _WATCHED}

    def close(self) -> None:
        """Let go of all, after LMDB has; in a forked child, of the descriptors that are the parent's."""
        descriptors, self._descriptors = self._descriptors, []
        for descriptor in descriptors[1:] + descriptors[:1]:
            os.close(descriptor)

    def number_of_lock(self) -> int:
        """Return a number that tells ``lock.mdb`` from any other that takes its name; 0 if there is none."""
        return (identity(self._path("lock.mdb")) or (0, 0))[1]

    def is_data_used(self) -> bool:
        """Tell whether another process, or an opening before this one, holds ``data.mdb``."""
        if fcntl is None:
            return False
        try:
            descriptor = open_own(self._path("data.mdb"), os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            return not self._flock(descriptor, "LOCK_EX")
        finally:
            os.close(descriptor)

    def is_used(self) -> bool:
        """Tell whether another process has the environment open."""
        return is_in_use(self._path("lock.mdb")) or self.is_data_used()

    def are_replaced(self) -> bool:
        """Tell whether a file that was opened is no longer the one at its path."""
        return any(identity(self._path(name)) != known for name, known in self._identities.items())

    def refresh(self) -> None:
        """Take LMDB's lock as a living reader again, if it was lost, and each hour set the times of the files.

        Others free the places of readers without that lock. Cleaners remove what looks unused.
        """
        if fcntl is not None and self.lock_number:
            with contextlib.suppress(BlockingIOError):  # another machine's process has this number
                fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, os.getpid())
        if time.monotonic() < self._touch_at:
            return
        self._touch_at = time.monotonic() + _TOUCH_SECONDS
        if self.folder < 0:
            return  # Windows has no such cleaners
        now = time.time_ns()
        for name in _TOUCHED:
            with contextlib.suppress(OSError):  # a missing one is noticed elsewhere, another user's is theirs to touch
                os.utime(name, ns=(now, now), dir_fd=self.folder, follow_symlinks=False)
        with contextlib.suppress(OSError):
            # The time of its last change tells whether a turn has made it, and stays.
            changed = os.stat("data.mdb", dir_fd=self.folder, follow_symlinks=False).st_mtime_ns
            os.utime("data.mdb", ns=(now, changed), dir_fd=self.folder, follow_symlinks=False)
