"""Ten thousand payloads that nobody should have written, in every storage that others can write to.

Each is read as a value or as a counted miss, by every operation; none raises, none blocks the ones after it, and
no pickle runs code.
"""

import asyncio
import gzip
import itertools
import lzma
import pickle
import random
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from storeroom.backends.db import DatabaseCache
from storeroom.backends.db.rows import Row, name_of
from storeroom.backends.db.transaction import Transaction
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.filebased.records import entry_key_of
from storeroom.backends.memcached import MemcachedCache, PyLibMCCache, PyMemcacheCache
from storeroom.backends.memcached.entries import packed
from storeroom.backends.redis import RedisCache
from storeroom.backends.redis.requests import Request, Use
from storeroom.base import BaseCache
from storeroom.exceptions import KeyNotFoundError, ValueTypeError
from storeroom.serializers import build_codec
from storeroom.storage.envelope import Envelope, is_packed
from storeroom.testing.isolation import engines_of_its_own
from storeroom.timeouts import NEVER
from tests.faults.bomb import Bomb
from tests.handles import put_in_a_process_of_its_own
from tests.servers.databases import postgresql
from tests.servers.memcached import memcached, needs_pylibmc
from tests.servers.redis import Databases, redis_databases
from tests.unit.serializers.damage import mutate, originals
from tests.unit.serializers.zoo import BOMBS

__all__ = ["memcached", "postgresql", "redis_databases"]

PAYLOADS = 2_000
SECRET = "a secret of this test alone"
MISSED = object()

Write: TypeAlias = Callable[[BaseCache, Mapping[str, bytes]], None]
Open: TypeAlias = Callable[..., BaseCache]


class Storage:
    """A storage, and a way to write into it past its cache."""

    def __init__(self, open_cache: Open, write: Write, secrets: Sequence[str | None]) -> None:
        self.open, self.write, self.secrets = open_cache, write, secrets


def write_to_redis(cache: BaseCache, frames: Mapping[str, bytes]) -> None:
    assert isinstance(cache, RedisCache)
    items = list(frames.items())
    for start in range(0, len(items), 1000):
        commands = [("SET", cache.make_key(key), frame) for key, frame in items[start : start + 1000]]
        cache._engine.call(Request(commands, Use.WRITE))


def write_to_memcached(cache: BaseCache, frames: Mapping[str, bytes]) -> None:
    assert isinstance(cache, MemcachedCache)
    shard = cache._shards[0]
    failed = shard._engine.ask(
        "set_many", {shard._key(cache.make_key(key)): packed(NEVER, frame) for key, frame in frames.items()}, 0
    )
    assert not failed


def write_to_files(cache: BaseCache, frames: Mapping[str, bytes]) -> None:
    assert isinstance(cache, FileBasedCache)
    bounds = cache._bounds

    def put(table: Any) -> None:
        for key, frame in frames.items():
            table.put(entry_key_of(cache.make_key(key)), frame, NEVER, bounds)

    cache._write(put)


def write_to_database(cache: BaseCache, frames: Mapping[str, bytes]) -> None:
    assert isinstance(cache, DatabaseCache)
    rows = [
        Row(name_of(cache.make_key(key)), frame, 1 if is_packed(frame) else None, 100 + len(frame))
        for key, frame in frames.items()
    ]
    cache._write(Transaction.put, rows, NEVER)


STORAGES = ["redis", "pymemcache", pytest.param("pylibmc", marks=needs_pylibmc), "postgresql", "files"]


@pytest.fixture(params=STORAGES)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "redis":
        backend, write = RedisCache, write_to_redis
        location: str = request.getfixturevalue("redis_databases").url()
    elif request.param == "postgresql":
        backend, write = DatabaseCache, write_to_database
        server = request.getfixturevalue("postgresql")
        location = server.table()
    elif request.param == "files":
        backend, write = FileBasedCache, write_to_files
        location = str(tmp_path / "cache")
    else:
        backend = PyMemcacheCache if request.param == "pymemcache" else PyLibMCCache
        write = write_to_memcached
        location = request.getfixturevalue("memcached").location()

    def open_cache(**options: Any) -> BaseCache:
        settings: dict[str, Any] = {"max_entries": None} if request.param == "files" else {"socket_timeout": 20}
        if request.param == "postgresql":
            settings |= {"url": server.url(), "max_entries": None}
        return backend(location, {"TIMEOUT": None, "OPTIONS": settings | options})

    # Whoever can write to the directory of a file cache is trusted, unless there is a secret.
    secrets = [SECRET] if request.param == "files" else [None, SECRET]
    with engines_of_its_own():
        yield Storage(open_cache, write, secrets)


