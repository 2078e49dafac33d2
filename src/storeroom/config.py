"""One alias of CACHES, read and checked: from a dict that a person wrote to Settings.

Every mistake is a ConfigurationError that names the place, the value, what was
expected and what to do; nothing is guessed and nothing unknown is ignored. A
backend class declares its OPTIONS as a table of Option, which the configuration
reference and ``storeroom check`` read too.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from storeroom import keys, timeouts
from storeroom.exceptions import ConfigurationError, InvalidTimeoutError

__all__ = [
    "DEFAULT_MAX_ENTRIES",
    "ENTRY_BOUNDS",
    "SETTINGS",
    "Option",
    "Settings",
    "boolean",
    "nearest",
    "number",
    "one_of",
    "read_params",
    "seconds",
    "size",
    "text",
    "unchecked",
    "whole_number",
]

SETTINGS: Final = (
    "BACKEND",
    "LOCATION",
    "TIMEOUT",
    "KEY_PREFIX",
    "VERSION",
    "KEY_FUNCTION",
    "OPTIONS",
)
"""The keys of one alias, as in Django."""

DEFAULT_TIMEOUT_SECONDS: Final = 300.0
"""Django's default TIMEOUT, in seconds."""

DEFAULT_MAX_ENTRIES: Final = 300
"""Django's default MAX_ENTRIES."""

# Django's BaseCache also reads these three beside OPTIONS, in lower case.
_LOWER_CASE: Final = {"timeout": "TIMEOUT", "max_entries": "OPTIONS", "cull_frequency": "OPTIONS"}

_SIZE_UNITS: Final = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}


@dataclass(frozen=True, slots=True)
class Option:
    """One entry that a backend accepts in OPTIONS.

    Attributes:
        parse: turns what was written into the value used; raises ValueError whose text
            is the expectation ("a whole number, at least 0").
        default: the value used where the option is not given; not parsed.
        meaning: one sentence for the configuration reference, with the unit.
    """

    parse: Callable[[Any], Any]
    default: Any
    meaning: str


@dataclass(frozen=True, slots=True)
class Settings:
    """One alias after reading: every value present, of its right type.

    Attributes:
        timeout: seconds; None for entries that never expire.
        key_prefix: put before each key.
        version: default version of the keys.
        key_function: makes storage keys.
        options: every option of the backend, in lower case, defaults filled in.
        given: the options that were written, the others being defaults.
    """

    timeout: float | None
    key_prefix: str
    version: int
    key_function: keys.KeyFunction
    options: Mapping[str, Any]
    given: frozenset[str]


# Parsers ------------------------------------------------------------------------------


def whole_number(minimum: int = 0, *, none_means: str | None = None) -> Callable[[Any], int | None]:
    """Return a parser of whole numbers; `none_means` tells what None stands for, if it is allowed."""
    expectation = f"a whole number, at least {minimum}" + (f", or None for {none_means}" if none_means else "")

    def parse(value: Any) -> int | None:
        if value is None and none_means:
            return None
        if isinstance(value, str) and value.strip().removeprefix("-").isdecimal():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise ValueError(expectation)
        return value

    return parse


def number(minimum: float = 0.0) -> Callable[[Any], float]:
    """Return a parser of numbers that are at least `minimum`."""

    def parse(value: Any) -> float:
        try:
            parsed = float(value)
        except (TypeError, ValueError):
            parsed = float("nan")
        if isinstance(value, bool) or not parsed >= minimum:
            raise ValueError(f"a number, at least {minimum:g}")
        return parsed

    return parse


def size(value: Any) -> int | None:
    """Parse a size in bytes: a number, or words such as "64MB" (1 MB is 1024 KB); None is no bound."""
    expectation = 'a size in bytes, such as 1048576, "64MB" or "1GiB", or None for no bound'
    if value is None:
        return None
    if isinstance(value, str):
        words = value.strip().lower().removesuffix("ib").removesuffix("b").strip()
        digits = words.rstrip("kmgt")
        try:
            value = int(float(digits) * _SIZE_UNITS[words[len(digits) :]])
        except (KeyError, ValueError, OverflowError):
            raise ValueError(expectation) from None
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ValueError(expectation)
    return value


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
    """Parse a duration in any form of a timeout."""
    try:
        return timeouts.parse_timeout(value)
    except InvalidTimeoutError:
        raise ValueError(
            'seconds, a timedelta, None (never) or words such as "90s", "5m", "1h30m", "forever"'
        ) from None


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
            hint = nearest(str(value), allowed)
            raise ValueError("one of " + ", ".join(map(repr, allowed)) + hint)
        return str(value)

    return parse


def unchecked(value: Any) -> Any:
    """Accept anything: for options that the mechanism behind them validates whole."""
    return value


