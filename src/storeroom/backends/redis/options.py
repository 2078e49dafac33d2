"""OPTIONS of the Redis cache: Storeroom's own, and those that Django's backend and django-redis know.

Options without a meaning here are refused, and the message names the substitute.
"""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from storeroom import config
from storeroom.backends import network
from storeroom.backends.network import refused
from storeroom.backends.policies import IGNORED
from storeroom.backends.redis.addresses import address_map
from storeroom.config import Option
from storeroom.wording import nearest, shown

__all__ = ["CONNECTION", "IN_URL", "OPTIONS", "TLS", "is_cluster", "is_sentinel", "settled"]

DEFAULT_MAX_CONNECTIONS: Final = 64
"""A server admits 10,000 clients by default (maxclients): hundreds of processes. Few have more busy threads."""

DEFAULT_READ_OWN_WRITES: Final = 1.0
"""Seconds. Replicas lag by milliseconds as a rule."""

DEFAULT_REPLICA_MAX_LAG: Final = 5.0
"""Seconds: far above the lag of a replica that is well, and below the 60 in which Redis notices a silent link."""

_ignored = partial(network.ignored, "other backends")


def _optional_text(value: Any) -> str | None:
    return None if value is None else config.text(value)


def _known_paths(equivalents: Mapping[str, Any], instead: str) -> Callable[[Any], Any]:
    """Return a parser of dotted paths, or classes, that have an equivalent here."""

    def parse(value: Any) -> Any:
        if value is None:
            return None
        path = f"{value.__module__}.{value.__qualname__}" if isinstance(value, type) else value
        if isinstance(path, str) and path in equivalents:
            return equivalents[path]
        raise ValueError(instead)

    return parse


def _translating(name: str, equivalents: Mapping[str, Any], names: str, methods: tuple[str, str]) -> Option:
    """Return an option of the codec, which checks it, that turns these dotted paths into Storeroom's names."""

    def parse(value: Any) -> Any:
        if isinstance(value, str):
            return equivalents.get(value, value)
        if value is not None and not all(hasattr(value, method) for method in methods):
            raise ValueError(f"{names}, an object with {methods[0]}() and {methods[1]}(), or its dotted path")
        return value

    return replace(config.CODEC_OPTIONS[name], parse=parse)


def _falsy(instead: str, default: Any = None) -> Option:
    def parse(value: Any) -> Any:
        if value and str(value).lower() not in {"false", "0", "no"}:  # as a URL's query has it
            raise ValueError(instead)
        return value

    return Option(parse, default, "Accepted if it is False.")


def _lag(value: Any) -> float | None:
    try:
        return None if value is None or str(value).lower() == "none" else config.number(0.1)(value)
    except ValueError as expectation:
        raise ValueError(f"{expectation}, or None for no bound") from None


def _only_true(value: Any) -> bool:
    if value is not True:
        raise ValueError("True: all is written to the first server of LOCATION")
    return True


def _certificates(value: Any) -> str:
    """Parse the rule by which a server's certificate is verified: redis-py's word, or a constant of `ssl`."""
    words: dict[Any, str] = {None: "none", 0: "none", 1: "optional", 2: "required"}
    word = words.get(value, str(value)).lower().removeprefix("cert_")
    return config.one_of(("required", "optional", "none"))(word)


def _tls_version(value: Any) -> ssl.TLSVersion | None:
    if value is None:
        return None
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        if value == version or str(value).upper() in {version.name.upper(), version.name[-3:].replace("_", ".")}:
            return version
    raise ValueError('"1.2", "1.3", or a constant of ssl.TLSVersion that is one of these')


def _addresses(value: Any) -> tuple[tuple[str, int], ...]:
    try:
        return tuple((config.text(host), int(port)) for host, port in value)
    except (TypeError, ValueError):
        raise ValueError("a list of (host, port) pairs") from None


def _nested(known: Mapping[str, Option]) -> Callable[[Any], dict[str, Any] | None]:
    """Return a parser of a dict of these options; options without effect are left out."""

    def parse(value: Any) -> dict[str, Any] | None:
        if value is None:
            return None
        if isinstance(value, Mapping):
            parsed = {name: _parse_inner(name, inner, known) for name, inner in value.items()}
            return {name: inner for name, inner in parsed.items() if name in {*CONNECTION, "address_remap"}}
        raise ValueError("a dict")

    return parse


