"""Traces of advice as real servers print them, of a program that uses Storeroom."""

import socket

from storeroom.advice import Simulation, read_trace
from storeroom.backends.memcached import PyMemcacheCache
from storeroom.backends.redis import RedisCache
from storeroom.recording.left import leave, left
from tests.servers.memcached import MemcachedServer
from tests.servers.redis import RedisServer, redis_binary, running

KEYS = [f"user {number % 20} é" for number in range(100)]


def use(cache):
    """Read each key, and store it after a miss; remove one at the end."""
    for key in KEYS:
        if cache.get(key) is None:
            cache.set(key, ["a", "value"], 60)
    cache.get_many(KEYS[:5])
    cache.delete(KEYS[0])
    cache.get(KEYS[0])


def misses_of(trace, size):
    simulation = Simulation([size], timeout=60.0)
    trace.replay(simulation)
    return sum(simulation.sizes[0].misses)


def test_what_redis_monitors_is_a_trace(tmp_path):
    """The log of MONITOR has all reads of a program, and replayed they miss as often as they did."""
    for server in running(RedisServer(redis_binary(), tmp_path / "redis")):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"MONITOR\r\n")
            with connection.makefile("rb") as lines:
                assert lines.readline() == b"+OK\r\n"
                cache = RedisCache(f"redis://127.0.0.1:{server.port}/3", {"KEY_PREFIX": "monitored"})
                use(cache)
                server.ask("SET", "the end", "1")
                log = tmp_path / "monitor.log"
                with log.open("wb") as file:
                    for line in lines:
                        if b"monitored" in line:
                            file.write(line.removeprefix(b"+"))
                        if b'"the end"' in line:
                            break
        stats = cache.stats()
    trace = read_trace(str(log))
    assert trace.has_times
    assert sorted(key for key in trace.keys if "user" in key) == sorted({f"db3:monitored:1:{key}" for key in KEYS})
    assert trace.reads == stats.hits + stats.misses == 106
    assert misses_of(trace, 100) == stats.misses == 21


def test_what_memcached_prints_is_a_trace(tmp_path):
    """The output of -vv has all reads of a program, and replayed they miss as often as they did."""
    server = MemcachedServer(tmp_path / "memcached", "-vv", by_port=True)
    server.start()
    try:
        cache = PyMemcacheCache(server.location, {"KEY_PREFIX": "verbose"})
        use(cache)
        stats = cache.stats()
    finally:
        server.stop()
    (log,) = [path for path in (tmp_path / "memcached").iterdir() if b"verbose" in path.read_bytes()]
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(line for line in lines if b"verbose:1:" in line))
    trace = read_trace(str(log))
    assert len(trace.keys) == 20
    assert trace.reads == stats.hits + stats.misses + 1 == 107  # delete() looks whether there is an entry
    assert misses_of(trace, 100) == stats.misses == 21


def test_a_user_with_the_rights_for_its_prefix_leaves_advice(tmp_path):
    """The answer's name on the server begins as the program's keys do; its time is that of a round trip."""
    for server in running(RedisServer(redis_binary(), tmp_path / "redis")):
        rights = ["on", ">secret", "~shop:*", "+@all"]
        assert server.ask("ACL", "SETUSER", "limited", *rights)
        options = {"advise": "always", "on_error": "raise"}
        cache = RedisCache(
            f"redis://limited:secret@127.0.0.1:{server.port}/0", {"KEY_PREFIX": "shop", "OPTIONS": options}
        )
        for key in KEYS:
            cache.get_or_set(key, 1)
        advice = cache.advice()
        leave(cache, advice)
        note = left(cache)
        assert note is not None
        assert (note["reads"], note["keys"]) == (100, 20)
        assert advice.subject.round_trip is not None
        assert "saves" in advice.changes[0].effect
        assert len(cache.keys()) == 20
