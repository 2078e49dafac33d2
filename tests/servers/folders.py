"""Folders of the tests' servers: removed at the end, and by a later run where a run was interrupted.

A process of a run has one folder in each directory that it uses, with its process id in the name and a lock within,
which the system takes away when the process ends, however it ends. A folder that nobody holds is left behind. Each
server writes its process id into its own folder there, and names that folder on its command line: by both it is known
when it has outlived its run.
"""

import atexit
import contextlib
import fcntl
import itertools
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import IO

__all__ = ["DIRECTORIES", "forget_server", "new_folder", "note_server", "remove_leftovers"]

PREFIX = "storeroom-tests-"
LOCK = "owner"
SERVER = "server"

#: Bytes that a run may need: a few databases of 150 MB for each worker. A container often has 64 MB of such memory.
ROOM = 4 * 2**30


def _in_memory() -> Path:
    shared = Path("/dev/shm")
    if os.access(shared, os.W_OK) and shutil.disk_usage(shared).free >= ROOM:
        return shared
    return Path(tempfile.gettempdir())


#: Memory where the system has a file system of it: making a table waits for the disk otherwise.
IN_MEMORY = _in_memory()

#: The directories that hold folders of runs.
DIRECTORIES = (Path("/dev/shm"), Path(tempfile.gettempdir()))

#: Seconds for a server of an interrupted run to end by itself.
PATIENCE = 5.0

_numbers = itertools.count(1)
_locks: list[IO[str]] = []


def _let_go() -> None:
    for lock in _locks:
        lock.close()


# A child that outlives its parent must not keep the parent's folder.
os.register_at_fork(after_in_child=_let_go)


def new_folder(directory: Path = IN_MEMORY) -> Path:
    """Return a new folder of this process, with a path that is short enough for a socket.

    Its owner may remove it; the end of the process does at the latest.
    """
    folder = _folder_of_process(directory, os.getpid()) / str(next(_numbers))
    folder.mkdir()
    return folder


@cache
def _folder_of_process(directory: Path, pid: int) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{pid}-", dir=directory))
    folder.chmod(0o711)  # a database runs as another user
    lock = (folder / LOCK).open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    _locks.append(lock)
    atexit.register(_remove_own, folder, pid)
    return folder


def _remove_own(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # a forked child has inherited this
        _end_and_remove(folder)


def note_server(folder: Path, pid: int) -> None:
    """Write down that a server runs in a folder, which its command line names."""
    (folder / SERVER).write_text(str(pid))


def forget_server(folder: Path) -> None:
    """Note that the server has ended; its folder may be gone."""
    (folder / SERVER).unlink(missing_ok=True)


# Interrupted runs ---------------------------------------------------------------------------------------------------


def remove_leftovers(directories: Iterable[Path] = DIRECTORIES) -> list[Path]:
    """Remove the folders of processes that are no more, and end the servers that still run there; return the folders.

    Those of a living process stay, be it another run's, another user's or in another container.
    """
    removed = []
    for folder in itertools.chain.from_iterable(directory.glob(f"{PREFIX}*") for directory in directories):
        with _held_if_left_behind(folder) as is_left_behind:
            if is_left_behind:
                _end_and_remove(folder)
                removed.append(folder)
    return removed


def _end_and_remove(folder: Path) -> None:
    """Remove the folder of a process; a test run that ends by an error of its own has not stopped its servers."""
    for noted in folder.glob(f"*/{SERVER}"):
        _end_server(noted)
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _held_if_left_behind(folder: Path) -> Iterator[bool]:
    """Hold a folder's lock, and tell whether it was free and its process is no more.

    One without the other is not enough: a process is about to lock a folder that it has just made, and its id means
    nothing in another container that has the same directory.
    """
    named = re.match(rf"{PREFIX}(\d+)-", folder.name)
    if named is None or _is_alive(int(named[1])):
        yield False
        return
    try:
        with (folder / LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
    except OSError:
        yield False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True


def _end_server(noted: Path) -> None:
    """End the server that was noted in its folder, if a process of that id has the folder on its command line."""
    text = noted.read_text()
    if not text.isdecimal():
        return
    pid = int(text)
    # It may be paused. PostgreSQL waits for no client with the first of these; MariaDB heeds the second alone.
    for number in (signal.SIGCONT, signal.SIGINT, signal.SIGTERM):
        _signal(pid, noted.parent, number)
    deadline = time.monotonic() + PATIENCE
    while _runs_in(pid, noted.parent):
        if time.monotonic() > deadline:
            _signal(pid, noted.parent, signal.SIGKILL)
            break
        time.sleep(0.02)


def _signal(pid: int, folder: Path, number: int) -> None:
    if _runs_in(pid, folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _runs_in(pid: int, folder: Path) -> bool:
    """Tell whether a process runs whose command line names a folder."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return re.search(re.escape(os.fsencode(folder)) + rb"[/\x00]", command + b"\x00") is not None