# Payloads -------------------------------------------------------------------------------------


def bombs(trace: Path) -> list[bytes]:
    """Pickles that run code, as a stranger would dress them up."""
    pickled = [pickle.dumps(Bomb(trace), protocol) for protocol in range(6)]
    pickled.append(b"cos\nsystem\n(S'touch %b'\ntR." % str(trace).encode())
    pickle.loads(pickled[-2])
    assert trace.exists(), "the bomb is a dud"
    trace.unlink()
    dressed = [prefix + bomb for bomb in pickled for prefix in (b"", b"\x0f", b"\x10")]
    dressed += [b"\x13" + b"\x00" * 4 + pickled[5], b"\x01" + b"\x00" * 16 + b"\x0f" + pickled[5]]
    dressed += [envelope_around(b"\x0f" + pickled[5]), envelope_around(b"\x10" + pickled[5])]
    other = build_codec(secret="a secret of somebody else")
    dressed += [other.dumps(Bomb(trace), f":1:k{number}") for number in range(20)]
    trace.unlink(missing_ok=True)  # the first of a class is tried by who writes it
    return dressed + [
        wrap(dressed[number])
        for number in (5, 16, 17)
        for wrap in (zlib.compress, gzip.compress, lzma.compress, lambda data: b"\x14" + zlib.compress(data))
    ]


def envelope_around(frame: bytes) -> bytes:
    return build_codec().dumps(Envelope("", 4e9, stamp=1), "")[:-1] + frame


FOREIGN = [
    *(b"", b"\x00", b"\x80", b"\x80\x05.", b"{}", b'{"a": 1}', b"null", b"1.5", b"+1", b"1_0", b" 1", b"\x1f\x8b"),
    *(b"x\x9c", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"\x1a", b"\x01\x1a", b"\x1a" * 100),
    *(b"\x1a" + struct.pack(">QddddH", 1, float("nan"), 0, 0, 0, 0), b"\x1a" + b"\xff" * 42, b"\x01" + b"\x1a" * 70),
    *(b"\x02\xff\xfe", b"\x0b123", b"\x05\x05", b"\x14\x14\x14", b"<html>", b"\r\nEND\r\n", b"9" * 5000),
]


def payloads(chance: random.Random, trace: Path, secret: str | None) -> dict[str, bytes]:
    """Return ten thousand of them: mutated, truncated, foreign, hostile, and copies from other keys."""
    whole, hostile = originals(), bombs(trace)
    signed = build_codec(secret=SECRET)
    made: dict[str, bytes] = {}
    for number in range(PAYLOADS):
        kind = chance.random()
        data = chance.choice(hostile if kind < 0.3 else FOREIGN if kind < 0.4 else whole)
        if secret is not None and kind > 0.7:
            data = signed.dumps(["signed", number], f":1:k{number if kind > 0.85 else 'another'}")
        if kind > 0.2:
            data = mutate(chance, data, whole)
        made[f"k{number}"] = data
    return made


# Reading them ---------------------------------------------------------------------------------


def found_by_get(cache: BaseCache, keys: list[str]) -> dict[str, Any]:
    values = {key: cache.get(key, MISSED) for key in keys}
    return {key: value for key, value in values.items() if value is not MISSED}


def found_by_aget(cache: BaseCache, keys: list[str]) -> dict[str, Any]:
    async def read() -> dict[str, Any]:
        values = await asyncio.gather(*(cache.aget(key, MISSED) for key in keys))
        return {key: value for key, value in zip(keys, values, strict=True) if value is not MISSED}

    return asyncio.run(read())


#: A way to read -> how many payloads it reads: all decode by the same code, and one way reads all.
READERS: dict[str, tuple[Callable[[BaseCache, list[str]], dict[str, Any]], int]] = {
    "get": (found_by_get, 2000),
    "aget": (found_by_aget, 2000),
    "get_many": (lambda cache, keys: cache.get_many(keys), PAYLOADS),
    "aget_many": (lambda cache, keys: asyncio.run(cache.aget_many(keys)), 2000),
}