ENTRY_BOUNDS: Final[Mapping[str, Option]] = {
    "max_entries": Option(
        whole_number(0, none_means="no bound"),
        DEFAULT_MAX_ENTRIES,
        "How many entries are kept at most; a further one evicts the least useful. None for no bound.",
    ),
    "max_bytes": Option(size, None, "How many bytes keys and values may take together. None for no bound."),
    "cull_frequency": Option(
        whole_number(0, none_means="one entry at a time"),
        None,
        "When full, evict one entry in this many at once; 0 evicts all. None evicts just what is needed.",
    ),
}
"""The options of every backend that bounds itself."""


# Reading ------------------------------------------------------------------------------


def nearest(word: str, words: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the word most like `word`, or "" if none is near."""
    by_lower_case = {known.lower(): known for known in words}
    found = difflib.get_close_matches(word.lower(), by_lower_case, n=1)
    return f" Did you mean {by_lower_case[found[0]]!r}?" if found else ""


def read_params(
    params: Mapping[str, Any],
    options: Mapping[str, Option] | None,
    *,
    alias: str | None = None,
    backend: str = "this backend",
) -> Settings:
    """Read what one alias says, without BACKEND and LOCATION.

    Args:
        params: the alias's dict, as Django hands it to a backend class.
        options: what the backend accepts in OPTIONS; None for a foreign class that
            does not say (its options are passed through).
        alias: the alias's name for error messages, where it is known.
        backend: the backend's name for error messages.

    Raises:
        ConfigurationError: the first thing that is wrong.
    """
    place = f"CACHES[{alias!r}]" if alias is not None else "CACHES[...]"
    written = _written_settings(params, place)
    timeout = _parse(seconds, written.get("TIMEOUT", DEFAULT_TIMEOUT_SECONDS), f"{place}['TIMEOUT']")
    key_prefix = written.get("KEY_PREFIX", "")
    parsed, given = _read_options(written.get("OPTIONS"), options, place, backend)
    try:
        key_function = keys.get_key_func(written.get("KEY_FUNCTION"))
    except ConfigurationError as error:
        raise ConfigurationError(f"{place}: {error}") from error
    return Settings(
        timeout=timeout,
        key_prefix=_parse(text, "" if key_prefix is None else key_prefix, f"{place}['KEY_PREFIX']"),
        version=_parse(whole_number(0), written.get("VERSION", 1), f"{place}['VERSION']"),
        key_function=key_function,
        options=parsed,
        given=given,
    )


def _written_settings(params: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Sort the alias's keys into settings, folding Django's lower-case spellings in."""
    written: dict[str, Any] = {}
    folded: dict[str, Any] = {}
    for name, value in params.items():
        if name in SETTINGS:
            written[name] = value
        elif _LOWER_CASE.get(name) == "OPTIONS":
            folded[name] = value
        elif name in _LOWER_CASE:
            written.setdefault(_LOWER_CASE[name], value)
        else:
            raise ConfigurationError(
                f"{place} has the key {name!r}, which does not exist.{nearest(str(name), SETTINGS)} "
                f"The keys are {', '.join(SETTINGS)}; what only this backend knows goes into OPTIONS."
            )
    if folded:
        written["OPTIONS"] = folded | dict(written.get("OPTIONS") or {})
    return written


def _read_options(
    written: Any, known: Mapping[str, Option] | None, place: str, backend: str
) -> tuple[dict[str, Any], frozenset[str]]:
    if written is None:
        written = {}
    if not isinstance(written, Mapping):
        raise ConfigurationError(
            f"{place}['OPTIONS'] is a {type(written).__name__}; expected a dict of option names and values."
        )
    if known is None:
        return dict(written), frozenset(written)
    parsed = {name: option.default for name, option in known.items()}
    given: set[str] = set()
    for spelling, value in written.items():
        name = str(spelling).lower()
        where = f"{place}['OPTIONS'][{spelling!r}]"
        if name not in known:
            listed = ", ".join(sorted(known)) or "none at all"
            raise ConfigurationError(
                f"{where} is not an option of {backend}.{nearest(name, known)} Its options are: {listed}."
            )
        if name in given:
            raise ConfigurationError(f"{where} is given twice, in two spellings; keep one of them.")
        given.add(name)
        parsed[name] = _parse(known[name].parse, value, where)
    return parsed, frozenset(given)


def _parse(parse: Callable[[Any], Any], value: Any, where: str) -> Any:
    try:
        return parse(value)
    except ValueError as expectation:
        # The value itself may be a secret: only settings that are not are shown.
        shown = "" if "secret" in where.lower() else f" is {value!r};"
        raise ConfigurationError(f"{where}{shown} expected {expectation}.") from None
