"""Engines: the shared and costly part behind the handles, one per kind and location in a process.

Django builds a backend instance per thread and per async context and closes it after each request. Such a handle finds
its engine here, by location. An engine survives ``close()`` and is made whole again in a forked child.

Two bounds keep a process with many locations, one after the other or at once, from holding ever more: of the engines
that have files or connections open, the one used least recently rests; and engines that no handle uses are forgotten.
"""

import atexit
import gc
import os
import threading
from collections.abc import Callable, Hashable
from importlib import import_module
from itertools import count
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar
from weakref import WeakValueDictionary

from storeroom.engines.counts import Counters
from storeroom.engines.nesting import Alone
from storeroom.engines.storms import EvictionWatch
from storeroom.engines.watching import watch
from storeroom.locks import note, reentrant

if TYPE_CHECKING:
    from storeroom.engines.flights import Flights
    from storeroom.engines.remembered import Remembered

__all__ = ["Engine", "close_all", "shared"]

MAX_OPEN: Final = 24
"""Engines of a process with files or connections open. A file cache takes nine descriptors, a database in a file three
for each thread that reads at once, so that half of the usual 1,024 are left to the program."""

_uses = count(1)


def _is_locked(lock: object) -> bool:
    return not repr(lock).startswith("<unlocked")


#: An RLock that tells whether it is taken, as the standard library's does from Python 3.14 on.
_Lock: Final[Any] = type("EngineLock", (type(threading.RLock()),), {"locked": _is_locked})


class Engine:
    """Base of all engines: a lock, counters, and the computations under way.

    Attributes:
        lock: held across a fork, so that a child never inherits a half-made change.
        alone: changes under the lock that are not to be made within one: see nesting.
        counters: of all handles together.
        handles: those that use this engine, by their id.
        bounds: those of the storage, and until when they are known, by the ones that a handle was given.
        parts: engines that are used through this one alone.
        recorder: of the traffic, where ``OPTIONS["advise"]`` asks for that.
        storms: tells of many evictions.
        opened: whether files or connections are open: 0, or a number that grows with each use.
        is_common: whether it was got by shared(), so that all handles of the storage in this process have it.
        can_be_forgotten: whether an engine that no handle uses may be forgotten, as its storage is elsewhere.
        remembered: the removals and refusals of this process, for explain(); None until there are any to remember.
    """

    can_be_forgotten: ClassVar[bool] = False
    parts: tuple["Engine", ...] = ()
    opened = 0
    remembered: "Remembered | None" = None
    is_common = False
    recorder: Any = None

    def __init__(self) -> None:
        """Begin with nothing counted and nothing under way."""
        self.lock = _Lock()
        note(self.lock)
        self.alone = Alone(self.lock)
        self.counters = Counters()
        self._flights: dict[str, Flights] = {}  # at most one entry: setdefault() lets the first thread win
        self.storms = EvictionWatch()
        self.handles = WeakValueDictionary[int, Any]()
        self.bounds: dict[tuple[Any, ...], tuple[Any, float]] = {}

    @property
    def alias(self) -> str:
        """An alias that uses it, for errors; "" where none is known."""
        return next((handle.settings.alias for handle in list(self.handles.values())), "")

    @property
    def flights(self) -> "Flights":
        """The computations of get_or_set(), coalesced among all handles."""
        flights = self._flights.get("")
        if flights is None:
            return self._flights.setdefault("", import_module("storeroom.engines.flights").Flights())
        return flights

    def remember(self, removals: int) -> "Remembered":
        """Remember so many removals, or as many as before if these were more; return the memory."""
        if self.remembered is None:
            with self.lock:
                self.remembered = self.remembered or import_module("storeroom.engines.remembered").Remembered()
        if removals > self.remembered.limit:
            self.remembered.extend(removals)
        return self.remembered

    @property
    def is_used(self) -> bool:
        """Whether there is a handle, beside one for each of those who write the counts."""
        return len(self.handles) > len(self.counters.publishers)

    def look_for_storm(self) -> None:
        """Log an eviction storm, where the engine knows of evictions at any time."""

    def note_evictions(self, number: int, bound: int) -> None:
        """Count evictions, and log a storm; `bound` is the number of entries that there may be."""
        self.counters.evictions += number
        self.storms.look(self.counters.evictions if number else 0, bound, self)

    @property
    def servers_down(self) -> int:
        """The number of servers that are taken for down now."""
        return 0

    def add_counts(self, seconds: float = 0.0) -> int:
        """Add this process's counts to the record of all, if there is one; return the evictions of all, or 0.

        Args:
            seconds: for how long to wait while another process writes.
        """
        return 0

    def counted(self) -> dict[str, Any]:
        """Return the counts by the names of CacheStats, but for those that are zero."""
        return self.counters.as_dict()

    def note_use(self) -> None:
        """Note that files or connections are open, and in use: when they are opened, and now and then."""
        self.opened = next(_uses)

    def note_opening(self) -> None:
        """Note that files or connections were opened. Call it without the lock, as other engines may have to rest."""
        self.note_use()
        opened = sorted(filter(attrgetter("opened"), list(_engines.values())), key=attrgetter("opened"))
        for engine in opened[:-MAX_OPEN]:
            engine.rest()

    def rest(self) -> None:
        """Close what nobody uses at this moment; nothing is raised."""
        self.close()

    def before_fork(self) -> None:
        """Get ready for a fork, the lock being held."""

    def after_fork_in_parent(self) -> None:
        """Go on as before."""

    def after_fork_in_child(self) -> None:
        """Make the engine whole in a child process, where no other thread of the parent lives on."""
        for flights in self._flights.values():
            flights.reset()
        self.counters.reset()

    def close(self) -> None:
        """Give back all resources; the next use takes them again."""


