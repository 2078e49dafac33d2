"""The opcodes that a pickle of plain data may have, and their lengths.

Opcodes: https://github.com/python/cpython/blob/main/Lib/pickletools.py
"""

import pickle
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

from storeroom.serializers.frames import PICKLE_PROTOCOL

__all__ = [
    "FRAME", "HARMLESS_BYTES", "HEADER", "LENGTH_BYTES", "LONG_NUMBERS", "STOP", "allowed_begin", "check_opcodes",
    "find_made", "framed", "is_short", "match_key", "match_token", "skip_called", "skip_keyed", "skip_tokens",
    "skip_unasking", "skip_unasking_numbers", "skip_unhashed", "spans", "unframed",
]  # fmt: skip

_LONGEST_SHORT: Final = 64
"""Shorter texts are skipped within the expression, others by the loop around it."""


def _short(shortest: int = 0, longest: int = _LONGEST_SHORT - 1) -> bytes:
    return b"(?:%b)" % b"|".join(b"\\x%02x.{%d}" % (length, length) for length in range(shortest, longest + 1))


_SHORT: Final = _short()

FRAME: Final = 0x95
"""Begins a frame; its length follows in eight bytes."""

# Greedy and bounded: unbounded, the matcher would remember every step of a long stream;
# possessive, it would be wrong before Python 3.11.5 (cpython issue 106052).
_OPCODES: Final = (
    rb"(?:"
    rb"\x8c" + _SHORT + rb"\x94"  # SHORT_BINUNICODE MEMOIZE: first, being most of most values
    # NONE NEWTRUE NEWFALSE, EMPTY_LIST APPEND APPENDS, EMPTY_TUPLE TUPLE TUPLE1-3, EMPTY_DICT SETITEM SETITEMS,
    # EMPTY_SET ADDITEMS FROZENSET, MARK POP POP_MARK, MEMOIZE, STACK_GLOBAL REDUCE
    rb"|[N\x88\x89\]ae)t\x85-\x87}su\x8f\x90\x91(01\x94\x93R]+"
    rb"|[Kh]."  # BININT1 BINGET
    rb"|M.."  # BININT2
    rb"|[Jj].{4}"  # BININT LONG_BINGET
    rb"|[G\x95].{8}"  # BINFLOAT FRAME
    rb"|[\x8cC\x8a]" + _SHORT +  # SHORT_BINUNICODE SHORT_BINBYTES LONG1
    rb"){0,1000}"
)  # fmt: skip
skip_opcodes: Final = re.compile(_OPCODES, re.DOTALL).match


def _unasking(longest_number: int) -> Callable[..., Any]:
    return re.compile(
        rb"(?:"
        rb"\x8c" + _SHORT + rb"\x94"
        rb"|[N\x88\x89\]ae)t\x85-\x87}\x8f01(\x94\x93R]+"
        rb"|[Kh].|M..|[Jj].{4}|G.{8}"
        rb"|[\x8cC]" + _SHORT +
        rb"|\x8a" + _short(longest=longest_number) +
        rb"){0,1000}",
        re.DOTALL,
    ).match  # fmt: skip


skip_unasking: Final = _unasking(8)
"""Matches all of them but those that hash, FRAME, and long ones, integers of more than 64 bits among them."""

skip_unasking_numbers: Final = _unasking(_LONGEST_SHORT - 1)
"""Matches integers of up to 63 bytes, too."""

skip_unhashed: Final = re.compile(
    rb"(?:"
    rb"\x8c" + _SHORT + rb"\x94"
    rb"|[N\x88\x89\]ae)t\x85-\x87(\x94\x93R]+"  # no dict, no set: nothing is hashed
    rb"|[Kh].|M..|[Jj].{4}|[G\x95].{8}"
    rb"|[\x8cC\x8a]" + _SHORT +
    rb"){0,1000}",
    re.DOTALL,
).match  # fmt: skip
"""Matches opcodes of texts, numbers, lists and tuples, and calls of constructors."""

skip_called: Final = re.compile(
    rb"(?:"
    rb"\x8c" + _SHORT + rb"\x94"
    rb"|[N\x88\x89\]ae)}su\x8f\x90(\x94\x93R]+"
    rb"|[Kh]."
    rb"|[t\x85-\x87]\x94?R"  # a tuple only as the arguments of a constructor, which takes none that nests
    rb"|M..|[Jj].{4}|[G\x95].{8}"
    rb"|[\x8cC\x8a]" + _SHORT +
    rb"){0,1000}",
    re.DOTALL,
).match  # fmt: skip
"""Matches opcodes of texts, numbers, lists, dicts and sets, and calls of constructors."""

