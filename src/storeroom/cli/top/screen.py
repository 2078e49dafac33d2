"""The terminal: drawn on by curses, as long as it is there."""

import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from types import FrameType
from typing import Any, Final, NoReturn

from storeroom.cli.exits import NO_READER, YES
from storeroom.cli.top.view import FAINT, HEAD, SELECTED, STRONG, Line, View

__all__ = ["can_draw", "live"]

_WAIT_SECONDS: Final = 0.2
"""For how long a key is waited for, before the terminal is looked at again."""

_ESCAPE_MILLISECONDS: Final = 25
"""For how long Esc waits for the rest of a key's own sequence."""

_CHARACTERS: Final = {
    "\n": "enter",
    "\r": "enter",
    "\x1b": "escape",
    "\x7f": "backspace",
    "\b": "backspace",
}


def can_draw() -> bool:
    """Tell whether standard input and output are a terminal that can be drawn on."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        curses: Any = import_module("curses")
    except ImportError:  # Windows
        return False
    try:
        curses.setupterm()
    except curses.error:  # TERM names none that is known
        return False
    return bool(curses.tigetstr("cup"))


def live(view: View, tick: Callable[[], None], seconds: float) -> int:
    """Show the view until somebody leaves it; return the exit code.

    Args:
        view: the picture.
        tick: called before each drawing that is due, to update the view.
        seconds: between two of these.
    """
    curses: Any = import_module("curses")
    before = signal.signal(signal.SIGTERM, _end)
    try:
        curses.set_escdelay(_ESCAPE_MILLISECONDS)
        code: int = curses.wrapper(_Screen(view, tick, seconds).run)
    except curses.error:
        if not _is_lost():
            raise
        return NO_READER  # nor can it be given back
    finally:
        signal.signal(signal.SIGTERM, before)
    return code


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """End by way of the clean-up, which gives the terminal back as it was."""
    raise SystemExit(128 + number)


class _Screen:
    def __init__(self, view: View, tick: Callable[[], None], seconds: float) -> None:
        self._view, self._tick, self._seconds = view, tick, seconds
        self._curses: Any = import_module("curses")

    def run(self, window: Any) -> int:
        curses = self._curses
        try:
            curses.curs_set(0)
        except curses.error:  # it cannot be hidden
            window.leaveok(True)
        styles = {STRONG: curses.A_BOLD, FAINT: curses.A_DIM, HEAD: curses.A_UNDERLINE, SELECTED: curses.A_REVERSE}
        window.timeout(int(_WAIT_SECONDS * 1000))
        due = 0.0
        while not self._view.is_over:
            if (now := time.monotonic()) >= due:
                self._tick()
                due = now + self._seconds
            height, width = window.getmaxyx()
            self._draw(window, self._view.lines(width - 1, height), styles)
            try:
                key = window.get_wch()
            except curses.error:  # none came
                if _is_lost():
                    return NO_READER
                continue
            self._view.press(self._name(key))
        return YES

    def _draw(self, window: Any, lines: Sequence[Line], styles: dict[str, int]) -> None:
        window.erase()
        for number, line in enumerate(lines):
            try:
                window.addstr(number, 0, line.text, styles.get(line.style, 0))
            except self._curses.error:  # it has become smaller meanwhile: the next key is the news of it
                return
            except UnicodeEncodeError:
                window.addstr(number, 0, line.text.encode("ascii", "replace"), styles.get(line.style, 0))
        window.refresh()

    def _name(self, key: str | int) -> str:
        curses = self._curses
        if isinstance(key, str):
            return _CHARACTERS.get(key, key)
        names = {
            curses.KEY_UP: "up",
            curses.KEY_DOWN: "down",
            curses.KEY_LEFT: "left",
            curses.KEY_RIGHT: "right",
            curses.KEY_PPAGE: "page up",
            curses.KEY_NPAGE: "page down",
            curses.KEY_HOME: "home",
            curses.KEY_END: "end",
            curses.KEY_ENTER: "enter",
            curses.KEY_BACKSPACE: "backspace",
        }
        return names.get(key, "")


def _is_lost() -> bool:
    """Tell whether the terminal has gone: a read of it returns at once then, again and again."""
    poll = select.poll()
    poll.register(sys.stdin.fileno(), select.POLLIN)
    return any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))
