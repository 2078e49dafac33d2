"""Work that is written once and carried out by a synchronous or an asynchronous caller.

The work is a generator: it yields its next step, as an object, the name of a method and the arguments, and gets the
result sent back, or the error thrown in. The asynchronous driver calls the method's twin: ``_aget`` for ``_get``.
"""

import time
from collections.abc import Generator
from functools import cache
from typing import Any, Final, TypeAlias, TypeVar

__all__ = ["Step", "Steps", "arun", "pause", "run", "twin"]

T = TypeVar("T")

Step: TypeAlias = tuple[object, str, tuple[Any, ...]]
Steps: TypeAlias = Generator[Step, Any, T]


@cache
def twin(name: str) -> str:
    """Return the name of a method's asynchronous twin.

    >>> twin("get_many"), twin("_get_many")
    ('aget_many', '_aget_many')
    """
    return f"_a{name[1:]}" if name.startswith("_") else f"a{name}"


def run(steps: Steps[T]) -> T:
    """Carry the steps out, and return their result."""
    try:
        target, name, args = next(steps)
        while True:
            try:
                result = getattr(target, name)(*args)
            except BaseException as error:  # noqa: BLE001 -- the generator decides, and raises it again
                target, name, args = steps.throw(error)
            else:
                target, name, args = steps.send(result)
    except StopIteration as stop:
        returned: T = stop.value
        return returned


async def arun(steps: Steps[T]) -> T:
    """Carry the steps out as run() does; every step is awaited."""
    try:
        target, name, args = next(steps)
        while True:
            try:
                result = await getattr(target, twin(name))(*args)
            except BaseException as error:  # noqa: BLE001 -- the generator decides, and raises it again
                target, name, args = steps.throw(error)
            else:
                target, name, args = steps.send(result)
    except StopIteration as stop:
        returned: T = stop.value
        return returned


def pause(seconds: float) -> Steps[None]:
    """Let time pass."""
    yield _CLOCK, "sleep", (seconds,)


class _Clock:
    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        import asyncio  # noqa: PLC0415 -- a synchronous program need not load it

        await asyncio.sleep(seconds)


_CLOCK: Final = _Clock()
