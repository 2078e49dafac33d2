"""A cache as a URL, for an environment variable: from ``CACHE_URL`` to one alias of CACHES.

``scheme://location?setting=value``: the scheme names the backend, the rest its LOCATION. In the query, timeout,
key_prefix, version and key_function are settings of the alias; parameters of a database's driver stay in LOCATION,
and everything else goes to OPTIONS. Characters that are special in a URL are percent-encoded, and decoded here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from storeroom.exceptions import ConfigurationError
from storeroom.wording import mask_url, nearest

__all__ = ["SCHEMES", "Scheme", "config_from_url"]

_SETTINGS: Final = frozenset({"TIMEOUT", "KEY_PREFIX", "VERSION", "KEY_FUNCTION"})

_LISTS: Final = frozenset({"allowed_types", "read_compressors", "secret"})
"""Options that may be given several times, once for each of several values."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """The meaning of one scheme."""

    backend: str
    location: Callable[[SplitResult], str]  # makes LOCATION; raises ValueError whose text is the expectation
    example: str  # for messages and the configuration reference
    driver: frozenset[str] = frozenset()  # names in the query that stay in LOCATION: they are no options of the cache


def _path(parts: SplitResult) -> str:
    """An absolute path. RFC 8089, section 2: the host is empty or "localhost"."""
    if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
        raise ValueError("an absolute path after three slashes")
    return unquote(parts.path, errors="strict")


def _name(parts: SplitResult) -> str:
    """A name where a host would be; "" for the unnamed one."""
    if parts.path not in {"", "/"}:
        raise ValueError("a name alone, without a path")
    return unquote(parts.netloc, errors="strict")


def _servers(parts: SplitResult) -> str:
    """The URL itself without its query: the backend reads what a server's address may hold."""
    if not (parts.netloc or parts.path):
        raise ValueError("a host after two slashes")
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def _hosts(parts: SplitResult) -> str:
    """One host or several, with their ports."""
    if not parts.netloc or "@" in parts.netloc or parts.path not in {"", "/"}:
        raise ValueError("hosts alone after two slashes")
    return unquote(parts.netloc, errors="strict")


_PYMEMCACHE: Final = "storeroom.backends.memcached.PyMemcacheCache"
_PYLIBMC: Final = "storeroom.backends.memcached.PyLibMCCache"
_REDIS: Final = "storeroom.backends.redis.RedisCache"
_DATABASE: Final = "storeroom.backends.db.DatabaseCache"
_REDIS_SCHEMES: Final = ("redis", "rediss", "valkey", "valkeys")
_REDIS_EXAMPLES: Final = {
    "redis": "redis://localhost:6379/0?timeout=5m",
    "rediss": "rediss://user:password@host:6380/0",
    "valkey": "valkey://localhost:6379/0",
    "valkeys": "valkeys://host:6380/0",
    "unix": "unix:///run/redis/redis.sock?db=1",
    **{f"{name}+sentinel": f"{name}+sentinel://one:26379,two:26379/mymaster/0" for name in _REDIS_SCHEMES},
    **{f"{name}+cluster": f"{name}+cluster://one:6379,two:6379" for name in _REDIS_SCHEMES},
}
_DATABASE_EXAMPLES: Final = {
    "sqlite": "sqlite:////var/cache/app/cache.sqlite3?table=pages",
    "postgresql": "postgresql://user:password@host/database?table=pages",
    "postgres": "postgres://user:password@host/database?sslmode=verify-full",
    "mysql": "mysql://user:password@host/database?table=pages",
    "mariadb": "mariadb://user:password@host/database?ssl_ca=/etc/ssl/ca.pem",
}
_LIBPQ: Final = frozenset({
    "application_name", "channel_binding", "gssencmode", "host", "hostaddr", "keepalives", "keepalives_idle", "options",
    "passfile", "port", "service", "sslcert", "sslcrl", "sslkey", "sslmode", "sslrootcert", "target_session_attrs",
})  # fmt: skip
"""https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS; timeouts are the cache's own."""
_PYMYSQL: Final = frozenset({
    "bind_address", "charset", "collation", "init_command", "program_name", "read_default_file", "read_default_group",
    "server_public_key", "ssl_ca", "ssl_cert", "ssl_disabled", "ssl_key", "ssl_key_password", "ssl_mode",
    "ssl_verify_cert", "ssl_verify_identity", "unix_socket",
})  # fmt: skip
"""https://pymysql.readthedocs.io/en/latest/modules/connections.html; timeouts are the cache's own."""
_DRIVERS: Final = {"postgresql": _LIBPQ, "postgres": _LIBPQ, "mysql": _PYMYSQL, "mariadb": _PYMYSQL}

