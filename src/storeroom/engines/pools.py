"""Threads that work for a thread which waits for them.

A worker of a thread pool has a context of its own: it cannot be seen there that it works for a computation. Where one
follows a flight for longer than a moment, the threads are looked at: the future that a worker works for is in its
frames, and the future or thread that another thread waits for is in that one's.

Source: CPython, Lib/concurrent/futures/thread.py (`_WorkItem.run`), _base.py (`Future.result`) and threading.py.
"""

import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, thread, wait
from types import CodeType, FrameType
from typing import Any, Final

__all__ = ["works_for"]

_WORKS: Final[Mapping[CodeType, str]] = {thread._WorkItem.run.__code__: "self"}  # noqa: SLF001 -- see above
_WAITS: Final[Mapping[CodeType, str]] = {
    Future.result.__code__: "self",
    Future.exception.__code__: "self",
    wait.__code__: "fs",
    threading.Thread.join.__code__: "self",
}
"""Functions that work, or wait, and the variable in which they have the work, or what they wait for."""


def works_for(waiting: int) -> bool:
    """Tell whether this thread works for another, by its identifier, which waits for it, or for one that waits for it.

    Both are known by what they run at this moment; a wait for anything but futures and threads is not seen.
    """
    frames = sys._current_frames()  # noqa: SLF001 -- documented "for specialized purposes"
    threads = {thread.ident: thread for thread in threading.enumerate()}
    awaited = {number: list(_found(frame, _WAITS)) for number, frame in frames.items()}
    seen, to_do = set[int](), [threading.get_ident()]
    while to_do:
        worker = to_do.pop()
        if worker == waiting and seen:
            return True
        if worker in seen or worker not in frames:
            continue
        seen.add(worker)
        work = [threads.get(worker), *(item.future for item in _found(frames[worker], _WORKS))]
        to_do += [number for number, things in awaited.items() if any(thing in work for thing in things)]
    return False


def _found(frame: FrameType | None, codes: Mapping[CodeType, str]) -> Iterator[Any]:
    """Yield what the frames of these functions have in their variables, from one frame on outwards."""
    while frame is not None:
        if (name := codes.get(frame.f_code)) is not None:
            value = frame.f_locals.get(name)
            yield from value if isinstance(value, set | list) else () if value is None else (value,)
        frame = frame.f_back
