"""The meaning of a timeout, and the one clock that everything reads.

A *timeout*, of callers, is relative (seconds from now); *expires_at*, of storages, is absolute (epoch seconds).

======================  =====================================================
timeout                 meaning
======================  =====================================================
``DEFAULT_TIMEOUT``     the alias's TIMEOUT (Django's own sentinel too)
``None``, ``"forever"`` never expires
number                  seconds; fractions count; more than 3,000 years is never
``timedelta``           that long; ``numpy.timedelta64`` too
``"90s"``, ``"1h30m"``  units ms, s, m, h, d, w; a bare number is seconds
zero or negative        expires at once: nothing is stored
======================  =====================================================
"""

import math
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from storeroom.exceptions import InvalidTimeoutError
from storeroom.late import pattern

if TYPE_CHECKING:
    from datetime import datetime, timedelta
else:
    from _datetime import datetime, timedelta  # the C module alone: ``datetime`` is all of it in Python first

__all__ = [
    "AT_ONCE", "BOOT_CLOCK", "DEFAULT_TIMEOUT", "LONGEST_TIMEOUT", "NEVER", "NUMBERS", "DefaultTimeout", "Moment",
    "Timeout", "epoch", "expires_at", "now", "parse_timeout", "parse_words", "skipped", "uptime",
]  # fmt: skip

_HAS_UPTIME: Final = hasattr(time, "CLOCK_BOOTTIME")

now = time.time
"""The clock: epoch seconds. Always read as ``timeouts.now()``: the tests' fake clock replaces this attribute."""

BOOT_CLOCK: Final[Any] = partial(time.clock_gettime, time.CLOCK_BOOTTIME) if _HAS_UPTIME else time.monotonic
"""The system's own clock for uptime(), by which that is told from a fake one."""

uptime: Callable[[], float] = BOOT_CLOCK
"""Seconds since a moment that is the same for all processes of this machine: nobody sets this clock, and it goes on
while the machine sleeps. Always read as ``timeouts.uptime()``: the fake clock replaces it, too."""

skipped = 0.0
"""Seconds by which a fake clock has let time pass, to be added to what a server tells."""

NEVER: Final = math.inf
"""expires_at of an entry without a timeout: later than any clock."""

AT_ONCE: Final = -math.inf
"""expires_at of an entry that is not to be stored at all."""


LONGEST_TIMEOUT: Final = 1e11
"""Seconds; more, some 3,000 years, are for ever: no storage need tell them from that."""

NUMBERS: Final = frozenset({int, float})
"""Types of a timeout that is seconds as it stands: with this test and two comparisons, writes save the calls below."""


@final
class DefaultTimeout:
    """The type of DEFAULT_TIMEOUT: "no timeout was passed", as opposed to None, "never"."""

    def __repr__(self) -> str:
        return "DEFAULT_TIMEOUT"


DEFAULT_TIMEOUT: Final = DefaultTimeout()

Timeout: TypeAlias = float | timedelta | str | DefaultTimeout | None

Moment: TypeAlias = float | datetime | None

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PART: Final = pattern(r"(\d+(?:\.\d+)?)\s*(ms|[smhdw])\s*")
_WORDS: Final = pattern(r"(\d+(?:\.\d+)?)\s*(milliseconds?|seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|weeks?)\b")
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
    if isinstance(timeout, str):
        return parse_words(timeout)
    seconds = _number(_duration(timeout))
    if seconds is None:
        raise InvalidTimeoutError(f"The timeout is {timeout!r}; {_EXPECTED}.")
    if math.isnan(seconds):
        raise InvalidTimeoutError(f"The timeout is not a number (nan); {_EXPECTED}.")
    return None if seconds > LONGEST_TIMEOUT else seconds


def _duration(timeout: Any) -> Any:
    """Return the seconds of a timedelta, NumPy's too, which counts in any unit; anything else as it is."""
    if type(timeout).__name__ == "timedelta64":
        timeout = timeout.astype("timedelta64[us]").item()
    return timeout.total_seconds() if isinstance(timeout, timedelta) else timeout


def _number(value: Any) -> float | None:
    """Return a number as a float, an infinity if it is beyond floats; None for anything else, and for truths."""
    # NumPy's truths have names of their own, and it makes floats of them.
    if type(value).__name__ in ("bool", "bool_") or not hasattr(type(value), "__float__"):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        return None


@lru_cache(maxsize=500)
def parse_words(text: str) -> float | None:
    """Do as parse_timeout() with a text."""
    words = text.strip().lower()
    if words in _FOREVER:
        return None
    try:
        seconds = float(words)
    except ValueError:
        return _parse_units(text, words)
    return parse_timeout(seconds)


def _parse_units(text: str, words: str) -> float | None:
    # "5 minutes" -> "5m": the first letter is the unit's symbol, but for milliseconds.
    short = _WORDS.sub(lambda m: m[1] + ("ms" if m[2].startswith("milli") else m[2][0]), words)
    parts = _PART.findall(short)
    if not parts or _PART.sub("", short):
        raise InvalidTimeoutError(f"The timeout is {text!r}; {_EXPECTED}.")
    return parse_timeout(float(sum(float(number) * _UNITS[unit] for number, unit in parts)))


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


def epoch(when: Moment) -> float:
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
        return epoch(when.timestamp())
    seconds = None if isinstance(when, str) else _number(when)
    if seconds is None or math.isnan(seconds):
        raise InvalidTimeoutError(f"The time is {when!r}; expected epoch seconds, an aware datetime or None.")
    return seconds if seconds - now() <= LONGEST_TIMEOUT else NEVER
