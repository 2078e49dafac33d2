"""The client, as django-redis calls it: its operations, with its arguments, and redis-py's client beneath.

Entries go by Storeroom's own connections, as those of any Storeroom cache do. Locks, patterns, sets, hashes and sorted
sets, and whatever is given a `client`, such as a pipeline, go by redis-py's client, on the same settings.
"""

import random
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import redis
from django.core.cache.backends.base import DEFAULT_TIMEOUT as DJANGOS_DEFAULT
from redis.cluster import ClusterNode, RedisCluster
from redis.sentinel import Sentinel

from storeroom.backends.redis import RedisCache as Entries
from storeroom.exceptions import KeyNotFoundError
from storeroom.integrations.django_redis.collections import Collections
from storeroom.integrations.django_redis.keys import CacheKey
from storeroom.integrations.django_redis.site import site_setting
from storeroom.timeouts import DEFAULT_TIMEOUT

__all__ = ["Client", "ConnectionFactory"]

_node: Final[Any] = ClusterNode  # redis-py types some of its code alone
_sentinels: Final[Any] = Sentinel
_DEFAULTS: Final[tuple[Any, ...]] = (DEFAULT_TIMEOUT, DJANGOS_DEFAULT)
_SPECIAL: Final = re.compile(r"([*?\[])")


class ConnectionFactory:
    """Makes redis-py's clients of an alias's own settings, and closes their connections."""

    def __init__(self, cache: Any) -> None:
        self._engine = cache.engine

    def connect(self, index: int) -> Any:
        """Return a client of the server of this number in LOCATION."""
        engine: Any = self._engine
        target = engine.target
        if target.kind == "cluster":
            arguments = engine.arguments(target.servers[0])[1]
            for name in ("host", "port", "db", "path"):
                arguments.pop(name, None)
            nodes: list[Any] = [_node(server.host, server.port) for server in target.servers]
            return RedisCluster(startup_nodes=nodes, ssl=target.servers[0].tls, **arguments)
        if target.kind == "sentinel":
            return self._named(engine, is_primary=index == 0)
        kind, arguments = engine.arguments(target.servers[index])
        return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=kind, **arguments))

    def _named(self, engine: Any, *, is_primary: bool) -> Any:
        target = engine.target
        watched = engine.arguments(target.sentinels[0])[1]
        for name in ("host", "port", "db"):
            watched.pop(name, None)
        sentinels = [(each.host, each.port) for each in target.sentinels]
        group = _sentinels(sentinels, sentinel_kwargs=watched | ({"ssl": True} if target.sentinels[0].tls else {}))
        server = target.servers[0]
        arguments = engine.arguments(server)[1]
        for name in ("host", "port"):
            arguments.pop(name, None)
        find = group.master_for if is_primary else group.slave_for
        return find(target.service, **arguments, **({"ssl": True} if server.tls else {}))

    def disconnect(self, client: Any) -> None:
        """Close a client's connections, if there is one, and those of the cache that nobody uses."""
        if client is not None:
            client.close()
        if (pool := getattr(client, "connection_pool", None)) is not None:
            pool.disconnect()
        self._engine.rest()