_TEXT: Final = rb"\x8c" + _SHORT + rb"\x94?"
_UNNAMED: Final = rb"(?!\x94?\x8c" + _short(1, 20) + rb"\x94?\x93)"
_NUMBER: Final = rb"K.|[N\x88\x89)]|M.."


_SIMPLE: Final = rb"G.{8}|J.{4}|\x8a" + _SHORT + rb"|j.{4}"
_ARGUMENT: Final = rb"(?:" + _NUMBER + rb"|h.|[\x8cC]" + _SHORT + rb"\x94?|" + _SIMPLE + rb")"
_TUPLE: Final = (
    rb"(?:\(" + _ARGUMENT + rb"{0,12}t|"
    + _ARGUMENT + rb"(?:\x85|" + _ARGUMENT + rb"(?:\x86|" + _ARGUMENT + rb"\x87))|\))\x94?"
)  # fmt: skip
_SPELLED: Final = rb"\x8c" + _SHORT + _UNNAMED + rb"\x94?"
_MEMBER: Final = (
    _NUMBER + rb"|" + _SPELLED + rb"|h.(?:" + _TUPLE + rb"R\x94?|" + _UNNAMED + rb")|" + _SIMPLE
    + rb"|C" + _SHORT + rb"\x94?"
)  # fmt: skip
_VALUE: Final = rb"(?:" + _NUMBER + rb"|[\x8cC]" + _SHORT + rb"\x94?|G.{8}|J.{4}|\x8a" + _SHORT + rb")"
_FLAT: Final = (
    rb"(?:\(" + _VALUE + rb"{0,12}t|"
    + _VALUE + rb"(?:\x85|" + _VALUE + rb"(?:\x86|" + _VALUE + rb"\x87)))\x94?(?!R)"
)  # fmt: skip
_TEXT_KEY: Final = rb"h.|" + _TEXT
_KEY: Final = _TEXT_KEY + rb"|K.|M..|J.{4}|G.{8}|\x8a" + _short(0, 8)


@cache  # compiled when the first value of more than a few hundred bytes is read: it takes some 20 ms
def skip_keyed(*, numbers: bool, tuples: bool) -> Callable[..., Any]:
    """Match a table or a document whose keys are all texts, as long as no reference leads to something else.

    With `numbers`, its keys may be numbers of up to 64 bits as well; with `tuples`, values may be tuples of texts and
    numbers, which no longer shows what references lead to.

    It matches a key with its value, or what may come before a key: the end of a value, or the begin of a container.
    Other members than texts lie in a list that ends where it began, or behind a key; so no other thing becomes a key.
    Two ways to match the same would all be tried where the end is missing; there are none.
    """
    key = rb"(?:" + (_KEY if numbers else _TEXT_KEY) + rb")"
    simple = rb"(?:" + _SPELLED + rb"|" + _NUMBER + rb"|h.|" + _SIMPLE + rb"|C" + _SHORT + rb"\x94?)"
    return re.compile(
        rb"(?:" + key + rb"(?:" + (_FLAT + rb"|" if tuples else b"") + _MEMBER + rb"|\}\x94?\(?|(?=[\]\x8fea]))"
        rb"|[ueas]+"
        rb"|\}\x94?\(?"
        rb"|\]\x94?(?:\(" + simple + rb"{1,1000}e|" + simple + rb"a|)"
        rb"|\((?:(?:" + _MEMBER + rb"){1,1000}e|)"
        rb"|\x8f\x94?(?:\(" + key + rb"{1,1000}\x90|)"
        rb"){0,100}",
        re.DOTALL,
    ).match  # fmt: skip


match_key: Final = re.compile(_KEY, re.DOTALL).match
"""Matches a key that is a text, a number of up to 64 bits, or a reference."""

_ATOM: Final = rb"[\x8cC\x8a]" + _SHORT + rb"|[N\x88\x89)]|[Kh].|M..|[Jj].{4}|G.{8}"
"""Pattern of an opcode that puts one object on the stack, and takes none."""

