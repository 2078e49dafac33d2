"""Pickles that show at the speed of C that their keys are texts or a few numbers: rows as dicts, and documents."""

import re
from typing import Final, NamedTuple

from storeroom.serializers.opcodes import (
    LENGTH_BYTES,
    LONG_NUMBERS,
    is_short,
    match_key,
    match_token,
    skip_keyed,
    unframed,
)

__all__ = ["Keyed", "digits_of", "keyed"]

_MOST_CALLS: Final = 20
"""Calls of constructors by name, or with calls in their arguments; and one for each kilobyte more."""

_LONGEST_CALL: Final = 50
"""Opcodes of such a call."""

_LONG_TEXTS: Final = LENGTH_BYTES.keys() - LONG_NUMBERS


_FEW_NUMBERS: Final = 2**16
"""Bytes that may have numbers as keys: 10,000 that were chosen to be in each other's way take some 30 ms."""

_TEXT_KEYS: Final = b"h\x8c"


class Keyed(NamedTuple):
    """A value whose keys are texts, numbers in a short stream, or references that take a byte.

    Attributes:
        names: of the constructors that it calls.
        digits: the length of the longest text in it that a Decimal may be made of.
        tuples: whether some of its values may be tuples, of texts and numbers.
    """

    names: frozenset[bytes]
    digits: int
    tuples: bool


def keyed(stream: bytes) -> Keyed | None:
    """Return names and length for a stream of such a value.

    None if it may have other keys, or members of sets. Also then if a tuple lies in it that is no constructor's
    arguments, unless it holds texts and numbers alone and is a value of a dict; or a number of more than 63 bytes, or
    names that are not spelled out.
    """
    body = unframed(stream)
    return _keyed(body, tuples=False) or (_keyed(body, tuples=True) if _ends_tuple(body) else None)


_ends_tuple: Final = re.compile(rb"[\x85-\x87]\x94[^R]|t\x94[^R]").search


def _keyed(body: bytes, *, tuples: bool) -> Keyed | None:
    numbers = len(body) <= _FEW_NUMBERS
    skip = skip_keyed(numbers=numbers, tuples=tuples)
    names: set[bytes] = set()
    calls = _MOST_CALLS + len(body) // 1024
    position = digits = 0
    while position < len(body):
        end: int | None = skip(body, position).end()
        if end == position:
            key = match_key(body, position)
            if key is None or not (numbers or body[position] in _TEXT_KEYS):
                return None
            end = _long_end(body, key.end())
            if end is not None:
                digits = max(digits, digits_of(body, key.end(), end))
            elif calls > 0:
                end = _call_end(body, key.end(), names)
                calls -= 1
            if end is None or end > len(body):
                return None
        position = end or 0
    return Keyed(frozenset(names), digits, tuples)


_wordy: Final = re.compile(rb"[b-dghj-mo-ru-xzB-DGHJ-MO-RU-XZ<>]").search
"""Finds what no Decimal has: it is digits, an exponent, Infinity or sNaN."""

_LONGEST_READ: Final = 4 * 2**16 + 9
"""Bytes of a text that a constructor may accept, and so be called with it again: see safe_types."""


def digits_of(data: bytes, start: int, end: int) -> int:
    """Return the length of a long text, or 0 for one that no Decimal is made of."""
    is_text = end - start > _LONGEST_READ or _wordy(data, start + 1 + LENGTH_BYTES[data[start]], end)
    return 0 if is_text else end - start


def _long_end(body: bytes, position: int) -> int | None:
    """Return the end of a long text that begins here."""
    code = body[position] if position < len(body) else 0
    if code not in _LONG_TEXTS:
        return None
    start = position + 1 + LENGTH_BYTES[code]
    length = int.from_bytes(body[position + 1 : start], "little")
    if is_short(length) and LENGTH_BYTES[code] == 1:  # it is the name of a module
        return None
    end = start + length
    return end + (body[end : end + 1] == b"\x94")


def _call_end(body: bytes, position: int, names: set[bytes]) -> int | None:
    """Return the end of a constructor's call that begins here, and add the names that it has."""
    height, floors = 0, [0]
    before = b""
    for _ in range(_LONGEST_CALL):
        token = match_token(body, position)
        if token is None:
            return None
        position, code = token.end(), token[1] or b""
        if code == b"(":
            floors.append(height)
        elif code == b"t":
            height = floors.pop() + 1
        elif code == b"\x93" and before.startswith(b"\x8c"):
            names.add(before[2:].rstrip(b"\x94").removeprefix(b"new_"))
            height -= 1
        elif code:
            height -= _TAKEN.get(code, height)
        else:
            height += 1
        is_tuple = before[:1] in _TUPLES  # and then the arguments of a call
        if not floors or height <= floors[-1] - (code == b"(") or is_tuple != (code == b"R"):
            return None
        if code == b"R" and height == 1 and len(floors) == 1:
            return position
        before = token[0]
    return None


_TAKEN: Final = {b"R": 1, b"\x85": 0, b"\x86": 1, b"\x87": 2}
_TUPLES: Final = (b"t", b"\x85", b"\x86", b"\x87", b")")
