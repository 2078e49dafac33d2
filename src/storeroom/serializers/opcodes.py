"""The opcodes that a pickle of plain data may have, and their lengths.

Opcodes: https://github.com/python/cpython/blob/main/Lib/pickletools.py
"""

import pickle
import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, Final

from storeroom.serializers.frames import PICKLE_PROTOCOL

__all__ = [
    "ATOM", "HARMLESS_BYTES", "HEADER", "LENGTH_BYTES", "LONG", "OTHER", "REFERENCE", "STOP", "allowed_begin",
    "check_opcodes", "long_integers", "outline", "skip_called", "skip_flat", "skip_opcodes", "skip_referring",
    "skip_tokens", "skip_unhashed", "spans",
]  # fmt: skip

_LONGEST_SHORT: Final = 64
"""Texts up to here are skipped within the expression, longer ones by the loop around it."""


def _short(shortest: int = 0, longest: int = _LONGEST_SHORT - 1) -> bytes:
    return b"(?:%b)" % b"|".join(b"\\x%02x.{%d}" % (length, length) for length in range(shortest, longest + 1))


_SHORT: Final = _short()

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

# Each of the next two passes over most values as fast as the one above, and tells why little in them is hashed.

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


_SIMPLE: Final = rb"(?:K.|M..|J.{4}|[N\x88\x89]|h.)"


def _optional(pattern: bytes) -> bytes:
    """Return a pattern for nothing as well; of a group, it is matched faster than one with a question mark."""
    return rb"(?:" + pattern + rb"|)"


def _flat(atom: bytes, member: bytes, longest: int, others: bytes) -> Callable[..., Any]:
    """Compile a pattern of opcodes of which each tuple has nothing but atoms before it, as many as it takes.

    Args:
        atom: pattern of a member of a tuple of one, two or three.
        member: pattern of a member of a longer tuple.
        longest: the members of a longer tuple, at most.
        others: further alternatives.
    """
    of_three = atom + rb"[\x85-\x87]?"
    few = atom + _optional(rb"\x85|" + atom + _optional(rb"[\x85\x86]|" + of_three))
    many = rb"\(+" + _optional(member + rb"{1,%d}t" % longest)
    rest = rb"[\]ae)}su\x8f\x90\x94\x93R]+|[t\x85-\x87]\x94?R|\x95.{8}"
    return re.compile(rb"(?:" + rb"|".join((few, many, rest, others)) + rb"){0,300}", re.DOTALL).match


_NUMBER: Final = rb"K.|M..|[N\x88\x89)]|J.{4}|G.{8}"


@cache  # compiled when the first tuple in a dict is read: it takes milliseconds
def skip_flat(longest: int = _LONGEST_SHORT - 1) -> Callable[..., Any]:
    """Match opcodes as skip_called does, and tuples of up to 16 texts and short numbers.

    Args:
        longest: bytes of a text that is skipped within the expression, up to 255.
    """
    atom = rb"(?:[\x8cC]" + _short(longest=longest) + rb"\x94?|" + _NUMBER + rb")"
    return _flat(atom, atom, 16, rb"h.|j.{4}|\x8a" + _SHORT)


@cache
def skip_referring() -> Callable[..., Any]:
    """Match as skip_flat does; in tuples also references, long numbers, lists, and calls with short arguments."""
    simple = rb"(?:" + _SIMPLE + rb"|C" + _SHORT + rb"|\x8a" + _SHORT + rb")"
    one = simple + rb"(?:\x85\x94?R|" + simple + rb"(?:\x86\x94?R|" + simple + rb"\x87\x94?R))"
    many = rb"\(" + simple + rb"{0,12}t\x94?R"
    common = rb"[\x8cC\x8a]" + _SHORT + rb"\x94?|j.{4}|" + _NUMBER
    atom = rb"(?:" + common + rb"|h." + _optional(rb"(?:" + many + rb"|" + one + rb")\x94?") + rb")"
    # No two ways to match the same: where the end is missing, all would be tried.
    member = rb"(?:" + common + rb"|h.|[\x93\]a]\x94?|[\x85-\x87]\x94?R\x94?|" + many + rb"\x94?|\x95.{8})"
    return _flat(atom, member, 64, many)


_LONG_DIGITS: Final = _short(9)

LONG: Final = rb"\x8a" + _LONG_DIGITS
"""Pattern of an integer that may have the hash of many others. Of eight bytes hardly any two have."""

long_integers: Final = re.compile(rb"\x8a(?=(" + _LONG_DIGITS + rb"))", re.DOTALL).findall
"""Finds the lengths and bytes of all such integers, and of some bytes within texts."""

ATOM: Final = rb"\x8c" + _SHORT + rb"|[N\x88\x89)]|K.|M..|J.{4}|G.{8}|C" + _SHORT + rb"|\x8a" + _short(0, 8)
"""Pattern of an opcode that makes a text or a number."""

REFERENCE: Final = rb"h.|j.{4}"
"""Pattern of BINGET and LONG_BINGET."""

outline: Final = partial(
    re.compile(
        # A call with short arguments, as for a date; then any text, number or reference.
        rb"h.(?:\(" + _SIMPLE + rb"{0,12}t|" + _SIMPLE + rb"(?:\x85|" + _SIMPLE + rb"(?:\x86|" + _SIMPLE +
        rb"\x87)))\x94?R\x94?"
        rb"|[\x8cC\x8a]" + _SHORT + rb"|[Kh].|M..|[Jj].{4}|G.{8}",
        re.DOTALL,
    ).sub,
    b"N",
)  # fmt: skip
"""Puts one byte, NONE, in the place of each text, number and reference, and of some calls; FRAME is not known here."""

OTHER: Final = rb"[\]aet\x85-\x87}su\x8f\x90\x91(01\x94\x93R]|\x95.{8}"
"""Pattern of the rest."""

skip_tokens: Final = re.compile(
    rb"(?:(?:" + rb"|".join((ATOM, REFERENCE, LONG, OTHER)) + rb")\x94?){0,1000}", re.DOTALL
).match
"""Matches as many opcodes as a list of them should have at a time."""

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

HEADER: Final = bytes((0x80, PICKLE_PROTOCOL))
STOP: Final = b"."

HARMLESS_BYTES: Final = 64
"""The same tuple three times in each takes six bytes of a pickle, so that as many bytes unfold to 60,000 at most."""

allowed_begin: Final = re.compile(re.escape(HEADER) + _OPCODES, re.DOTALL).match
"""Matches up to the first opcode that is not allowed, or long. It matches no end, so that nothing is tried twice."""


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
