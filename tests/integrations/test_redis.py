"""The Redis cache beyond the contract: django-redis's methods, and the move from other backends."""

import asyncio
import gzip
import lzma
import pickle
import re
import zlib
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

import lz4.frame
import pytest

from storeroom.backends.redis import RedisCache
from storeroom.backends.redis.requests import Use, one
from storeroom.exceptions import NotSupportedError, StorageError, StoreroomWarning
from storeroom.memos import memo
from storeroom.serializers.compressors import FORMATS
from storeroom.testing.contract.suite import Driver
from tests.house import walk
from tests.servers.redis import (
    Databases,
    RedisServer,
    redis_databases,
    redis_server,
)
from tests.servers.redis_groups import Cluster, redis_cluster

__all__ = ["redis_cluster", "redis_databases", "redis_server"]


@pytest.fixture
def location(redis_databases: Databases) -> str:
    return redis_databases.url()


@pytest.fixture
def cache(location: str) -> RedisCache:
    return RedisCache(location, {"KEY_PREFIX": "mine"})


def raw(cache: RedisCache, *command: Any) -> Any:
    return cache._engine.call(one(Use.ONCE, *command))[0]


def _calls(cache: RedisCache, command: str) -> int:
    """Return how often the server itself has counted a command."""
    found = re.search(rf"cmdstat_{command}:calls=(\d+)", raw(cache, "INFO", "commandstats").decode())
    return int(found[1]) if found else 0


# django-redis's methods -----------------------------------------------------------------------


def test_set_with_nx_is_add(cache: RedisCache) -> None:
    """set() with nx=True stores where there is no entry, and tells whether it did."""
    assert cache.set("k", 1, nx=True) is True
    assert cache.set("k", 2, nx=True) is False
    assert asyncio.run(cache.aset("k", 3, nx=True)) is False
    assert cache.get("k") == 1


def test_pttl_tells_milliseconds(cache: RedisCache) -> None:
    """pttl() is milliseconds, None for an entry that never expires, and 0 where there is none."""
    cache.set("k", 1, timeout=5)
    assert cache.pttl("k") == pytest.approx(5000, abs=500)
    assert asyncio.run(cache.apttl("k")) == pytest.approx(5000, abs=500)
    cache.set("k", 1, timeout=None)
    assert cache.pttl("k") is None
    assert cache.pttl("absent") == 0


def test_expire_and_persist(cache: RedisCache) -> None:
    """expire() and persist() change when an entry expires, and tell whether there is one."""
    cache.set("k", 1)
    assert cache.persist("k") is True
    assert cache.ttl("k") is None
    assert cache.expire("k", 10) is True
    assert cache.ttl("k") == pytest.approx(10, abs=1)
    assert asyncio.run(cache.apersist("k")) is True
    assert asyncio.run(cache.aexpire("k", 20)) is True
    assert cache.ttl("k") == pytest.approx(20, abs=1)
    assert cache.persist("absent") is False
    assert cache.expire("absent", 1) is False


def test_patterns_find_and_remove_the_caches_own_keys(cache: RedisCache, location: str) -> None:
    """Patterns concern the cache's own keys; a * is special in the pattern, and not in KEY_PREFIX."""
    starred = RedisCache(location, {"KEY_PREFIX": "*"})
    for each in (cache, starred):
        each.set_many(dict.fromkeys(["user:1", "user:2", "user:10", "group:1", "us*r"], 1))
        each.set("user:1", 1, version=2)
    assert sorted(starred.iter_keys("user:?")) == ["user:1", "user:2"]
    assert sorted(starred.iter_keys(r"us\*r")) == ["us*r"]
    assert sorted(cache.iter_keys("*", version=2)) == ["user:1"]

    async def listed() -> list[str]:
        return [key async for key in cache.aiter_keys("user:*")]

    assert sorted(asyncio.run(listed())) == ["user:1", "user:10", "user:2"]
    assert starred.delete_pattern("user:*") == 3
    assert sorted(starred.keys()) == ["group:1", "us*r"]
    assert asyncio.run(starred.adelete_pattern("*")) == 2
    assert starred.keys() == []
    assert starred.get("user:1", version=2) == 1
    assert len(cache.keys()) == 5


