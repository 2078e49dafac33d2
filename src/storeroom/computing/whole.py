"""A change of the storage that its caller can take back, however he is cut short.

A task may be cancelled while the change is under way, and again at every await of its clean-up, as in a scope of anyio.
A thread may be interrupted anywhere by an exception, as of a signal's handler. So a change is made in a task of its
own, which goes on when its caller is cancelled, and is undone in another, which begins when the change has ended. If
the loop ends as well, or the clean-up is interrupted, a background thread does it.
"""

import sys
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from storeroom.engines import background
from storeroom.storage.hooks import StorageHooks
from storeroom.storage.steps import Steps, arun, run, twin

if TYPE_CHECKING:
    import asyncio

__all__ = ["Undoing", "Whole", "look_again"]

Undoing = Callable[[], Steps[bool]]
"""Makes the steps that undo a change, if it is there; they return whether it was."""

_GRACE_SECONDS: Final = 0.5
"""For how long a caller who is cancelled waits for the clean-up, unless he is cancelled again."""

_LOOKS: Final = (0.0, 0.02, 0.1, 0.5)
"""Seconds before each look of a background thread for a change that a server may have yet to make. The thread does not
sleep in between: the first looks of later callers would wait for it.
"""

_under_way: Final = set[Any]()  # loops keep their tasks weakly


class Whole:
    """Changes of one caller, for ``yield whole, "make", (hook, …)`` and ``yield whole, "undo", (undoing,)``."""

    def __init__(self, hooks: StorageHooks) -> None:
        self._hooks = hooks
        self._change: asyncio.Task[Any] | None = None
        self._is_unsure = False  # whether a change was begun, and its end is not known

    def make(self, hook: str, *args: Any) -> Any:
        """Make a change by a hook, whose answer is returned."""
        self._is_unsure = True
        answer = getattr(self._hooks, hook)(*args)
        self._is_unsure = False
        return answer

    async def amake(self, hook: str, *args: Any) -> Any:
        """See make(); if the caller is cancelled, the change goes on."""
        change = getattr(self._hooks, twin(hook))(*args)
        if self._hooks.async_inline and not hook.endswith("_many"):  # it never waits
            return await change
        self._change = _begun(change)
        return await _asyncio().shield(self._change)

    def undo(self, undoing: Undoing) -> None:
        """Undo the change, if it was made or may yet be."""
        try:
            was_there = run(undoing())
        except BaseException:
            look_again(undoing)
            raise
        if self._is_unsure and not was_there:
            look_again(undoing)

    async def aundo(self, undoing: Undoing) -> None:
        """See undo(); it goes on if the caller is cancelled meanwhile, too."""
        if self._hooks.async_inline and self._change is None:
            self.undo(undoing)
            return
        await _asyncio().wait([_begun(self._undo_after(self._change, undoing))], timeout=_GRACE_SECONDS)

    async def _undo_after(self, change: "asyncio.Task[Any] | None", undoing: Undoing) -> None:
        try:
            if change is not None:
                await _asyncio().wait([change])
            was_there = await arun(undoing())
        except BaseException:  # the loop is ending
            look_again(undoing)
            raise
        if change is not None and change.cancelled() and not was_there:
            look_again(undoing)


def _asyncio() -> Any:
    """Return the module, which a synchronous program need not load."""
    return sys.modules["asyncio"]


def _begun(work: Any) -> "asyncio.Task[Any]":
    task: asyncio.Task[Any] = _asyncio().ensure_future(work)
    _under_way.add(task)
    task.add_done_callback(_end)
    return task


def _end(task: "asyncio.Task[Any]") -> None:
    _under_way.discard(task)
    if not task.cancelled():
        task.exception()  # its caller has it, or is gone


def look_again(undoing: Undoing) -> None:
    """Let a background thread undo a change, whenever it is there within a moment."""
    _look_later(undoing, *_LOOKS)


def _look_later(undoing: Undoing, seconds: float, *more: float) -> None:
    background.submit_later(seconds, partial(_look, undoing, more), copy_context())


def _look(undoing: Undoing, more: Sequence[float]) -> None:
    if not run(undoing()) and more:
        _look_later(undoing, *more)
