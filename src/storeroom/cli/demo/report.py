"""The words of the demo: before, after, and when it is interrupted."""

import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from storeroom.cli.demo.pages import KEY_PREFIX
from storeroom.cli.demo.passes import Pass, agree
from storeroom.cli.output import columns, paragraph, size, styled

__all__ = ["print_interruption", "print_opening", "print_report"]

SHOWN_NAMES: Final = 4  # of modules, where there may be many


def print_opening(count: int, directory: Path) -> None:
    """Announce the passes."""
    python = ".".join(map(str, sys.version_info[:3]))
    print(f"The documentation of {count} modules of Python {python}, each page rendered by pydoc")
    print(f"and kept in a file cache: {_shown(directory)}\n")


def print_interruption(stored: int, count: int, given_directory: Path | None) -> None:
    """Tell what is left after Ctrl-C, and the way to go on."""
    again = f"{_program()} demo --keep"
    if given_directory is not None:
        again += f" --directory {shlex.quote(str(given_directory))}"
    print(f"\n\nInterrupted, and nothing is broken: a fresh process found {stored} of {count} pages, all whole.")
    print(f"Go on from there with: {again}")


def print_report(passes: Sequence[Pass], directory: Path) -> None:
    """Print the table, remarks on it, and commands to try next."""
    print("\n" + columns(_table(passes), right=range(1, 6)) + "\n")
    for label, text in _remarks(passes, directory):
        print(paragraph(label, text, label_width=16))
    print("\nNext:")
    program = _program()
    url = f"'file://{quote(str(directory))}?key_prefix={KEY_PREFIX}'"
    for command, meaning in (
        (f"keys json --config {url}", "list the pages of one package, in the cache that the demo has left"),
        ("check", "see which cache your own program would get, and what is risky about it"),
        ("bench", "time that cache on this machine"),
    ):
        print(f"  {styled(f'{program} {command}', 'strong')}\n      {meaning}")


def _table(passes: Sequence[Pass]) -> Iterator[Sequence[str]]:
    yield "", "pages", "seconds", "computations", "hits", "time saved"
    for each in passes:
        counts = (f"{each.pages:,}", f"{each.seconds:.3f}", f"{each.computations:,}", f"{each.hits:,}")
        yield each.name, *counts, f"{each.seconds_saved:.1f} s"


def _remarks(passes: Sequence[Pass], directory: Path) -> Iterator[tuple[str, str]]:
    yield "size on disk", size(sum(_bytes_on_disk(path) for path in directory.rglob("*")))
    yield "time saved", "what rendering the hits took, when somebody did it"
    slowest, renderings = passes[-1].tallies[0].slowest, passes[-1].computations
    yield "one cold page", f"8 processes wanted {slowest} at the same moment; {renderings} of them rendered it"
    if agree(passes):
        yield "same pages", "every process read the same, to the last character"
    else:
        yield "DEFECT", "processes read different pages, which must not happen; please report it"
    unavailable = passes[0].tallies[0].unavailable
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
