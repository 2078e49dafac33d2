"""``python -m benchmarks``: Storeroom beside its peers, in one run."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import page, suite
from benchmarks.console import print_measured, print_verdicts

DOCS = Path(__file__).parents[1] / "docs"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the page if everything was measured. Return an exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Storeroom beside its peers.")
    parser.add_argument(
        "--quick", action="store_true", help="less of everything: to see that it works, not to conclude"
    )
    parser.add_argument("--rows", metavar="PATTERN", default="", help="only rows that this regular expression finds")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures there")
    parser.add_argument(
        "--docs", metavar="DIRECTORY", type=Path, help="write benchmarks.md there (default: docs, after a complete run)"
    )
    args = parser.parse_args(argv)
    started = time.perf_counter()
    results = suite.run(suite.QUICK if args.quick else suite.FULL, args.rows, print_measured)
    print_verdicts(results.verdicts)
    print(f"took {time.perf_counter() - started:.0f} s")
    if results.left_out:
        print(f"left out, as they are not installed: {', '.join(sorted(results.left_out))}")
    if args.json:
        args.json.write_text(json.dumps(results.as_dict(), indent=2), encoding="utf-8")
    docs = args.docs or (None if args.quick or args.rows else DOCS)
    if docs is not None:
        page.write(results, docs)
        print(f"wrote {docs / 'benchmarks.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
