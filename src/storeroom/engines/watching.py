"""Somebody who watches: ``storeroom top`` asks the processes of this user for their counts, by touching a file.

A process looks at the file when it passes by, at most once a second: at a miss, some writes, a round trip, the end of a
request. While it is fresh, the process writes its counts beside it (``showing``). Nobody writes anything, and no thread
is there, while nobody watches.
"""

import os
import time
from collections.abc import Callable, Collection, Iterator
from importlib import import_module
from typing import Any, Final

from storeroom import private_folder

__all__ = ["LOOK_SECONDS", "PATIENCE_SECONDS", "SIGN", "VARIABLE", "folders", "is_watched", "watch"]

VARIABLE: Final = "STOREROOM_TOP"
"""The environment variable that names another folder, for both sides; none at all if it is empty."""

SIGN: Final = "watched"
"""The name of the file. Its time of change says when somebody watched last."""

LOOK_SECONDS: Final = 1.0
"""Between two looks of a process: a look takes some microseconds."""

PATIENCE_SECONDS: Final = 5.0
"""Somebody who has not touched the file for so long watches no more."""


def folders() -> Iterator[tuple[str, str]]:
    """Yield each folder that may be used, best first, and the one around it that has to be private ("" if none).

    No variable of a session but VARIABLE is asked: a service and a person's terminal have to find the same one.
    """
    named = os.environ.get(VARIABLE)
    if named is not None:
        if named:
            yield named, named
        return
    for base in private_folder.SHARED if hasattr(os, "geteuid") else (import_module("tempfile").gettempdir(),):
        around = os.path.join(base, private_folder.NAME)
        yield os.path.join(around, "top"), around


def is_watched(folder: str) -> bool:
    """Tell whether somebody watches there."""
    try:
        touched = os.stat(os.path.join(folder, SIGN)).st_mtime
    except OSError:
        return False
    return abs(time.time() - touched) < PATIENCE_SECONDS


class _Watch:
    """The looks of this process.

    Attributes:
        engines: returns the engines of this process; given by their module, which is above this one.
    """

    engines: Callable[[], Collection[Any]] = staticmethod(list)

    def __init__(self) -> None:
        self._due = 0.0

    def look(self, moment: float) -> None:
        """Show the counts of this process from now on, if somebody watches: at a moment of ``time.perf_counter()``."""
        if moment < self._due:
            return
        self._due = moment + LOOK_SECONDS
        for folder, around in folders():
            if is_watched(folder) and private_folder.is_own(around):
                import_module("storeroom.engines.showing").begin(folder, self.engines, is_watched)
                return


watch: Final = _Watch()
