"""The end of a block: an exception may come after its body, and before the first instruction of its own end.

Each instruction of the function that holds the block has its turn, and the entry of `__exit__` or `__aexit__`. The
exception is kept, with its traceback, and so is the block's object.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest

from storeroom.testing.capabilities import needs
from storeroom.testing.concurrency import aeventually, eventually
from storeroom.testing.contract.suite import Driver, Suite
from storeroom.transactions import transaction

__all__ = ["EndingsContract"]

AT_ONCE: Final = 3.0
"""Seconds within which the next caller has the lock: its owner would hold it for ever."""


class TornError(BaseException):
    """Comes from outside, as KeyboardInterrupt does.

    Attributes:
        line: the line that it came in.
    """

    line = 0


async def torn_at(number: int, block: Callable[[], Awaitable[None]]) -> TornError | None:
    """Run a block, and raise an exception at one of its instructions; return that, or None if the block has ended."""
    left = number

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal left
        is_own, wanted = frame.f_code is block.__code__, "opcode"
        if is_own:
            frame.f_trace_opcodes = True
        elif frame.f_back is not None and frame.f_back.f_code is block.__code__:
            wanted = "call" if frame.f_code.co_name in {"__exit__", "__aexit__"} else ""
        else:
            return trace
        if event == wanted:
            left -= 1
            if left < 0:
                sys.settrace(None)
                torn = TornError()
                torn.line = frame.f_lineno if is_own else frame.f_back.f_lineno
                raise torn
        return trace

    before = sys.gettrace()
    try:
        sys.settrace(trace)
        await block()
    except TornError as error:
        return error
    finally:
        sys.settrace(before)
    return None


@needs("store")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
class EndingsContract(Suite):
    """Blocks that an exception has kept from their own end."""

    async def test_a_lock_whose_block_was_torn_is_free(self, cache: Driver) -> None:
        """Wherever an exception tears the block of a lock, that is given back, whoever keeps lock and traceback."""
        kept: list[object] = []
        for number in range(1000):
            lock = cache.cache.lock(f"l {number}")

            async def block(lock: Any = lock) -> None:
                if cache.is_async:
                    async with lock:
                        pass
                else:
                    with lock:
                        pass

            torn = await torn_at(number, block)
            kept += [lock, torn]
            other = cache.cache.lock(f"l {number}", blocking_timeout=AT_ONCE)
            assert await other.aacquire() if cache.is_async else other.acquire(), number
            if torn is None:
                break
        assert 10 < number < 999

    async def test_a_transaction_whose_block_was_torn_is_over(self, cache: Driver) -> None:
        """Wherever an exception tears the block of a transaction, what it has changed is not left as it was."""
        kept: list[object] = []
        for number in range(1000):
            unit, ended = transaction(), list[int]()
            await cache.set("k", "old")

            async def block(unit: Any = unit, ended: list[int] = ended) -> None:
                if cache.is_async:
                    async with unit:
                        await cache.set("k", "new")
                        ended.append(sys._getframe().f_lineno)
                else:
                    with unit:
                        await cache.set("k", "new")
                        ended.append(sys._getframe().f_lineno)

            torn = await torn_at(number, block)
            kept += [unit, torn]
            if ended and torn is not None and torn.line not in ended:  # the program's database may have committed
                await self._until_gone(cache)
            await cache.set("after", number)
            assert cache.cache.get("after") == number
            if torn is None:
                break
        assert await cache.get("k") == "new"
        assert 10 < number < 999

    async def _until_gone(self, cache: Driver) -> None:
        def is_gone() -> bool:
            return bool(cache.cache.get("k") != "old")

        if cache.is_async:
            await aeventually(is_gone)
        else:
            eventually(is_gone)
