"""Names on a Redis server: all begin with the prefix, and programs of before the names were so are not left out."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from storeroom.backends.redis import RedisCache, operations
from storeroom.backends.redis.names import Former, key_text
from storeroom.backends.redis.operations import key_bytes, keys_bytes
from storeroom.backends.redis.requests import Use, one
from storeroom.exceptions import LockLostError
from storeroom.keys import FENCE_PREFIX, LOCK_PREFIX, TAG_PREFIX, escaped
from storeroom.testing.concurrency import eventually
from storeroom.testing.contract.suite import Driver
from tests.servers.redis import Databases, RedisServer, redis_databases, redis_server
from tests.servers.redis_groups import redis_cluster

__all__ = ["redis_cluster", "redis_databases", "redis_server"]


@pytest.fixture
def location(redis_databases: Databases) -> str:
    return redis_databases.url()


def raw(cache: RedisCache, *command: Any) -> Any:
    return cache._engine.call(one(Use.ONCE, *command))[0]


def _name_of(key: Any) -> Any:
    is_internal = isinstance(key, str) and key[:1] == "\x00" and key[1:2] != "\x00"
    return Former(key) if is_internal else key


class OperationsOfBefore(operations.Operations):
    """Operations of a program that knows the former names alone."""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in {"get_many", "add", "compare_set", "compare_delete", "delete_many", "expiry", "incr"}:
            return found

        def operation(keyed: Any, *args: Any) -> Any:
            return found([*map(_name_of, keyed)] if isinstance(keyed, list | tuple) else _name_of(keyed), *args)

        return operation


def program_of_before(location: str, **settings: Any) -> RedisCache:
    """Return a cache as a program of before has it."""
    cache = RedisCache(location, {"KEY_PREFIX": "app", **settings})
    now = cache._operations
    terms = {name: getattr(now, name) for name in ("is_cluster", "is_bound", "without_room")}
    cache._operations = OperationsOfBefore(now.codec, now.counters, **terms)
    return cache


@pytest.fixture(params=["redis", "cluster"])
def both(request: pytest.FixtureRequest) -> Callable[..., tuple[RedisCache, RedisCache]]:
    """Makes a program of now and one of before, on a server or on a cluster."""
    if request.param == "cluster":
        where = request.getfixturevalue("redis_cluster").url()
        prefix = f"both{next(_numbers)}"
    else:
        where, prefix = request.getfixturevalue("location"), "app"
    now = {"KEY_PREFIX": prefix, "OPTIONS": {"former_names": True}}
    return lambda: (RedisCache(where, now), program_of_before(where, KEY_PREFIX=prefix))


_numbers = itertools.count()

KEYS = [
    "",
    "k",
    "\x00",
    "lock",
    "\x00lock\x00",
    "k\x00lock\x00",
    "k\x00lock\x00\x00",
    "\x00tag\x00k",
    "k\x00a1\x00",
    "\ud800",
]


def test_names_differ_and_tell_their_keys() -> None:
    """No two keys have the same name, internal or not, and a name tells its key."""
    keys = [escaped(key) for key in KEYS]
    keys += [f"{prefix}{key}" for prefix in (LOCK_PREFIX, TAG_PREFIX, FENCE_PREFIX) for key in list(keys)]
    names = list(map(key_bytes, keys))
    assert len(set(names)) == len(keys)
    assert list(map(key_text, names)) == keys
    plain = ["", "k", "line\nbreak", "é", "app:1:k"]
    for batch in (keys, plain, plain[:1], [], [*plain, keys[0]], [Former("\x00lock\x00k"), *plain], ["\ud800", "k"]):
        assert keys_bytes(batch) == list(map(key_bytes, batch))


@pytest.mark.parametrize("prefix", ["app", "a:b", "{app}", "", "é*[", "a\x00lock\x00"])
@pytest.mark.parametrize("former_names", [False, True])
def test_every_name_begins_with_the_prefix(redis_server: RedisServer, prefix: str, former_names: bool) -> None:
    """Entries, locks, fences, tags: all begin with KEY_PREFIX; with the former names, locks and tags have one more."""
    options = {"former_names": former_names}
    cache = RedisCache(f"redis://127.0.0.1:{redis_server.port}/0", {"KEY_PREFIX": prefix, "OPTIONS": options})
    cache.set("k", 1, tags=["t"])
    cache.incr("n", default=0)
    cache.get_or_set("g", lambda: 1)
    with cache.lock("door", timeout=50) as lock:
        lock.fence()
        names = raw(cache, "KEYS", "*")
        assert len(names) == (8 if former_names else 6)
        start = f"{prefix}:".encode()
        assert [name for name in names if not name.startswith((start, b"\x00") if former_names else start)] == []
        assert sorted(cache.keys()) == ["g", "k", "n"]
        cache.clear()
        assert lock.owned()
    assert [name for name in raw(cache, "KEYS", "*") if b"fence" not in name] == []


def test_a_lock_is_held_under_both_names(both: Callable[..., tuple[RedisCache, RedisCache]]) -> None:
    """A program of before and one of now never hold a lock at the same time, and hear of its end."""
    now, before = both()
    for first, second in ((now, before), (before, now), (now, now)):
        held, other = first.lock("door", timeout=50), second.lock("door", timeout=50)
        assert held.acquire(blocking=False)
        assert held.owned()
        assert other.locked()
        assert not other.acquire(blocking=False)
        held.extend(60)
        tokens = [held.fence()]
        held.release()
        assert not other.locked()
        assert other.acquire(blocking=False)
        tokens.append(other.fence())
        assert not first.lock("door", timeout=50).acquire(blocking=False)
        other.release()
        third = first.lock("door", timeout=50)
        with third:
            tokens.append(third.fence())
        assert tokens == sorted(set(tokens))


def test_a_lock_without_its_former_name_is_lost(location: str) -> None:
    """A lock that a program of before might take meanwhile is not taken to be held."""
    cache = RedisCache(location, {"KEY_PREFIX": "app"})
    lock = cache.lock("door", timeout=50)
    lock.acquire()
    assert raw(cache, "UNLINK", key_bytes(Former(lock._key))) == 1
    assert not lock.owned()
    with pytest.raises(LockLostError):
        lock.extend()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_tags_are_invalidated_for_both(both: Callable[..., tuple[RedisCache, RedisCache]], mode: str) -> None:
    """Whoever writes an entry and whoever invalidates its tag: no program reads the entry any more."""
    pair = both()

    async def work() -> None:
        drivers = [Driver(cache, mode) for cache in pair]
        for writer, ender, reader, beginner in itertools.product(drivers, repeat=4):
            await beginner.set("another", 0, tags=["t"])
            await writer.set("k", 1, tags=["t"])
            assert await writer.get("k") == 1
            await ender.invalidate_tags("t")
            assert await reader.get("k") is None
            await beginner.set("another", 0, tags=["t"])
            assert await reader.get("k") is None

    asyncio.run(work())


def test_entries_of_before_are_read(both: Callable[..., tuple[RedisCache, RedisCache]]) -> None:
    """Tagged entries that a program of before has written are hits, and so are those written by either since."""
    now, before = both()
    before.set("k", 1, tags=["t", "u"], timeout=500)
    assert now.get("k") == 1
    now.set("l", 2, tags=["u", "t"])
    assert [cache.get_many(["k", "l"]) for cache in (now, before)] == [{"k": 1, "l": 2}] * 2
    before.set("m", 3, tags=["t"], timeout=100_000)
    assert now.get("m") == 3
    assert now.invalidate_tags("t") == 1
    assert [cache.get_many(["k", "l", "m"]) for cache in (now, before)] == [{}] * 2


@pytest.fixture
def few_rights(redis_server: RedisServer) -> str:
    redis_server.ask("ACL", "SETUSER", "few", "reset", "on", ">pw", "~app:*", "&*", "+@all")
    return f"redis://few:pw@127.0.0.1:{redis_server.port}/0"


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_user_of_the_prefix_alone_can_do_everything(redis_server: RedisServer, few_rights: str, mode: str) -> None:
    """A user with ~app:* locks, tags and clears, and goes together with a user of all rights."""
    caches = [
        RedisCache(url, {"KEY_PREFIX": "app"}) for url in (few_rights, f"redis://127.0.0.1:{redis_server.port}/0")
    ]

    async def work() -> None:
        drivers = [Driver(cache, mode) for cache in caches]
        for first, second in (drivers, drivers[::-1]):
            for writer, ender, reader in itertools.product((first, second), repeat=3):
                await first.set("k", 1, tags=["t"])
                await second.set("k", 1, tags=["t"])
                await writer.set("k", 1, tags=["t"])
                assert await writer.get("k") == 1
                await ender.invalidate_tags("t")
                assert await reader.get("k") is None
            held, other = (driver.cache.lock("door", timeout=50) for driver in (first, second))
            assert held.acquire(blocking=False)
            assert not other.acquire(blocking=False)
            token = held.fence()
            assert held.owned()
            held.release()
            assert other.acquire(blocking=False)
            assert other.fence() > token
            other.release()
            await second.set("k", 1, tags=["t"])
            await first.clear()
            assert await second.get("k") is None

    asyncio.run(work())


def test_a_user_of_the_prefix_alone_clears_beside_former_names(redis_server: RedisServer, few_rights: str) -> None:
    """clear() passes by former names that the user has no rights for, and removes those that it has rights for."""
    before = program_of_before(f"redis://127.0.0.1:{redis_server.port}/0")
    before.set("k", 1, tags=["t"])
    few = RedisCache(few_rights, {"KEY_PREFIX": "app"})
    few.set("l", 1, tags=["t"])
    few.clear()
    assert redis_server.ask("KEYS", "*") == ["\x00tag\x00app:0:t"]
    now = RedisCache(f"redis://127.0.0.1:{redis_server.port}/0", {"KEY_PREFIX": "app"})
    now.clear()
    assert redis_server.ask("KEYS", "*") == []


def test_near_tiers_hear_of_both_names(redis_server: RedisServer) -> None:
    """A near tier hears of tags that a program of before invalidates, at once."""
    url = f"redis://127.0.0.1:{redis_server.port}/0"
    now = RedisCache(url, {"KEY_PREFIX": "app", "OPTIONS": {"near": {"max_staleness": 600}}})
    before = program_of_before(url)
    for ender in (before, now):
        now.set("k", 1, tags=["t"])
        eventually(lambda: now.get("k") == 1)
        ender.invalidate_tags("t")
        eventually(lambda: now.get("k") is None)
