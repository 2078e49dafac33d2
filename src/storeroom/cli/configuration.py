"""From --config and --alias to a cache: the sources of a program, and those that only a person names."""

import argparse
import sys
from typing import Final

from storeroom.base import BaseCache
from storeroom.cli.site import enter
from storeroom.cli.sources import Named, find
from storeroom.exceptions import ConfigurationError, InvalidCacheBackendError, NotSupportedError
from storeroom.registry import caches
from storeroom.registry.aliases import Alias, read_caches
from storeroom.registry.configuration import OwnConfiguration
from storeroom.wording import nearest

__all__ = [
    "EMBEDDED_DEFAULT",
    "Named",
    "enter_site",
    "explain_default",
    "find",
    "open_alias",
    "open_cache",
    "read_alias",
]

EMBEDDED_DEFAULT: Final = "the embedded default"
"""Name of the source where there is no other: each program has a cache of its own there."""


def read_alias(args: argparse.Namespace) -> Alias:
    """Return the alias that --alias names, read and checked.

    Raises:
        ConfigurationError: something in the configuration is wrong, or there is no such alias.
    """
    named = find(args.config)
    source = named.source
    try:
        aliases = read_caches(source.caches, source.directory)
    except ConfigurationError as error:
        raise type(error)(f"{error}\nThe configuration is that of {source}; `storeroom check` says more.") from error
    if args.alias not in aliases:
        raise InvalidCacheBackendError(
            f"There is no cache {args.alias!r}; {source} has {', '.join(map(repr, aliases))}."
            f"{nearest(args.alias, aliases)}"
        )
    enter_site(named, aliases[args.alias])
    # Tiers and fallbacks of the alias are looked up there.
    caches.swap(OwnConfiguration(source))
    return aliases[args.alias]


def enter_site(named: Named, alias: Alias) -> None:
    """Start Django if the alias is in its database: see site.py."""
    if hasattr(alias.backend, "is_in_site"):
        enter(named, alias)


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


def explain_default(args: argparse.Namespace) -> str:
    """Return a sentence for somebody who looks into the embedded default and may mean a program's; else ""."""
    if find(args.config).source.name != EMBEDDED_DEFAULT:
        return ""
    return " Nothing is configured here, so this is the command's own cache; --config names another."
