"""The end of a block of ``with``, and whether Python has yet to come to it.

An exception that comes between the body of a block and the first instruction of `__exit__` leaves it out. But Python
keeps `__exit__`, as it has read it from the block's object, on the stack of the frame that runs the block, and drops it
however the block is left. So it reads an object of its own here, which nobody else refers to, not even a traceback.
"""

from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import ReferenceType, ref

__all__ = ["Ending"]


class Ending:
    """`__exit__` or `__aexit__` of a class, whose objects have `_ending`, None at first, and `_torn()`.

    `_ending` is alive while the block is in progress, and None after a regular end: Python drops what is raised in the
    call of `_torn()`. Where the block is entered without ``with``, as by ``ExitStack``, there is none.

    Args:
        end: the method.
        is_awaited: whether it is a coroutine function: then the coroutine takes the place of `__aexit__` on that stack.
    """

    def __init__(self, end: Callable[..., Any], *, is_awaited: bool = False) -> None:
        self._end, self._is_awaited = end, is_awaited

    def __get__(self, block: Any, kind: type | None = None) -> Callable[..., Any]:
        if block is None:
            return self._end
        ending = partial(self._await if self._is_awaited else self._end, block)
        if not block._is_entered:
            _watch(block, ending)
        return ending

    def _await(self, block: Any, *error: Any) -> Any:
        coroutine = self._end(block, *error)
        if block._ending is not None:
            _watch(block, coroutine)
        return coroutine


def _watch(block: Any, ending: Any) -> None:
    block._ending = ref(ending, partial(_tell, ref(block)))


def _tell(block: "ReferenceType[Any]", ending: object) -> None:
    if (torn := block()) is not None and torn._ending is ending:
        torn._torn()
