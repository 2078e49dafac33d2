"""The compiled forms of the methods that take most of the time, where there are any: see ``_compiled.c``.

They are built with the package where there is a C compiler, and for a CPython with the interpreter's lock alone. The
methods in Python are their equals, and all that there is elsewhere. ``STOREROOM_PURE=1`` in the environment switches
the compiled ones off, if it is set when the process begins. See docs/decisions/0025-compiled-hits.md.
"""

import threading
from _heapq import heappush  # the C module alone
from _pickle import loads  # likewise
from collections import deque
from types import FunctionType
from typing import Any, Final, TypeVar

from storeroom import timeouts
from storeroom.backends.locmem.contents import MemoryContents, MemoryEngine
from storeroom.backends.locmem.values import Enveloped
from storeroom.config.freshness import Freshness, FreshnessOptions
from storeroom.engines.counts import Counters, Sampled
from storeroom.engines.nesting import Alone
from storeroom.eviction import ENCODED, BoundedMap, Entry, Pinned, bounded_map, share
from storeroom.eviction.deadlines import NEVER, NOWHERE, ExpiryIndex
from storeroom.eviction.s3fifo import AdaptiveS3Fifo, Ghosts
from storeroom.keys import TAG_PREFIX
from storeroom.late import compiled_module
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING, OVERLAY_ATTRIBUTE
from storeroom.storage.interruptions import raise_if_foreign

__all__ = ["IS_COMPILED", "hasten", "hasten_tiers", "hot"]

T = TypeVar("T")

_PASSED_BY: Final = ("timeout", "tags", *FreshnessOptions.__annotations__)
"""The arguments of get_or_set() that a hit passes by, whatever they are; the timeout first."""


def _load() -> Any:
    """Return the compiled module, which knows by then the objects that it works on; None where there is none."""
    module = compiled_module("storeroom.backends.locmem._compiled")
    if module is not None:
        module.learn(
            MemoryContents, Entry, Counters, Sampled, BoundedMap, Alone, ExpiryIndex, MemoryEngine,
            type(threading.RLock()), Envelope, Enveloped, Freshness, OVERLAY_ATTRIBUTE, vars(timeouts), loads,
            raise_if_foreign, ENCODED, MISSING, timeouts.DEFAULT_TIMEOUT, _PASSED_BY, timeouts.parse_words, TAG_PREFIX,
            timeouts.BOOT_CLOCK,
        )  # fmt: skip
        module.learn_insert(
            Entry, BoundedMap, AdaptiveS3Fifo, Ghosts, share.Share, ExpiryIndex, deque, Pinned, ENCODED, NEVER, NOWHERE,
            vars(bounded_map), vars(share), heappush,
        )  # fmt: skip
        bounded_map.ordinary_insert = module.insert
    return module


_module: Final = _load()

IS_COMPILED: Final = _module is not None
"""Whether local memory runs its compiled methods."""


def hot(method: T) -> T:
    """Return the compiled form of a method, known by its name, which hands on to it all that is not ordinary."""
    compiled: T = method if _module is None else _module.compiled(method)
    return compiled


def hasten(functions: Any, coroutine_functions: Any, *classes: type) -> None:
    """Compile the calls of @cached's functions: see Handle.hastens."""
    if _module is None:
        return
    _module.learn_calls(functions, *classes)
    for kind in (functions, coroutine_functions):
        method = vars(kind)["__call__"]
        is_own = isinstance(method, FunctionType) and method.__module__ == kind.__module__
        if is_own and not hasattr(method, "__wrapped__"):  # a program may have put its own there, around ours
            kind.__call__ = compiled = hot(method)
            compiled.__set_name__(kind, "__call__")


def hasten_tiers(*classes: type) -> None:
    """Compile get() of tiers, given their class, and that of the nearest one's table."""
    if _module is not None:
        _module.learn_tiers(*classes)
