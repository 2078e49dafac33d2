"""The Memcached caches when servers die, hang, come back, forget, have no room, and hold nonsense."""

import asyncio
import gc
import itertools
import logging
import os
import pickle
import random
import socket
import statistics
import struct
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from storeroom.backends.locmem import LocMemCache
from storeroom.backends.memcached import MemcachedCache, PyLibMCCache, PyMemcacheCache
from storeroom.backends.memcached.server_keys import generation_key, server_key
from storeroom.exceptions import StorageError, ValueTooLargeError
from storeroom.storage.outages import CircuitBreaker
from storeroom.testing.concurrency import eventually
from storeroom.testing.isolation import engines_of_its_own
from tests.servers.memcached import MemcachedServer, Servers, memcached, needs_pylibmc, running
from tests.servers.proxy import Proxy

__all__ = ["memcached"]

#: Seconds: what a test waits for a server that does not answer.
SHORT = 0.3

#: Seconds: where the server does answer, so that a turn of a busy machine is no outage.
PATIENT = 20.0

HASTY = {"socket_timeout": SHORT, "socket_connect_timeout": SHORT}

Make: TypeAlias = Callable[..., MemcachedCache]


@pytest.fixture(params=["pymemcache", pytest.param("pylibmc", marks=needs_pylibmc)])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Make caches, by both drivers in turn."""
    backend = PyMemcacheCache if request.param == "pymemcache" else PyLibMCCache

    def make(location: str, key_prefix: str = "", **options: Any) -> MemcachedCache:
        settings = {"socket_timeout": PATIENT, "socket_connect_timeout": PATIENT, **options}
        return backend(location, {"TIMEOUT": None, "KEY_PREFIX": key_prefix, "OPTIONS": settings})

    with engines_of_its_own():
        yield make


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MemcachedServer]:
    """A server of the test's own, which it may mistreat."""
    with running(tmp_path, by_port=True) as servers:
        yield servers.servers[0]


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Servers]:
    with running(tmp_path, 3) as servers:
        yield servers


@pytest.fixture
def proxy(server: MemcachedServer) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


def breaker(cache: MemcachedCache, number: int = 0) -> CircuitBreaker:
    return cache._group.servers[number].breaker


def key_of(cache: MemcachedCache, key: str) -> bytes:
    """Return the server's key of an entry."""
    shard = cache._shard_of(cache.make_key(key))
    return shard._key(cache.make_key(key))


def store(server: MemcachedServer, payloads: dict[bytes, bytes], flags: int = 0) -> None:
    """Write past all caches."""
    with server.connect() as connection:
        for key, data in payloads.items():
            connection.sendall(b"set %b %d 0 %d\r\n%b\r\n" % (key, flags, len(data), data))
            assert connection.recv(100) == b"STORED\r\n"


# A server that is down ----------------------------------------------------------------------


