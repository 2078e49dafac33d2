"""Hooks that an asynchronous method runs inline, as they take microseconds; but now and then one would have to wait."""

import sys
from typing import Any, Final

__all__ = ["WouldWaitError", "is_inline"]

_COROUTINE: Final = 0x80  # inspect.CO_COROUTINE; the module is not loaded for it
_PACKAGE: Final = f"{__name__.partition('.')[0]}."
_KIT: Final = f"{_PACKAGE}testing."
_BETWEEN: Final = frozenset({"contextlib", "functools"})
"""Modules whose functions call this package's own in its name."""


class WouldWaitError(Exception):
    """A hook that runs inline would wait, and its event loop stand still: a thread is to do it. Nothing was done."""


def is_inline() -> bool:
    """Tell whether a method of a cache runs this code inline: by the stack, so that nobody else pays for it.

    Code of the program's own that calls a method which waits has asked for it, also where a method runs that code.
    """
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        is_ours = name.startswith(_PACKAGE) and not name.startswith(_KIT)
        if frame.f_code.co_flags & _COROUTINE or not (is_ours or name in _BETWEEN):
            return is_ours
        frame = frame.f_back
    return False
