"""A dict in many parts, for maps so large that one dict would stand still while it grows.

A dict copies itself as it grows, and now and then when entries come and go: 0.05 to 0.1 µs for each entry, so that a
million take 50 ms. Here a key's hash says in which of 256 dicts it is, and one of them is copied at a time.
"""

import math
import sys
from collections.abc import Callable, Hashable, Iterator, KeysView
from itertools import chain
from typing import Any, Final, Generic, TypeAlias, TypeVar

from storeroom.eviction.collector import Untrack

__all__ = ["LARGE", "Debris", "Shards", "debris_of", "free"]

LARGE: Final = 2**17
"""Entries from which on a map is kept in shards: one dict of so many is copied in 8 ms at most. A shard has as many
when there are 33 million in all."""

_SHIFT: Final = sys.hash_info.width - 8
"""The highest 8 bits of a hash choose the shard, as a dict goes by the lowest: -128 to 127, good for a list of 256."""

_SHARDS: Final = 256

_STEP: Final = 8
"""Entries of the dict before that each addition moves: all have moved when there are an eighth more."""

Debris: TypeAlias = list[Any]
"""Dicts, deques and lists that nobody refers to any more, and all that is in them."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Shards(Generic[K, V]):
    """A mapping of many dicts.

    Readers need no lock: see the module of the map. Writers do.

    Args:
        first: a dict whose items move here in steps, a few with each addition. Who reads it alone finds nothing that is
            not here, too. None of the values may be None.
        untrack: keeps a dict from the garbage collector, to which each addition takes it back.

    Attributes:
        get: as of a dict, without a default. Another one when the first dict is empty.
    """

    __slots__ = ("_count", "_first", "_tables", "get", "untrack")

    def __init__(self, first: dict[K, V], untrack: Untrack = bool) -> None:
        self.untrack = untrack
        self._tables: list[dict[K, V]] = [{} for _ in range(_SHARDS)]
        self._first = first
        self._count = len(first)
        self.get: Callable[[K], V | None] = self._get_moving if first else self._getter()

    def _getter(self) -> Callable[[K], V | None]:
        tables = self._tables  # a function, and no method, as loading `self` and its slot costs 20 ns of 120
        return lambda key: tables[hash(key) >> _SHIFT].get(key)

    def _get_moving(self, key: K) -> V | None:
        # In this order: an entry that moves is put into its shard before it is taken from here.
        found = self._first.get(key)
        return self._tables[hash(key) >> _SHIFT].get(key) if found is None else found

    def __getitem__(self, key: K) -> V:
        found = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def __setitem__(self, key: K, value: V) -> None:
        table = self._tables[hash(key) >> _SHIFT]
        before = len(table)
        table[key] = value
        self._count += len(table) - before
        self.untrack(id(table))
        if self._first:
            self._count -= self._first.pop(key, None) is not None
            self._move()

    def _move(self) -> None:
        first, tables = self._first, self._tables
        for _ in range(min(_STEP, len(first))):
            key = next(reversed(first))
            table = tables[hash(key) >> _SHIFT]
            table[key] = first[key]
            self.untrack(id(table))
            first.popitem()
        if not first:
            first.clear()  # which frees the room of an empty dict
            self.get = self._getter()

    def pop(self, key: K, default: None = None) -> V | None:
        """Remove a key and return its value, or None if it is not there."""
        found = self._tables[hash(key) >> _SHIFT].pop(key, default)
        if found is None:
            found = self._first.pop(key, default)
        self._count -= found is not None
        return found

    def __delitem__(self, key: K) -> None:
        if self.pop(key) is None:
            raise KeyError(key)

    def __contains__(self, key: K) -> bool:
        return self.get(key) is not None

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[K]:
        return chain.from_iterable(self.parts())

    def keys(self) -> KeysView[K]:
        """Return a view of the keys."""
        return KeysView(self)

    def values(self) -> Iterator[V]:
        """Return all values."""
        return chain.from_iterable(table.values() for table in self.parts())

    def items(self) -> Iterator[tuple[K, V]]:
        """Return all items."""
        return chain.from_iterable(table.items() for table in self.parts())

    def parts(self) -> Iterator[dict[K, V]]:
        """Yield the dicts as they are by then. Entries move from the first one: none is missed."""
        yield self._first
        yield from self._tables

    def mend(self) -> None:
        """Make the count true, and each key one of one dict, as a change was cut short."""
        for key in [key for key in self._first if key in self._tables[hash(key) >> _SHIFT]]:
            del self._first[key]
        self._count = sum(map(len, self.parts()))

    def clear(self) -> Debris:
        """Remove everything; return what is to be freed."""
        tables = self._tables
        debris: Debris = list(tables)
        tables[:] = [{} for _ in tables]
        self._first.clear()
        self.get = self._getter()
        self._count = 0
        return debris


def debris_of(mapping: dict[K, V] | Shards[K, V]) -> Debris:
    """Return what is to be freed of a mapping that nobody needs any more."""
    return [mapping] if isinstance(mapping, dict) else [*mapping.parts()]


def free(debris: Debris, most: float = math.inf, drop: Callable[[object], object] = id) -> None:
    """Free so many objects one by one, or `drop` them, to be freed later.

    Other threads get their turns meanwhile: a million at once take a second.
    """
    while debris and most > 0:
        container = debris[-1]
        pop = container.popitem if hasattr(container, "popitem") else container.pop
        for _ in range(int(min(most, len(container)))):
            drop(pop())
            most -= 1
        if not container:
            debris.pop()
