"""The results as ``docs/scale.md``: a plot for each figure, and below it the same numbers as a table."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.charts import line_chart
from benchmarks.page import duration_mark, table
from benchmarks.scale.carries import carries_section
from benchmarks.scale.figures import bytes_text, paragraphs, seconds_text
from benchmarks.scale.loaded import LOADED_SECTIONS
from benchmarks.scale.run import LARGEST, MOST, Loaded, Results, sizes_up_to

__all__ = ["SECTIONS", "renewed", "write"]

INTRODUCTION: Final = """\
# Scale

*How each storage does as it grows: the time of an operation, the longest pause, the room of an entry, and the time to
open, count and clear, beside diskcache and cachebox{loads}. `make bench-scale` measures all of it and writes this
page.*

**How it is measured.** Each cache has a bound of as many entries as it is filled with. Keys have 13 characters and
come in no order, values have 100 characters{small}. Each cache of each size is measured by itself, in a process of its
own, or in three: one fills it and is killed by `kill -9`, one opens what is left and uses it, and one opens it again
and clears. An operation's time is the median of 11 rounds, over keys from the whole cache. The garbage collector runs,
as it does in programs. The peers are diskcache, which lies in files, and cachebox, in memory. cachebox knows no tags.
diskcache is bounded by bytes alone: it is full when it has the size that it has then. Servers are real ones on the same
machine, with one client; PostgreSQL does not wait for its disk, and has 32 MB of buffers of its own. The page of
[benchmarks](benchmarks.md) compares small caches, with more libraries.
"""

CONCLUDED: Final = (
    "**What to take for how much**: [the last section](#what-one-machine-carries) concludes from all of it.\n"
)

BUSY: Final = """\
**The machine was busy in this run.** Programs waited for its {cores} cores when it began: all times are too long, and
longest ones by far. What a cache costs when the machine is its own is less.
"""

LOADS: Final = "; then what several processes get out of one cache, and out of Redis Clusters"

SMALL: Final = ", or 16 in caches of 10,000,000"


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure as it is shown.

    Attributes:
        figure: its name among those that were measured.
        file: the name of the drawing.
        title: above it.
        text: turns a value into text, in the table.
        mark: turns one into text, at the axis.
    """

    figure: str
    file: str
    title: str
    text: Callable[[float], str] = seconds_text
    mark: Callable[[float], str] = duration_mark


SECTIONS: Final[Sequence[tuple[str, str, Sequence[Plot]]]] = (
    (
        "Get and set",
        "An entry that is there is read, or overwritten.",
        [Plot("get", "get", "get"), Plot("set", "set", "set of a key that is there")],
    ),
    (
        "New keys when full",
        "A new key is set, and another entry goes. The longest is that of the sets of these 11 rounds.",
        [
            Plot("set when full", "full", "set of a new key when full"),
            Plot("set when full: longest", "full-longest", "longest set of a new key when full"),
        ],
    ),
    (
        "Tags",
        """\
An entry has one of 256 tags. A read of one reads the version of its tag, too; diskcache's tags are there to delete by,
and a read does not look at them.""",
        [
            Plot("get with a tag", "tagged-get", "get of an entry with a tag"),
            Plot("set with a tag", "tagged-set", "set with a tag"),
        ],
    ),
    (
        "The longest pause",
        """\
Single sets of new keys while the cache is filled: all of them in memory, elsewhere as many as fit into six seconds,
spread over the whole fill. The machine adds to them: a loop that only looked at the clock, between the measurements,
was held up for {pause}.""",
        [
            Plot("filling: longest", "fill-longest", "longest set while filling"),
            Plot("filling: 99.99 %", "fill-9999", "99.99th percentile of sets while filling"),
            Plot("filling: mean", "fill-mean", "mean of sets while filling"),
        ],
    ),
    (
        "Count and clear",
        "One call for the whole cache. Redis keeps no count of a prefix, and is asked for its keys.",
        [Plot("count", "count", "count"), Plot("clear", "clear", "clear")],
    ),
    (
        "Opening",
        "A program opens a cache that is there and reads an entry. With a server it connects. Modules are loaded.",
        [
            Plot("open", "open", "opening, and a first get"),
            Plot("open, after kill -9", "open-killed", "opening after kill -9 of the only user, and a first get"),
        ],
    ),
    (
        "Room",
        """\
Bytes that an entry adds, its key and value among them. Memory is that of the process alone, without pages that
processes share; for Redis that of the server. A cache on the disk has a fixed part of its own in memory, which is
spread over few entries or many.""",
        [
            Plot("memory per entry", "memory", "bytes of memory per entry", bytes_text, bytes_text),
            Plot("disk per entry", "disk", "bytes on the disk per entry", bytes_text, bytes_text),
        ],
    ),
)

