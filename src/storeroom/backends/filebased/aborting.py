"""A write transaction undone while the other threads of this process begin none.

LMDB's binding waits there until no thread is at work in the environment. Threads that read all the time, and wait for
Python's lock in turn, leave no such moment by themselves, for many seconds.
"""

import threading
from typing import Any

__all__ = ["abort"]


def abort(engine: Any, transaction: Any) -> None:
    """Undo a write transaction of an Environment, or one within it; its caller has this process's turn."""
    is_over, before = threading.Lock(), engine.begin

    def begin_later(**how: bool) -> Any:
        with is_over:
            return engine.begin(**how)

    with is_over:
        try:
            engine.begin = begin_later
            transaction.abort()
        finally:
            if engine.begin is begin_later:  # else it was closed, or is about to be
                engine.begin = before
