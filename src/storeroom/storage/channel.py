"""The agreement between a near tier and a storage that tells of changes: Channel and Listener."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

__all__ = ["Channel", "Listener"]


class Listener(Protocol):
    """The near tier, as a channel sees it. All methods may be called by any thread."""

    max_staleness: float
    """Seconds for which an entry may differ from the storage."""

    is_tracked: bool
    """Whether it believes, since begin_tracking(), that it hears of every change."""

    def drop(self, storage_keys: Iterable[str]) -> None:
        """Forget these entries, and reads of them that are under way: somebody has changed them."""

    def drop_all(self) -> None:
        """Forget everything: nobody can tell which entries have changed."""

    def begin_tracking(self, heard_until: float, is_heard: Callable[[str], bool] | None = None) -> None:
        """Forget everything, and believe entries from now on for as long as the channel vouches for them.

        Those that are not `is_heard` of, by their storage key, are believed for `max_staleness` seconds alone.
        """

    def vouch(self, heard_until: float) -> None:
        """Note that every change up to that time (``timeouts.uptime()``) has been heard of."""

    def end_tracking(self) -> None:
        """Forget everything, and believe entries for `max_staleness` seconds alone, as without a channel."""


class Channel(Protocol):
    """Tells near tiers of this process which entries of a storage have changed."""

    def watch(self, listener: Listener, beginnings: Sequence[str]) -> None:
        """Tell a tier of changes to storage keys with these prefixes, until the process ends or forks."""