@pytest.mark.slow
def test_outage_is_ten_thousand_misses_and_two_lines_in_the_log(
    make: Make, server: MemcachedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing raises, most answers take microseconds, and soon after the server is back it is used."""
    cache = make(server.location)
    cache.set("k", "v")
    server.process.kill()
    seconds = []
    with caplog.at_level(logging.WARNING, "storeroom"):
        while not breaker(cache).is_open:
            assert cache.get("k") is None
        for _ in range(10_000):
            begun = time.perf_counter()
            assert cache.get("k", "default") == "default"
            seconds.append(time.perf_counter() - begun)
        assert statistics.quantiles(seconds, n=100)[98] <= 0.002
        assert cache.stats().errors >= 10_000
        server.start()
        begun = time.monotonic()
        while not cache.add("back", 1):
            assert time.monotonic() - begun < 2
            time.sleep(0.005)
    assert cache.get("back") == 1
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2, lines
    assert f"Memcached at 127.0.0.1:{server.port} is down" in lines[0]
    assert "answers again" in lines[1]


def test_answers_during_an_outage_pretend_nothing(make: Make, server: MemcachedServer) -> None:
    """What was not stored is not said to be, and a counter that does not count raises."""
    cache = make(server.location)
    server.process.kill()
    assert cache.set("k", "v") is None
    assert cache.add("k", "v") is False
    assert cache.set_many({"a": 1, "b": 2}) == ["a", "b"]
    assert cache.get_many(["a", "b"]) == {}
    assert cache.touch("k") is False
    assert cache.delete("k") is False
    assert cache.has_key("k") is False
    assert cache.ttl("k") == 0
    assert cache.get_or_set("k", lambda: "computed") == "computed"
    for operation in (cache.clear, lambda: cache.incr("n"), lambda: cache.incr_version("k")):
        with pytest.raises(StorageError, match=r"Memcached at 127\.0\.0\.1"):
            operation()


def test_policy_raise_raises(make: Make, server: MemcachedServer) -> None:
    cache = make(server.location, on_error="raise")
    server.process.kill()
    with pytest.raises(StorageError, match="out of reach"):
        cache.get("k")
    with pytest.raises(StorageError, match="out of reach"):
        asyncio.run(cache.aget("k"))


def test_fallback_answers_for_the_keys_of_the_server_that_is_down(
    make: Make, three: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And for no others."""
    memory = LocMemCache("fallback of memcached", {"TIMEOUT": None})
    monkeypatch.setattr("storeroom.registry.caches", {"memory": memory})
    cache = make(three.location(), on_error="fallback:memory")
    three.servers[0].process.kill()
    values = {f"k{number}": number for number in range(60)}
    assert cache.set_many(values) == []
    assert cache.get_many(values) == values
    fallen_back = memory.get_many(values)
    assert 0 < len(fallen_back) < 60
    assert fallen_back == {key: number for key, number in values.items() if _home(cache, key) == 0}


@pytest.mark.parametrize("operation", ["set", "add", "get", "get_many", "set_many", "incr", "delete", "clear"])
def test_restart_between_two_operations_is_not_noticed(make: Make, server: MemcachedServer, operation: str) -> None:
    """Neither by what may be repeated, nor by what may not: the dead connection is found out before."""
    cache = make(server.location)
    cache.get("k")
    server.process.stop()
    server.start()
    if operation == "add":
        assert cache.add("k", 1) is True
    elif operation == "incr":
        with pytest.raises(ValueError, match="not found"):
            cache.incr("k")
    elif operation in {"get_many", "set_many"}:
        getattr(cache, operation)({"a": 1, "b": 2})
    elif operation == "set":
        cache.set("k", 1)
        assert cache.get("k") == 1
    else:
        getattr(cache, operation)(*["k"] * (operation != "clear"))
    assert breaker(cache).failures == 0
    assert cache.stats().errors == 0


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_hanging_server_is_a_miss_after_the_timeout(make: Make, server: MemcachedServer, mode: str) -> None:
    """And no more than a few callers wait for it."""
    cache = make(server.location, **HASTY)

    async def get_many_times() -> None:
        for _ in range(20):
            assert (await cache.aget("k") if mode == "async" else cache.get("k")) is None

    cache.set("k", "v")
    server.process.pause()
    try:
        begun = time.monotonic()
        asyncio.run(get_many_times())
        assert time.monotonic() - begun < 5 * SHORT + 0.5
        assert breaker(cache).is_open
    finally:
        server.process.resume()
    eventually(lambda: cache.get("k") == "v")


@pytest.mark.parametrize("operation", ["get", "get_many", "delete", "touch", "set", "add"])
def test_silence_is_a_failure_whatever_is_asked(make: Make, server: MemcachedServer, operation: str) -> None:
    """A driver that takes silence for a miss would hide an outage."""
    cache = make(server.location, **HASTY)
    cache.set("k", "v")
    server.process.pause()
    try:
        arguments = {"get_many": [["k", "l"]], "set": ["k", 1], "add": ["k", 1]}.get(operation, ["k"])
        getattr(cache, operation)(*arguments)
        assert breaker(cache).failures == 1
    finally:
        server.process.resume()


def test_hanging_server_does_not_count_twice(make: Make, server: MemcachedServer) -> None:
    """An increment that was not answered is not sent again, as it may have been carried out."""
    cache = make(server.location, **HASTY)
    cache.set("n", 0)
    server.process.pause()
    try:
        with pytest.raises(StorageError):
            cache.incr("n")
    finally:
        server.process.resume()
    eventually(lambda: cache.get("n") in {0, 1})


# Several servers ----------------------------------------------------------------------------


def _home(cache: Any, key: str) -> int:
    return cache._group.place(cache.make_key(key))


@pytest.mark.slow
def test_dead_server_takes_its_own_keys_and_no_others(
    make: Make, three: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    """They miss while it is away, and are stored again when it is back. It is told of once."""
    cache = make(three.location())
    values = {f"k{number}": number for number in range(90)}
    cache.set_many(values)
    dead = {key for key in values if _home(cache, key) == 1}
    assert 10 < len(dead) < 60
    alive = {key: value for key, value in values.items() if key not in dead}
    with caplog.at_level(logging.WARNING, "storeroom"):
        three.servers[1].process.kill()
        for _ in range(5):
            assert cache.get_many(values) == alive
            assert set(cache.set_many(values)) == dead
            for key, value in values.items():
                assert cache.get(key) == (None if key in dead else value)
        with pytest.raises(StorageError, match=r"Memcached at unix:.* is out of reach"):
            cache.clear()
        assert cache.get_many(values) == {}, "clear() reached the others"
        three.servers[1].start()
        eventually(lambda: not cache.set_many(values))
        assert cache.get_many(values) == values
    assert [breaker(cache, number).failures > 0 for number in range(3)] == [False, True, False]
    assert len(caplog.records) == 2, [record.getMessage() for record in caplog.records]


@pytest.mark.slow
def test_dead_server_is_ejected_for_a_bounded_time_and_comes_back(make: Make, three: Servers) -> None:
    """The next one keeps its entries meanwhile, but no counter; at another outage nothing of that is found."""
    longest = 1.0
    cache = make(three.location(), eject=longest)
    values = {f"k{number}": number for number in range(90)}
    dead = [key for key in values if _home(cache, key) == 1]
    assert cache.set_many(values) == []

    def goes_away() -> None:
        three.servers[1].process.kill()
        eventually(lambda: cache.get(dead[0]) is None and breaker(cache, 1).is_open)

    goes_away()
    # Once a second an operation asks for the server itself, and misses.
    eventually(lambda: not cache.set_many(dict.fromkeys(values, "meanwhile")))
    eventually(lambda: cache.get_many(values) == dict.fromkeys(values, "meanwhile"))
    eventually(lambda: 0 < cache.ttl(dead[1]) <= longest)
    assert cache.ttl(next(key for key in values if key not in dead)) is None
    computed: list[str] = []
    eventually(lambda: cache.get_or_set(dead[2], lambda: computed.append("x") or "new") is not None)
    assert len(computed) <= 2
    with pytest.raises(StorageError):
        cache.incr(dead[0])

    three.servers[1].start()
    eventually(lambda: cache.get(dead[0]) is None and not breaker(cache, 1).is_open)
    assert cache.set_many(dict.fromkeys(values, "at home")) == []
    assert cache.get_many(values) == dict.fromkeys(values, "at home")
    time.sleep(longest)
    goes_away()
    alive = {key: "at home" for key in values if key not in dead}
    for _ in range(3):
        assert cache.get_many(values) == alive


def test_move_to_a_dead_server_moves_nothing(make: Make, three: Servers) -> None:
    """incr_version() between two servers leaves the entry where it is if the other one cannot take it."""
    cache = make(three.location())
    key = next(
        f"k{number}"
        for number in range(100)
        if cache._group.place(cache.make_key(f"k{number}")) == 0
        and cache._group.place(cache.make_key(f"k{number}", version=2)) == 2
    )
    cache.set(key, "v", timeout=500)
    three.servers[2].process.kill()
    with pytest.raises(StorageError):
        cache.incr_version(key)
    assert cache.get(key) == "v"
    assert cache.ttl(key) == pytest.approx(500, abs=60)
    three.servers[2].start()
    eventually(lambda: cache.get("anything", version=2) is None and not breaker(cache, 2).is_open)


def test_order_of_servers_does_not_matter(make: Make, three: Servers) -> None:
    location = three.location()
    one, other = make(location), make(",".join(reversed(location.split(","))))
    values = {f"k{number}": number for number in range(100)}
    one.set_many(values)
    assert other.get_many(values) == values


# A network that fails -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_cut_connection_is_a_miss_at_most(make: Make, proxy: Proxy, mode: str) -> None:
    """Whatever the moment, nothing raises, and no reply goes to another's request."""
    cache = make(f"127.0.0.1:{proxy.port}")
    cache._group.servers[0].breaker = CircuitBreaker("the proxy", failures=1_000_000)  # which would keep readers away
    expected = {f"k{number}": number for number in range(50)}
    cache.set_many(expected)
    done = threading.Event()

    def cut() -> None:
        while not done.wait(0.003):
            proxy.cut()

    async def read() -> int:
        hits = 0
        for turn in range(300):
            key = f"k{turn % 50}"
            value = await cache.aget(key) if mode == "async" else cache.get(key)
            assert value in {None, expected[key]}
            hits += value is not None
        return hits

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        hits = asyncio.run(read())
    finally:
        done.set()
        cutter.join()
    assert hits > 0
    eventually(lambda: cache.get_many(expected) == expected)


@pytest.mark.parametrize("limit", [0, 1, 7, 40, 1000])
def test_truncated_reply_is_a_miss(make: Make, proxy: Proxy, server: MemcachedServer, limit: int) -> None:
    make(server.location).set("k", "v" * 5000)
    reader = make(f"127.0.0.1:{proxy.port}")
    proxy.truncate_after = limit
    assert reader.get("k") is None
    assert reader.get_many(["k"]) == {}
    assert breaker(reader).failures == 2
    proxy.truncate_after = None
    eventually(lambda: reader.get("k") == "v" * 5000)


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
)
def test_reply_that_comes_in_pieces_is_read_as_a_whole(make: Make, proxy: Proxy, piece: int | None, value: str) -> None:
    """And the next reply is the next request's."""
    cache = make(f"127.0.0.1:{proxy.port}", socket_timeout=20)
    cache.set_many({"k": value, "other": 1})
    proxy.piece = piece
    for _ in range(2):
        assert cache.get("k") == value
        assert cache.get("absent") is None
        assert cache.get("other") == 1
    assert cache.get_many(["k", "absent", "other"]) == {"k": value, "other": 1}
    assert breaker(cache).failures == 0


def test_late_reply_is_nobody_elses(make: Make, proxy: Proxy) -> None:
    """After a timeout the connection is given up: the reply that comes late is never read."""
    cache = make(f"127.0.0.1:{proxy.port}", **HASTY)
    cache.set_many({"a": "of a", "b": "of b"})
    proxy.delay = 2 * SHORT
    assert cache.get("a") is None
    proxy.delay = 0.0
    assert cache.get("b") == "of b"
    assert cache.get("a") == "of a"


def test_connections_are_bounded(make: Make, proxy: Proxy) -> None:
    """Threads wait for one another, rather than open more."""
    cache = make(f"127.0.0.1:{proxy.port}", max_connections=3, socket_timeout=20)
    cache.set("n", 0)
    most = []

    def count() -> None:
        for _ in range(20):
            cache.incr("n")
            most.append(proxy.connections)

    threads = [threading.Thread(target=count) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.get("n") == 240
    assert max(most) <= 3


@pytest.mark.parametrize(
    "nonsense",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"VALUE x\r\n",
        b"-ERR\r\n",
        b"\x00\xff\r\n",
        b"SERVER_ERROR out of memory writing get response\r\n",
        b"END\r\nEND\r\n",
        b"VALUE x 0 none\r\n",
        b"no end of line" * 1000,
    ],
)
def test_server_that_is_no_memcached_is_a_miss(make: Make, nonsense: bytes) -> None:
    """Whatever it says."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(nonsense)

        thread = threading.Thread(target=answer)
        thread.start()
        cache = make(f"127.0.0.1:{listener.getsockname()[1]}")
        assert cache.get("k", "default") == "default"
        cache.set("k", 1)
        assert cache.add("k", 1) is False
        assert breaker(cache).failures > 0
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


# Forks, tasks and loops -----------------------------------------------------------------------


def test_child_that_ends_leaves_the_parents_connections_open(make: Make, server: MemcachedServer) -> None:
    """Also one that ends as programs do, and frees its drivers' clients."""
    backend = type(make(server.location)).__qualname__
    code = f"""
        import gc, os, sys
        from storeroom.backends.memcached import {backend}
        cache = {backend}("{server.location}", {{}})
        cache.set("k", "v")
        child = os.fork()
        if child == 0:
            assert cache.get("k") == "v"
            cache.set("child", "was here")
            sys.exit()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        gc.collect()
        assert cache.get("child") == "was here"
        print(cache.stats().errors, cache._group.servers[0].breaker.failures)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert run.stdout == "0 0\n", run.stderr


def test_cancelled_task_leaves_the_connection_in_order(make: Make, server: MemcachedServer) -> None:
    cache = make(server.location, socket_timeout=20)
    cache.set_many({f"k{number}": number for number in range(100)})

    async def work() -> None:
        chance = random.Random(1)
        for _ in range(20):
            tasks = [asyncio.create_task(cache.aget(f"k{number}")) for number in range(100)]
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            cancelled = set(chance.sample(range(100), 50))
            for number in cancelled:
                tasks[number].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for number, result in enumerate(results):
                assert result == number or (number in cancelled and isinstance(result, asyncio.CancelledError))

    asyncio.run(work())
    assert breaker(cache).failures == 0


def test_event_loop_goes_on_while_a_server_hangs(make: Make, server: MemcachedServer) -> None:
    cache = make(server.location, **HASTY)
    cache.set("k", "v")

    async def work() -> float:
        reading = asyncio.create_task(cache.aget("k"))
        longest, last = 0.0, time.monotonic()
        while not reading.done():
            await asyncio.sleep(0.001)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        assert await reading is None
        return longest

    server.process.pause()
    try:
        assert asyncio.run(work()) < SHORT / 2
    finally:
        server.process.resume()


def test_many_loops_in_many_threads_leave_nothing_behind(
    make: Make, server: MemcachedServer, recwarn: pytest.WarningsRecorder
) -> None:
    cache = make(server.location, socket_timeout=20)
    cache.set("n", 0)

    async def count() -> None:
        await asyncio.gather(*(cache.aincr("n") for _ in range(20)))

    def work() -> None:
        for _ in range(5):
            asyncio.run(count())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert cache.get("n") == 400
    assert [str(warning.message) for warning in recwarn] == []
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("storeroom-memcached")]
    assert 0 < len(workers) <= 32


# What others have written -------------------------------------------------------------------


class Bomb:
    """A pickle that runs code when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_hostile_headers_are_misses(make: Make, memcached: Servers) -> None:
    """Whatever stands in place of a time, an entry is there or is not."""
    cache = make(memcached.location())
    chance = random.Random(21)
    headers = [chance.randbytes(chance.randrange(9)) for _ in range(500)]
    headers += [struct.pack(">d", number) for number in (float("nan"), -1.0, 0.0, 1e300, float("-inf"))]
    store(
        memcached.servers[0],
        {key_of(cache, f"k{number}"): header + b"7" for number, header in enumerate(headers)},
    )
    for number in range(len(headers)):
        key = f"k{number}"
        assert cache.get(key, 7) == 7
        assert cache.ttl(key) is None or cache.ttl(key) >= 0
        assert cache.touch(key) == cache.has_key(key)
        cache.delete(key)
        assert cache.add(key, "new") is True
        assert cache.get(key) == "new"


@pytest.mark.parametrize("flags", [1, 2, 4, 8, 9, 16, 32, 65_535])
def test_flags_of_foreign_bytes_do_nothing(make: Make, memcached: Servers, flags: int, tmp_path: Path) -> None:
    """Drivers use them to tell pickles and compressed values, which nobody asked for here."""
    cache = make(memcached.location())
    mark = tmp_path / "mark"
    for data in (pickle.dumps(Bomb(mark)), zlib.compress(pickle.dumps(Bomb(mark)))):
        keys = ["a", "b", "c", "d"]
        store(memcached.servers[0], {key_of(cache, key): data for key in keys}, flags)
        cache.set("good", 1)
        assert cache.get("a") is None
        assert cache.get_many(["a", "b", "good"]) == {"good": 1}
        with pytest.raises(ValueError, match="not found"):
            cache.incr("c")
        assert cache.touch("c") in {False, True}
        assert cache.add("d", "new") in {False, True}
        cache.set("a", "again")
        assert cache.get("a") == "again"
        assert not mark.exists()
    assert breaker(cache).failures == 0


# Generations ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_clear_is_seen_by_other_processes_within_a_second(make: Make, memcached: Servers) -> None:
    location = memcached.location()
    cache = make(location, "shop")
    cache.set_many({"k": 1, "l": 2})
    assert cache.get("k") == 1
    code = f"""
        from storeroom.backends.memcached import {type(cache).__qualname__} as Cache
        cache = Cache("{location}", {{"KEY_PREFIX": "shop", "TIMEOUT": None}})
        assert cache.get("k") == 1
        cache.clear()
        assert cache.get("k") is None
        cache.set("after", 1)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
    begun = time.monotonic()
    while cache.get("k") is not None:
        assert time.monotonic() - begun < 1.1
        time.sleep(0.01)
    assert cache.get_many(["k", "l", "after"]) == {"after": 1}


@pytest.mark.parametrize("loss", ["delete", "foreign", "flush"])
def test_lost_generation_makes_misses_and_nothing_stale(make: Make, memcached: Servers, loss: str) -> None:
    """Evicted, overwritten by a stranger, or gone with everything else."""
    location, server = memcached.location(), memcached.servers[0]
    cache = make(location, "lost")
    cache.set("k", "before")
    if loss == "delete":
        assert server.ask(b"delete " + generation_key("lost")) == b"DELETED\r\n"
    elif loss == "foreign":
        store(server, {generation_key("lost"): b"no token at all\x00"})
    else:
        server.ask(b"flush_all")
    cache._shards[0]._generation.state = (cache._shards[0]._generation.state[0], 0.0)  # what a second does
    assert cache.get("k") is None
    cache.set("k", "after")
    assert make(location, "lost").get("k") == "after"
    assert breaker(cache).failures == 0


# Room -----------------------------------------------------------------------------------------


def test_value_larger_than_the_servers_items_is_refused_with_both_sizes(make: Make, tmp_path: Path) -> None:
    """Compressed under it, it is stored."""
    with running(tmp_path, 1, "-m", "64") as servers:
        cache = make(servers.location())
        cache.set("k", "old")
        large = "v" * 2**21
        for operation in (
            lambda: cache.set("k", large),
            lambda: cache.add("new", large),
            lambda: cache.set_many({"a": 1, "k": large, "b": 2}),
            lambda: asyncio.run(cache.aset("k", large)),
        ):
            with pytest.raises(ValueTooLargeError, match=r"takes 2097161 bytes.* holds items of 1048576 .*-I"):
                operation()
        assert cache.get("k") is None
        assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
        assert breaker(cache).failures == 0
        compressed = make(servers.location(), compressor="zlib")
        compressed.set("k", large)
        assert compressed.get("k") == large


@pytest.mark.parametrize("large", [20_000, 400_000])
def test_server_without_room_says_so(make: Make, tmp_path: Path, large: int) -> None:
    """One that may not evict (-M) refuses, which is no outage, and nothing is said to be stored."""
    with running(tmp_path, 1, "-M", "-m", "8") as servers:
        cache = make(servers.location())
        cache.set("small", 1)
        values = {f"k{number}": "v" * large for number in range(500)}
        failed = cache.set_many(values)
        assert 0 < len(failed) < 500
        assert cache.stats().errors == len(failed)
        for key in failed[:3]:
            cache.set(key, "v" * large)
            assert cache.get(key) is None
            assert cache.add(key, "v" * large) is False
        stored = cache.get_many(values)
        assert set(stored) == set(values) - set(failed)
        assert cache.get("small") == 1
        assert breaker(cache).failures == 0


@pytest.mark.parametrize("policy", ["miss", "raise"])
def test_server_without_room_keeps_nobody_waiting(make: Make, tmp_path: Path, policy: str) -> None:
    """Not even what replaces an entry has room there: nothing spins, nothing waits, and nothing pretends."""
    with running(tmp_path, 1, "-M", "-m", "2", "-o", "slab_chunk_max=8192") as servers:
        cache = make(servers.location(), on_error=policy, socket_timeout=20)
        cache.set_many({"n": 1, "bare": "v" * 80})
        numbers = itertools.count()
        for size in (5000, 1000, *range(400, -1, -8)):
            failed: list[bytes] = []
            while len(failed) < 50:  # until none of a turn finds room
                ballast = {b"%d" % next(numbers): bytes(size) for _ in range(50)}
                failed = cache._group.servers[0].ask("set_many", ballast, 0)
        begun = time.monotonic()
        writes: dict[str, tuple[Callable[[], Any], Any]] = {
            "set": (lambda: cache.set("new", "w" * 300), None),
            "set_many": (lambda: cache.set_many(dict.fromkeys("ab", "w" * 300)), ["a", "b"]),
            "add": (lambda: cache.add("a", "w" * 300), False),
            "get_or_set": (lambda: cache.get_or_set("a", lambda: "computed"), "computed"),
            "get_or_set, tagged": (lambda: cache.get_or_set("b", lambda: "computed", tags=["t"]), "computed"),
            "get_or_set_many": (lambda: cache.get_or_set_many(["c"], lambda _: {"c": 1}), {"c": 1}),
            "touch": (lambda: cache.touch("n", 50), False),
        }
        for name, (write, answer) in writes.items():
            if policy == "miss":
                assert write() == answer, name
                continue
            with pytest.raises(StorageError, match="has no room, and may not evict"):
                write()
        for change in (lambda: cache.incr("n"), lambda: cache.incr_version("n"), cache.lock("l").acquire, cache.clear):
            with pytest.raises(StorageError, match="has no room, and may not evict"):
                change()
        assert cache.get("n") == 1
        assert time.monotonic() - begun < 3
        assert breaker(cache).failures == 0


def test_server_without_room_for_a_generation_is_a_miss(make: Make, tmp_path: Path) -> None:
    """A cache that is new on a server that is full, and may not evict, goes without, and does not hang."""
    with running(tmp_path, 1, "-M", "-m", "2", "-o", "slab_chunk_max=8192") as servers:
        full = make(servers.location(), "full")
        for size in (5000, 500, 100, 20, 0):
            chance = 0
            while not full.set_many({f"{size}-{chance}-{number}": "v" * size for number in range(200)}):
                chance += 1
        cache = make(servers.servers[0].location, "new")
        begun = time.monotonic()
        assert cache.get("k", "default") == "default"
        cache.set("k", 1)
        assert cache.add("k", "v" * 5000) is False
        assert cache.stats().errors > 0
        assert time.monotonic() - begun < 1
        assert breaker(cache).failures == 0


# Time -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_fractions_of_a_second_by_the_real_clock(make: Make, memcached: Servers) -> None:
    """An entry of 0.9 s is there for that long, and the server's memory has it no more soon after."""
    cache = make(memcached.location())
    begun = time.monotonic()
    cache.set("k", "v", timeout=0.9)
    stored, asked = time.monotonic(), begun
    key = key_of(cache, "k")
    while cache.get("k") == "v":
        assert asked < stored + 0.95, "it was there when it was asked for"
        time.sleep(0.02)
        asked = time.monotonic()
    assert time.monotonic() - begun > 0.85
    while memcached.servers[0].ask(b"get " + key) != b"END\r\n":
        assert time.monotonic() - begun < 5
        time.sleep(0.05)


@pytest.mark.parametrize("days", [29, 30, 31, 400, 20_000])
def test_more_than_thirty_days(make: Make, memcached: Servers, days: int) -> None:
    """Which Memcached takes for a point in time, and which may be after 2038."""
    cache = make(memcached.location())
    seconds = days * 86_400
    cache.set("k", "v", timeout=seconds)
    assert cache.get("k") == "v"
    assert cache.ttl("k") == pytest.approx(seconds, abs=5)
    assert cache.add("n", 1, timeout=seconds)
    assert cache.incr("n") == 2
    assert cache.touch("n", timeout=seconds) is True
    assert cache.get("n") == 2


# Keys -------------------------------------------------------------------------------------------


def test_hashed_key_cannot_be_taken_for_another(make: Make, memcached: Servers) -> None:
    """Not even by who types what the server sees."""
    cache = make(memcached.location())
    odd = "a key with spaces"
    cache.set(odd, "odd")
    token = cache._shards[0]._generation.state[0]
    seen = server_key(token, cache.make_key(odd)).decode().removeprefix(token).removeprefix(":1:")
    assert "#" in seen
    assert cache.get(seen) is None
    cache.set(seen, "typed")
    assert cache.get(odd) == "odd"


def test_server_key_is_legal() -> None:
    """For any string: at most 250 bytes, none of them white space or a control character."""
    chance = random.Random(5)
    alphabet = [*map(chr, range(300)), "\ud800", "\U0001f511", " ", "#"]
    seen = set()
    for _ in range(3000):
        storage_key = "".join(chance.choices(alphabet, k=chance.randrange(300)))
        key = server_key("a" * 12, storage_key)
        assert len(key) <= 250
        assert all(0x21 <= byte <= 0x7E for byte in key)
        seen.add((storage_key, key))
    assert len({key for _, key in seen}) == len({storage_key for storage_key, _ in seen})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
def test_idle_connections_are_closed_before_a_fork(make: Make, server: MemcachedServer) -> None:
    cache = make(server.location)
    cache.get("k")
    assert cache._group.servers[0]._connections.idle == 1
    child = os.fork()
    if child == 0:
        os._exit(cache._group.servers[0]._connections.idle)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert cache.get("k") is None
    assert breaker(cache).failures == 0
