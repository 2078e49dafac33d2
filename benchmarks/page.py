"""The results as ``docs/benchmarks.md``, with charts beside it."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.charts import dot_chart, line_chart
from benchmarks.console import duration, times
from benchmarks.goals import REASONS, spread
from benchmarks.imports import IMPORTS
from benchmarks.libraries import FILE, MEMORY
from benchmarks.memory import ENTRIES, VALUE_CHARACTERS
from benchmarks.overheads import Overhead
from benchmarks.rows import GROWTH, GROWTH_SIZES, growth_name
from benchmarks.runs import KEPT, add
from benchmarks.server_rows import SERVER_ROWS
from benchmarks.stampede import CLIENTS
from benchmarks.suite import Results
from benchmarks.throughput import Throughput
from benchmarks.timing import Timed

__all__ = ["overhead_section", "rate_mark", "table", "write"]

INTRODUCTION: Final = f"""\
# Benchmarks

Storeroom beside the caches that people use today, measured in one run by `make bench`, which also writes this page.

**How it is measured.** Contenders take turns, round after round, and are compared within each round: "13.2×" says that
a library takes 13.2 times as long as Storeroom, the median over all rounds. That holds on a noisy machine; the times
themselves are this machine's. A row's figures are the medians of the last {KEPT} runs on it, and behind them stand the
least and the greatest ratio of these; sections without ratios are of the last run. Every cache is given room for all
entries, a timeout of 300 seconds and strings of 14 characters where nothing else is said. `dict`, `LMDB`, `sqlite3`,
`psycopg`, `redis-py`, `pymemcache` and `pylibmc` are no caches: they are what Storeroom's are built on, without bounds,
copies, trust or statistics, to show what those cost. Servers are real ones on the same machine; PostgreSQL does not
wait for its disk. The page on [scale](scale.md) has caches of up to ten million entries.
"""

MEMORY_TEXT: Final = """\
Storeroom, Django and cachelib return a copy of what was stored, so that nobody can change what is cached; cachetools,
cachebox and a dict return the object itself. cachetools is not safe for threads here.
"""

FILE_TEXT: Final = """\
Django's file cache lists its directory for each set, so its sets take longer the more is stored. `set_many` of
diskcache is shown as a loop, as its class for Django has it, and inside one transaction. A lease is renewed about every
two seconds, while a computation goes on that takes longer. Large values are one entry, or some, that are set and read
again and again; those of bytes are random.
"""

DATABASE_TEXT: Final = """\
Each cache as it comes: Django's on SQLite waits for the disk at each write, and counts its rows. `sqlite3` and
`psycopg` are a table with a key, a value and a time, written by one upsert, on SQLite with Storeroom's pragmas. "At
1,000,000 rows" is beside the same table at 100.
"""

REDIS_TEXT: Final = """\
One Redis, over TCP. Django's class makes a new client object for each call.
"""

MEMCACHED_TEXT: Final = """\
One Memcached, over TCP, by each of the two clients; all wait for the answer to a write.
"""

TIERS_TEXT: Final = """\
What was read from Redis is near, in the memory of the process, and Redis tells of changes.
"""

TAGS_TEXT: Final = """\
An entry with tags is live while the versions of its tags are what they were: reading it reads these too, all at once.
"""

CACHED_TEXT: Final = """\
A decorated function whose result is there. `functools.lru_cache` is a dict in C without timeouts; cachetools is given a
lock. The key of Storeroom's is a template, the same in every process and on every storage.
"""

STAMPEDE_TEXT: Final = f"""\
{CLIENTS} threads ask for one key, 200 times a second each. Its value takes a tenth of a second, and expires after a
second. Storeroom, Django and dogpile keep it in memory, diskcache on the disk. With `stale_while_revalidate` nobody
waits.
"""

THREADS_TEXT: Final = """\
Local memory: nine gets to one set. The page on [scale](scale.md) has several processes on one file cache.
"""

OVERHEADS_TEXT: Final = """\
The processor time of an operation, of all threads, with all that counts and records: families of keys, `removals`, and
`shared_stats` on Redis; the ratios are to everything off. `advise` records in windows, and pauses for most of the time:
"on" is in a pause, "recording" in a window, "on average" both by their parts of the time. See
[statistics](stats.md) and [which numbers to write](which-numbers.md#from-a-running-program).
"""


def write(results: Results, directory: Path) -> None:
    """Write the page and its charts; sections that were not measured are left out."""
    charts = directory / "benchmarks"
    charts.mkdir(parents=True, exist_ok=True)
    results = add(results, charts / "runs.json")
    parts = [INTRODUCTION, _machine(results), _goals(results)]
    parts += _rows("Local memory", "locmem", MEMORY_TEXT, results, charts)
    parts += _rows("Files", "file", FILE_TEXT, results, charts)
    parts += _growth(results, charts)
    for heading, prefix, text in _SERVER_SECTIONS:
        parts += _rows(heading, prefix, text, results, charts)
    parts += _stampede(results, charts)
    parts += _rates("Threads", "threads", THREADS_TEXT, results.threads, charts)
    parts += overhead_section(results.overheads)
    parts += _space(results)
    parts += _hit_ratios(results, charts)
    parts += _imports(results)
    (directory / "benchmarks.md").write_text("\n".join(parts), encoding="utf-8")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, its first column of names and the others of figures."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _chart(name: str, title: str, drawing: str, directory: Path) -> str:
    (directory / f"{name}.svg").write_text(drawing, encoding="utf-8")
    return f"![{title}](benchmarks/{name}.svg)\n"


def _machine(results: Results) -> str:
    return table(["", "the last run"], results.machine.items())


def _goals(results: Results) -> str:
    reached = sum(verdict.is_reached for verdict in results.verdicts)
    rows = [[each.subject, each.goal, each.measured, each.spread, each.outcome] for each in results.verdicts]
    told = table(["", "goal", "measured", "in each run", ""], rows)
    reasons = [
        textwrap.fill(f"Why {each.subject} misses its goal: {REASONS[each.subject]}", 118) + "\n"
        for each in results.verdicts
        if not each.is_reached and each.subject in REASONS
    ]
    return "\n".join([f"## Goals\n\n{reached} of {len(rows)} are reached.\n", told, *reasons])


# Times --------------------------------------------------------------------------------------------


def _rows(heading: str, prefix: str, text: str, results: Results, charts: Path) -> list[str]:
    elsewhere = {row.name for row in GROWTH}
    rows = {
        name.removeprefix(prefix).strip(): timed
        for name, timed in results.rows.items()
        if name.startswith(prefix) and name not in elsewhere
    }
    if not rows:
        return []
    # A contender with a label of its own belongs to one row alone: it is told beneath the table.
    servers = (each.library for row in SERVER_ROWS for each in row.contenders)
    libraries = {library.name for library in (*MEMORY, *FILE, *servers)}
    columns = [
        name for name in dict.fromkeys(name for timed in rows.values() for name in timed.seconds) if name in libraries
    ]
    told = table(["", *columns], [[row, *(_cell(timed, name) for name in columns)] for row, timed in rows.items()])
    others = [
        f"- {row}: {name} {_cell(timed, name)}"
        for row, timed in rows.items()
        for name in timed.seconds
        if name not in columns
    ]
    drawn = {
        row: {name: timed.median(name) for name in timed.seconds if name in columns} for row, timed in rows.items()
    }
    title = f"{heading}: time per operation (further left is faster)"
    chart = _chart(prefix, title, dot_chart(title, drawn, duration_mark, is_log=True), charts)
    return [f"## {heading}\n", text, chart, told, "\n".join(others) + "\n" if others else ""]


def _cell(timed: Timed, name: str) -> str:
    if name not in timed.seconds:
        return ""
    if name == timed.ours:
        return duration(timed.median(name))
    between = spread(timed.ratios(name))
    return f"{duration(timed.median(name))} ({times(timed.ratio(name))}){between and f', {between}'}"


def duration_mark(seconds: float) -> str:
    """Return a power of ten of seconds as an axis shows it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
        if seconds >= size * 0.999:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:g} s"


