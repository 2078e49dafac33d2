"""Finalizers that the garbage collector runs in the midst of an operation, and that use the same cache."""

import asyncio
import gc
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from time import monotonic, sleep
from typing import Any, ClassVar, Final

from storeroom.base import BaseCache
from storeroom.engines import background
from storeroom.exceptions import KeyNotFoundError, NotSupportedError, ReentrantUseError
from storeroom.memos import memo
from storeroom.testing.capabilities import needs
from storeroom.testing.contract.locks import lock_of
from storeroom.testing.contract.suite import Driver, Suite, run_to_its_end
from storeroom.testing.processes import Child
from storeroom.transactions import transaction

__all__ = ["FinalizersContract"]

Operations = Sequence[tuple[str, Callable[[Any], Any]]]

MOMENTS: Final = (1, 3, 7, 12, 19, 30, 45)
"""Objects that an operation makes until the collector runs: CPython looks for garbage when so many are new."""

_OWN: Final[Operations] = (
    ("set", lambda cache: cache.set("own", [1])),
    ("get", lambda cache: cache.get("k")),
    ("get_many", lambda cache: cache.get_many(["k", "n", "own"])),
    ("add", lambda cache: cache.add("added", [1])),
    ("delete", lambda cache: cache.delete("k")),
    ("incr", lambda cache: cache.incr("n", default=1)),
    ("get_or_set", lambda cache: cache.get_or_set("m", lambda: [2])),
    ("set with tags", lambda cache: cache.set("t", 1, tags=["t"])),
    ("invalidate_tags", lambda cache: cache.invalidate_tags("t")),
    ("touch", lambda cache: cache.touch("k", 50)),
    ("lock", lambda cache: cache.lock("l", timeout=1).acquire(blocking=False)),
    ("set_many", lambda cache: cache.set_many({"k": 1, "own": [2]})),
    ("delete_many", lambda cache: cache.delete_many(["m", "own"])),
    ("clear", lambda cache: cache.clear()),
)
"""Uses of the cache, of which each finalizer makes the next one."""


PATIENCE: Final = 20.0
"""Seconds after which a process is taken for one that hangs."""


@needs("store")
class FinalizersContract(Suite):
    """The collector runs a program's own code at any moment."""

    def test_a_finalizer_may_use_the_cache_in_the_midst_of_an_operation(self, location: str, mode: str) -> None:
        """It waits for nothing, and the operation that it interrupts goes on."""
        assert Child(type(self), location, {}, run_body, mode, talks=True).told(PATIENCE) > 0


def run_body(cache: BaseCache, mode: str, pipe: Any) -> int:
    """Run the test in a process of its own; return how many finalizers have used the cache."""
    coroutine = collect_in_the_midst(Driver(cache, mode), pipe.send)
    return asyncio.run(coroutine) if mode == "async" else run_to_its_end(coroutine)


class Circle:
    """Garbage: it refers to itself, so that the collector alone finds it. Its finalizer uses the cache."""

    cache: ClassVar[BaseCache | None] = None
    runs: ClassVar[int] = 0
    under_way: ClassVar[list[str]] = []
    errors: ClassVar[list[str]] = []

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        name, operation = _OWN[Circle.runs % len(_OWN)]
        Circle.under_way.append(name)  # before the look at the cache: see no_more()
        try:
            if (cache := Circle.cache) is not None:
                Circle.runs += 1
                # In a context of its own: CPython 3.11 may look for garbage while it sets a context variable, and goes
                # on with what is freed if a finalizer sets another one meanwhile.
                copy_context().run(operation, cache)
        except (KeyNotFoundError, NotSupportedError, ReentrantUseError):
            pass  # told clearly
        except BaseException as error:
            Circle.errors.append(f"{name}: {error!r}")
            raise
        finally:
            Circle.under_way.remove(name)

    @classmethod
    def no_more(cls) -> None:
        """Let those end that the collector runs in other threads, such as a near cache's; none begins."""
        cls.cache = None
        end = monotonic() + PATIENCE / 2
        while cls.under_way and monotonic() < end:
            sleep(0.001)
        assert cls.under_way == []


async def collect_in_the_midst(cache: Driver, tell: Callable[[str], None]) -> int:
    """Let the collector run at many moments of each operation; return how many finalizers have used the cache."""
    Circle.cache = cache.cache
    before = gc.get_threshold()
    try:
        for block in (None, memo, transaction):
            for name, operation in _operations(cache):
                tell(f"{name}, within {block.__name__}()" if block else name)
                for moment in MOMENTS if block is None else MOMENTS[1::3]:
                    if block is None:
                        await _at(moment, operation)
                    else:
                        with block():
                            await _at(moment, operation)
    finally:
        gc.set_threshold(*before)
        gc.collect()
        Circle.no_more()
    tell("the end")
    assert Circle.errors == []
    assert background.drain()
    getattr(cache.cache, "_check_invariants", lambda: None)()
    await cache.set("k", [7])
    assert await cache.get("k") == [7]
    assert await cache.get_or_set("new", lambda: 8) == 8
    assert await cache.add("new to add", 1) is True
    return Circle.runs


async def _at(moment: int, operation: Callable[[], Any]) -> None:
    """Make an operation, with the collector at a moment of it."""
    gc.set_threshold(0)
    for _ in range(3):
        Circle()
    gc.set_threshold(moment, 1000, 1000)
    with suppress(KeyNotFoundError):  # a finalizer has removed it
        await operation()
    gc.set_threshold(0)


def _operations(cache: Driver) -> Sequence[tuple[str, Callable[[], Any]]]:
    return (
        ("set", lambda: cache.set("k", [1])),
        ("set, over one", lambda: cache.set("k", [2])),
        ("set with tags", lambda: cache.set("t", [1], tags=["t"])),
        ("get", lambda: cache.get("k")),
        ("get_many", lambda: cache.get_many(["k", "t", "n"])),
        ("set_many", lambda: cache.set_many({"k": [1], "l": 2})),
        ("add", lambda: cache.add("added", [3])),
        ("touch", lambda: cache.touch("k", 100)),
        ("incr", lambda: cache.incr("n", 1, default=1)),
        ("incr_version", lambda: cache.incr_version("k")),
        ("get_or_set", lambda: cache.get_or_set("m", lambda: [1])),
        ("get_or_set_many", lambda: cache.get_or_set_many(["m", "o"], lambda keys: dict.fromkeys(keys, 1))),
        ("refresh", lambda: cache.refresh("m", lambda: [2])),
        ("lock", lambda: lock_of(cache, "l", timeout=1).acquire(blocking=False)),
        ("delete", lambda: cache.delete("k")),
        ("delete_many", lambda: cache.delete_many(["k", "m"])),
        ("invalidate_tags", lambda: cache.invalidate_tags("t")),
        ("clear", cache.clear),
    )
