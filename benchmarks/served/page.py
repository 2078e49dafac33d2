"""The results as ``docs/pages-served.md``, with its charts."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from benchmarks.charts import dot_chart
from benchmarks.console import times
from benchmarks.goals import Verdict
from benchmarks.machine import describe
from benchmarks.page import rate_mark, table
from benchmarks.served.contenders import BARE, OURS
from benchmarks.served.load import CONNECTIONS
from benchmarks.served.run import Row, shares, verdicts
from benchmarks.served.serving import THREADS

__all__ = ["write"]

DISTRIBUTIONS: Final = (
    "storeroom", "uvicorn", "uvloop", "httptools", "gunicorn", "gunicorn_h1c", "granian", "fastapi", "starlette",
    "Flask", "Django", "fastapi-cache2", "fastapi-cachex", "cashews", "hishel", "Flask-Caching",
)  # fmt: skip

INTRODUCTION: Final = f"""\
# Pages, served

*Requests a second through real servers, where the page is stored: [`PageCache`](pages.md) beside the page caches that
people use today, beside the application without a cache, and beside nginx. Measured in one run by `make bench-pages`,
which also writes this page.*

**How it is measured.** wrk asks on {CONNECTIONS} connections that stay open, in one thread, and **shares the two
processors** with the server: more of them would raise the rates of the fast ones. The servers of a group take turns,
round after round; figures are medians of the rounds, and ratios are of rates within one round. All run at once, idle
but for the one that is asked. uvicorn runs on uvloop and httptools, gunicorn on gunicorn-h1c, and each worker of the
WSGI servers has {THREADS} threads. Where nothing else is said a server has one worker. A server has costs of its own
for each request, which no cache within it can save: in gunicorn they are many times those of a hit. The `bare
application` shows them: it answers with the same bytes, does nothing else, and has no framework. No cache in Python can
be faster on its server, so where it is not three times as fast as a peer, no cache can be.

The two pages: a list of 100 small dicts, which the framework makes into JSON for each answer, and a ready text of 5 kB,
which costs the application nothing: there a cache can save only the framework. `nginx` is `proxy_cache` in front of the
uncached application, with as many workers: the rate that a server written in C reaches, and the upper bar here.
`files` are the caches whose pages all workers share.
"""


def write(rows: list[Row], directory: Path, load: str) -> None:
    """Write the page and its charts.

    Args:
        rows: the results.
        directory: of the documentation.
        load: of the machine before the run: it tells whether others were at work.
    """
    charts = directory / "benchmarks"
    charts.mkdir(parents=True, exist_ok=True)
    found = verdicts(rows)
    machine = table(["", "this run"], {**describe(DISTRIBUTIONS, ("nginx", "wrk")), "load before": load}.items())
    parts = [INTRODUCTION, machine, _goals(found), _shares(rows)]
    for heading, name, frameworks in (
        ("ASGI", "pages-asgi", ("fastapi",)),
        ("WSGI", "pages-wsgi", ("flask", "django")),
    ):
        chosen = [row for row in rows if row.group.framework in frameworks]
        if chosen:
            parts += _section(heading, name, chosen, charts)
    (directory / "pages-served.md").write_text("\n".join(parts), encoding="utf-8")


def _goals(found: list[Verdict]) -> str:
    reached = sum(verdict.is_reached for verdict in found)
    rows = [[each.subject, each.goal, each.measured, each.outcome] for each in found]
    text = f"## Goals\n\n{reached} of {len(rows)} are reached.\n"
    return "\n".join([text, table(["", "goal", "measured", ""], rows)])


def _shares(rows: list[Row]) -> str:
    lines = [[row.name, *(f"{share:.0%}" for share in shares(row))] for row in rows]
    headings = [f"{storage}, of {other}" for other in ("the bare rate", "nginx's") for storage in ("memory", "files")]
    text = f"The shares of the rates of the {BARE} and of nginx that a hit reaches:\n"
    return "\n".join([text, table(["", *headings], lines)])


def _section(heading: str, name: str, rows: list[Row], charts: Path) -> Iterable[str]:
    title = f"{heading}: requests a second (further right is better)"
    drawn = {_label(row): {each: row.median(each).rate for each in row.loads} for row in rows}
    (charts / f"{name}.svg").write_text(dot_chart(title, drawn, rate_mark, is_log=True), encoding="utf-8")
    yield f"## {heading}\n"
    yield f"![{title}](benchmarks/{name}.svg)\n"
    for row in rows:
        yield f"### {row.name}\n"
        yield table(["", "requests a second", "Storeroom's rate", "p50", "p99"], _lines(row))


def _label(row: Row) -> str:
    short = row.name.replace(" on uvicorn", "").replace(" on ", ", ")
    return short.replace("100 rows as JSON", "JSON").replace("5 kB of HTML", "HTML")


def _lines(row: Row) -> Iterable[list[str]]:
    for name in row.loads:
        load = row.median(name)
        ratio = "" if name == OURS else times(row.ratio(OURS, name))
        yield [name, f"{load.rate:,.0f}", ratio, f"{load.half * 1e3:.2f} ms", f"{load.most * 1e3:.2f} ms"]
