"""Fallbacks: an alias that answers for another during an outage is there, is Storeroom's, and ends somewhere.

All of it is told at start: by the whole of CACHES where it is Storeroom's to read, and by each handle that has a
fallback where another framework keeps CACHES.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from storeroom import wording
from storeroom.exceptions import ConfigurationError
from storeroom.registry.alias import Alias

__all__ = ["fallback_of", "why_no_fallback", "wrong_fallbacks"]


def wrong_fallbacks(aliases: Mapping[str, Alias]) -> Iterator[ConfigurationError]:
    """Yield a mistake for each OPTIONS["on_error"] that names an alias that cannot answer."""
    for name, alias in aliases.items():
        options = {} if alias.settings is None else alias.settings.options
        for where, fallback in _fallbacks(f"CACHES[{name!r}]['OPTIONS']", options):
            reason = why_no_fallback(fallback, aliases, name)
            if reason:
                yield ConfigurationError(f"{where}['on_error'] is 'fallback:{fallback}'; {reason}")


def _fallbacks(where: str, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each fallback in an alias's OPTIONS, its tiers' among them, and the OPTIONS that name it."""
    fallback = fallback_of(options)
    if fallback is not None:
        yield where, fallback
    for position, tier in enumerate(options.get("tiers") or ()):
        if not isinstance(tier, str):
            yield from _fallbacks(f"{where}['tiers'][{position}]['OPTIONS']", tier.get("OPTIONS") or {})


def why_no_fallback(fallback: str, aliases: Mapping[str, Alias], name: str | None = None) -> str:
    """Return why an alias cannot answer for others, or "".

    Args:
        fallback: the alias.
        aliases: all there are.
        name: of the alias that it answers for; a circle without it is told where it begins. None where its name is not
            known: then every circle is told.
    """
    if fallback not in aliases:
        return f"expected one of the aliases {', '.join(map(repr, aliases))}.{wording.nearest(fallback, aliases)}"
    if aliases[fallback].settings is None:
        return f"expected a cache of Storeroom's, and its BACKEND is {aliases[fallback].backend.__qualname__}."
    circle = _circle((fallback,) if name is None else (name, fallback), aliases)
    if not circle or (name is not None and name not in circle):
        return ""
    return f'expected one that ends somewhere: {" -> ".join(circle)}. Give one of them "miss" or "raise".'


def _circle(line: tuple[str, ...], aliases: Mapping[str, Alias]) -> tuple[str, ...]:
    """Return the aliases of a circle that `line` leads into, the first of them at both ends, or ()."""
    if line[-1] in line[:-1]:
        return line[line.index(line[-1]) :]
    for following in _asked_by(line[-1], aliases):
        if following in aliases and (circle := _circle((*line, following), aliases)):
            return circle
    return ()


def _asked_by(name: str, aliases: Mapping[str, Alias]) -> Iterator[str]:
    """Yield the aliases that one asks: its fallback, and its tiers and theirs."""
    settings = aliases[name].settings
    options = {} if settings is None else settings.options
    yield from (fallback for _, fallback in _fallbacks("", options))
    yield from (tier for tier in options.get("tiers") or () if isinstance(tier, str))


def fallback_of(options: Mapping[str, Any]) -> str | None:
    """Return the alias that answers during an outage by these options, or None."""
    on_error = options.get("on_error")
    return on_error.partition("fallback:")[2] or None if isinstance(on_error, str) else None
