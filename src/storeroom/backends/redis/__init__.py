"""A cache in Redis or Valkey: one server, a primary with replicas, Sentinel, or a cluster.

An operation is one round trip, or one for each server that it concerns. Where Redis has no command, a script runs
within the server.
"""

import dataclasses
import hashlib
import shlex
import warnings
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from storeroom import config
from storeroom.backends.base import codec_of
from storeroom.backends.network import NetworkCache, carried
from storeroom.backends.parts import PartialError
from storeroom.backends.redis import location as locations
from storeroom.backends.redis import options as known
from storeroom.backends.redis.foreign import ForeignReader
from storeroom.engines import shared
from storeroom.exceptions import StorageError, StoreroomWarning
from storeroom.serializers.secrets import secret_of
from storeroom.storage.steps import Steps, arun, run
from storeroom.timeouts import DEFAULT_TIMEOUT, Timeout

if TYPE_CHECKING:
    from storeroom.backends.redis.engine import RedisEngine
    from storeroom.backends.redis.rights import Rights
    from storeroom.storage.channel import Channel
    from storeroom.storage.probes import Endpoint, Probe

__all__ = ["RedisCache"]


class RedisCache(NetworkCache):
    """A cache in Redis or Valkey.

    Atomic among threads, processes and hosts: every operation on one key, and each key by itself
    in operations on several. In a cluster, incr_version() is not.

    Args:
        location: a URL, or several: see docs/backends/redis.md.
        params: the alias's settings.

    Raises:
        ConfigurationError: a setting is wrong.
    """

    options: ClassVar[Mapping[str, config.Option] | None] = known.OPTIONS
    requires: ClassVar[tuple[str, ...]] = ("redis", "hiredis")
    _engine: "RedisEngine"
    sees_envelopes = True

    def __init__(self, location: str | Sequence[str], params: Mapping[str, Any]) -> None:
        """Find the cache; connections are made on first use."""
        super().__init__(params)
        from storeroom.backends.redis import engine, former, operations, requests, rights  # noqa: PLC0415 -- loads the driver

        options = known.settled(self.settings) | {"secret": secret_of(self.settings)}
        self.settings = dataclasses.replace(self.settings, options=options)
        target = locations.parse(location, options)
        replication = options["read_own_writes"], options["replica_max_lag"]
        terms = target, replication, options["sentinel_kwargs"] or {}
        self._requests, self._outage_errors = requests, (*requests.OUTAGES, PartialError)
        self.engine = shared(engine.RedisEngine, _identity(*terms), lambda: engine.RedisEngine(*terms))
        self._dropped = self._engine.dropped
        self._rights = partial(rights.Rights, target, options)
        self._codec = self._make_codec()
        # In a cluster the two names lie on two servers: the first writers with a tag might not agree on its version.
        has_former = target.kind != "cluster" if options["former_names"] is None else options["former_names"]
        kind = former.BothNames if has_former else operations.Operations
        self._operations = kind(
            self._codec,
            self._counters,
            is_cluster=target.kind == "cluster",
            is_bound=options["secret"] is not None,
            without_room=self._without_room,
        )
        if target.servers[0].username or options["credential_provider"] is not None:
            self._engine.first_look.add(self._needed(), self.settings.alias)

    def _make_codec(self) -> Any:
        codec = codec_of(self.settings)
        return ForeignReader(codec) if self.settings.options["read_unsigned_pickles"] else codec

    @classmethod
    def check_location(cls, location: str | Sequence[str], settings: config.Settings) -> None:
        """Raise ConfigurationError unless LOCATION and OPTIONS make sense together; nothing is connected to."""
        locations.parse(location, known.settled(settings))

    @classmethod
    def endpoints(cls, location: str | Sequence[str], settings: config.Settings) -> "Sequence[Endpoint]":
        """Return the servers that LOCATION and the settings name; nothing is connected to."""
        return locations.parse(location, known.settled(settings)).endpoints()

    def probe(self, seconds: float) -> "Probe":
        """Ask each server once how it is; one that takes longer than so many seconds has failed."""
        from storeroom.backends.redis.probe import probe  # noqa: PLC0415 -- loads the driver

        return probe(self._engine, self._needed(), seconds)

    def _needed(self) -> "Rights":
        # Keys that depend on the moment may begin with anything.
        return self._rights("" if self._fixed_space is None else self._fixed_space.start())

    def _name(self, error: Exception) -> None:
        super()._name(error)
        text, rights = str(error), self._requests.RIGHTS
        if isinstance(error, StorageError) and rights in text:
            needed = shlex.join(self._needed().least())
            error.args = (f"{text.replace(f' {rights}', '')} All that this cache needs: {needed}",)
        elif isinstance(error, StorageError) and self._requests.is_of_cluster(error):
            error.args = (f"{text}{self._engine.target.cluster_remedy()}",)

    def _is_broken(self, error: Exception) -> bool:
        return self._requests.is_broken(error)

    def _driver_errors(self, error: BaseException | None) -> tuple[type[Exception], ...]:
        return self._requests.classes_of(error)

    def _remedy(self, error: BaseException) -> str:
        of_cluster = self._requests.is_of_cluster(error) and self._engine.target.cluster_remedy().strip()
        return of_cluster or self._requests.remedy(error)

    # Hooks, as StorageHooks describes them; operations.py tells the cost of each --------------

    _get, _aget = carried("get")
    _get_many, _aget_many = carried("get_many")
    _get_dated, _aget_dated = carried("get_dated")
    _set, _aset = carried("set")
    _set_many, _aset_many = carried("set_many")
    _add, _aadd = carried("add")
    _delete, _adelete = carried("delete")
    _delete_many, _adelete_many = carried("delete_many")
    _touch, _atouch = carried("touch")
    _incr, _aincr = carried("incr")
    _expiry, _aexpiry = carried("expiry")
    _has, _ahas = carried("has")
    _rename, _arename = carried("rename")
    _compare_delete, _acompare_delete = carried("compare_delete")
    _compare_set, _acompare_set = carried("compare_set")
    _swap_many, _aswap_many = carried("swap_many")
    _scan, _ascan = carried("scan")
    _match, _amatch = carried("match")
    _remove, _aremove = carried("remove")

    def _clear(self) -> None:
        space = self._key_space
        self._engine.run(self._operations.clear(space.start(), space.owns))

    async def _aclear(self) -> None:
        space = self._key_space
        await self._engine.arun(self._operations.clear(space.start(), space.owns))

    def _sight(self, storage_key: str) -> Any:
        return self._engine.run(self._looking_at(storage_key))

    async def _asight(self, storage_key: str) -> Any:
        return await self._engine.arun(self._looking_at(storage_key))

    def _looking_at(self, storage_key: str) -> Any:
        return import_module("storeroom.backends.redis.sight").sight(self._operations, storage_key)

    def _channel(self) -> "Channel":
        return self._engine.tracker()

    # Additions of django-redis ------------------------------------------------------------------

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
        """Store the value, if its conditions hold. See set()."""
        if nx:
            _refuse_tags(tags)
            return await self.aadd(key, value, timeout, version)
        await super().aset(key, value, timeout, version, tags=tags)
        return None

    def pttl(self, key: object, version: int | None = None) -> int | None:
        """Return the milliseconds left to the entry: None if it never expires, 0 if it is not there."""
        return _milliseconds(self.ttl(key, version))

    async def apttl(self, key: object, version: int | None = None) -> int | None:
        """Return the milliseconds left to the entry: None if it never expires, 0 if it is not there. See pttl()."""
        return _milliseconds(await self.attl(key, version))

    def expire(self, key: object, timeout: Timeout, version: int | None = None) -> bool:
        """Give a live entry a new timeout, in seconds or words, under redis-py's name. See touch()."""
        return self.touch(key, timeout, version)

    async def aexpire(self, key: object, timeout: Timeout, version: int | None = None) -> bool:
        """Give a live entry a new timeout, in seconds or words, under redis-py's name. See touch()."""
        return await self.atouch(key, timeout, version)

    def persist(self, key: object, version: int | None = None) -> bool:
        """Let a live entry never expire. Return False if there is none."""
        return self.touch(key, None, version)

    async def apersist(self, key: object, version: int | None = None) -> bool:
        """Let a live entry never expire. Return False if there is none. See persist()."""
        return await self.atouch(key, None, version)

    def keys(self, prefix: str = "", version: int | None = None, *, search: str | None = None) -> list[str]:
        """Return the live keys that begin with `prefix`: see BaseCache.keys(). With `search`, those of iter_keys().

        Warns:
            StoreroomWarning: `prefix`, in which nothing is special, looks like a pattern, and no key begins so.
        """
        if search is not None:
            return run(self._matching(search, version))
        return _noticed(prefix, super().keys(prefix, version))

    async def akeys(self, prefix: str = "", version: int | None = None, *, search: str | None = None) -> list[str]:
        """Return the live keys that begin with `prefix`, or match a pattern. See keys()."""
        if search is not None:
            return await arun(self._matching(search, version))
        return _noticed(prefix, await super().akeys(prefix, version))

    def _clock(self, storage_key: str) -> None:
        """Return None: the server ends what is there, by its own clock."""

    def iter_keys(self, search: str, version: int | None = None, *, itersize: int | None = None) -> Iterator[str]:
        """Return the live keys that match a pattern, as callers typed them, in no order.

        Args:
            search: a glob of Redis: ``*``, ``?``, ``[abc]``, and a backslash before what is meant literally.
            version: of the keys.
            itersize: keys that the server looks at in one step; None for 1000.

        Raises:
            NotSupportedError: see keys(), which takes a literal prefix.
            StorageError: the server is out of reach, and the policy has no answer to this.
        """
        return iter(run(self._matching(search, version, itersize)))

    async def aiter_keys(
        self, search: str, version: int | None = None, *, itersize: int | None = None
    ) -> AsyncIterator[str]:
        """Return the live keys that match a pattern, as callers typed them, in no order. See iter_keys()."""
        for key in await arun(self._matching(search, version, itersize)):
            yield key

    def _matching(self, search: str, version: int | None, itersize: int | None = None) -> Steps[list[str]]:
        space, step = self._listing_space(version), _step(itersize)
        version = self._version if version is None else version
        found = yield self, "_match", (space.head(version), search, step)
        keys = list[str]()
        yield from self._listed(found, space, version, keys.extend)
        return keys

    def delete_pattern(self, pattern: str, version: int | None = None, *, itersize: int | None = None) -> int:
        """Remove the entries whose keys iter_keys() would find. Return how many, expired ones included.

        Raises:
            NotSupportedError: see keys().
            StorageError: the server is out of reach, and the policy has no answer to this.
        """
        return run(self._removing(pattern, version, itersize))

    async def adelete_pattern(self, pattern: str, version: int | None = None, *, itersize: int | None = None) -> int:
        """Remove the entries whose keys iter_keys() would find. See delete_pattern()."""
        return await arun(self._removing(pattern, version, itersize))

    def _removing(self, pattern: str, version: int | None, itersize: int | None) -> Steps[int]:
        space = self._listing_space(version)
        version = self._version if version is None else version

        def is_listed(storage_key: str) -> bool:
            return space.caller_key(storage_key, version) is not None

        terms = space.head(version), pattern, is_listed, _step(itersize)
        try:
            return self._counted_deletes((yield self, "_remove", terms))
        finally:
            if forget := getattr(self._overlay, "forget", None):
                forget()


def _refuse_tags(tags: Iterable[object]) -> None:
    if tags:
        raise TypeError("set() takes nx or tags, not both: an entry with tags is stored whether or not there is one.")


def _step(itersize: int | None) -> int | None:
    if itersize is not None and (isinstance(itersize, bool) or not isinstance(itersize, int) or itersize < 1):
        raise ValueError(f"itersize is {itersize!r}; expected a whole number, at least 1, or None for 1000.")
    return itersize


def _noticed(prefix: str, found: list[str]) -> list[str]:
    """Return the keys. Warn a caller that has moved from django-redis, whose keys() takes a pattern."""
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
    """Return the identity of an engine: the target, and the passwords, which no repr shows."""
    logins = [(server.username, server.password) for server in (*target.servers, *target.sentinels)]
    known_by = repr((target, target.options, logins, rest))
    return f"{target.name} {hashlib.blake2b(known_by.encode(), digest_size=16).hexdigest()}"
