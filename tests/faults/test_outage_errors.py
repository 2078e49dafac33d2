"""The errors of an outage, which programs that were written for the driver catch by its own classes."""

import asyncio
import importlib
import pickle
import socket
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from storeroom.backends.db import DatabaseCache
from storeroom.backends.memcached import PyLibMCCache, PyMemcacheCache
from storeroom.backends.redis import RedisCache
from storeroom.base import BaseCache
from storeroom.exceptions import StorageError, UnansweredError, UnreachableError
from storeroom.testing.isolation import engines_of_its_own
from tests.faults.kinds import HASTY
from tests.servers.memcached import needs_pylibmc
from tests.servers.process import free_port

Open: TypeAlias = Callable[[int, str], BaseCache]


def database(scheme: str) -> Open:
    """Return a function that opens a cache in a database."""

    def opened(port: int, policy: str) -> BaseCache:
        url = f"{scheme}://user@127.0.0.1:{port}/test"
        return DatabaseCache("cached", {"OPTIONS": {**HASTY, "on_error": policy, "url": url}})

    return opened


def memcached(kind: type[BaseCache]) -> Open:
    """Return a function that opens a cache in Memcached."""
    return lambda port, policy: kind(f"127.0.0.1:{port}", {"OPTIONS": {**HASTY, "on_error": policy}})


def redis(port: int, policy: str) -> BaseCache:
    """Open a cache in Redis."""
    return RedisCache(f"redis://127.0.0.1:{port}/0", {"OPTIONS": {**HASTY, "on_error": policy}})


#: How a cache is opened, and the driver's class of its outages' errors.
KINDS = {
    "redis": (redis, "redis.exceptions.ConnectionError"),
    "pymemcache": (memcached(PyMemcacheCache), "pymemcache.exceptions.MemcacheError"),
    "pylibmc": (memcached(PyLibMCCache), "pylibmc.Error"),
    "postgresql": (database("postgresql"), "psycopg.OperationalError"),
    "mysql": (database("mysql"), "pymysql.OperationalError"),
}
CASES = [pytest.param(*KINDS[kind], id=kind, marks=needs_pylibmc if kind == "pylibmc" else ()) for kind in KINDS]


def read(cache: BaseCache, mode: str) -> None:
    """Read a key."""
    if mode == "sync":
        cache.get("k")
    else:
        asyncio.run(cache.aget("k"))


def class_at(path: str) -> Any:
    """Return the class of a dotted path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.fixture(autouse=True)
def engines() -> Iterator[None]:
    with engines_of_its_own():
        yield


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize(("opened", "path"), CASES)
def test_programs_catch_it_by_the_drivers_class(opened: Open, path: str, mode: str) -> None:
    """At the first failure, and while the breaker is open; it is our own and the standard library's error, too."""
    port = free_port()
    cache = opened(port, "raise")
    for _ in range(5):
        with pytest.raises(class_at(path)) as caught:
            read(cache, mode)
        assert isinstance(caught.value, UnreachableError)
        assert isinstance(caught.value, StorageError)
        assert isinstance(caught.value, ConnectionError)
        assert str(port) in str(caught.value)
        assert type(caught.value).__name__ == "UnreachableError"
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (type(copied), str(copied)) == (UnreachableError, str(caught.value))


@pytest.mark.parametrize(("opened", "path"), CASES)
def test_a_counter_in_an_outage_is_caught_by_all_of_them(opened: Open, path: str) -> None:
    """Under "miss" a counter has no answer: its error is that of a key that is not there, and the driver's."""
    cache = opened(free_port(), "miss")
    assert cache.get("k") is None
    with pytest.raises(class_at(path)) as caught:
        cache.incr("n")
    assert isinstance(caught.value, UnansweredError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize(("opened", "path"), CASES[:2])
def test_a_server_that_does_not_answer_is_a_timeout(opened: Open, path: str, mode: str) -> None:
    """redis-py has a class of its own for it; the standard library's is the same everywhere."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cache = opened(silent.getsockname()[1], "raise")
        with pytest.raises(TimeoutError) as caught:
            read(cache, mode)
    assert isinstance(caught.value, class_at(path.replace("exceptions.ConnectionError", "exceptions.TimeoutError")))
