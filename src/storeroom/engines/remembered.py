"""The last removals, writes and refusals of this process at one storage, from which explain() tells why a key is gone.

A removal is noted by one append to a deque that drops its oldest, which needs no lock. Nothing but explain() looks at
it, from its newest end.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Hashable
from contextlib import suppress
from typing import Final, NamedTuple, TypeAlias

from storeroom import timeouts
from storeroom.eviction import DELETED, EVICTED
from storeroom.timeouts import NEVER

__all__ = ["CLEARED", "DELETED", "EVICTED", "MOVED", "WRITTEN", "Happening", "Note", "Remembered"]

MOVED: Final = "moved"
CLEARED: Final = "cleared"
WRITTEN: Final = "written"
REFUSED: Final = "refused"

Note: TypeAlias = tuple[Hashable, str, float, float]
"""The storage's name of an entry, its fate, when, and the end of its time (NEVER where that is not known)."""

_MOST_REFUSALS: Final = 256
"""Refusals that are remembered in any case: each was an error, or a line in the log."""

_MOST_CLEARS: Final = 16


class Happening(NamedTuple):
    """The last that is known of an entry.

    Attributes:
        kind: one of the words above.
        at: epoch seconds.
        until: the end of its time; NEVER where that is not known, or never comes.
        reason: of a refusal, in words.
    """

    kind: str
    at: float
    until: float = NEVER
    reason: str = ""


class Remembered:
    """A memory of removals; of writes, too, where the storage removes entries unseen.

    Attributes:
        limit: removals that are remembered at most.
        removals: the ring of them.
    """

    __slots__ = ("_clears", "_refusals", "_writes", "limit", "removals")

    def __init__(self) -> None:
        """Remember refusals alone, for now."""
        self.limit = 0
        self.removals: deque[Note] = deque(maxlen=0)
        self._writes: deque[Note] = deque(maxlen=0)
        self._clears: deque[tuple[float, Callable[[str], bool]]] = deque(maxlen=_MOST_CLEARS)
        self._refusals: OrderedDict[str, Happening] = OrderedDict()

    def extend(self, limit: int) -> None:
        """Remember so many removals from now on, and those that are remembered."""
        self.limit = limit
        self.removals, self._writes = deque(self.removals, limit), deque(self._writes, limit)

    def note(self, name: Hashable, kind: str, until: float = NEVER) -> None:
        """Remember the removal of an entry, by the storage's name for it."""
        self.removals.append((name, kind, timeouts.now(), until))

    def note_write(self, storage_key: str, until: float) -> None:
        """Remember that an entry was written, or given another expiry, by this process."""
        self._writes.append((storage_key, WRITTEN, timeouts.now(), until))

    def note_clear(self, owns: Callable[[str], bool]) -> None:
        """Remember that all entries that `owns` is true of were removed."""
        self._clears.append((timeouts.now(), owns))

    def note_refusal(self, storage_key: str, reason: str) -> None:
        """Remember why a value was not stored, in words that tell nothing of it."""
        refusals = self._refusals
        refusals[storage_key] = Happening(REFUSED, timeouts.now(), reason=reason)
        with suppress(KeyError):  # another thread was faster
            refusals.move_to_end(storage_key)
            if len(refusals) > _MOST_REFUSALS:
                refusals.popitem(last=False)

    def refusal(self, storage_key: str) -> Happening | None:
        """Return the last refusal of a key."""
        return self._refusals.get(storage_key)

    def last(self, storage_key: str, names: Collection[Hashable]) -> Happening | None:
        """Return the last that is known of an entry but for refusals; `names` are those that the storage has for it."""
        cleared = [Happening(CLEARED, at) for at, owns in self._clears.copy() if self.limit and owns(storage_key)]
        found = [
            Happening(kind, at, until)
            for ring in (self.removals, self._writes)
            for name, kind, at, until in reversed(ring.copy())
            if name in names
        ]
        # Of several at one moment the first: a clear() is noted behind the removals that it is made of.
        return max([*cleared, *found], key=lambda happening: happening.at, default=None)
