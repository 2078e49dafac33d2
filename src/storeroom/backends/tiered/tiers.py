"""``OPTIONS["tiers"]``: from aliases and dicts to tiers, each at a position where it may be."""

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from storeroom import wording
from storeroom.base import BaseCache
from storeroom.exceptions import ConfigurationError
from storeroom.registry import caches
from storeroom.registry.aliases import Alias, read_alias

__all__ = ["Tier", "check_tiers", "opening", "parse", "tiers_of"]

_AT_LEAST: Final = 2

_opening: ContextVar[tuple[str, ...]] = ContextVar("storeroom-tiers-opening", default=())
"""The aliases whose tiers are being opened, outermost first."""


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier, before it is built.

    Attributes:
        name: its alias, or its position among the tiers.
        alias: its settings, read and checked.
        has_alias: whether it has one, and is not written among the tiers itself.
    """

    name: str
    alias: Alias
    has_alias: bool = True

    @property
    def is_shared(self) -> bool:
        """Whether other processes see what it holds."""
        return bool(self.alias.backend.is_shared)

    @property
    def is_memory(self) -> bool:
        """Whether a near tier can be used instead: it is bounded as one, and this process's own."""
        return not self.is_shared and "max_entries" in (self.alias.backend.options or ())


def parse(value: Any) -> tuple[str | Mapping[str, Any], ...]:
    """Parse OPTIONS["tiers"]."""
    are_tiers = isinstance(value, list | tuple) and all(isinstance(tier, str | Mapping) for tier in value)
    if not are_tiers or len(value) < _AT_LEAST:
        raise ValueError(
            "a list of two tiers or more, nearest first, each an alias or a dict as of an alias; for a single "
            "storage, write OPTIONS['near'] of its own alias instead"
        )
    return tuple(value)


def tiers_of(written: Sequence[str | Mapping[str, Any]], aliases: Mapping[str, Alias] | None = None) -> list[Tier]:
    """Return the tiers, nearest first, by these aliases (None: those in force), or raise ConfigurationError."""
    if not written:
        raise ConfigurationError(
            "OPTIONS['tiers'] is missing; a tiered cache needs two tiers or more, nearest first, such as "
            "{'tiers': ['memory', 'redis']}."
        )
    tiers = [_tier(tier, position, aliases) for position, tier in enumerate(written)]
    for position, tier in enumerate(tiers):
        if not issubclass(tier.alias.backend, BaseCache):
            raise ConfigurationError(
                f"OPTIONS['tiers'][{position}] is {tier.name!r}, whose BACKEND is {tier.alias.backend.__qualname__}; "
                "expected one of Storeroom's, or one that is built on storeroom.base.BaseCache."
            )
    for nearer, farther in itertools.pairwise(tiers):
        if nearer.is_shared and not farther.is_shared:
            raise ConfigurationError(
                f"OPTIONS['tiers'] has {nearer.name!r}, which processes share, before {farther.name!r}, which is this "
                "process's own; expected the nearest first: memory, then what a machine shares, then a server."
            )
    return tiers


def _tier(written: str | Mapping[str, Any], position: int, aliases: Mapping[str, Alias] | None) -> Tier:
    if not isinstance(written, str):
        name = f"tier {position}"
        return Tier(name, read_alias(name, written, None), has_alias=False)
    source = caches.source if aliases is None else None
    known: Mapping[str, Any] = source.caches if source else aliases or {}
    if written not in known:
        raise ConfigurationError(
            f"OPTIONS['tiers'][{position}] is {written!r}, and there is no such alias."
            f"{wording.nearest(written, known)} The aliases are {', '.join(map(repr, known))}."
        )
    return Tier(written, read_alias(written, known[written], source.directory) if source else known[written])


def check_tiers(name: str, aliases: Mapping[str, Alias]) -> None:
    """Raise ConfigurationError unless the tiers of an alias make sense among all aliases; nothing is opened."""
    pending: list[tuple[str, ...]] = [(name,)]
    while pending:
        line = pending.pop()
        settings = aliases[line[-1]].settings
        written = () if settings is None else settings.options.get("tiers", ())
        if len(line) == 1 or written:
            for tier in tiers_of(written, aliases):
                if tier.has_alias and tier.name in line:
                    raise _circle((*line, tier.name))
                if tier.has_alias:
                    pending.append((*line, tier.name))


def _circle(line: Sequence[str]) -> ConfigurationError:
    return ConfigurationError(
        f"OPTIONS['tiers'] lead in a circle: {' -> '.join(map(repr, line))}. A tier cannot stand before itself; "
        "name the storage instead."
    )


@contextlib.contextmanager
def opening(tier: Tier) -> Iterator[None]:
    """Be within the opening of a tier: to be opened there again would never end."""
    line = _opening.get()
    if tier.has_alias and tier.name in line:
        raise _circle((*line[line.index(tier.name) :], tier.name))
    token = _opening.set((*line, tier.name) if tier.has_alias else line)
    try:
        yield
    finally:
        _opening.reset(token)
