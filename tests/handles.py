"""Handles of one storage as different processes have them."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from itertools import product
from typing import Any

from storeroom.backends.locmem import LocMemCache
from storeroom.base import BaseCache
from storeroom.engines.flights import Flights
from storeroom.eviction import BoundedMap
from storeroom.storage.hooks import OVERLAID, OVERLAY_ATTRIBUTE


def put_in_a_process_of_its_own(cache: BaseCache) -> None:
    """Let a handle know nothing of the computations of the others: it meets them in the storage alone."""
    engine = copy(cache.engine)
    engine._flights = {"": Flights()}
    cache.engine = engine


@contextmanager
def without_contexts() -> Iterator[None]:
    """Have no overlay that depends on the context, as a program without memos: other tests have some."""
    kept, OVERLAY_ATTRIBUTE[:] = OVERLAY_ATTRIBUTE[:], []
    for kind in OVERLAID if kept else ():
        del kind._overlay
    try:
        yield
    finally:
        OVERLAY_ATTRIBUTE[:] = kept
        for kind, descriptor in product(OVERLAID, kept):
            kind._overlay = descriptor


def _in_python(name: str) -> Any:
    """Return a method as it is written: inspect sees through a compiled one."""
    return inspect.unwrap(vars(LocMemCache)[name])


class MapInPython(BoundedMap):
    """A map without its compiled insert, which knows its own class alone."""

    __slots__ = ()


class InPython(LocMemCache):
    """Local memory without its compiled methods."""

    def __init__(self, location: str, params: Mapping[str, Any]) -> None:
        super().__init__(location, params)
        self._bounded.__class__ = self._tags.__class__ = MapInPython

    get, aget, get_or_set, aget_or_set, set = map(_in_python, ("get", "aget", "get_or_set", "aget_or_set", "set"))
    _get_together = _in_python("_get_together")
