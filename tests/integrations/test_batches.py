"""Operations on many keys of a server or a database: plain ones are dealt with together, and odd ones apart."""

import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from pymemcache.exceptions import MemcacheError

from storeroom.backends.db import DatabaseCache
from storeroom.backends.memcached import MemcachedCache, PyLibMCCache, PyMemcacheCache
from storeroom.backends.redis import RedisCache
from storeroom.base import BaseCache
from storeroom.testing.isolation import engines_of_its_own
from tests.servers.memcached import memcached, needs_pylibmc
from tests.servers.redis import redis_databases

__all__ = ["memcached", "redis_databases"]

PARAMS = {"TIMEOUT": 300, "OPTIONS": {"socket_timeout": 20}}
BY_DRIVER: dict[str, type[MemcachedCache]] = {"pymemcache": PyMemcacheCache, "pylibmc": PyLibMCCache}


@pytest.fixture(params=["redis", "pymemcache", pytest.param("pylibmc", marks=needs_pylibmc), "sqlite"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseCache]:
    """An empty cache of each kind."""
    with engines_of_its_own():
        if request.param == "redis":
            yield RedisCache(request.getfixturevalue("redis_databases").url(), PARAMS)
        elif request.param == "sqlite":
            yield DatabaseCache("t", {"TIMEOUT": 300, "OPTIONS": {"url": f"sqlite:///{tmp_path}/cache.sqlite3"}})
        else:
            yield BY_DRIVER[request.param](request.getfixturevalue("memcached").location(), PARAMS)


def calls_of_ours(work: Callable[[], Any]) -> Counter[str]:
    """Return the names of Storeroom's functions that some work calls, and how often."""
    called = Counter[str]()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_globals.get("__name__", "").startswith("storeroom."):
            called[frame.f_code.co_name] += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return called


#: Functions that a driver, or the format of rows, needs for each key.
FOR_EACH = {
    "get_many": {"deserialize"},
    "set_many": {"deserialize", "_made", "make_row", "name_of", "<lambda>", "value_bytes", "columns_of"},
}


@pytest.mark.parametrize("operation", FOR_EACH)
def test_a_batch_of_texts_takes_no_more_calls_for_more_keys(cache: BaseCache, operation: str) -> None:
    """Keys are named, sent, received, judged, decoded and counted together, where they and their values are plain."""

    def calls_for(count: int) -> Counter[str]:
        texts = {f"user:{number}": f"text {number}" for number in range(count)}
        work = {"get_many": lambda: cache.get_many(texts), "set_many": lambda: cache.set_many(texts)}[operation]
        cache.set_many(texts)
        work()
        return calls_of_ours(work)

    few, many = calls_for(40), calls_for(80)
    assert {name for name in many if many[name] >= few[name] + 40} <= FOR_EACH[operation]


@pytest.mark.parametrize("cache", ["pymemcache", pytest.param("pylibmc", marks=needs_pylibmc)], indirect=True)
def test_a_text_of_memcached_takes_no_call_for_a_small_step(cache: BaseCache) -> None:
    """set() and get() of a plain key and a short text do what takes a line or two where it is needed."""
    cache.set("user:7", "text")
    cache.get("user:7")
    small = {"take", "give_back", "_write_text", "_expires_at", "_counted", "_decoded"}
    for work in (lambda: cache.set("user:7", "text"), lambda: cache.get("user:7")):
        called = calls_of_ours(work)
        assert called.keys() & {"ask", "guarded"} == {"ask", "guarded"}
        assert not called.keys() & small


#: Keys and values that go other ways than plain ones do: together and each beside them.
ODD = {
    "": "empty key", "a\nb": "line break", "a b": "space", "nul\x00": "NUL", "\x00lock\x00k": "as a lock",
    "\ud800": "lone surrogate", "é" * 90: "many bytes", "k" * 600: "long", "#": "hash",
    "n": 7, "negative": -7, "float": 0.5, "none": None, "true": True, "bytes": b"\x00\xff", "empty": "",
    "list": [1, "two"], "surrogate": "\ud800", "unicode": "Grüße", "large": 2**70, "long text": "x" * 100_000,
}  # fmt: skip


def test_odd_keys_and_values_come_back_beside_plain_ones(cache: BaseCache) -> None:
    """A batch of any keys and values stores and returns what each by itself does, and counts the same hits."""
    plain = {f"k{number}": f"text {number}" for number in range(3)}
    for batch in (plain, ODD, plain | ODD, *({**plain, key: ODD[key]} for key in ODD)):
        cache.clear()
        assert cache.set_many(batch) == []
        hits = cache.stats().hits
        assert cache.get_many([*batch, "absent"]) == batch
        assert cache.stats().hits == hits + len(batch)
        assert {key: cache.get(key) for key in batch} == batch
    assert cache.stats().errors == 0


@pytest.mark.parametrize("length", [2**14, 2**16])
@pytest.mark.parametrize("driver", ["pymemcache", pytest.param("pylibmc", marks=needs_pylibmc)])
def test_replies_of_memcached_may_come_in_any_pieces(memcached: Any, driver: str, length: int) -> None:
    """Values that look like replies, and end about where what is received at once ends, are read as they are."""
    with engines_of_its_own():
        cache = BY_DRIVER[driver](memcached.location(), PARAMS)
        for rest in range(0, 120, 7):
            values = {f"k{number}": b"\r\nEND\r\nVALUE k 0 1\r\n"[number:] * 2 for number in range(3)}
            values["long"] = b"\r\nEND\r\n" * ((length - rest) // 7) + b"\r" * (rest % 7)
            values["last"] = b"\r\nEND\r\n"
            assert cache.set_many(values) == []
            assert cache.get_many(values) == values


#: Replies to "get k l", and to two values that are to be stored, that Memcached does not make.
NONSENSE = {
    "get_many": [
        b"END\r\nEND\r\n", b"VALUE k 0 -1\r\n\r\nEND\r\n", b"VALUE k 0 1\r\nvv\r\nEND\r\n",
        b"VALUE k 0 1 2 3\r\nv\r\nEND\r\n",
        b"VALUE other 0 1\r\nv\r\nEND\r\n", b"VALUE k 0 1\r\nv\r\nSERVER_ERROR out of memory\r\n", b"ERROR\r\n",
        b"VALUE k 0 " + b"9" * 5000, b"no end of line" * 1000, b"VALUE k 0 1\r\nv\r\n" + b"no end of line" * 1000,
    ],
    "set_many": [
        b"STORED\r\nSTORED\r\nSTORED\r\n", b"STORED\r\nno\r\n", b"CLIENT_ERROR bad\r\nERROR\r\n",
        b"no end of line" * 1000, b"STORED\r\nSTORED\r\nmore", b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("operation", "reply"), [(name, each) for name in NONSENSE for each in NONSENSE[name]])
def test_nonsense_is_no_reply_to_many_keys(operation: str, reply: bytes) -> None:
    """A reply that is none of Memcached's is an outage at once, and nothing of it is taken for a value."""
    with socket.create_server(("127.0.0.1", 0)) as listener, engines_of_its_own():
        client: Any = PyMemcacheCache(f"127.0.0.1:{listener.getsockname()[1]}", PARAMS)._shards[0]._engine.make()
        client._connect()
        connection, _ = listener.accept()
        connection.sendall(reply)
        given: Any = ([b"k", b"l"],) if operation == "get_many" else ({b"k": b"1", b"l": b"2"}, 10)
        with connection, pytest.raises(MemcacheError):
            getattr(client, operation)(*given)
        client.close()
