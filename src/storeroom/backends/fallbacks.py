"""A cache's fallback is checked where its handle is made: CACHES may be another framework's, which knows of none."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from storeroom import registry
from storeroom.exceptions import ConfigurationError
from storeroom.registry.aliases import Alias, read_alias
from storeroom.registry.backend_paths import DJANGO_PATHS
from storeroom.registry.fallbacks import fallback_of, why_no_fallback
from storeroom.registry.source import DJANGO

__all__ = ["check_fallback"]


def check_fallback(options: Mapping[str, Any]) -> None:
    """Raise ConfigurationError if a cache's options name a fallback that could not answer for it.

    The aliases are those in force; of them only those are read that the fallback leads to.
    """
    fallback = fallback_of(options)
    reason = None if fallback is None else why_no_fallback(fallback, _InForce())
    if reason:
        raise ConfigurationError(f"OPTIONS['on_error'] is 'fallback:{fallback}'; {reason}")


class _InForce(Mapping[str, Alias]):
    """The aliases in force, each read when it is asked for: a mistake in one is not another's."""

    def __init__(self) -> None:
        self._source = registry.caches.source

    def __getitem__(self, name: str) -> Alias:
        written = self._source.caches[name]
        if self._source.name == DJANGO and written["BACKEND"] in DJANGO_PATHS:  # there it is Django's own class
            module, _, class_name = written["BACKEND"].rpartition(".")
            written = {**written, "BACKEND": getattr(import_module(module), class_name)}
        return read_alias(name, written, self._source.directory)

    def __iter__(self) -> Iterator[str]:
        return iter(self._source.caches)

    def __len__(self) -> int:
        return len(self._source.caches)

    def __contains__(self, name: object) -> bool:
        return name in self._source.caches
