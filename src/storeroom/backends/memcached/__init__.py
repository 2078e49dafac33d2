"""A cache in Memcached: one server, or several that share the keys.

LOCATION names them (location.py). Memcached stores bytes under short keys, expires them by
whole seconds, counts unsigned numbers and clears everything at once; what a cache promises
beyond that is made of compare-and-swap (shard.py), a header before each value (entries.py)
and generations in the keys (server_keys.py).

Memcached's drivers are synchronous: asynchronous callers are served by a bounded number of threads.
"""

import contextvars
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, ParamSpec, TypeVar

from storeroom import config
from storeroom.backends.memcached import location as locations
from storeroom.backends.memcached import options as known
from storeroom.backends.memcached.clients import Client
from storeroom.backends.memcached.engine import Group, Server
from storeroom.backends.memcached.location import Address
from storeroom.backends.memcached.shard import Shard
from storeroom.base import BaseCache
from storeroom.engines import shared
from storeroom.exceptions import ConfigurationError, StorageError
from storeroom.serializers import build_codec
from storeroom.serializers.secrets import secret_of
from storeroom.storage.hooks import Swap
from storeroom.storage.probes import Endpoint, Probe

__all__ = ["MemcachedCache", "PyLibMCCache", "PyMemcacheCache"]

P = ParamSpec("P")
T = TypeVar("T")


