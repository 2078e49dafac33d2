"""From --config and --alias to a cache.

--config names a TOML file, a module, a URL, or, left out, the source that a program would find. Only a running Django
knows the database of its site: it is started for a cache in there alone. For any other its settings are read, and no
code of the site runs.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from storeroom.base import BaseCache
from storeroom.cli.output import plain
from storeroom.exceptions import ConfigurationError, InvalidCacheBackendError, NotSupportedError
from storeroom.late import pattern, record, replaced
from storeroom.registry import caches, sources
from storeroom.registry.aliases import Alias, read_caches
from storeroom.registry.backend_paths import DJANGO_PATHS, install_command
from storeroom.registry.configuration import OwnConfiguration
from storeroom.registry.program import find_owner
from storeroom.registry.source import DJANGO, EMBEDDED_DEFAULT, Source
from storeroom.wording import mask_url, masked, nearest

__all__ = [
    "Named", "enter", "explain_default", "find", "open_alias", "open_cache", "read_alias", "read_aliases", "title",
]  # fmt: skip


_DOTTED: Final = pattern(r"\w+(\.\w+)*")


@record(frozen=True, slots=True)
class Named:
    """The configuration that was named or found."""

    source: Source
    settings: object | None = None  # the module that has it, which may be Django's settings


def find(named: str | None) -> Named:
    """Return the configuration that --config names, or the one that a program would find.

    Args:
        named: the path of a TOML file, the dotted path or the file of a module with CACHES in it, the dotted path of a
            dict, a URL, or None.

    Raises:
        ConfigurationError: there is none, or it cannot be read.
    """
    if named is None:
        return _in_force(sources.find_source())
    if "://" in named:
        default = import_module("storeroom.registry.urls").config_from_url(named, where="--config")
        return Named(Source("--config", mask_url(named), {"default": default}))
    if named.endswith(".toml") or (os.path.isfile(named) and not named.endswith(".py")):
        return Named(sources.read_file(named, f"--config is {mask_url(named)!r}, which"))
    if named.endswith(".py"):
        return _from_file(named)
    if _DOTTED.fullmatch(named):
        return _from_module(named, os.getcwd())
    raise ConfigurationError(
        f"--config is {mask_url(named)!r}; expected the path of a TOML file, a module such as mysite.settings or "
        "mysite/settings.py, or a URL such as file:///var/cache/app."
    )


def _in_force(source: Source) -> Named:
    """Return a source that was found: in a running Django, with its settings, and its own classes under their paths."""
    if source.name != DJANGO:
        return Named(source)
    own = {name: _with_own_class(written) for name, written in source.caches.items()}
    return Named(replaced(source, caches=own), sys.modules["django.conf"].settings)


def _with_own_class(written: Any) -> Any:
    path = written.get("BACKEND") if isinstance(written, Mapping) else None
    if not isinstance(path, str) or path not in DJANGO_PATHS:
        return written
    module, _, name = path.rpartition(".")
    return {**written, "BACKEND": getattr(import_module(module), name)}


def _from_file(path: str) -> Named:
    """Return the caches of a module by its file, which lies in as many packages as have an ``__init__.py``."""
    file = import_module("pathlib").Path(path).resolve()
    if not file.is_file():
        raise ConfigurationError(f"--config is {path!r}, which cannot be read (No such file).")
    names, folder = [file.stem], file.parent
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    if not all(map(str.isidentifier, names)):
        raise ConfigurationError(f"--config is {path!r}, which no name of a module leads to; expected such a one.")
    return _from_module(".".join(names), str(folder))


def _from_module(path: str, root: str) -> Named:
    """Return the caches of a module, or of a dict in one, that is found from a folder."""
    if root not in sys.path and not ("" in sys.path and root == os.getcwd()):
        # As for ``python -m``: a project's modules are found from its own folder.
        sys.path.insert(0, root)
    module, name = _import(path)
    if name and not hasattr(module, name):
        hint = nearest(name, vars(module))
        raise ConfigurationError(f"--config is {path!r}, but {module.__name__} has no {name!r}.{hint}")
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


def enter(named: Named, alias: Alias) -> None:
    """Start Django if the alias is in its database.

    Raises:
        InvalidCacheBackendError: Django is not installed.
        NotSupportedError: the alias is on Django's own class.
    """
    is_in_site = getattr(alias.backend, "is_in_site", None)
    if (
        named.source.name == DJANGO
        or is_in_site is None
        or not hasattr(named.settings, "DATABASES")
        or not is_in_site(alias.location, alias.settings)
    ):
        return
    if named.source.caches[alias.name]["BACKEND"] in DJANGO_PATHS:
        raise NotSupportedError(
            f"The cache {alias.name!r} is on Django's own class, whose table is another one. Set its BACKEND to "
            "'storeroom.backends.db.DatabaseCache', or use Django's commands."
        )
    if import_module("importlib.util").find_spec("django") is None:
        raise InvalidCacheBackendError(
            f"The cache {alias.name!r} is in the database of a Django site, which Django has to tell, and that is not "
            f"installed. {install_command('django')}"
        )
    if isinstance(named.settings, ModuleType):
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", named.settings.__name__)
    import_module("django").setup()


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
    location = f", {plain(str(masked(alias.location)))}" if alias.location else ""
    return f"Cache {alias.name!r}: {alias.backend.__qualname__}{location}"


def explain_default(args: argparse.Namespace) -> str:
    """Return a sentence for somebody who looks into the embedded default and may mean a program's; else ""."""
    if find(args.config).source.name != EMBEDDED_DEFAULT:
        return ""
    return f" Nothing is configured here, so this is the cache of {find_owner()}; --config names another."
