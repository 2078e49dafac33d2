"""What one machine carries: the conclusions of the page, each a number that comes of its figures.

A Redis server does one thing after the other, on one core. So a second divided by the processor time that an operation
takes of the busiest server is the rate at which that core is full, wherever the clients run.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.page import table
from benchmarks.scale.cluster import GROUPS, LOADS, named
from benchmarks.scale.figures import paragraphs, rate_text, round_text, seconds_text, share_text
from benchmarks.scale.loads import ByCount
from benchmarks.scale.processes import MIXES
from benchmarks.scale.run import Loaded, Results

__all__ = ["carries_section", "full_at"]

ENTRIES: Final = 1_000_000
"""The size whose figures stand for what an entry takes."""

ONE_SERVER, THREE, SIX = GROUPS
READS, MIXED, WRITES = MIXES
EVENLY, ZIPF, ONE_KEY = LOADS

INTRODUCTION: Final = """\
All numbers here are figures of this page, or computed from them; those of a sentence have two digits. Measured on this
machine of {cores} cores, clients and servers together, the most operations a second of any number of processes were:
"""

BY_PROCESSOR: Final = """\
Rates end where the cores do. A second of a core, divided by the processor time of an operation, the server's included,
is what one core carries, as long as no other limit comes first, as it does for writes: **computed** for {at} processes.
"""

BY_SERVER: Final = """\
A Redis server works on one core. The operations a second at which the core of the busiest server is full, **computed**
from its processor time of an operation with {most} clients, and the cores that their clients keep busy meanwhile, are
below. They were not measured: that takes a machine of so many cores. A server that is nearly full takes several
commands at a turn, and carries more; a network, encryption and replicas take from it. With near tiers the number of
clients counts: the server tells each of them of every write.
"""

CONCLUSIONS: Final = """\
- **One process: local memory.** A read takes {memory_get} at 1,000,000 entries. Each process has entries of its own, of
  {memory_bytes} bytes each.
- **Several processes of one machine: files**, at every size that was measured. One process writes at a time, so that
  more cores bring more reads, and no more writes. The most that was measured was {file_writes} writes a second; at nine
  reads to one write that is {file_mixed} operations (computed).
- **Several machines, or more writes than that: one Redis server.** At nine reads to one write, an operation takes
  {redis_ratio} times the processor time that it takes with files. The server carries {one} operations a second
  (computed). It keeps entries in its memory, {redis_bytes} bytes for each: a gigabyte holds {redis_entries} of them.
- **More than one server carries, or more entries than the memory of a machine holds: Redis Cluster**, for keys that are
  spread evenly. Three servers carry {three}, six carry {six} (computed).
- **Hot keys: near tiers before a cluster.** A key has one server. Where one key gets half of the reads, its server gets
  {hot_share} of the commands of six, and six servers carry {six_hot}; by Zipf's law they carry {six_zipf}. One server
  with near tiers carries {one_near_hot} and {one_near_zipf} (all computed).
"""


def full_at(figures: Mapping[str, float]) -> float:
    """Return the operations a second at which the core of the busiest server is full."""
    return 1 / figures["busiest server"]


def carries_section(results: Results) -> list[str]:
    """Return the section, or nothing if a part of its figures is missing."""
    loaded, known = results.loaded, results.figures
    has_sizes = all(ENTRIES in known.get(name, {}) for name in ("local memory", "Redis"))
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
        _when_full(served),
        paragraphs(CONCLUSIONS, **_numbers(results)),
    ]


def _most(loaded: Loaded) -> int:
    """Return the largest number of processes."""
    return max(count for by_name in loaded.figures.values() for by_count in by_name.values() for count in by_count)


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


def _when_full(served: Loaded) -> str:
    most = _most(served)
    heads = {EVENLY: "keys spread evenly", ZIPF: "Zipf's law", ONE_KEY: "one key gets half of the reads"}
    rows = [
        [name, *(_rate_and_cores(served.figures[spread][name][most]) for spread in heads)]
        for name in served.figures[EVENLY]
    ]
    return table(["operations a second (cores of clients), computed", *heads.values()], rows)


def _rate_and_cores(figures: Mapping[str, float]) -> str:
    rate = full_at(figures)
    return f"{rate_text(rate)} ({rate * figures['client']:.1f})"


def _numbers(results: Results) -> dict[str, str]:
    """Return the numbers of the conclusions, by name."""
    memory, redis = results.figures["local memory"][ENTRIES], results.figures["Redis"][ENTRIES]
    shared, served = results.loaded["processes"].figures, results.loaded["cluster"]
    most, writes = _most(served), _best(shared[WRITES], "files")[0]

    def carried(group: str, spread: str) -> str:
        return round_text(full_at(served.figures[spread][group][most]))

    mixed: Sequence[Mapping[str, float]] = [shared[MIXED][name][1] for name in ("Redis", "files")]
    near = named(ONE_SERVER, is_near=True)
    return {
        "memory_get": seconds_text(memory["get"]),
        "memory_bytes": rate_text(memory["memory per entry"]),
        "file_writes": round_text(writes),
        "file_mixed": round_text(100 * writes / MIXES[MIXED].writes),
        "redis_ratio": round_text(_taken(mixed[0]) / _taken(mixed[1])),
        "redis_bytes": rate_text(redis["memory per entry"]),
        "redis_entries": round_text(1e9 / redis["memory per entry"]),
        "one": carried(ONE_SERVER, EVENLY),
        "three": carried(THREE, EVENLY),
        "six": carried(SIX, EVENLY),
        "hot_share": share_text(served.figures[ONE_KEY][SIX][most]["share of the busiest"]),
        "six_hot": carried(SIX, ONE_KEY),
        "six_zipf": carried(SIX, ZIPF),
        "one_near_hot": carried(near, ONE_KEY),
        "one_near_zipf": carried(near, ZIPF),
    }
