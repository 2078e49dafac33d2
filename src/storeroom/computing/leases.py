"""The lease: a mark within an entry, which says that somebody computes its value.

It is put there by `add` where there is nothing, or by compare-and-set in the place of a stale
value, which goes on being served. The result is stored in the place of the mark and
nowhere else: whoever deletes or sets the key meanwhile has the last word.
"""

from typing import Any

from storeroom import timeouts
from storeroom.storage.envelope import Envelope, placeholder
from storeroom.storage.hooks import ABSENT, MISSING, StorageHooks, Swap
from storeroom.storage.steps import Steps

__all__ = ["Lease", "swapped"]


class Lease:
    """What the leader of a computation knows of one key's entry.

    Attributes:
        found: what was read of the entry last: an envelope, MISSING, or another's value.
        mark: what this leader has put there; None if it holds no lease.
        replaces: an envelope that is to be computed anew although it is fresh; or None.
    """

    __slots__ = ("_is_blocked", "found", "mark", "replaces")

    def __init__(self, found: Any = MISSING, replaces: Envelope | None = None) -> None:
        self.found = found
        self.replaces = replaces
        self.mark: Envelope | None = None
        self._is_blocked = False

    def taking(self, until: float, *, is_shared: bool) -> Swap | None:
        """Return what has to be done to take the lease until then (epoch seconds); None if another has it.

        The mark is noted here, before it is written: who is interrupted after that has to take it away.
        """
        found: Any = self.found if type(self.found) is Envelope else MISSING
        now = timeouts.now()
        # Where nobody else computes, a lease is what a parent process has left behind; and nobody takes one that
        # ends so much later than one of now.
        if found is not MISSING and now < found.leased_until < 2 * until - now and is_shared:
            return None
        self.mark = mark = placeholder(until) if found is MISSING else found.leased(until)
        if found is not MISSING:
            return Swap(found, mark, mark.kept_until)
        return Swap(MISSING if self._is_blocked else ABSENT, mark, mark.kept_until)

    def refused(self) -> None:
        """Note that the mark was not written.

        If something is in the way, and there is still nothing to be read the next time, it is bytes that nobody can
        read; that is tried in turn with what is more likely, that others come and go.
        """
        self.mark = None
        self._is_blocked = not self._is_blocked and type(self.found) is not Envelope

    def storing(self, value: Any, kept_until: float) -> Swap:
        """Return how to store a value: in the place of the mark, or of what was there before."""
        place = self.mark or self.found
        return Swap(place if type(place) is Envelope else ABSENT, value, kept_until)

    def giving_back(self) -> Swap | None:
        """Return how to take the mark away, if it is still there; None if there is none."""
        mark = self.mark
        if mark is None:
            return None
        if not mark.has_value:
            return Swap(mark, MISSING, mark.kept_until)
        bare = mark.leased(0.0)
        return Swap(mark, bare, bare.kept_until)


def swapped(hooks: StorageHooks, storage_key: str, swap: Swap) -> Steps[bool]:
    """Make one swap; return whether it was made."""
    expected, value, expires_at = swap
    if expected is ABSENT:
        return (yield hooks, "_add", (storage_key, value, expires_at)) is True
    if value is MISSING:
        return bool((yield hooks, "_compare_delete", (storage_key, expected)))
    return bool((yield hooks, "_compare_set", (storage_key, expected, value, expires_at)))
