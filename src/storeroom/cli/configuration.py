"""From --config and --alias to a cache: the sources of a program, and those that only a person names."""

import argparse
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final

from storeroom import sources
from storeroom.aliases import Alias, read_caches
from storeroom.base import BaseCache
from storeroom.config import nearest
from storeroom.exceptions import ConfigurationError, InvalidCacheBackendError, NotSupportedError
from storeroom.masking import mask_url
from storeroom.registry import OwnConfiguration, caches
from storeroom.sources import Source

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


@dataclass(frozen=True, slots=True)
class Named:
    """The configuration that was named or found.

    Attributes:
        source: the CACHES dict, and where it is.
        settings: the module that it is in, which may be Django's settings; None elsewhere.
    """

    source: Source
    settings: object | None = None


def find(named: str | None) -> Named:
    """Return the configuration that --config names, or the one that a program would find.

    Args:
        named: the path of a TOML file, the dotted path of a module with CACHES in it or of a
            dict, a URL, or None.

    Raises:
        ConfigurationError: there is none, or it cannot be read.
    """
    if named is None:
        return Named(sources.find_source())
    if "://" in named:
        from storeroom.urls import config_from_url  # noqa: PLC0415 -- urllib, which only a URL needs

        return Named(Source("--config", mask_url(named), {"default": config_from_url(named, where="--config")}))
    if named.endswith(".toml") or (Path(named).is_file() and not named.endswith(".py")):
        return Named(sources.read_file(named, f"--config is {named!r}, which"))
    if re.fullmatch(r"\w+(\.\w+)*", named) and not named.endswith(".py"):
        return _from_module(named)
    name = named.removesuffix(".py").strip("./").replace("/", ".")
    hint = f" For a Python file name the module: --config {name}" if named.endswith(".py") else ""
    raise ConfigurationError(
        f"--config is {named!r}; expected the path of a TOML file, a module such as mysite.settings, or a URL such as "
        f"file:///var/cache/app.{hint}"
    )


def _from_module(path: str) -> Named:
    here = str(Path.cwd())
    if "" not in sys.path and here not in sys.path:
        # As for ``python -m``: a project's modules are found from its own folder.
        sys.path.insert(0, here)
    module, name = _import(path)
    if name and not hasattr(module, name):
        raise ConfigurationError(
            f"--config is {path!r}, but {module.__name__} has no {name!r}.{nearest(name, vars(module))}"
        )
    caches = getattr(module, name or "CACHES", None)
    if not isinstance(caches, Mapping):
        raise ConfigurationError(f"--config is {path!r}; expected a module with CACHES in it, or a dict in a module.")
    settings = module if name in {"", "CACHES"} else None
    return Named(Source(path, getattr(module, "__file__", None) or "", caches), settings)


def _import(path: str) -> tuple[ModuleType, str]:
    """Return the module of this path and "", or the module of the path before its last name, and that name."""
    outer, _, name = path.rpartition(".")
    try:
        parent = import_module(outer) if outer else None
        found = getattr(parent, name, None)
        may_be_module = found is None and hasattr(parent, "__path__")
        if parent is None or may_be_module or isinstance(found, ModuleType):
            return import_module(path), ""
    except ModuleNotFoundError as error:
        is_itself = f"{path}.".startswith(f"{error.name}.")
        hint = " Run this where it can be imported from, or set PYTHONPATH." if is_itself else ""
        raise ConfigurationError(f"--config is {path!r}, which cannot be imported ({error}).{hint}") from error
    except Exception as error:
        # A settings module runs code of its own, which can fail in any way.
        kind = type(error).__name__
        raise ConfigurationError(f"--config is {path!r}, which cannot be imported ({kind}: {error}).") from error
    return parent, name


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
        import_module("storeroom.cli.site").enter(named, alias)


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
