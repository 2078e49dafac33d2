"""Pictures of the command line: what commands print on a terminal, as a page that a browser takes a picture of."""

import html
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

import pyte

__all__ = ["SHOWN", "page_of"]

COLUMNS: Final = 92

#: The name in docs/pictures -> the commands that it shows, in a folder with caches.toml.
SHOWN: Final = {
    "command-line-check.png": ["storeroom check --processes 4"],
    "command-line-look.png": [
        "storeroom set greeting hello --timeout 1h",
        "storeroom get greeting",
        "storeroom why farewell",
        "storeroom stats",
    ],
}

CACHES: Final = """[caches.default]
BACKEND = "storeroom.backends.filebased.FileBasedCache"
LOCATION = "cache"
TIMEOUT = "10m"
OPTIONS = { max_entries = 100_000, max_bytes = "1GB" }

[caches.memory]
BACKEND = "storeroom.backends.locmem.LocMemCache"
OPTIONS = { max_entries = 10_000 }
"""

_COLOURS: Final = {"red": "#ff7b72", "green": "#7ee787", "brown": "#e3b341", "yellow": "#e3b341", "blue": "#79c0ff",
                   "magenta": "#d2a8ff", "cyan": "#76e3ea"}  # fmt: skip

_PAGE: Final = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; background: #16181d; }}
pre {{ margin: 0; padding: 18px 22px; width: max-content; color: #d6d9e0; }}
pre {{ font: 14px/1.35 "DejaVu Sans Mono", monospace; }}
</style><pre>{text}</pre>"""


def _printed(command: str, folder: Path) -> bytes:
    """Return the bytes that a command writes to a terminal."""
    ours, theirs = os.openpty()
    environment = os.environ | {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color", "STOREROOM_CONFIG": "caches.toml"}
    words = [sys.executable, "-m", *command.split()]
    with subprocess.Popen(words, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs):
        os.close(theirs)
        found = b""
        try:
            while piece := os.read(ours, 65_536):
                found += piece
        except OSError:  # the end, as Linux tells it of a terminal
            return found
        finally:
            os.close(ours)
    return found


def _styled(line: Sequence[pyte.screens.Char]) -> Iterator[str]:
    for (colour, is_bold), characters in groupby(line, key=lambda char: (char.fg, char.bold)):
        text = html.escape("".join(char.data for char in characters))
        style = f"color: {_COLOURS[colour]};" if colour in _COLOURS else ""
        style += "font-weight: bold;" if is_bold else ""
        yield f'<span style="{style}">{text}</span>' if style else text


def page_of(commands: Sequence[str], folder: Path) -> str:
    """Return a page with the commands and what they print, in a folder that gets a configuration."""
    (folder / "caches.toml").write_text(CACHES, "utf-8")
    screen = pyte.Screen(COLUMNS, 80)
    stream = pyte.ByteStream(screen)
    for command in commands:
        stream.feed(f"\x1b[1m$ {command}\x1b[0m\r\n".encode())
        stream.feed(_printed(command, folder))
    lines = [
        "".join(_styled([screen.buffer[row][column] for column in range(COLUMNS)])) for row in range(screen.cursor.y)
    ]
    return _PAGE.format(text="\n".join(line.rstrip() for line in lines))
