"""A third party's first backend, with the eight hooks and no more, keeps the contract.

Everything else, from get_or_set() to the asynchronous twins, comes from the defaults.
"""

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pickle import dumps, loads
from typing import Any, ClassVar

from storeroom import timeouts
from storeroom.base import BaseCache
from storeroom.exceptions import SerializationError, ValueTypeError
from storeroom.testing.contract.computing import ComputingContract
from storeroom.testing.contract.swaps import SwapsContract
from storeroom.testing.contract.tags import TagsContract
from tests.contract.parts import contract_of


class DictCache(BaseCache):
    """Pickles in a dict per location, under a lock."""

    _dicts: ClassVar[dict[str, dict[str, tuple[bytes, float]]]] = defaultdict(dict)
    _lock: ClassVar = threading.RLock()

    def __init__(self, location: str, params: Mapping[str, Any]) -> None:
        super().__init__(params)
        self._entries = self._dicts[location]

    def _live(self, storage_key: str) -> tuple[bytes, float] | None:
        entry = self._entries.get(storage_key)
        return entry if entry and entry[1] > timeouts.now() else None

    def _get_many(self, storage_keys: Sequence[str]) -> dict[str, Any]:
        with self._lock:
            live = {storage_key: self._live(storage_key) for storage_key in storage_keys}
        return {storage_key: loads(entry[0]) for storage_key, entry in live.items() if entry}

    def _set_many(self, values: Mapping[str, Any], expires_at: float) -> Sequence[str]:
        entries = {storage_key: (pickled(value), expires_at) for storage_key, value in values.items()}
        with self._lock:
            self._entries.update(entries)
        return []

    def _add(self, storage_key: str, value: Any, expires_at: float) -> bool:
        with self._lock:
            return self._live(storage_key) is None and not self._set_many({storage_key: value}, expires_at)

    def _delete_many(self, storage_keys: Sequence[str]) -> int:
        with self._lock:
            live = sum(self._live(storage_key) is not None for storage_key in storage_keys)
            for storage_key in storage_keys:
                self._entries.pop(storage_key, None)
            return live

    def _touch(self, storage_key: str, expires_at: float) -> bool:
        with self._lock:
            entry = self._live(storage_key)
            if entry:
                self._entries[storage_key] = (entry[0], expires_at)
            return entry is not None

    def _incr(self, storage_key: str, delta: float) -> float:
        with self._lock:
            entry = self._live(storage_key)
            if entry is None:
                raise KeyError(storage_key)
            number = loads(entry[0])
            if not isinstance(number, int | float):
                raise ValueTypeError(f"The value of key {storage_key!r} is not a number.")
            self._entries[storage_key] = (dumps(number + delta), entry[1])
            return number + delta

    def _expiry(self, storage_key: str) -> float | None:
        entry = self._live(storage_key)
        return entry[1] if entry else None

    def _clear(self) -> None:
        with self._lock:
            for storage_key in filter(self._key_space.owns, list(self._entries)):
                del self._entries[storage_key]


def pickled(value: Any) -> bytes:
    try:
        return dumps(value)
    except Exception as error:
        raise SerializationError(f"A {type(value).__name__} cannot be pickled: {error}") from error


#: What the defaults of hooks make of eight. The rest, test_shelve.py runs by the same defaults.
Defaults = contract_of("Defaults", ComputingContract, SwapsContract, TagsContract)


class TestDictCache(Defaults):
    """Eight hooks; all other operations are the defaults."""

    lacks: ClassVar = {
        "enumerate": "it has no hook for it",
        "statistics": "it has no hook for it",
        "bounds": "it grows for ever",
        "byte_bounds": "it grows for ever",
        "atomic_rename": "the default is made of several steps",
        "processes": "each process has its own dict",
        "persistence": "a dict ends with its process",
        "fork": "a lock that is held while another thread forks stays locked in the child",
    }

    def make_cache(self, location, params):
        return DictCache(location, params)
