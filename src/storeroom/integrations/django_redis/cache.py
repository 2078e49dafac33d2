"""The class for BACKEND: a cache in Redis with the operations, arguments, results and bytes of django-redis."""

import logging
import pickle
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ClassVar, Final

from django.utils.module_loading import import_string
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from storeroom import config
from storeroom.backends.policies import IGNORED
from storeroom.backends.redis import RedisCache as Entries
from storeroom.backends.redis import options as known
from storeroom.backends.redis.operations import FullError
from storeroom.backends.sessions import is_session
from storeroom.config import Option
from storeroom.exceptions import UnreachableError
from storeroom.integrations.django_redis.client import Client
from storeroom.integrations.django_redis.codec import COMPRESSORS, SERIALIZERS, DjangoRedisCodec, made
from storeroom.integrations.django_redis.keys import reversed_key
from storeroom.integrations.django_redis.site import site_setting
from storeroom.serializers import build_codec
from storeroom.serializers.secrets import secret_of
from storeroom.storage.outages import no_answers

__all__ = ["RedisCache"]

_OLDEST_PROTOCOL: Final = 4
"""Of the pickles that are written, and read without read_unsigned_pickles. Every Python reads it."""

_NOTHING: Final = object()
_IGNORED: Final = RedisConnectionError, RedisTimeoutError, UnreachableError, FullError


def _protocol(value: Any) -> int:
    try:
        version = int(value)
    except (TypeError, ValueError):
        raise ValueError("the number of a pickle protocol") from None
    if not -1 <= version <= pickle.HIGHEST_PROTOCOL:
        raise ValueError(f"a pickle protocol from 0 to {pickle.HIGHEST_PROTOCOL}, or -1 for the highest")
    return pickle.HIGHEST_PROTOCOL if version == -1 else max(version, _OLDEST_PROTOCOL)


def _with_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options, with those that Django's settings give to all of django-redis's caches."""
    spelt, found = {name.lower() for name in options}, dict(options)
    if not spelt & {"ignore_exceptions", "on_error"}:
        found["IGNORE_EXCEPTIONS"] = bool(site_setting("IGNORE_EXCEPTIONS", default=False))
    factory = site_setting("CONNECTION_FACTORY", None)
    if factory is not None and "connection_factory" not in spelt:
        found["CONNECTION_FACTORY"] = factory
    return found


def _like(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that lets a method show the arguments of the client's."""
    return wraps(getattr(Client, name))


def _forwarded(name: str, answer: Callable[[], Any] = lambda: None) -> Any:
    """Return a method that is the client's; under IGNORE_EXCEPTIONS it returns ``answer()`` where that fails."""
    operation = getattr(Client, name)

    @wraps(operation)
    def forwarded(self: "RedisCache", *args: Any, **kwargs: Any) -> Any:
        if not self._ignore_exceptions:
            return getattr(self.client, name)(*args, **kwargs)
        try:
            with no_answers():
                return getattr(self.client, name)(*args, **kwargs)
        except _IGNORED:
            if self._log_ignored_exceptions:
                self.logger.exception("Exception ignored")
            return answer()

    return forwarded


