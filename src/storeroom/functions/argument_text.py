"""A value as a text that tells it from every other value, for keys made of a function's arguments.

The text is the same in every process and on every version of Python, reads like the value itself, and tells types
apart: ``1``, ``'1'``, ``True`` and ``1.0`` are four texts. A value without such a text is refused: a default ``repr()``
holds an address, and would make a key that is never found again.

======================================================  ========================================
value                                                   text
======================================================  ========================================
None, bool, int, float, str, bytes                      as in Python: ``7``, ``'Ada'``
tuple, list, dict, set, frozenset of such               as in Python, dicts and sets in order
date, time, datetime, timedelta, Decimal, UUID, paths   ``Decimal('1.50')``
members of an Enum                                      ``shop.Color.RED``
dataclasses that compare by their fields                ``shop.Point(x=1, y=2)``
named tuples, strings marked as safe and the like       ``shop.Pair((1, 2))``
classes                                                 ``shop.User``
values with a method ``__cache_key__()``                ``shop.User(7)``, by its result
more of the standard library: ``standard_texts``        ``deque([1, 2], None)``
NumPy, pandas, attrs and the like: ``foreign_texts``    ``numpy.int64(7)``
======================================================  ========================================
"""

from collections.abc import Callable, Iterable
from dataclasses import fields
from enum import Enum
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from storeroom.exceptions import UnkeyableArgumentError
from storeroom.functions import origin

__all__ = ["class_name", "has_own_str", "plain_text", "text_of"]


def text_of(value: Any) -> str:
    """Return the text of a value.

    Raises:
        UnkeyableArgumentError: it has none. The message names the value without one: "an instance of …".

    >>> text_of(7), text_of("7"), text_of({"b": (1, None), "a": [True]})
    ('7', "'7'", "{'a': [True], 'b': (1, None)}")
    """
    write = _WRITERS.get(type(value))
    return write(value) if write is not None else _other(value)


def plain_text(value: Any) -> str:
    """Return the text of a value for the eye: strings without quotes, dates as str() writes them.

    Raises:
        UnkeyableArgumentError: see text_of().

    >>> plain_text("Ada"), plain_text(7), plain_text(("Ada", 7))
    ('Ada', '7', "('Ada', 7)")
    """
    if isinstance(value, str):  # members of an Enum, too
        return str.__str__(value)
    if isinstance(value, int) and isinstance(value, Enum):
        return int.__repr__(value)
    if type(value) in _WRITERS:
        return text_of(value)
    if type(value) in _readable():
        return str(value)
    standard = _foreign().stands_for(value)
    return text_of(value) if standard is value else plain_text(standard)


def _quoted(value: str) -> str:
    # Not repr(): versions of Python differ in the characters that it escapes.
    if "'" in value or "\\" in value:
        value = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{value}'"


def _sequence(value: Iterable[Any]) -> str:
    return ", ".join(map(text_of, value))


def _in_order(value: Iterable[Any]) -> str:
    return ", ".join(sorted(map(text_of, value)))


def _dict(value: dict[Any, Any]) -> str:
    return f"{{{', '.join(sorted(f'{text_of(key)}: {text_of(item)}' for key, item in value.items()))}}}"


_WRITERS: Final[dict[type, Callable[[Any], str]]] = {
    str: _quoted,
    int: int.__repr__,
    bool: bool.__repr__,
    type(None): repr,
    float: float.__repr__,
    complex: complex.__repr__,
    bytes: bytes.__repr__,
    tuple: lambda value: f"({_sequence(value)})",
    list: lambda value: f"[{_sequence(value)}]",
    dict: _dict,
    set: lambda value: f"set({_in_order(value)})",
    frozenset: lambda value: f"frozenset({_in_order(value)})",
}

_IMMUTABLE: Final = (str, int, float, complex, bytes, tuple)