class Client(Collections):
    """The operations of django-redis's client."""

    def __init__(self, cache: Any) -> None:
        """Belong to a cache; connections are made on first use."""
        self._backend = cache
        self._options: dict[str, Any] = cache.written_options
        target: Any = cache.engine.target
        count = 2 if target.kind == "sentinel" else 1 if target.kind == "cluster" else len(target.servers)
        self._server: list[Any] = [server.name for server in target.servers][:count] or [target.name]
        self._server += [target.name] * (count - len(self._server))
        self._clients: list[Any] = [None] * count
        self._codec = cache.codec
        self._serializer, self._compressor = cache.codec.serializer, cache.codec.compressor
        self.connection_factory = ConnectionFactory(cache)

    def __contains__(self, key: str) -> bool:
        """Do as has_key()."""
        return self.has_key(key)

    def _has_compression_enabled(self) -> bool:
        return self._compressor is not None

    # redis-py's clients -------------------------------------------------------------------------

    def get_next_client_index(self, write: bool = True, tried: list[int] | None = None) -> int:
        """Return the number of the server to write to, or one to read from; another than those that were tried."""
        if tried and (others := [number for number in range(len(self._server)) if number not in tried]):
            return random.choice(others)
        return 0 if write or len(self._server) == 1 else random.randint(1, len(self._server) - 1)

    def get_client(self, write: bool = True, tried: list[int] | None = None) -> Any:
        """Return redis-py's client, for pipelines, publish and subscribe, or scripts."""
        return self.get_client_with_index(write, tried)[0]

    def get_client_with_index(self, write: bool = True, tried: list[int] | None = None) -> tuple[Any, int]:
        """Return redis-py's client, and the number of its server."""
        index = self.get_next_client_index(write, tried)
        if self._clients[index] is None:
            self._clients[index] = self.connect(index)
        return self._clients[index], index

    def connect(self, index: int = 0) -> Any:
        """Return a new client of the server of this number in LOCATION."""
        return self.connection_factory.connect(index)

    def disconnect(self, index: int = 0, client: Any = None) -> None:
        """Close the connections of a client."""
        self.connection_factory.disconnect(client or self._clients[index])

    def close(self) -> None:
        """Close the clients' connections, if CLOSE_CONNECTION or DJANGO_REDIS_CLOSE_CONNECTION says so."""
        if self._options.get("CLOSE_CONNECTION", site_setting("CLOSE_CONNECTION", default=False)):
            self.do_close_clients()

    def do_close_clients(self) -> None:
        """Close the clients' connections."""
        for index in range(len(self._clients)):
            self.disconnect(index)
        self._clients = [None] * len(self._clients)

    # Keys ---------------------------------------------------------------------------------------

    def make_key(self, key: Any, version: int | None = None, prefix: str | None = None) -> CacheKey:
        """Return the storage key; one that is made already is returned as it is."""
        if isinstance(key, CacheKey):
            return key
        backend = self._backend
        prefix = backend.key_prefix if prefix is None else prefix
        return CacheKey(backend.key_func(key, prefix, backend.version if version is None else version))

    def make_pattern(self, pattern: str, version: int | None = None, prefix: str | None = None) -> CacheKey:
        """Return the pattern of storage keys; nothing is special in the prefix."""
        if isinstance(pattern, CacheKey):
            return pattern
        backend = self._backend
        prefix = _SPECIAL.sub(r"[\1]", backend.key_prefix if prefix is None else prefix)
        version_text = _SPECIAL.sub(r"[\1]", str(backend.version if version is None else version))
        return CacheKey(backend.key_func(pattern, prefix, version_text))

    def reverse_key(self, key: str) -> Any:
        """Return the key that a storage key was made of, by REVERSE_KEY_FUNCTION."""
        return self._backend.reverse_key(key)

    def _own(self, key: Any, client: Any) -> bool:
        return client is None and not isinstance(key, CacheKey)

    def _reader(self, client: Any) -> Any:
        return self.get_client(write=False) if client is None else client

    def _writer(self, client: Any) -> Any:
        return self.get_client(write=True) if client is None else client

    # Values -------------------------------------------------------------------------------------

    def encode(self, value: Any, *, allow_int: bool = True) -> Any:
        """Return the bytes of a value; an integer is itself, if it may be."""
        if allow_int and type(value) is int:
            return value
        codec = self._codec
        return codec.dumps(value, "") if allow_int else codec.pressed(codec.serialized(value))

    def decode(self, value: Any) -> Any:
        """Return the value of bytes."""
        if isinstance(value, int):
            return value
        return self._codec.loads(value.encode() if isinstance(value, str) else value, "")

    # Entries ------------------------------------------------------------------------------------

    def _seconds(self, timeout: Any) -> float | None:
        seconds: float | None = self._backend.default_timeout if timeout in _DEFAULTS else timeout
        return seconds

    def set(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None, client: Any = None,
        nx: bool = False, xx: bool = False, **freshness: Any,
    ) -> bool:  # fmt: skip
        """Store a value; with `nx` where there is none, with `xx` where there is one. Return whether it is stored."""
        backend, seconds = self._backend, self._seconds(timeout)
        if self._own(key, client) and not xx:
            if nx:
                return Entries.add(backend, key, value, timeout, version)
            if isinstance(seconds, int | float) and seconds <= 0:
                return bool(self.delete(key, version))
            before = backend._setbacks(self.make_key(key, version))
            Entries.set(backend, key, value, timeout, version, **freshness)
            return not backend._set_back(before)
        writer, nkey = self._writer(client), self.make_key(key, version)
        milliseconds = None if seconds is None else int(seconds * 1000)
        if milliseconds is not None and milliseconds <= 0:
            return not writer.exists(nkey) if nx else bool(writer.delete(nkey))
        stored = self._codec.dumps(value, nkey) if type(value) is not int else value
        return bool(writer.set(nkey, stored, nx=nx, px=milliseconds, xx=xx))

    def add(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None, client: Any = None
    ) -> bool:
        """Store a value where there is none. Return whether it is stored."""
        return self.set(key, value, timeout, version, client, nx=True)

    def get(self, key: Any, default: Any = None, version: int | None = None, client: Any = None) -> Any:
        """Return the value, or the default."""
        if self._own(key, client):
            return Entries.get(self._backend, key, default, version)
        nkey = self.make_key(key, version)
        data = self._reader(client).get(nkey)
        return default if data is None else self._codec.loads(data, nkey)

    def get_many(self, keys: Iterable[Any], version: int | None = None, client: Any = None) -> dict[Any, Any]:
        """Return the values that there are, by key."""
        if client is None:
            return Entries.get_many(self._backend, keys, version)
        by_key = {self.make_key(key, version): key for key in keys}
        found = zip(by_key.items(), client.mget(*by_key) if by_key else (), strict=True)
        return {key: self._codec.loads(data, nkey) for (nkey, key), data in found if data is not None}

    def set_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None, client: Any = None,
        herd: bool = True, **freshness: Any,
    ) -> list[Any]:  # fmt: skip
        """Store values. Return the keys that were not stored."""
        if client is None:
            return Entries.set_many(self._backend, data, timeout, version, **freshness)
        for key, value in data.items():
            self.set(key, value, timeout, version, client)
        return []

    def delete(self, key: Any, version: int | None = None, prefix: str | None = None, client: Any = None) -> int:
        """Remove what is there. Return how much that was."""
        if self._own(key, client) and prefix is None and Entries.delete(self._backend, key, version):
            return 1
        removed: int = self._writer(client).delete(self.make_key(key, version, prefix))
        return removed

    def delete_many(self, keys: Iterable[Any], version: int | None = None, client: Any = None) -> int:
        """Remove what is there. Return how much that was."""
        nkeys = [self.make_key(key, version) for key in keys]
        if client is not None:
            return int(client.delete(*nkeys)) if nkeys else 0
        hooks: Any = self._backend._overlay or self._backend
        return self._backend._counted_deletes(hooks._delete_many(nkeys)) if nkeys else 0

    def clear(self, client: Any = None) -> None:
        """Empty the whole database of the server, as django-redis does: entries of others, too."""
        self._writer(client).flushdb()
        self._forget()

    def incr(
        self, key: Any, delta: int = 1, version: int | None = None, client: Any = None,
        ignore_key_check: bool = False,
    ) -> Any:  # fmt: skip
        """Add to a number and return the sum; `ignore_key_check` makes one that is not there, for good.

        Raises:
            KeyNotFoundError: it is not there, a ValueError.
        """
        if self._own(key, client):
            missing = {"default": 0, "timeout": None} if ignore_key_check else {}
            return Entries.incr(self._backend, key, delta, version, **missing)
        writer, nkey = self._writer(client), self.make_key(key, version)
        if not ignore_key_check and not writer.exists(nkey):
            raise KeyNotFoundError(f"Key {key!r} not found.")
        return writer.incrby(nkey, delta)

    def decr(self, key: Any, delta: int = 1, version: int | None = None, client: Any = None) -> Any:
        """Subtract from a number and return the difference; see incr()."""
        return self.incr(key, -delta, version, client)

    def incr_version(self, key: Any, delta: int = 1, version: int | None = None, client: Any = None) -> int:
        """Move an entry to another version, and return that.

        Raises:
            KeyNotFoundError: it is not there, a ValueError.
        """
        if self._own(key, client):
            return Entries.incr_version(self._backend, key, delta, version)
        version = self._backend.version if version is None else version
        writer, nkey = self._writer(client), self.make_key(key, version)
        original = key.original_key() if isinstance(key, CacheKey) else key
        if not writer.exists(nkey):
            raise KeyNotFoundError(f"Key {key!r} not found.")
        writer.rename(nkey, self.make_key(original, version + delta))
        return version + delta

    def has_key(self, key: Any, version: int | None = None, client: Any = None) -> bool:
        """Tell whether something is there."""
        if self._own(key, client) and Entries.has_key(self._backend, key, version):
            return True
        return bool(self._reader(client).exists(self.make_key(key, version)))

    def _forget(self) -> None:
        if forget := getattr(self._backend._overlay, "forget", None):
            forget()

    # Timeouts: of entries, and else of what is there under the key: a set, a hash, a lock ------------

    def ttl(self, key: Any, version: int | None = None, client: Any = None) -> int | None:
        """Return the whole seconds left: None if it never expires, 0 if it is not there."""
        left = self.pttl(key, version, client)
        return None if left is None else (left + 500) // 1000

    def pttl(self, key: Any, version: int | None = None, client: Any = None) -> int | None:
        """Return the milliseconds left: None if it never expires, 0 if it is not there."""
        if self._own(key, client) and (of_entry := Entries.ttl(self._backend, key, version)) != 0:
            return None if of_entry is None else round(of_entry * 1000)
        left: int = self._reader(client).pttl(self.make_key(key, version))
        return None if left == -1 else max(0, left)

    def persist(self, key: Any, version: int | None = None, client: Any = None) -> bool:
        """Let what is there never expire. Return False if there is nothing."""
        if self._own(key, client) and Entries.touch(self._backend, key, None, version):
            return True
        return bool(self._writer(client).persist(self.make_key(key, version)))

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None, client: Any = None) -> bool:
        """Let what is there expire in so many seconds, or never if None. Return False if there is nothing."""
        seconds = self._seconds(timeout)
        if self._own(key, client) and Entries.touch(self._backend, key, seconds, version):
            return True
        writer, nkey = self._writer(client), self.make_key(key, version)
        return bool(writer.persist(nkey) if seconds is None else writer.pexpire(nkey, int(seconds * 1000)))

    def expire(self, key: Any, timeout: Any, version: int | None = None, client: Any = None) -> bool:
        """Do as touch(); the timeout may be a timedelta, too."""
        seconds = self._seconds(timeout)
        return self.touch(key, seconds.total_seconds() if isinstance(seconds, timedelta) else seconds, version, client)

    def pexpire(self, key: Any, timeout: Any, version: int | None = None, client: Any = None) -> bool:
        """Do as touch(), in milliseconds."""
        if timeout in _DEFAULTS or isinstance(timeout, timedelta):
            return self.expire(key, timeout, version, client)
        return self.touch(key, timeout / 1000, version, client)

    def expire_at(self, key: Any, when: Any, version: int | None = None, client: Any = None) -> bool:
        """Let what is there expire at this time: epoch seconds, or a datetime, without a zone in local time.

        Return False if there is nothing.
        """
        seconds = when.timestamp() if isinstance(when, datetime) else when
        if self._own(key, client) and Entries.expire_at(self._backend, key, seconds, version):
            return True
        return bool(self._writer(client).pexpireat(self.make_key(key, version), int(seconds * 1000)))

    def pexpire_at(self, key: Any, when: Any, version: int | None = None, client: Any = None) -> bool:
        """Do as expire_at(); a number is in milliseconds."""
        return self.expire_at(key, when if isinstance(when, datetime) else when / 1000, version, client)

    # Locks and patterns -------------------------------------------------------------------------

    def lock(
        self, key: Any, version: int | None = None, timeout: float | None = None, sleep: float = 0.1,
        blocking: bool = True, blocking_timeout: float | None = None, client: Any = None, thread_local: bool = True,
    ) -> Any:  # fmt: skip
        """Return redis-py's lock."""
        return self._writer(client).lock(
            self.make_key(key, version), timeout=timeout, sleep=sleep, blocking=blocking,
            blocking_timeout=blocking_timeout, thread_local=thread_local,
        )  # fmt: skip

    def iter_keys(
        self, search: str, itersize: int | None = None, client: Any = None, version: int | None = None
    ) -> Iterator[Any]:
        """Yield the keys that match a pattern, `itersize` of them looked at in a step."""
        for key in self._reader(client).scan_iter(match=self.make_pattern(search, version), count=itersize):
            yield self.reverse_key(key.decode() if isinstance(key, bytes) else key)

    def keys(self, search: str = "*", version: int | None = None, client: Any = None) -> list[Any]:
        """Return the keys that match a pattern."""
        return list(self.iter_keys(search, 1000, client, version))

    def delete_pattern(
        self, pattern: str, version: int | None = None, prefix: str | None = None, client: Any = None,
        itersize: int | None = None,
    ) -> int:  # fmt: skip
        """Remove what matches a pattern. Return how much that was."""
        writer, count = self._writer(client), 0
        pipeline = writer.pipeline()
        for key in writer.scan_iter(match=self.make_pattern(pattern, version, prefix), count=itersize):
            pipeline.delete(key)
            count += 1
        pipeline.execute()
        self._forget()
        return count
