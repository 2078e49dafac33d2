"""All measurements of one run: a process for each cache, size and part, and the caches that several processes load."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from benchmarks import machine
from benchmarks.scale import cluster, loads, processes
from benchmarks.scale.contenders import CONTENDERS, Contender, located
from benchmarks.scale.loads import ByCount
from benchmarks.scale.measuring import EFFORTS, FEW_BYTES_FROM, PARTS, Figures

__all__ = ["LARGEST", "LOADED", "SIZES", "Loaded", "Results", "run", "sizes_up_to"]

SIZES: Final = (10_000, 100_000, 1_000_000, 3_000_000, 10_000_000)

LARGEST: Final = SIZES[-1]

MOST: Final = 3_000_000
"""Entries above which `LARGE` alone are measured."""

LARGE: Final = frozenset({"local memory", "files"})

BYTES_PER_ENTRY: Final = 1_000
"""Room that an entry may need on the disk while it is measured: twice as much as the largest was seen to take."""


LOADED: Final = {"processes": processes.measure, "cluster": cluster.measure}
"""Parts of a run in which several processes use one cache, by name."""


@dataclass(slots=True)
class Loaded:
    """What was measured of caches that several processes use.

    Attributes:
        machine: see machine.describe().
        cores: of the machine, that took part.
        load: see Results.
        seconds: that it took.
        figures: name of a load to cache to number of processes to what was measured.
    """

    machine: dict[str, str]
    cores: int
    load: float
    seconds: float = 0.0
    figures: dict[str, ByCount] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Loaded":
        """Return what as_json() has written."""
        figures = {
            load: {name: _by_number(by_count) for name, by_count in by_name.items()}
            for load, by_name in data["figures"].items()
        }
        return cls(**data | {"figures": figures})


def _by_number(figures: Mapping[str, Figures]) -> dict[int, Figures]:
    """Return what is told by numbers: JSON has none as names."""
    return {int(number): each for number, each in figures.items()}


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
        loaded: by name in LOADED.
        remark: on the run, by whoever measured: words that follow those on its load.
    """

    machine: dict[str, str]
    sizes: list[int]
    figures: dict[str, dict[int, Figures]] = field(default_factory=dict)
    pause: float = 0.0
    load: float = 0.0
    seconds: float = 0.0
    left_out: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    loaded: dict[str, Loaded] = field(default_factory=dict)
    remark: str = ""

    def as_json(self) -> str:
        """Return everything as text."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Results":
        """Return the results of an earlier run."""
        results = cls(**json.loads(text))
        results.figures = {name: _by_number(by_size) for name, by_size in results.figures.items()}
        results.loaded = {name: Loaded.from_dict(loaded) for name, loaded in results.loaded.items()}
        return results


def sizes_up_to(largest: int) -> list[int]:
    """Return the sizes of a run."""
    return [entries for entries in SIZES if entries <= largest]


Announce = Callable[[str, Figures, Results], None]


def run(
    sizes: Sequence[int], pattern: str, effort: str, minutes: float, announce: Announce, before: Results | None = None
) -> Results:
    """Measure all caches at all sizes, from few entries to many, so that those of one size are measured in a row.

    Args:
        sizes: numbers of entries.
        pattern: a regular expression; only caches, and parts of LOADED, whose name contains it are measured.
        effort: a name in EFFORTS.
        minutes: when to end; a measurement that is under way or to come is among those that failed.
        announce: called with the name of what was measured, its figures, and the results so far.
        before: of a run that was ended, or of other caches and sizes: all that it has measured on a like machine is
            taken over.

    Raises:
        RuntimeError: there is too little room on the disk.
    """
    started = perf_counter()
    results = Results(machine.describe(), sorted(sizes), load=round(os.getloadavg()[0], 1))
    chosen = [contender for name, contender in CONTENDERS.items() if re.search(pattern, name)]
    results.left_out = [contender.lacks for contender in chosen if contender.lacks]
    present = [contender for contender in chosen if not contender.lacks]
    if present:
        _require_room(sizes)
    taken: dict[str, dict[int, Figures]] = {}
    if before is not None and before.machine == results.machine | {"date": before.machine.get("date", "")}:
        taken, results.pause, results.seconds = before.figures, before.pause, before.seconds
        results.loaded = before.loaded
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
                figures = results.figures[contender.name].get(entries, {})
                announce(f"{contender.name}, {entries:,} entries", figures, results)
    for name in LOADED:
        if not re.search(pattern, name) or name in results.loaded:
            continue
        if name == "cluster" and cluster.lacks():
            results.left_out.append(cluster.lacks())
        else:
            _load_into(results, name, effort, started + minutes * 60, announce)
    return results


def _load_into(results: Results, name: str, effort: str, end: float, announce: Announce) -> None:
    """Measure a part of LOADED."""
    began, machine_load = perf_counter(), round(os.getloadavg()[0], 1)
    if began > end:
        results.failed[name] = "the time was over: --minutes"
        return
    try:
        figures = LOADED[name](loads.EFFORTS[effort], partial(_announce_load, announce, results))
    except (RuntimeError, OSError) as error:
        results.failed[name] = str(error)
        return
    loaded = Loaded(machine.describe(), machine.cores(), machine_load, perf_counter() - began, figures)
    results.loaded[name] = loaded
    announce(f"{name}, in {loaded.seconds:.0f} s", {}, results)


def _announce_load(announce: Announce, results: Results, load: str, name: str, count: int, figures: Figures) -> None:
    announce(f"{load}: {name}, {count} processes: {loads.line(figures)}", {}, results)


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
    with located(contender) as location:
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
