"""Sentry's spans of caches (``DjangoIntegration(cache_spans=True)``): the calls that it does not see.

Sentry replaces `get`, `get_many`, `set` and `set_many` of a handle. The same spans are made here for their asynchronous
twins, and for `get_or_set`, whose span says whether the value was there.
"""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

from django import conf

from storeroom.integrations.django.handles import Call, calls_its_twin, follow, replace

__all__ = ["watch"]

_CACHING: Final = "sentry_sdk.integrations.django.caching"

_ORIGIN: Final = "auto.cache.storeroom"

_PUTS: Final = ("aset", "aset_many")
_AWAITED: Final = ("aget", "aget_many", *_PUTS, "aget_or_set")


def watch() -> None:
    """Make spans of all caches' calls from now on, where Sentry is asked for its own."""
    follow(_watch)


def _watch(cache: Any, alias: str) -> None:
    caching: Any = sys.modules.get(_CACHING)  # loaded by sentry_sdk.init()
    if caching is None or not caching.should_enable_cache_spans():
        return
    address, port = caching._get_address_port(conf.settings.CACHES[alias])
    peer = {"network.peer.address": address, "network.peer.port": port}
    terms = {name: value for name, value in peer.items() if value is not None}
    replace(cache, "get_or_set", lambda method: _called(cache, method, terms))
    for name in _AWAITED:
        replace(cache, name, _awaiting(cache, name, terms))


def _called(cache: Any, method: Callable[..., Any], terms: Mapping[str, Any]) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        call = Call(cache, method, args, kwargs)
        with _span("get_or_set", call, terms) as span:
            value = method(*call.args, **call.kwargs)
            _tell(span, "get_or_set", call, value)
        return value

    return called


def _awaiting(cache: Any, name: str, terms: Mapping[str, Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def make(method: Callable[..., Any]) -> Callable[..., Any]:
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            if calls_its_twin(cache, name):
                return await method(*args, **kwargs)
            call = Call(cache, method, args, kwargs)
            with _span(name, call, terms) as span:
                value = await method(*call.args, **call.kwargs)
                _tell(span, name, call, value)
            return value

        return awaited

    return make


def _span(name: str, call: Call, terms: Mapping[str, Any]) -> Any:
    keys = list(map(str, call.keys))
    operation = "cache.put" if name in _PUTS else "cache.get"
    span = import_module("sentry_sdk").start_span(op=operation, name=", ".join(keys), origin=_ORIGIN)
    for attribute, value in {"cache.key": keys, **terms}.items():
        span.set_data(attribute, value)
    return span


def _tell(span: Any, name: str, call: Call, value: Any) -> None:
    """Tell the outcome, as Sentry does for its own: the size is that of the value's text."""
    with import_module("sentry_sdk.utils").capture_internal_exceptions():  # a value's own code makes the text
        if name in _PUTS:
            span.set_data("cache.item_size", len(str(call.given.get("value", call.given.get("data")))))
            return
        is_hit = _is_hit(name, call, value)
        span.set_data("cache.hit", is_hit)
        if is_hit:
            span.set_data("cache.item_size", len(str(value)))


def _is_hit(name: str, call: Call, value: Any) -> bool:
    if name == "aget":
        return value is not call.given.get("default")
    return len(value) > 0 if name == "aget_many" else not call.is_computed
