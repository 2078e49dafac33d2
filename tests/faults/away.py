"""Caches whose server nobody has started, and the operations that a program calls there."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from storeroom.backends.db import DatabaseCache
from storeroom.backends.memcached import MemcachedCache, PyLibMCCache, PyMemcacheCache
from storeroom.backends.redis import RedisCache
from storeroom.backends.tiered import TieredCache
from storeroom.base import BaseCache
from storeroom.exceptions import NotSupportedError, StorageError
from storeroom.storage.outages import CircuitBreaker
from storeroom.testing.contract.suite import Driver
from tests.servers.process import free_port

__all__ = ["OF_DJANGO_REDIS", "OPERATIONS", "Away", "Operation", "breakers", "outcome"]

Operation: TypeAlias = Callable[[Any], Coroutine[Any, Any, Any]]


async def _iter_keys(cache: Any) -> Any:
    if cache.is_async:
        return [key async for key in cache.cache.aiter_keys("*")]
    return list(cache.cache.iter_keys("*"))


async def _lock(cache: Any) -> Any:
    lock = cache.cache.lock("l", timeout=1)
    return await lock.aacquire() if cache.is_async else lock.acquire()


OPERATIONS: dict[str, Operation] = {
    "get": lambda cache: cache.get("k", "default"),
    "get_many": lambda cache: cache.get_many(["a", "b"]),
    "set": lambda cache: cache.set("k", "value"),
    "set_many": lambda cache: cache.set_many({"a": 1, "b": 2}),
    "add": lambda cache: cache.add("k", "value"),
    "touch": lambda cache: cache.touch("k", 10),
    "expire_at": lambda cache: cache.expire_at("k", 4e9),
    "delete": lambda cache: cache.delete("k"),
    "has_key": lambda cache: cache.has_key("k"),
    "delete_many": lambda cache: cache.delete_many(["a", "b"]),
    "ttl": lambda cache: cache.ttl("k"),
    "get_or_set": lambda cache: cache.get_or_set("k", lambda: "computed"),
    "get_or_set_many": lambda cache: cache.get_or_set_many(["k"], lambda keys: dict.fromkeys(keys, "computed")),
    "refresh": lambda cache: cache.refresh("k", lambda: "computed"),
    "incr": lambda cache: cache.incr("n"),
    "decr": lambda cache: cache.decr("n"),
    "incr_version": lambda cache: cache.incr_version("n"),
    "decr_version": lambda cache: cache.decr_version("n", version=2),
    "keys": lambda cache: cache.keys(),
    "count": lambda cache: cache.count(),
    "clear": lambda cache: cache.clear(),
    "invalidate_tags": lambda cache: cache.invalidate_tags("red"),
    "lock": _lock,
    "set with nx=True": lambda cache: cache.set("k", "value", nx=True),
    "expire": lambda cache: cache.expire("k", 10),
    "persist": lambda cache: cache.persist("k"),
    "pttl": lambda cache: cache.pttl("k"),
    "iter_keys": _iter_keys,
    "delete_pattern": lambda cache: cache.delete_pattern("*"),
}

#: A kind of cache -> its class, its location at a port, and the URL in its options.
AWAY: dict[str, tuple[type[BaseCache], str, str | None]] = {
    "redis": (RedisCache, "redis://127.0.0.1:{port}/0?client_name=away", None),
    "pymemcache": (PyMemcacheCache, "127.0.0.1:{port}", None),
    "pylibmc": (PyLibMCCache, "127.0.0.1:{port}", None),
    "postgresql": (DatabaseCache, "t", "postgresql://u@127.0.0.1:{port}/test"),
    # PyMySQL would read the system's certificates for each connection: that takes 20 times as long as all else.
    "mysql": (DatabaseCache, "t", "mysql://u@127.0.0.1:{port}/test?ssl_disabled=true"),
}


class Away:
    """A port that nobody listens on, as after a server was killed, and caches that ask there."""

    def __init__(self, kind: str) -> None:
        self.backend, location, url = AWAY[kind]
        port = free_port()
        self._location = location.format(port=port)
        self._options = {"url": url.format(port=port)} if url else {}

    def cache(self, policy: Any) -> Any:
        """Return a cache whose circuit breaker is closed."""
        cache = self.backend(self._location, {"TIMEOUT": None, "OPTIONS": {"on_error": policy, **self._options}})
        for breaker in breakers(cache):
            breaker.reset()
        return cache

    def tiered(self, policy: Any) -> Any:
        """Return local memory before such a cache."""
        options = {"on_error": policy, **self._options}
        path = f"{self.backend.__module__}.{self.backend.__qualname__}"
        storage = {"BACKEND": path, "LOCATION": self._location, "OPTIONS": options}
        memory = {"BACKEND": "storeroom.backends.locmem.LocMemCache"}
        return TieredCache("", {"OPTIONS": {"tiers": [memory, storage]}})


def breakers(cache: Any) -> list[CircuitBreaker]:
    if isinstance(cache, MemcachedCache):
        return [server.breaker for server in cache._group.servers]
    return [cache.engine.breaker]


async def _pttl(cache: Any) -> int:
    return round(1000 * await cache.ttl("k"))


OF_DJANGO_REDIS: dict[str, Operation | None] = {
    "set with nx=True": OPERATIONS["add"],
    "expire": OPERATIONS["touch"],
    "persist": lambda cache: cache.touch("k", None),
    "pttl": _pttl,
    "iter_keys": None,
    "delete_pattern": None,
}
"""Operation of Redis alone -> the same in words of other caches."""


def outcome(cache: Any, operation: Operation, mode: str) -> Any:
    """Return an operation's result, or the class of its error."""

    async def run() -> Any:
        return await operation(Driver(cache, mode))

    try:
        return asyncio.run(run())
    except (StorageError, NotSupportedError, ValueError) as error:
        return type(error)