def test_patterns_list_what_is_live(cache: RedisCache) -> None:
    """Patterns list live entries, as keys() does, and none whose tag was invalidated."""
    cache.set("a", 1, tags=["t"])
    cache.set("b", 1, tags=["other"])
    cache.invalidate_tags("t")

    async def listed() -> list[str]:
        return [key async for key in cache.aiter_keys("*")]

    assert cache.keys() == list(cache.iter_keys("*")) == asyncio.run(listed()) == ["b"]


def test_patterns_take_steps_of_a_size(cache: RedisCache) -> None:
    """The server scans in steps of itersize keys, and anything but a positive number is refused."""
    cache.set_many({f"k{number}": number for number in range(50)})
    raw(cache, "CONFIG", "RESETSTAT")
    assert len(list(cache.iter_keys("k*", itersize=5))) == 50
    assert _calls(cache, "scan") >= 5
    assert cache.delete_pattern("k1*", itersize=100) == 11
    assert asyncio.run(cache.adelete_pattern("k2*", itersize=7)) == 11
    wrong: Any
    for wrong in (0, True, "10"):
        with pytest.raises(ValueError, match="itersize is"):
            cache.iter_keys("*", itersize=wrong)


def test_keys_takes_the_pattern_of_django_redis_by_its_name(cache: RedisCache) -> None:
    """keys() takes a pattern as search=; by position it is a prefix, and one that looks like a pattern warns."""
    cache.set_many({"user:1": 1, "user:2": 1, "us*r": 1})
    assert sorted(cache.keys(search="user:?")) == ["user:1", "user:2"]
    assert sorted(asyncio.run(cache.akeys(search="*1"))) == ["user:1"]
    assert cache.keys("us*") == ["us*r"]
    for call in (lambda: cache.keys("user:*"), lambda: asyncio.run(cache.akeys("user:*"))):
        with pytest.warns(StoreroomWarning, match=r"call keys\(search='user:\*'\) or iter_keys"):
            assert call() == []


def test_patterns_work_in_a_cluster(redis_cluster: Cluster) -> None:
    """Patterns find and remove keys of all servers of a cluster."""
    cache = RedisCache(redis_cluster.url(), {})
    cache.set_many({f"k{number}": number for number in range(100)})
    assert len(list(cache.iter_keys("k1*"))) == 11
    assert cache.delete_pattern("k1*") == 11
    assert cache.count() == 89


def test_patterns_need_keys_that_can_be_turned_back(location: str) -> None:
    """Patterns are refused where KEY_FUNCTION makes keys that cannot be turned back."""
    cache = RedisCache(location, {"KEY_FUNCTION": lambda key, prefix, version: f"{hash((key, prefix, version))}"})
    with pytest.raises(NotSupportedError):
        cache.delete_pattern("*")


def test_lock_has_the_signature_of_django_redis(cache: RedisCache) -> None:
    """lock() takes name, version, timeout, seconds between attempts and patience by position."""
    with cache.lock("l", 1, 10, 0.01, 0.5) as lock:
        assert lock.owned()
        assert not cache.lock("l", None, 10, 0.01, 0.02).acquire()


def test_lock_and_patterns_have_no_answer_without_a_server(redis_server: RedisServer) -> None:
    """Locks and patterns raise while the server is out of reach: a lock that could not be asked for was not taken."""
    cache = RedisCache(f"redis://127.0.0.1:{redis_server.port}?client_name=lock", {})
    redis_server.process.kill()
    for operation in (cache.lock("l").acquire, lambda: cache.delete_pattern("*"), lambda: cache.iter_keys("*")):
        with pytest.raises(StorageError, match="out of reach"):
            operation()