match_token: Final = re.compile(rb"(?:" + _ATOM + rb"|([(t\x85-\x87\x93R]))\x94?", re.DOTALL).match
"""Matches an opcode of a call; those that take objects are its group."""

_MADE: Final = rb"(?:[\]}\x8f\x91t\x85-\x87R]\x94?){1,20}"
"""Pattern of opcodes in a row that make containers, or call: bombs have many. A longer match takes memory."""

_REST: Final = rb"[aesu\x90(01\x94\x93]|\x95.{8}"

skip_tokens: Final = re.compile(
    rb"(?:(?:" + _ATOM + rb"|" + _MADE + rb"|" + _REST + rb")\x94?){0,1000}", re.DOTALL
).match
"""Matches as many opcodes, or rows of them, as a list of them should have at a time."""

find_made: Final = re.compile(rb"(?:" + _ATOM + rb"|(" + _MADE + rb")|" + _REST + rb")\x94?", re.DOTALL).findall
"""Finds b"" for each opcode that makes one object, or none, and rows of those that make containers, or MEMOIZE."""

LENGTH_BYTES: Final = {
    0x8C: 1,  # SHORT_BINUNICODE
    0x43: 1,  # SHORT_BINBYTES
    0x8A: 1,  # LONG1
    0x58: 4,  # BINUNICODE
    0x42: 4,  # BINBYTES
    0x8B: 4,  # LONG4
    0x8D: 8,  # BINUNICODE8
    0x8E: 8,  # BINBYTES8
    0x96: 8,  # BYTEARRAY8
}
"""The number of bytes behind an opcode that tell the length of its argument, which follows them."""

LONG_NUMBERS: Final = frozenset({0x8A, 0x8B})
"""Those of them that begin integers, LONG1 and LONG4."""

HEADER: Final = bytes((0x80, PICKLE_PROTOCOL))
STOP: Final = b"."

HARMLESS_BYTES: Final = 64
"""The same tuple three times in each takes six bytes of a pickle, so that as many bytes unfold to 60,000 at most."""

allowed_begin: Final = re.compile(re.escape(HEADER) + _OPCODES, re.DOTALL).match
"""Matches up to the first opcode that is not allowed, or long. It matches no end, so that nothing is tried twice."""


def framed(stream: bytes) -> bytes:
    """Return a stream with one frame around it, as an unpickler takes each opcode by a call of its own without."""
    return b"%b%c%b%b%b" % (HEADER, FRAME, (len(stream) + 1).to_bytes(8, "little"), stream, STOP)


def is_short(length: int) -> bool:
    """Tell whether a text of this length lies in what the expressions here match."""
    return length < _LONGEST_SHORT


def unframed(stream: bytes) -> bytes:
    """Return the opcodes of a stream, without the headers of frames if these lie as a pickler has put them."""
    parts = []
    start = position = len(HEADER)
    while stream[position : position + 1] == b"\x95":
        parts.append(stream[start:position])
        start = position + 9
        position = start + int.from_bytes(stream[position + 1 : start], "little")
    return b"".join((*parts, stream[start : -len(STOP)]))


def check_opcodes(stream: bytes) -> None:
    """Raise UnpicklingError for a stream that has any other opcode, is truncated, or goes on after its end."""
    for _ in spans(stream):
        pass


def spans(stream: bytes, skip: Callable[..., Any] = skip_opcodes) -> Iterator[tuple[int, int, bool]]:
    """Yield where spans of opcodes begin and end, and whether one is a single long text or number.

    Raises:
        UnpicklingError: an opcode is none of those that `skip` matches, or its argument is cut short.
    """
    if not stream.startswith(HEADER):
        raise pickle.UnpicklingError(f"not a pickle of protocol {PICKLE_PROTOCOL}")
    position, last = len(HEADER), len(stream) - 1
    while position < last:
        skipped = skip(stream, position)
        end = skipped.end() if skipped else position
        is_long = end == position
        if is_long:
            size = LENGTH_BYTES.get(stream[position])
            if size is None:
                raise pickle.UnpicklingError(f"opcode 0x{stream[position]:02x} is not allowed, or cut short")
            start = position + 1 + size
            end = start + int.from_bytes(stream[position + 1 : start], "little")
        if end <= last:
            yield position, end, is_long
        position = end
    if position != last or not stream.endswith(STOP):
        raise pickle.UnpicklingError("truncated")
