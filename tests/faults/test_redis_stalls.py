"""A process that stands still for longer than a timeout, while the server's answer lies there: no outage.

The collector, another thread or a busy machine may keep an event loop waiting, after it has asked which sockets are
ready, and before it looks for timers that are due.
"""

import asyncio
import selectors
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from storeroom.backends.redis import RedisCache
from tests.servers.proxy import Proxy
from tests.servers.redis import RedisServer, redis_binary, running

TIMEOUT = 0.4


@pytest.fixture(scope="module")
def kind() -> str:
    """Redis alone."""
    return "redis"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    yield from running(RedisServer(redis_binary(), tmp_path_factory.mktemp("stalls")))


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


class LateSelector(selectors.DefaultSelector):
    """Tells late of what it has seen early, when it is told to.

    Attributes:
        stalls: seconds to wait after the next look at which nothing was ready.
    """

    stalls = 0.0

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(timeout)
        if self.stalls and not events and timeout:
            stalls, self.stalls = self.stalls, 0.0
            time.sleep(stalls)
        return events


async def stalled(selector: LateSelector, seconds: float) -> None:
    """Let the loop stand still in a moment, in which nothing is ready."""
    selector.stalls = seconds
    await asyncio.sleep(0.02)


def run_late(work: Any) -> None:
    """Run it in loops, until one stands still: on a busy machine something may be ready in every moment."""
    for selector in (LateSelector() for _ in range(10)):
        with asyncio.Runner(loop_factory=partial(asyncio.SelectorEventLoop, selector)) as runner:
            runner.run(work(selector))
        if selector.stalls == 0.0:
            return
    raise AssertionError("it did not stand still")


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1.2 * TIMEOUT, 3 * TIMEOUT])
def test_loop_that_stood_still_reads_the_answer_that_has_come(proxy: Proxy, seconds: float) -> None:
    """The answer came in time, and counts, though the timer is due before the loop has looked for it."""
    cache = RedisCache(f"redis://127.0.0.1:{proxy.port}/0", {"OPTIONS": {"socket_timeout": TIMEOUT}})

    async def work(selector: LateSelector) -> None:
        await cache.aset("k", "v")
        proxy.delay = TIMEOUT / 4
        found, _ = await asyncio.gather(cache.aget("k"), stalled(selector, seconds))
        assert found == "v"
        assert cache.engine.breaker.failures == 0

    run_late(work)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1.2 * TIMEOUT, 3 * TIMEOUT])
def test_loop_that_stood_still_gets_its_connection(proxy: Proxy, seconds: float) -> None:
    """A connection that was not made in time for that reason is made at the second attempt."""
    options = {"socket_connect_timeout": TIMEOUT, "client_name": "late"}
    cache = RedisCache(f"redis://127.0.0.1:{proxy.port}/0", {"OPTIONS": options})

    async def work(selector: LateSelector) -> None:
        proxy.delay = TIMEOUT / 4
        found, _ = await asyncio.gather(cache.aget("never stored", "absent"), stalled(selector, seconds))
        assert found == "absent"
        assert cache.engine.breaker.failures == 0

    run_late(work)


@pytest.mark.slow
def test_server_that_is_silent_is_still_noticed(proxy: Proxy) -> None:
    """An answer that has not come is waited for once."""
    cache = RedisCache(f"redis://127.0.0.1:{proxy.port}/0", {"OPTIONS": {"socket_timeout": TIMEOUT}})

    async def work(selector: LateSelector) -> None:
        await cache.aset("k", "v")
        proxy.is_silent = True
        found, _ = await asyncio.gather(cache.aget("k"), stalled(selector, 2 * TIMEOUT))
        assert found is None
        assert cache.engine.breaker.failures == 1

    run_late(work)
