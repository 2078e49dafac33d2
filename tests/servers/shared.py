"""One server of a kind for all test modules of a process.

A fixture that several modules import is a fixture of each of them to pytest, which would start a server for each.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, TypeVar

__all__ = ["shared", "stop_shared"]

T = TypeVar("T")

_stack = ExitStack()
_running: dict[str, Any] = {}


def shared(kind: str, start: Callable[[], AbstractContextManager[T]]) -> T:
    """Return the process's server of a kind; start it when it is first asked for."""
    if kind not in _running:
        _running[kind] = _stack.enter_context(start())
    server: T = _running[kind]
    return server


def stop_shared() -> None:
    """Stop all of them."""
    _running.clear()
    _stack.close()
