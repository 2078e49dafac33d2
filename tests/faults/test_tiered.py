"""Near tiers when the storage stops telling of changes, dies, fails over, or the process stands still."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.locmem import LocMemCache
from storeroom.backends.redis import RedisCache
from storeroom.backends.tiered import TieredCache
from storeroom.testing.processes import Child
from tests.servers.process import free_port
from tests.servers.proxy import Proxy
from tests.servers.redis import Databases, RedisServer, redis_databases, redis_server
from tests.servers.redis_groups import eventually, sentinels

__all__ = ["redis_databases", "redis_server"]

BOUND = 1.0

#: Seconds for which a busy machine may hold back a value that was read.
TURN = 0.2


def make(location: Any, *, bound: float = BOUND, **options: Any) -> TieredCache:
    settings = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5, **options}
    storage = {"BACKEND": RedisCache, "LOCATION": location, "OPTIONS": settings, "TIMEOUT": None}
    return TieredCache("", {"OPTIONS": {"tiers": [{"BACKEND": LocMemCache}, storage], "max_staleness": bound}})


def url(port: int) -> str:
    return f"redis://127.0.0.1:{port}/0"


def is_near(cache: TieredCache, value: Any) -> bool:
    """Tell whether the entry is kept, and vouched for by a channel."""
    return cache.get("k") == value and bool(cache._near.entries) and cache._near.is_tracked


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    with Proxy(redis_server.port) as proxy:
        yield proxy


class Rerouted:
    """An engine whose connections lead through a proxy."""

    def __init__(self, engine: Any, proxy: Proxy) -> None:
        self._engine, self._proxy = engine, proxy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def connection(self, server: Any) -> Any:
        return self._engine.connection(replace(server, port=self._proxy.port))


@pytest.fixture
def cache(redis_server: RedisServer, proxy: Proxy) -> Iterator[TieredCache]:
    """A cache that hears of changes through the proxy, and reads and writes past it."""
    cache = make(url(redis_server.port))
    engine = cache._storage._engine
    engine.tracker()._source = Rerouted(engine, proxy)
    yield cache
    engine.close()


def cut(proxy: Proxy) -> Callable[[], None]:
    """Close the channel's connection, and accept no other; return a function that mends it."""
    port, proxy.target = proxy.target, free_port()
    proxy.cut()

    def mend() -> None:
        proxy.target = port

    return mend


def silence(proxy: Proxy) -> Callable[[], None]:
    """Let nothing through, the connection staying open, as when a cable is pulled."""
    proxy.is_silent = True

    def mend() -> None:
        proxy.cut()  # swallowed replies are lost
        proxy.is_silent = False

    return mend


@pytest.mark.slow
@pytest.mark.parametrize("fault", [cut, silence])
def test_a_channel_that_is_down_never_lets_old_values_out(
    redis_server: RedisServer, cache: TieredCache, proxy: Proxy, fault: Callable[[Proxy], Callable[[], None]]
) -> None:
    """While the channel is down no value older than the bound is served; afterwards hits are vouched for again."""
    outside = RedisCache(url(redis_server.port), {"TIMEOUT": None})
    outside.set("k", 0)
    eventually(lambda: is_near(cache, 0), "the entry is not near")
    written = [(0, time.monotonic())]
    mend = fault(proxy)
    begun, worst, hits = time.monotonic(), 0.0, cache.stats().tiers["tier 0"].hits
    while (now := time.monotonic()) < begun + 3 * BOUND:
        if now - written[-1][1] > 0.3:
            outside.set("k", len(written))
            written.append((len(written), time.monotonic()))
        now = time.monotonic()
        value = cache.get("k")
        # It was overwritten when the next one was written.
        if value + 1 < len(written):
            worst = max(worst, now - written[value + 1][1])
        time.sleep(0.0005)
    print(f"{fault.__name__}: worst {worst:.3f} s, {cache.stats().tiers['tier 0'].hits - hits} hits")
    assert worst <= BOUND + TURN
    mend()
    outside.set("k", "after")
    eventually(lambda: is_near(cache, "after"), "changes are not heard of again")
    outside.set("k", "later")
    eventually(lambda: cache.get("k") == "later", "the change was not heard of", patience=0.5 + TURN)


def test_the_end_of_the_channel_empties_the_near_tier_at_once(
    redis_server: RedisServer, cache: TieredCache, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    """When the channel ends the near tier is emptied, and the log tells of it once, and once when it is back."""
    cache.set("k", 1)
    eventually(lambda: is_near(cache, 1), "the entry is not near")
    mend = cut(proxy)
    eventually(lambda: not cache._near.is_tracked, "the end was not noticed", patience=BOUND / 2)
    assert not cache._near.entries
    eventually(lambda: "not heard of" in caplog.text, "nothing was logged")
    for _ in range(5):
        proxy.cut()
        time.sleep(0.02)
    mend()
    eventually(lambda: is_near(cache, 1), "changes are not heard of again")
    assert caplog.text.count("are not heard of") == 1
    eventually(lambda: "are heard of again" in caplog.text, "nothing was logged")


@pytest.mark.slow
def test_a_restarted_server_is_heard_of_again(redis_server: RedisServer) -> None:
    """After its server was restarted a near tier is empty, and keeps entries again that a channel vouches for."""
    cache = make(url(redis_server.port))
    cache.set("k", 1)
    eventually(lambda: is_near(cache, 1), "the entry is not near")
    redis_server.process.kill()
    eventually(lambda: not cache._near.is_tracked, "the end was not noticed")
    assert cache.get("k") is None, "an outage reads as a miss"
    redis_server.start()
    assert cache._near.stats().entries == 0

    def stored() -> bool:
        cache.set("k", 2)
        return is_near(cache, 2)

    eventually(stored, "the server is not used again")
    cache._storage._engine.close()


def read_and_wait(cache: TieredCache, pipe: Any) -> Any:
    """Keep an entry near, let oneself be stopped, and return the first value read afterwards."""
    while not is_near(cache, "old"):
        time.sleep(0.001)
    last = time.monotonic()  # before it is told: the stop may come at once
    pipe.send("ready")
    while (now := time.monotonic()) < last + 0.5:
        last = now
    # Stopped meanwhile: no other thread has run either.
    return cache.get("k")


class Suite:
    def make_cache(self, location: str, params: dict[str, Any]) -> TieredCache:
        return make(location, bound=0.5)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="the system has no such signal")
