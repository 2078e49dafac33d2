"""The passes of the demo: pages, processes that read them, and their counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from storeroom.cli.demo.pages import Tally
from storeroom.cli.demo.processes import Processes, start
from storeroom.cli.demo.progress import Progress

__all__ = ["Pass", "agree", "play"]


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


def play(directory: Path, modules: Sequence[str], *, keep: bool) -> list[Pass]:
    """Run one pass after the other, showing progress; `keep` begins with the pages of an earlier run."""
    with start(directory, 1) as processes:
        if not keep:
            processes.forget([])
        first = _read("kept from before" if keep else "cold", processes, modules)
        passes = [first, _read("warm", processes, modules)]
    with start(directory, 4) as processes:
        passes.append(_read("4 processes at once", processes, modules))
    slowest = [first.tallies[0].slowest]
    with start(directory, 1) as processes:
        passes.append(_read("after a restart", processes, modules))
        processes.forget(slowest)
    with start(directory, 8) as processes:
        passes.append(_read("1 cold page, 8 at once", processes, slowest))
    return passes


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
