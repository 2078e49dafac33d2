"""``python -m benchmarks.served``: see the package."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.console import print_verdicts
from benchmarks.served import page
from benchmarks.served.contenders import GROUPS
from benchmarks.served.run import Row, run, verdicts

DOCS = Path(__file__).parents[2] / "docs"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the page if everything was measured. Return an exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.served", description="Pages through real servers.")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=1, help="of each server in each round")
    parser.add_argument("--groups", default="", metavar="TEXT", help="only groups with this text in their names")
    parser.add_argument("--docs", metavar="DIRECTORY", type=Path, help="write pages-served.md there")
    args = parser.parse_args(argv)
    load, started = f"{os.getloadavg()[0]:.1f} processes at work, the mean of a minute", time.perf_counter()
    groups = tuple(group for group in GROUPS if args.groups in group.name)
    rows = run(args.seconds, args.rounds, print_row, groups)
    print_verdicts(verdicts(rows))
    print(f"took {time.perf_counter() - started:.0f} s")
    docs = args.docs or (None if args.groups else DOCS)
    if docs is not None:
        page.write(rows, docs, load)
        print(f"wrote {docs / 'pages-served.md'}")
    return 0


def print_row(row: Row) -> None:
    """Print a row."""
    print(row.name)
    for name in row.loads:
        load = row.median(name)
        told = f"{load.rate:9,.0f}/s  p50 {load.half * 1e3:7.2f} ms  p99 {load.most * 1e3:7.2f} ms"
        print(f"  {name:22} {told}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