def _parse_inner(name: Any, value: Any, known: Mapping[str, Option]) -> Any:
    if name not in known:
        near = nearest(str(name), known)
        raise ValueError(f"a dict of {', '.join(known)}; {name!r} has no meaning here.{near}".rstrip("."))
    try:
        return known[name].parse(value)
    except ValueError as expectation:
        raise ValueError(f"a dict in which {name!r} is {expectation}, instead of {shown(value, name)}") from None


TLS: Final[Mapping[str, Option]] = {
    "ssl_cert_reqs": Option(_certificates, "required", 'Whether the server\'s certificate is verified: "required", '
                            '"optional" or "none".'),
    "ssl_check_hostname": Option(config.boolean, True, "Whether the certificate must be for the host's name."),
    "ssl_ca_certs": Option(_optional_text, None, "File of the authorities that may have signed the certificate."),
    "ssl_ca_path": Option(_optional_text, None, "Directory of such files."),
    "ssl_ca_data": Option(_optional_text, None, "Such certificates themselves, as PEM."),
    "ssl_certfile": Option(_optional_text, None, "File of this client's own certificate."),
    "ssl_keyfile": Option(_optional_text, None, "File of its key."),
    "ssl_password": Option(_optional_text, None, "The key's passphrase."),
    "ssl_min_version": Option(_tls_version, None, 'The oldest version of TLS that is spoken: "1.2" or "1.3". None is '
                              "Python's own choice."),
    "ssl_ciphers": Option(_optional_text, None, "OpenSSL's list of ciphers for TLS 1.2. None is Python's own choice."),
}  # fmt: skip
"""The checks of a connection by TLS: rediss://, rediss+sentinel://, rediss+cluster://."""

CONNECTION: Final[Mapping[str, Option]] = {
    "db": Option(config.whole_number(0), 0, "The database's number, where LOCATION names none."),
    "username": Option(_optional_text, None, "The user's name, where LOCATION names none."),
    "password": Option(_optional_text, None, "The user's password, where LOCATION holds none."),
    "credential_provider": Option(
        config.unchecked, None, "An object of redis-py's CredentialProvider, in place of name and password."
    ),
    "client_name": Option(_optional_text, None, "What the connections are called in CLIENT LIST."),
    "max_connections": Option(
        config.whole_number(1),
        DEFAULT_MAX_CONNECTIONS,
        "How many connections a process keeps to one server at most; a further thread waits for one.",
    ),
    "pool_timeout": network.NETWORK_OPTIONS["pool_timeout"],
    "socket_keepalive": Option(config.boolean, True, "Whether idle connections are kept alive by TCP."),
    **{name: network.NETWORK_OPTIONS[name] for name in ("socket_timeout", "socket_connect_timeout")},
    **TLS,
}
"""The terms of a connection to a server. These may also stand in the query of a URL."""

_LOCATION: Final = "LOCATION, whose URL tells the servers"
_NO_PART: Final = "nothing: this is a part of redis-py's client that has no part here"

_DRIVERS: Final[Mapping[str, Option]] = {
    "retry_on_timeout": _ignored("what was idle too long is sent again, and what timed out is not"),
    **dict.fromkeys(("retry", "retry_on_error"), _ignored("what may be sent again is, once")),
    "health_check_interval": _ignored("connections that a server has closed are noticed when they are used"),
    "encoding": _ignored("keys are UTF-8"),
    "encoding_errors": _ignored("any string is a key"),
    "protocol": _ignored("the old one of the two does all that is needed"),
    "socket_read_size": _ignored("what has come is read at once"),
    **dict.fromkeys(
        ("lib_name", "lib_version", "driver_info"),
        _ignored("connections say nothing of their driver, which takes two round trips each"),
    ),
    "decode_responses": _falsy("False: values are bytes, which the serializer decodes", default=False),
    **dict.fromkeys(("host", "port", "path", "unix_socket_path"), refused(_LOCATION)),
    "ssl": _falsy("a LOCATION whose scheme has TLS: rediss://, rediss+sentinel:// or rediss+cluster://"),
    "timeout": refused(
        "OPTIONS['socket_timeout'], for which a server is waited for; OPTIONS['pool_timeout'], for which a connection "
        "is; or TIMEOUT beside OPTIONS, after which entries expire"
    ),
    "socket_keepalive_options": refused("socket_keepalive, which is True, and intervals that the system sets"),
    "redis_connect_func": refused("username, password, credential_provider or client_name"),
    **dict.fromkeys(("cache", "cache_config"), refused("OPTIONS['near'], which keeps entries in the process's memory")),
    **dict.fromkeys(
        ("ssl_validate_ocsp", "ssl_validate_ocsp_stapled", "ssl_ocsp_context", "ssl_ocsp_expected_cert"),
        _falsy("nothing: certificates are verified without OCSP"),
    ),
    **dict.fromkeys(("command_packer", "event_dispatcher", "socket_type"), refused(_NO_PART)),
}
"""Options of redis-py's connections."""