PEERS: Final = ("diskcache", "cachebox")

FIGURES: Final = "figures.json"
"""Beside the plots."""


def renewed(directory: Path, loaded: Mapping[str, Loaded]) -> Results:
    """Return the figures of the page that is there, with those of some loads in place of its own."""
    kept = Results.from_json((directory / "scale" / FIGURES).read_text("utf-8"))
    return replace(kept, loaded=kept.loaded | loaded)


def write(results: Results, directory: Path) -> None:
    """Write the page, its plots, and the figures, of which a part may be renewed."""
    plots = directory / "scale"
    plots.mkdir(parents=True, exist_ok=True)
    small = SMALL if max(results.sizes) >= LARGEST else ""
    busy = BUSY.format(cores=os.cpu_count()) if results.load > (os.cpu_count() or 1) else ""
    conclusions = carries_section(results, plots)
    parts = [
        paragraphs(INTRODUCTION, small=small, loads=LOADS if results.loaded else ""),
        CONCLUDED if conclusions else "",
        busy,
        _about(results),
    ]
    for heading, text, section in SECTIONS:
        parts += [f"## {heading}\n", text.format(pause=seconds_text(results.pause)) + "\n"]
        for plot in section:
            parts += _plot(plot, results, plots)
    parts += _timed_sets(results)
    for name, section in LOADED_SECTIONS.items():
        if name in results.loaded:
            parts += section(results.loaded[name], plots)
    parts += conclusions
    (plots / FIGURES).write_text(f"{results.as_json()}\n", encoding="utf-8")
    (directory / "scale.md").write_text("\n".join(filter(None, parts)), encoding="utf-8")


def _about(results: Results) -> str:
    sizes = ", ".join(f"{entries:,}" for entries in results.sizes)
    if max(results.sizes) > MOST:
        sizes += " (the last one in local memory and files alone)"
    if results.sizes != sizes_up_to(LARGEST):
        sizes += f"; a whole run goes to {LARGEST:,}, in local memory and files"
    failed = {f"not measured: {name}": error for name, error in results.failed.items()}
    rows = {
        **results.machine,
        "entries": sizes,
        "took": f"{results.seconds / 60:.0f} minutes; load {results.load} at the beginning{results.remark}",
        **failed,
    }
    return table(["", "this run"], rows.items())


def _measured(figure: str, results: Results) -> Mapping[str, Mapping[int, float]]:
    """Return a figure by name of the cache and entries; caches without it are left out."""
    by_name = {
        name: {entries: figures[figure] for entries, figures in by_size.items() if figure in figures}
        for name, by_size in results.figures.items()
    }
    return {name: by_size for name, by_size in by_name.items() if by_size}


def _plot(plot: Plot, results: Results, plots: Path) -> list[str]:
    measured = _measured(plot.figure, results)
    # A logarithmic axis has no zero.
    drawn = {name: {n: max(value, 1e-9) for n, value in by_size.items()} for name, by_size in measured.items()}
    if plot.text is bytes_text:
        drawn = {name: {n: max(value, 1.0) for n, value in by_size.items()} for name, by_size in drawn.items()}
    if not drawn:
        return []
    title = f"{plot.title[0].upper()}{plot.title[1:]}, by entries stored"
    drawing = line_chart(title, drawn, "{:,}".format, plot.mark, is_log=True, dashed=PEERS)
    (plots / f"{plot.file}.svg").write_text(drawing, encoding="utf-8")
    rows = [
        [f"{n:,}", *(plot.text(by_size[n]) if n in by_size else "" for by_size in measured.values())]
        for n in results.sizes
        if any(n in by_size for by_size in measured.values())
    ]
    return [f"![{title}](scale/{plot.file}.svg)\n", table([plot.title, *measured], rows)]


def _timed_sets(results: Results) -> list[str]:
    """Return how many sets the section about the longest pause speaks of, and how long the whole fills took."""
    text = """\
Single sets that were timed while filling, and the time of the whole fill with those entries that were stored by many at
once.
"""
    rows = []
    for entries in results.sizes:
        row = [f"{entries:,}"]
        for by_size in results.figures.values():
            figures = by_size.get(entries)
            row.append(f"{figures['filling: sets']:,.0f} in {seconds_text(figures['fill'])}" if figures else "")
        rows.append(row)
    return ["## Filling\n", text, table(["", *results.figures], rows)]
