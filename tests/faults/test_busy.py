"""A program that is busy, and a server that is well: nothing is dropped, and nobody takes it for an outage."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from storeroom.exceptions import PoolTimeoutError
from storeroom.testing.concurrency import in_background, in_threads
from tests.faults.kinds import MEMCACHED, PATIENT, SHORT, Site, kinds
from tests.servers.memcached import needs_pylibmc
from tests.servers.proxy import Proxy

#: Kinds whose tasks are served by threads.
BY_THREADS = [*MEMCACHED, "postgresql", "mariadb"]


@contextmanager
def all_taken(site: Site, cache: Any) -> Iterator[None]:
    """Let nobody else have a connection of a cache within the block."""
    connections = site.connections(cache)
    taken = [connections.take()[0] for _ in range(connections._limit)]
    try:
        yield
    finally:
        for connection in taken:
            connections.give_back(connection)


def test_threads_that_wait_longer_than_for_an_answer_store_all(site: Site, proxy: Proxy) -> None:
    """More threads than connections store everything, though they wait longer than the server may take to answer."""
    cache = site.cache(port=proxy.port, max_connections=1, socket_timeout=0.5)
    cache.set("first", 1)
    proxy.delay = 0.06
    in_threads(12, lambda number: cache.set(f"k{number}", number))
    proxy.delay = 0.0
    assert cache.get_many([f"k{number}" for number in range(12)]) == {f"k{number}": number for number in range(12)}
    assert (site.failures(cache), cache.stats().busy) == (0, 0)


def test_server_that_answers_others_is_not_down(site: Site, proxy: Proxy) -> None:
    """An answer that does not come in time is no outage while others get theirs: this process is slow, or the line."""
    cache = site.cache(port=proxy.port, failures=1, pause=60, socket_timeout=1.5, max_connections=2)
    cache.set("k", "v")
    in_threads(2, lambda _: cache.get("k"))
    proxy.is_silent = True
    unanswered = in_background(cache.get, "k")
    time.sleep(0.1)
    proxy.is_silent = False
    assert cache.get("k") == "v"
    assert unanswered.result(PATIENT) is None
    assert not site.is_down(cache)
    assert cache.get("k") == "v"


def test_wait_in_vain_is_a_miss_or_an_error_and_no_outage(site: Site) -> None:
    """Without a connection within pool_timeout reads miss and writes raise; both are counted, and the breaker stays."""
    cache = site.cache(max_connections=2, pool_timeout=0.02)
    cache.set_many({"k": "v", "n": 1})
    with all_taken(site, cache):
        assert cache.get("k") is None
        assert cache.get_many(["k"]) == {}
        assert not cache.has_key("k")
        assert cache.ttl("k") == 0
        for write in (
            lambda: cache.set("k", "new"),
            lambda: cache.set_many({"k": "new"}),
            lambda: cache.add("other", 1),
            lambda: cache.touch("k", 5),
            lambda: cache.delete("k"),
            lambda: cache.incr("n"),
            cache.clear,
        ):
            with pytest.raises(PoolTimeoutError, match=rf"{site.named}.*all 2 connections.*'max_connections'"):
                write()
        stats = cache.stats()
    assert (stats.busy, stats.errors) == (11, 0)
    assert (site.failures(cache), site.is_down(cache)) == (0, False)
    assert cache.get_many(["k", "n", "other"]) == {"k": "v", "n": 1}


def test_wait_in_vain_raises_where_the_policy_says_so(site: Site) -> None:
    """Under "raise", reads raise the same error as writes; it is a TimeoutError."""
    cache = site.cache(max_connections=1, pool_timeout=0.02, on_error="raise")
    cache.set("k", "v")
    with all_taken(site, cache), pytest.raises(TimeoutError, match="'pool_timeout'") as caught:
        cache.get("k")
    assert type(caught.value) is PoolTimeoutError
    assert cache.get("k") == "v"


@kinds(*BY_THREADS)
def test_tasks_wait_for_threads_and_connections_in_the_same_way(site: Site) -> None:
    """Tasks get their miss or their error as threads do; one that is cancelled while it waits takes nothing along."""
    cache = site.cache(max_connections=1, pool_timeout=0.2)
    cache.set("k", "v")

    async def work() -> None:
        with all_taken(site, cache):
            cancelled = asyncio.create_task(cache.aset("other", "its thread may go on"))
            queued = [asyncio.create_task(cache.aget("k")) for _ in range(site.workers + 8)]
            written = asyncio.create_task(cache.aset("k", "late"))
            await asyncio.sleep(0.02)
            cancelled.cancel()
            assert set(await asyncio.gather(*queued)) == {None}
            with pytest.raises(PoolTimeoutError, match="'pool_timeout'"):
                await written
        # One after the other: a busy machine needs longer than pool_timeout for all at once.
        assert [await cache.aget("k") for _ in range(20)] == ["v"] * 20

    asyncio.run(work())
    assert site.failures(cache) == 0
    assert cache.stats().busy >= site.workers + 9


@kinds("redis")
def test_tasks_need_no_connection_of_a_thread(site: Site) -> None:
    """The tasks of a loop share a connection of their own: nobody waits for another's reply."""
    cache = site.cache(max_connections=1, pool_timeout=0.02)
    with all_taken(site, cache):
        asyncio.run(_store(cache, 500))
    assert cache.get_many([f"k{number}" for number in range(500)]) == {f"k{number}": number for number in range(500)}


async def _store(cache: Any, count: int) -> None:
    await asyncio.gather(*(cache.aset(f"k{number}", number) for number in range(count)))


@kinds("redis")
@pytest.mark.parametrize("is_connected", [True, False])
def test_loop_that_is_busy_takes_no_answer_for_late(site: Site, is_connected: bool) -> None:
    """A loop that a task holds up before its requests go out, or while it connects, waits from then on."""
    cache = site.cache(socket_timeout=0.5, socket_connect_timeout=0.5)
    cache.set("k", "v")

    async def work() -> None:
        if is_connected:
            await cache.aget("k")
        asked = asyncio.create_task(cache.aget("k"))
        await asyncio.sleep(0)  # it has asked, and nothing is sent
        if not is_connected:
            await asyncio.sleep(0)
        threading.Event().wait(0.8)
        assert await asked == "v"

    asyncio.run(work())
    assert site.failures(cache) == 0


@kinds(pytest.param("pylibmc", marks=needs_pylibmc))
def test_miss_of_a_thread_that_did_not_run_is_a_miss(site: Site) -> None:
    """A miss that took long is asked about: the server may have answered at once, and the thread have had no turn."""
    client = site.cache().engine.servers[0].make()
    client._require_answer(time.monotonic() - 60)
    with site.paused(), pytest.raises(OSError, match="error"):
        site.cache(socket_timeout=SHORT).engine.servers[0].make()._require_answer(time.monotonic() - 60)


@kinds("redis", "postgresql", "mariadb")
def test_server_that_admits_fewer_connections_is_shared(site: Site) -> None:
    """Connections that the server refuses as too many are waited for, as busy ones are: everything is stored."""
    with site.admitting(3) as url:
        cache = site.cache(max_connections=8, **({"url": url} if url else {}))
        cache.set("first", 1)

        def store(number: int) -> None:
            for turn in range(5):
                cache.set(f"{number} {turn}", turn)

        in_threads(8, store)
        assert len(cache.get_many([f"{number} {turn}" for number in range(8) for turn in range(5)])) == 40
        assert (site.failures(cache), cache.stats().busy) == (0, 0)