# Growth -------------------------------------------------------------------------------------------


def _grown(results: Results, operation: str) -> dict[int, Timed]:
    named = {entries: results.rows.get(growth_name(operation, entries)) for entries in GROWTH_SIZES}
    return {entries: timed for entries, timed in named.items() if timed is not None}


def _growth(results: Results, charts: Path) -> list[str]:
    parts = []
    for operation in ("get", "set"):
        grown = _grown(results, operation)
        if len(grown) < 2:
            continue
        names = list(dict.fromkeys(name for timed in grown.values() for name in timed.seconds))
        names = [name for name in names if sum(name in timed.seconds for timed in grown.values()) > 1]
        lines = {name: {n: t.median(name) for n, t in grown.items() if name in t.seconds} for name in names}
        title = f"Files: time of a {operation}, by entries stored"
        drawing = line_chart(title, lines, "{:,}".format, duration_mark, is_log=True)
        parts.append(_chart(f"growth-{operation}", title, drawing, charts))
        header = ["entries", *names]
        parts.append(table(header, [[f"{n:,}", *(_cell(t, name) for name in names)] for n, t in grown.items()]))
    return ["## Growth\n", *parts] if parts else []


_SERVER_SECTIONS: Final = (
    ("Databases", "database", DATABASE_TEXT),
    ("Redis", "redis", REDIS_TEXT),
    ("Memcached", "memcached", MEMCACHED_TEXT),
    ("Tiers", "tiers", TIERS_TEXT),
    ("Tags", "tags", TAGS_TEXT),
    ("Decorated functions", "cached", CACHED_TEXT),
)


