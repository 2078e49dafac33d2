"""Objects that are known for as long as they live.

``weakref.WeakSet`` hears of an object's end by a function in Python. An exception out of a signal's handler may come
within it, and Python drops that exception, while the set counts the object for ever. Here it is a method of a dict,
which nothing interrupts.
"""

from collections.abc import Iterator
from typing import Any, Generic, TypeVar
from weakref import ref

__all__ = ["Living"]

T = TypeVar("T")


class Living(Generic[T]):
    """A set of objects, each of which leaves it by its end; they are told apart by their identity."""

    __slots__ = ("__weakref__", "_known")

    def __init__(self) -> None:
        self._known: dict[ref[Any], None] = {}

    def add(self, thing: T) -> None:
        """Know an object from now on."""
        self._known[ref(thing, self._known.pop)] = None

    def discard(self, thing: T) -> None:
        """Know it no longer."""
        self._known.pop(ref(thing), None)

    def __iter__(self) -> Iterator[T]:
        """Return those that are alive now."""
        known = list(self._known)  # one step: others may leave meanwhile
        return iter([thing for each in known if (thing := each()) is not None])

    def __len__(self) -> int:
        """Return the number of those that are alive."""
        return sum(known() is not None for known in list(self._known))
