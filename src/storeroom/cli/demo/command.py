"""The command: its arguments, the passes one after the other, and what is said before, after, and on Ctrl-C."""

import argparse
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

import platformdirs

from storeroom.cli.demo import pages, passes
from storeroom.cli.demo.processes import start
from storeroom.cli.exits import FAILED, INTERRUPTED, YES
from storeroom.cli.output import columns, paragraph, size, styled

__all__ = ["add_arguments", "print_report", "run"]

SHOWN_NAMES: Final = 4  # of modules, where there may be many


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
    """Run the demo. Return an exit code: FAILED if two processes read different pages."""
    default = platformdirs.user_cache_path("storeroom", appauthor=False) / "demo"
    directory: Path = (args.directory or default).resolve()
    modules = pages.standard_library()[: args.limit]
    python = ".".join(map(str, sys.version_info[:3]))
    print(f"The documentation of {len(modules)} modules of Python {python}, each page rendered by pydoc")
    print(f"and kept in a file cache: {_shown(directory)}\n")
    try:
        results, advice = passes.play(directory, modules, keep=args.keep)
    except KeyboardInterrupt:
        with start(directory, 1) as processes:
            stored = processes.survey(modules)
        _print_interruption(stored, len(modules), args.directory)
        return INTERRUPTED
    print_report(results, directory)
    print("\nThe numbers to write, by the first two passes (your program's own: OPTIONS['advise'], cache.advice()):\n")
    print(advice)
    return YES if passes.agree(results) else FAILED


def _print_interruption(stored: int, count: int, given_directory: Path | None) -> None:
    """Tell what is left after Ctrl-C, and the way to go on."""
    again = f"{_program()} demo --keep"
    if given_directory is not None:
        again += f" --directory {shlex.quote(str(given_directory))}"
    print(f"\n\nInterrupted, and nothing is broken: a fresh process found {stored} of {count} pages, all whole.")
    print(f"Go on from there with: {again}")


def print_report(results: Sequence[passes.Pass], directory: Path) -> None:
    """Print the table, remarks on it, and commands to try next."""
    print("\n" + columns(_table(results), right=range(1, 6)) + "\n")
    for label, text in _remarks(results, directory):
        print(paragraph(label, text, label_width=16))
    print("\nNext:")
    url = f"'file://{quote(str(directory))}?key_prefix={pages.KEY_PREFIX}'"
    for command, meaning in (
        (f"keys json --config {url}", "list the pages of one package, in the cache that the demo has left"),
        ("check", "see which cache your own program would get, and what is risky about it"),
        ("bench", "time that cache on this machine"),
    ):
        print(f"  {styled(f'{_program()} {command}', 'strong')}\n      {meaning}")


def _table(results: Sequence[passes.Pass]) -> Iterator[Sequence[str]]:
    yield "", "pages", "seconds", "computations", "hits", "time saved"
    for each in results:
        counts = (f"{each.pages:,}", f"{each.seconds:.3f}", f"{each.computations:,}", f"{each.hits:,}")
        yield each.name, *counts, f"{each.seconds_saved:.1f} s"


def _remarks(results: Sequence[passes.Pass], directory: Path) -> Iterator[tuple[str, str]]:
    yield "size on disk", size(sum(_bytes_on_disk(path) for path in directory.rglob("*")))
    yield "time saved", "what rendering the hits took, when somebody did it"
    slowest, renderings = results[-1].tallies[0].slowest, results[-1].computations
    yield "one cold page", f"8 processes wanted {slowest} at the same moment; {renderings} of them rendered it"
    if passes.agree(results):
        yield "same pages", "every process read the same, to the last character"
    else:
        yield "DEFECT", "processes read different pages, which must not happen; please report it"
    unavailable = results[0].tallies[0].unavailable
    if unavailable:
        names = ", ".join(unavailable[:SHOWN_NAMES]) + (", …" if len(unavailable) > SHOWN_NAMES else "")
        yield "not here", f"{len(unavailable)} modules cannot be imported on this system; their pages say why ({names})"


def _program() -> str:
    """Return the command that calls this program from here."""
    if shutil.which("storeroom"):
        return "storeroom"
    script = Path(sys.executable).with_name("storeroom")
    return _shown(script) if script.exists() else f"{_shown(Path(sys.executable))} -m storeroom"


def _shown(path: Path) -> str:
    """Return the path as a person would write it here."""
    for base, name in ((Path.cwd(), ""), (Path.home(), "~/")):
        if path.is_relative_to(base):
            return name + str(path.relative_to(base))
    return str(path)


def _bytes_on_disk(path: Path) -> int:
    status = path.lstat()
    # LMDB's file may have holes: the room that it occupies counts, in units of 512 bytes (POSIX).
    return status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size
