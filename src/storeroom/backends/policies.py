"""The alias's ``on_error``: answers for a storage that cannot be asked. See docs/outages.md."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from storeroom import config, registry
from storeroom.base import BaseCache
from storeroom.exceptions import ConfigurationError
from storeroom.storage.hooks import MISSING
from storeroom.storage.outages import are_answers_refused

__all__ = ["ANSWERS", "ON_ERROR", "fallback_of", "must_raise"]

ANSWERS: Final[Mapping[str, Callable[..., Any]]] = {
    "get": lambda _storage_key: MISSING,
    **dict.fromkeys(("get_many", "get_dated"), lambda _storage_keys: {}),
    **dict.fromkeys(("set", "add", "delete", "touch", "has", "compare_set", "compare_delete"), lambda *_: False),
    "set_many": lambda values, _expires_at: list(values),
    "delete_many": lambda _storage_keys: 0,
    "swap_many": lambda swaps: dict.fromkeys(swaps, False),
    "expiry": lambda _storage_key: None,
    "usage": lambda: (None, None),
}
"""Hook -> its answer during an outage under "miss": nothing is there, and nothing was stored."""


def _parse(value: Any) -> str:
    if value in ("miss", "raise") or (isinstance(value, str) and value.partition("fallback:")[2]):
        return str(value)
    raise ValueError('"miss", "raise" or "fallback:<alias>"')


ON_ERROR: Final = config.Option(
    _parse, "miss", 'What happens while the server is out of reach: "miss", "raise" or "fallback:<alias>".'
)


def must_raise(settings: config.Settings) -> bool:
    """Tell whether the policy, or the caller, wants an error rather than an answer."""
    return settings.options["on_error"] == "raise" or are_answers_refused()


def fallback_of(settings: config.Settings) -> BaseCache | None:
    """Return the cache that answers, or None if none does."""
    alias = settings.options["on_error"].partition("fallback:")[2]
    if not alias or are_answers_refused():
        return None
    fallback = registry.caches[alias]
    if not isinstance(fallback, BaseCache):
        raise ConfigurationError(
            f"OPTIONS['on_error'] is 'fallback:{alias}', and CACHES[{alias!r}] is a {type(fallback).__name__}; "
            "expected the alias of a cache of Storeroom's."
        )
    return fallback
