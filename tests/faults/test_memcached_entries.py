"""Entries in Memcached: bytes of others, lost generations, servers without room, long timeouts and odd keys."""

import asyncio
import itertools
import pickle
import random
import struct
import subprocess
import sys
import textwrap
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from storeroom.backends.memcached.server_keys import generation_key, server_key
from storeroom.exceptions import StorageError, ValueTooLargeError
from storeroom.testing.isolation import engines_of_its_own
from tests.faults.bomb import Bomb
from tests.faults.kinds import MEMCACHED, SITES, Site
from tests.servers.memcached import MemcachedServer, running

Start: TypeAlias = Callable[..., Site]


@pytest.fixture(scope="module", params=MEMCACHED)
def kind(request: pytest.FixtureRequest) -> str:
    """Memcached alone, by both drivers in turn."""
    return str(request.param)


@pytest.fixture
def start(kind: str, tmp_path: Path) -> Iterator[Start]:
    """Start a server of the test's own, with such options."""
    with engines_of_its_own(), ExitStack() as stack:

        def start(*options: str) -> Site:
            servers = stack.enter_context(running(tmp_path, 1, *options, by_port=True))
            return SITES[kind](servers.servers[0])

        yield start


def store(server: MemcachedServer, payloads: dict[bytes, bytes], flags: int = 0) -> None:
    """Write past all caches."""
    with server.connect() as connection:
        for key, data in payloads.items():
            connection.sendall(b"set %b %d 0 %d\r\n%b\r\n" % (key, flags, len(data), data))
            assert connection.recv(100) == b"STORED\r\n"


def key_of(cache: Any, key: str) -> bytes:
    """Return the server's key of an entry."""
    storage_key = cache.make_key(key)
    stored_under: bytes = cache._shard_of(storage_key)._key(storage_key)
    return stored_under


# Bytes of others ----------------------------------------------------------------------------


def test_hostile_headers_are_misses(site: Site) -> None:
    """Whatever stands in the place of its time, an entry is there or is not, to all operations alike."""
    cache = site.cache()
    chance = random.Random(21)
    headers = [chance.randbytes(chance.randrange(9)) for _ in range(500)]
    headers += [struct.pack(">d", number) for number in (float("nan"), -1.0, 0.0, 1e300, float("-inf"))]
    store(site.server, {key_of(cache, f"k{number}"): header + b"7" for number, header in enumerate(headers)})
    for number in range(len(headers)):
        key = f"k{number}"
        assert cache.get(key, 7) == 7
        assert cache.ttl(key) is None or cache.ttl(key) >= 0
        assert cache.touch(key) == cache.has_key(key)
        cache.delete(key)
        assert cache.add(key, "new") is True
        assert cache.get(key) == "new"


