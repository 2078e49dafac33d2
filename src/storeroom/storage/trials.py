"""Classes whose instances can be pickled, and not unpickled.

An exception whose constructor takes other arguments than its ``args`` is the common one. The first value in which a
class stands is read back when it is stored, so that its author learns of it there. A value that turns out when it is
read, as its class has changed or is missing, is a miss, which the log tells of once.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

from storeroom.exceptions import SerializationError
from storeroom.late import logger_of
from storeroom.storage.interruptions import raise_if_foreign

__all__ = ["Trial", "names_in", "note_unreadable"]

_log = logger_of("storeroom")

_MOST: Final = 5000
"""Names that are remembered. More are made on the way, or made up, and the first ones are tried again."""

_NAME_ENDS: Final = b"\x94\x93"
"""MEMOIZE and STACK_GLOBAL: a class or a function has been named for the first time."""

_TEXT: Final = b"\x8c"
"""SHORT_BINUNICODE, before a text's length in one byte, and the text."""

_FRAME: Final = 0x95

_LENGTHS: Final = {_FRAME: 8, 0x8C: 1, 0x8A: 1, ord("C"): 1, ord("X"): 4, ord("B"): 4, 0x8D: 8, 0x8E: 8, 0x96: 8}
"""Codes that a length follows, of so many bytes, and then as many bytes as it says: frames, texts, bytes, integers."""

_ARGUMENTS: Final = {ord("K"): 1, ord("M"): 2, ord("h"): 1, 0x82: 1, 0x83: 2}
"""Codes with an argument that are short enough to stand outside a frame."""

_WITHIN_FRAMES: Final = 2**16
"""Bytes of a text from which on it stands between the frames of a pickle, and so is no part of any (PEP 3154)."""

_UNFRAMED: Final = 8
"""More codes on end than pickle leaves outside a frame: it makes one from four bytes on."""


def names_in(pickle: bytes) -> set[str]:
    """Return the classes and functions that a pickle names; one whose module was named before goes without it.

    Cost: a search for one byte, where there is none, as in most plain data. Else a slower search of all but those texts
    and bytes that have 64 KiB or more each.
    """
    names: set[str] = set()
    if _NAME_ENDS[1:] not in pickle:  # a search for one byte is ten times as fast
        return names
    for first, last in _frames(pickle) if len(pickle) > _WITHIN_FRAMES else ((0, len(pickle)),):
        end = pickle.find(_NAME_ENDS, first, last)
        while end >= 0:
            start = _start(pickle, end)
            if start >= 0:
                module = _start(pickle, start - 1) if pickle[start - 1 : start] == _NAME_ENDS[:1] else -1
                path = [pickle[module + 2 : start - 1]] if module >= 0 else []
                names.add(b".".join([*path, pickle[start + 2 : end]]).decode("utf-8", "replace"))
            end = pickle.find(_NAME_ENDS, end + 1, last)
    return names


def _frames(pickle: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and end of each frame; of bytes that pickle does not make, the whole."""
    at, unframed = 2, 0
    while at < len(pickle):
        code, at = pickle[at], at + 1
        if size := _LENGTHS.get(code, 0):
            start = at + size
            at, unframed = start + int.from_bytes(pickle[at:start], "little"), 0
            if code == _FRAME:
                yield start, at
        elif unframed < _UNFRAMED:
            at, unframed = at + _ARGUMENTS.get(code, 0), unframed + 1
        else:
            yield 0, len(pickle)
            return


def _start(pickle: bytes, end: int) -> int:
    """Return where the short text begins that ends there; -1 if there is none, as within a text that looks alike."""
    start = pickle.rfind(_TEXT, max(0, end - 257), end)
    return start if start >= 0 and pickle[start + 1] == end - start - 2 else -1


class Trial:
    """Reads the first value of each class back."""

    def __init__(self, loads: Callable[[bytes], Any]) -> None:
        self._loads, self._passed = loads, set[str]()

    def check(self, pickle: bytes, names: Collection[str], loads: Callable[[bytes], Any] | None = None) -> None:
        """Raise SerializationError if a pickle with these names in it, one of them new, cannot be read, by `loads`."""
        new, loads = set(names).difference(self._passed), loads or self._loads
        if not new:
            return
        try:
            loads(pickle)
        except Exception as error:
            raise_if_foreign(error, loads, pickle)
            raise SerializationError(
                f"A value can be pickled, and cannot be read back ({type(error).__name__}). It holds "
                f"{', '.join(sorted(new))}. Give the class a __reduce__() with the arguments that make it (an "
                "exception is made anew from its args), or cache the data in it rather than the object."
            ) from error
        if len(self._passed) >= _MOST:
            self._passed.clear()
        self._passed.update(new)


_noted: Final = set[tuple[type, frozenset[str]]]()


def note_unreadable(names: Collection[str], error: Exception) -> None:
    """Log, the first time, that a value with these classes in it cannot be read. The error's text may hold values."""
    kind = type(error), frozenset(names)
    if kind not in _noted and len(_noted) < _MOST:
        _noted.add(kind)
        _log.warning(
            "A stored value cannot be unpickled (%s), and counts as absent: this is logged once for each error and set "
            "of names. It holds %s. Has the class changed, or is it another one where the value was stored?",
            type(error).__name__,
            ", ".join(sorted(names)) or "plain data: the bytes are damaged",
        )
