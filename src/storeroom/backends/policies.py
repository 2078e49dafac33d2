"""The alias's ``on_error``: answers for a storage that cannot be asked. See docs/outages.md."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from storeroom import config, registry, wording
from storeroom.base import BaseCache
from storeroom.exceptions import ConfigurationError
from storeroom.registry import fallbacks
from storeroom.storage.hooks import MISSING
from storeroom.storage.outages import are_answers_refused

__all__ = ["ANSWERS", "IGNORED", "ON_ERROR", "answer_of", "fallback_of", "word_for"]

ANSWERS: Final[Mapping[str, Callable[..., Any]]] = {
    "get": lambda _storage_key: MISSING,
    **dict.fromkeys(("get_many", "get_dated"), lambda _storage_keys: {}),
    **dict.fromkeys(("set", "add", "delete", "touch", "has", "compare_set", "compare_delete"), lambda *_: False),
    "set_many": lambda values, _expires_at: list(values),
    "delete_many": lambda _storage_keys: 0,
    "swap_many": lambda swaps: dict.fromkeys(swaps, False),
    "expiry": lambda _storage_key: None,
    "usage": lambda: (None, None),
    "clear": lambda: None,
    "scan": lambda _start: iter(()),
    "match": lambda *_: [],
    **dict.fromkeys(("prune", "remove"), lambda *_: 0),
}
"""Hook -> its answer during an outage under "miss": nothing is there, and nothing was stored."""

_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "read": ("miss", "raise"),
    "write": ("miss", "raise"),
    "count": ("miss", "none", "raise"),
    "whole": ("raise", "miss"),
}
"""Family of operations -> the words that it may be given, the first of which is its default."""

_MISS: Final[Mapping[str, str]] = {family: words[0] for family, words in _WORDS.items()}

IGNORED: Final[Mapping[str, str]] = {"read": "miss", "write": "miss", "count": "none", "whole": "miss"}
"""The policy that django-redis calls IGNORE_EXCEPTIONS."""

_FAMILIES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("get", "get_many", "get_dated", "has", "expiry"), "read"),
    **dict.fromkeys(("set", "set_many", "add", "delete", "delete_many", "touch", "lease", "lease_many"), "write"),
    **dict.fromkeys(("compare_set", "compare_delete", "swap_many"), "write"),
    **dict.fromkeys(("incr", "rename"), "count"),
    **dict.fromkeys(("clear", "scan", "match", "prune", "remove"), "whole"),
}
"""Hook -> its family. The others raise under every word, such as those of locks and of tags."""


def _parse(value: Any) -> str | dict[str, str]:
    if value in ("miss", "raise") or (isinstance(value, str) and value.partition("fallback:")[2]):
        return str(value)
    if isinstance(value, Mapping):
        for mistake in _mistakes(value):
            raise ValueError(mistake)
        return {**_MISS, **value}
    raise ValueError('"miss", "raise", "fallback:<alias>" or a dict of words for "read", "write", "count", "whole"')


def _mistakes(words: Mapping[Any, Any]) -> Iterator[str]:
    for family, word in words.items():
        if family not in _WORDS:
            hint = wording.nearest(str(family), _WORDS).strip()
            yield f"a dict with the keys {', '.join(_WORDS)}, not {family!r}{f' ({hint})' if hint else ''}"
        elif word not in _WORDS[family]:
            hint = wording.nearest(str(word), _WORDS[family]).strip()
            if str(word).startswith("fallback:"):
                hint = f"another alias steps in for all operations: write {word!r} in place of the dict"
            allowed = " or ".join(f'"{each}"' for each in _WORDS[family])
            yield f"{allowed} for {family!r}, not {wording.shown(word)}{f' ({hint})' if hint else ''}"


ON_ERROR: Final = config.Option(
    _parse,
    "miss",
    'What happens while the server is out of reach: "miss", "raise" or "fallback:<alias>", or a word for each family '
    "of operations.",
)


def word_for(settings: config.Settings, name: str) -> str:
    """Return the word of the policy, or the caller's, for a hook without another cache: "miss", "none" or "raise"."""
    policy = settings.options["on_error"]
    if policy == "raise" or are_answers_refused():
        return "raise"
    words = policy if isinstance(policy, Mapping) else _MISS
    return words[_FAMILIES[name]] if name in _FAMILIES else "raise"


def answer_of(settings: config.Settings, name: str) -> Callable[..., Any] | None:
    """Return the function of a hook's arguments that answers during an outage, or None if it has to raise."""
    answers = word_for(settings, name) == "miss" or (name == "usage" and not are_answers_refused())
    return ANSWERS.get(name) if answers else None


def fallback_of(settings: config.Settings) -> BaseCache | None:
    """Return the cache that answers, or None if none does."""
    alias = fallbacks.fallback_of(settings.options)
    if alias is None or are_answers_refused():
        return None
    fallback = registry.caches[alias]
    if not isinstance(fallback, BaseCache):
        raise ConfigurationError(
            f"OPTIONS['on_error'] is 'fallback:{alias}', and CACHES[{alias!r}] is a {type(fallback).__name__}; "
            "expected the alias of a cache of Storeroom's."
        )
    return fallback
