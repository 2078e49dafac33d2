"""The command: its arguments, and one look or many."""

import argparse
import locale
import shutil
import sys
import time
from typing import Any, Final

from storeroom.cli.arguments import Unnamed
from storeroom.cli.exits import NO, YES
from storeroom.cli.output import print_json
from storeroom.cli.top.reports import Watcher, open_folder
from storeroom.cli.top.rows import Row, caches_of, families_of
from storeroom.cli.top.screen import can_draw, live
from storeroom.cli.top.view import NOBODY, View, table

__all__ = ["add_arguments", "run"]

SECONDS: Final = 1.0
"""Between two looks."""

ONCE_SECONDS: Final = 3.0
"""For how long --once asks: until a busy process has answered twice, so that there is a rate."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of top."""
    parser.epilog = """\
Shows the caches of all running processes of this user, and draws them anew each
second. Nothing has to be configured: processes that count answer while somebody
asks, at their next miss, write or round trip, or at the end of a request.
Without a terminal, and with --once, it asks for three seconds, prints what it
got, and ends; it exits 1 if no process has answered.

keys:
  up, down        choose a row
  Enter, Esc      into a cache's families, into the processes of one; and out
  < >             sort by the column to the left, to the right; r turns it round
  t               counts since the processes began, in place of those per second
  p               a row for each process
  q               quit

examples:
  storeroom top
  storeroom top --once --alias pages
  storeroom top --json | jq '.[].per_second.hits'
"""
    parser.add_argument("--once", action="store_true", help="print once, and end")
    parser.add_argument("--json", action="store_true", help="print a JSON list once, with the counts in all, and end")


def run(args: argparse.Namespace) -> int:
    """Show the caches of the processes that run."""
    alias = None if type(args.alias) is Unnamed else args.alias
    watcher = Watcher(open_folder())
    try:
        if args.once or args.json or not can_draw():
            return _once(watcher, alias, as_json=args.json)
        locale.setlocale(locale.LC_CTYPE, "")  # for curses, which encodes by it
        view = View(alias)
        return live(view, lambda: view.update(watcher.look()), SECONDS)
    finally:
        watcher.close()


def _once(watcher: Watcher, alias: str | None, *, as_json: bool) -> int:
    until = time.monotonic() + ONCE_SECONDS
    reports = watcher.look()
    while time.monotonic() < until:
        time.sleep(SECONDS / 4)
        reports = watcher.look()
    rows = sorted(caches_of(reports, alias), key=lambda row: (row.labels, row.key))
    if as_json:
        print_json([_as_dict(row) for row in rows])
    elif rows:
        print("\n".join(_text(rows, alias)))
    else:
        print("\n".join(NOBODY) if not reports else f"No process uses a cache {alias!r}.")
    return YES if rows else NO


def _text(rows: list[Row], alias: str | None) -> list[str]:
    """Return the caches as lines; of the one that was named, its families too."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    lines = table(rows, ("cache", "program", "backend"), width)
    for row in rows if alias is not None else ():
        if families := families_of(row):
            lines += ["", *table(families, ("family",), width)]
    return lines


def _as_dict(row: Row) -> dict[str, Any]:
    alias, program, backend = row.labels
    return {
        "alias": alias,
        "program": program,
        "backend": backend,
        "pids": [report.record["pid"] for report, _ in row.parts],
        "entries": row.entries,
        "counts": row.counted,
        "per_second": row.grown,
    }
