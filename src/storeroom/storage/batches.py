"""The steps of operations on many entries, in C where that is built (``_compiled.c``), else in Python.

Functions in C take up texts, and frames that need no serializer, and leave everything else to those in Python, which
are their equals. STOREROOM_PURE=1, when this is loaded, switches them off. See docs/decisions/0025-compiled-hits.md.
"""

import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial, wraps
from importlib import import_module
from operator import is_
from struct import pack
from typing import Any, Final, TypeVar

__all__ = [
    "IS_COMPILED", "encoded", "extent", "frames_of", "has_kind", "left_of", "live_headers", "named", "picked", "raw",
    "renamed", "renewals", "values_of",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_TEXT: Final = b"\x02"  # as in serializers.frames
_TIME_BYTES, _SLOT_AT, _FRAME_AT = 8, 16, 20  # of records: see backends.filebased.records
_BEHIND_NEVER: Final = b"\x7f\xf0\x00\x00\x00\x00\x00\x01"  # infinity's bytes, and one more
_is_text: Final = partial(is_, str)  # by identity, as a class of a class may compare in any way

_module: Any = None
with suppress(ModuleNotFoundError):  # it was not built; one that is broken is an error
    if os.environ.get("STOREROOM_PURE", "0") in {"", "0"}:
        _module = import_module("storeroom.storage._compiled")

IS_COMPILED: Final = _module is not None
"""Whether the functions in C are used."""

raw: Callable[[bytes, int], bytes] = getattr(_module, "raw", lambda data, _: data)
"""Returns bytes as they are, whatever their flags say."""


def _in_c(function: F) -> F:
    """Let the function in C of that name go first, where there is one; it returns None for what it leaves to Python."""
    compiled: Any = getattr(_module, function.__name__, None)

    @wraps(function)
    def both(*args: Any) -> Any:
        return function(*args) if (made := compiled(*args)) is None else made

    first: F = function if compiled is None else both  # type: ignore[assignment]
    return first


@_in_c
def named(head: str, keys: Iterable[T]) -> dict[str, T]:
    """Return storage key to key: each has the head before it."""
    return {f"{head}{key}": key for key in keys}


@_in_c
def renamed(typed: Mapping[str, T], values: Mapping[str, Any]) -> dict[T, Any]:
    """Return the values, which have storage keys, by the keys that callers typed."""
    return {typed[storage_key]: value for storage_key, value in values.items()}


@_in_c
def picked(typed: Mapping[str, T], data: Mapping[T, Any]) -> dict[str, Any]:
    """Return the values, which have the keys that callers typed, by storage key."""
    return {storage_key: data[key] for storage_key, key in typed.items()}


@_in_c
def extent(keys: Collection[Any]) -> tuple[str, str] | None:
    """Return the first and the last of texts, in their order; None if one is of another class, or there are none."""
    return (min(keys), max(keys)) if keys and all(map(_is_text, map(type, keys))) else None


@_in_c
def has_kind(values: Mapping[str, Any], kind: type) -> bool:
    """Tell whether one of the values is of that very class."""
    return any(map(partial(is_, kind), map(type, values.values())))


@_in_c
def encoded(head: str, names: Collection[str], longest: int, has_words: bool) -> list[bytes] | None:
    r"""Return names in UTF-8, each behind a head in ASCII.

    Return None if one of them takes more bytes than `longest`, holds a NUL or a lone surrogate, or, unless it
    `has_words`, anything but printable ASCII, or a space or a "#".

    >>> encoded("e", ["shop:1:user", "shop:1:\u00e9"], 99, True), encoded("", ["\x00lock\x00door"], 99, True)
    ([b'eshop:1:user', b'eshop:1:\xc3\xa9'], None)
    """
    text = "".join(names)
    if "\x00" in text or not (has_words or (text.isascii() and text.isprintable() and not {" ", "#"} & {*text})):
        return None
    try:
        made = (head + f"\x00{head}".join(names)).encode().split(b"\x00") if names else []
    except UnicodeEncodeError:
        return None
    return made if max(map(len, made), default=0) <= len(head) + longest else None


@_in_c
def values_of(
    keys: Sequence[str], records: Sequence[Any], start: int, live: tuple[bytes, bytes] | None, hits: Any
) -> tuple[dict[str, Any], Any]:
    """Return the values by key of frames that need no serializer, and the records left: here, all. See left_of().

    In C, those that are left have None among the values, lest others change their turn. With `hits`, where the slots of
    a file cache count reads, their numbers are returned, those of absent ones among them.
    """
    return {}, left_of(keys, records, start, live) if hits is None else range(len(keys))


def left_of(
    keys: Sequence[str], records: Sequence[Any], start: int, live: tuple[bytes, bytes] | None
) -> dict[str, Any]:
    """Return records by key, with so many bytes before each frame, but absent ones and, by `live`, those expired."""
    left = {key: record for key, record in zip(keys, records, strict=True) if record is not None}
    if live is None:
        return left
    first, behind = live
    return {key: data for key, data in left.items() if first <= data < behind or len(data) < start}


def live_headers(now: float) -> tuple[bytes, bytes]:
    """Return the first time of a record that is live at a moment, and one behind the last, as records begin with.

    The bytes of numbers above zero sort as the numbers do. Those below have a higher first byte, and no number, NaN,
    comes behind infinity: neither is live.

    >>> first, behind = live_headers(5.0)
    >>> [first <= pack(">d", until) < behind for until in (4.0, 5.0, 6.0, math.inf, -1.0, math.nan)]
    [False, False, True, True, False, False]
    """
    return pack(">d", math.nextafter(now, math.inf)), _BEHIND_NEVER


@_in_c
def frames_of(values: Mapping[str, Any], shortest: int) -> list[bytes | None]:
    """Return the frames, shorter than that, of values that need no serializer; None for others: in Python, few."""
    return [
        _TEXT + value.encode() if type(value) is str and len(value) + 1 < shortest and value.isascii() else None
        for value in values.values()
    ]


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
