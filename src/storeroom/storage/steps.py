"""Work that is written once and carried out by a synchronous or an asynchronous caller.

The work is a generator: it yields its next step, as an object, the name of a method and the arguments, and gets the
result sent back, or the error thrown in. The asynchronous driver calls the method's twin: ``_aget`` for ``_get``.
"""

import sys
import time
from _contextvars import Context, copy_context
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any, Final, TypeAlias, TypeVar

__all__ = ["Step", "Steps", "Submit", "arun", "hand_over_to", "parts", "pause", "run", "twin"]

T = TypeVar("T")

Step: TypeAlias = tuple[object, str, tuple[Any, ...]]
Steps: TypeAlias = Generator[Step, Any, T]
Submit: TypeAlias = Callable[[Callable[[], object], Context], bool]


@cache
def twin(name: str) -> str:
    """Return the name of a method's asynchronous twin.

    >>> twin("get_many"), twin("_get_many")
    ('aget_many', '_aget_many')
    """
    return f"_a{name[1:]}" if name.startswith("_") else f"a{name}"


def run(steps: Steps[T], error: BaseException | None = None) -> T:
    """Carry the steps out, and return their result; with an error, from where they are, which they are told of.

    They are told of whatever cuts them short, also between two of them: a signal's handler may raise anywhere.
    """
    try:
        target, name, args = next(steps) if error is None else steps.throw(error)
        while True:
            try:
                result = getattr(target, name)(*args)
            except BaseException as raised:  # noqa: BLE001 -- the generator decides, and raises it again
                target, name, args = steps.throw(_told(raised))
            else:
                target, name, args = steps.send(result)
    except StopIteration as stop:
        returned: T = stop.value
        return returned
    except _Ended as ended:
        raise ended.error from None
    except BaseException as raised:
        if getattr(steps, "gi_frame", None) is None:  # they have ended by it
            raise
        return run(steps, _told(raised))


async def arun(steps: Steps[T], error: BaseException | None = None) -> T:
    """Carry the steps out as run() does; every step is awaited."""
    is_closed = False
    _under_way.add(steps)
    try:
        target, name, args = next(steps) if error is None else steps.throw(error)
        while True:
            try:
                result = await getattr(target, twin(name))(*args)
            except GeneratorExit as closed:
                is_closed = True
                _end(steps, closed)
                raise
            except BaseException as raised:  # noqa: BLE001 -- the generator decides, and raises it again
                target, name, args = steps.throw(raised)
            else:
                target, name, args = steps.send(result)
    except StopIteration as stop:
        returned: T = stop.value
        return returned
    except _Ended as ended:
        raise ended.error from None
    except BaseException as raised:
        if is_closed or getattr(steps, "gi_frame", None) is None:  # they have ended by it, or others see to it
            raise
        return await arun(steps, raised)
    finally:
        if not is_closed:
            _under_way.discard(steps)


_under_way: Final = set[Steps[Any]]()
"""What coroutines carry out: the collector must not close it with them, before what is left has been carried out."""


def _end(steps: Steps[T], closed: GeneratorExit) -> None:
    """Have what is left of the steps carried out where nothing can be awaited any more, as the loop has gone.

    The collector closes such a coroutine in the midst of anybody's work, perhaps under the very locks that the steps
    need: so another thread does it, if there is one.
    """
    if sys.is_finalizing():
        with suppress(BaseException):
            while True:  # no step can be carried out
                steps.throw(_Ended(closed))
    elif not _hand_over(partial(_carry_out, steps, closed), copy_context()):
        _carry_out(steps, closed)


def hand_over_to(submit: Submit) -> None:
    """Let these threads carry out what is left of steps; `submit` returns False if it refuses."""
    global _hand_over  # noqa: PLW0603 -- the threads are above this floor
    _hand_over = submit


def _to_nobody(_job: Callable[[], object], _context: Context) -> bool:
    return False


_hand_over: Submit = _to_nobody


def _carry_out(steps: Steps[Any], closed: GeneratorExit) -> None:
    try:
        with suppress(GeneratorExit):
            run(steps, _Ended(closed))
    finally:
        _under_way.discard(steps)


class _Ended(BaseException):
    """A GeneratorExit on its way through steps, which would take it for their own end, and not clean up."""

    def __init__(self, error: GeneratorExit) -> None:
        self.error = self.__cause__ = error


def _told(error: BaseException) -> BaseException:
    return _Ended(error) if isinstance(error, GeneratorExit) else error


def pause(seconds: float) -> Steps[None]:
    """Let time pass."""
    yield _CLOCK, "sleep", (seconds,)


def parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the items in parts, and let other threads go on between two of them.

    >>> list(parts("abcde", 2))
    ['ab', 'cd', 'e']
    """
    for start in range(0, len(items), size):
        if start:
            time.sleep(0)
        yield items[start : start + size]


class _Clock:
    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        import asyncio  # noqa: PLC0415 -- a synchronous program need not load it

        await asyncio.sleep(seconds)


_CLOCK: Final = _Clock()