# Round trips ----------------------------------------------------------------------------------


Operations = dict[str, Callable[[], Coroutine[Any, Any, Any]]]


async def round_trips(redis: RedisCache, operations: Operations, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Return the round trips of each operation, once the server knows the scripts."""
    requests: list[Any] = []
    call, acall = redis._engine.call, redis._engine.acall

    def counted(request: Any) -> list[Any]:
        requests.append(request)
        return call(request)

    async def acounted(request: Any) -> list[Any]:
        requests.append(request)
        return await acall(request)

    monkeypatch.setattr(redis._engine, "call", counted)
    monkeypatch.setattr(redis._engine, "acall", acounted)
    counts = {}
    for _ in range(2):
        for name, operation in operations.items():
            requests.clear()
            await operation()
            counts[name] = len(requests)
    return counts


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("secret", [None, "a secret of this test alone"])
def test_operations_are_one_round_trip_each(
    location: str, mode: str, secret: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operations are one round trip each, also those on a hundred keys and those that a script does."""
    redis = RedisCache(location, {"OPTIONS": {"secret": secret}})
    cache = Driver(redis, mode)
    many = {f"k{number}": ["plain", number] for number in range(100)}
    operations: Operations = {
        "set": lambda: cache.set("n", 1),
        "add, there": lambda: cache.add("n", 1),
        "add, new": lambda: cache.add("new", ["plain"]),
        "get": lambda: cache.get("n"),
        "get, absent": lambda: cache.get("absent"),
        "set_many": lambda: cache.set_many(many, timeout=30),
        "get_many": lambda: cache.get_many(many),
        "delete_many": lambda: cache.delete_many(many),
        "incr": lambda: cache.incr("n"),
        "decr": lambda: cache.decr("n"),
        "touch": lambda: cache.touch("n", 10),
        "touch, for ever": lambda: cache.touch("n", None),
        "expire_at": lambda: cache.expire_at("n", 4e9),
        "ttl": lambda: cache.ttl("n"),
        "has_key": lambda: cache.has_key("n"),
        "get_or_set, there": lambda: cache.get_or_set("n", lambda: 2),
        "delete": lambda: cache.delete("new"),
        "incr_version": lambda: cache.incr_version("n"),
    }

    moved_anew = {"incr_version": 2} if secret else {}  # a signature is good under one key alone
    expected = dict.fromkeys(operations, 1) | moved_anew
    assert asyncio.run(round_trips(redis, operations, monkeypatch)) == expected


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_tags_cost_one_round_trip_more(location: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tags cost a read or write one round trip more, however many there are, and an invalidation costs one."""
    redis = RedisCache(location, {})
    cache, tags = Driver(redis, mode), ["red", "green", "blue"]
    many = {f"k{number}": number for number in range(100)}
    redis.set_many(many, tags=tags)
    redis.set_many({"plain": 1, "other": 2})
    operations: Operations = {
        "get": lambda: cache.get("k1"),
        "get_or_set": lambda: cache.get_or_set("k1", lambda: 1, tags=tags),
        "get_many": lambda: cache.get_many([*many, "plain"]),
        "set": lambda: cache.set("k1", 1, tags=tags),
        "set_many": lambda: cache.set_many(many, tags=tags),
        "get without": lambda: cache.get("plain"),
        "get_many without": lambda: cache.get_many(["plain", "other"]),
        "invalidate_tags": lambda: cache.invalidate_tags("yellow"),
    }
    without = {"get without", "get_many without", "invalidate_tags"}
    expected = {name: 1 if name in without else 2 for name in operations}
    assert asyncio.run(round_trips(redis, operations, monkeypatch)) == expected


def test_a_memo_saves_round_trips(cache: RedisCache) -> None:
    """Within a memo() the server sees a command for the first read of a key and for each write, and no more."""
    cache.set_many({"a": 1, "b": 2})
    raw(cache, "CONFIG", "RESETSTAT")
    with memo():
        for _ in range(50):
            assert cache.get("a") == 1
            assert cache.get_many(["a", "b", "none"]) == {"a": 1, "b": 2}
            assert cache.get("none") is None
            assert cache.get_or_set("b", lambda: 3) == 2
        cache.set("a", 4)
        for _ in range(50):
            assert cache.get("a") == 4
    assert {name: _calls(cache, name) for name in ("get", "mget", "set")} == {"get": 1, "mget": 1, "set": 1}


def test_a_memo_hears_of_patterns(cache: RedisCache) -> None:
    """Patterns, which remove entries at the server, remove them from a memo as well."""
    cache.set_many({"a:1": 1, "b": 1})
    with memo():
        assert cache.get_many(["a:1", "b"]) == {"a:1": 1, "b": 1}
        cache.delete_pattern("a:*")
        assert cache.get_many(["a:1", "b"]) == {"b": 1}
        asyncio.run(cache.adelete_pattern("b"))
        assert cache.get_many(["a:1", "b"]) == {}


def test_a_hit_enters_at_most_ten_modules(location: str) -> None:
    """A get() of a list that is there passes through few files of the package, so that its way can be read."""
    entered = walk("redis.RedisCache", "hit", location)
    assert len(set(entered)) <= 10, entered


# Moving from other backends -------------------------------------------------------------------

VALUE = {"a": OrderedDict(b=[1, None, "text"]), "long": "x" * 5000}

WRITTEN = {
    "Django": pickle.dumps(VALUE, pickle.HIGHEST_PROTOCOL),
    "old protocol": pickle.dumps(VALUE, 2),
    "zlib": zlib.compress(pickle.dumps(VALUE)),
    "gzip": gzip.compress(pickle.dumps(VALUE)),
    "lzma": lzma.compress(pickle.dumps(VALUE)),
    "lz4": lz4.frame.compress(pickle.dumps(VALUE)),
    "zstd": FORMATS["zstd"].library().compress(pickle.dumps(VALUE)),
}


@pytest.mark.parametrize("secret", [None, "a secret of this test alone"])
@pytest.mark.parametrize("data", WRITTEN.values(), ids=WRITTEN)
def test_entries_of_other_backends_are_read_on_request(location: str, data: bytes, secret: Any) -> None:
    """Entries of Django's and django-redis's, compressed or not, are read with read_unsigned_pickles alone."""
    strict = RedisCache(location, {"OPTIONS": {"secret": secret}})
    lenient = RedisCache(location, {"OPTIONS": {"secret": secret, "read_unsigned_pickles": True}})
    raw(strict, "SET", strict.make_key("k"), data)
    assert strict.get("k") is None
    assert lenient.get("k") == VALUE
    assert asyncio.run(lenient.aget("k")) == VALUE
    assert lenient.get_many(["k"]) == {"k": VALUE}
    lenient.set("k", {"own": 1})
    assert strict.get("k") == {"own": 1}


def test_integers_of_other_backends_are_counted_on(cache: RedisCache) -> None:
    """An integer that another backend wrote is incremented."""
    raw(cache, "SET", cache.make_key("n"), "41")
    assert cache.incr("n") == 42
    assert cache.get("n") == 42


@pytest.mark.parametrize("data", [b"\x80", b"\x80\x05garbage", b"\x78\x9cgarbage", zlib.compress(b"text"), b"{}"])
def test_foreign_bytes_are_misses_on_request_too(location: str, data: bytes) -> None:
    """Bytes that no backend wrote are counted misses with read_unsigned_pickles, too."""
    cache = RedisCache(location, {"OPTIONS": {"read_unsigned_pickles": True}})
    raw(cache, "SET", cache.make_key("k"), data)
    assert cache.get("k") is None
    assert cache.stats().errors == 1
