"""``storeroom demo``: Python's own documentation, rendered through the file cache by several processes.

The demo starts processes (``processes``), each of which reads documentation pages
through the cache (``pages``); it has them read everything cold, warm, several at
once, and after a restart (``passes``), and shows what they counted (``report``).
The directing process never opens the cache itself, so that "after a restart" means
what it says: every process that ever had the cache open is gone.
"""

import argparse
from pathlib import Path

from storeroom.cli.exits import FAILED, INTERRUPTED, YES

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the demo's options."""
    parser.add_argument(
        "--directory", type=Path, metavar="PATH", help="where the demo's cache lives (default: in your cache directory)"
    )
    parser.add_argument(
        "--keep", action="store_true", help="begin with the pages that an earlier run left, instead of cold"
    )
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
        StorageError: one of the demo's processes failed; the message holds what it said.
    """
    # The demo's processes run one of these modules, and nothing may have imported it before.
    from storeroom.cli.demo import pages, passes, report  # noqa: PLC0415

    directory: Path = (args.directory or _default_directory()).resolve()
    modules = pages.standard_library()[: args.limit]
    report.print_opening(len(modules), directory)
    try:
        results = passes.play(directory, modules, keep=args.keep)
    except KeyboardInterrupt:
        report.print_interruption(passes.survey(directory, modules), len(modules), args.directory)
        return INTERRUPTED
    report.print_report(results, directory)
    return YES if passes.agree(results) else FAILED


def _default_directory() -> Path:
    import platformdirs  # noqa: PLC0415 -- only where no directory is given

    return platformdirs.user_cache_path("storeroom", appauthor=False) / "demo"
