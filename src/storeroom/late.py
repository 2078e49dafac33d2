"""Parts of the standard library that a first read does without, loaded when something needs them.

``dataclasses`` alone takes as long as all of a first read may, and ``logging`` half as long. Modules that every cache
loads have their records, loggers and patterns from here: those of the standard library, but late. Type checkers see the
originals.
"""

import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

__all__ = ["compiled_module", "field", "logger_of", "names_of", "pattern", "record", "replaced"]

T = TypeVar("T")


def names_of(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package that loads some of its names late: see PEP 562.

    Args:
        package: its name.
        homes: name to the module in it that defines it; a module's own name leads to the module.
    """
    namespace = vars(sys.modules[package])

    def attribute(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(f"{package}.{homes[name]}")
        return namespace.setdefault(name, module if homes[name] == name else getattr(module, name))

    return attribute, lambda: sorted({*namespace, *homes})


def compiled_module(name: str) -> Any:
    """Return a module of compiled forms; None where it was not built, or STOREROOM_PURE asks for none."""
    if os.environ.get("STOREROOM_PURE", "0") not in {"", "0"}:
        return None
    try:
        return import_module(name)
    except ModuleNotFoundError:  # one that is broken is an error
        return None


_NONE: Final = object()
"""The default of a field that has none."""


class _Field:
    """One field of a record: its default, and whether it is shown and compared."""

    def __init__(self, default: Any = _NONE, **options: bool) -> None:
        self.default = default
        self.is_shown, self.is_compared = options.get("repr", True), options.get("compare", True)


class _Record:
    """Base of all records."""

    __slots__ = ()
    _fields: ClassVar[dict[str, _Field]]
    _compared: ClassVar[Any]

    def __eq__(self, other: object) -> bool:
        return self._compared(self) == self._compared(other) if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._compared(self))

    def __repr__(self) -> str:
        shown = [f"{name}={getattr(self, name)!r}" for name, each in self._fields.items() if each.is_shown]
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def __setattr__(self, name: str, value: object) -> None:
        raise import_module("dataclasses").FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise import_module("dataclasses").FrozenInstanceError(f"cannot delete field {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, name) for name in self._fields)


class _Dataclass:
    """``__dataclass_fields__`` of a record: ``dataclasses`` looks there, and finds what it would have made itself."""

    def __get__(self, _: object, kind: Any) -> Any:
        dataclasses = import_module("dataclasses")
        body = {"__annotations__": kind.__annotations__, "__module__": kind.__module__}
        for name, each in kind._fields.items():
            default = dataclasses.MISSING if each.default is _NONE else each.default
            body[name] = dataclasses.field(default=default, repr=each.is_shown, compare=each.is_compared)
        made = dataclasses.dataclass(frozen=True)(type(kind.__name__, (), body))
        kind.__dataclass_params__, kind.__dataclass_fields__ = made.__dataclass_params__, made.__dataclass_fields__
        return made.__dataclass_fields__


def _constructor(fields: dict[str, _Field], hints: dict[str, Any]) -> Any:
    """Return ``__init__``, compiled of a line for each field; all other methods have their base in common."""
    names: dict[str, Any] = {"_set": object.__setattr__, "_fields": fields}
    parameters = [
        name if each.default is _NONE else f"{name}=_fields[{name!r}].default" for name, each in fields.items()
    ]
    lines = "".join(f"\n    _set(self, {name!r}, {name})" for name in fields)
    exec(f"def __init__(self, {', '.join(parameters)}):{lines}", names)
    names["__init__"].__annotations__ = hints | {"return": None}
    return names["__init__"]


def _made(kind: type[Any]) -> type[Any]:
    given, hints = dict(vars(kind)), kind.__annotations__
    values = {name: given.pop(name, _NONE) for name in hints}
    fields = {name: value if isinstance(value, _Field) else _Field(value) for name, value in values.items()}
    compared = attrgetter(*[name for name, each in fields.items() if each.is_compared])
    body = {name: value for name, value in given.items() if name not in ("__dict__", "__weakref__")}
    body |= {"__slots__": tuple(hints), "__match_args__": tuple(hints), "_fields": fields, "_compared": compared}
    body |= {"__init__": _constructor(fields, hints), "__dataclass_fields__": _Dataclass()}
    return type(kind.__name__, (_Record,), body)


def replaced(record: T, **changes: Any) -> T:
    """Return a copy of a record with other values in some fields, as ``dataclasses.replace()`` does."""
    made: Any = record
    return type(record)(**{name: getattr(record, name) for name in made._fields} | changes)


class _Logger:
    """A logger of this name, whose module is loaded by its first message."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module("logging").getLogger(self._name), name)


class _Pattern:
    """A regular expression that is compiled by its first use."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __getattr__(self, name: str) -> Any:
        value = getattr(import_module("re").compile(self._text), name)
        setattr(self, name, value)  # found at once from now on
        return value


if TYPE_CHECKING:
    import logging
    import re
    from dataclasses import dataclass as record
    from dataclasses import field

    logger_of, pattern = logging.getLogger, re.compile
else:
    field, logger_of, pattern = _Field, _Logger, _Pattern

    def record(*, frozen: bool, slots: bool) -> Any:
        """Make a record of a class: a frozen dataclass with slots, as both keywords have to say."""
        if not (frozen and slots):
            raise TypeError("a record is frozen and has slots; take dataclasses.dataclass for another one.")
        return _made
