"""OPTIONS of the Memcached caches: Storeroom's own, and those that Django hands to pymemcache and pylibmc.

The latter count where they have a meaning here; the others are refused, and the message names the substitute.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from storeroom import config
from storeroom.backends import network
from storeroom.backends.network import refused
from storeroom.config import Option

__all__ = ["PYLIBMC", "PYMEMCACHE", "settled"]

DEFAULT_MAX_CONNECTIONS: Final = 64
"""Connections of one process to one server. A server admits 1024 clients by default (-c); a process with more busy
threads than this is rare."""

_BOUNDS: Final = "nothing: Memcached bounds itself, by the memory (-m) that it is started with, for all its users"

_ignored: Final = partial(network.ignored, "Django's backends")


def _only_false(value: Any) -> Any:
    if value is not False:
        raise ValueError("False: a write that nobody answers for may not have happened")
    return value


def _unless_none(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else parse(value)


_COMMON: Final[Mapping[str, Option]] = {
    **network.NETWORK_OPTIONS,
    "max_connections": Option(
        config.whole_number(1),
        DEFAULT_MAX_CONNECTIONS,
        "How many connections a process keeps to one server at most; a further thread waits for one.",
    ),
    "eject": Option(
        _unless_none(config.staleness),
        None,
        "Several servers: the next one keeps what belongs to one that is down, each entry for so many seconds at "
        'most; words such as "1m" do, too. None lets its keys miss.',
    ),
    **dict.fromkeys(("max_entries", "cull_frequency", "max_bytes"), refused(_BOUNDS)),
}


def _serde(value: Any) -> None:
    if (type(value).__module__, type(value).__name__) != ("pymemcache.serde", "PickleSerde"):
        raise ValueError("OPTIONS['serializer'] and OPTIONS['compressor'], which say how values become bytes")


PYMEMCACHE: Final[Mapping[str, Option]] = {
    **_COMMON,
    "tls_context": Option(config.unchecked, None, "An ssl.SSLContext, by which connections are encrypted."),
    "socket_keepalive": Option(
        config.unchecked, None, "pymemcache's KeepaliveOpts, by which idle connections are kept alive by TCP."
    ),
    "timeout": Option(config.number(0.001), None, "pymemcache: the same as socket_timeout."),
    "connect_timeout": Option(config.number(0.001), None, "pymemcache: the same as socket_connect_timeout."),
    "max_pool_size": Option(config.whole_number(1), None, "pymemcache: the same as max_connections."),
    "ignore_exc": Option(config.boolean, None, 'pymemcache: True is on_error="miss", False is on_error="raise".'),
    "serde": Option(_serde, None, "pymemcache: accepted if it is its pickle_serde."),
    "default_noreply": Option(_only_false, None, "Accepted if it is False."),
    "use_pooling": _ignored("connections are always pooled"),
    "pool_idle_timeout": _ignored("a connection that the server has closed is replaced when it is used"),
    "allow_unicode_keys": _ignored("any string is a key"),
    "encoding": _ignored("keys and text are UTF-8"),
    "no_delay": _ignored("TCP_NODELAY is always set"),
    **dict.fromkeys(
        ("retry_attempts", "retry_timeout", "dead_timeout"),
        _ignored("a server that fails is left alone, and tried again once a second"),
    ),
    "key_prefix": refused("KEY_PREFIX beside OPTIONS"),
    "deserializer": refused("OPTIONS['serializer'] alone: an object with dumps() and loads()"),
    "hasher": refused("nothing: keys are shared out by consistent hashing"),
    "lock_generator": refused("nothing: the pool has locks of its own"),
    "socket_module": refused("nothing: sockets are those of the standard library"),
}
"""Everything that OPTIONS of PyMemcacheCache may hold."""

_BEHAVIORS_KEPT: Final = ("tcp_nodelay", "tcp_keepalive", "no_block")
_BEHAVIORS_TIMED: Final = {"connect_timeout": 1e3, "receive_timeout": 1e6, "send_timeout": 1e6, "_poll_timeout": 1e3}
"""Behaviour -> the number of its units in a second."""
_BEHAVIORS_IGNORED: Final = (
    *("ketama", "ketama_weighted", "ketama_hash", "hash", "distribution", "cas", "verify_keys"),
    *("remove_failed", "auto_eject", "dead_timeout", "retry_timeout", "_retry_timeout", "failure_limit"),
    *("pickle_protocol",),
)
_BEHAVIORS: Final = (*_BEHAVIORS_KEPT, *_BEHAVIORS_TIMED, *_BEHAVIORS_IGNORED)


def _behaviors(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not set(value) <= set(_BEHAVIORS):
        raise ValueError(f"a dict of behaviours among {', '.join(_BEHAVIORS)}")
    for name in value.keys() & _BEHAVIORS_TIMED.keys():
        try:
            config.number(1)(value[name])
        except ValueError as expectation:
            raise ValueError(f"a dict whose {name!r} is {expectation}") from None
    return dict(value)


PYLIBMC: Final[Mapping[str, Option]] = {
    **_COMMON,
    "binary": Option(config.boolean, False, "Whether the binary protocol is spoken, as SASL needs it."),
    "username": Option(_unless_none(config.text), None, "The user's name, for SASL; needs binary."),
    "password": Option(_unless_none(config.text), None, "The user's password, for SASL; needs binary."),
    "behaviors": Option(
        _behaviors,
        None,
        "Behaviours of libmemcached. Those of sockets and timeouts count; those that choose, eject and retry servers "
        "are accepted without effect, as the cache does so itself.",
    ),
}
"""Everything that OPTIONS of PyLibMCCache may hold."""


def settled(settings: config.Settings) -> dict[str, Any]:
    """Return the options, the spellings of pymemcache and pylibmc folded into Storeroom's, which count before them."""
    options = dict(settings.options)
    behaviors = options.get("behaviors") or {}
    folded = {
        "socket_timeout": options.get("timeout") or _seconds(behaviors, "receive_timeout", "_poll_timeout"),
        "socket_connect_timeout": options.get("connect_timeout") or _seconds(behaviors, "connect_timeout"),
        "max_connections": options.get("max_pool_size"),
        "on_error": {None: None, True: "miss", False: "raise"}[options.get("ignore_exc")],
    }
    options |= {name: value for name, value in folded.items() if value is not None and name not in settings.given}
    options["behaviors"] = {name: behaviors[name] for name in _BEHAVIORS_KEPT if name in behaviors}
    return options


def _seconds(behaviors: Mapping[str, Any], *names: str) -> float | None:
    """Return the first of these behaviours that is given, in seconds."""
    return next((float(behaviors[name]) / _BEHAVIORS_TIMED[name] for name in names if name in behaviors), None)
