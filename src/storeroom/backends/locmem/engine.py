"""The data of a local memory: what all caches of one name share."""

from storeroom.backends.process_locks import ProcessLocks
from storeroom.engines import Engine
from storeroom.eviction import BoundedMap

__all__ = ["MemoryEngine"]


class MemoryEngine(Engine):
    """The entries of one name, and the versions of their tags."""

    def __init__(self) -> None:
        """Begin empty; each handle brings its own bounds."""
        super().__init__()
        self.entries = BoundedMap(None)
        self.tags = BoundedMap(None)
        self.locks = ProcessLocks(self.lock)
