"""A cache in Redis or Valkey: one server, a primary with replicas, Sentinel, or a cluster.

LOCATION says which (see location.py). Every operation is one round trip, or one for each
server that it concerns; what Redis has no command for is done by scripts within the server.
"""

import dataclasses
import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from storeroom import config
from storeroom.backends.redis import location as locations
from storeroom.backends.redis import options as known
from storeroom.backends.redis.foreign import ForeignReader
from storeroom.backends.redis.requests import Steps
from storeroom.engines import shared
from storeroom.network import NetworkCache
from storeroom.secret import secret_of
from storeroom.serializers import build_codec
from storeroom.timeouts import DEFAULT_TIMEOUT, Timeout

if TYPE_CHECKING:
    from storeroom.near.channel import Channel
    from storeroom.probes import Endpoint, Probe

__all__ = ["RedisCache"]

T = TypeVar("T")


class RedisCache(NetworkCache):
    """A cache in Redis or Valkey.

    Atomic among threads, processes and hosts: every operation on one key; of those on several,
    each key by itself. In a cluster, incr_version() is not.

    Args:
        location: a URL, or several: see location.py.
        params: the alias's settings.

    Raises:
        ConfigurationError: a setting is wrong.
    """

    options: ClassVar[Mapping[str, config.Option] | None] = known.OPTIONS
    requires: ClassVar[tuple[str, ...]] = ("redis", "hiredis")
    sees_envelopes = True

    def __init__(self, location: str | Sequence[str], params: Mapping[str, Any]) -> None:
        """Note where the cache is; connections are made on first use."""
        super().__init__(params)
        # The driver takes longer to load than all of Storeroom: not before a cache is made.
        from storeroom.backends.redis.engine import RedisEngine  # noqa: PLC0415
        from storeroom.backends.redis.errors import OUTAGES  # noqa: PLC0415
        from storeroom.backends.redis.operations import Operations  # noqa: PLC0415

        options = known.settled(self.settings) | {"secret": secret_of(self.settings)}
        self.settings = dataclasses.replace(self.settings, options=options)
        target = locations.parse(location, options)
        own_writes, sentinel_options = options["read_own_writes"], options["sentinel_kwargs"] or {}
        self._outage_errors = OUTAGES
        self._engine: RedisEngine = shared(
            RedisEngine,
            _identity(target, own_writes, sentinel_options),
            lambda: RedisEngine(target, own_writes, sentinel_options),
        )
        self._counters = self._engine.counters
        self._flights = self._engine.flights
        codec = build_codec(
            trusted=False,
            allowed_types=options["allowed_types"],
            **{name: options[name] for name in config.CODEC_OPTIONS},
        )
        self._codec = ForeignReader(codec) if options["read_unsigned_pickles"] else codec
        self._operations = Operations(
            self._codec,
            self._counters,
            is_cluster=target.kind == "cluster",
            is_bound=options["secret"] is not None,
            raises=options["on_error"] == "raise",
        )

    @classmethod
    def check_location(cls, location: str | Sequence[str], settings: config.Settings) -> None:
        """Find out, without connecting, whether LOCATION and OPTIONS make sense together.

        Raises:
            ConfigurationError: they do not.
        """
        locations.parse(location, known.settled(settings))

    @classmethod
    def endpoints(cls, location: str | Sequence[str], settings: config.Settings) -> "Sequence[Endpoint]":
        """See Probed."""
        from storeroom.backends.redis.probe import endpoints  # noqa: PLC0415 -- few programs need it

        return endpoints(locations.parse(location, known.settled(settings)))

    def probe(self, seconds: float) -> "Probe":
        """See Probed."""
        from storeroom.backends.redis.probe import probe  # noqa: PLC0415 -- as above

        return probe(self._engine, seconds)

    # Hooks, as StorageHooks describes them; operations.py tells what each costs ---------------

    def _get(self, storage_key: str) -> Any:
        return self._engine.run(self._operations.get(storage_key))

    async def _aget(self, storage_key: str) -> Any:
        return await self._engine.arun(self._operations.get(storage_key))

    def _get_many(self, storage_keys: Sequence[str]) -> dict[str, Any]:
        return self._engine.run(self._operations.get_many(storage_keys))

    async def _aget_many(self, storage_keys: Sequence[str]) -> dict[str, Any]:
        return await self._engine.arun(self._operations.get_many(storage_keys))

    def _get_dated(self, storage_keys: Sequence[str]) -> dict[str, tuple[Any, float | None]]:
        return self._engine.run(self._operations.get_dated(storage_keys))

    async def _aget_dated(self, storage_keys: Sequence[str]) -> dict[str, tuple[Any, float | None]]:
        return await self._engine.arun(self._operations.get_dated(storage_keys))

    def _channel(self) -> "Channel":
        return self._engine.tracker()

    def _set(self, storage_key: str, value: Any, expires_at: float) -> bool:
        return self._engine.run(self._operations.set(storage_key, value, expires_at))

    async def _aset(self, storage_key: str, value: Any, expires_at: float) -> bool:
        return await self._engine.arun(self._operations.set(storage_key, value, expires_at))

    def _set_many(self, values: Mapping[str, Any], expires_at: float) -> Sequence[str]:
        return self._engine.run(self._operations.set_many(values, expires_at))

    async def _aset_many(self, values: Mapping[str, Any], expires_at: float) -> Sequence[str]:
        return await self._engine.arun(self._operations.set_many(values, expires_at))

    def _add(self, storage_key: str, value: Any, expires_at: float) -> Any:
        return self._engine.run(self._operations.add(storage_key, value, expires_at))

    async def _aadd(self, storage_key: str, value: Any, expires_at: float) -> Any:
        return await self._engine.arun(self._operations.add(storage_key, value, expires_at))

    def _delete(self, storage_key: str) -> bool:
        return self._engine.run(self._operations.delete_many([storage_key])) > 0

    async def _adelete(self, storage_key: str) -> bool:
        return await self._engine.arun(self._operations.delete_many([storage_key])) > 0

    def _delete_many(self, storage_keys: Sequence[str]) -> int:
        return self._engine.run(self._operations.delete_many(storage_keys))

    async def _adelete_many(self, storage_keys: Sequence[str]) -> int:
        return await self._engine.arun(self._operations.delete_many(storage_keys))

    def _touch(self, storage_key: str, expires_at: float) -> Any:
        return self._engine.run(self._operations.touch(storage_key, expires_at))

    async def _atouch(self, storage_key: str, expires_at: float) -> Any:
        return await self._engine.arun(self._operations.touch(storage_key, expires_at))

    def _incr(self, storage_key: str, delta: float) -> float:
        return self._engine.run(self._operations.incr(storage_key, delta))

    async def _aincr(self, storage_key: str, delta: float) -> float:
        return await self._engine.arun(self._operations.incr(storage_key, delta))

    def _expiry(self, storage_key: str) -> Any:
        return self._engine.run(self._operations.expiry(storage_key))

    async def _aexpiry(self, storage_key: str) -> Any:
        return await self._engine.arun(self._operations.expiry(storage_key))

    def _has(self, storage_key: str) -> Any:
        return self._engine.run(self._operations.has(storage_key))

    async def _ahas(self, storage_key: str) -> Any:
        return await self._engine.arun(self._operations.has(storage_key))

    def _rename(self, storage_key: str, new_storage_key: str) -> Any:
        return self._engine.run(self._operations.rename(storage_key, new_storage_key))

    async def _arename(self, storage_key: str, new_storage_key: str) -> Any:
        return await self._engine.arun(self._operations.rename(storage_key, new_storage_key))

    def _compare_delete(self, storage_key: str, expected: Any) -> bool:
        return self._engine.run(self._operations.compare_delete(storage_key, expected))

    async def _acompare_delete(self, storage_key: str, expected: Any) -> bool:
        return await self._engine.arun(self._operations.compare_delete(storage_key, expected))

    def _compare_set(self, storage_key: str, expected: Any, value: Any, expires_at: float) -> bool:
        return self._engine.run(self._operations.compare_set(storage_key, expected, value, expires_at))

    async def _acompare_set(self, storage_key: str, expected: Any, value: Any, expires_at: float) -> bool:
        return await self._engine.arun(self._operations.compare_set(storage_key, expected, value, expires_at))

    def _scan(self, start: str) -> Iterator[str]:
        return iter(self._engine.run(self._operations.scan(start)))

    async def _ascan(self, start: str) -> list[str]:
        return await self._engine.arun(self._operations.scan(start))

    def _clear(self) -> None:
        self._engine.run(self._operations.clear(self._key_space.start(), self._key_space.owns))

    async def _aclear(self) -> None:
        await self._engine.arun(self._operations.clear(self._key_space.start(), self._key_space.owns))

    # What django-redis adds -------------------------------------------------------------------

    def set(  # type: ignore[override]  # Django's returns nothing, and so does this without nx
        self,
        key: object,
        value: Any,
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        tags: Iterable[object] = (),
        nx: bool = False,
    ) -> bool | None:
        """Store the value: see BaseCache.set(). With `nx`, do as add(), and return what it returns.

        Raises:
            TypeError: there are `tags`, and `nx`.
        """
        if nx:
            _refuse_tags(tags)
            return self.add(key, value, timeout, version)
        super().set(key, value, timeout, version, tags=tags)
        return None

    async def aset(  # type: ignore[override]  # as above
        self,
        key: object,
        value: Any,
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        tags: Iterable[object] = (),
        nx: bool = False,
    ) -> bool | None:
        """See set()."""
        if nx:
            _refuse_tags(tags)
            return await self.aadd(key, value, timeout, version)
        await super().aset(key, value, timeout, version, tags=tags)
        return None

    def pttl(self, key: object, version: int | None = None) -> int | None:
        """Return the milliseconds left to the entry: None if it never expires, 0 if it is not there."""
        return _milliseconds(self.ttl(key, version))

    async def apttl(self, key: object, version: int | None = None) -> int | None:
        """See pttl()."""
        return _milliseconds(await self.attl(key, version))

    def expire(self, key: object, timeout: Timeout, version: int | None = None) -> bool:
        """Do as touch()."""
        return self.touch(key, timeout, version)

    async def aexpire(self, key: object, timeout: Timeout, version: int | None = None) -> bool:
        """See expire()."""
        return await self.atouch(key, timeout, version)

    def persist(self, key: object, version: int | None = None) -> bool:
        """Let a live entry never expire. Return False if there is none."""
        return self.touch(key, None, version)

    async def apersist(self, key: object, version: int | None = None) -> bool:
        """See persist()."""
        return await self.atouch(key, None, version)

    def iter_keys(self, search: str, version: int | None = None) -> Iterator[str]:
        """Return the live keys that match a pattern, as callers typed them, in no order.

        Args:
            search: a glob of Redis: ``*``, ``?``, ``[abc]``, and a backslash before what is meant literally.
            version: of the keys.

        Raises:
            NotSupportedError: see keys(), which takes a literal prefix.
            StorageError: the server is out of reach; no policy has an answer to this.
        """
        found = self._reach("iter_keys", self._operations.match(self._listing_head(version), search))
        return iter(self._listed(found, version))

    async def aiter_keys(self, search: str, version: int | None = None) -> AsyncIterator[str]:
        """See iter_keys()."""
        found = await self._areach("iter_keys", self._operations.match(self._listing_head(version), search))
        for key in self._listed(found, version):
            yield key

    def delete_pattern(self, pattern: str, version: int | None = None) -> int:
        """Remove the entries that iter_keys() would list. Return how many there were.

        Raises:
            NotSupportedError: see keys().
            StorageError: the server is out of reach; no policy has an answer to this.
        """
        steps = self._operations.remove(self._listing_head(version), pattern, self._key_space.owns)
        try:
            return self._counted_deletes(self._reach("delete_pattern", steps))
        finally:
            self._forget()

    async def adelete_pattern(self, pattern: str, version: int | None = None) -> int:
        """See delete_pattern()."""
        steps = self._operations.remove(self._listing_head(version), pattern, self._key_space.owns)
        try:
            return self._counted_deletes(await self._areach("delete_pattern", steps))
        finally:
            self._forget()

    def _forget(self) -> None:
        """Tell what stands before the storage that entries have changed."""
        forget = getattr(self._overlay, "forget", None)
        if forget is not None:
            forget()

    # Operations that have no honest answer without a server -----------------------------------

    def _reach(self, name: str, steps: Steps[T]) -> T:
        """Run an operation for which no policy has an answer."""
        breaker = self._engine.breaker
        if not breaker.allows():
            self._raise(name, None)
        try:
            result = self._engine.run(steps)
        except self._outage_errors as error:
            breaker.fail(error)
            self._raise(name, error)
        breaker.succeed()
        return result

    async def _areach(self, name: str, steps: Steps[T]) -> T:
        breaker = self._engine.breaker
        if not breaker.allows():
            self._raise(name, None)
        try:
            result = await self._engine.arun(steps)
        except self._outage_errors as error:
            breaker.fail(error)
            self._raise(name, error)
        breaker.succeed()
        return result


def _refuse_tags(tags: Iterable[object]) -> None:
    if tags:
        raise TypeError("set() takes nx or tags, not both: an entry with tags is stored whether or not there is one.")


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _identity(target: locations.Target, *rest: Any) -> str:
    """Return what two handles that share an engine have in common: passwords too, which no repr shows."""
    logins = [(server.username, server.password) for server in (*target.servers, *target.sentinels)]
    known_by = repr((target, target.options, logins, rest))
    return f"{target.name} {hashlib.blake2b(known_by.encode(), digest_size=16).hexdigest()}"
