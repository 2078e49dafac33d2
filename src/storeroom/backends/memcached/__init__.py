"""A cache in Memcached: one server, or several that share the keys.

LOCATION names them (location.py). Memcached stores bytes under short keys, expires them by whole seconds, counts
unsigned numbers and clears everything at once. The rest of a cache is made of compare-and-swap (shard.py), a header
before each value (entries.py) and generations in the keys (server_keys.py). The drivers are synchronous: asynchronous
callers are served by threads.
"""

import contextvars
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final, ParamSpec, TypeVar

from storeroom import config
from storeroom.backends.base import codec_of
from storeroom.backends.fallbacks import check_fallback
from storeroom.backends.in_turn import in_turn
from storeroom.backends.memcached import location as locations
from storeroom.backends.memcached import options as known
from storeroom.backends.memcached import probe as probes
from storeroom.backends.memcached.clients import Driver
from storeroom.backends.memcached.engine import Group, Server
from storeroom.backends.memcached.shard import Shard
from storeroom.backends.network import busy_answer
from storeroom.backends.strangers import MEMCACHED, TLS
from storeroom.base import BaseCache
from storeroom.engines import shared
from storeroom.exceptions import ConfigurationError, NotSupportedError, StorageError
from storeroom.storage.hooks import StorageHooks, twin_of
from storeroom.storage.probes import Endpoint, Probe
from storeroom.wording import mask_url

__all__ = ["MemcachedCache", "PyLibMCCache", "PyMemcacheCache"]

P = ParamSpec("P")
T = TypeVar("T")


_WRITES: Final = ("_set", "_add", "_delete", "_compare_set")
"""Hooks after which the entry of a server that is down is an old one, where another has taken its place."""


def _passed(name: str) -> Callable[..., Any]:
    """Return a hook that passes a call for one key to its shard."""

    def hook(self: "MemcachedCache", storage_key: str, *args: Any) -> Any:
        if self._guests and name in _WRITES:
            return self._write(name, storage_key, *args)
        shard = self._only or self._shard_of(storage_key)
        return getattr(shard, name)(storage_key, *args)

    hook.__name__ = name
    return hook


def _merged(name: str) -> Callable[..., Any]:
    """Return a hook that merges the answers of its keys' shards."""

    def hook(self: "MemcachedCache", keyed: Any) -> Any:
        answers: dict[str, Any] = {}
        for shard, part in self._writing(keyed) if name == "_swap_many" else self._parts(keyed):
            answers |= getattr(shard, name)(part)
        return answers

    hook.__name__ = name
    return hook


