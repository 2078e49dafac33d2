"""Pickles are weighed before they are executed: the depth and the size of the value, and the time that it takes.

Python hashes tuples without a look at the stack, so that a million tuples within each other, a byte each, end the
process; the same tuple twice in each of forty takes for ever. Most values show that they are harmless (`outlines`). Of
all others each opcode is followed on a stack of depths and weights.
"""

import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final

from storeroom.serializers.bounds import MAX_DEPTH, TOO_DEEP, TooMuchError
from storeroom.serializers.opcodes import LENGTH_BYTES, check_opcodes, skip_tokens, spans
from storeroom.serializers.outlines import (
    ALIKE,
    ATOM_BYTES,
    CONTAINER_BYTES,
    ENTRY_BYTES,
    LONGS,
    MAX_ALIKE,
    TOO_LARGE,
    TUPLE_BYTES,
    is_harmless,
    made_bytes,
    tokens,
)

__all__ = ["weigh"]


_FEW_REFERENCES: Final = 10
"""So many double what a tuple unfolds to ten times at most."""


def weigh(stream: bytes, room: int) -> int:
    """Check a stream's opcodes, and the depth and size of its value.

    Args:
        stream: the pickle.
        room: the bytes of memory that the value may take.

    Returns:
        The number of containers of which the depth is still to be checked, when the value is there; 0 for none.

    Raises:
        UnpicklingError: `check_opcodes` says why.
        TooMuchError: the value is too deep, or too large, or takes too long to hash.
    """
    if len(stream) <= MAX_DEPTH and stream.count(b"h") + stream.count(b"j") <= _FEW_REFERENCES:
        check_opcodes(stream)
    elif is_harmless(stream, room):
        count = len(stream) - len(stream.translate(None, b"]}t\x85\x86\x87"))  # those in texts, too
        return count if count > MAX_DEPTH else 0
    else:
        _Scales(stream, room - len(stream)).weigh()
    return 0


