"""The sections of the page about a cache that several processes use at once."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.charts import line_chart
from benchmarks.page import duration_mark, rate_mark, table
from benchmarks.scale import full
from benchmarks.scale.cluster import FULL, NEAR
from benchmarks.scale.figures import paragraphs, rate_text, seconds_text, share_text
from benchmarks.scale.loads import EFFORTS, ByCount
from benchmarks.scale.run import Loaded

__all__ = ["LOADED_SECTIONS", "PLOTS"]

PROCESSES_TEXT: Final = """\
Processes of one machine use one cache of {entries:,} entries, each as fast as it can, over all its keys evenly. Writes
are sets of keys that are there. A figure is the median of {rounds} rounds of {seconds:g} s. Redis's server is one more
process. More processes than cores take turns, and p99 has their waiting in it. {where} Django's file cache is beside
files and diskcache in the [benchmarks](benchmarks.md#growth).
"""

CLUSTER_TEXT: Final = """\
One Redis server, and Redis Clusters of three and of six, without replicas, serve one to eight client processes through
Storeroom. There are {entries:,} entries, nine reads to one write, and writes are spread evenly. Reads are spread
evenly, or by Zipf's law (the n-th key is read an n-th as often as the first), or half of them are for one key. The near
tier of each process ([tiers](tiers.md)) holds a tenth of the entries, and hears of the writes of all; a read that it
cannot answer asks for the entry's timeout, too, which is a second command in the same round trip. A figure is the
median of {rounds} rounds of {seconds:g} s. {where}

**Clients and servers share {cores} cores here.** So these rates cannot show that six servers carry more than one: the
cores are full before any server is. The commands that an operation takes, the busiest server's share of them, and the
processor time of clients and servers say more; they are told for {most} clients. A server that waits for its next
command spends more time on each than one that is full. So the next section computes what servers on cores of their own
would carry from the shares, and from this, which was measured by `redis-benchmark` with {connections} connections:
"""

MIX_FILES: Final = {
    "reads only": "processes-reads",
    "nine reads to one write": "processes-mixed",
    "writes only": "processes-writes",
}
SPREAD_TITLES: Final = {
    "evenly": "Keys that are spread evenly",
    "Zipf": "Hot keys: Zipf's law",
    "one key": "Hot keys: one gets half of the reads",
}
SPREAD_FILES: Final = {"evenly": "cluster-even", "Zipf": "cluster-zipf", "one key": "cluster-hot"}

PLOTS: Final = {
    "processes": [*MIX_FILES.values(), "processes-p99-mixed", "processes-p99-writes"],
    "cluster": list(SPREAD_FILES.values()),
}
"""The files of a part's drawings."""


def _introduction(text: str, loaded: Loaded, most: int) -> str:
    effort, cores = EFFORTS["full"], loaded.cores
    where = f"Measured on {loaded.machine.get('date', '')}, on {loaded.machine.get('processor', '')}."
    if loaded.load > cores:
        where += f" **The machine was busy**: load {loaded.load:g} when it began, and the rates are too low."
    return paragraphs(
        text,
        entries=effort.entries,
        rounds=effort.rounds,
        seconds=effort.seconds,
        where=where,
        cores=cores,
        most=most,
        connections=full.CONNECTIONS,
    )


def _counts(by_name: ByCount) -> list[int]:
    return sorted({count for by_count in by_name.values() for count in by_count})


def _drawn(
    title: str,
    file: str,
    by_name: ByCount,
    figure: str,
    mark: Callable[[float], str],
    plots: Path,
    dashed: Sequence[str],
) -> str:
    lines = {
        name: {count: figures[figure] for count, figures in sorted(by_count.items()) if figure in figures}
        for name, by_count in by_name.items()
    }
    drawing = line_chart(
        title, {name: line for name, line in lines.items() if line}, str, mark, is_log=True, dashed=dashed
    )
    (plots / f"{file}.svg").write_text(drawing, encoding="utf-8")
    return f"![{title}](scale/{file}.svg)\n"


def _by_count(head: str, by_name: ByCount, cell: Callable[[int, Mapping[str, float]], str]) -> str:
    """Return a table with a row for each cache and a column for each number of processes."""
    counts = _counts(by_name)
    rows = [
        [name, *(cell(count, by_count[count]) if count in by_count else "" for count in counts)]
        for name, by_count in by_name.items()
    ]
    return table([head, *map(str, counts)], rows)


# Processes ----------------------------------------------------------------------------------------


def _rate_each(count: int, figures: Mapping[str, float]) -> str:
    each = f" ({rate_text(figures['rate'] / count)} each)" if count > 1 else ""
    return f"{rate_text(figures['rate'])}{each}"


def _processes(loaded: Loaded, plots: Path) -> list[str]:
    parts = ["## Several processes\n", _introduction(PROCESSES_TEXT, loaded, 0)]
    for mix, by_name in loaded.figures.items():
        title = f"Operations a second of all together, {mix}, by processes"
        parts.append(_drawn(title, MIX_FILES[mix], by_name, "rate", rate_mark, plots, ["diskcache"]))
        parts.append(_by_count(f"operations a second, {mix}; processes:", by_name, _rate_each))
    for mix in list(MIX_FILES)[1:]:
        title = f"99th percentile of a write, {mix}, by processes"
        file = MIX_FILES[mix].replace("processes", "processes-p99")
        by_name = loaded.figures[mix]
        parts.append(_drawn(title, file, by_name, "write p99", duration_mark, plots, ["diskcache"]))
        head = f"p99 of a write, {mix}; processes:"
        parts.append(_by_count(head, by_name, lambda _, figures: seconds_text(figures["write p99"])))
    parts.append("The processor time of an operation with one process and with the most, the server's in brackets:\n")
    return [*parts, _processor_times(loaded)]


def _processor_times(loaded: Loaded) -> str:
    mixes, names = list(loaded.figures), list(next(iter(loaded.figures.values())))
    counts = _counts(loaded.figures[mixes[0]])
    ends = [counts[0], counts[-1]]
    rows = [
        [name, *(_processor_time(loaded.figures[mix][name].get(count, {})) for mix in mixes for count in ends)]
        for name in names
    ]
    return table(["processor time of an operation", *(f"{mix}, {count}" for mix in mixes for count in ends)], rows)


def _processor_time(figures: Mapping[str, float]) -> str:
    if not figures:
        return ""
    server = f" ({seconds_text(figures['server'])})" if "server" in figures else ""
    return f"{seconds_text(figures['client'] + figures.get('server', 0))}{server}"


# Cluster ------------------------------------------------------------------------------------------

_COLUMNS: Final[Mapping[str, Callable[[float], str]]] = {
    "read p99": seconds_text,
    "write p99": seconds_text,
    "commands": "{:.2f}".format,
    "share of the busiest": share_text,
    "client": seconds_text,
    "server": seconds_text,
}
_HEADS: Final = (
    *("p99 of a read", "p99 of a write", "commands per operation", "the busiest server's share of them"),
    *("processor time of an operation: clients", "servers"),
)


def _cluster(loaded: Loaded, plots: Path) -> list[str]:
    most = max(_counts(next(iter(loaded.figures.values()))))
    parts = ["## Redis and Redis Cluster\n", _introduction(CLUSTER_TEXT, loaded, most), _full(loaded.figures[FULL])]
    for spread, title in SPREAD_TITLES.items():
        by_name = loaded.figures[spread]
        drawn = f"{title}: operations a second, by clients"
        near = [name for name in by_name if name.endswith(NEAR)]
        parts += [f"### {title}\n", _drawn(drawn, SPREAD_FILES[spread], by_name, "rate", rate_mark, plots, near)]
        head = "operations a second; clients:"
        parts.append(_by_count(head, by_name, lambda _, figures: rate_text(figures["rate"])))
        rows = [
            [name, *(text(by_count[most][figure]) for figure, text in _COLUMNS.items())]
            for name, by_count in by_name.items()
            if most in by_count
        ]
        parts.append(table([f"{most} clients", *_HEADS], rows))
    return parts


def _full(by_command: ByCount) -> str:
    rows = [
        [name, rate_text(by_count[full.CONNECTIONS]["rate"]), seconds_text(by_count[full.CONNECTIONS]["server"])]
        for name, by_count in by_command.items()
    ]
    return table(["one full server", "commands a second", "processor time of one"], rows)


LOADED_SECTIONS: Final[Mapping[str, Callable[[Loaded, Path], list[str]]]] = {
    "processes": _processes,
    "cluster": _cluster,
}
"""A part's name to the function that writes its section and its drawings."""
