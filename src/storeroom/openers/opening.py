"""The class of the names in this package: a call makes the cache that it stands for."""

import re
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Final

from storeroom.exceptions import ConfigurationError
from storeroom.timeouts import DEFAULT_TIMEOUT

__all__ = ["Opening", "stands_for"]

_SETTINGS: Final = frozenset({"timeout", "key_prefix", "version", "key_function"})

_CLASSES: Final = {
    "db": ("DatabaseCache",),
    "dummy": ("DummyCache",),
    "filebased": ("FileBasedCache",),
    "locmem": ("LocMemCache",),
    "memcached": ("PyMemcacheCache", "PyLibMCCache"),
    "redis": ("RedisCache",),
    "tiered": ("TieredCache",),
}
"""The classes of each module of backends."""


class Opening(type):
    """The class of a name that stands for a backend's class."""

    path = ""

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> None:
        """Refuse to be derived from: a call returns the backend's own object."""
        super().__init__(name, bases, namespace)
        if cls.__module__ != "storeroom.openers":
            raise TypeError(f"{name} cannot be derived from storeroom.{bases[0].__name__}; derive it from {cls.path}.")

    def __call__(cls, *args: Any, **given: Any) -> Any:
        """Return a cache of these settings and options, read and checked as an alias of CACHES."""
        inspect = import_module("inspect")
        try:
            bound = inspect.signature(cls).bind(*args, **given)
        except TypeError as error:
            raise TypeError(f"{cls.__name__}(): {error}") from None
        bound.apply_defaults()
        named = dict(bound.arguments)
        return _opened(cls.__name__, cls.path, named.pop("options"), named)

    def __instancecheck__(cls, instance: object) -> bool:
        """Tell whether an object is a cache of the backend that this stands for."""
        module, _, name = cls.path.rpartition(".")
        return isinstance(instance, getattr(import_module(module), name))

    @property
    def __signature__(cls) -> Any:
        """The arguments."""
        inspect = import_module("inspect")
        init = inspect.signature(vars(cls)["__init__"])
        return init.replace(parameters=[*init.parameters.values()][1:], return_annotation=cls)


def _opened(name: str, path: str, options: dict[str, Any], named: dict[str, Any]) -> Any:
    params = {"BACKEND": path, "LOCATION": named.pop("location", "")}
    params |= {each.upper(): value for each in _SETTINGS if _is_given(value := named.pop(each))}
    params["OPTIONS"] = {**named, **options}
    try:
        return import_module("storeroom.registry.aliases").read_alias(name, params, None).build()
    except ConfigurationError as error:
        raise type(error)(_for_call(str(error), name)) from error


def _is_given(value: object) -> bool:
    return value is not DEFAULT_TIMEOUT


def _for_call(text: str, name: str) -> str:
    """Return an error's text with the arguments of the call in place of the items of CACHES."""
    where = re.escape(f"CACHES[{name!r}]")
    text = re.sub(rf"{where}(?:\['OPTIONS'\])?\['(\w+)'\]", lambda item: f"{name}({_argument(item[1])}=...)", text)
    return re.sub(rf"{where}(?:\['OPTIONS'\])?", f"{name}()", text)


def _argument(item: str) -> str:
    return item.lower() if item.lower() in _SETTINGS | {"location"} else item


def stands_for(module: str) -> Any:
    """Return a namespace with a base for each class of a module of backends, which is not loaded."""
    path = f"storeroom.backends.{module}."
    return SimpleNamespace(
        **{name: _base(name, {"path": path + name, "__module__": "storeroom.openers"}) for name in _CLASSES[module]}
    )


def _base(name: str, namespace: dict[str, Any]) -> type:
    return Opening(name, (), namespace)
