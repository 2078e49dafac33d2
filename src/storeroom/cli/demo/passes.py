"""The passes of the demo: pages, processes that read them, and their counts; and the progress of each."""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from storeroom.cli.demo.pages import Tally
from storeroom.cli.demo.processes import Processes, start
from storeroom.cli.output import styled

__all__ = ["Pass", "Progress", "agree", "play"]

NAME_COLUMNS: Final = 24
BAR_COLUMNS: Final = 40  # at most
CLEAR_LINE: Final = "\r\x1b[K"


@dataclass(frozen=True, slots=True)
class Pass:
    """The same pages, read once by each of several processes."""

    name: str
    tallies: Sequence[Tally]

    @property
    def pages(self) -> int:
        """Pages read by all processes together."""
        return sum(tally.pages for tally in self.tallies)

    @property
    def seconds(self) -> float:
        """The longest time that a process was reading; starting Python is not counted."""
        return max(tally.seconds for tally in self.tallies)

    @property
    def computations(self) -> int:
        """Pages rendered by all processes together."""
        return sum(tally.computations for tally in self.tallies)

    @property
    def hits(self) -> int:
        """Pages that a process got without rendering them."""
        return self.pages - self.computations

    @property
    def seconds_saved(self) -> float:
        """The time that the hits took to render when somebody did."""
        return sum(tally.seconds_saved for tally in self.tallies)


def play(directory: Path, modules: Sequence[str], *, keep: bool) -> tuple[list[Pass], str]:
    """Run one pass after the other, showing progress; return them, and the advice of the process that read two.

    With `keep` it begins with the pages of an earlier run.
    """
    with start(directory, 1) as processes:
        if not keep:
            processes.forget([])
        first = _read("kept from before" if keep else "cold", processes, modules)
        passes = [first, _read("warm", processes, modules)]
        advice = processes.advice()
    with start(directory, 4) as processes:
        passes.append(_read("4 processes at once", processes, modules))
    slowest = [first.tallies[0].slowest]
    with start(directory, 1) as processes:
        passes.append(_read("after a restart", processes, modules))
        processes.forget(slowest)
    with start(directory, 8) as processes:
        passes.append(_read("1 cold page, 8 at once", processes, slowest))
    return passes, advice


def _read(name: str, processes: Processes, modules: Sequence[str]) -> Pass:
    progress = Progress(name, len(modules) * len(processes))
    result = Pass(name, processes.read(modules, progress.update))
    progress.finish(result.seconds)
    return result


def agree(passes: Sequence[Pass]) -> bool:
    """Tell whether all processes that read the same modules got the same pages, to the last character."""
    digests: dict[int, set[str]] = {}
    for each in passes:
        for tally in each.tallies:
            digests.setdefault(tally.pages, set()).add(tally.digest)
    return all(len(different) == 1 for different in digests.values())


class Progress:
    """One line on standard output for one pass: a bar on a terminal, elsewhere its time alone, in the end."""

    def __init__(self, name: str, pages: int) -> None:
        """Begin a pass over that many pages."""
        self._name, self._pages = name, pages
        self._shows_bar = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.update(0)

    def update(self, done: int) -> None:
        """Show the number of pages that are done."""
        if not self._shows_bar:
            return
        line = f"{done:>7,} of {self._pages:,}"
        columns = shutil.get_terminal_size().columns - len(line) - NAME_COLUMNS - 3
        if columns >= 1:
            line = f"  {self._name:<{NAME_COLUMNS}}{_bar(done / self._pages, min(columns, BAR_COLUMNS))}{line}"
        print(CLEAR_LINE + line, end="", flush=True)

    def finish(self, seconds: float) -> None:
        """Show the time of the pass, instead of the bar."""
        start = CLEAR_LINE if self._shows_bar else ""
        print(f"{start}  {self._name:<{NAME_COLUMNS}}{self._pages:>6,} pages {seconds:>9.3f} s", flush=True)


def _bar(share: float, columns: int) -> str:
    full, empty = "█░"
    try:
        "█░".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        full, empty = "#."
    filled = int(share * columns)
    return styled(full * filled, "good") + empty * (columns - filled)
