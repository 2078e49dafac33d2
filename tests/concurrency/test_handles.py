"""Handles made, used and dropped by many threads at once share one engine."""

import asyncio
import gc

import pytest

from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.testing.concurrency import in_threads
from storeroom.testing.isolation import engines_of_its_own


@pytest.fixture(params=[LocMemCache, FileBasedCache])
def make_cache(request, tmp_path):
    with engines_of_its_own():
        yield lambda **params: request.param(str(tmp_path / "cache"), params)


def test_threads_that_meet_at_a_new_location_share_one_engine(make_cache):
    """Threads that make handles of a new location at the same moment share one engine."""

    def job(number: int) -> object:
        cache = make_cache()
        cache.set(number, number)
        return cache._engine

    assert len(set(map(id, in_threads(16, job)))) == 1
    assert make_cache().get_many(range(16)) == {number: number for number in range(16)}


def test_a_handle_per_call_loses_nothing(make_cache):
    """A handle for each call, as under Django's async handlers, loses no increment."""
    make_cache().set("n", 0)

    def job(number: int) -> None:
        for _ in range(50):
            cache = make_cache()
            cache.incr("n")
            cache.close()
        gc.collect()

    in_threads(8, job)
    assert make_cache().get("n") == 400


def test_an_engine_that_is_closed_while_in_use_opens_again(make_cache):
    """An engine that is closed while threads use it opens again, and loses no entry."""
    cache = make_cache(OPTIONS={"MAX_ENTRIES": None})

    def job(number: int) -> None:
        for turn in range(50):
            if number == 0:
                cache._engine.close()
            else:
                cache.set(f"{number} {turn}", turn)
                assert cache.get(f"{number} {turn}") == turn

    in_threads(4, job)
    assert cache.count() == 3 * 50


def test_event_loops_of_several_threads_share_a_cache(make_cache):
    """Tasks in the event loops of several threads count together."""
    cache = make_cache()
    cache.set("n", 0)

    async def main() -> None:
        async def count() -> None:
            for _ in range(10):
                await cache.aincr("n")
                await asyncio.sleep(0)

        await asyncio.gather(*(count() for _ in range(10)))

    in_threads(4, lambda _: asyncio.run(main()))
    assert cache.get("n") == 400