def _stampede(results: Results, charts: Path) -> list[str]:
    told = results.stampedes
    if not told:
        return []
    seconds = [when for when in next(iter(told.values())).computations if when % 1000 == 0]
    drawings = {
        "computations": line_chart(
            "Stampede: computations begun in each tenth of a second",
            {name: each.computations for name, each in told.items()},
            _second,
            "{:g}".format,
            is_log=False,
            is_log_across=False,
            marks=seconds,
        ),
        "latency": line_chart(
            "Stampede: 99th percentile of waiting (lower is better)",
            {name: each.latency for name, each in told.items()},
            _second,
            duration_mark,
            is_log=True,
            is_log_across=False,
            marks=seconds,
        ),
    }
    charted = [_chart(f"stampede-{name}", f"Stampede: {name}", drawing, charts) for name, drawing in drawings.items()]
    rows = [
        [name, str(each.most), f"{each.worst * 1e3:.1f} ms", f"{each.longest * 1e3:.1f} ms"]
        for name, each in told.items()
    ]
    header = ["", "computations, at one expiry", "p99, in the worst tenth of a second", "longest"]
    return ["## Stampede\n", STAMPEDE_TEXT, *charted, table(header, rows)]


def _second(milliseconds: int) -> str:
    return f"{milliseconds / 1000:g} s"


# Everything else ------------------------------------------------------------------------------------


def _rates(heading: str, name: str, text: str, rates: Throughput, charts: Path) -> list[str]:
    if not rates:
        return []
    counts = list(next(iter(rates.values())))
    title = f"{heading}: operations a second of all together"
    drawing = line_chart(title, rates, str, rate_mark, is_log=False)
    rows = [[library, *(f"{by_count[count]:,.0f}" for count in counts)] for library, by_count in rates.items()]
    told = table([f"operations a second, {name}:", *map(str, counts)], rows)
    return [f"## {heading}\n", text, _chart(name, title, drawing, charts), told]


def rate_mark(rate: float) -> str:
    """Return operations a second as an axis shows them."""
    return f"{rate / 1e6:g} M" if rate >= 1e6 else f"{rate / 1e3:g} k" if rate >= 1e3 else f"{rate:g}"


def overhead_section(measured: Mapping[str, Overhead]) -> list[str]:
    """Return the section on the cost of being watched."""
    if not measured:
        return []
    rows = [
        [name, duration(each.seconds), f"{each.on:.2f}×", f"{each.recording:.2f}×", f"{each.average:.2f}×"]
        for name, each in measured.items()
    ]
    header = ["", "everything off", "on", "recording", "on average"]
    return ["## Being watched\n", OVERHEADS_TEXT, table(header, rows)]


def _space(results: Results) -> list[str]:
    if not results.memory:
        return []
    names = list(dict.fromkeys([*results.memory, *results.disk]))
    rows = [[name, _bytes(results.memory, name), _bytes(results.disk, name)] for name in names]
    long = VALUE_CHARACTERS
    text = f"""\
Bytes that an entry takes, its key of 21 and its value of {long} characters included; "dict" is those alone. In memory:
the growth of the process, as the system tells it, by {ENTRIES:,} entries, divided by their number. In files: the growth
of all files of the cache, in the blocks that they occupy, by as many entries, or by a tenth where each is a file of its
own. Storeroom's include the slots, which know for each entry when it expires and goes, and double when they are full.
"""
    return ["## Space\n", text, table(["", "local memory", "files"], rows)]


def _bytes(figures: Mapping[str, float], name: str) -> str:
    return f"{figures[name]:,.0f}" if name in figures else ""


def _hit_ratios(results: Results, charts: Path) -> list[str]:
    if not results.hit_ratios:
        return []
    names = list(next(iter(results.hit_ratios.values())))
    title = "Hit ratio on recorded traces (further right is better)"
    chart = _chart("hit-ratio", title, dot_chart(title, results.hit_ratios, "{:.0f} %".format, is_log=False), charts)
    rows = [[workload, *(f"{ratios[name]:.2f}" for name in names)] for workload, ratios in results.hit_ratios.items()]
    text = (
        "Requests that find their key, in percent, on traces of a web shop (`benchmarks/traces`). The limit is what\n"
        "eviction could reach if it knew the future (Belady).\n"
    )
    return ["## Hit ratio\n", text, chart, table(["trace, capacity", *names], rows)]


def _imports(results: Results) -> list[str]:
    rows = {row: results.rows[row] for row in IMPORTS if row in results.rows}
    if not rows:
        return []
    names = list(dict.fromkeys(name for timed in rows.values() for name in timed.seconds))
    text = (
        "In a fresh interpreter, whose own start is not counted but for the command; Django with `django.setup()`.\n"
        "The files of the caches are there already. Reasons: [late imports](decisions/0150-late-imports.md).\n"
    )
    cells = [[row, *(_milliseconds(timed, name) for name in names)] for row, timed in rows.items()]
    return ["## Import\n", text, table(["", *names], cells)]


def _milliseconds(timed: Timed, name: str) -> str:
    return f"{timed.median(name) * 1e3:.1f} ms" if name in timed.seconds else ""
