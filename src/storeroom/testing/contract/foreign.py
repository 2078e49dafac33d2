"""A program's own code, wherever the cache runs it, may use the cache: it never runs under a lock.

Each test has a process of its own, which is ended if it hangs, and tells where it does.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, copy_context
from queue import SimpleQueue
from typing import Any, ClassVar, TypeAlias

from storeroom import timeouts
from storeroom.base import BaseCache
from storeroom.exceptions import KeyNotFoundError, NotSupportedError
from storeroom.memos import memo
from storeroom.storage.hooks import Swap
from storeroom.testing.capabilities import needs
from storeroom.testing.contract.suite import Driver, Suite, run_to_its_end
from storeroom.testing.contract.swaps import swap_many
from storeroom.testing.processes import Child
from storeroom.transactions import transaction

__all__ = ["ForeignCodeContract"]

Operations: TypeAlias = dict[str, Callable[[], Any]]

PATIENCE = 20.0
"""Seconds after which a process is taken for one that hangs."""


class Busy:
    """Code that uses the cache, in another thread too, and keeps count of it; not within itself.

    The other thread belongs to the same memo or transaction. It tells of a lock that may be taken again by its owner.
    """

    cache: ClassVar[BaseCache | None] = None
    runs: ClassVar[int] = 0
    _is_running: ClassVar[bool] = False
    _jobs: ClassVar[SimpleQueue[tuple[Context, Callable[[], object], Any]]] = SimpleQueue()

    @classmethod
    def begin(cls, cache: BaseCache) -> None:
        """Use this cache from now on."""
        cls.cache = cache
        threading.Thread(target=cls._work, daemon=True).start()

    @classmethod
    def _work(cls) -> None:
        while True:
            context, job, done = cls._jobs.get()
            try:
                context.run(job)
            finally:
                done.release()

    @classmethod
    def run(cls) -> None:
        """Use the cache for all kinds of things."""
        cache = cls.cache
        if cache is None or cls._is_running:
            return
        cls._is_running = True
        try:
            cls.runs += 1
            cls._use(cache)
            done = threading.Lock()
            done.acquire()
            cls._jobs.put((copy_context(), lambda: cls._use(cache), done))
            done.acquire()
        finally:
            cls._is_running = False

    @classmethod
    def _use(cls, cache: BaseCache) -> None:
        cache.set("busy", cls.runs)
        cache.delete("busy")


class Lazy:
    """A reference, as ORMs and registries pickle them: it looks itself up when it is written, and when it is read."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        Busy.run()
        return look_up, (self.number,)

    def __eq__(self, other: object) -> bool:
        Busy.run()
        return isinstance(other, Lazy) and other.number == self.number

    __hash__ = object.__hash__

    def __sizeof__(self) -> int:
        Busy.run()
        return object.__sizeof__(self)


def look_up(number: int) -> Lazy:
    """Make a Lazy when it is read."""
    Busy.run()
    return Lazy(number)


class Measure(float):
    """A number of a class of its own."""

    def __reduce__(self) -> Any:
        Busy.run()
        return measure, (float(self),)


def measure(number: float) -> Measure:
    """Make a Measure when it is read."""
    Busy.run()
    return Measure(number)


class Handled:
    """An object that tells the cache when it is freed."""

    def __del__(self) -> None:
        Busy.run()


def key_of(key: object, prefix: str, version: object) -> str:
    """Make a storage key, with a look into the cache."""
    Busy.run()
    return f"{prefix}:{version}:{key}"


@needs("store", "objects")
class ForeignCodeContract(Suite):
    """Values, keys and computations that use the cache themselves."""

    def test_a_value_may_use_the_cache_when_it_is_written_and_read(self, location: str, mode: str) -> None:
        """In no operation a value's own code runs under a lock that the same cache needs."""
        runs = self._used_apart(location, mode, {}, write_and_read)
        assert runs > 20 or "isolation" in self.lacks

    def test_a_value_may_use_the_cache_when_it_is_freed(self, location: str, mode: str) -> None:
        """A value that is overwritten, deleted or evicted runs its own code without a lock."""
        self._used_apart(location, mode, {"OPTIONS": self.room_for(3)}, free_all)

    def test_a_key_function_may_use_the_cache(self, location: str, mode: str) -> None:
        """KEY_FUNCTION runs without a lock."""
        assert self._used_apart(location, mode, {"KEY_FUNCTION": key_of}, make_keys) > 20

    def _used_apart(self, location: str, mode: str, params: dict[str, Any], body: Callable[..., Any]) -> Any:
        """Run a test in a process of its own; return how often the foreign code ran."""
        return Child(type(self), location, params, run_body, body, mode, talks=True).told(PATIENCE)


def run_body(cache: BaseCache, body: Callable[..., Coroutine[Any, Any, Any]], mode: str, pipe: Any) -> int:
    """Run a test in a process of its own; return how often the foreign code ran."""
    Busy.begin(cache)
    coroutine = body(Driver(cache, mode), pipe.send)
    if mode == "async":
        asyncio.run(coroutine)
    else:
        run_to_its_end(coroutine)
    Busy.cache = None
    return Busy.runs


async def write_and_read(cache: Driver, tell: Callable[[str], None]) -> None:
    """Do everything that there is to do with a value; then within a memo, and within a transaction."""
    operations = {**_simple(cache), **_computed(cache)}
    await cache.set("n", Measure(1))
    for name, operation in operations.items():
        tell(name)
        await _tolerant(operation)
    for block in (memo, transaction):
        await cache.set_many({"k": Lazy(1), "l": Lazy(1), "n": Measure(1)})
        with block():
            for name, operation in operations.items():
                tell(f"{name}, within {block.__name__}()")
                await _tolerant(operation)
            tell(f"the end of {block.__name__}()")
    tell("the end")
    await cache.set("k", Lazy(7))
    assert (await cache.get("k")).number == 7


