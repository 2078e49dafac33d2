"""A cache in Redis or Valkey: one server, a primary with replicas, Sentinel, or a cluster.

LOCATION says which (see location.py). Every operation is one round trip, or one for each
server that it concerns; what Redis has no command for is done by scripts within the server.
"""

import dataclasses
import hashlib
import warnings
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from storeroom import config
from storeroom.backends.network import NetworkCache
from storeroom.backends.redis import location as locations
from storeroom.backends.redis import options as known
from storeroom.backends.redis.foreign import ForeignReader
from storeroom.backends.redis.requests import Steps
from storeroom.engines import shared
from storeroom.exceptions import StoreroomWarning
from storeroom.serializers import build_codec
from storeroom.serializers.secrets import secret_of
from storeroom.storage.hooks import Swap
from storeroom.timeouts import DEFAULT_TIMEOUT, Timeout

if TYPE_CHECKING:
    from storeroom.backends.redis.engine import RedisEngine
    from storeroom.storage.channel import Channel
    from storeroom.storage.probes import Endpoint, Probe

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
    _engine: "RedisEngine"
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
        self.engine = shared(
            RedisEngine,
            _identity(target, own_writes, sentinel_options),
            lambda: RedisEngine(target, own_writes, sentinel_options),
        )
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
            without_room=self._without_room,
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

    def _swap_many(self, swaps: Mapping[str, Swap]) -> dict[str, bool]:
        return self._engine.run(self._operations.swap_many(swaps))

    async def _aswap_many(self, swaps: Mapping[str, Swap]) -> dict[str, bool]:
        return await self._engine.arun(self._operations.swap_many(swaps))

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

    def keys(self, prefix: str = "", version: int | None = None, *, search: str | None = None) -> list[str]:
        """Return the live keys that begin with `prefix`: see BaseCache.keys(). With `search`, those of iter_keys().

        Warns:
            StoreroomWarning: `prefix`, in which nothing is special, looks like a pattern, and no key begins so.
        """
        if search is not None:
            return list(self.iter_keys(search, version))
        return _noticed(prefix, super().keys(prefix, version))

    async def akeys(self, prefix: str = "", version: int | None = None, *, search: str | None = None) -> list[str]:
        """See keys()."""
        if search is not None:
            return [key async for key in self.aiter_keys(search, version)]
        return _noticed(prefix, await super().akeys(prefix, version))

    def iter_keys(self, search: str, version: int | None = None, *, itersize: int | None = None) -> Iterator[str]:
        """Return the live keys that match a pattern, as callers typed them, in no order.

        Args:
            search: a glob of Redis: ``*``, ``?``, ``[abc]``, and a backslash before what is meant literally.
            version: of the keys.
            itersize: how many keys the server looks at in one step; None for 1000.

        Raises:
            NotSupportedError: see keys(), which takes a literal prefix.
            StorageError: the server is out of reach; no policy has an answer to this.
        """
        steps = self._operations.match(self._listing_head(version), search, _step(itersize))
        return iter(self._listed(self._only_live(self._reach("iter_keys", steps)), version))

    async def aiter_keys(
        self, search: str, version: int | None = None, *, itersize: int | None = None
    ) -> AsyncIterator[str]:
        """See iter_keys()."""
        steps = self._operations.match(self._listing_head(version), search, _step(itersize))
        for key in self._listed(await self._aonly_live(await self._areach("iter_keys", steps)), version):
            yield key

    def delete_pattern(self, pattern: str, version: int | None = None, *, itersize: int | None = None) -> int:
        """Remove the entries whose keys iter_keys() would find. Return how many, those that were over included.

        Raises:
            NotSupportedError: see keys().
            StorageError: the server is out of reach; no policy has an answer to this.
        """
        try:
            return self._counted_deletes(self._reach("delete_pattern", self._removal(pattern, version, itersize)))
        finally:
            self._forget()

    async def adelete_pattern(self, pattern: str, version: int | None = None, *, itersize: int | None = None) -> int:
        """See delete_pattern()."""
        steps = self._removal(pattern, version, itersize)
        try:
            return self._counted_deletes(await self._areach("delete_pattern", steps))
        finally:
            self._forget()

    def _removal(self, pattern: str, version: int | None, itersize: int | None) -> Steps[int]:
        return self._operations.remove(self._listing_head(version), pattern, self._key_space.owns, _step(itersize))

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


def _step(itersize: int | None) -> int:
    """Return how many keys a SCAN looks at."""
    if itersize is None:
        from storeroom.backends.redis.operations import SCAN_COUNT  # noqa: PLC0415 -- loads the driver

        return SCAN_COUNT
    if isinstance(itersize, bool) or not isinstance(itersize, int) or itersize < 1:
        raise ValueError(f"itersize is {itersize!r}; expected a whole number, at least 1, or None for 1000.")
    return itersize


def _noticed(prefix: str, found: list[str]) -> list[str]:
    """Warn whoever has moved from django-redis, whose keys() takes a pattern; return what was found."""
    if not found and any(special in prefix for special in "*?["):
        warnings.warn(
            f"keys({prefix!r}) found nothing: it takes a prefix, in which nothing is special. For a pattern, "
            f"call keys(search={prefix!r}) or iter_keys({prefix!r}).",
            StoreroomWarning,
            stacklevel=3,
        )
    return found


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _identity(target: locations.Target, *rest: Any) -> str:
    """Return what two handles that share an engine have in common: passwords too, which no repr shows."""
    logins = [(server.username, server.password) for server in (*target.servers, *target.sentinels)]
    known_by = repr((target, target.options, logins, rest))
    return f"{target.name} {hashlib.blake2b(known_by.encode(), digest_size=16).hexdigest()}"
