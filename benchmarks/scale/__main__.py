"""``python -m benchmarks.scale``: how each storage does as it grows, beside two peers, in one run."""

import argparse
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.scale import page
from benchmarks.scale.contenders import CONTENDERS
from benchmarks.scale.figures import seconds_text
from benchmarks.scale.measuring import EFFORTS, Figures
from benchmarks.scale.run import LARGEST, LOADED, Results, run, sizes_up_to

MINUTES = 50
"""A run to the largest size took 37 on two cores, and the loads of several processes take ten more; one that is ended
goes on where it was: see --resume."""

DOCS = Path(__file__).parents[2] / "docs"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the page if all caches were measured. Return an exit code."""
    args = _parser().parse_args(argv)
    if args.read:
        results = Results.from_json(args.read.read_text("utf-8"))
    else:
        sizes = args.sizes or sizes_up_to(args.largest)
        before = _earlier(args.resume)
        results = run(sizes, args.parts, args.effort, args.minutes, partial(_announce, args.resume), before)
        print(f"took {(results.seconds + sum(it.seconds for it in results.loaded.values())) / 60:.1f} minutes")
        if args.resume and not (results.failed or args.parts or args.sizes):
            args.resume.unlink(missing_ok=True)  # a part stays there for the whole run
    if results.left_out:
        print(f"left out, as they are not installed: {', '.join(results.left_out)}")
    for name, error in results.failed.items():
        print(f"not measured: {name}: {error}")
    if args.json:
        args.json.write_text(results.as_json(), "utf-8")
    only_loads = not any(re.search(args.parts, name) for name in CONTENDERS)
    docs = args.docs or (DOCS if args.effort == "full" and (only_loads or not args.parts) else None)
    if docs is not None:
        page.write(page.renewed(docs, results.loaded) if only_loads else results, docs)
        print(f"wrote {docs / 'scale.md'}")
    return 1 if results.failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description="Measure caches of many entries.")
    parser.add_argument(
        "--largest", metavar="N", type=int, default=LARGEST, help=f"leave out larger caches (default: {LARGEST:,})"
    )
    parser.add_argument("--sizes", metavar="N", type=int, nargs="+", help="these numbers of entries, and no others")
    parser.add_argument(
        "--parts",
        metavar="PATTERN",
        default="",
        help=f"only caches, and parts ({', '.join(LOADED)}), that this regular expression finds",
    )
    parser.add_argument("--effort", choices=EFFORTS, default="full", help="quick: to see that it works")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"end after so many (default: {MINUTES})")
    parser.add_argument(
        "--resume", metavar="FILE", type=Path, help="keep there what was measured, and go on with it the next time"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures there")
    parser.add_argument("--read", metavar="FILE", type=Path, help="measure nothing: take the figures from there")
    parser.add_argument(
        "--docs", metavar="DIRECTORY", type=Path, help="write scale.md there (default: docs, after a complete run)"
    )
    return parser


def _earlier(kept: Path | None) -> Results | None:
    """Return the results of a run that did not come to its end."""
    if kept is None or not kept.exists():
        return None
    print(f"going on with {kept}; remove it to begin anew")
    return Results.from_json(kept.read_text("utf-8"))


def _announce(kept: Path | None, title: str, figures: Figures, results: Results) -> None:
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(results.as_json(), "utf-8")
    print(f"\n{title}" if figures else title, flush=True)
    for figure, value in figures.items():
        told = f"{value:,.0f}" if figure.endswith(("entry", "sets")) else seconds_text(value)
        print(f"    {figure:<28}{told:>12}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
