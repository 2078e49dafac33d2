"""The types, beyond Python's literals, that a pickle of plain data may hold.

A value of such a type is written as a call of a constructor of this module with plain arguments: the same for every
version of Python. Each accepts no more than the reducer below makes of a real value: fixed types, nothing that can be
iterated for ever, no text that stands for a huge number (``Fraction("1e999999999")``).

A constructor's name is part of the stored form: it is never renamed, nor given another meaning. ``slice`` is missing on
purpose: with one, an assignment within the pickle could fill a list from a range of 10**12 numbers.
"""

import collections
import datetime as dt
import decimal
import fractions
import ipaddress
import pathlib
import socket
import uuid
import zoneinfo
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any, Final, TypeAlias, TypeVar

from storeroom.exceptions import SerializationError
from storeroom.serializers.frames import type_name

__all__ = ["CONSTRUCTORS", "PARSERS", "READERS", "REDUCERS", "Reduction", "new_text", "remembering"]

Reduction: TypeAlias = tuple[Any, ...]
"""The result of ``__reduce__``: a constructor, its arguments, None, list items, dict items."""

_T = TypeVar("_T")

_LONGEST_TEXT: Final = 2**16
"""Characters of a Decimal or a path. A path of many parts takes some 14 times its length in memory."""

_FRACTION_BITS: Final = 2048
"""Numerator and denominator are divided by their greatest common divisor: for these that takes 10 microseconds."""

_FACTORIES: Final = {kind.__name__: kind for kind in (bool, bytes, dict, float, int, list, set, str, tuple)}
"""The functions that may make the missing values of a stored defaultdict."""

_PATHS: Final[Mapping[str, type[pathlib.PurePath]]] = {
    name: getattr(pathlib, name) for name in ("PurePosixPath", "PureWindowsPath", "PosixPath", "WindowsPath")
}
_ADDRESSES: Final[Mapping[str, type[Any]]] = {
    f"IPv{version}{name}": getattr(ipaddress, f"IPv{version}{name}")
    for version in (4, 6)
    for name in ("Address", "Interface", "Network")
}


def _exactly(kind: type[_T], *values: object) -> None:
    for value in values:
        if type(value) is not kind:
            raise TypeError(f"expected {kind.__name__}, found {type(value).__name__}")


def _require_short(text: str) -> None:
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"more than {_LONGEST_TEXT} characters")


def new_text(text: str) -> str:
    """Make a text, of one that was marked as safe for HTML: nobody but its author can vouch for that."""
    _exactly(str, text)
    return text


def new_complex(real: float, imag: float) -> complex:
    """Make a complex number, negative zeros and all."""
    _exactly(float, real, imag)
    return complex(real, imag)


def new_range(start: int, stop: int, step: int) -> range:
    """Make a range; it stays lazy."""
    _exactly(int, start, stop, step)
    return range(start, stop, step)


def new_decimal(text: str) -> decimal.Decimal:
    """Make a Decimal, exact in every context."""
    _exactly(str, text)
    _require_short(text)
    return decimal.Decimal(text)


def new_fraction(numerator: int, denominator: int) -> fractions.Fraction:
    """Make a Fraction in lowest terms, which takes the square of the time of a sum."""
    _exactly(int, numerator, denominator)
    if max(numerator.bit_length(), denominator.bit_length()) > _FRACTION_BITS:
        raise ValueError(f"a fraction of integers of more than {_FRACTION_BITS} bits")
    return fractions.Fraction(numerator, denominator)


# The classes of datetime check by themselves that they get integers. Each field is given by itself, because a single
# argument of bytes would be taken for a pickle's, unchecked: the 255th of the month.


def new_date(year: int, month: int, day: int) -> dt.date:
    """Make a date."""
    return dt.date(year, month, day)


def new_time(tzinfo: dt.tzinfo | None, fold: int, hour: int, minute: int, second: int, us: int) -> dt.time:
    """Make a time of day, to the microsecond."""
    return dt.time(hour, minute, second, us, tzinfo, fold=fold)