class MemcachedCache(BaseCache):
    """What the caches of the two drivers have in common: each key is passed to the shard of its server.

    Atomic among threads, processes and hosts: every operation on one key; of those on several,
    each key by itself. incr_version() moves an entry for one caller, but others may see neither
    version for a moment.

    An outage concerns the keys of the servers that are out of reach, and no others.

    Args:
        location: the servers: see location.py.
        params: the alias's settings.

    Raises:
        ConfigurationError: a setting is wrong.
    """

    sees_envelopes = True
    _shards: Sequence[Shard] = ()
    _only: Shard | None = None
    """The shard, where there is but one: nothing has to be chosen then."""
    _guests: Sequence[Shard] = ()
    """What each server keeps for others that are down."""

    def __init__(self, location: str | Sequence[str], params: Mapping[str, Any]) -> None:
        """Note where the cache is; connections are made on first use."""
        super().__init__(params)
        options = known.settled(self.settings) | {"secret": secret_of(self.settings)}
        self.settings = dataclasses.replace(self.settings, options=options)
        codec = self._codec = build_codec(
            trusted=False,
            allowed_types=options["allowed_types"],
            **{name: options[name] for name in config.CODEC_OPTIONS},
        )
        self._addresses = locations.parse(location)
        self._group = self._shared_group(self._addresses, options)
        self.engine = self._group
        make = partial(Shard, settings=self.settings, codec=codec, counters=self._counters, outages=self._outages())
        self._shards = [make(server, home=self._shard_of) for server in self._group.servers]
        self._only = self._shards[0] if len(self._shards) == 1 else None
        if options["eject"] is not None and self._only is None:
            longest = options["eject"]
            self._guests = [make(server, home=self._shard_of, longest=longest) for server in self._group.servers]

    @classmethod
    def check_location(cls, location: str | Sequence[str], settings: config.Settings) -> None:
        """Find out, without connecting, whether LOCATION and OPTIONS make sense.

        Raises:
            ConfigurationError: they do not.
        """
        locations.parse(location)

    @classmethod
    def endpoints(cls, location: str | Sequence[str], settings: config.Settings) -> Sequence[Endpoint]:
        """See Probed."""
        from storeroom.backends.memcached.probe import endpoints  # noqa: PLC0415 -- few programs need it

        return endpoints(locations.parse(location), settings.options)

    def probe(self, seconds: float) -> Probe:
        """See Probed."""
        from storeroom.backends.memcached.probe import endpoints, probe  # noqa: PLC0415 -- as above

        found = endpoints(self._addresses, self.settings.options)
        return probe(self._group.servers, found, self._outages(), seconds)

    # The driver -----------------------------------------------------------------------------

    def _client_maker(self, address: Address, options: Mapping[str, Any]) -> Callable[[], Client]:
        """Return what makes a client of this class's driver."""
        raise NotImplementedError

    def _outages(self) -> tuple[type[BaseException], ...]:
        """Return what the driver raises when a server is out of reach."""
        raise NotImplementedError

    def _shared_group(self, addresses: tuple[Address, ...], options: Mapping[str, Any]) -> Group:
        chosen = {name: options[name] for name in self.options or () if name not in config.CODEC_OPTIONS}
        own = repr((type(self).__qualname__, sorted(chosen.items(), key=lambda item: item[0])))
        names = tuple(map(str, addresses))
        servers = tuple(
            shared(
                Server,
                f"{name} {own}",
                partial(
                    Server,
                    f"Memcached at {name}",
                    self._client_maker(address, options),
                    options["max_connections"],
                    options["socket_timeout"],
                ),
            )
            for name, address in zip(names, addresses, strict=True)
        )
        return shared(Group, f"{names} {own}", partial(Group, names, servers))

    # Shards ---------------------------------------------------------------------------------

    def _learn_keys(self) -> None:
        super()._learn_keys()
        for shard in (*self._shards, *self._guests):
            shard.use_prefix(self._key_prefix)

    def _shard_of(self, storage_key: str) -> Shard:
        """Return the shard that keeps the key, or keeps it for one that is down."""
        home = self._home_of(storage_key)
        if self._guests and home._engine.breaker.refuses and not storage_key.startswith("\x00"):
            for number in self._group.places(storage_key):
                if not self._shards[number]._engine.breaker.is_open:
                    return self._guests[number]
        return home

    def _home_of(self, storage_key: str) -> Shard:
        """Return the shard of a key that never moves: a counter, a lock or a tag that moved would begin anew."""
        return self._only or self._shards[self._group.place(storage_key)]

    def _by_shard(self, storage_keys: Iterable[str]) -> dict[Shard, list[str]]:
        """Return the storage keys by the shard that they belong to."""
        if self._only is not None:
            return {self._only: list(storage_keys)}
        by_shard: dict[Shard, list[str]] = {}
        for storage_key in storage_keys:
            by_shard.setdefault(self._shard_of(storage_key), []).append(storage_key)
        return by_shard

    # Hooks, as StorageHooks describes them --------------------------------------------------

    def _get(self, storage_key: str) -> Any:
        return (self._only or self._shard_of(storage_key))._get(storage_key)

    def _get_many(self, storage_keys: Sequence[str]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for shard, own_keys in self._by_shard(storage_keys).items():
            values |= shard._get_many(own_keys)
        return values

    def _get_dated(self, storage_keys: Sequence[str]) -> dict[str, tuple[Any, float | None]]:
        values: dict[str, tuple[Any, float | None]] = {}
        for shard, own_keys in self._by_shard(storage_keys).items():
            values |= shard._get_dated(own_keys)
        return values

    def _set(self, storage_key: str, value: Any, expires_at: float) -> bool:
        return self._shard_of(storage_key)._set(storage_key, value, expires_at)

    def _set_many(self, values: Mapping[str, Any], expires_at: float) -> Sequence[str]:
        failed: list[str] = []
        for shard, own_keys in self._by_shard(values).items():
            failed += shard._set_many({storage_key: values[storage_key] for storage_key in own_keys}, expires_at)
        return failed

    def _add(self, storage_key: str, value: Any, expires_at: float) -> Any:
        return self._shard_of(storage_key)._add(storage_key, value, expires_at)

    def _delete(self, storage_key: str) -> bool:
        return self._shard_of(storage_key)._delete(storage_key)

    def _delete_many(self, storage_keys: Sequence[str]) -> int:
        return sum(shard._delete_many(own_keys) for shard, own_keys in self._by_shard(storage_keys).items())

    def _touch(self, storage_key: str, expires_at: float) -> Any:
        return self._shard_of(storage_key)._touch(storage_key, expires_at)

    def _incr(self, storage_key: str, delta: float) -> float:
        return self._home_of(storage_key)._incr(storage_key, delta)

    def _expiry(self, storage_key: str) -> Any:
        return self._shard_of(storage_key)._expiry(storage_key)

    def _rename(self, storage_key: str, new_storage_key: str) -> Any:
        return self._shard_of(storage_key)._rename(storage_key, new_storage_key)

    def _lease(self, storage_key: str, seen: Any, mark: Any, expires_at: float) -> bool | None:
        return self._shard_of(storage_key)._lease(storage_key, seen, mark, expires_at)

    async def _alease(self, storage_key: str, seen: Any, mark: Any, expires_at: float) -> bool | None:
        return await self._run(self._lease, storage_key, seen, mark, expires_at)

    def _lease_many(self, swaps: Mapping[str, Swap]) -> dict[str, bool | None]:
        leased: dict[str, bool | None] = {}
        for shard, own_keys in self._by_shard(swaps).items():
            leased |= shard._lease_many({storage_key: swaps[storage_key] for storage_key in own_keys})
        return leased

    async def _alease_many(self, swaps: Mapping[str, Swap]) -> dict[str, bool | None]:
        return await self._run(self._lease_many, swaps)

    def _swap_many(self, swaps: Mapping[str, Swap]) -> dict[str, bool]:
        swapped: dict[str, bool] = {}
        for shard, own_keys in self._by_shard(swaps).items():
            swapped |= shard._swap_many({storage_key: swaps[storage_key] for storage_key in own_keys})
        return swapped

    def _compare_delete(self, storage_key: str, expected: Any) -> bool:
        return self._shard_of(storage_key)._compare_delete(storage_key, expected)

    def _compare_set(self, storage_key: str, expected: Any, value: Any, expires_at: float) -> bool:
        return self._shard_of(storage_key)._compare_set(storage_key, expected, value, expires_at)

    def _invalidate(self, storage_keys: Sequence[str]) -> int:
        return sum(shard._invalidate(own_keys) for shard, own_keys in self._by_shard(storage_keys).items())

    async def _ainvalidate(self, storage_keys: Sequence[str]) -> int:
        return await self._run(self._invalidate, storage_keys)

    def _clear(self) -> None:
        errors = []
        for shard in self._shards:
            try:
                shard._clear()
            except StorageError as error:
                errors.append(error)
        if errors:
            raise StorageError(" ".join(map(str, errors))) from errors[0]

    async def _run(self, hook: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a hook in one of this cache's threads: a driver waits with its whole thread."""
        import asyncio  # noqa: PLC0415 -- a synchronous program need not load it

        call = partial(contextvars.copy_context().run, hook, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._group.executor(), call)


class PyMemcacheCache(MemcachedCache):
    """A cache in Memcached, by pymemcache: pure Python, and TLS where the server speaks it. See MemcachedCache."""

    options: ClassVar[Mapping[str, config.Option] | None] = known.PYMEMCACHE
    requires: ClassVar[tuple[str, ...]] = ("pymemcache",)

    def _client_maker(self, address: Address, options: Mapping[str, Any]) -> Callable[[], Client]:
        from storeroom.backends.memcached.pymemcache_client import PyMemcacheClient  # noqa: PLC0415

        return partial(
            PyMemcacheClient,
            address.path or (address.host, address.port),
            connect_timeout=options["socket_connect_timeout"],
            timeout=options["socket_timeout"],
            tls_context=options["tls_context"],
            socket_keepalive=options["socket_keepalive"],
        )

    def _outages(self) -> tuple[type[BaseException], ...]:
        from storeroom.backends.memcached.pymemcache_client import OUTAGES  # noqa: PLC0415

        return OUTAGES


class PyLibMCCache(MemcachedCache):
    """A cache in Memcached, by pylibmc: libmemcached in C, the faster of the two. See MemcachedCache."""

    options: ClassVar[Mapping[str, config.Option] | None] = known.PYLIBMC
    requires: ClassVar[tuple[str, ...]] = ("pylibmc",)

    def __init__(self, location: str | Sequence[str], params: Mapping[str, Any]) -> None:
        super().__init__(location, params)
        options = self.settings.options
        if (options["username"] or options["password"]) and not options["binary"]:
            raise ConfigurationError(
                "OPTIONS['username'] and OPTIONS['password'] are for SASL, which needs OPTIONS['binary'] True."
            )

    def _client_maker(self, address: Address, options: Mapping[str, Any]) -> Callable[[], Client]:
        from storeroom.backends.memcached.pylibmc_client import PyLibMCClient  # noqa: PLC0415

        return partial(
            PyLibMCClient,
            address.path or str(address),
            connect_timeout=options["socket_connect_timeout"],
            timeout=options["socket_timeout"],
            binary=options["binary"],
            username=options["username"],
            password=options["password"],
            behaviors=options["behaviors"],
        )

    def _outages(self) -> tuple[type[BaseException], ...]:
        from storeroom.backends.memcached.pylibmc_client import OUTAGES  # noqa: PLC0415

        return OUTAGES
