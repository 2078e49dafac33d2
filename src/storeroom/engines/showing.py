"""The counts of this process for ``storeroom top``: a file in the folder where somebody watches, written each second.

A thread writes it as long as somebody watches, and removes it then. It asks no server and takes no lock.
"""

import atexit
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, Final

__all__ = ["FORM", "begin", "gathered", "record_name"]

FORM: Final = 1
"""The number of the form of a record; a reader passes by any other."""

SHOW_SECONDS: Final = 1.0

_started_at: Final = time.time()


def record_name(pid: int) -> str:
    """Return the name of a process's file."""
    return f"{pid}.json"


def gathered(engines: Collection[Any]) -> dict[str, Any]:
    """Return what is shown of this process: itself, and each of its caches.

    Handles that count together, as those of two aliases with one LOCATION in memory, are one cache with both names.
    """
    caches: dict[int, dict[str, Any]] = {}
    for engine in engines:
        for handle in list(engine.handles.values()):
            if (known := caches.get(id(handle._counters))) is None:
                known = caches[id(handle._counters)] = {**handle._shown(), "aliases": []}
            if handle.settings.alias not in known["aliases"]:
                known["aliases"].append(handle.settings.alias)
    return {
        "form": FORM,
        "pid": os.getpid(),
        "started_at": _started_at,
        "at": time.time(),
        "program": [*getattr(sys, "argv", ()), ""][0],
        "directory": _directory(),
        "caches": list(caches.values()),
    }


def _directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


class _Showing:
    """The thread of one process, of which a forked child has none."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._turn = threading.Lock()
        self._is_over = threading.Event()
        self._path = ""

    def begin(self, folder: str, *terms: Callable[..., Any]) -> None:
        if self._is_over.is_set() or not self._turn.acquire(blocking=False):
            return
        self._path = os.path.join(folder, record_name(self.pid))
        thread = threading.Thread(target=self._show, args=(folder, *terms), name="storeroom-top", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread can be had now
            self._turn.release()

    def _show(self, folder: str, engines: Callable[[], Collection[Any]], is_watched: Callable[[str], bool]) -> None:
        try:
            with suppress(OSError):  # the folder has gone, or the disk is full: the next look begins anew
                while is_watched(folder):
                    self._write(gathered(engines()))
                    if self._is_over.wait(SHOW_SECONDS):
                        return
        finally:
            self.remove()
            self._turn.release()

    def _write(self, record: dict[str, Any]) -> None:
        """Put the record in the place of the last at once: a reader finds a whole one."""
        text, passing = json.dumps(record), f"{self._path}.new"
        with suppress(FileNotFoundError):
            os.unlink(passing)
        with open(os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(text)
        os.replace(passing, self._path)

    def remove(self) -> None:
        """Remove the record."""
        with suppress(OSError):
            os.unlink(self._path)

    def end(self) -> None:
        """Remove the record as the process ends."""
        self._is_over.set()
        if self._path and self.pid == os.getpid():
            self.remove()


_showing: Final = [_Showing()]


def begin(folder: str, engines: Callable[[], Collection[Any]], is_watched: Callable[[str], bool]) -> None:
    """Show this process's counts in the folder, as long as it is watched."""
    if _showing[0].pid != os.getpid():
        _showing[0] = _Showing()  # a forked child has none of its parent's threads
    _showing[0].begin(folder, engines, is_watched)


@atexit.register
def _end() -> None:
    _showing[0].end()
