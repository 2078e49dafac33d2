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


def tiers_of(written: Sequence[str | Mapping[str, Any]], source: "_Source") -> list[Tier]:
    """Return the tiers, nearest first.

    Raises:
        ConfigurationError: one does not exist, or cannot be at its position.
    """
    if not written:
        raise ConfigurationError(
            "OPTIONS['tiers'] is missing; a tiered cache needs two tiers or more, nearest first, such as "
            "{'tiers': ['memory', 'redis']}."
        )
    tiers = [source.tier(tier, position) for position, tier in enumerate(written)]
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


def check_tiers(name: str, aliases: Mapping[str, Alias]) -> None:
    """Find out whether the tiers of an alias make sense among all aliases; nothing is opened.

    Raises:
        ConfigurationError: they do not.
    """
    source = _Read(aliases)
    pending: list[tuple[str, ...]] = [(name,)]
    while pending:
        line = pending.pop()
        settings = aliases[line[-1]].settings
        written = () if settings is None else settings.options.get("tiers", ())
        if len(line) == 1 or written:
            for tier in tiers_of(written, source):
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


class _Source:
    """Aliases to look tiers up in."""

    def tier(self, written: str | Mapping[str, Any], position: int) -> Tier:
        """Return one tier."""
        if isinstance(written, str):
            return Tier(written, self.alias(written, position))
        return Tier(f"tier {position}", read_alias(f"tier {position}", written, None), has_alias=False)

    def alias(self, name: str, position: int) -> Alias:
        """Return an alias."""
        raise NotImplementedError


class _Read(_Source):
    """Aliases that have been read together."""

    def __init__(self, aliases: Mapping[str, Alias]) -> None:
        self._aliases = aliases

    def alias(self, name: str, position: int) -> Alias:
        if name not in self._aliases:
            raise _unknown(name, position, self._aliases)
        return self._aliases[name]


class InForce(_Source):
    """The aliases of the configuration in force."""

    def alias(self, name: str, position: int) -> Alias:
        """See _Source."""
        source = caches.source
        if name not in source.caches:
            raise _unknown(name, position, source.caches)
        return read_alias(name, source.caches[name], source.directory)


def _unknown(name: str, position: int, aliases: Mapping[str, Any]) -> ConfigurationError:
    return ConfigurationError(
        f"OPTIONS['tiers'][{position}] is {name!r}, and there is no such alias.{wording.nearest(name, aliases)} "
        f"The aliases are {', '.join(map(repr, aliases))}."
    )