class MemcachedCache(BaseCache):
    """Base of the two drivers' caches: each key is passed to the shard of its server.

    Atomic among threads, processes and hosts: every operation on one key, and each key by itself in operations on
    several; but during incr_version() others may see neither version for a moment.

    An outage concerns the keys of the servers that are out of reach, and no others.

    Raises:
        ConfigurationError: a setting is wrong.
    """

    sees_envelopes = True
    clears_by_prefix = True
    _shards: Sequence[Shard] = ()
    _only: Shard | None = None
    """The shard, where there is but one."""
    _guests: Sequence[Shard] = ()
    """Shards for the entries that each server keeps for others that are down."""

    def __init__(self, location: str | Sequence[str], params: Mapping[str, Any]) -> None:
        super().__init__(params)
        check_fallback(self.settings.options)
        options = known.settled(self.settings)
        self.settings = dataclasses.replace(self.settings, options=options)
        self._codec = codec_of(self.settings)
        self._addresses = locations.parse(location)
        self.engine = self._group = self._shared_group(options)
        self._shards = self._shards_for(longest=None)
        self._only = self._shards[0] if len(self._shards) == 1 else None
        if options["eject"] is not None and self._only is None:
            self._guests = self._shards_for(longest=options["eject"])
        self._note_sample()

    def _shards_for(self, longest: float | None) -> list[Shard]:
        driver = self._driver()
        return [Shard(server, self, driver, self._shard_of, longest) for server in self._group.servers]

    @classmethod
    def check_location(cls, location: str | Sequence[str], settings: config.Settings) -> None:
        """Raise ConfigurationError unless LOCATION makes sense; nothing is connected to."""
        locations.parse(location)

    @classmethod
    def endpoints(cls, location: str | Sequence[str], settings: config.Settings) -> Sequence[Endpoint]:
        """Return the servers that LOCATION and the settings name; nothing is connected to."""
        return probes.endpoints(locations.parse(location), settings.options)

    def probe(self, seconds: float) -> Probe:
        """Ask each server once how it is; one that takes longer than so many seconds has failed."""
        found = probes.endpoints(self._addresses, self.settings.options)
        return probes.probe(self._group.servers, found, self._driver().OUTAGES, seconds)

    def _driver(self) -> Driver:
        """Return the module of this class's driver."""
        raise NotImplementedError

    def _shared_group(self, options: Mapping[str, Any]) -> Group:
        chosen = [(name, options[name]) for name in sorted(self.options or ()) if name not in config.CODEC_OPTIONS]
        own = repr((type(self).__qualname__, chosen))
        bounds, new_client = (options["max_connections"], options["pool_timeout"]), self._driver().new_client
        engines = {
            str(address): partial(
                Server, f"Memcached at {mask_url(str(address))}", partial(new_client, address, options), *bounds
            )
            for address in self._addresses
        }
        names = tuple(engines)
        servers = tuple(shared(Server, f"{name} {own}", engine) for name, engine in engines.items())
        protocol = TLS if options.get("tls_context") is not None else MEMCACHED
        for server, address in zip(servers, self._addresses, strict=True):
            server.spoken = protocol, address.host, address.port
        return shared(Group, f"{names} {own}", partial(Group, names, servers))

    def _learn_keys(self) -> None:
        super()._learn_keys()
        for shard in (*self._shards, *self._guests):
            shard.use_prefix(self._key_prefix)

    def _shard_of(self, storage_key: str) -> Shard:
        """Return the shard that keeps the key, or the one that keeps it while its own is down."""
        home = self._home_of(storage_key)
        if self._guests and home._engine.breaker.refuses and not storage_key.startswith("\x00"):
            for number in self._group.owners(storage_key):
                if not self._shards[number]._engine.breaker.is_open:
                    return self._guests[number]
        return home

    def _write(self, name: str, storage_key: str, *args: Any) -> Any:
        """Write at a key's own server, or at the one that stands in for it, also if that shows only now.

        An older value that the other has kept would be read again otherwise.
        """
        shard, answer = self._shard_of(storage_key), False
        if not shard.is_guest:
            try:
                answer = getattr(shard, name)(storage_key, *args)
            except StorageError:
                if not self._shard_of(storage_key).is_guest:
                    raise
            if answer or not (shard := self._shard_of(storage_key)).is_guest:
                return answer
        self._note_moved([storage_key])
        return getattr(shard, name)(storage_key, *args)

    def _moved(self, shard: Shard, storage_keys: Iterable[str]) -> list[str]:
        """Return the keys that this shard, which was to write them, turned out to have given away."""
        return (
            [] if shard.is_guest or not self._guests else [key for key in storage_keys if self._shard_of(key).is_guest]
        )

    def _note_moved(self, storage_keys: Iterable[str]) -> None:
        """Let the entries of servers that are down be removed when they are back: others are written in their place."""
        for storage_key in storage_keys:
            self._home_of(storage_key)._dropped.add([storage_key])

    def _home_of(self, storage_key: str) -> Shard:
        """Return the shard of a key that never moves: a counter, a lock or a tag that moved would begin anew."""
        return self._only or self._shards[self._group.owner(storage_key)]

    def _parts(self, keyed: Any) -> Iterable[tuple[Shard, Any]]:
        """Return each shard, and its part of a sequence of storage keys or of a mapping by them."""
        if self._only is not None:
            return ((self._only, keyed),)
        by_shard: dict[Shard, list[str]] = {}
        for storage_key in keyed:
            by_shard.setdefault(self._shard_of(storage_key), []).append(storage_key)
        if isinstance(keyed, Mapping):
            return [(shard, {key: keyed[key] for key in own_keys}) for shard, own_keys in by_shard.items()]
        return by_shard.items()

    def _writing(self, keyed: Any) -> Iterable[tuple[Shard, Any]]:
        """Do as _parts(), for keys that are going to be written."""
        for shard, part in self._parts(keyed):
            if shard.is_guest:
                self._note_moved(part)
            yield shard, part

    def _get(self, storage_key: str) -> Any:
        return (self._only or self._shard_of(storage_key))._get(storage_key)

    def _set(self, storage_key: str, value: Any, expires_at: float) -> bool:
        if self._guests:
            stored: bool = self._write("_set", storage_key, value, expires_at)
            return stored
        return (self._only or self._home_of(storage_key))._set(storage_key, value, expires_at)

    def _dropped_write(self, storage_key: str) -> bool:
        return self._home_of(storage_key)._dropped_write(storage_key)

    def _stand_in(self) -> Any:
        return self._shards[0]._stand_in()

    _sight = _passed("_sight")
    _get_many = _merged("_get_many")
    _get_dated = _merged("_get_dated")
    _add = _passed("_add")
    _delete = _passed("_delete")
    _touch = _passed("_touch")
    _expiry = _passed("_expiry")
    _rename = _passed("_rename")
    _lease = _passed("_lease")
    _clock = _passed("_clock")
    _compare_delete = _passed("_compare_delete")
    _compare_set = _passed("_compare_set")

    _lease_many = _merged("_lease_many")
    _swap_many = _merged("_swap_many")

    def _incr(self, storage_key: str, delta: float) -> float:
        return self._home_of(storage_key)._incr(storage_key, delta)

    def _set_many(self, values: Mapping[str, Any], expires_at: float) -> Sequence[str]:
        failed: list[str] = []
        for shard, part in self._writing(values):
            refused = shard._set_many(part, expires_at)
            moved = {key: values[key] for key in self._moved(shard, refused)}
            failed += [key for key in refused if key not in moved]
            others = self._writing(moved) if moved else ()
            failed += [key for guest, own in others for key in guest._set_many(own, expires_at)]
        return failed

    def _delete_many(self, storage_keys: Sequence[str]) -> int:
        count = 0
        for shard, part in self._writing(storage_keys):
            count += shard._delete_many(part)
            if moved := self._moved(shard, part):
                count += sum(guest._delete_many(own) for guest, own in self._writing(moved))
        return count

    def _invalidate(self, storage_keys: Sequence[str]) -> int:
        return sum(shard._invalidate(part) for shard, part in self._parts(storage_keys))

    def _note_sample(self) -> bool:
        """Note the storage keys of this moment; tell whether they are those of all moments before."""
        if self._fixed_space is not None:
            return True
        seen = self._group.samples.setdefault(f"{self._key_maker} {self._key_prefix}", set())
        if len(seen) <= 1 and (sample := self._key_space.sample):  # a second one tells that they differ
            seen.add(sample)
        return len(seen) <= 1

    def _clear(self) -> None:
        if not self._note_sample():
            raise NotSupportedError(
                f"clear() would remove more than the entries of this moment: {self._key_maker} has made other storage "
                "keys at other moments, and Memcached cannot list any. Give entries that go together a tag, and call "
                "invalidate_tags(); or give each tenant an alias with a KEY_PREFIX of its own."
            )
        errors = []
        for shard in self._shards:
            try:
                shard._clear()
            except StorageError as error:
                errors.append(error)
        if errors:
            raise type(errors[0])(" ".join(map(str, errors))) from errors[0]

    # The defaults ask other hooks, past the shards' own.
    _aclock = twin_of(StorageHooks._clock)
    _alease = twin_of(StorageHooks._lease)
    _alease_many = twin_of(StorageHooks._lease_many)
    _ainvalidate = twin_of(StorageHooks._invalidate)

    async def _run(self, hook: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a hook in one of this cache's threads: a driver waits with its whole thread."""
        call = partial(contextvars.copy_context().run, hook, *args, **kwargs)
        name = getattr(hook, "__name__", "").removeprefix("_")
        too_late = partial(busy_answer, self.settings, self._counters, name, args)
        return await in_turn(self._group.executor.submit(call), self.settings.options["pool_timeout"], too_late)


class PyMemcacheCache(MemcachedCache):
    """A cache in Memcached, by pymemcache: pure Python, and TLS where the server speaks it. See MemcachedCache."""

    options: ClassVar[Mapping[str, config.Option] | None] = known.PYMEMCACHE
    requires: ClassVar[tuple[str, ...]] = ("pymemcache",)

    def _driver(self) -> Driver:
        from storeroom.backends.memcached import pymemcache_client  # noqa: PLC0415 -- loads the driver

        return pymemcache_client


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

    def _driver(self) -> Driver:
        from storeroom.backends.memcached import pylibmc_client  # noqa: PLC0415 -- loads the driver

        return pylibmc_client
