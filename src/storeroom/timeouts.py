"""The meaning of a timeout, and the one clock that everything reads.

A *timeout*, of callers, is relative (seconds from now); *expires_at*, of storages, is absolute (epoch seconds).

======================  =====================================================
timeout                 meaning
======================  =====================================================
``DEFAULT_TIMEOUT``     the alias's TIMEOUT (Django's own sentinel too)
``None``, ``"forever"`` never expires
number                  seconds; fractions count
``timedelta``           that long
``"90s"``, ``"1h30m"``  units ms, s, m, h, d, w; a bare number is seconds
zero or negative        expires at once: nothing is stored
======================  =====================================================
"""

import math
import re
import time
from datetime import datetime, timedelta
from typing import Final, TypeAlias, cast, final

from storeroom.exceptions import InvalidTimeoutError

__all__ = [
    "AT_ONCE", "DEFAULT_TIMEOUT", "NEVER", "DefaultTimeout", "Timeout", "epoch", "expires_at", "now",
    "parse_timeout",
]  # fmt: skip

now = time.time
"""The clock: epoch seconds. Always read as ``timeouts.now()``: the tests' fake clock replaces this attribute alone."""

NEVER: Final = math.inf
"""expires_at of an entry without a timeout: later than any clock."""

AT_ONCE: Final = -math.inf
"""expires_at of an entry that is not to be stored at all."""


@final
class DefaultTimeout:
    """The type of DEFAULT_TIMEOUT: "no timeout was passed", as opposed to None, "never"."""

    def __repr__(self) -> str:
        return "DEFAULT_TIMEOUT"


DEFAULT_TIMEOUT: Final = DefaultTimeout()

Timeout: TypeAlias = float | timedelta | str | DefaultTimeout | None

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[smhdw])\s*")
_WORDS: Final = re.compile(
    r"(\d+(?:\.\d+)?)\s*(milliseconds?|seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|weeks?)\b"
)
_FOREVER: Final = frozenset({"forever", "never", "none"})
_EXPECTED: Final = (
    'expected seconds, a timedelta, None (never expires) or words such as "90s", "5m", "1h30m", "forever"'
)


def parse_timeout(timeout: object) -> float | None:
    """Turn any accepted form of a timeout, except DEFAULT_TIMEOUT, into seconds; None for "never expires".

    Raises:
        InvalidTimeoutError: the value has no meaning as a timeout.

    >>> parse_timeout("1h30m"), parse_timeout("5 minutes"), parse_timeout("forever")
    (5400.0, 300.0, None)
    """
    if timeout is None:
        return None
    if isinstance(timeout, timedelta):
        return timeout.total_seconds()
    if isinstance(timeout, str):
        return _parse_words(timeout)
    if isinstance(timeout, bool) or not hasattr(type(timeout), "__float__"):
        raise InvalidTimeoutError(f"The timeout is {timeout!r}; {_EXPECTED}.")
    seconds = float(cast("float", timeout))  # __float__ was looked up above
    if math.isnan(seconds):
        raise InvalidTimeoutError(f"The timeout is not a number (nan); {_EXPECTED}.")
    return None if seconds == math.inf else seconds


def _parse_words(text: str) -> float | None:
    words = text.strip().lower()
    if words in _FOREVER:
        return None
    try:
        seconds = float(words)
    except ValueError:
        return _parse_units(text, words)
    return parse_timeout(seconds)


def _parse_units(text: str, words: str) -> float:
    # "5 minutes" -> "5m": the first letter is the unit's symbol, but for milliseconds.
    short = _WORDS.sub(lambda m: m[1] + ("ms" if m[2].startswith("milli") else m[2][0]), words)
    parts = _PART.findall(short)
    if not parts or _PART.sub("", short):
        raise InvalidTimeoutError(f"The timeout is {text!r}; {_EXPECTED}.")
    return float(sum(float(number) * _UNITS[unit] for number, unit in parts))


def expires_at(timeout: Timeout, default: float | None) -> float:
    """Return the epoch second at which an entry set now expires: NEVER, or AT_ONCE for a timeout of zero or less.

    Args:
        timeout: as the caller passed it.
        default: the alias's timeout in seconds, None for "never".

    Raises:
        InvalidTimeoutError: the timeout has no meaning.
    """
    # A bare object() can only be Django's DEFAULT_TIMEOUT: its backends are handed that one.
    seconds = default if timeout is DEFAULT_TIMEOUT or type(timeout) is object else parse_timeout(timeout)
    if seconds is None:
        return NEVER
    return now() + seconds if seconds > 0 else AT_ONCE


def epoch(when: float | datetime | None) -> float:
    """Return a point in time as epoch seconds: NEVER for None.

    Raises:
        InvalidTimeoutError: a datetime without time zone (its moment is a guess), or no time at all.
    """
    if when is None:
        return NEVER
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise InvalidTimeoutError(
                f"The time {when!r} has no time zone; pass an aware datetime, such as datetime.now(timezone.utc)."
            )
        return when.timestamp()
    if isinstance(when, bool) or not isinstance(when, int | float) or math.isnan(when):
        raise InvalidTimeoutError(f"The time is {when!r}; expected epoch seconds, an aware datetime or None.")
    return float(when)
