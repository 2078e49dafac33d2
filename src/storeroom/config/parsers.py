"""One option of an alias, and the parsers of its values.

A parser raises ValueError whose text is the expectation ("a whole number, at least 0");
``settings`` makes a sentence of it.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from storeroom import timeouts
from storeroom.exceptions import ConfigurationError, InvalidTimeoutError
from storeroom.late import pattern, record
from storeroom.wording import mask_url

__all__ = [
    "Option", "boolean", "finite_size", "is_none", "number", "one_of", "require_path", "seconds", "size", "staleness",
    "text", "unchecked", "whole_number",
]  # fmt: skip

_SIZE_UNITS: Final = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}


@record(frozen=True, slots=True)
class Option:
    """One entry that a backend accepts in OPTIONS.

    Attributes:
        parse: turns the written value into the one used; raises ValueError, as said above.
        default: the value used where the option is not given; not parsed.
        meaning: one sentence for the configuration reference, with the unit.
    """

    parse: Callable[[Any], Any]
    default: Any
    meaning: str


def is_none(value: Any) -> bool:
    """Tell whether None was meant, which a URL and a TOML file can only write as a word."""
    return value is None or (isinstance(value, str) and value.strip().lower() == "none")


def _whole(value: Any) -> Any:
    """Return a whole number that is written as a float, such as 1e6, as an int; all else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def whole_number(minimum: int = 0, *, none_means: str | None = None) -> Callable[[Any], int | None]:
    """Return a parser of whole numbers; `none_means` tells the meaning of None, if that is allowed."""
    expectation = f"a whole number, at least {minimum}" + (f", or None for {none_means}" if none_means else "")

    def parse(value: Any) -> int | None:
        if none_means and is_none(value):
            return None
        if isinstance(value, str) and value.strip().removeprefix("-").isdecimal():
            value = int(value)
        value = _whole(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise ValueError(expectation)
        return value

    return parse


def number(minimum: float = 0.0) -> Callable[[Any], float]:
    """Return a parser of numbers that are at least `minimum`."""

    def parse(value: Any) -> float:
        try:
            parsed = float(value)
        except (TypeError, ValueError, OverflowError):
            parsed = float("nan")
        if isinstance(value, bool) or not parsed >= minimum:
            raise ValueError(f"a number, at least {minimum:g}")
        return parsed

    return parse


def size(value: Any) -> int | None:
    """Parse a size in bytes: a number, or words such as "64MB" (1 MB is 1024 KB); None is no bound."""
    expectation = 'a size in bytes, such as 1048576, "64MB" or "1GiB", or None for no bound'
    if is_none(value):
        return None
    if isinstance(value, str):
        words = value.strip().lower().removesuffix("ib").removesuffix("b").strip()
        digits = words.rstrip("kmgt")
        try:
            value = int(float(digits) * _SIZE_UNITS[words[len(digits) :]])
        except (KeyError, ValueError, OverflowError):
            raise ValueError(expectation) from None
    value = _whole(value)
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ValueError(expectation)
    return value


def finite_size(value: Any) -> int:
    """Parse a size in bytes, as size() does, where there has to be one."""
    parsed = None if value is None else size(value)
    if parsed is None:
        raise ValueError('a size in bytes, such as 1048576, "64MB" or "1GiB"')
    return parsed


def boolean(value: Any) -> bool:
    """Parse True or False, or the words that stand for them in an environment variable."""
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    try:
        return words[str(value).strip().lower()]
    except KeyError:
        raise ValueError("True or False") from None


def seconds(value: Any) -> float | None:
    """Parse a duration in any form of a timeout that is not negative."""
    try:
        parsed = timeouts.parse_timeout(value)
    except InvalidTimeoutError:
        parsed = -1.0
    if parsed is not None and parsed < 0:
        raise ValueError(
            'seconds, at least 0, a timedelta, None (never) or words such as "90s", "5m", "1h30m", "forever"'
        )
    return parsed


def text(value: Any) -> str:
    """Parse a string."""
    if not isinstance(value, str):
        raise ValueError("a string")  # noqa: TRY004 -- a parser tells its expectation by ValueError
    return value


def one_of(choices: Iterable[str]) -> Callable[[Any], str]:
    """Return a parser that accepts only these words."""
    allowed = tuple(choices)

    def parse(value: Any) -> str:
        if value not in allowed:
            raise ValueError("one of " + ", ".join(map(repr, allowed)))
        return str(value)

    return parse


def unchecked(value: Any) -> Any:
    """Accept anything: for options that the mechanism behind them validates whole."""
    return value


def staleness(value: Any) -> float:
    """Parse for how long an entry of a near tier may differ from the storage."""
    try:
        parsed = seconds(value)
    except ValueError:
        parsed = None
    if not parsed or parsed == timeouts.NEVER:
        raise ValueError('seconds, more than 0, a timedelta or words such as "1s"')
    return parsed


_URL: Final = pattern(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def require_path(location: str) -> None:
    """Raise ConfigurationError for a URL where a directory is expected: one would be made, of a password."""
    if not location:
        raise ConfigurationError("LOCATION is empty; a file cache needs a directory of its own.")
    if ":/" in location and _URL.match(location):  # a start need compile no pattern
        raise ConfigurationError(
            f"LOCATION is {mask_url(location)!r}, a URL; a file cache needs a directory, such as '/var/cache/app'. "
            "The URL of a cache is for CACHE_URL; for a folder of such a name write './' before it."
        )
