"""Objects that leave a map, and are freed without its lock; their keys, where somebody wants to know.

A value may run code when it is freed: its ``__del__``, or the callback of a weak reference, may use this very map. So
what is removed is kept until the writer, having given up the lock, calls `let_go()`.
"""

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, TypeAlias

from storeroom.eviction.entry import Entry

__all__ = ["DELETED", "EVICTED", "Dropping", "NoteRemoval"]

EVICTED: Final = "evicted"
DELETED: Final = "deleted"
"""The fate of an entry. One that is deleted after its time has expired before."""

NoteRemoval: TypeAlias = Callable[[str, str, float], None]

_HARMLESS: Final = frozenset({object, str, bytes, int, float, bool, type(None)})
"""Types whose objects run no code when they are freed; ENCODED is one of the first."""


class Dropping:
    """A part of a map.

    Attributes:
        dropped: objects that are to be freed without the lock.
        note_removal: called with the key, the fate and the end of the time of each removed entry; or None.
    """

    __slots__ = ()

    dropped: deque[object]
    note_removal: NoteRemoval | None

    def _note_all(self, entries: Iterable[Entry]) -> None:
        """Tell that all these are evicted at once."""
        if self.note_removal is not None:
            for entry in entries:
                self.note_removal(entry.key, EVICTED, entry.expires_at)

    def _drop(self, entry: Entry) -> None:
        value, encoded = entry.value, entry.encoded
        if type(value) not in _HARMLESS or type(encoded) not in _HARMLESS:
            self.dropped.append((value, encoded))

    def let_go(self) -> None:
        """Free the objects that were dropped; without the lock, and by any number of threads."""
        with suppress(IndexError):
            while self.dropped:
                self.dropped.pop()
