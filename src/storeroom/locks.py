"""Locks that are held for a few steps, and that their own thread may take again.

A finalizer or a signal's handler may come in the midst of these steps, and cannot give their locks back. So it must not
wait for other threads, as they may need them: see holds_any().
"""

import threading
from operator import methodcaller
from typing import Any, Final

from storeroom.living import Living

__all__ = ["holds_any", "note", "reentrant"]

_noted: Final = Living[Any]()
_is_owned: Final = methodcaller("_is_owned")  # as threading.Condition asks


def reentrant() -> Any:
    """Return an RLock that holds_any() knows of."""
    lock = threading.RLock()
    note(lock)
    return lock


def note(lock: Any) -> None:
    """Let holds_any() know of a lock, or of anything else that tells by ``_is_owned()`` whether this thread has it."""
    _noted.add(lock)


def holds_any() -> bool:
    """Tell whether this thread is within steps under a lock that other threads may wait for."""
    return any(map(_is_owned, _noted))
