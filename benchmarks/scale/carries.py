"""What one machine carries: the conclusions of the page, each a number that comes of its figures.

A Redis server does one thing after the other, on one core. So a second divided by the time that the busiest server
needs for its part of an operation is the rate at which that core is full, wherever the clients run.
"""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Final

from benchmarks.charts import line_chart
from benchmarks.page import rate_mark, table
from benchmarks.scale.cluster import FULL, GROUPS, LOADS, NEAR, named
from benchmarks.scale.figures import paragraphs, rate_text, round_text, seconds_text, share_text
from benchmarks.scale.full import CONNECTIONS, READ, TOLD, WRITE
from benchmarks.scale.loads import ByCount
from benchmarks.scale.processes import MIXES
from benchmarks.scale.run import Loaded, Results

__all__ = ["PLOT", "carries_section", "full_at"]

PLOT: Final = "carries"
"""The file of the drawing."""

ENTRIES: Final = 1_000_000
"""The size whose figures stand for what an entry takes."""

ONE_SERVER, THREE, SIX = GROUPS
_, MIXED, WRITES = MIXES
EVENLY, ZIPF, ONE_KEY = LOADS

CARRIED: Final = {
    "one": (EVENLY, ONE_SERVER, False),
    "three": (EVENLY, THREE, False),
    "six": (EVENLY, SIX, False),
    "one_near": (EVENLY, ONE_SERVER, True),
    "one_zipf": (ZIPF, ONE_SERVER, False),
    "one_near_zipf": (ZIPF, ONE_SERVER, True),
    "six_zipf": (ZIPF, SIX, False),
    "six_near_zipf": (ZIPF, SIX, True),
    "six_hot": (ONE_KEY, SIX, False),
    "six_near_hot": (ONE_KEY, SIX, True),
}
"""What the conclusions tell of groups of servers, and whether near tiers stand before them."""

INTRODUCTION: Final = """\
All numbers here are figures of this page, or computed from them; those of a sentence have two digits. Measured on this
machine of {cores} cores, clients and servers together, the most operations a second of any number of processes were:
"""

BY_PROCESSOR: Final = """\
Rates end where the cores do. A second of a core, divided by the processor time of an operation, the server's included,
is what one core carries, as long as no other limit comes first, as it does for writes: **computed** for {at} processes.
"""

BY_SERVER: Final = """\
A Redis server works on one core. Below are the operations a second at which the busiest server is full, **computed**
from the commands that it gets for an operation of {most} clients, and the time that a full server takes for them; and
the cores that the clients keep busy meanwhile, of which processes that need not take turns take fewer. Neither was
measured: that takes a machine of so many cores. A network, encryption and replicas take from it. With near tiers the
number of clients counts: a server tells each of them of every write.
"""

CONCLUSIONS: Final = """\
- **One process: local memory.** A read takes {memory_get} at 1,000,000 entries. Each process has entries of its own, of
  {memory_bytes} bytes each.
- **Several processes of one machine: files**, to {file_entries} entries, the most that was measured, at {file_bytes}
  bytes of the disk each. One process writes at a time, so that more cores bring more reads, and no more writes. The
  most that was measured was {file_writes} writes a second; at nine reads to one write that is {file_mixed} operations
  (computed).
- **Several machines{or_writes}: one Redis server.** At nine reads to one write, an operation takes {redis_ratio} times
  the processor time that it takes with files. A full server carries {redis_reads} reads or {redis_writes} writes a
  second (measured), and {one} operations (computed). It keeps entries in its memory, {redis_bytes} bytes for each: a
  gigabyte holds {redis_entries} of them.
- **More than one server carries, or more entries than the memory of a machine holds: Redis Cluster.** With keys that
  are spread evenly, three servers carry {three} operations, six carry {six} (computed).
- **Hot keys: near tiers.** A key has one server, whatever the number of servers. Where one key gets half of the reads,
  its server gets {hot_share} of the commands of six. They carry {six_hot} operations; with near tiers, {six_near_hot}.
  By Zipf's law they carry {six_zipf} and {six_near_zipf}, and one server {one_zipf} and {one_near_zipf}. A near tier
  does not help where reads are spread evenly over more keys than it holds: with it, one server carries {one_near} (all
  computed).
"""


def full_at(figures: Mapping[str, float], size: int, command: Mapping[str, float], *, is_near: bool) -> float:
    """Return the operations a second at which the busiest server of a group is full.

    Args:
        figures: of the group under load.
        size: the number of its servers.
        command: the processor time that a full server takes, by the names of ``full``.
        is_near: whether a write is told to near tiers.
    """
    writes = LOADS[EVENLY].writes / 100 / size
    reads = figures["share of the busiest"] * figures["commands"] - writes
    return 1 / (reads * command[READ] + writes * command[TOLD if is_near else WRITE])


