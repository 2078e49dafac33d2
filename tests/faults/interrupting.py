"""Operations that an exception cuts short, at a chosen point or at random moments.

A signal's handler runs at the beginning of a function, or after a call has returned: its exception comes there, and so
does one that another thread sets. `cut_short()` raises at one of these points, so that a test can go through them all.

``make interrupted`` does it thousands of times at random moments, on each storage.
"""

import ctypes
import os
import re
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from storeroom.backends.connections import Connections, Right
from storeroom.transactions import transaction

__all__ = [
    "OPERATIONS", "Interrupted", "assert_whole", "by_signal", "by_thread", "cut_in", "cut_short", "in_a_fork", "points",
]  # fmt: skip

#: Code in which Python prints and drops what is raised: destructors, generators that are closed, the collector's hooks.
_DROPPING = {"__del__", "_remove", "_torn", "<genexpr>", "gc_callback", "_get_or_create_collector"}


class Interrupted(Exception):  # noqa: N818 -- it stands for what a program raises, as Celery's soft limit
    """Stands for the exception of a handler: not even a BaseException."""


def by_signal() -> None:
    signal.raise_signal(signal.SIGINT)


def by_thread() -> None:
    """Set the exception as another thread would: it comes where Python looks next."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), ctypes.py_object(Interrupted))


def in_a_fork(work: Callable[[], object]) -> None:
    """Do a test's work in a forked child; raise AssertionError if it fails there, which has been printed.

    CPython 3.11 may go on looking for an exception that was set by a thread, after it has come: under a profile
    function, as in cut_short(), it never goes on then. A child takes that along.
    """
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 -- whatever it is, the parent is told
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def cut_short(operation: Callable[[], object], at: int, comes: Callable[[], None] = by_signal) -> tuple[bool, str]:
    """Run an operation; raise Interrupted at the point of this number. Return whether it came so far, and where to."""
    left, where = at, ""

    def interrupt(*_: object) -> None:
        raise Interrupted

    def look(frame: Any, event: str, argument: Any) -> None:
        nonlocal left, where
        if event in {"call", "c_return"} and argument is not sys.setprofile and not _is_dropping(frame):
            left -= 1
            if left < 0 and not where:
                where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name} {event}"
                comes()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        sys.setprofile(look)
        try:
            operation()
        finally:
            sys.setprofile(None)
    except Interrupted:
        return True, where
    finally:
        signal.signal(signal.SIGINT, before)
    assert not where, f"What was raised at {where} has not reached the caller."
    return False, ""


def cut_in(files: str, operation: Callable[[], object], at: int) -> int:
    """Run an operation; raise Interrupted at the instruction of this number in files whose name the pattern finds.

    Python looks for signals also after it has called a class, which cut_short() does not see. Return the number of
    instructions there were up to then.
    """
    left, where = at, ""

    def interrupt(*_: object) -> None:
        raise Interrupted

    def look(frame: Any, event: str, _: object) -> Any:
        nonlocal left, where
        if where or not re.search(files, frame.f_code.co_filename) or _is_dropping(frame):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left < 0:
                where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
                by_signal()
        return look

    before, traced_by = signal.signal(signal.SIGINT, interrupt), sys.gettrace()
    try:
        sys.settrace(look)
        try:
            operation()
        finally:
            sys.settrace(traced_by)
    except Interrupted:
        return at - left
    finally:
        signal.signal(signal.SIGINT, before)
    assert not where, f"What was raised at {where} has not reached the caller."
    return at - left


def _is_dropping(frame: Any) -> bool:
    # The standard library's callbacks of weak references have a common name. redis-py counts the connections that it
    # closes, and keeps to itself whatever comes meanwhile.
    while frame is not None and frame.f_code.co_name not in _DROPPING and frame.f_code.co_filename != weakref.__file__:
        frame = frame.f_back
    return frame is not None


def points(operation: Callable[[], object], most: int) -> Iterator[int]:
    """Yield the numbers of an operation's points, or so many of them, spread evenly."""
    count = 0

    def look(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in {"call", "c_return"}

    sys.setprofile(look)
    try:
        operation()
    finally:
        sys.setprofile(None)
    step = max(1.0, count / most)
    yield from (int(number * step) for number in range(int(count / step)))


def _transaction(cache: Any, number: int) -> None:
    with transaction():
        cache.set("held", number)
        cache.delete("held too")


#: Operations on few keys, each with a number of its own.
OPERATIONS: dict[str, Callable[[Any, int], object]] = {
    "set": lambda cache, number: cache.set(f"k{number % 40}", [number], timeout=(None, 30, 0.5)[number % 3]),
    "add": lambda cache, number: cache.add(f"k{number % 40}", number),
    "get": lambda cache, number: cache.get(f"k{number % 40}"),
    "delete": lambda cache, number: cache.delete(f"k{number % 40}"),
    "touch": lambda cache, number: cache.touch(f"k{number % 40}", 10 + number % 20),
    "incr": lambda cache, number: cache.incr("n", default=0),
    "get_many": lambda cache, number: cache.get_many([f"k{number % 40}", "n", "absent"]),
    "set_many": lambda cache, number: cache.set_many({f"k{(number + i) % 40}": (number, i) for i in range(5)}),
    "delete_many": lambda cache, number: cache.delete_many([f"k{number % 40}", "absent"]),
    "tagged": lambda cache, number: cache.set("tagged", number, tags=["t"]),
    "invalidate_tags": lambda cache, number: cache.invalidate_tags("t"),
    "transaction": _transaction,
}


def assert_whole(connections: Connections[Any]) -> None:
    """Raise AssertionError if a slot is lost, or a connection open that is not idle; nobody uses one now."""
    opened = [slot for slot in connections._alive if not isinstance(slot, Right)]
    assert len(opened) == connections.idle
    taken = [connections.take()[0] for _ in range(connections._limit)]
    assert len({id(connection) for connection in taken}) == connections._limit
    for connection in taken:
        connections.give_back(connection)
    assert (connections.idle, len(connections._slots)) == (connections._limit, connections._limit)