class RedisCache(Entries):
    """A cache in Redis, as django-redis's users know it.

    Args:
        location: a URL, or several: see docs/backends/redis.md.
        params: the alias's settings, as for django-redis. Those of Storeroom's Redis cache may stand in OPTIONS, too.

    Raises:
        ConfigurationError: a setting is wrong, or has no equal here, as ShardClient.
    """

    options: ClassVar[Mapping[str, Option] | None] = {
        **known.OPTIONS,
        "serializer": Option(config.unchecked, next(iter(SERIALIZERS)), "The path of a serializer's class."),
        "compressor": Option(config.unchecked, next(iter(COMPRESSORS)), "The path of a compressor of that kind."),
        "pickle_version": Option(_protocol, None, "The protocol of pickles: 4 at the least, -1 for the highest."),
        "close_connection": Option(
            config.boolean, None, "Whether close() closes the connections of redis-py's clients."
        ),
        "log_ignored_exceptions": Option(config.boolean, None, "Whether each outage that is ignored is logged."),
    }

    def __init__(self, location: str | Sequence[str], params: Mapping[str, Any]) -> None:
        """Find the cache; connections are made on first use."""
        written = dict(params)
        reverse = written.pop("REVERSE_KEY_FUNCTION", None)
        reverse = import_string(reverse) if isinstance(reverse, str) else reverse or reversed_key
        self.reverse_key: Callable[[str], Any] = reverse
        self.written_options: dict[str, Any] = written.get("OPTIONS") or {}
        written["OPTIONS"] = _with_settings(self.written_options)
        self._client: Client | None = None
        super().__init__(location, written)
        self._ignore_exceptions = self.settings.options["on_error"] in ("miss", IGNORED)
        is_logged = self.settings.options["log_ignored_exceptions"]
        self._log_ignored_exceptions = bool(
            site_setting("LOG_IGNORED_EXCEPTIONS", default=False) if is_logged is None else is_logged
        )
        self.logger = logging.getLogger(site_setting("LOGGER", "django_redis.cache"))
        self._default_scan_itersize: int = site_setting("SCAN_ITERSIZE", 10)

    def _make_codec(self) -> Any:
        options = self.settings.options
        self.codec = DjangoRedisCodec(
            made(options["serializer"], SERIALIZERS, self.written_options),
            made(options["compressor"], COMPRESSORS, self.written_options),
            options["pickle_version"],
            build_codec(secret=secret_of(self.settings)),
            trusted=options["read_unsigned_pickles"],
        )
        return self.codec

    @property
    def client(self) -> Client:
        """The operations, with an argument `client`, and redis-py's client: ``client.get_client()``."""
        if self._client is None:
            self._client = Client(self)
        return self._client

    def close(self, **kwargs: Any) -> None:
        """Close the connections of redis-py's clients, if CLOSE_CONNECTION says so."""
        if self._client is not None:
            self.client.close()
        super().close(**kwargs)

    @_like("delete")
    def delete(self, *args: Any, **kwargs: Any) -> bool:
        """Remove what is there. Return whether there was anything."""
        return bool(self._delete_of_client(*args, **kwargs))

    _delete_of_client = _forwarded("delete")

    @_like("delete_pattern")
    def delete_pattern(self, *args: Any, **kwargs: Any) -> Any:
        """Remove what matches a pattern. Return how much that was."""
        kwargs.setdefault("itersize", self._default_scan_itersize)
        return self._delete_pattern_of_client(*args, **kwargs)

    _delete_pattern_of_client = _forwarded("delete_pattern")

    def get(self, key: Any, default: Any = None, version: int | None = None, client: Any = None) -> Any:
        """Return the value, or the default."""
        found = self._get_of_client(key, _NOTHING, version, client)
        return default if found is _NOTHING else found

    _get_of_client = _forwarded("get", lambda: _NOTHING)

    @_like("add")
    def add(self, key: Any, *args: Any, **kwargs: Any) -> Any:
        """Store a value where there is none. Return whether it is stored."""
        add = self.client.add if is_session(str(key)) else self._add_of_client
        return add(key, *args, **kwargs)

    _add_of_client, set = _forwarded("add"), _forwarded("set")
    get_many, set_many = _forwarded("get_many", dict), _forwarded("set_many")
    delete_many, clear = _forwarded("delete_many"), _forwarded("clear")
    incr, decr, incr_version = _forwarded("incr"), _forwarded("decr"), _forwarded("incr_version")
    has_key, keys, iter_keys = _forwarded("has_key"), _forwarded("keys"), _forwarded("iter_keys")
    ttl, pttl, persist = _forwarded("ttl"), _forwarded("pttl"), _forwarded("persist")
    expire, expire_at = _forwarded("expire"), _forwarded("expire_at")
    pexpire, pexpire_at = _forwarded("pexpire"), _forwarded("pexpire_at")
    lock = _forwarded("lock")

    @_like("touch")
    def touch(self, *args: Any, **kwargs: Any) -> bool:
        """Let what is there expire in so many seconds. In an outage it raises, as there, whatever is ignored."""
        return self.client.touch(*args, **kwargs)

    sadd, scard, srem, smove = _forwarded("sadd"), _forwarded("scard"), _forwarded("srem"), _forwarded("smove")
    sdiff, sinter, sunion = _forwarded("sdiff"), _forwarded("sinter"), _forwarded("sunion")
    sdiffstore, sinterstore, sunionstore = (
        _forwarded("sdiffstore"),
        _forwarded("sinterstore"),
        _forwarded("sunionstore"),
    )
    sismember, smismember, smembers = _forwarded("sismember"), _forwarded("smismember"), _forwarded("smembers")
    spop, srandmember = _forwarded("spop"), _forwarded("srandmember")
    sscan, sscan_iter = _forwarded("sscan"), _forwarded("sscan_iter")

    hset, hdel, hlen = _forwarded("hset"), _forwarded("hdel"), _forwarded("hlen")
    hkeys, hexists = _forwarded("hkeys"), _forwarded("hexists")

    zadd, zrem, zcard, zcount = _forwarded("zadd"), _forwarded("zrem"), _forwarded("zcard"), _forwarded("zcount")
    zincrby, zscore, zrank = _forwarded("zincrby"), _forwarded("zscore"), _forwarded("zrank")
    zpopmax, zpopmin = _forwarded("zpopmax"), _forwarded("zpopmin")
    zrange, zrevrange = _forwarded("zrange"), _forwarded("zrevrange")
    zrangebyscore, zrevrangebyscore = _forwarded("zrangebyscore"), _forwarded("zrevrangebyscore")
    zremrangebyscore = _forwarded("zremrangebyscore")