EngineType = TypeVar("EngineType", bound=Engine)

_engines: dict[tuple[type[Engine], Hashable], Any] = {}
_registry_lock = reentrant()  # the collector may run a finalizer under it that asks for an engine
watch.engines = lambda: list(_engines.values())
_many = 2 * MAX_OPEN  # engines, from which on those that no handle uses are looked for


def shared(kind: type[EngineType], location: Hashable, make: Callable[[], EngineType]) -> EngineType:
    """Return this process's engine of a kind at a location, made on first use.

    Args:
        kind: the engine's class.
        location: its identity: a name, a resolved path, a URL, or another engine that it belongs to.
        make: called without arguments if there is none yet.
    """
    if len(_engines) >= _many and (kind, location) not in _engines:
        gc.collect()  # a handle with a near tier is in a cycle; without the lock, as what is collected may run any code
    with _registry_lock:
        engine: EngineType | None = _engines.pop((kind, location), None)
        if engine is None:
            if len(_engines) >= _many:
                _forget_unused()
            engine = make()
            engine.is_common = True
        _engines[kind, location] = engine  # behind those that were asked for before
        return engine


def _forget_unused() -> None:
    """Close and forget engines that no handle uses; those asked for last may be about to get one."""
    global _many  # noqa: PLW0603 -- by doubling it, looking costs each new engine the same
    used, look_at = set[Engine](), [engine for engine in _engines.values() if engine.is_used]
    while look_at:
        engine = look_at.pop()
        used.add(engine)
        look_at += set(engine.parts) - used
    for name, engine in list(_engines.items())[:-MAX_OPEN]:
        if engine.can_be_forgotten and engine not in used:
            del _engines[name]
            engine.close()  # under the lock: two of one place must not be open at once
    _many = 2 * max(MAX_OPEN, len(_engines))


def close_all() -> None:
    """Close every engine of this process: at exit, or where a test wants a clean slate."""
    with _registry_lock:
        engines = list(_engines.values())
    for engine in engines:
        engine.close()


def _before_fork() -> None:
    _registry_lock.acquire()
    for engine in _engines.values():
        engine.lock.acquire()
        engine.before_fork()


def _after_fork_in_parent() -> None:
    for engine in _engines.values():
        engine.after_fork_in_parent()
        engine.lock.release()
    _registry_lock.release()


def _after_fork_in_child() -> None:
    for engine in _engines.values():
        engine.lock.release()
        engine.after_fork_in_child()
    _registry_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )

atexit.register(close_all)
