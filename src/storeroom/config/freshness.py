"""The bounds on a value's age: options of a call of get_or_set(), and of an alias."""

import math
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final, TypedDict, final

from storeroom import timeouts
from storeroom.exceptions import InvalidTimeoutError
from storeroom.late import record, replaced
from storeroom.timeouts import NEVER

__all__ = ["AS_CONFIGURED", "Freshness", "FreshnessOptions", "parse"]


@final
class _AsConfigured:
    """The type of AS_CONFIGURED, which stands for the value in the alias's OPTIONS."""

    def __repr__(self) -> str:
        return "AS_CONFIGURED"


AS_CONFIGURED: Final[Any] = _AsConfigured()


class FreshnessOptions(TypedDict, total=False):
    """The options of get_or_set() and @cached; the others are as the alias's OPTIONS say.

    Durations are seconds, a timedelta, or words such as "5m".

    Attributes:
        stale_while_revalidate: for how long a stale value is served while a background worker computes a new one.
        stale_if_error: for how long a stale value is served when the computation fails.
        retry_pause: for how long after a failure this process serves the stale value without trying again.
        error_timeout: for how long this process keeps the error of a failed computation, and raises it again, where
            there is no stale value; 0 for not at all.
        soft_timeout: after this long, the stale value is served, where there is one; the late result is stored.
        hard_timeout: after this long, ComputationTimeoutError is raised; the late result is stored.
        early: eagerness to refresh a value in the background before it expires; 1 is a good value, 0 is never.
        jitter: the share of the timeout, from 0 to 1, by which it is shortened at random.
    """

    stale_while_revalidate: Any
    stale_if_error: Any
    retry_pause: Any
    error_timeout: Any
    soft_timeout: Any
    hard_timeout: Any
    early: float
    jitter: float


@record(frozen=True, slots=True)
class Freshness:
    """FreshnessOptions after reading: all durations in seconds, None for no limit."""

    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    retry_pause: float = 5.0
    error_timeout: float = 0.0
    soft_timeout: float | None = None
    hard_timeout: float | None = None
    early: float = 0.0
    jitter: float = 0.0

    @property
    def grace(self) -> float:
        """Seconds that an entry is kept for after it has become stale."""
        return max(self.stale_while_revalidate, self.stale_if_error)

    @property
    def is_limited(self) -> bool:
        """Whether somebody may be answered before the computation ends."""
        return self.soft_timeout is not None or self.hard_timeout is not None

    @property
    def needs_envelope(self) -> bool:
        """Whether an entry's value alone does not tell enough."""
        return self.early > 0 or self.grace > 0

    def but(self, options: Mapping[str, Any]) -> "Freshness":
        """Return these, but for the options that a call gives.

        Raises:
            TypeError: an option does not exist.
            ValueError: an option's value has no meaning.
        """
        if not options:
            return self
        try:
            return _changed(self, tuple([(name, type(value), value) for name, value in options.items()]))
        except TypeError:  # a value cannot be hashed, or an option does not exist: parsing tells
            return _parsed(self, options)

    def given(self, *options: Any) -> "Freshness":
        """Return these, but for `options`, in the order of FreshnessOptions, that are not AS_CONFIGURED.

        Raises:
            ValueError: an option's value has no meaning.
        """
        if options == _NONE_GIVEN:
            return self
        return self.but(
            {name: value for name, value in zip(_NAMES, options, strict=True) if value is not AS_CONFIGURED}
        )


def _parsed(freshness: Freshness, options: Mapping[str, Any]) -> Freshness:
    parsed: dict[str, Any] = {}
    for name, value in options.items():
        if name not in _NAMES:
            raise TypeError(f"get_or_set() has no option {name!r}; its options are {', '.join(_NAMES)}.")
        try:
            parsed[name] = parse(name, value)
        except ValueError as expectation:
            raise ValueError(f"{name} is {value!r}; expected {expectation}.") from None
    return replaced(freshness, **parsed)


@lru_cache(maxsize=256)
def _changed(freshness: Freshness, options: tuple[tuple[str, type, Any], ...]) -> Freshness:
    """Do as _parsed(); a call gives the same options each time, and is asked for them on every hit."""
    return _parsed(freshness, {name: value for name, _, value in options})


_NAMES: Final = tuple(FreshnessOptions.__annotations__)
_NONE_GIVEN: Final = (AS_CONFIGURED,) * len(_NAMES)
_LARGEST: Final = 1e300  # larger ones than any float mean the same
_LIMITS: Final = ("soft_timeout", "hard_timeout")


def parse(name: str, value: Any) -> float | None:
    """Return the value of one option.

    Raises:
        ValueError: it has no meaning. The text is the expectation.
    """
    if name in ("early", "jitter"):
        return _parse_number(value, 1.0 if name == "jitter" else math.inf)
    if value is None and name in _LIMITS:
        return None
    try:
        parsed = timeouts.parse_timeout(value)
        seconds = NEVER if parsed is None else parsed
    except InvalidTimeoutError:
        seconds = -1.0
    if seconds < 0 or (name in _LIMITS and seconds == 0):
        least = "more than 0, or None for no limit" if name in _LIMITS else "at least 0"
        raise ValueError(f'a duration, {least}: seconds, a timedelta, or words such as "90s" or "5m"')
    return seconds


def _parse_number(value: Any, highest: float) -> float:
    if isinstance(value, str):  # out of a URL
        with suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= highest:
        raise ValueError("a number, at least 0" if highest == math.inf else f"a number from 0 to {highest:g}")
    return float(min(value, _LARGEST))
