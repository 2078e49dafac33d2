"""Tasks that are cancelled: at each turn of their loop, at random moments, for good, and by scopes of anyio."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

import anyio

from storeroom import timeouts
from storeroom.base import BaseCache
from storeroom.storage.envelope import Envelope
from storeroom.transactions import transaction
from tests.cut_short_campaign.counts import LEFT_AFTER, PATIENCE, WATCH, Counts, Tell

__all__ = ["AWAITED", "WAYS", "cancel", "cancel_commits", "is_leased"]

TOGETHER: Final = 8
"""Tasks that are under way at once, each with keys of its own."""

MOST_TURNS: Final = 100
"""Turns of the loop at which an operation is cancelled: most of a longer one pass while it waits for a thread."""

Call = Callable[[], Coroutine[Any, Any, Any]]


async def compute() -> str:
    await asyncio.sleep(0)
    await asyncio.sleep(0.0005)
    return "computed"


async def compute_many(keys: list[str]) -> dict[str, str]:
    return dict.fromkeys(keys, await compute())


async def hold(cache: BaseCache, key: str) -> None:
    async with cache.lock(key, timeout=600):
        await asyncio.sleep(0.0005)


AWAITED: Final[Mapping[str, Callable[[Any, str], Coroutine[Any, Any, Any]]]] = {
    "aget_or_set": lambda cache, key: cache.aget_or_set(key, compute, 600),
    "aget_or_set, limited": lambda cache, key: cache.aget_or_set(key, compute, 600, hard_timeout=60),
    "aget_or_set_many": lambda cache, key: cache.aget_or_set_many([key, f"{key}+"], compute_many, 600),
    "arefresh": lambda cache, key: cache.arefresh(key, compute, 600),
    "alock": hold,
}


# The ways to cancel -------------------------------------------------------------------------


async def _by_task(call: Call, cut: Callable[["asyncio.Task[Any]"], Awaitable[None]]) -> Any:
    task = asyncio.ensure_future(call())
    await cut(task)
    return (await asyncio.gather(task, return_exceptions=True))[0]


async def at_a_turn(call: Call, turns: int, _: float) -> Any:
    """Cancel a task once, after so many turns of the loop."""

    async def cut(task: "asyncio.Task[Any]") -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()

    return await _by_task(call, cut)


async def at_a_moment(call: Call, _: int, seconds: float) -> Any:
    """Cancel a task once, after so many seconds."""

    async def cut(task: "asyncio.Task[Any]") -> None:
        await asyncio.sleep(seconds)
        task.cancel()

    return await _by_task(call, cut)


async def for_good(call: Call, _: int, seconds: float) -> Any:
    """Cancel a task after so many seconds, and at each turn from then on."""

    async def cut(task: "asyncio.Task[Any]") -> None:
        await asyncio.sleep(seconds)
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)

    return await _by_task(call, cut)


async def by_a_scope(call: Call, turns: int, seconds: float) -> Any:
    """Cancel a task by anyio: its group after some turns, as Starlette does, or a scope with a deadline."""
    if turns % 2:
        with anyio.move_on_after(seconds) as scope:
            await call()
        return asyncio.CancelledError() if scope.cancelled_caught else None
    async with anyio.create_task_group() as group:
        group.start_soon(call)
        for _ in range(turns):
            await asyncio.sleep(0)
        group.cancel_scope.cancel()
    return asyncio.CancelledError()


WAYS: Final = {"turn": at_a_turn, "moment": at_a_moment, "for good": for_good, "anyio": by_a_scope}


# The campaign -------------------------------------------------------------------------------


def is_leased(cache: Any, key: str, found: Any) -> bool:
    """Tell whether an entry as the hook has read it holds a lease that has not ended."""
    return type(found) is Envelope and found.leased_until > timeouts.now()


async def cancel(cache: Any, operation: str, way: str, count: int, chance: random.Random, tell: Tell) -> Counts:
    """Cut an operation short so often; count the callers that wait, and the leases and locks that are left."""
    counts, number = Counts(), 0
    turns, seconds = await _measure(cache, operation)
    while number < count:
        jobs = []
        for case in range(number, min(number + TOGETHER, count)):
            turn, moment = case % (turns + 2), chance.uniform(0, seconds * 1.1)
            jobs.append(_cut_one(cache, operation, f"{way} {case}", (WAYS[way], turn, moment), counts))
        number += len(jobs)
        tell(f"cancel {number} of {count} of {operation}, {way}")
        await asyncio.gather(*jobs)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=LEFT_AFTER)
    counts.left += sum(not task.done() for task in others)
    return counts


async def _measure(cache: Any, operation: str) -> tuple[int, float]:
    """Return the turns of the loop and the seconds that an operation takes beside others."""
    call, loop = AWAITED[operation], asyncio.get_running_loop()
    await call(cache, "warm")
    tasks = [asyncio.ensure_future(call(cache, f"measured {number}")) for number in range(TOGETHER)]
    begun, turns = loop.time(), 0
    while not all(task.done() for task in tasks):
        turns += 1
        await asyncio.sleep(0)
    return min(turns, MOST_TURNS), loop.time() - begun


async def _cut_one(cache: Any, operation: str, key: str, cut: tuple[Any, int, float], counts: Counts) -> None:
    call = AWAITED[operation]
    key = f"{operation} {key}"
    keys = [key, f"{key}+"] if operation == "aget_or_set_many" else [key]
    if operation == "arefresh" and cut[1] % 2:
        await cache.aset(key, "old", 600)
    way, turns, seconds = cut
    try:
        outcome = await way(lambda: call(cache, key), turns, seconds)
    except Exception as error:  # noqa: BLE001 -- it is the finding
        outcome = error
    counts.note(outcome, is_cut=isinstance(outcome, asyncio.CancelledError))
    with WATCH.next_caller(counts):
        async with asyncio.timeout(PATIENCE):
            if operation == "alock":
                await hold(cache, key)
            else:
                await asyncio.gather(*(cache.aget_or_set(each, compute, 600) for each in keys))
    if operation != "alock":
        counts.left += await _leases_left(cache, keys)


async def _leases_left(cache: Any, keys: list[str]) -> int:
    loop = asyncio.get_running_loop()
    until = loop.time() + LEFT_AFTER
    while left := [key for key in keys if is_leased(cache, key, await cache._aget(cache.make_key(key)))]:
        if loop.time() > until:
            break
        await asyncio.sleep(0.01)
    return len(left)


async def cancel_commits(cache: Any, way: str, count: int, chance: random.Random, tell: Tell) -> Counts:
    """Cancel transactions whose database has committed, while their writes are made; count the old values served."""
    counts, longest, loop = Counts(), 0.0, asyncio.get_running_loop()
    for number in range(-3, count):
        tell(f"commit {number} of {count}, {way}")
        keys = [f"committed {number} {each}" for each in range(5)]
        await cache.aset_many(dict.fromkeys(keys, "old"), 600)
        committed = asyncio.Event()
        task = asyncio.ensure_future(_unit(cache, keys, committed))
        await committed.wait()
        begun = loop.time()
        if number < 0:  # to see how long the writes take
            await task
            longest = loop.time() - begun
            continue
        if way == "turn":
            for _ in range(number % 60):
                await asyncio.sleep(0)
        else:
            until = begun + chance.uniform(0, longest)
            while loop.time() < until:
                await asyncio.sleep(0)
        is_cut = not task.done()
        task.cancel()
        while way == "for good" and not task.done():
            task.cancel()
            await asyncio.sleep(0)
        counts.note((await asyncio.gather(task, return_exceptions=True))[0], is_cut=is_cut)
        counts.left += await _is_old(cache, keys)
    return counts


async def _unit(cache: Any, keys: list[str], committed: asyncio.Event) -> None:
    async with transaction():
        for key in keys[:3]:
            await cache.aset(key, "new", 600)
        for key in keys[3:]:
            await cache.adelete(key)
        committed.set()


async def _is_old(cache: Any, keys: list[str]) -> bool:
    """Tell whether an old value is served still; the rest of the writes is made by another task."""
    until = asyncio.get_running_loop().time() + LEFT_AFTER
    while is_old := "old" in (await cache.aget_many(keys)).values():
        if asyncio.get_running_loop().time() > until:
            break
        await asyncio.sleep(0.002)
    return is_old