SCHEMES: Final[dict[str, Scheme]] = {
    "file": Scheme("storeroom.backends.filebased.FileBasedCache", _path, "file:///var/cache/app?max_bytes=1GB"),
    "locmem": Scheme("storeroom.backends.locmem.LocMemCache", _name, "locmem://name?timeout=5m"),
    # The rest of the URL may be left as it was before its scheme was changed to switch caching off.
    "dummy": Scheme("storeroom.backends.dummy.DummyCache", lambda _: "", "dummy://"),
    "memcached": Scheme(_PYMEMCACHE, _hosts, "memcached://one:11211,two:11211?key_prefix=shop"),
    "memcached+unix": Scheme(_PYMEMCACHE, _path, "memcached+unix:///run/memcached.sock"),
    "pylibmc": Scheme(_PYLIBMC, _hosts, "pylibmc://one:11211,two:11211?key_prefix=shop"),
    "pylibmc+unix": Scheme(_PYLIBMC, _path, "pylibmc+unix:///run/memcached.sock"),
    **{scheme: Scheme(_REDIS, _servers, example) for scheme, example in _REDIS_EXAMPLES.items()},
    **{
        scheme: Scheme(_DATABASE, _servers, example, _DRIVERS.get(scheme, frozenset()))
        for scheme, example in _DATABASE_EXAMPLES.items()
    },
}
"""The scheme of each backend that a URL can name."""


def config_from_url(url: str, *, where: str = "The cache URL") -> dict[str, Any]:
    """Return the alias that a URL describes, as an entry of CACHES.

    Args:
        url: such as ``file:///var/cache/app?timeout=5m&max_entries=10000``.
        where: its name in error messages, such as the variable that it was read from.

    Raises:
        ConfigurationError: the URL cannot be read, or its scheme is unknown. The values in it are checked later, with
            the other settings.

    >>> config_from_url("locmem://sessions?timeout=1h&max_entries=500")  # doctest: +NORMALIZE_WHITESPACE
    {'BACKEND': 'storeroom.backends.locmem.LocMemCache', 'LOCATION': 'sessions',
     'TIMEOUT': '1h', 'OPTIONS': {'max_entries': '500'}}
    """
    wrong = f"{where} is {mask_url(url)!r}"
    parts = _split(url, wrong)
    scheme = SCHEMES.get(parts.scheme)
    if scheme is None:
        raise ConfigurationError(f"{wrong}, whose scheme {parts.scheme!r} is unknown.{_known_schemes(parts.scheme)}")
    try:
        alias: dict[str, Any] = {"BACKEND": scheme.backend, "LOCATION": scheme.location(parts)}
    except UnicodeDecodeError:
        raise ConfigurationError(f"{wrong}; expected percent-encoded UTF-8, such as %C3%A9 for é.") from None
    except ValueError as expectation:
        raise ConfigurationError(f"{wrong}; expected {expectation}, such as {scheme.example!r}.") from None
    pairs = _pairs(parts.query, wrong)
    kept = [(name, value) for name, value in pairs if name in scheme.driver]
    if kept:
        alias["LOCATION"] += f"?{urlencode(kept, quote_via=quote, safe='/')}"
    return alias | _read_query([pair for pair in pairs if pair not in kept], wrong)


def _split(url: str, wrong: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:  # its text may hold a password
        raise ConfigurationError(f"{wrong}, which is not a URL.{_known_schemes('')}") from None
    if not parts.scheme or not url[len(parts.scheme) :].startswith("://"):
        raise ConfigurationError(f"{wrong}, which does not begin with a scheme and '://'.{_known_schemes('')}")
    if parts.fragment:
        raise ConfigurationError(f"{wrong}; a '#' that belongs to a value is written %23.")
    return parts


def _known_schemes(scheme: str) -> str:
    examples = ", ".join(known.example for known in SCHEMES.values())
    hint = nearest(scheme, SCHEMES) if scheme else ""
    return f"{hint} The schemes are {', '.join(SCHEMES)}, as in {examples}."


def _pairs(query: str, wrong: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict")
    except ValueError:
        raise ConfigurationError(f"{wrong}; expected name=value pairs joined by '&' after the '?'.") from None


def _read_query(pairs: Sequence[tuple[str, str]], wrong: str) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for name, value in pairs:
        setting = name.upper()
        target, key = (settings, setting) if setting in _SETTINGS else (options, name.lower())
        if key in _LISTS:
            options.setdefault(key, []).append(value)
        elif key in target:
            raise ConfigurationError(f"{wrong}, which gives {name!r} twice; keep one of them.")
        else:
            target[key] = value
    return settings | ({"OPTIONS": options} if options else {})
