"""Locks among the threads and tasks of one process, and Django's sessions: the hooks that they need, and no bounds.

For caches whose entries are in this process's memory, or nowhere. A lock that had to make room for entries
would be lost while it is held.
"""

from typing import Any, Final

from storeroom import timeouts
from storeroom.engines.nesting import Alone
from storeroom.storage.hooks import MISSING, StorageHooks

__all__ = ["ProcessLocks"]

_PURGE: Final = 100
"""Entries at which expired ones are removed first; then whenever there are twice as many."""


class ProcessLocks(StorageHooks):
    """The locks of one engine, and their counters of fencing tokens."""

    async_inline = True
    is_shared = False

    def __init__(self, lock: Any, alone: Alone) -> None:
        """Begin with none. The engine's lock is held across a fork."""
        self._lock, self._alone = lock, alone
        self._entries: dict[str, tuple[Any, float]] = {}
        self._purge_at = _PURGE

    def __len__(self) -> int:
        """Return how many entries there are, expired ones included."""
        return len(self._entries)

    def _clock(self, storage_key: str) -> None:
        """Return None: what is here ends by the machine's clock already."""

    def _live(self, storage_key: str) -> Any:
        value, expires_at = self._entries.get(storage_key, (MISSING, timeouts.NEVER))
        return value if expires_at > timeouts.uptime() else MISSING

    def _get(self, storage_key: str) -> Any:
        with self._lock, self._alone:
            return self._live(storage_key)

    def _delete(self, storage_key: str) -> bool:
        with self._lock, self._alone:
            is_live = self._live(storage_key) is not MISSING
            self._entries.pop(storage_key, None)
            return is_live

    def _add(self, storage_key: str, value: Any, expires_at: float) -> bool:
        with self._lock, self._alone:
            if self._live(storage_key) is not MISSING:
                return False
            if len(self._entries) >= self._purge_at:
                now = timeouts.uptime()
                self._entries = {key: entry for key, entry in self._entries.items() if entry[1] > now}
                self._purge_at = max(_PURGE, 2 * len(self._entries))
            self._entries[storage_key] = value, _over_at(expires_at)
            return True

    def _incr(self, storage_key: str, delta: float) -> float:
        with self._lock, self._alone:
            number = self._live(storage_key)
            if number is MISSING:
                raise KeyError(storage_key)
            total: float = number + delta
            self._entries[storage_key] = total, self._entries[storage_key][1]
            return total

    def _expiry(self, storage_key: str) -> float | None:
        with self._lock, self._alone:
            if self._live(storage_key) is MISSING:
                return None
            return self._entries[storage_key][1] - timeouts.uptime() + timeouts.now()

    def _compare_delete(self, storage_key: str, expected: Any) -> bool:
        with self._lock, self._alone:
            return self._live(storage_key) == expected and self._entries.pop(storage_key, None) is not None

    def _compare_set(self, storage_key: str, expected: Any, value: Any, expires_at: float) -> bool:
        with self._lock, self._alone:
            if self._live(storage_key) != expected:
                return False
            self._entries[storage_key] = value, _over_at(expires_at)
            return True


def _over_at(expires_at: float) -> float:
    """Return when an entry ends by a clock that nobody sets."""
    return expires_at - timeouts.now() + timeouts.uptime()
