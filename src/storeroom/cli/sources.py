"""From --config to a CACHES dict: a TOML file, a module, a URL, or a source that a program would find."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from storeroom.exceptions import ConfigurationError
from storeroom.registry import config_from_url, sources
from storeroom.registry.sources import Source
from storeroom.wording import mask_url, nearest

__all__ = ["Named", "find"]


@dataclass(frozen=True, slots=True)
class Named:
    """The configuration that was named or found."""

    source: Source
    settings: object | None = None  # the module that has it, which may be Django's settings


def find(named: str | None) -> Named:
    """Return the configuration that --config names, or the one that a program would find.

    Args:
        named: the path of a TOML file, the dotted path of a module with CACHES in it or of a dict, a URL, or None.

    Raises:
        ConfigurationError: there is none, or it cannot be read.
    """
    if named is None:
        return Named(sources.find_source())
    if "://" in named:
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
