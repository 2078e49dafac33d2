"""A line on the terminal while something takes longer than a second."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["progress"]

_SILENT_SECONDS: Final = 1.0
_STEP_SECONDS: Final = 0.5


@contextmanager
def progress(doing: str) -> Iterator[None]:
    """Tell on standard error, if that is a terminal, for how long something has been under way."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    teller = threading.Thread(target=_tell, args=(doing, done), daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def _tell(doing: str, done: threading.Event) -> None:
    begun, seconds = time.monotonic(), _SILENT_SECONDS
    while not done.wait(seconds):
        seconds = _STEP_SECONDS
        sys.stderr.write(f"\r\x1b[K{doing}: {time.monotonic() - begun:.0f} s")
        sys.stderr.flush()
    if seconds == _STEP_SECONDS:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
