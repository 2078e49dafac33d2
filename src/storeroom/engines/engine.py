"""Engines: the shared and costly part behind the handles, one per kind and location in a process.

Django builds a backend instance per thread and per async context and closes it after each request. Such a handle finds
its engine here, by location. An engine survives ``close()`` and is made whole again in a forked child.
"""

import atexit
import os
import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from storeroom.engines.counts import Counters
from storeroom.engines.flights import Flights

__all__ = ["Engine", "close_all", "shared"]


class Engine:
    """Base of all engines: a lock, counters, and the computations under way.

    Attributes:
        lock: held across a fork, so that a child never inherits a half-made change.
        counters: of all handles together.
        flights: computations of get_or_set(), coalesced among all handles.
    """

    def __init__(self) -> None:
        """Begin with nothing counted and nothing under way."""
        self.lock = threading.Lock()
        self.counters = Counters()
        self.flights = Flights()

    def before_fork(self) -> None:
        """Get ready for a fork, the lock being held."""

    def after_fork_in_parent(self) -> None:
        """Go on as before."""

    def after_fork_in_child(self) -> None:
        """Make the engine whole in a child process, where no other thread of the parent lives on."""
        self.flights.reset()

    def close(self) -> None:
        """Give back all resources; the next use takes them again."""


EngineType = TypeVar("EngineType", bound=Engine)

_engines: dict[tuple[type[Engine], Hashable], Any] = {}
_registry_lock = threading.Lock()


def shared(kind: type[EngineType], location: Hashable, make: Callable[[], EngineType]) -> EngineType:
    """Return this process's engine of a kind at a location, made on first use.

    Args:
        kind: the engine's class.
        location: its identity: a name, a resolved path, a URL, or another engine that it belongs to.
        make: called without arguments if there is none yet.
    """
    with _registry_lock:
        engine: EngineType | None = _engines.get((kind, location))
        if engine is None:
            engine = _engines[kind, location] = make()
        return engine


def close_all() -> None:
    """Close every engine of this process: at exit, or where a test wants a clean slate."""
    for engine in list(_engines.values()):
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