def in_batches(keys: list[str], size: int = 500) -> list[list[str]]:
    return [keys[start : start + size] for start in range(0, len(keys), size)]


@pytest.mark.slow
def test_thousands_of_payloads_are_counted_misses(storage: Storage, tmp_path: Path) -> None:
    """Each payload is, to every way to read, a value or a miss that counts as an error, and runs no code."""
    for secret in storage.secrets:
        _read_thousands(storage, secret, tmp_path / "trace")


def _read_thousands(storage: Storage, secret: str | None, trace: Path) -> None:
    cache = storage.open(secret=secret)
    cache.clear()
    written = payloads(random.Random(20), trace, secret)
    storage.write(cache, written)
    hits = []
    for name, (read, count) in READERS.items():
        way = f"{name}, secret {secret!r}"
        errors = cache.stats().errors
        found: dict[str, Any] = {}
        begun = time.monotonic()
        for keys in in_batches(list(written)[:count]):
            found |= read(cache, keys)
        assert time.monotonic() - begun < 60, way
        # An envelope that is read, and over by its own time, misses without an error.
        assert count - len(found) - count / 20 <= cache.stats().errors - errors <= count - len(found), way
        assert not trace.exists(), way
        hits.append(found.keys())
    by_one, by_one_async, by_many, by_many_async = hits
    assert by_one == by_one_async == by_many_async == by_many & set(list(written)[:2000])
    assert len(by_many) < (PAYLOADS / 4 if secret is None else PAYLOADS / 10)


@pytest.mark.slow
def test_every_operation_passes_over_what_cannot_be_read(storage: Storage, tmp_path: Path) -> None:
    """Every operation treats an entry that cannot be read as one that is not there."""
    for secret in storage.secrets:
        cache, trace = storage.open(secret=secret), tmp_path / "trace"
        cache.clear()
        every = list(payloads(random.Random(21), trace, secret).items())
        written = dict(random.Random(21).sample(every, 300))
        storage.write(cache, written)
        unreadable = [key for key in written if cache.get(key, MISSED) is MISSED]
        assert len(unreadable) > 120
        for key in written:
            _look_and_count(cache, key, is_readable=key not in unreadable)
        _compute_and_store(cache, unreadable)
        for key in written:
            cache.delete(key)
            assert cache.add(key, 1) is True
        assert not trace.exists()


def _look_and_count(cache: BaseCache, key: str, *, is_readable: bool) -> None:
    assert cache.has_key(key) in {True, False}
    ttl = cache.ttl(key)
    assert ttl is None or ttl >= 0
    cache.touch(key, 600)
    cache._compare_delete(cache.make_key(key), "nobody's token")
    try:
        assert isinstance(cache.incr(key, 2), int | float)
    except KeyNotFoundError:
        assert not is_readable
    except ValueTypeError:
        assert is_readable
    else:
        assert is_readable


def _compute_and_store(cache: BaseCache, keys: list[str]) -> None:
    operations: dict[str, Callable[[str], Any]] = {
        "get_or_set": lambda key: cache.get_or_set(key, lambda: "computed"),
        "aget_or_set": lambda key: asyncio.run(cache.aget_or_set(key, lambda: "computed")),
        "get_or_set, stale": lambda key: cache.get_or_set(key, lambda: "computed", stale_while_revalidate=60),
        "get_or_set, tagged": lambda key: cache.get_or_set(key, lambda: "computed", tags=["red"]),
        "get_or_set_many": lambda key: cache.get_or_set_many([key], lambda keys: dict.fromkeys(keys, "computed"))[key],
        "set": lambda key: cache.set(key, "computed") or "computed",
    }
    begun = time.monotonic()
    for key, (name, operation) in zip(keys, itertools.cycle(operations.items()), strict=False):
        assert operation(key) == "computed", name
        assert cache.get(key) == "computed", f"{name} stores it in the place of what could not be read"
    assert time.monotonic() - begun < 0.05 * len(keys), "nobody waits for a lease that nobody holds"


SOME_BOMBS = (
    *("pickle: tuples in a set", "pickle: one tuple in two, hashed", "pickle: integers of one hash"),
    *("compressed: one tuple within another", "compressed: sets", "json: lists, closed"),
)