def new_datetime(
    tzinfo: dt.tzinfo | None, fold: int, year: int, month: int, day: int, hour: int, minute: int, second: int, us: int
) -> dt.datetime:
    """Make a datetime, to the microsecond."""
    return dt.datetime(year, month, day, hour, minute, second, us, tzinfo, fold=fold)


def new_timedelta(days: int, seconds: int, us: int) -> dt.timedelta:
    """Make a timedelta."""
    _exactly(int, days, seconds, us)  # it would take floats, and round them
    return dt.timedelta(days, seconds, us)


def new_timezone(*offset_and_name: Any) -> dt.timezone:
    """Make a fixed offset from UTC, with or without a name."""
    return dt.timezone(*offset_and_name)


def new_zoneinfo(key: str, cached: bool) -> zoneinfo.ZoneInfo:
    """Make a ZoneInfo by its key; ZoneInfo itself refuses other keys, and paths out of the time zone folders."""
    _exactly(str, key)
    _exactly(bool, cached)
    return zoneinfo.ZoneInfo(key) if cached else _uncached_zone(key)


@lru_cache(maxsize=1024)  # there are some 600; each takes a file to read
def _uncached_zone(key: str) -> zoneinfo.ZoneInfo:
    return zoneinfo.ZoneInfo.no_cache(key)


def new_uuid(number: int, is_safe: int | None) -> uuid.UUID:
    """Make a UUID of its 128-bit number."""
    _exactly(int, number)
    if is_safe is not None:
        _exactly(int, is_safe)
    return uuid.UUID(int=number, is_safe=uuid.SafeUUID(is_safe))


def new_path(kind: str, text: str) -> pathlib.PurePath:
    """Make a path; a concrete one only on the system that it is for."""
    _exactly(str, kind, text)
    _require_short(text)
    return _PATHS[kind](text)


def new_address(kind: str, text: str) -> object:
    """Make an IP address, interface or network, in half the time that `ipaddress` takes to read it."""
    _exactly(str, kind, text)
    if "%" in text:
        return _ADDRESSES[kind](text)
    host, slash, bits = text.partition("/")
    family = socket.AF_INET6 if kind.startswith("IPv6") else socket.AF_INET
    number = int.from_bytes(socket.inet_pton(family, host), "big")
    return _ADDRESSES[kind]((number, int(bits)) if slash else number)


def new_ordered_dict() -> collections.OrderedDict[Any, Any]:
    """Make an empty OrderedDict; the pickle adds the items."""
    return collections.OrderedDict()


def new_counter() -> collections.Counter[Any]:
    """Make an empty Counter; the pickle adds the items. Its ``__init__`` would take ten times as long for that."""
    return collections.Counter.__new__(collections.Counter)


def new_defaultdict(factory: str | None) -> collections.defaultdict[Any, Any]:
    """Make an empty defaultdict; the pickle adds the items."""
    if factory is None:
        return collections.defaultdict(None)
    _exactly(str, factory)
    return collections.defaultdict(_FACTORIES[factory])


def new_deque(maxlen: int | None) -> collections.deque[Any]:
    """Make an empty deque; the pickle adds the items."""
    return collections.deque(maxlen=maxlen)


CONSTRUCTORS: Final[Mapping[str, Callable[..., object]]] = {
    constructor.__name__: constructor
    for constructor in (
        *(new_text, new_complex, new_range, new_decimal, new_fraction),
        *(new_date, new_time, new_datetime, new_timedelta, new_timezone, new_zoneinfo),
        *(new_uuid, new_path, new_address),
        *(new_ordered_dict, new_counter, new_defaultdict, new_deque),
    )
}
"""By the name under which a stored value calls them."""

PARSERS: Final = frozenset({new_path, new_address})
"""Constructors that take microseconds to read a text, and make what does not change."""

READERS: Final = frozenset({new_decimal, new_fraction})
"""Constructors that take time in proportion to the length of their arguments, or more."""


