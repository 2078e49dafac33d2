"""The command: its arguments, the passes one after the other, and the report."""

import argparse
from pathlib import Path

import platformdirs

from storeroom.cli.demo import pages, passes, report
from storeroom.cli.demo.processes import start
from storeroom.cli.exits import FAILED, INTERRUPTED, YES

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the demo's options."""
    directory = "where the demo's cache lives (default: in your cache directory)"
    parser.add_argument("--directory", type=Path, metavar="PATH", help=directory)
    keep = "begin with the pages that an earlier run left, instead of cold"
    parser.add_argument("--keep", action="store_true", help=keep)
    parser.add_argument("--limit", type=_positive, metavar="N", help="only the first N modules")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a number of modules; expected 1 or more")
    return number


def run(args: argparse.Namespace) -> int:
    """Run the demo. Return an exit code: FAILED if two processes read different pages.

    Raises:
        ConfigurationError: the directory cannot be used.
        StorageError: one of the demo's processes failed; the message holds its last words.
    """
    default = platformdirs.user_cache_path("storeroom", appauthor=False) / "demo"
    directory: Path = (args.directory or default).resolve()
    modules = pages.standard_library()[: args.limit]
    report.print_opening(len(modules), directory)
    try:
        results = passes.play(directory, modules, keep=args.keep)
    except KeyboardInterrupt:
        with start(directory, 1) as processes:
            stored = processes.survey(modules)
        report.print_interruption(stored, len(modules), args.directory)
        return INTERRUPTED
    report.print_report(results, directory)
    return YES if passes.agree(results) else FAILED