def _simple(cache: Driver) -> Operations:
    return {
        "set": lambda: cache.set("k", Lazy(1)),
        "set, over one": lambda: cache.set("k", Lazy(2)),
        "get": lambda: cache.get("k"),
        "get_many": lambda: cache.get_many(["k", "l"]),
        "set_many": lambda: cache.set_many({"k": Lazy(1), "l": Lazy(2)}),
        "add": lambda: cache.add("k", Lazy(3)),
        "add, where none is": lambda: cache.add("added", Lazy(3)),
        "touch": lambda: cache.touch("k", 100),
        "has_key": lambda: cache.has_key("k"),
        "ttl": lambda: cache.ttl("k"),
        "incr": lambda: cache.incr("n", 1),
        "incr, of a number that was set": lambda: counted(cache),
        "incr with a default": lambda: cache.incr("n", 1, default=1),
        "incr_version": lambda: cache.incr_version("k"),
    }


async def counted(cache: Driver) -> None:
    """Count on a number that runs code of its own, also within the transaction that has set it."""
    await cache.set("m n", Measure(1))
    await cache.incr("m n", 1)


def _computed(cache: Driver) -> Operations:
    async def later(value: Any) -> Any:
        return value

    def source(value: Any) -> Callable[[], Any]:
        return (lambda: later(value)) if cache.is_async else (lambda: value)

    def sources(keys: list[str]) -> Any:
        return source({key: Lazy(1) for key in keys})()

    def set_in_between() -> Any:
        cache.cache.set("meanwhile", Lazy(1))
        return source(Lazy(2))()

    def swaps() -> dict[str, Swap]:
        until = timeouts.now() + 100
        return {"l": Swap(Lazy(2), Lazy(3), until), "m": Swap(1, 2, until)}

    return {
        "get_or_set": lambda: cache.get_or_set("m", source(Lazy(1))),
        "get_or_set, stored": lambda: cache.get_or_set("m", source(Lazy(1))),
        "get_or_set, set meanwhile": lambda: cache.get_or_set("meanwhile", set_in_between),
        "get_or_set with tags": lambda: cache.get_or_set("t", source(Lazy(1)), tags=["t"], stale_while_revalidate=9),
        "get_or_set_many": lambda: cache.get_or_set_many(["l", "o", "p"], sources),
        "refresh": lambda: cache.refresh("m", source(Lazy(2))),
        "refresh with tags": lambda: cache.refresh("t", source(Lazy(2)), tags=["t"]),
        "refresh, of an entry that was set": lambda: cache.refresh("l", source(Lazy(2))),
        "touch with tags": lambda: cache.touch("t", 100),
        "swap_many": lambda: swap_many(cache, swaps()),
        "invalidate_tags": lambda: cache.invalidate_tags("t"),
        "get, invalidated": lambda: cache.get("t"),
        "delete": lambda: cache.delete("l"),
        "delete_many": lambda: cache.delete_many(["m", "o"]),
        "clear": cache.clear,
    }


async def _tolerant(operation: Callable[[], Any]) -> None:
    with suppress(KeyNotFoundError):  # nothing is left to be counted or moved
        await operation()


async def make_keys(cache: Driver, tell: Callable[[str], None]) -> None:
    """Use keys in every way."""
    for operation in ("set", "get", "add", "touch", "has_key", "ttl", "incr_version", "delete"):
        tell(operation)
        await cache.set("k", 1)
        await getattr(cache, operation)(*(["k", 1] if operation in {"set", "add"} else ["k"]))
    tell("others")
    await cache.set("n", 1)
    await cache.incr("n")
    await cache.get_or_set("m", int)
    await cache.set("t", 1, tags=["t"])
    await cache.invalidate_tags("t")
    await cache.get_many(["k", "n"])
    await cache.set_many({"k": 1, "n": 2})
    await cache.delete_many(["k", "n"])
    tell("keys and clear")
    with suppress(NotSupportedError):
        await cache.keys()
    await cache.clear()


async def free_all(cache: Driver, tell: Callable[[str], None]) -> None:
    """Let go of values in every way."""
    tell("overwriting")
    for _ in range(3):
        await cache.set("k", Handled())
    await cache.set("k", 1)
    tell("get_or_set")
    await cache.get_or_set("k2", Handled)
    await cache.refresh("k2", Handled)
    tell("deleting")
    await cache.delete("k2")
    await cache.set_many({"a": Handled(), "b": Handled()})
    await cache.delete_many(["a", "b"])
    tell("evicting")
    for number in range(30):
        await cache.set(f"k{number}", Handled())
        await cache.set_many({f"a{number}": Handled(), f"b{number}": Handled()})
        await cache.add(f"c{number}", Handled())
    tell("expiring")
    await cache.set("short", Handled(), timeout=0.001)
    await cache.set("long", Handled())
    tell("moving")
    await cache.set("moved", Handled(), version=2)
    await cache.set("moved", Handled())
    await _tolerant(lambda: cache.incr_version("moved"))  # it may be evicted by then
    tell("a memo")
    with memo():
        await cache.set("m", Handled())
        await cache.get("m")
        await cache.set("m", Handled())
    tell("clearing")
    await cache.clear()
    tell("the end")
    await cache.set("k", 7)
    assert await cache.get("k") == 7
