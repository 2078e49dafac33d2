"""Connections that are cut, late, truncated, split or busy: no reply is lost, and none is another request's."""

import asyncio
import itertools
import time
from typing import Any

import pytest

from storeroom import engines
from storeroom.testing.concurrency import PATIENCE, eventually, in_background, in_threads
from storeroom.testing.contract.suite import Driver
from tests.faults.kinds import HASTY, MEMCACHED, SHORT, Site, kinds
from tests.servers.proxy import Proxy

#: Number of times, at least, that a test cuts the connections.
CUTS = 60


@pytest.mark.slow
def test_cut_connection_is_a_miss_at_most(site: Site, proxy: Proxy, mode: str) -> None:
    """An operation whose connection is cut, at any moment, does not raise and never gets another's reply."""
    cache = site.cache(port=proxy.port, failures=1_000_000)  # fewer would keep the reader away
    driver = Driver(cache, mode)
    expected = {f"k{number}": number for number in range(50)}
    cache.set_many(expected)

    hits = []

    def cut() -> None:
        deadline = time.monotonic() + PATIENCE
        for number in itertools.count():
            time.sleep(site.cut_every)
            proxy.cut()
            if number > CUTS and (hits or time.monotonic() > deadline):
                break

    async def read() -> None:
        cutting = in_background(cut)
        for key in itertools.cycle(expected):
            if cutting.done():
                break
            value = await driver.get(key)
            assert value in {None, expected[key]}
            await driver.set("written", value)
            if value is not None:
                hits.append(key)

    asyncio.run(read())
    assert hits
    eventually(lambda: cache.get_many(expected) == expected)


@pytest.mark.parametrize("limit", [0, 1, 7, 40, 1000])
def test_truncated_reply_is_a_miss(site: Site, proxy: Proxy, mode: str, limit: int) -> None:
    """A reply that ends early is a failure, and no part of it is taken for the whole."""
    value = "v" * 5000
    site.cache().set("k", value)
    cache = site.cache(port=proxy.port)

    async def read() -> Any:
        driver = Driver(cache, mode)
        return await driver.get("k"), await driver.get_many(["k"])

    proxy.truncate_after = limit
    assert asyncio.run(read()) == (None, {})
    assert site.failures(cache) == 2
    proxy.truncate_after = None
    eventually(lambda: cache.get("k") == value)


@kinds("redis", *MEMCACHED)
@pytest.mark.parametrize(
    ("piece", "value"),
    [
        (1, ""),
        (1, "v" * 50),
        (3, "\r\nEND\r\n" * 20),
        (7, "VALUE k 0 3\r\n"),
        (5000, "v" * 100_000),
        (None, "v" * 900_000),
    ],
    ids=["empty", "short", "of separators", "like a header", "long", "very long"],
)
def test_reply_that_comes_in_pieces_is_read_as_a_whole(site: Site, proxy: Proxy, piece: int | None, value: str) -> None:
    """A reply is read to its end, however small its pieces, and the next reply is the next request's."""
    cache = site.cache(port=proxy.port)
    cache.set_many({"k": value, "other": 1})
    proxy.piece = piece
    for _ in range(2):
        assert cache.get("k") == value
        assert cache.get("absent") is None
        assert cache.get("other") == 1
    assert cache.get_many(["k", "absent", "other"]) == {"k": value, "other": 1}
    assert site.failures(cache) == 0


@pytest.mark.slow
def test_late_reply_is_nobody_elses(site: Site, proxy: Proxy, mode: str) -> None:
    """After a timeout the connection is given up: a reply that comes late on it is never read."""
    site.cache().set_many({"a": "of a", "b": "of b"})
    driver = Driver(site.cache(port=proxy.port, **HASTY), mode)

    async def answer(key: str) -> Any:
        deadline = time.monotonic() + PATIENCE
        while (value := await driver.get(key)) is None:
            assert time.monotonic() < deadline
        return value

    async def work() -> None:
        assert await answer("a") == "of a"
        proxy.delay = 2 * SHORT
        assert await driver.get("a") is None
        proxy.delay = 0.0
        late = time.monotonic() + 2 * SHORT
        while time.monotonic() < late:
            assert await answer("b") == "of b"
            assert await answer("a") == "of a"

    asyncio.run(work())


def test_connections_are_bounded(site: Site, proxy: Proxy) -> None:
    """Threads that find all connections busy wait for one, rather than open more."""
    cache = site.cache(port=proxy.port, max_connections=3)
    cache.set("n", 0)
    counts = []

    def count(_: int) -> None:
        for _ in range(20):
            cache.incr("n")
            counts.append(proxy.connections)

    in_threads(12, count)
    assert cache.get("n") == 240
    assert max(counts) <= 3


@pytest.mark.slow
def test_connection_that_is_busy_when_the_engine_is_closed_is_closed_afterwards(site: Site, proxy: Proxy) -> None:
    """An operation under way ends as ever, its connection is closed after it, and later operations open another."""
    cache = site.cache(port=proxy.port)
    cache.set("k", "v")
    assert proxy.connections == 1
    proxy.delay = 0.5
    asked = in_background(cache.get, "k")
    eventually(lambda: proxy.is_holding)
    engines.close_all()
    proxy.delay = 0.0
    assert proxy.connections == 1
    assert asked.result(PATIENCE) == "v"
    eventually(lambda: not proxy.connections)
    assert [cache.get("k"), cache.get("k")] == ["v", "v"]
    assert proxy.connections == 1
    assert site.failures(cache) == 0
