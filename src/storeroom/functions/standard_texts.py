"""The texts of values of the standard library, beside those that every program passes: see ``argument_text``."""

import array
import collections
import datetime as dt
import ipaddress
import re
import types
import typing
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from typing import Any, Final, TypeAlias
from zoneinfo import ZoneInfo

from storeroom.exceptions import UnkeyableArgumentError

__all__ = ["READABLE", "Text", "standard_text", "standard_writers"]

Text: TypeAlias = Callable[[Any], str]
"""A function from a value to its text, text_of() among them."""

READABLE: Final[tuple[type, ...]] = (
    Fraction, ZoneInfo,
    ipaddress.IPv4Address, ipaddress.IPv4Interface, ipaddress.IPv4Network,
    ipaddress.IPv6Address, ipaddress.IPv6Interface, ipaddress.IPv6Network,
)  # fmt: skip
"""Types whose str() tells their values apart."""


def standard_writers(text_of: Text) -> Mapping[type, Text]:
    """Return type to the function that writes a value of it; `text_of` writes the parts."""

    def of(name: str, *parts: Callable[[Any], Any]) -> Text:
        """Write a name, and the parts of the value in brackets."""
        return lambda value: f"{name}({', '.join(text_of(part(value)) for part in parts)})"

    return {
        range: lambda value: f"range({value.start}, {value.stop}, {value.step})",
        slice: of("slice", lambda value: value.start, lambda value: value.stop, lambda value: value.step),
        bytearray: of("bytearray", bytes),
        memoryview: of("memoryview", lambda value: value.format, lambda value: value.shape, bytes),
        array.array: of("array", lambda value: value.typecode, list),
        collections.deque: of("deque", list, lambda value: value.maxlen),
        collections.OrderedDict: of("OrderedDict", lambda value: list(value.items())),
        collections.Counter: of("Counter", dict),
        collections.defaultdict: of("defaultdict", lambda value: value.default_factory, dict),
        types.MappingProxyType: of("mappingproxy", dict),
        types.SimpleNamespace: of("SimpleNamespace", vars),
        type({}.keys()): of("dict_keys", set),
        type({}.values()): of("dict_values", list),
        type({}.items()): of("dict_items", dict),
        re.Pattern: of("Pattern", lambda value: value.pattern, lambda value: int(value.flags)),
        ZoneInfo: _zone,
        dt.timezone: of("timezone", lambda value: value.utcoffset(None), lambda value: value.tzname(None)),
        type(...): repr,
        type(NotImplemented): repr,
        types.ModuleType: lambda value: f"module({text_of(value.__name__)})",
        types.FunctionType: _function,
        types.BuiltinFunctionType: _function,
        types.MethodType: lambda value: f"{text_of(value.__self__)}.{value.__name__}",
        partial: of("partial", lambda value: value.func, lambda value: value.args, lambda value: value.keywords),
    }


def standard_text(value: Any, text_of: Text) -> str | None:
    """Return the text of a type with parameters, such as ``list[int]`` or ``int | None``; None for another value."""
    origin = typing.get_origin(value)
    if origin is None:
        return None
    arguments = list(map(text_of, typing.get_args(value)))
    if origin in (typing.Union, types.UnionType):  # two spellings of one type, whose order is free
        return f"Union[{', '.join(sorted(arguments))}]"
    # The forms of `typing` are classes in some versions of Python only.
    name = f"typing.{origin.__name__}" if origin.__module__ == "typing" else text_of(origin)
    return f"{name}[{', '.join(arguments)}]"


def _zone(value: ZoneInfo) -> str:
    if value.key is None:
        raise UnkeyableArgumentError("a ZoneInfo without a name")
    return f"ZoneInfo('{value.key}')"


def _function(value: Any) -> str:
    """Write a function that every process finds by its name."""
    owner = getattr(value, "__self__", None)
    if value.__module__ in ("__main__", "__mp_main__"):
        raise UnkeyableArgumentError(f"{value.__qualname__}, a function of the main module, which differs by program")
    if "<" in value.__qualname__ or not (owner is None or isinstance(owner, types.ModuleType)):
        raise UnkeyableArgumentError(f"{value.__qualname__}, a function that cannot be imported by its name")
    return f"{value.__module__}.{value.__qualname__}"
