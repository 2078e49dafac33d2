"""explain() on real servers: foreign bytes, the server's own order of eviction, several processes."""

import asyncio
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.redis import RedisCache
from storeroom.backends.redis.requests import Use, one
from tests.servers.redis import Databases, RedisServer, redis_databases, running, valkey_binary

__all__ = ["redis_databases"]


def raw(cache: RedisCache, *command: Any) -> Any:
    return cache._engine.call(one(Use.ONCE, *command))[0]


@pytest.fixture
def lfu_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Valkey that counts how often each entry is used."""
    yield from running(RedisServer(valkey_binary(), tmp_path / "valkey", "--maxmemory-policy", "allkeys-lfu"))


def test_a_look_is_no_use_to_the_server(lfu_server: RedisServer) -> None:
    """The server's count of uses, by which it evicts, grows by a get(), and by no explain() of either form."""
    cache = RedisCache(f"unix://{lfu_server.socket}?db=0", {})
    cache.set("k", 1)
    key = cache.make_key("k")
    before = raw(cache, "OBJECT", "FREQ", key)
    for _ in range(20):
        assert cache.explain("k").would_hit
        assert asyncio.run(cache.aexplain("k")).would_hit
    assert raw(cache, "OBJECT", "FREQ", key) == before
    cache.get("k")
    assert raw(cache, "OBJECT", "FREQ", key) > before  # the connection is as it was


def test_bytes_of_other_programs_are_told(redis_databases: Databases) -> None:
    """A pickle that Django has written, and a list: neither is read, and neither is shown."""
    cache = RedisCache(redis_databases.url(), {})
    raw(cache, "SET", cache.make_key("django"), pickle.dumps(["confidential"]))
    raw(cache, "RPUSH", cache.make_key("list"), "confidential")
    for key in ("django", "list"):
        found = cache.explain(key)
        assert (found.would_hit, found.cause) == (False, "unreadable")
        assert "confidential" not in f"{found}{found!r}"
    assert "its bytes begin with 0x80" in cache.explain("django").reason


def test_an_entry_that_the_server_has_lost_is_told(redis_databases: Databases) -> None:
    """This process has written it, and it is gone before its time: evicted, or removed by another program."""
    cache = RedisCache(redis_databases.url(), {"OPTIONS": {"removals": 100}})
    cache.set("k", 1, 500)
    raw(cache, "DEL", cache.make_key("k"))
    found = cache.explain("k")
    assert found.cause == "evicted"
    assert "is gone: the storage has evicted it, or another process has removed it." in found.reason


def test_computed_values_are_noted_as_written(redis_databases: Databases) -> None:
    """By get_or_set(), with conditions and without: not its lease, and not what was never stored."""
    url = redis_databases.url()
    cache, other = RedisCache(url, {"OPTIONS": {"removals": 100}}), RedisCache(url, {})
    cache.get_or_set("bare", lambda: 1, 500)
    cache.get_or_set("stale", lambda: 1, 500, stale_while_revalidate=100)
    with pytest.raises(ZeroDivisionError):
        cache.get_or_set("failed", lambda: 1 / 0, 500)
    assert cache.explain("bare").age is not None
    assert not cache.explain("bare").age_is_assumed
    other.delete_many(["bare", "stale", "failed"])
    assert [cache.explain(key).cause for key in ("bare", "stale", "failed")] == ["evicted", "evicted", "never"]


IN_DJANGO = """
import asyncio, json, sys
import django
from django.conf import settings
backend = "storeroom.backends.locmem.LocMemCache"
alias = {"BACKEND": backend, "LOCATION": "one", "OPTIONS": {"removals": 10}}
settings.configure(
    SECRET_KEY="for tests only" * 3, CACHES={"default": alias, "pages": {**alias, "KEY_PREFIX": "pages", "VERSION": 4}}
)
django.setup()
from django.core.cache import cache, caches

cache.set("deleted", 1)
cache.delete("deleted")
caches["pages"].set("k", 1)
found = [cache.explain("deleted"), asyncio.run(cache.aexplain("k")), caches["pages"].explain("k")]
print(json.dumps([each.as_dict() for each in found]))
"""


def test_django_s_own_handles_explain() -> None:
    """Through Django's proxy and its handles, of which each thread and context has others."""
    run = subprocess.run([sys.executable, "-c", IN_DJANGO], capture_output=True, text=True, check=True, timeout=120)
    deleted, other, there = json.loads(run.stdout)
    assert (deleted["cause"], there["cause"]) == ("deleted", "hit")
    assert other["reason"] == "KEY_PREFIX 'pages' (CACHES['pages']) has it, and KEY_PREFIX '' has not."
