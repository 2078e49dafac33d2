"""All measurements of one run, in order, and what came of them."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from benchmarks import hits, imports, machine, memory, overheads, servers, stampede, throughput
from benchmarks.goals import Goal, Verdict
from benchmarks.hit_ratio import REFERENCE
from benchmarks.hits import STORED
from benchmarks.overheads import Overhead
from benchmarks.rows import GROWTH, ROWS, Row
from benchmarks.server_rows import SERVER_ROWS
from benchmarks.throughput import Throughput
from benchmarks.timing import Effort, Timed, measure

__all__ = ["FULL", "QUICK", "Plan", "Results", "run"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        effort: for each row.
        large_effort: the same for rows of many entries, and for imports: what surrounds the measurement takes longest.
        most_entries: rows that store more are left out.
        threads: how many, one after the other.
        throughput: for each number of threads.
        memory_entries: stored to measure what one costs in memory.
        disk_entries: the same on the disk; a tenth where each is a file of its own.
        traces: trace and capacity of each replay.
        replays_storages: whether they are replayed on files and a database, too, which takes half a minute.
        overhead_rounds: turns of each cache in which being watched is measured.
        stampede_seconds: for which clients ask for a hot key.
    """

    effort: Effort
    large_effort: Effort
    most_entries: int
    threads: Sequence[int]
    throughput: Effort
    memory_entries: int
    disk_entries: int
    traces: Sequence[tuple[str, int]]
    replays_storages: bool
    overhead_rounds: int
    stampede_seconds: float

    def effort_for(self, row: Row) -> Effort:
        """Return the effort for a row."""
        return self.large_effort if max(each.entries for each in row.contenders) > LARGE else self.effort


LARGE: Final = 1_000
"""Entries above which filling takes longer than measuring."""

FULL: Final = Plan(
    effort=Effort(rounds=15, seconds=0.03),
    large_effort=Effort(rounds=9, seconds=0.05),
    most_entries=1_000_000,
    threads=throughput.THREADS,
    throughput=Effort(rounds=3, seconds=0.5),
    memory_entries=memory.ENTRIES,
    disk_entries=memory.ENTRIES,
    traces=tuple(REFERENCE),
    replays_storages=True,
    overhead_rounds=overheads.ROUNDS,
    stampede_seconds=5.0,
)
"""Takes about ten minutes."""

QUICK: Final = Plan(
    effort=Effort(rounds=3, seconds=0.005),
    large_effort=Effort(rounds=3, seconds=0.005),
    most_entries=1_000,
    threads=(1, 4),
    throughput=Effort(rounds=1, seconds=0.1),
    memory_entries=5_000,
    disk_entries=500,
    traces=tuple(REFERENCE)[:1],
    replays_storages=False,
    overhead_rounds=5,
    stampede_seconds=1.5,
)
"""Takes less than a minute; good to see that all works, too little to conclude from."""


@dataclass(slots=True)
class Results:
    """What was measured; a section that was not asked for is empty.

    Attributes:
        machine: see machine.describe().
        rows: row's name to its times, those of importing included.
        threads: operations a second of local memory, by library and threads.
        memory: bytes per entry in memory, by library.
        disk: bytes per entry on the disk, by library.
        hit_ratios: in percent, by workload and policy.
        overheads: the cost of being watched, by storage and operation.
        stampedes: what happened when a hot key expired, by library.
        verdicts: of all goals that were measured.
        left_out: libraries that are not installed.
    """

    machine: dict[str, str]
    rows: dict[str, Timed] = field(default_factory=dict)
    threads: Throughput = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    disk: dict[str, float] = field(default_factory=dict)
    hit_ratios: hits.HitRatios = field(default_factory=dict)
    overheads: dict[str, Overhead] = field(default_factory=dict)
    stampedes: dict[str, stampede.Stampede] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {**asdict(self), "left_out": sorted(self.left_out)}


Announce = Callable[[str, Results], None]


def run(plan: Plan, pattern: str, announce: Announce) -> Results:
    """Measure what the plan says.

    Args:
        plan: how much.
        pattern: a regular expression; only rows and sections whose name contains it are measured.
        announce: called with a name when it has been measured, and the results so far.
    """
    results = Results(machine.describe())
    try:
        _measure_all(plan, pattern, announce, results)
    finally:
        servers.stop()
    return results


def _measure_all(plan: Plan, pattern: str, announce: Announce, results: Results) -> None:
    for row in (*ROWS, *GROWTH, *SERVER_ROWS):
        if re.search(pattern, row.name) and max(each.entries for each in row.contenders) <= plan.most_entries:
            _measure_row(row, plan, results)
            announce(row.name, results)
    for name in imports.IMPORTS:
        if re.search(pattern, name):
            results.rows[name] = imports.measure(name, plan.large_effort)
            _judge(name, imports.GOALS.get(name, ()), results)
            announce(name, results)
    for name, section in _SECTIONS.items():
        if re.search(pattern, name):
            section(plan, results)
            announce(name, results)


def _measure_row(row: Row, plan: Plan, results: Results) -> None:
    present = [each for each in row.contenders if each.library.is_installed]
    results.left_out |= {each.library.lacks for each in row.contenders} - {""}
    results.rows[row.name] = measure(present, plan.effort_for(row))
    _judge(row.name, row.goals, results)


def _judge(name: str, goals: Iterable[Goal], results: Results) -> None:
    timed = results.rows[name]
    results.verdicts += [goal.judge(name, timed) for goal in goals if goal.needs <= timed.seconds.keys()]


def _threads(plan: Plan, results: Results) -> None:
    results.threads = throughput.by_threads(plan.threads, plan.throughput)
    results.verdicts += throughput.judge(results.threads)


def _memory(plan: Plan, results: Results) -> None:
    results.memory = memory.by_library("memory", plan.memory_entries)
    results.disk = memory.by_library("file", plan.disk_entries)


def _hits(plan: Plan, results: Results) -> None:
    results.hit_ratios = hits.measure(plan.traces, STORED if plan.replays_storages else {})
    results.verdicts += hits.judge(results.hit_ratios)


def _overheads(plan: Plan, results: Results) -> None:
    results.overheads = overheads.measure(servers.directory(), rounds=plan.overhead_rounds)


def _stampede(plan: Plan, results: Results) -> None:
    results.stampedes = stampede.measure(plan.stampede_seconds)
    results.verdicts += stampede.judge(results.stampedes)


_SECTIONS: Final = {
    "threads": _threads,
    "memory per entry": _memory,
    "hit ratio": _hits,
    "overheads": _overheads,
    "stampede": _stampede,
}
