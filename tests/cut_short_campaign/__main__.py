"""See the package. The seed is printed; a row that is repeated with it draws the same moments."""

import argparse
import os
import random
import sys
import time
from collections.abc import Iterator
from typing import Final

import pytest

from tests.cut_short_campaign.counts import Counts
from tests.cut_short_campaign.processes import Job, counted
from tests.cut_short_campaign.storages import STORAGES, running

ASYNC: Final = ("aget_or_set", "aget_or_set, limited", "aget_or_set_many", "arefresh", "alock")
SYNC: Final = ("get_or_set", "get_or_set_many", "refresh", "lock")
LOOPS: Final = (
    *("left by a closed loop", "a loop for each request", "computations that hang"),
    *("odd ends", "errors that are kept", "computations that cross"),
)


ROWS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "cancel": (ASYNC, ("turn", "moment", "for good", "anyio")),
    "interrupt": (SYNC, ("signal", "thread")),
    "loops": (LOOPS, ("",)),
    "commits": (("transaction",), ("turn", "moment", "for good")),
    "mixed": (("all operations",), ("signal", "thread", "gevent")),
}
"""Operations and ways of each part."""

PARTS: Final = {
    "cancel": "leases and locks of tasks that are cancelled",
    "interrupt": "leases and locks of calls that an exception interrupts",
    "loops": "loops that end, computations that hang, errors that are kept",
    "commits": "old values after a commit whose task is cancelled",
    "mixed": "connections, and all else, after interruptions of all operations",
}


def _jobs(part: str, options: argparse.Namespace) -> Iterator[Job]:
    """Yield part, operation, way and number of cases of a part's rows, or of those that are asked for."""
    operations, ways = ROWS[part]
    for operation in operations:
        for way in ways:
            if options.rows and f"{operation}, {way}" not in options.rows:
                continue
            yield part, operation, way, options.interruptions if part == "mixed" else options.count


def _row(name: str, job: Job, counts: Counts, seconds: float) -> str:
    _, operation, way, _ = job
    cells = [name, operation, way, f"{counts.cut:,} of {counts.cases:,}", f"{counts.waits}", f"{counts.longest:.2f}"]
    cells += [f"{counts.left}", f"{counts.wrong}", f"{sum(counts.errors.values())}", f"{seconds:.0f}"]
    return f"| {' | '.join(cells)} |"


def _run(name: str, parts: list[str], options: argparse.Namespace) -> int:
    """Print the rows of a storage; return the number of faults."""
    faults = 0
    with running(name) as alias:
        for job in (job for part in parts for job in _jobs(part, options)):
            begun = time.monotonic()
            counts, complaint = counted(job, alias, options.seed)
            print(_row(name, job, counts, time.monotonic() - begun), flush=True)
            for error, times in counts.errors.most_common(5):
                print(f"    {times} × {error}", flush=True)
            for seen in counts.seen[:3]:
                print(f"    waited {seen}", flush=True)
            if complaint:
                print(f"    {complaint}", flush=True)
            faults += counts.faults + bool(complaint)
    return faults


def main() -> int:
    """Print the table; return 1 if anything was left behind."""
    parser = argparse.ArgumentParser(prog="python -m tests.cut_short_campaign", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all without")
    parser.add_argument("--storages", default=",".join(STORAGES), help="their names, with commas between")
    parser.add_argument("--rows", nargs="*", metavar="ROW", help='some rows of the parts only: "refresh, thread"')
    parser.add_argument("--count", type=int, default=3000, help="cases of each operation and way")
    parser.add_argument("--interruptions", type=int, default=10_000, help="of all operations, by each way")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    print(f"seed {options.seed}, {os.getloadavg()[0]:.1f} processes want to run on {os.cpu_count()} processors")
    parts, faults = options.parts or list(PARTS), 0
    print("| storage | operation | way | cut | wait > 1 s | longest, s | left | wrong | errors | took, s |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in options.storages.split(","):
        try:
            faults += _run(name, parts, options)
        except pytest.skip.Exception as missing:
            print(f"| {name} | left out: {missing} |")
    print(f"{faults} faults; {os.getloadavg()[0]:.1f} processes wanted to run at the end")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
