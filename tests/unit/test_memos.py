"""memo(): reads that are remembered, and reads that are not; on local memory."""

import asyncio
import random
from typing import Any

import pytest

import storeroom
from storeroom.engines import background
from storeroom.testing import FakeClock
from storeroom.testing.isolation import engines_of_its_own
from tests.unit.test_transactions import done, fresh, operations, outside, state


@pytest.fixture
def cache():
    with engines_of_its_own():
        yield fresh()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_any_sequence_is_as_if_replayed(seed: int) -> None:
    """Operations within a memo have the results of the same ones without, and others see them at once."""
    chance = random.Random(seed)
    with engines_of_its_own(), FakeClock():
        cache, beside, log = fresh(), fresh(), []  # beside: one that does the same without a memo
        with storeroom.memo(chance.choice([1, 3, 100])):
            for _ in range(30):
                operation = operations(chance)
                expected = outside(done, beside, *operation)
                assert done(cache, *operation) == expected, f"{operation} after {log}"
                log.append(operation)
                assert state(cache) == outside(state, cache) == outside(state, beside), f"{log}"


def test_a_reader_that_is_late_does_not_hide_a_write(cache, monkeypatch) -> None:
    """An old value read before a write, and returned after it, is not remembered."""
    cache.set("k", "old")
    may_end, has_read = asyncio.Event(), asyncio.Event()
    aget = cache._aget

    async def slow(storage_key: str) -> Any:
        value = await aget(storage_key)
        has_read.set()
        await may_end.wait()
        return value

    async def main() -> None:
        async with storeroom.memo():
            monkeypatch.setattr(cache, "_aget", slow)
            reading = asyncio.create_task(cache.aget("k"))
            await has_read.wait()
            await cache.aset("k", "new")
            may_end.set()
            assert await reading == "old"
            assert await cache.aget("k") == "new"

    asyncio.run(main())


def test_stale_values_are_served_and_refreshed_within(cache) -> None:
    """Within a memo, a stale value is served once, and the value refreshed in the background is then seen."""
    with FakeClock() as clock:
        cache.get_or_set("k", lambda: "old", timeout=10, stale_while_revalidate=100)
        clock.advance(11)
        with storeroom.memo():
            assert cache.get("k") is None
            assert cache.get_or_set("k", lambda: "new", timeout=10, stale_while_revalidate=100) == "old"
            assert background.drain()
            assert cache.get_or_set("k", lambda: "newer", timeout=10, stale_while_revalidate=100) == "new"
            assert cache.get("k") == "new"


def test_a_task_that_goes_on_after_the_block_remembers_nothing(cache) -> None:
    """A task that outlives the memo reads the storage again."""

    async def late(ended: asyncio.Event) -> None:
        assert await cache.aget("k") is None
        await ended.wait()
        assert await cache.aget("k") == "new"

    async def main() -> None:
        ended = asyncio.Event()
        async with storeroom.memo():
            task = asyncio.create_task(late(ended))
            await asyncio.sleep(0)
        outside(cache.set, "k", "new")
        ended.set()
        await task

    asyncio.run(main())


def test_a_value_that_can_be_read_but_not_written_is_read_again() -> None:
    """A value that cannot be copied is not remembered, and is read from the storage each time."""
    with engines_of_its_own():
        cache = fresh()
        value = object()
        cache._get = lambda _: value
        cache._freeze = lambda key, _: type(cache)._freeze(cache, key, lambda: None)
        with storeroom.memo():
            assert cache.get_or_set("k", None) is value
            assert cache.get_or_set("k", None) is value


def test_a_program_that_uses_no_overlay_pays_nothing() -> None:
    """Without memo or transaction, no overlay is installed and none of their modules is loaded."""
    import subprocess
    import sys

    program = """
from storeroom.base.handle import Handle
from storeroom.backends.locmem import LocMemCache
import sys
cache = LocMemCache("", {})
cache.set("k", 1)
assert "_overlay" not in vars(Handle)
assert not {"storeroom.memos", "storeroom.transactions", "storeroom.storage.overlay"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