@cache
def _more_writers() -> dict[type, Callable[[Any], str]]:
    """Return the writers of the standard library's types; their modules are loaded when the first such value comes."""
    datetime, pathlib = map(import_module, ("datetime", "pathlib"))
    paths = (pathlib.PurePosixPath, pathlib.PureWindowsPath, type(pathlib.Path()))
    return {
        **dict.fromkeys(_readable(), lambda value: f"{type(value).__name__}('{value}')"),
        **_standard().standard_writers(text_of),
        **dict.fromkeys(paths, lambda value: f"{type(value).__name__}({_quoted(str(value))})"),
        **dict.fromkeys((datetime.time, datetime.datetime), _moment),
    }


@cache
def _readable() -> frozenset[type]:
    """Return the types of the standard library whose str() tells their values apart."""
    datetime, decimal, pathlib, uuid = map(import_module, ("datetime", "decimal", "pathlib", "uuid"))
    dates = datetime.date, datetime.time, datetime.datetime, datetime.timedelta
    paths = pathlib.PurePosixPath, pathlib.PureWindowsPath, type(pathlib.Path())
    return frozenset((*dates, *paths, decimal.Decimal, uuid.UUID, *_standard().READABLE))


@cache
def _standard() -> ModuleType:
    """Return the module of more values of the standard library; few programs need it."""
    return import_module("storeroom.functions.standard_texts")


@cache
def _foreign() -> ModuleType:
    """Return the module of other packages' values."""
    return import_module("storeroom.functions.foreign_texts")


def _moment(value: Any) -> str:
    """Write a time or datetime: one moment in two time zones is two values, as is an hour that comes twice."""
    name, zone, fold = type(value).__name__, value.tzinfo, ", fold=1" if value.fold else ""
    if zone is None:
        return f"{name}('{value}'{fold})"
    if not has_own_str(type(zone)):
        raise UnkeyableArgumentError(f"a {name} whose time zone has no name")
    return f"{name}('{value}', {_quoted(str(zone))}{fold})"


def _other(value: Any) -> str:
    """Write a value that is no literal."""
    kind = type(value)
    if kind in _more_writers():
        return _more_writers()[kind](value)
    if isinstance(value, type):
        return class_name(value)
    name = class_name(kind)
    if hasattr(kind, "__cache_key__"):
        return f"{name}({text_of(value.__cache_key__())})"
    if isinstance(value, Enum):
        # A combination of flags may have no name.
        return f"{name}({text_of(value.value)})" if value.name is None else f"{name}.{value.name}"
    if "__dataclass_fields__" in vars(kind) and kind.__dataclass_params__.eq:
        compared = (field.name for field in fields(value) if field.compare)
        return f"{name}({', '.join(f'{field}={text_of(getattr(value, field))}' for field in compared)})"
    text = _of_immutable(value, name) or _standard().standard_text(value, text_of)
    text = text or _foreign().foreign_text(value, name, text_of)
    if text is None:
        raise UnkeyableArgumentError(f"an instance of {_named(kind.__module__, kind)}")
    return str(text)


def _of_immutable(value: Any, name: str) -> str | None:
    """Write an instance of a subclass of a literal's type that adds no state, which the text would leave out."""
    base = next((base for base in type(value).__mro__ if base in _IMMUTABLE), None)
    return None if base is None or object.__getstate__(value) else f"{name}({_WRITERS[base](value)})"


def has_own_str(kind: Any) -> bool:
    """Tell whether str() of a class's instances is more than an address."""
    return not (kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__)


def class_name(kind: type) -> str:
    """Return a class's module and name; the path of a program in place of ``__main__``, as each has a module of it.

    Raises:
        UnkeyableArgumentError: it was made within a function: another call may make another of this name.
    """
    if "<locals>" in kind.__qualname__:
        raise UnkeyableArgumentError(f"something of {kind.__qualname__}, a class within a function")
    return _named(origin.main_module() if kind.__module__ in origin.MAIN else kind.__module__, kind)


def _named(module: str, kind: type) -> str:
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
