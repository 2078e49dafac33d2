"""All measurements of one run: a process for each cache, size and part."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

from benchmarks import machine, servers
from benchmarks.scale.contenders import CONTENDERS, Contender
from benchmarks.scale.measuring import EFFORTS, FEW_BYTES_FROM, PARTS, Figures

__all__ = ["LARGEST", "SIZES", "Results", "run", "sizes_up_to"]

SIZES: Final = (10_000, 100_000, 1_000_000, 3_000_000, 10_000_000)

LARGEST: Final = SIZES[-1]

MOST: Final = 3_000_000
"""Entries above which `LARGE` alone are measured."""

LARGE: Final = frozenset({"local memory", "files"})

BYTES_PER_ENTRY: Final = 1_000
"""Room that an entry may need on the disk while it is measured: twice as much as the largest was seen to take."""


@dataclass(slots=True)
class Results:
    """What was measured.

    Attributes:
        machine: see machine.describe().
        sizes: entries, from few to many.
        figures: contender's name to entries to what was measured.
        pause: the longest that a loop was held up which did nothing, between measurements: what the machine adds.
        load: programs that ran or waited on the machine when the run began, over a minute (getloadavg(3)).
        seconds: of the whole run.
        left_out: what is not installed.
        failed: cache and size to the last line of the error that ended its measurement.
    """

    machine: dict[str, str]
    sizes: list[int]
    figures: dict[str, dict[int, Figures]] = field(default_factory=dict)
    pause: float = 0.0
    load: float = 0.0
    seconds: float = 0.0
    left_out: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> str:
        """Return everything as text."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Results":
        """Return the results of an earlier run."""
        results = cls(**json.loads(text))
        # JSON has no numbers as names.
        results.figures = {
            name: {int(entries): figures for entries, figures in by_size.items()}
            for name, by_size in results.figures.items()
        }
        return results


def sizes_up_to(largest: int) -> list[int]:
    """Return the sizes of a run."""
    return [entries for entries in SIZES if entries <= largest]


Announce = Callable[[str, int, Results], None]


def run(
    sizes: Sequence[int], pattern: str, effort: str, minutes: float, announce: Announce, before: Results | None = None
) -> Results:
    """Measure all caches at all sizes, from few entries to many, so that those of one size are measured in a row.

    Args:
        sizes: numbers of entries.
        pattern: a regular expression; only caches whose name contains it are measured.
        effort: a name in EFFORTS.
        minutes: when to end; a measurement that is under way or to come is among those that failed.
        announce: called with each cache and size that was measured, and the results so far.
        before: of a run that was ended, or of other caches and sizes: all that it has measured on a like machine is
            taken over.

    Raises:
        RuntimeError: there is too little room on the disk.
    """
    _require_room(sizes)
    started = perf_counter()
    results = Results(machine.describe(), sorted(sizes), load=round(os.getloadavg()[0], 1))
    chosen = [contender for name, contender in CONTENDERS.items() if re.search(pattern, name)]
    results.left_out = [contender.lacks for contender in chosen if contender.lacks]
    present = [contender for contender in chosen if not contender.lacks]
    taken: dict[str, dict[int, Figures]] = {}
    if before is not None and before.machine == results.machine | {"date": before.machine.get("date", "")}:
        taken, results.pause, results.seconds = before.figures, before.pause, before.seconds
        results.load = max(results.load, before.load)
        results.sizes = sorted({*sizes, *before.sizes})
    named = {*taken, *(contender.name for contender in present)}
    results.figures = {name: dict(taken.get(name, {})) for name in CONTENDERS if name in named}
    spent = results.seconds
    present.sort(key=lambda contender: contender.is_kept)  # in memory first: others may use up the time
    for entries in sorted(sizes):
        for contender in present:
            if entries not in results.figures[contender.name] and (entries <= MOST or contender.name in LARGE):
                _measure_into(results, contender, entries, effort, started + minutes * 60)
                results.seconds = spent + perf_counter() - started
                announce(contender.name, entries, results)
    return results


def _measure_into(results: Results, contender: Contender, entries: int, effort: str, end: float) -> None:
    """Measure a cache of a size; one that fails does not spoil what others took minutes for."""
    results.pause = max(results.pause, _longest_pause(EFFORTS[effort].pause))
    try:
        results.figures[contender.name][entries] = _measure(contender, entries, effort, end)
    except (TimeoutError, subprocess.TimeoutExpired):
        results.failed[f"{contender.name}, {entries:,} entries"] = "the time was over: --minutes"
    except RuntimeError as error:
        results.failed[f"{contender.name}, {entries:,} entries"] = str(error).strip().splitlines()[-1]


def _require_room(sizes: Sequence[int]) -> None:
    directory = tempfile.gettempdir()
    # Values are small in the largest caches.
    needed = max(entries * BYTES_PER_ENTRY // (2 if entries >= FEW_BYTES_FROM else 1) for entries in sizes)
    if (free := shutil.disk_usage(directory).free) < needed:
        raise RuntimeError(
            f"{directory} has {free / 1e9:.1f} GB free, and {max(sizes):,} entries may need {needed / 1e9:.1f} GB: "
            f"choose another directory by TMPDIR, or fewer entries by --largest"
        )


def _longest_pause(seconds: float) -> float:
    """Return the longest time between two looks at the clock, of a process that does nothing else."""
    longest, last = 0.0, perf_counter()
    end = last + seconds
    while last < end:
        now = perf_counter()
        longest, last = max(longest, now - last), now
    return longest


def _measure(contender: Contender, entries: int, effort: str, end: float) -> Figures:
    if perf_counter() > end:
        raise TimeoutError
    with _location(contender) as location:
        figures: Figures = {}
        for part in PARTS if contender.is_kept else PARTS[:1]:
            figures |= _in_fresh_process(contender, part, entries, location, effort, end=end)
            if part == "use" and not contender.server:
                # A log, of which the file takes the pages when it is closed, is gone.
                figures |= _on_disk_per_entry(contender, location, entries)
    return figures


def _on_disk_per_entry(contender: Contender, location: str, entries: int) -> Mapping[str, float]:
    disk = contender.room(location).disk
    return {} if disk is None else {"disk per entry": disk / entries}


@contextmanager
def _location(contender: Contender) -> Iterator[str]:
    """Yield an empty directory, or the URL of an empty server."""
    with TemporaryDirectory(prefix="storeroom-bench-", ignore_cleanup_errors=True) as directory:
        try:
            yield _SERVERS[contender.server]() if contender.server else directory
        finally:
            servers.stop()


_SERVERS: Final[Mapping[str, Callable[[], str]]] = {
    "redis-server": servers.redis,
    "pg_ctlcluster": lambda: str(servers.postgresql().url()),
}


def _in_fresh_process(contender: Contender, part: str, *arguments: Any, end: float) -> Figures:
    command = [sys.executable, "-m", "benchmarks.scale.measuring", contender.name, part, *map(str, arguments)]
    root = Path(__file__).parents[2]
    left = max(0.0, end - perf_counter())
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False, timeout=left)
    expected = -signal.SIGKILL if part == "fill" and contender.is_kept else 0
    if done.returncode != expected:
        raise RuntimeError(f"{contender.name}, {part}: exit code {done.returncode}\n{done.stderr}")
    figures: Figures = json.loads(done.stdout)
    return figures
