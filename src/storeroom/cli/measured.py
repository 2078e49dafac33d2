"""Advice that running programs have left, as far as the configuration does not follow it yet: for `storeroom check`."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from storeroom.base import BaseCache
from storeroom.exceptions import StoreroomError
from storeroom.recording.left import left
from storeroom.registry.aliases import Alias, read_caches
from storeroom.registry.source import Source

__all__ = ["advised"]

_SETTINGS: Final = {"OPTIONS['max_entries']": "max_entries", "OPTIONS['near']": "near"}


def advised(source: Source) -> Iterator[Mapping[str, Any]]:
    """Yield the changes that were advised: alias, setting, before, after and effect of each.

    Only caches whose OPTIONS["advise"] is set are read, and nothing is made: a directory that is absent is passed by.
    """
    with suppress(StoreroomError, OSError):
        aliases = read_caches(source.caches, source.directory)
        for alias in aliases.values():
            if _may_have_advice(alias):
                yield from _of(alias)


def _may_have_advice(alias: Alias) -> bool:
    settings, kind = alias.settings, alias.backend
    if settings is None or not settings.options.get("advise") or not issubclass(kind, BaseCache) or not kind.is_shared:
        return False
    is_in_site = getattr(kind, "is_in_site", None)
    if is_in_site is not None and is_in_site(alias.location, settings):
        return False
    return not kind.async_inline or Path(alias.location).is_dir()


def _of(alias: Alias) -> Iterator[Mapping[str, Any]]:
    note = None
    with suppress(StoreroomError, OSError):
        note = left(alias.build())
    for change in [] if note is None else note["changes"]:
        if _now(alias.settings, change["setting"]) == change["before"]:
            yield {"alias": alias.name, **change}


def _now(settings: Any, setting: str) -> Any:
    return settings.options.get(_SETTINGS[setting]) if setting in _SETTINGS else settings.timeout
