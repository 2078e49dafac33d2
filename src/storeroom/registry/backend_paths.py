"""From BACKEND to a class: dotted paths, Django's among them, and the reason and the remedy where one fails.

Outside Django the paths that every tutorial shows stand for Storeroom's classes. In a running Django they are
Django's own business, and nobody asks here.
"""

import sys
import warnings
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from storeroom.exceptions import DeprecatedBackendWarning, InvalidCacheBackendError
from storeroom.wording import closest, installation, shown

__all__ = ["DJANGO_PATHS", "EXTRAS", "PATHS", "available_paths", "install_command", "resolve"]

_PACKAGE: Final = "storeroom.backends."
_DJANGO: Final = "django.core.cache.backends."
_REMOVED: Final = "django.core.cache.backends.memcached.MemcachedCache"

_CLASSES: Final = (
    "filebased.FileBasedCache",
    "locmem.LocMemCache",
    "dummy.DummyCache",
    "db.DatabaseCache",
    "memcached.PyMemcacheCache",
    "memcached.PyLibMCCache",
    "redis.RedisCache",
)

PATHS: Final = (*(_PACKAGE + name for name in _CLASSES), _PACKAGE + "tiered.TieredCache")
"""Storeroom's own backends; a version may not have the modules of all of them."""

DJANGO_PATHS: Final[Mapping[str, str]] = {
    **{_DJANGO + name: _PACKAGE + name for name in _CLASSES},
    # Removed in Django 4.1: https://docs.djangoproject.com/en/4.1/releases/4.1/
    _REMOVED: _PACKAGE + "memcached.PyMemcacheCache",
    "django_redis.cache.RedisCache": "storeroom.integrations.django_redis.RedisCache",
}
"""Paths of Django and django-redis, and those they stand for outside Django."""

EXTRAS: Final[dict[str, str]] = {
    "django": "django",
    "hiredis": "redis",
    "lz4": "lz4",
    "msgpack": "msgpack",
    "psycopg": "postgresql",
    "pylibmc": "pylibmc",
    "pymemcache": "memcached",
    "pymysql": "mysql",
    "redis": "redis",
}
"""Top-level module of a driver to the extra that installs it, as in pyproject.toml."""


def _is_there(module: str) -> bool:
    return module in sys.modules or import_module("importlib.util").find_spec(module) is not None


def available_paths() -> list[str]:
    """Return the dotted paths of the backends that this version has; no module is imported."""
    return [path for path in PATHS if _is_there(path.rpartition(".")[0])]


def install_command(module: str) -> str:
    """Return the sentence that tells how to install the package of a missing module."""
    extra = EXTRAS.get(module.partition(".")[0])
    if extra is None:
        return f"Install the package that provides the module {module!r}."
    return installation(extra)


def resolve(backend: Any, alias: str) -> type[Any]:
    """Return the class that BACKEND names.

    Args:
        backend: a dotted path, or the class itself.
        alias: its name in error messages, as in ``CACHES['default']``.

    Raises:
        InvalidCacheBackendError: there is no such class, or a module that it needs is not installed.
    """
    where = f"{alias}['BACKEND']"
    found = backend if isinstance(backend, type) else _import(backend, where)
    for module in getattr(found, "requires", ()):
        if not _is_there(module):
            raise InvalidCacheBackendError(
                f"{where} is {found.__qualname__}, which needs the module {module!r}, and that is not installed. "
                f"{install_command(module)}"
            )
    return found


def _import(backend: Any, where: str) -> type[Any]:
    path = _checked_path(backend, where)
    module_name, _, name = path.rpartition(".")
    if backend == _REMOVED:
        _warn_of_removal(where, path)
    try:
        found = getattr(import_module(module_name), name)
    except ModuleNotFoundError as error:
        raise _missing_module(backend, path, error, where) from error
    except ImportError as error:
        raise InvalidCacheBackendError(f"{where} is {backend!r}, which cannot be imported ({error}).") from error
    except AttributeError as error:
        raise InvalidCacheBackendError(
            f"{where} is {backend!r}, but the module {module_name!r} has no {name!r}.{_nearest_path(backend)} "
            "Expected the dotted path of a class."
        ) from error
    if not isinstance(found, type):
        raise InvalidCacheBackendError(f"{where} is {backend!r}, which is {shown(found)}; expected a class.")
    return found


def _checked_path(backend: Any, where: str) -> str:
    """Return the dotted path of Storeroom's class where BACKEND names one of Django's, else BACKEND itself."""
    expected = f"expected the dotted path of a class, such as {PATHS[0]!r}"
    if not isinstance(backend, str):
        raise InvalidCacheBackendError(f"{where} is {shown(backend)}; {expected}, or the class itself.")
    path = DJANGO_PATHS.get(backend, backend)
    if "." not in path or not all(part.isidentifier() for part in path.split(".")):
        raise InvalidCacheBackendError(f"{where} is {backend!r}; {expected}.{_nearest_path(backend)}")
    return path


def _missing_module(backend: str, path: str, error: ModuleNotFoundError, where: str) -> InvalidCacheBackendError:
    module_name, missing = path.rpartition(".")[0], error.name or ""
    if path in PATHS and missing == module_name:
        stands_for = "" if backend == path else f", which stands for {path!r} outside Django"
        return InvalidCacheBackendError(
            f"{where} is {backend!r}{stands_for}; this version of Storeroom does not have that backend yet. "
            f"It has: {', '.join(available_paths())}."
        )
    if f"{module_name}.".startswith(f"{missing}."):
        return InvalidCacheBackendError(
            f"{where} is {backend!r}, but there is no module {missing!r}.{_nearest_path(backend)} "
            f"Expected the dotted path of a class; Storeroom has: {', '.join(available_paths())}."
        )
    return InvalidCacheBackendError(
        f"{where} is {backend!r}, which needs the module {missing!r}, and that is not installed. "
        f"{install_command(missing)}"
    )


def _nearest_path(backend: str) -> str:
    """Return a hint at the known path whose end is most like this one's; common beginnings make all paths alike."""
    known = [*available_paths(), *(path for path, ours in DJANGO_PATHS.items() if ours in available_paths())]
    ends: dict[str, str] = {}
    for path in known:
        _, module, name = path.rsplit(".", 2)
        for end in (f"{module}.{name}", module, name):
            ends.setdefault(end.lower(), f"{module}.{name}")
    found = closest(".".join(backend.rsplit(".", 2)[-2:]).lower(), ends, cutoff=0.75)
    same_end = [path for path in known if path.endswith(ends[found])] if found else []
    return f" Did you mean {closest(backend, same_end, cutoff=0.0)!r}?" if same_end else ""


def _warn_of_removal(where: str, path: str) -> None:
    level, frame = 2, sys._getframe(1)  # noqa: SLF001 -- to blame the caller's line, not one of Storeroom's
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "storeroom":
        level, frame = level + 1, frame.f_back
    warnings.warn(
        f"{where} is {_REMOVED!r}, which Django removed in 4.1; {path!r} takes its place. Write that path instead.",
        DeprecatedBackendWarning,
        stacklevel=level,
    )