class _Hashes:
    """Counts integers of many bytes, which can be chosen to have one hash, all of them."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._counts: Counter[int] = Counter()

    def add(self, digits: bytes) -> None:
        """Count an integer; raise TooMuchError if too many have its hash."""
        if digits not in self._seen:
            self._seen.add(digits)
            found = hash(int.from_bytes(digits, "little", signed=True))
            self._counts[found] += 1
            if self._counts[found] > MAX_ALIKE:
                raise TooMuchError(ALIKE)


_Item = Sequence[int]
"""Depth and weight: a tuple of what is complete, a list of what may get members as long as it is on the stack."""

_ATOM: Final = (0, 1)
_BINGET: Final = ord("h")
_depth: Final = itemgetter(0)
_weight: Final = itemgetter(1)

_MAX_HASHED: Final = 2**20  # members of hashed containers, those of shared ones each time: 20 ms
_MAX_UNFOLDED: Final = 2**30  # members, those of shared containers each time
_MAX_CALLS: Final = 2**16  # members of arguments of constructors
_UNIT: Final = 64  # bytes of a text or number that weigh as one member


class _Scales:
    """Follows a stream on a stack of depths and weights, and raises TooMuchError as soon as it is too much."""

    def __init__(self, stream: bytes, room: int) -> None:
        self._stream = stream
        self._room = room
        self._stack: list[_Item] = []
        self._below: list[list[_Item]] = []
        self._memo: list[_Item] = []
        self._hashed = max(_MAX_HASHED, len(stream))
        self._calls = _MAX_CALLS + len(stream) // 2
        self.made_bytes = made_bytes(stream)
        self._containers = 0
        self._pops = False
        self._hashes = _Hashes()

    def weigh(self) -> None:
        """Follow the whole stream."""
        for start, end, is_long in spans(self._stream, skip_tokens):
            if is_long:
                self._push_long(start, end)
            else:
                self._follow(tokens(self._stream, start, end))
            if self._room < 0:
                raise TooMuchError(TOO_LARGE)
            # An object that is taken off may have been put into others, which then are deeper than they seem.
            if self._pops and self._containers > MAX_DEPTH:
                raise TooMuchError(f"contains itself, and more than {MAX_DEPTH} containers")

    def _follow(self, tokens: list[tuple[bytes, bytes]]) -> None:
        memoized, follow = self._memo.append, _FOLLOW
        for opcode, memoize in tokens:
            if not opcode:
                self._stack.append(_ATOM)
            else:
                follow[opcode[0]](self, opcode)
            if memoize:
                memoized(self._stack[-1])
        self._room -= ATOM_BYTES * len(tokens)

    def _push_long(self, start: int, end: int) -> None:
        opcode = self._stream[start]
        if opcode in LONGS:
            self.long(self._stream[start:end], 1 + LENGTH_BYTES[opcode])
        else:
            self._stack.append((0, 1 + (end - start) // _UNIT))
        self._room -= ATOM_BYTES

    def long(self, token: bytes, start: int = 2) -> None:
        """Push an integer of many bytes."""
        self._hashes.add(token[start:])
        self._stack.append((0, 1 + len(token) // _UNIT))

    def begin(self, _: bytes) -> None:
        """Begin the members of a container."""
        self._below.append(self._stack)
        self._stack = []
        if len(self._below) > MAX_DEPTH:  # each is that of a container that is being filled
            raise TooMuchError(TOO_DEEP)

    def _members(self) -> list[_Item]:
        members, self._stack = self._stack, self._below.pop()
        return members

    def pop(self, _: bytes) -> None:
        """Take the top off."""
        self._pops = True
        if self._stack:
            self._stack.pop()
        else:
            self._members()

    def drop(self, _: bytes) -> None:
        """Take off all that was begun."""
        self._pops = True
        self._members()

    def memoize(self, _: bytes) -> None:
        """Note the top."""
        self._memo.append(self._stack[-1])

    def get(self, opcode: bytes) -> None:
        """Push what was memoized."""
        number = opcode[1] if opcode[0] == _BINGET else int.from_bytes(opcode[1:], "little")
        self._stack.append(tuple(self._memo[number]))

    def empty(self, opcode: bytes) -> None:
        """Push a container that may get members."""
        self._stack.append([1, 1])
        self._containers += 1
        self._room -= CONTAINER_BYTES[opcode[0]]

    def _around(self, members: Sequence[_Item]) -> tuple[int, int]:
        """Return depth and weight of a container of these."""
        if len(members) == 1:  # as most often, where there are many
            depth, weight = members[0][0] + 1, members[0][1] + 1
        else:
            depth = 1 + max(map(_depth, members), default=0)
            weight = 1 + sum(map(_weight, members))
        if depth > MAX_DEPTH:
            raise TooMuchError(TOO_DEEP)
        if weight > _MAX_UNFOLDED:
            raise TooMuchError(f"has more than {_MAX_UNFOLDED} members, if those that are shared count each time")
        return depth, weight

    def tuple_of(self, opcode: bytes) -> None:
        """Push a tuple."""
        count = _TUPLE_SIZES.get(opcode[0])
        if count is None:
            members = self._members()
        else:
            members = self._stack[-count:]
            del self._stack[-count:]
        self._stack.append(self._around(members))
        self._containers += 1
        self._room -= TUPLE_BYTES

    def frozenset_of(self, opcode: bytes) -> None:
        """Push a frozenset."""
        members, self._stack = self._stack, self._below.pop()
        is_flat = members.count(_ATOM) == len(members)
        around = (1, 1 + len(members)) if is_flat else self._around(members)
        self._hash(len(members), around[1])
        self._stack.append(around)
        self._containers += 1
        self._room -= CONTAINER_BYTES[opcode[0]]

    def _hash(self, count: int, weight: int) -> None:
        self._hashed -= weight
        self._room -= ENTRY_BYTES * count
        if self._hashed < 0:
            raise TooMuchError("takes too long to hash: containers within its keys or sets are shared many times")

    def _add(self, members: Sequence[_Item]) -> None:
        """Put members into the container on top of the stack."""
        container = self._stack[-1]
        if type(container) is not list:
            raise pickle.UnpicklingError("something is added to an object that is complete")
        depth, weight = self._around(members)
        container[:] = max(container[0], depth), container[1] + weight

    def append(self, _: bytes) -> None:
        """Add one."""
        member = self._stack.pop()
        self._add((member,))

    def appends(self, _: bytes) -> None:
        """Add several."""
        self._add(self._members())

    def set_item(self, _: bytes) -> None:
        """Add a key and its value."""
        value, key = self._stack.pop(), self._stack.pop()
        self._hash(1, key[1])
        self._add((key, value))

    def set_items(self, _: bytes) -> None:
        """Add several of both."""
        members = self._members()
        keys = members[::2]
        self._hash(len(keys), sum(map(_weight, keys)))
        self._add(members)

    def add_items(self, _: bytes) -> None:
        """Add several to a set."""
        members = self._members()
        self._hash(len(members), sum(map(_weight, members)))
        self._add(members)

    def name(self, _: bytes) -> None:
        """Push a constructor."""
        del self._stack[-2:]
        self._stack.append(_ATOM)

    def reduce(self, _: bytes) -> None:
        """Push what a constructor makes."""
        arguments, _function = self._stack.pop(), self._stack.pop()
        self._calls -= arguments[1]
        if self._calls < 0:
            raise TooMuchError("takes too long to make: long arguments of its parts are shared many times")
        self._stack.append(list(self._around((arguments,))))
        self._containers += 1
        self._room -= self.made_bytes

    def frame(self, _: bytes) -> None:
        """Do nothing: it makes nothing."""


_TUPLE_SIZES: Final = {0x85: 1, 0x86: 2, 0x87: 3}

_FOLLOW: Final[dict[int, Callable[[_Scales, bytes], None]]] = {
    ord("("): _Scales.begin,
    ord("0"): _Scales.pop,
    ord("1"): _Scales.drop,
    ord("h"): _Scales.get,
    ord("j"): _Scales.get,
    ord("]"): _Scales.empty,
    ord("}"): _Scales.empty,
    ord("a"): _Scales.append,
    ord("e"): _Scales.appends,
    ord("s"): _Scales.set_item,
    ord("u"): _Scales.set_items,
    ord("t"): _Scales.tuple_of,
    ord("R"): _Scales.reduce,
    0x85: _Scales.tuple_of,
    0x86: _Scales.tuple_of,
    0x87: _Scales.tuple_of,
    0x8A: _Scales.long,
    0x8F: _Scales.empty,
    0x90: _Scales.add_items,
    0x91: _Scales.frozenset_of,
    0x93: _Scales.name,
    0x94: _Scales.memoize,
    0x95: _Scales.frame,
}
