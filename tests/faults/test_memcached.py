"""Memcached's own faults: servers of a group that die, servers that are silent or no Memcached, and forks."""

import logging
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from storeroom.backends.memcached import MemcachedCache, PyLibMCCache, PyMemcacheCache
from storeroom.base import BaseCache
from storeroom.exceptions import StorageError
from storeroom.storage.outages import PAUSE_SECONDS, CircuitBreaker
from storeroom.testing.concurrency import eventually
from storeroom.testing.isolation import engines_of_its_own
from tests.faults.kinds import HASTY, MEMCACHED, PATIENT, Site
from tests.servers.memcached import Servers, needs_pylibmc, running

Make: TypeAlias = Callable[..., MemcachedCache]


@pytest.fixture(scope="module", params=MEMCACHED)
def kind(request: pytest.FixtureRequest) -> str:
    """Memcached alone, by both drivers in turn."""
    return str(request.param)


# One server ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_silence_is_a_failure_whatever_is_asked(site: Site) -> None:
    """No driver hides an outage by taking a server's silence for the answer that there is no entry."""
    cache = site.cache(failures=1_000, **HASTY)
    site.cache().set("k", "v")
    operations: dict[str, Callable[[], Any]] = {
        "get": lambda: cache.get("k"),
        "get_many": lambda: cache.get_many(["k", "l"]),
        "delete": lambda: cache.delete("k"),
        "touch": lambda: cache.touch("k"),
        "set": lambda: cache.set("k", 1),
        "add": lambda: cache.add("k", 1),
    }
    eventually(lambda: cache.get("k") == "v")
    with site.paused():
        for name, operation in operations.items():
            failures = site.failures(cache)
            operation()
            assert site.failures(cache) == failures + 1, name


@pytest.mark.parametrize(
    "nonsense",
    [
        b"VALUE x\r\n",
        b"-ERR\r\n",
        b"\x00\xff\r\n",
        b"SERVER_ERROR out of memory writing get response\r\n",
        b"END\r\nEND\r\n",
        b"VALUE x 0 none\r\n",
        b"no end of line" * 1000,
    ],
)
def test_server_that_is_no_memcached_is_a_miss(site: Site, nonsense: bytes) -> None:
    """Whatever a server says that speaks no protocol that is known, reads miss and nothing is stored."""
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

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        cache = site.cache(port=listener.getsockname()[1])
        assert cache.get("k", "default") == "default"
        cache.set("k", 1)
        assert cache.add("k", 1) is False
        assert cache.get_many(["k", "l"]) == {}
        assert cache.set_many({"k": 1, "l": 1}) == ["k", "l"]
        assert site.failures(cache) > 0
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
def test_child_that_ends_leaves_the_parents_connections_open(site: Site) -> None:
    """A forked child that ends as programs do, freeing its driver's clients, does not disturb its parent."""
    code = f"""
        import gc, os, sys
        from storeroom.backends.memcached import {type(site.cache()).__qualname__} as Cache
        cache = Cache("{site.server.location}", {{}})
        cache.set("k", "v")
        child = os.fork()
        if child == 0:
            assert cache.get("k") == "v"
            cache.set("child", "was here")
            sys.exit()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        gc.collect()
        assert cache.get("child") == "was here"
        print(cache.stats().errors, cache.engine.servers[0].breaker.failures)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert run.stdout == "0 0\n", run.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
def test_idle_connections_are_closed_before_a_fork(site: Site) -> None:
    """A forked child has none of its parent's connections, and the parent opens others."""
    cache = site.cache()
    connections = cache.engine.servers[0]._connections
    cache.get("k")
    assert connections.idle == 1
    child = os.fork()
    if child == 0:
        os._exit(connections.idle)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert cache.get("k") is None
    assert site.failures(cache) == 0


# Several servers ----------------------------------------------------------------------------


@pytest.fixture(params=[PyMemcacheCache, pytest.param(PyLibMCCache, marks=needs_pylibmc)])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Make caches, by both drivers in turn."""

    def make(location: str, **options: Any) -> MemcachedCache:
        settings = {"socket_timeout": PATIENT, "socket_connect_timeout": PATIENT, **options}
        cache: MemcachedCache = request.param(location, {"TIMEOUT": None, "OPTIONS": settings})
        return cache

    with engines_of_its_own():
        yield make


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Servers]:
    """Three servers of the test's own, which it may kill."""
    with running(tmp_path, 3) as servers:
        yield servers


def breaker(cache: MemcachedCache, number: int) -> CircuitBreaker:
    return cache._group.servers[number].breaker


def home_of(cache: MemcachedCache, key: str, version: int | None = None) -> int:
    """Return the number of the server that keeps an entry."""
    return cache._group.owner(cache.make_key(key, version))


def test_fallback_answers_for_the_keys_of_the_server_that_is_down(
    make: Make, three: Servers, memory: BaseCache
) -> None:
    """The other cache keeps the entries of the server that is down, and no others."""
    cache = make(three.location(), on_error="fallback:memory")
    three.servers[0].process.kill()
    values = {f"k{number}": number for number in range(60)}
    assert cache.set_many(values) == []
    assert cache.get_many(values) == values
    fallen_back = memory.get_many(values)
    assert 0 < len(fallen_back) < 60
    assert fallen_back == {key: number for key, number in values.items() if home_of(cache, key) == 0}


