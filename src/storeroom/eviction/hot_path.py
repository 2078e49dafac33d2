"""The compiled insert of a new key, where there is one: see ``_compiled.c``, and docs/decisions/0025-compiled-hits.md."""

import os
from _heapq import heappush  # the C module alone
from collections import deque
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeAlias

from storeroom.eviction import share
from storeroom.eviction.deadlines import NEVER, NOWHERE, ExpiryIndex
from storeroom.eviction.entry import Entry
from storeroom.eviction.s3fifo import AdaptiveS3Fifo, Ghosts

__all__ = ["Insert", "compiled", "insert_of"]

Insert: TypeAlias = Callable[..., bool]
"""Does as BoundedMap.insert(), which is its first argument's; False if that is no ordinary case: nothing was done then."""


def compiled(name: str) -> Any:
    """Return a compiled module; None where it was not built, or ``STOREROOM_PURE=1`` asks for none."""
    if os.environ.get("STOREROOM_PURE", "0") not in {"", "0"}:
        return None
    try:
        return import_module(name)
    except ModuleNotFoundError:  # it was not built; one that is broken is an error
        return None


def insert_of(terms: dict[str, Any]) -> Insert | None:
    """Return the compiled insert for the map of a module with these names, if there is one."""
    module = compiled("storeroom.eviction._compiled")
    if module is None:
        return None
    module.learn(
        Entry, terms["BoundedMap"], AdaptiveS3Fifo, Ghosts, share.Share, ExpiryIndex, deque, terms["Pinned"],
        terms["ENCODED"], NEVER, NOWHERE, terms, vars(share), heappush,
    )  # fmt: skip
    insert: Insert = module.insert
    return insert