IN_URL: Final = {**CONNECTION, **_DRIVERS}
"""The options in the query of a URL. Of these CONNECTION has an effect."""

_CLIENTS: Final[Mapping[str, Option]] = {
    **IN_URL,
    "timeout": _ignored("pool_timeout says how long a connection that is not busy is waited for"),
    "queue_class": _ignored("Storeroom keeps its own pool"),
    "single_connection_client": _ignored("Storeroom keeps its own pool"),
    "maint_notifications_config": _ignored("a server that goes away is an outage, and a failover is followed"),
    **dict.fromkeys(
        (
            *("require_full_coverage", "cluster_error_retry_attempts", "reinitialize_steps", "dynamic_startup_nodes"),
            "skip_full_coverage_check",
        ),
        _ignored("the cluster is asked anew whenever a server of it fails or has moved slots"),
    ),
    "address_remap": Option(address_map, None, "As in OPTIONS."),
    "read_from_replicas": _falsy("False: in a cluster the primaries are read from"),
    **dict.fromkeys(("url", "startup_nodes", "service_name"), refused(_LOCATION)),
}
"""Arguments of redis-py's clients and pools: they stand in a dict of their own."""

_SENTINELS: Final = {
    **{name: IN_URL[name] for name in ("username", "password", *TLS, *_DRIVERS)},
    **{name: CONNECTION[name] for name in ("socket_timeout", "socket_connect_timeout", "socket_keepalive")},
}
"""Arguments of connections to Sentinels."""

_pool = _known_paths(
    {
        "redis.sentinel.SentinelConnectionPool": None,
        **{f"redis.{module}{kind}ConnectionPool": None for module in ("", "connection.") for kind in ("", "Blocking")},
    },
    "nothing: Storeroom keeps its own pool, which max_connections and the timeouts bound",
)
_parser = _known_paths(
    {
        "redis._parsers.hiredis._HiredisParser": None,
        **{f"redis.connection.{kind}Parser": None for kind in ("Default", "Hiredis", "_Hiredis", "Python")},
    },
    "nothing: replies are always parsed by hiredis",
)
_connection_factory = _known_paths(
    {"django_redis.pool.ConnectionFactory": None, "django_redis.pool.SentinelConnectionFactory": "sentinel"},
    "a LOCATION of redis://, redis+sentinel:// or redis+cluster://, which tells how to connect",
)
_client_class = _known_paths(
    {
        f"django_redis.client.{module}{kind}Client": "sentinel" if kind == "Sentinel" else None
        for kind in ("Default", "Herd", "Sentinel")
        for module in ("", f"{kind.lower()}.")
    },
    "one of django_redis.client.DefaultClient, HerdClient and SentinelClient; several servers that share "
    "the keys are a cluster, with a LOCATION of redis+cluster://",
)
_redis_client_class = _known_paths(
    {f"redis.{name}": None for name in ("Redis", "StrictRedis", "client.Redis", "client.StrictRedis")}
    | {f"redis.{name}": "cluster" for name in ("RedisCluster", "cluster.RedisCluster")},
    "redis.Redis or redis.cluster.RedisCluster",
)
_client_kwargs = Option(
    _nested(_CLIENTS), None, "django-redis: any of the options of connections, which may stand beside it."
)
_BOUNDS: Final = "nothing: a server bounds itself, by maxmemory and maxmemory-policy, for all its users"