def carries_section(results: Results, plots: Path) -> list[str]:
    """Return the section, and write its drawing; return nothing if a part of its figures is missing."""
    loaded, known = results.loaded, results.figures
    has_sizes = all(ENTRIES in known.get(name, {}) for name in ("local memory", "files", "Redis"))
    if loaded.keys() < {"processes", "cluster"} or not has_sizes or "Redis" not in loaded["processes"].figures[MIXED]:
        return []
    shared, served = loaded["processes"], loaded["cluster"]
    return [
        "## What one machine carries\n",
        paragraphs(INTRODUCTION, cores=shared.cores),
        _most_measured(shared),
        paragraphs(BY_PROCESSOR, at=_as_many_as_cores(shared)),
        _per_core(shared),
        paragraphs(BY_SERVER, most=_most(served)),
        _drawn(served, plots),
        _when_full(served),
        paragraphs(CONCLUSIONS, **_numbers(results)),
    ]


def _most(served: Loaded) -> int:
    """Return the largest number of clients."""
    return max(served.figures[EVENLY][ONE_SERVER])


def _as_many_as_cores(loaded: Loaded) -> int:
    """Return the number of processes closest to that of cores: more take turns, which takes processor time, too."""
    counts = next(iter(loaded.figures[MIXED].values()))
    return min(counts, key=lambda count: abs(count - loaded.cores))


def _best(by_name: ByCount, name: str) -> tuple[float, int]:
    """Return a cache's highest rate, and the number of processes that had it."""
    return max((figures["rate"], count) for count, figures in by_name[name].items())


def _most_measured(shared: Loaded) -> str:
    names = list(shared.figures[MIXED])
    rows = []
    for name in names:
        best = [_best(by_name, name) for by_name in shared.figures.values()]
        rows.append([name, *(f"{rate_text(rate)} ({count})" for rate, count in best)])
    return table(["operations a second (processes)", *shared.figures], rows)


def _per_core(shared: Loaded) -> str:
    at = _as_many_as_cores(shared)
    rows = [
        [name, *(rate_text(1 / _taken(by_name[name][at])) for by_name in shared.figures.values())]
        for name in shared.figures[MIXED]
    ]
    return table(["operations a second and core, computed", *shared.figures], rows)


def _taken(figures: Mapping[str, float]) -> float:
    """Return the processor time of an operation, of clients and servers."""
    return figures["client"] + figures.get("server", 0.0)


def _carried(served: Loaded, spread: str, group: str, *, is_near: bool) -> float:
    """Return what a group carries, as computed."""
    figures = served.figures[spread][named(group, is_near=is_near)][_most(served)]
    command = {name: by_count[CONNECTIONS]["server"] for name, by_count in served.figures[FULL].items()}
    return full_at(figures, GROUPS[group], command, is_near=is_near)


def _drawn(served: Loaded, plots: Path) -> str:
    title = "Operations a second that Redis servers carry, computed, by servers"
    lines = {
        named(spread, is_near=is_near): {
            size: _carried(served, spread, group, is_near=is_near) for group, size in GROUPS.items()
        }
        for is_near, spread in product((False, True), LOADS)
    }
    near = [name for name in lines if name.endswith(NEAR)]
    drawing = line_chart(title, lines, str, rate_mark, is_log=False, is_log_across=False, dashed=near)
    (plots / f"{PLOT}.svg").write_text(drawing, encoding="utf-8")
    return f"![{title}](scale/{PLOT}.svg)\n"


def _when_full(served: Loaded) -> str:
    heads = {EVENLY: "keys spread evenly", ZIPF: "Zipf's law", ONE_KEY: "one key gets half of the reads"}
    rows = []
    for is_near, group in product((False, True), GROUPS):
        row = [named(group, is_near=is_near)]
        for spread in heads:
            rate = _carried(served, spread, group, is_near=is_near)
            row.append(f"{rate_text(rate)} ({rate * served.figures[spread][row[0]][_most(served)]['client']:.1f})")
        rows.append(row)
    return table(["operations a second (cores of clients), computed", *heads.values()], rows)


def _numbers(results: Results) -> dict[str, str]:
    """Return the numbers of the conclusions, by name."""
    memory, redis = results.figures["local memory"][ENTRIES], results.figures["Redis"][ENTRIES]
    shared, served = results.loaded["processes"].figures, results.loaded["cluster"]
    writes = _best(shared[WRITES], "files")[0]
    taken = {name: _taken(shared[MIXED][name][1]) for name in ("Redis", "files")}
    of_server = {name: by_count[CONNECTIONS]["rate"] for name, by_count in served.figures[FULL].items()}
    carried = {
        name: round_text(_carried(served, spread, group, is_near=is_near))
        for name, (spread, group, is_near) in CARRIED.items()
    }
    return carried | {
        "memory_get": seconds_text(memory["get"]),
        "memory_bytes": rate_text(memory["memory per entry"]),
        "file_entries": rate_text(max(results.figures["files"])),
        "file_bytes": rate_text(results.figures["files"][ENTRIES]["disk per entry"]),
        "file_writes": round_text(writes),
        "file_mixed": round_text(100 * writes / MIXES[MIXED].writes),
        "or_writes": ", or more writes than that" if of_server[WRITE] > writes else "",
        "redis_ratio": round_text(taken["Redis"] / taken["files"]),
        "redis_reads": round_text(of_server[READ]),
        "redis_writes": round_text(of_server[WRITE]),
        "redis_bytes": rate_text(redis["memory per entry"]),
        "redis_entries": round_text(1e9 / redis["memory per entry"]),
        "hot_share": share_text(served.figures[ONE_KEY][SIX][_most(served)]["share of the busiest"]),
    }
