"""Changes that an exception cuts short, and their mending.

A signal's handler may raise after any call, and so may an exception that another thread sets, or the end of
the stack. A change of several structures is then half made: some keys could never be set again. So a change notes that
it is under way, and its end; one that finds another's note makes everything anew from the entries first, which are in
one dict. To that an entry is added by one step, and from it removed by one: so an operation is whole, or has not been.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from storeroom.eviction.deadlines import ExpiryIndex
from storeroom.eviction.entry import Entry
from storeroom.eviction.shards import Shards

if TYPE_CHECKING:
    from storeroom.eviction.s3fifo import AdaptiveS3Fifo

__all__ = ["Mending"]

T = TypeVar("T")


class Mending:
    """The changes of a `BoundedMap`. None of them is within another."""

    __slots__ = ("_is_torn", "_policy", "_visible", "bytes_used", "entries", "index")

    _is_torn: bool
    _policy: "AdaptiveS3Fifo"
    _visible: int
    bytes_used: int
    entries: dict[str, Entry] | Shards[str, Entry]
    index: ExpiryIndex
    _begin_hiding: Callable[[], None]
    _expected_entries: Callable[[], float]

    def _change(self, change: Callable[..., T], *args: Any) -> T:
        """Make a change. The most frequent ones have this written out."""
        self._is_torn = not self._is_torn or self._mended()
        result = change(*args)
        self._is_torn = False
        return result

    def _mended(self) -> bool:
        """Make all else anew from the entries; return True. It may be cut short like any change.

        Cost: two seconds for a million entries.
        """
        if not isinstance(self.entries, dict):
            self.entries.mend()
        entries = list(self.entries.values())
        self.bytes_used = sum(entry.size for entry in entries)
        self._policy.rebuild(entries)
        self.index.rebuild(entries)
        self._policy.resize(self._expected_entries())
        if self._visible < 0:
            self._begin_hiding()
        return True