_BACKENDS: Final[Mapping[str, Option]] = {
    "pool_class": Option(_pool, None, "Accepted if it is redis-py's own."),
    "parser_class": Option(_parser, None, "Accepted if it is redis-py's own."),
    "connection_pool_class": Option(_pool, None, "django-redis: accepted if it is redis-py's own."),
    "connection_pool_kwargs": _client_kwargs,
    "connection_factory": Option(_connection_factory, None, "django-redis: accepted if it is its own."),
    "client_class": Option(
        _client_class,
        None,
        "django-redis: accepted if it is its own. get_or_set() always does what HerdClient does.",
    ),
    "redis_client_class": Option(_redis_client_class, None, "django-redis: accepted if it is redis-py's own."),
    "redis_client_kwargs": _client_kwargs,
    "sentinels": Option(_addresses, None, "django-redis: (host, port) of each Sentinel; LOCATION is redis://service."),
    "sentinel_kwargs": Option(
        _nested(_SENTINELS), None, "How the Sentinels themselves are connected and logged in to, as a dict."
    ),
    "ignore_exceptions": Option(
        config.boolean,
        None,
        'django-redis: True is on_error={"count": "none", "whole": "miss"}, False is on_error="raise".',
    ),
    **dict.fromkeys(("max_entries", "cull_frequency", "max_bytes"), refused(_BOUNDS)),
    "replica_read_only": Option(_only_true, None, "django-redis: accepted if it is True."),
    "log_ignored_exceptions": _ignored("an outage is always logged, once when it begins and once when it ends"),
    "close_connection": _ignored("connections are kept between requests"),
    "pickle_version": _ignored("a frame tells how it is read"),
}
"""Options of Django's backend and of django-redis that are no option of a connection."""

_SERIALIZERS: Final = {
    "django.core.cache.backends.redis.RedisSerializer": "pickle",
    "django_redis.serializers.pickle.PickleSerializer": "pickle",
    "django_redis.serializers.json.JSONSerializer": "json",
    "django_redis.serializers.msgpack.MSGPackSerializer": "msgpack",
}
_COMPRESSORS: Final = {
    "django_redis.compressors.identity.IdentityCompressor": None,
    "django_redis.compressors.zlib.ZlibCompressor": "zlib",
    "django_redis.compressors.gzip.GzipCompressor": "zlib",
    "django_redis.compressors.lzma.LzmaCompressor": "lzma",
    "django_redis.compressors.lz4.Lz4Compressor": "lz4",
    "django_redis.compressors.zstd.ZStdCompressor": "zstd",
}


OPTIONS: Final[Mapping[str, Option]] = {
    **network.NETWORK_OPTIONS,
    "serializer": _translating("serializer", _SERIALIZERS, '"pickle", "json", "msgpack"', ("dumps", "loads")),
    "compressor": _translating(
        "compressor", _COMPRESSORS, 'None, "zlib", "lzma", "zstd", "lz4"', ("compress", "decompress")
    ),
    "read_unsigned_pickles": Option(
        config.boolean,
        False,
        "For the days of a move from Django's backend or django-redis: read what they wrote. Whoever can write to "
        "the server can then run code in this program.",
    ),
    "read_own_writes": Option(
        config.number(0),
        DEFAULT_READ_OWN_WRITES,
        "Seconds for which a thread or task that has written reads from the first server, where LOCATION has several.",
    ),
    "address_remap": Option(
        address_map,
        None,
        "Where a cluster's servers name each other by addresses that cannot be reached from here: a dict from such an "
        'address, "10.0.0.1:6379" or "10.0.0.1", to the one to connect to; or a function of a tuple (host, port) that '
        "returns such a tuple, as redis-py's.",
    ),
    "former_names": Option(
        config.boolean,
        None,
        "Whether locks and versions of tags are kept under the names, too, that they had before all names began with "
        "the prefix. False once no program of before runs any more. None: True, and in a cluster False.",
    ),
    "replica_max_lag": Option(
        _lag,
        DEFAULT_REPLICA_MAX_LAG,
        "Seconds that a replica may be behind the first server, where LOCATION has several; one that is further behind "
        "is not read from. None for no bound.",
    ),
    **CONNECTION,
    **_DRIVERS,
    **_BACKENDS,
}
"""Everything that OPTIONS may hold."""


def settled(settings: config.Settings) -> dict[str, Any]:
    """Return the options with the spellings of other backends folded in; OPTIONS itself counts before a nested dict."""
    options = dict(settings.options)
    for nested in ("redis_client_kwargs", "connection_pool_kwargs"):
        options |= {name: value for name, value in (options[nested] or {}).items() if name not in settings.given}
    if options["ignore_exceptions"] is not None and "on_error" not in settings.given:
        options["on_error"] = dict(IGNORED) if options["ignore_exceptions"] else "raise"
    return options


def is_sentinel(options: Mapping[str, Any]) -> bool:
    """Tell whether django-redis's spellings ask for Sentinel."""
    return bool(options["sentinels"]) or "sentinel" in {options["client_class"], options["connection_factory"]}


def is_cluster(options: Mapping[str, Any]) -> bool:
    """Tell whether django-redis's spellings ask for a cluster."""
    return bool(options["redis_client_class"] == "cluster")
