"""The figures of the last runs, beside the page, which shows the median of them, and the least and the most.

A ratio of one run is a matter of luck by a tenth or two, on a machine that others use. Runs on another processor, or by
another Python, are another measurement: they begin anew.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks import imports
from benchmarks.goals import Verdict
from benchmarks.rows import GROWTH, ROWS
from benchmarks.server_rows import SERVER_ROWS
from benchmarks.suite import Results
from benchmarks.timing import Timed

__all__ = ["KEPT", "add"]

KEPT: Final = 5
"""Runs: a median of fewer is no better than one of them, and the code has changed since those before."""

_SAME: Final = ("processor", "Python")
"""What a machine has in common with those whose figures are comparable."""

_GOALS: Final = {row.name: row.goals for row in (*ROWS, *GROWTH, *SERVER_ROWS)} | dict(imports.GOALS)


@dataclass(frozen=True, slots=True)
class Told(Timed):
    """What a row's contenders took in several runs.

    Attributes:
        seconds: contender's name to its median in each run.
        in_runs: contender's name to its ratio in each run.
    """

    in_runs: Mapping[str, Sequence[float]]

    def ratio(self, name: str) -> float:
        """See Timed."""
        return statistics.median(self.in_runs[name])

    def medians(self, name: str) -> Sequence[float]:
        """See Timed."""
        return self.seconds[name]

    def ratios(self, name: str) -> Sequence[float]:
        """See Timed."""
        return self.in_runs[name]


def add(results: Results, file: Path) -> Results:
    """Add a run to those in a file. Return it with the figures of its rows, and of their goals, taken from all runs."""
    run = {name: results.machine.get(name) for name in ("date", *_SAME)} | {"rows": _figures(results.rows)}
    earlier = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    runs = [*(each for each in earlier if all(each[name] == run[name] for name in _SAME)), run][-KEPT:]
    file.write_text("[\n" + ",\n".join(map(json.dumps, runs)) + "\n]\n", encoding="utf-8")
    rows = {name: _told([each["rows"][name] for each in runs if name in each["rows"]]) for name in results.rows}
    verdicts = [_judged(verdict, rows) for verdict in results.verdicts]
    dates = [each["date"] for each in runs]
    machine = results.machine | {"runs": f"{len(runs)}, from {dates[0]} to {dates[-1]}"}
    return replace(results, machine=machine, rows=rows, verdicts=verdicts)


def _figures(rows: Mapping[str, Timed]) -> dict[str, dict[str, list[float]]]:
    """Return row to contender to its median and its ratio, by four digits."""
    return {
        row: {name: [float(f"{it:.4g}") for it in (timed.median(name), timed.ratio(name))] for name in timed.seconds}
        for row, timed in rows.items()
    }


def _told(rows: Sequence[Mapping[str, Any]]) -> Told:
    """Return the times of a row in several runs; the last of them says whose."""
    of_each = {name: [row[name] for row in rows if name in row] for name in rows[-1]}
    seconds, ratios = ({name: [it[part] for it in figures] for name, figures in of_each.items()} for part in (0, 1))
    return Told(seconds, ratios)


def _judged(verdict: Verdict, rows: Mapping[str, Timed]) -> Verdict:
    """Return the verdict on the same goal by the figures of all runs, if it is one of a row."""
    subject, timed = verdict.subject, rows.get(verdict.subject)
    if timed is None:
        return verdict
    again = [goal.judge(subject, timed) for goal in _GOALS[subject] if goal.needs <= timed.seconds.keys()]
    return next(each for each in again if each.goal == verdict.goal)
