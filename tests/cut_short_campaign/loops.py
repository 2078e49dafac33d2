"""Loops that end before their work, computations that hang, functions that end oddly, errors that are kept."""

import asyncio
import gc
import random
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

from storeroom.engines import background
from storeroom.exceptions import ComputationCycleError, ComputationTimeoutError
from storeroom.testing.concurrency import in_background
from tests.cut_short_campaign.counts import AT_ONCE, PATIENCE, Counts, Tell, next_in_background

__all__ = ["SITUATIONS"]

MOST: Final = 300
"""Cases of what takes a moment each."""


def in_a_loop_of_its_own(call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine as far as its own end, and close its loop with all that is left in it."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(call())
    finally:
        loop.close()


def left_by_a_loop(cache: Any, count: int, _: random.Random, tell: Tell) -> Counts:
    """Computations under hard_timeout, and plain ones, are left by a loop that is closed."""
    counts = Counts()

    async def late() -> None:  # a thread that takes the place of the loop is not late
        await asyncio.sleep(60 if threading.current_thread() is threading.main_thread() else 0)

    async def give_up(key: str, limit: float | None) -> None:
        task = asyncio.ensure_future(cache.aget_or_set(key, late, 600, hard_timeout=limit))
        with suppress(ComputationTimeoutError, TimeoutError):
            await asyncio.wait_for(asyncio.shield(task), 0.002)
        task._log_destroy_pending = False  # type: ignore[attr-defined]

    for number in range(min(count, MOST)):
        tell(f"loop {number}")
        key = f"left {number}"
        in_a_loop_of_its_own(lambda key=key, limit=(None, 0.001)[number % 2]: give_up(key, limit))  # type: ignore[misc]
        counts.note(None, is_cut=True)
        if number % 4 < 2:
            next_in_background(counts, lambda key=key: cache.get_or_set(key, lambda: "anew", 600))  # type: ignore[misc]
        else:
            next_in_background(counts, lambda key=key: asyncio.run(cache.aget_or_set(key, lambda: "anew", 600)))  # type: ignore[misc]
    return counts


def a_loop_for_each_request(cache: Any, count: int, _: random.Random, tell: Tell) -> Counts:
    """Refreshes begin in loops that are closed at once; those that began have to end."""
    counts, begun, ended = Counts(), [], []

    async def compute() -> int:
        begun.append(1)
        await asyncio.sleep(0.02)
        ended.append(1)
        return len(ended)

    requests = 0
    while requests < count:
        requests += 1
        if not requests % 50:
            tell(f"request {requests}")
        in_a_loop_of_its_own(lambda: cache.aget_or_set("k", compute, timeout=0.02, stale_while_revalidate=600))
        time.sleep(0.001)
    background.drain()
    counts.cases, counts.cut = requests, len(begun)
    counts.left = max(0, len(begun) - len(ended) - 2)
    return counts


def hung(cache: Any, count: int, _: random.Random, tell: Tell) -> Counts:
    """Computations hang, more than the background has threads; others go on, under hard_timeout and as refreshes."""
    counts, may_end = Counts(), threading.Event()
    for number in range(min(count, 2 * background.MAX_WORKERS)):
        tell(f"hung {number}")
        with suppress(ComputationTimeoutError):
            cache.get_or_set(f"hung {number}", may_end.wait, 600, hard_timeout=0.01)
        counts.note(None, is_cut=True)
        key = f"healthy {number}"
        found = next_in_background(counts, lambda key=key: cache.get_or_set(key, lambda: "well", hard_timeout=20))  # type: ignore[misc]
        counts.wrong += found != "well"
    may_end.set()
    background.drain()
    return counts


def odd_ends(cache: Any, count: int, _: random.Random, tell: Tell) -> Counts:
    """A function under hard_timeout ends in an exception that is no Exception: one call, one end."""
    counts = Counts()
    for number in range(min(count, MOST)):
        tell(f"odd end {number}")
        error, calls = (SystemExit, GeneratorExit, asyncio.CancelledError)[number % 3](), []

        def end(calls: list[int] = calls, error: BaseException = error) -> None:
            calls.append(1)
            raise error

        key = f"odd {number}"
        with suppress(SystemExit, GeneratorExit, asyncio.CancelledError):
            cache.get_or_set(key, end, hard_timeout=10)
        counts.note(None, is_cut=True)
        counts.wrong += len(calls) != 1
        next_in_background(counts, lambda key=key: cache.get_or_set(key, lambda: "next"))  # type: ignore[misc]
    return counts


class Request:
    """An object that a caller holds."""


def kept_errors(cache: Any, count: int, _: random.Random, tell: Tell) -> Counts:
    """An error is raised again and again: neither its traceback grows, nor does it keep its callers alive."""
    counts, alive, depths = Counts(), weakref.WeakSet[Request](), set[int]()

    def fail() -> None:
        raise LookupError("no such page")

    def call() -> None:
        request = Request()
        alive.add(request)
        try:
            cache.get_or_set("failing", fail, error_timeout=600)
        except LookupError as error:
            depths.add(len(traceback.extract_tb(error.__traceback__)))

    for number in range(count):
        if not number % 100:
            tell(f"error {number}")
        call()
        counts.note(None, is_cut=True)
    gc.collect()
    counts.left = max(0, len(alive) - 2)
    counts.wrong = max(0, len(depths) - 2)
    return counts


def crosswise(cache: Any, count: int, _: random.Random, tell: Tell) -> Counts:
    """Computations of two keys ask for each other through a thread pool, whose workers share no context."""
    counts = Counts()
    for number in range(min(count, 3)):
        tell(f"cross {number}")

        def ask(own: str, other: str) -> Any:
            return cache.get_or_set(own, lambda: pool.submit(ask, other, own).result(PATIENCE))

        begun = time.monotonic()
        with ThreadPoolExecutor(4) as pool, suppress(ComputationCycleError):
            in_background(ask, f"x {number}", f"y {number}").result(PATIENCE)
        counts.note(None, is_cut=True)
        seconds = time.monotonic() - begun
        counts.longest = max(counts.longest, seconds)
        counts.waits += seconds > 6 * AT_ONCE
    return counts


SITUATIONS: Final[dict[str, Callable[[Any, int, random.Random, Tell], Counts]]] = {
    "left by a closed loop": left_by_a_loop,
    "a loop for each request": a_loop_for_each_request,
    "computations that hang": hung,
    "odd ends": odd_ends,
    "errors that are kept": kept_errors,
    "computations that cross": crosswise,
}
