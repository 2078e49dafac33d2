"""The steps of operations on many entries, in C where that is built (``_compiled.c``), else in Python.

Functions in C take up texts, and frames that need no serializer, and leave everything else to those in Python, which
are their equals. STOREROOM_PURE=1, when this is loaded, switches them off. See docs/decisions/0025-compiled-hits.md.
"""

import math
from collections.abc import Callable, Collection, Sequence
from functools import partial, wraps
from operator import is_
from struct import pack
from typing import Any, Final

from storeroom.late import compiled_module

__all__ = [
    "IS_COMPILED", "encoded", "extent", "frames_of", "has_kind", "left_of", "live_headers", "named", "picked", "raw",
    "renamed", "renewals", "values_of",
]  # fmt: skip

_TEXT: Final = b"\x02"  # as in serializers.frames
_TIME_BYTES, _SLOT_AT, _FRAME_AT = 8, 16, 20  # of records: see backends.filebased.records
_BEHIND_NEVER: Final = b"\x7f\xf0\x00\x00\x00\x00\x00\x01"  # infinity's bytes, and one more

_module: Final = compiled_module("storeroom.storage._compiled")

IS_COMPILED: Final = _module is not None
raw: Final[Callable[[bytes, int], bytes]] = getattr(_module, "raw", lambda data, _: data)
"""Returns bytes as they are, whatever their flags say."""


def _in_c(function: Callable[..., Any], name: str = "") -> Callable[..., Any]:
    """Let the function in C of that name go first, where there is one; it returns None for what it leaves to Python."""
    compiled: Any = getattr(_module, name or function.__name__, None)

    @wraps(function)
    def both(*args: Any) -> Any:
        return function(*args) if (made := compiled(*args)) is None else made

    return function if compiled is None else both


named: Final = _in_c(lambda head, keys: {f"{head}{key}": key for key in keys}, "named")
"""Returns storage key to key: each has the head before it."""

renamed: Final = _in_c(lambda typed, values: {typed[key]: value for key, value in values.items()}, "renamed")
"""Returns the values, which have storage keys, by the keys that callers typed."""

picked: Final = _in_c(lambda typed, data: {storage_key: data[key] for storage_key, key in typed.items()}, "picked")
"""Returns the values of `data`, which has the keys that callers typed, by storage key."""

has_kind: Final = _in_c(lambda values, kind: any(map(partial(is_, kind), map(type, values.values()))), "has_kind")
"""Tells whether one of the values is of that very class, by identity: a class of a class may compare in any way."""

extent: Final = _in_c(
    lambda keys: (min(keys), max(keys)) if keys and all(map(partial(is_, str), map(type, keys))) else None, "extent"
)
"""Returns the first and the last of texts, in their order; None if one is of another class, or there are none."""


@_in_c
def encoded(head: str, names: Collection[str], longest: int, has_words: bool) -> list[bytes] | None:
    """Return names in UTF-8, each behind a head in ASCII; None if one takes more bytes, or holds a NUL or a surrogate.

    Unless it `has_words`, also if one holds a space, a "#", or anything but printable ASCII.
    """
    text = "".join(names)
    is_word = has_words or (text.isascii() and text.isprintable() and " " not in text and "#" not in text)
    if "\x00" in text or not is_word:
        return None
    try:
        made = (head + f"\x00{head}".join(names)).encode().split(b"\x00") if names else []
    except UnicodeEncodeError:
        return None
    return made if max(map(len, made), default=0) <= len(head) + longest else None


values_of: Final = _in_c(
    lambda *terms: ({}, left_of(*terms[:4]) if terms[4] is None else range(len(terms[0]))), "values_of"
)
"""Returns the values by key of frames that need no serializer, and the records left: see left_of(). In Python, all are.

In C, those that are left have None among the values, lest others change their turn. With a fifth term, the counts of
reads of a file cache's slots, it returns the numbers of those that are left, of absent ones, too."""


def left_of(
    keys: Sequence[str], records: Sequence[Any], start: int, live: tuple[bytes, bytes] | None
) -> dict[str, Any]:
    """Return records by key, with so many bytes before each frame, but absent ones and, by `live`, those expired."""
    left = {key: record for key, record in zip(keys, records, strict=True) if record is not None}
    if live is None:
        return left
    return {key: data for key, data in left.items() if live[0] <= data < live[1] or len(data) < start}


def live_headers(now: float) -> tuple[bytes, bytes]:
    """Return the first time of a record that is live at a moment, and one behind the last, as records begin with.

    The bytes of numbers above zero sort as the numbers do. Those below, and no number, NaN, come behind infinity.
    """
    return pack(">d", math.nextafter(now, math.inf)), _BEHIND_NEVER


frames_of: Final = _in_c(
    lambda values, shortest: [
        _TEXT + value.encode() if type(value) is str and len(value) + 1 < shortest and value.isascii() else None
        for value in values.values()
    ],
    "frames_of",
)
"""Returns the frames, shorter than that, of values that need no serializer; None for others: in Python, for most."""


@_in_c
def renewals(
    keys: Sequence[bytes], frames: Sequence[bytes], olds: Sequence[bytes | None], head: bytes, doubtful: bytes
) -> tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]:
    """Return a file cache's entries that overwrite a record and leave its slot as it is, and the others.

    The former come with their records, of which `head` is what stands before the slot, the latter with their frames.
    An old record has their size and expires no later, and no first byte of a frame or a key is `doubtful`.
    """
    renewed, others, time = list[tuple[bytes, bytes]](), list[tuple[bytes, bytes]](), head[:_TIME_BYTES]
    for key, frame, old in zip(keys, frames, olds, strict=True):
        if (
            old is not None
            and len(old) == _FRAME_AT + len(frame)
            and old[:_TIME_BYTES] <= time  # big-endian, so as the numbers
            and not (doubtful[old[_FRAME_AT]] or doubtful[frame[0]] or doubtful[key[0]])
        ):
            renewed.append((key, head + old[_SLOT_AT:_FRAME_AT] + frame))
        else:
            others.append((key, frame))
    return renewed, others