def remembering(parser: Callable[[str, str], object]) -> Callable[[str, str], object]:
    """Return a parser that reads each text once, however often a stream refers to it."""
    remembered = cache(parser)

    def parse(kind: str, text: str) -> object:
        if type(kind) is type(text) is str:  # not hashed before: tuples can be too deep for that
            return remembered(kind, text)
        raise TypeError("expected two texts")

    return parse


def _text_of(value: decimal.Decimal | pathlib.PurePath) -> str:
    text = str(value)
    if len(text) > _LONGEST_TEXT:
        raise SerializationError(
            f"A {type(value).__name__} of {len(text)} characters cannot be stored here; expected {_LONGEST_TEXT} at "
            "most. Store it as a text, or set a secret."
        )
    return text


def _reduce_fraction(value: fractions.Fraction) -> Reduction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _FRACTION_BITS:
        raise SerializationError(
            f"A Fraction of integers of more than {_FRACTION_BITS} bits cannot be stored here. "
            "Store its numerator and denominator, or set a secret."
        )
    return new_fraction, (value.numerator, value.denominator)


def _time_fields(value: dt.time | dt.datetime) -> tuple[int, int, int, int]:
    return value.hour, value.minute, value.second, value.microsecond


def _reduce_datetime(value: dt.datetime) -> Reduction:
    return new_datetime, (value.tzinfo, value.fold, value.year, value.month, value.day, *_time_fields(value))


def _reduce_zoneinfo(value: zoneinfo.ZoneInfo) -> Reduction:
    reduction: Any = value.__reduce__()  # raises PicklingError for one that was read from a file
    key, cached = reduction[1]
    return new_zoneinfo, (key, bool(cached))


def _reduce_defaultdict(value: collections.defaultdict[Any, Any]) -> Reduction:
    factory = value.default_factory
    name = getattr(factory, "__name__", None)
    if factory is not None and _FACTORIES.get(str(name)) is not factory:
        raise SerializationError(
            f"A defaultdict whose default_factory is {name or type(factory).__name__!r} cannot be stored here; "
            f"expected one of {', '.join(_FACTORIES)}. Store dict(value) instead."
        )
    return new_defaultdict, (name,), None, None, iter(value.items())


def _mapping(constructor: Callable[[], object]) -> Callable[[Any], Reduction]:
    def reduce(value: Any) -> Reduction:
        if vars(value):
            raise SerializationError(
                f"A {type_name(type(value))} with attributes of its own cannot be stored here: "
                "only its items would be. Store a plain dict, or set a secret."
            )
        return constructor, (), None, None, iter(value.items())

    return reduce


REDUCERS: Final[Mapping[type, Callable[[Any], Reduction]]] = {
    complex: lambda value: (new_complex, (value.real, value.imag)),
    range: lambda value: (new_range, (value.start, value.stop, value.step)),
    decimal.Decimal: lambda value: (new_decimal, (_text_of(value),)),
    fractions.Fraction: _reduce_fraction,
    dt.date: lambda value: (new_date, (value.year, value.month, value.day)),
    dt.time: lambda value: (new_time, (value.tzinfo, value.fold, *_time_fields(value))),
    dt.datetime: _reduce_datetime,
    dt.timedelta: lambda value: (new_timedelta, (value.days, value.seconds, value.microseconds)),
    dt.timezone: lambda value: (new_timezone, value.__getinitargs__()),
    zoneinfo.ZoneInfo: _reduce_zoneinfo,
    uuid.UUID: lambda value: (new_uuid, (value.int, value.is_safe.value)),
    collections.OrderedDict: _mapping(new_ordered_dict),
    collections.Counter: _mapping(new_counter),
    collections.defaultdict: _reduce_defaultdict,
    collections.deque: lambda value: (new_deque, (value.maxlen,), None, iter(value)),
    **dict.fromkeys(_PATHS.values(), lambda value: (new_path, (type(value).__name__, _text_of(value)))),
    **dict.fromkeys(_ADDRESSES.values(), lambda value: (new_address, (type(value).__name__, str(value)))),
}
"""By exact type: a subclass has state that its constructor would lose."""
