"""Computed values on full disks, in full maps and on full servers: returned, counted, and logged once."""

import asyncio
import contextlib
import itertools
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import storeroom
from storeroom import cached
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.redis import RedisCache
from storeroom.exceptions import StorageError
from storeroom.storage import unstored
from storeroom.testing.contract.suite import Driver
from tests.faults.kinds import MEMCACHED, SITES
from tests.servers.memcached import running
from tests.servers.redis import RedisServer, redis_server

__all__ = ["redis_server"]

LARGE = "x" * 20_000

FULL_DISK = """
import sys
from pathlib import Path
from tests.faults.test_unstored import compute_all, fill

disk = Path(sys.argv[1])
from storeroom.backends.db import DatabaseCache
from storeroom.backends.filebased import FileBasedCache

caches = [FileBasedCache(disk / "files", {"OPTIONS": {"max_entries": None}})]
caches.append(DatabaseCache("t", {"OPTIONS": {"url": f"sqlite:///{disk}/db.sqlite3", "max_entries": None}}))
for cache in caches:
    cache.set_many({"old": "admin", "tagged": "admin", "set": "admin", "tagged set": "admin"})
for cache in caches:
    fill(cache)
print(compute_all(caches[0]))
print(compute_all(caches[1], removes=False))  # in a directory that others may write to SQLite keeps no room
"""


def fill(cache: Any) -> None:
    """Fill a storage until nothing more of the size of a computed value finds room."""
    for batch in (100, 10, 1):
        numbers = itertools.count()
        with contextlib.suppress(StorageError):
            while not cache.set_many({f"{batch} {next(numbers)}": "v" * 1000 for _ in range(batch)}):
                pass


def compute_all(cache: Any, *, removes: bool = True) -> list[Any]:
    """Compute by every operation, both forms; return what is not as it should be."""
    wrong: list[Any] = []
    for mode in ("sync", "async"):
        asyncio.run(_compute_all(Driver(cache, mode), wrong))
    for key, tags in (("set", []), ("tagged set", ["new tag"])):
        with contextlib.suppress(StorageError):
            cache.set(key, LARGE, tags=tags)
    wrong += cache.get_many(["new", "a", "b", *(["old", "tagged", "set", "tagged set"] if removes else [])]).items()
    return wrong


async def _compute_all(cache: Driver, wrong: list[Any]) -> None:
    calls = 0

    def compute() -> str:
        nonlocal calls
        calls += 1
        return LARGE

    before = cache.cache.stats().unstored
    returned = [
        await cache.refresh("old", compute),
        await cache.refresh("tagged", compute, tags=["t"]),
        await cache.get_or_set("new", compute),
        await cache.get_or_set("new", compute, stale_if_error="1h", stale_while_revalidate=10),
        await cache.get_or_set("new", compute, hard_timeout=30, soft_timeout=20),
        *(await cache.get_or_set_many(["a", "b"], lambda keys: {key: compute() for key in keys})).values(),
    ]
    wrong += [value[:10] for value in returned if value != LARGE]
    counted = cache.cache.stats().unstored - before
    wrong += [] if (calls, counted) == (7, 7) else [(calls, counted)]


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """Begin with nothing logged."""
    monkeypatch.setattr(unstored, "_told", type(unstored._told)())
    caplog.set_level(logging.WARNING, "storeroom.computing")
    return caplog


def test_full_disk_gives_what_was_computed(tmp_path: Path) -> None:
    """Files and SQLite on a disk without room: everything computed is returned; in files nothing older is left."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f'mount -t tmpfs -o size=3m tmpfs {disk} && exec {sys.executable} -c "$CODE" {disk}'
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    result = subprocess.run(
        ["unshare", *as_root, "--mount", "sh", "-c", script],
        env=os.environ | {"CODE": FULL_DISK}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.stdout.splitlines() == ["[]", "[]"], result.stderr
    assert result.returncode == 0


def test_full_map_gives_what_was_computed(tmp_path: Path) -> None:
    """Files at their greatest size: everything computed is returned, and nothing older is left."""
    cache = FileBasedCache(tmp_path, {"OPTIONS": {"max_entries": None, "map_size": "512k"}})
    cache.set_many({"old": "admin", "tagged": "admin", "set": "admin", "tagged set": "admin"})
    fill(cache)
    assert compute_all(cache) == []


def test_full_redis_gives_what_was_computed(redis_server: RedisServer, told: pytest.LogCaptureFixture) -> None:
    """A Redis that is full and evicts nothing: what is computed is returned, and no older value is served."""
    cache = RedisCache(f"redis://127.0.0.1:{redis_server.port}?client_name=unstored", {})
    cache.set_many(
        {"old": "admin", "tagged": "admin", "set": "admin", "tagged set": "admin", "many": "admin", "t": "admin"}
    )
    redis_server.ask("CONFIG", "SET", "maxmemory", "1")
    assert compute_all(cache) == []
    asyncio.run(cache.aset_many({"many": "none"}))
    cache.set("t", "none", tags=["new"])
    assert cache.get_many(["many", "t"]) == {}
    assert len([record for record in told.records if "builtins.str" in record.message]) == 2  # compute(), and a lambda
    assert not cache._engine.breaker.is_open


@pytest.mark.parametrize("kind", MEMCACHED)
def test_memcached_gives_what_it_cannot_hold(kind: str, tmp_path: Path) -> None:
    """A computed item over the server's limit is returned; the older one is gone, and the other keys are there."""
    with running(tmp_path, 1, "-I", "1m", by_port=True) as servers:
        cache: Any = SITES[kind](servers.servers[0]).cache()
        large = os.urandom(1_200_000)
        cache.set("k", "admin")
        assert cache.refresh("k", lambda: large) == large
        assert cache.get_or_set("l", lambda: large) == large
        found = cache.get_or_set_many(["a", "b"], lambda _: {"a": 1, "b": large})
        assert found == {"a": 1, "b": large}
        assert cache.set_many({"c": 1, "d": large, "e": 3}) == ["d"]
        assert cache.get_many(["k", "l", *"abcde"]) == {"a": 1, "c": 1, "e": 3}
        assert cache.stats().unstored == 3


# The log ------------------------------------------------------------------------------------


def refuse(make: Callable[[], Any], key: str) -> None:
    storeroom.cache.get_or_set(key, make)


def test_each_type_is_logged_once_for_each_place(told: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """The log names type, place, key and option, once; the memory of what was logged is bounded."""
    storeroom.configure({"default": {"BACKEND": "storeroom.backends.locmem.LocMemCache", "LOCATION": str(tmp_path)}})

    @cached(key="page:{number}")
    def page(number: int) -> Any:
        return (n for n in range(number))

    @cached(key="other:{number}", timeout=10, jitter=0.1)
    def other(number: int) -> Any:
        return (n for n in range(number))

    for number in range(5):
        page(number)
        other(number)
        refuse(lambda: (n for n in "ab"), f"k{number}")
    messages = [record.getMessage() for record in told.records]
    assert len(messages) == 3
    for name, message in zip(("<locals>.page", "<locals>.other", "<lambda>"), messages, strict=True):
        assert name in message
        assert "builtins.generator" in message
        assert "on_unstorable" in message
    assert "'page:0'" in messages[0] or ":page:0'" in messages[0]
    for number in range(unstored._MOST_TOLD + 10):
        unstored.note(storeroom.cache._counters, "k", None, ValueError(), str(number))
    assert len(unstored._told) == unstored._MOST_TOLD
