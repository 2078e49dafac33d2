"""Text for a terminal: colour, columns, paragraphs, sizes; and JSON for a script."""

import os
import sys
import time
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any, Final

__all__ = ["ago", "columns", "count_of", "one_line", "paragraph", "plain", "print_json", "print_text", "size", "styled"]

_STYLES: Final = {"error": "31;1", "warning": "33;1", "good": "32", "strong": "1", "faint": "2"}
"""Name of a style to its parameters in ECMA-48, "SGR"."""

_WIDEST: Final = 88  # longer lines are hard to read, however wide the terminal is
_NARROWEST: Final = 12  # a column that yields has at least so many characters
_STEP: Final = 1024  # from one unit of bytes to the next


def styled(text: str, style: str) -> str:
    """Return the text in this style, if standard output is a terminal that shows it: see https://no-color.org."""
    is_shown = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if is_shown else text


def paragraph(label: str, text: str, *, indent: int = 2, label_width: int = 6) -> str:
    """Return text wrapped beside its label; a word that is too long to break, such as a path, stands out."""
    start = " " * indent + label.ljust(label_width)
    filled: str = import_module("textwrap").fill(
        plain(text),
        min(import_module("shutil").get_terminal_size().columns, _WIDEST),
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filled


def columns(
    rows: Iterable[Sequence[str]], *, right: Sequence[int] = (), indent: int = 2, yields: int | None = None
) -> str:
    """Return rows of cells as aligned lines.

    Args:
        rows: of the same length each.
        right: numbers of the columns that are aligned there.
        indent: spaces before each line.
        yields: the column whose cells lose their beginning on a terminal that is too narrow.
    """
    table = [list(row) for row in rows]
    if yields is not None and table and sys.stdout.isatty():
        _make_fit(table, yields, import_module("shutil").get_terminal_size().columns - indent)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]

    def line(row: Sequence[str]) -> str:
        sides = (str.rjust if number in right else str.ljust for number in range(len(widths)))
        cells = (side(cell, width) for side, cell, width in zip(sides, row, widths, strict=True))
        return f"{' ' * indent}{'  '.join(cells)}".rstrip()

    return "\n".join(map(line, table))


def _make_fit(table: list[list[str]], yields: int, room: int) -> None:
    taken = sum(max(map(len, column)) + 2 for column in zip(*table, strict=True)) - 2
    longest = max(len(row[yields]) for row in table)
    width = max(_NARROWEST, longest - max(0, taken - room))
    for row in table:
        if len(row[yields]) > width:
            row[yields] = f"…{row[yields][1 - width :]}"


def size(size_bytes: float) -> str:
    """Return a size for people, in units of 1024.

    >>> size(999), size(1536), size(5 * 1024**3)
    ('999 bytes', '1.5 KiB', '5.0 GiB')
    """
    if size_bytes < _STEP:
        return f"{size_bytes:.0f} bytes"
    for unit in ("KiB", "MiB", "GiB"):
        size_bytes /= _STEP
        if size_bytes < _STEP:
            return f"{size_bytes:.1f} {unit}"
    return f"{size_bytes / _STEP:.1f} TiB"


def count_of(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun.

    >>> count_of(1, "entry", "entries"), count_of(1200, "error")
    ('1 entry', '1,200 errors')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def ago(used_at: float) -> str:
    """Return how long ago something was, for people.

    >>> ago(time.time() - 7200.0)
    '2 hours ago'
    """
    seconds = max(0.0, time.time() - used_at)
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if (number := int(seconds // length)) > 0:
            return f"{number} {unit}{'' if number == 1 else 's'} ago"
    return "just now"


def plain(text: str) -> str:
    r"""Return a text without characters that make a terminal do something; lines and tabs stay.

    >>> plain("red: \x1b[31m")
    'red: \\x1b[31m'
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    is_shown = character.isprintable() or character in "\n\t"
    return character if is_shown else repr(character)[1:-1]


def one_line(text: str) -> str:
    """Return a text as one line: quoted, as in Python, if it has others, or if the terminal would not show it."""
    is_one = text.isprintable() if sys.stdout.isatty() else len(text.splitlines()) <= 1 and not text.endswith(_ENDS)
    return text if is_one else repr(text)


_ENDS: Final = ("\n", "\r")


def print_text(text: str, *, raw: bool = False) -> None:
    """Print a text as it is, but to a terminal without characters that make it do something, unless it is `raw`."""
    print(plain(text) if sys.stdout.isatty() and not raw else text)


def print_json(value: Any) -> None:
    """Print a value as JSON, with the text of each part that JSON cannot hold."""
    text = import_module("json").dumps(value, ensure_ascii=False, indent=2, default=str)
    if sys.stdout.isatty() and not text.isprintable():  # JSON escapes some of the characters alone
        text = "".join(one if one == "\n" else _json_shown(one) for one in text)
    print(text)


def _json_shown(character: str) -> str:
    return character if character.isprintable() else import_module("json").dumps(character)[1:-1]
