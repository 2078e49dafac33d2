"""A cache that stores nothing: for development, and to switch caching off by configuration alone.

It does keep locks, among the threads and tasks of this process: a program must not break when caching is switched off.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from storeroom import config
from storeroom.backends.process_locks import ProcessLocks
from storeroom.base import BaseCache
from storeroom.engines import Engine, shared
from storeroom.storage.hooks import StorageHooks

__all__ = ["DummyCache"]


class LockingEngine(Engine):
    """The locks of all dummy caches of a process."""

    def __init__(self) -> None:
        super().__init__()
        self.locks = ProcessLocks(self.lock, self.alone)


class DummyCache(BaseCache):
    """Accepts every call of a cache and remembers nothing; keys and timeouts are still checked.

    It takes the options of any backend unseen, so that changing BACKEND alone switches a configuration off.
    """

    options: ClassVar[Mapping[str, config.Option] | None] = None
    async_inline = True
    is_shared = False
    keeps_entries = False
    clears_by_prefix = True

    def __init__(self, location: str, params: Mapping[str, Any]) -> None:
        super().__init__(params)

    def _get_many(self, storage_keys: Sequence[str]) -> dict[str, Any]:
        return {}

    def _set_many(self, values: Mapping[str, Any], expires_at: float) -> Sequence[str]:
        return []

    def _add(self, storage_key: str, value: Any, expires_at: float) -> bool:
        return True

    def _delete_many(self, storage_keys: Sequence[str]) -> int:
        return 0

    def _touch(self, storage_key: str, expires_at: float) -> bool:
        return False

    def _incr(self, storage_key: str, delta: float) -> float:
        raise KeyError(storage_key)

    def _expiry(self, storage_key: str) -> float | None:
        return None

    def _clear(self) -> None:
        pass

    def _scan(self, start: str) -> Iterator[str]:
        return iter(())

    def _usage(self) -> tuple[int | None, int | None]:
        return 0, 0

    def _locking(self) -> StorageHooks:
        return shared(LockingEngine, "of dummy caches", LockingEngine).locks