def test_a_process_that_stood_still_does_not_go_on_with_old_values(redis_databases: Databases) -> None:
    """A process that stood still for longer than the bound reads the storage, though its memory is as it was."""
    location = redis_databases.url()
    outside = RedisCache(location, {"TIMEOUT": None})
    outside.set("k", "old")
    child = Child(Suite, location, {}, read_and_wait, talks=True)
    try:
        assert child.pipe.poll(60)
        assert child.pipe.recv() == "ready"
        assert child._process.pid is not None
        os.kill(child._process.pid, signal.SIGSTOP)
        outside.set("k", "new")
        time.sleep(1.0)
        os.kill(child._process.pid, signal.SIGCONT)
        value = child.result()
    finally:
        child.end()
    assert value == "new"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork()")
def test_a_forked_child_hears_for_itself(redis_databases: Databases) -> None:
    """A forked child hears of changes by a channel of its own, and its parent by the one it had."""
    cache = make(redis_databases.url(), bound=30)
    cache.set("k", 1)
    eventually(lambda: is_near(cache, 1), "the entry is not near")
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            eventually(lambda: is_near(cache, 1), "the entry is not near in the child")
            os.write(writer, b"!")
            eventually(lambda: cache.get("k") == 2, "the child does not hear of the change", patience=5)
            cache.set("k", 3)
        finally:
            os._exit(1 if sys.exc_info()[0] else 0)
    assert os.read(reader, 1) == b"!"
    assert is_near(cache, 1), "the parent is disturbed"
    cache.set("k", 2)
    assert os.waitpid(pid, 0)[1] == 0
    eventually(lambda: cache.get("k") == 3, "the parent does not hear of the change", patience=5)
    os.close(reader)
    os.close(writer)
    cache._storage._engine.close()


def test_tasks_of_several_loops_and_threads_share_the_channel(redis_databases: Databases) -> None:
    """Loops and threads hear of changes by the one thread that listens for their server."""
    location = redis_databases.url()
    cache = make(location, bound=30)
    outside = RedisCache(location, {})
    cache.set("k", 0)
    eventually(lambda: is_near(cache, 0), "the entry is not near")

    async def follow(number: int) -> None:
        deadline = time.monotonic() + 10
        while await cache.aget("k") != number:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.001)

    for number in range(1, 4):
        threads = [threading.Thread(target=lambda number=number: asyncio.run(follow(number))) for _ in range(3)]
        for thread in threads:
            thread.start()
        outside.set("k", number)
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("storeroom-near") >= 1
    before = len([name for name in names if name == "storeroom-near"])
    make(location, bound=30).get("k")
    assert len([t for t in threading.enumerate() if t.name == "storeroom-near"]) == before
    cache._storage._engine.close()


def test_where_the_system_allows_no_thread_to_listen_entries_are_bounded_by_time(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a thread to listen entries are bounded by time, the log tells, and the next near tier tries again."""
    cache, other = make(url(redis_server.port), bound=0.2), make(url(redis_server.port))
    before = threading.stack_size(2**46)  # no system has room for it
    try:
        cache.set("k", "old")
        assert cache.get("k") == "old"
    finally:
        threading.stack_size(before)
    assert not is_near(cache, "old")
    assert "are not heard of (RuntimeError: can't start new thread)" in caplog.text
    other._storage.set("k", "new")
    time.sleep(0.2)
    assert cache.get("k") == "new"
    eventually(lambda: is_near(other, "new"), "the next near tier is told of changes")
    cache._storage._engine.close()


@pytest.mark.slow
def test_a_program_ends_at_once_beside_the_channel(redis_databases: Databases) -> None:
    """The thread that listens does not keep a program from ending."""
    code = f"""
from tests.faults.test_tiered import is_near, make
from tests.servers.redis_groups import eventually
cache = make({redis_databases.url()!r})
cache.set("k", 1)
eventually(lambda: is_near(cache, 1), "it is not near")
"""
    begun = time.monotonic()
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=root, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert time.monotonic() - begun < 20


@pytest.mark.slow
def test_a_failover_is_followed(tmp_path: Path) -> None:
    """After a failover changes at the new primary are heard of, and no entry of the old one is kept."""
    with sentinels(tmp_path) as group:
        location = group.url()
        cache = make(location, bound=1.0, socket_timeout=1.0)
        cache.set("k", "before")
        eventually(lambda: is_near(cache, "before"), "the entry is not near")
        old = group.primary()
        old.process.kill()
        eventually(lambda: not cache._near.is_tracked, "the end was not noticed")

        def stored() -> bool:
            cache.set("k", "after")
            return is_near(cache, "after")

        eventually(stored, "the new primary is not heard of", patience=60)
        outside = RedisCache(location, {"OPTIONS": {"client_name": "outside"}})
        outside.set("k", "changed")
        eventually(lambda: cache.get("k") == "changed", "the change was not heard of", patience=5)
        cache._storage._engine.close()
