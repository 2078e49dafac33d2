"""Jobs of a pool's threads, as asynchronous callers await them."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from storeroom.exceptions import PoolTimeoutError

__all__ = ["in_turn"]

T = TypeVar("T")


async def in_turn(future: Future[T], seconds: float, too_late: Callable[[PoolTimeoutError], T]) -> T:
    """Await the job of a thread; ``too_late(error)`` if no thread came free for it within so many seconds."""
    import asyncio  # noqa: PLC0415 -- a synchronous program need not load it

    is_late = False

    def give_up() -> None:
        nonlocal is_late
        is_late = future.cancel()  # False once it has begun

    timer = asyncio.get_running_loop().call_later(seconds, give_up)
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if not is_late or (task is not None and task.cancelling()):
            raise
    finally:
        timer.cancel()
    return too_late(
        PoolTimeoutError(
            f"All threads for asynchronous callers were busy for {seconds:g} s. Raise OPTIONS['max_connections'], or "
            "OPTIONS['pool_timeout'] to wait longer."
        )
    )