@pytest.mark.parametrize("flags", [1, 2, 4, 8, 9, 16, 32, 65_535])
def test_flags_of_foreign_bytes_do_nothing(
    site: Site, flags: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flags, by which drivers tell pickles and compressed values, make a driver neither read nor unpack a value."""
    cache = site.cache()
    monkeypatch.chdir(tmp_path)
    trace = Path("trace")  # a path of another length makes other bytes, some of which are a number
    for data in (pickle.dumps(Bomb(trace)), zlib.compress(pickle.dumps(Bomb(trace)))):
        keys = ["a", "b", "c", "d"]
        store(site.server, {key_of(cache, key): data for key in keys}, flags)
        cache.set("good", 1)
        assert cache.get("a") is None
        assert cache.get_many(["a", "b", "good"]) == {"good": 1}
        with pytest.raises(ValueError, match="not found"):
            cache.incr("c")
        assert cache.touch("c") in {False, True}
        assert cache.add("d", "new") in {False, True}
        cache.set("a", "again")
        assert cache.get("a") == "again"
        assert not trace.exists()
    assert site.failures(cache) == 0


# Generations --------------------------------------------------------------------------------


@pytest.mark.slow
def test_clear_is_seen_by_other_processes_within_a_second(site: Site) -> None:
    """A second after one process has cleared a cache, no other reads an entry from before."""
    cache = site.cache()
    cache.set_many({"k": 1, "l": 2})
    assert cache.get("k") == 1
    code = f"""
        from storeroom.backends.memcached import {type(cache).__qualname__} as Cache
        cache = Cache("{site.server.location}", {{"KEY_PREFIX": "{site.prefix}", "TIMEOUT": None}})
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
def test_lost_generation_makes_misses_and_nothing_stale(site: Site, loss: str) -> None:
    """Entries miss once their generation is evicted, overwritten by a stranger, or gone with all the rest."""
    cache, server = site.cache(), site.server
    cache.set("k", "before")
    if loss == "delete":
        assert server.ask(b"delete " + generation_key(site.prefix)) == b"DELETED\r\n"
    elif loss == "foreign":
        store(server, {generation_key(site.prefix): b"no token at all\x00"})
    else:
        server.ask(b"flush_all")
    cache._shards[0]._generation.state = (cache._shards[0]._generation.state[0], 0.0)  # as if a second had passed
    assert cache.get("k") is None
    cache.set("k", "after")
    assert site.cache().get("k") == "after"
    assert site.failures(cache) == 0


# Room ---------------------------------------------------------------------------------------


def test_value_larger_than_the_servers_items_is_refused_with_both_sizes(start: Start) -> None:
    """A value larger than the server's items raises and names both sizes; compressed below that size it is stored."""
    site = start("-m", "64")
    cache = site.cache()
    cache.set("k", "old")
    large = "v" * 2**21
    for operation in (
        lambda: cache.set("k", large),
        lambda: cache.add("new", large),
        lambda: asyncio.run(cache.aset("k", large)),
    ):
        with pytest.raises(ValueTooLargeError, match=r"takes 2097161 bytes.* holds items of 1048576 .*-I"):
            operation()
    assert cache.get("k") is None
    cache.set("k", "old")
    assert cache.set_many({"a": 1, "k": large, "b": 2}) == ["k"]
    assert cache.get_many(["a", "b", "k"]) == {"a": 1, "b": 2}
    assert site.failures(cache) == 0
    compressed = site.cache(compressor="zlib")
    compressed.set("k", large)
    assert compressed.get("k") == large


@pytest.mark.parametrize("large", [20_000, 400_000])
def test_server_without_room_says_so(start: Start, large: int) -> None:
    """A server that may not evict (-M) refuses, which is no outage, and no write is said to be stored."""
    site = start("-M", "-m", "8")
    cache = site.cache()
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
    assert site.failures(cache) == 0


@pytest.mark.parametrize("policy", ["miss", "raise"])
def test_server_without_room_keeps_nobody_waiting(start: Start, policy: str) -> None:
    """On a server that has no room even to replace an entry nothing spins, nothing waits, and nothing pretends."""
    site = start("-M", "-m", "2", "-o", "slab_chunk_max=8192")
    cache = site.cache(on_error=policy)
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
    assert site.failures(cache) == 0


def test_server_without_room_for_a_generation_is_a_miss(start: Start) -> None:
    """A cache that is new on a full server, which may not evict, does not hang: it misses."""
    site = start("-M", "-m", "2", "-o", "slab_chunk_max=8192")
    full = site.cache()
    for size in (5000, 500, 100, 20, 0):
        chance = 0
        while not full.set_many({f"{size}-{chance}-{number}": "v" * size for number in range(200)}):
            chance += 1
    site.prefix = "new"
    cache = site.cache()
    begun = time.monotonic()
    assert cache.get("k", "default") == "default"
    cache.set("k", 1)
    assert cache.add("k", "v" * 5000) is False
    assert cache.stats().errors > 0
    assert time.monotonic() - begun < 1
    assert site.failures(cache) == 0


# Time ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_fractions_of_a_second_by_the_real_clock(site: Site) -> None:
    """An entry of 0.9 s is there for that long, and soon afterwards the server's memory has it no more."""
    cache = site.cache()
    begun = time.monotonic()
    cache.set("k", "v", timeout=0.9)
    stored, asked = time.monotonic(), begun
    key = key_of(cache, "k")
    while cache.get("k") == "v":
        assert asked < stored + 0.95, "it was there when it was asked for"
        time.sleep(0.02)
        asked = time.monotonic()
    assert time.monotonic() - begun > 0.85
    while site.server.ask(b"get " + key) != b"END\r\n":
        assert time.monotonic() - begun < 5
        time.sleep(0.05)


@pytest.mark.parametrize("days", [29, 30, 31, 400, 20_000])
def test_timeouts_of_years_are_kept(site: Site, days: int) -> None:
    """A timeout is kept beyond 30 days, which Memcached takes for a point in time, and beyond 2038."""
    cache = site.cache()
    seconds = days * 86_400
    cache.set("k", "v", timeout=seconds)
    assert cache.get("k") == "v"
    assert cache.ttl("k") == pytest.approx(seconds, abs=5)
    assert cache.add("n", 1, timeout=seconds)
    assert cache.incr("n") == 2
    assert cache.touch("n", timeout=seconds) is True
    assert cache.get("n") == 2


# Keys ---------------------------------------------------------------------------------------


def test_hashed_key_cannot_be_taken_for_another(site: Site) -> None:
    """Not even a caller that types the very key that the server sees reads the entry of a hashed key."""
    cache = site.cache()
    odd = "a key with spaces"
    cache.set(odd, "odd")
    token = cache._shards[0]._generation.state[0]
    seen = server_key(token, cache.make_key(odd)).decode().removeprefix(f"{token}{site.prefix}:1:")
    assert "#" in seen
    assert cache.get(seen) is None
    cache.set(seen, "typed")
    assert cache.get(odd) == "odd"


def test_server_key_is_legal() -> None:
    """Every string has a key of its own of at most 250 bytes, without white space and control characters."""
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