def test_bombs_are_counted_misses(storage: Storage) -> None:
    """A value that would crash its reader, or fill its memory, is a miss that counts as an error, on each storage."""
    for secret in storage.secrets:
        cache = storage.open(secret=secret, compressor="zlib")
        storage.write(cache, {name.replace(" ", "-"): BOMBS[name]() for name in SOME_BOMBS})
        for number, name in enumerate(SOME_BOMBS):
            key = name.replace(" ", "-")
            assert cache.get(key, MISSED) is MISSED
            assert asyncio.run(cache.aget(key, MISSED)) is MISSED
            assert cache.stats().errors >= 2 * (number + 1)


def test_secret_that_was_replaced_leaves_misses_that_are_filled_at_once(storage: Storage) -> None:
    """Entries and tags that were signed with a replaced secret are misses, which get_or_set() fills without waiting."""
    before = storage.open(secret=SECRET)
    before.set("k", ["old"])
    before.set("tagged", ["old"], tags=["red", "blue"])
    after = storage.open(secret="another secret of this test")
    begun = time.monotonic()
    assert after.get_or_set("k", lambda: ["new"]) == ["new"]
    assert after.get("k") == ["new"]
    assert after.get_or_set("tagged", lambda: ["new"], tags=["red"]) == ["new"]
    assert after.get("tagged") == ["new"]
    after.set("tagged", ["newer"], tags=["blue"])
    assert after.get("tagged") == ["newer"]
    assert time.monotonic() - begun < 1
    assert after.invalidate_tags("blue") == 1
    assert after.get("tagged") is None
    both = storage.open(secret=["another secret of this test", SECRET])
    before.set("l", ["old"])
    assert both.get_or_set("l", lambda: ["new"]) == ["old"]


@pytest.mark.parametrize("version", [b"", b"\x02nonsense", b"7", b"\x02ffff nan", b"\x80\x05."])
def test_tag_whose_version_is_nonsense_gets_another(storage: Storage, version: bytes) -> None:
    """A tag's version that cannot be read makes its entries misses, and the next entry writes another."""
    cache = storage.open()
    cache.set("before", 1, tags=["red"])
    (tag,) = cache._tag_keys(["red"])
    storage.write(_raw_keys(cache), {tag: version})
    assert cache.get("before") is None
    for _ in range(2):
        cache.set("after", 2, tags=["red"])
        assert cache.get("after") == 2
    assert cache.invalidate_tags("red") == 1
    assert cache.get("after") is None


def _raw_keys(cache: BaseCache) -> BaseCache:
    """Return a handle whose keys are storage keys."""
    cache_type = type(cache)
    raw = cache_type.__new__(cache_type)
    vars(raw).update(vars(cache), make_key=lambda key, version=None: str(key))
    return raw


def test_damaged_entry_is_computed_by_one(storage: Storage) -> None:
    """Of many callers in several processes that find a damaged entry at once, one computes its value."""
    cache = storage.open(secret=SECRET)
    storage.write(cache, {"k": b"\x01damaged"})
    calls = []

    async def compute() -> str:
        calls.append(1)
        await asyncio.sleep(0.05)
        return "computed"

    async def work() -> None:
        others = [storage.open(secret=SECRET) for _ in range(5)]
        for other in others:  # as other processes: a flight of their own
            put_in_a_process_of_its_own(other)
        found = await asyncio.gather(*(other.aget_or_set("k", compute) for other in others))
        assert found == ["computed"] * 5

    asyncio.run(work())
    assert len(calls) == 1
    assert cache.get("k") == "computed"


def test_list_under_a_caches_key_is_replaced(redis_databases: Databases) -> None:
    """A list under a cache's key, the value of which Redis refuses to tell, is replaced by get_or_set() and set()."""
    cache = RedisCache(redis_databases.url(), {})
    for key in ("a", "b"):
        cache._engine.call(Request([("RPUSH", cache.make_key(key), "x")], Use.WRITE))
    begun = time.monotonic()
    assert cache.get_or_set("a", lambda: 1) == 1
    assert cache.get("a") == 1
    cache.set("b", 2, tags=["red"])
    assert cache.get("b") == 2
    assert time.monotonic() - begun < 1
