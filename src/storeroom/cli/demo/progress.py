"""The progress of a pass of the demo: a bar on a terminal, one line in the end elsewhere."""

import os
import shutil
import sys
from typing import Final

from storeroom.cli.output import styled

__all__ = ["Progress"]

NAME_COLUMNS: Final = 24
BAR_COLUMNS: Final = 40  # at most
CLEAR_LINE: Final = "\r\x1b[K"


class Progress:
    """One line on standard output for one pass."""

    def __init__(self, name: str, pages: int) -> None:
        """Begin a pass over that many pages."""
        self._name, self._pages = name, pages
        self._shows_bar = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.update(0)

    def update(self, done: int) -> None:
        """Show the number of pages that are done."""
        if self._shows_bar:
            print(CLEAR_LINE + self._line(done), end="", flush=True)

    def finish(self, seconds: float) -> None:
        """Show the time of the pass, instead of the bar."""
        start = CLEAR_LINE if self._shows_bar else ""
        print(f"{start}  {self._name:<{NAME_COLUMNS}}{self._pages:>6,} pages {seconds:>9.3f} s", flush=True)

    def _line(self, done: int) -> str:
        count = f"{done:>7,} of {self._pages:,}"
        columns = shutil.get_terminal_size().columns - len(count) - NAME_COLUMNS - 3
        if columns < 1:
            return count
        return f"  {self._name:<{NAME_COLUMNS}}{_bar(done / self._pages, min(columns, BAR_COLUMNS))}{count}"


def _bar(share: float, columns: int) -> str:
    full, empty = "█░"
    try:
        "█░".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        full, empty = "#."
    filled = int(share * columns)
    return styled(full * filled, "good") + empty * (columns - filled)