@pytest.mark.slow
def test_dead_server_takes_its_own_keys_and_no_others(
    make: Make, three: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    """Entries of a dead server miss while it is away and are stored when it is back; the log tells of it once."""
    cache = make(three.location())
    values = {f"k{number}": number for number in range(90)}
    cache.set_many(values)
    dead = {key for key in values if home_of(cache, key) == 1}
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
    assert len(caplog.messages) == 2, caplog.messages


@pytest.mark.slow
def test_ejected_server_that_was_only_away_serves_nothing_old(make: Make, three: Servers) -> None:
    """An entry that another server has kept meanwhile is removed from its own when that is back."""
    cache = make(three.location(), eject=60.0, **HASTY)
    key, other = [f"k{number}" for number in range(90) if home_of(cache, f"k{number}") == 1][:2]
    cache.set_many({key: "old", other: "old"})
    three.servers[1].process.pause()
    try:
        eventually(lambda: cache.get(other) is None and breaker(cache, 1).is_open)
        eventually(lambda: cache.add(key, "new"))
        assert cache.get(key) in {"new", None}, "once a second its own server is asked"
    finally:
        three.servers[1].process.resume()
    eventually(lambda: cache.get(other) == "old")
    assert not breaker(cache, 1).is_open
    assert cache.get(key) is None


@pytest.mark.slow
def test_server_that_was_stopped_under_writes_serves_nothing_old(make: Make, tmp_path: Path) -> None:
    """Of two servers one is stopped, and all is written again and again: nothing older is read, then or afterwards."""
    with running(tmp_path, 2) as servers:
        cache = make(servers.location(), eject=600.0, **HASTY)
        keys = [f"k{number}" for number in range(300)]
        own = [key for key in keys if home_of(cache, key) == 0]

        def write_all(value: int) -> None:
            for key in keys[:150]:
                cache.set(key, value)
            cache.set_many(dict.fromkeys(keys[150:], value))

        write_all(0)
        servers.servers[0].process.pause()
        try:
            eventually(lambda: cache.get(own[0]) is None and breaker(cache, 0).is_open)
            begun, value = time.monotonic(), 0
            while value < 5 or time.monotonic() - begun < 2.5 * PAUSE_SECONDS:  # some writes meet the stopped server
                value += 1
                write_all(value)
                cache.delete(own[1])
                assert set(cache.get_many(keys).values()) == {value}
            assert not {cache.get(key) for key in keys} - {value, None}
        finally:
            servers.servers[0].process.resume()
        eventually(lambda: not (cache.set(own[2], value), breaker(cache, 0).is_open)[1])
        assert not {cache.get(key) for key in keys} - {value, None}
        assert not set(cache.get_many(keys).values()) - {value}
        write_all(value + 1)
        assert cache.get_many(keys) == dict.fromkeys(keys, value + 1)


@pytest.mark.slow
def test_dead_server_is_ejected_for_a_bounded_time_and_comes_back(make: Make, three: Servers) -> None:
    """The next server keeps a dead one's entries, but no counter; at another outage none of them is found."""
    longest = 1.0
    cache = make(three.location(), eject=longest)
    values = {f"k{number}": number for number in range(90)}
    dead = [key for key in values if home_of(cache, key) == 1]
    assert cache.set_many(values) == []

    def goes_away() -> None:
        three.servers[1].process.kill()
        eventually(lambda: cache.get(dead[0]) is None and breaker(cache, 1).is_open)

    goes_away()
    # Once a second an operation asks for the server itself, and misses.
    eventually(lambda: not cache.set_many(dict.fromkeys(values, "meanwhile")))
    eventually(lambda: cache.get_many(values) == dict.fromkeys(values, "meanwhile"))
    eventually(lambda: 0 < (cache.ttl(dead[1]) or 0) <= longest)
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


@pytest.mark.slow
def test_move_to_a_dead_server_moves_nothing(make: Make, three: Servers) -> None:
    """incr_version() leaves an entry where it is if the server of the next version cannot take it."""
    cache = make(three.location())
    numbered = (f"k{number}" for number in range(100))
    key = next(key for key in numbered if (home_of(cache, key), home_of(cache, key, version=2)) == (0, 2))
    cache.set(key, "v", timeout=500)
    three.servers[2].process.kill()
    with pytest.raises(StorageError):
        cache.incr_version(key)
    assert cache.get(key) == "v"
    assert cache.ttl(key) == pytest.approx(500, abs=60)
    three.servers[2].start()
    eventually(lambda: cache.get("anything", version=2) is None and not breaker(cache, 2).is_open)


def test_order_of_servers_does_not_matter(make: Make, three: Servers) -> None:
    """Two caches that name the same servers in different orders find each other's entries."""
    location = three.location()
    one, other = make(location), make(",".join(reversed(location.split(","))))
    values = {f"k{number}": number for number in range(100)}
    one.set_many(values)
    assert other.get_many(values) == values
