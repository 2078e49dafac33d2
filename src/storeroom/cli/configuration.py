"""From --config and --alias to a cache."""

import argparse
import sys
from collections.abc import Iterable

from storeroom.base import BaseCache
from storeroom.cli.site import enter
from storeroom.cli.sources import Named, find
from storeroom.exceptions import ConfigurationError, InvalidCacheBackendError, NotSupportedError
from storeroom.registry import caches
from storeroom.registry.aliases import Alias, read_caches
from storeroom.registry.configuration import OwnConfiguration
from storeroom.registry.sources import EMBEDDED_DEFAULT
from storeroom.wording import masked, nearest

__all__ = ["explain_default", "open_alias", "open_cache", "read_alias", "read_aliases", "title"]


def read_aliases(named: Named, names: Iterable[str]) -> dict[str, Alias]:
    """Return all aliases of a configuration, read and checked.

    Raises:
        ConfigurationError: something in the configuration is wrong, or one of `names` is no alias.
    """
    source = named.source
    try:
        aliases = read_caches(source.caches, source.directory)
    except ConfigurationError as error:
        raise type(error)(f"{error}\nThe configuration is that of {source}; `storeroom check` says more.") from error
    for name in names:
        if name not in aliases:
            raise InvalidCacheBackendError(
                f"There is no cache {name!r}; {source} has {', '.join(map(repr, aliases))}.{nearest(name, aliases)}"
            )
    return aliases


def read_alias(args: argparse.Namespace) -> Alias:
    """Return the alias that --alias names, and put its configuration in force: see read_aliases()."""
    named = find(args.config)
    alias = read_aliases(named, [args.alias])[args.alias]
    enter(named, alias)
    # Tiers and fallbacks of the alias are looked up there.
    caches.swap(OwnConfiguration(named.source))
    return alias


def open_alias(alias: Alias, *, needs: str) -> BaseCache:
    """Return a handle that has the method `needs`, with a note where this process sees only its own entries.

    Raises:
        NotSupportedError: the class is not a BaseCache, and has no such method.
    """
    cache = alias.build()
    if not hasattr(cache, needs):
        raise NotSupportedError(f"{type(cache).__qualname__} of cache {alias.name!r} has no {needs}().")
    if not getattr(cache, "is_shared", True):
        what = "stores nothing" if type(cache).__name__ == "DummyCache" else "is in the memory of each process"
        print(f"Note: the cache {alias.name!r} {what}; this command sees none of another's entries.", file=sys.stderr)
    return cache


def open_cache(args: argparse.Namespace, *, needs: str) -> BaseCache:
    """Return the cache that the arguments name: see read_alias() and open_alias()."""
    return open_alias(read_alias(args), needs=needs)


def title(alias: Alias) -> str:
    """Return the name, the class and the location of an alias, for people to read."""
    location = f", {masked(alias.location)}" if alias.location else ""
    return f"Cache {alias.name!r}: {alias.backend.__qualname__}{location}"


def explain_default(args: argparse.Namespace) -> str:
    """Return a sentence for somebody who looks into the embedded default and may mean a program's; else ""."""
    if find(args.config).source.name != EMBEDDED_DEFAULT:
        return ""
    return " Nothing is configured here, so this is the command's own cache; --config names another."
