"""One alias of CACHES, read and checked: from a dict that a person wrote to Settings.

Every mistake is a ConfigurationError that names the place, the value, what was
expected and what to do; nothing is guessed and nothing unknown is ignored. A
backend class declares its OPTIONS as a table of Option, which the configuration
reference and ``storeroom check`` read too.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from storeroom import freshness, keys, masking, timeouts
from storeroom.exceptions import ConfigurationError, InvalidTimeoutError

__all__ = [
    "CODEC_OPTIONS",
    "CONTEXT_OPTIONS",
    "DEFAULT_MAX_ENTRIES",
    "ENTRY_BOUNDS",
    "FRESHNESS_OPTIONS",
    "SETTINGS",
    "Option",
    "Settings",
    "boolean",
    "finite_size",
    "freshness_of",
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

    def __repr__(self) -> str:
        options = {name: masking.masked(value, name) for name, value in self.options.items()}
        return (
            f"Settings(timeout={self.timeout!r}, key_prefix={self.key_prefix!r}, version={self.version!r}, "
            f"key_function={self.key_function!r}, options={options!r})"
        )


# Parsers ------------------------------------------------------------------------------


def _is_none(value: Any) -> bool:
    """Tell whether None was meant, which a URL and a TOML file can only write as a word."""
    return value is None or (isinstance(value, str) and value.strip().lower() == "none")


def whole_number(minimum: int = 0, *, none_means: str | None = None) -> Callable[[Any], int | None]:
    """Return a parser of whole numbers; `none_means` tells what None stands for, if it is allowed."""
    expectation = f"a whole number, at least {minimum}" + (f", or None for {none_means}" if none_means else "")

    def parse(value: Any) -> int | None:
        if none_means and _is_none(value):
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
    if _is_none(value):
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


ENTRY_BOUNDS: Final[Mapping[str, Option]] = {
    "max_entries": Option(
        whole_number(1, none_means="no bound"),
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

CODEC_OPTIONS: Final[Mapping[str, Option]] = {
    "serializer": Option(
        unchecked,
        "pickle",
        'How values become bytes: "pickle", "json", "msgpack", or an object with dumps() and loads(), or its '
        "dotted path.",
    ),
    "secret": Option(
        unchecked,
        None,
        "Signs every value, so that nobody else's is read: a string of 16 characters or more, or a list of them, "
        "of which the first signs and all are accepted.",
    ),
    "compressor": Option(
        unchecked,
        None,
        'Compresses large values: "zlib", "lzma", "zstd", "lz4", or an object with compress() and decompress(), or '
        "its dotted path. None compresses nothing.",
    ),
    "compress_min_bytes": Option(whole_number(0), 1024, "Values of fewer bytes are not compressed."),
    "max_value_bytes": Option(
        finite_size, 512 * 2**20, "How many bytes a compressed value may expand to; a larger one reads as a miss."
    ),
}
"""The options of every backend that stores bytes; `serializers.build_codec` takes them, and checks the rest."""


def _freshness(name: str) -> Callable[[Any], float | None]:
    return lambda value: freshness.parse(name, value)


FRESHNESS_OPTIONS: Final[Mapping[str, Option]] = {
    "stale_while_revalidate": Option(
        _freshness("stale_while_revalidate"),
        0.0,
        "For how long get_or_set() serves a value after its timeout, in seconds or words, while a background worker "
        "computes a new one.",
    ),
    "stale_if_error": Option(
        _freshness("stale_if_error"),
        0.0,
        "For how long get_or_set() serves a value after its timeout, in seconds or words, when computing a new one "
        "fails.",
    ),
    "retry_pause": Option(
        _freshness("retry_pause"),
        5.0,
        "For how long, in seconds or words, a process does not try again to compute what has failed, and serves the "
        "stale value.",
    ),
    "soft_timeout": Option(
        _freshness("soft_timeout"),
        None,
        "After how long get_or_set() serves a stale value while the computation goes on, in seconds or words; None "
        "for never.",
    ),
    "hard_timeout": Option(
        _freshness("hard_timeout"),
        None,
        "After how long get_or_set() raises ComputationTimeoutError while the computation goes on, in seconds or "
        "words; None for never.",
    ),
    "early": Option(
        _freshness("early"),
        0.0,
        "How eagerly get_or_set() refreshes a value in the background before it expires: 1 is a good value, 0 is "
        "never.",
    ),
    "jitter": Option(
        _freshness("jitter"),
        0.0,
        "By which share, from 0 to 1, get_or_set() shortens timeouts at random, so that entries do not expire "
        "together.",
    ),
}
"""The options of every backend on how old a value may be: see ``freshness``."""


def _transactional(value: Any) -> str | bool | None:
    if value is None or isinstance(value, bool) or (isinstance(value, str) and value):
        return value
    raise ValueError("True, False, None, or the alias of a database in Django's DATABASES")


CONTEXT_OPTIONS: Final[Mapping[str, Option]] = {
    "transactional": Option(
        _transactional,
        None,
        "Holds writes back until Django's transaction in progress commits: True for the database `default`, or "
        "another's alias. False even takes no part in transaction(); None does where it is used.",
    ),
    "memo": Option(boolean, True, "Whether memo() remembers what was read from this cache."),
}
"""The options of every backend on what may stand before it: see ``overlays``."""


def freshness_of(options: Mapping[str, Any]) -> freshness.Freshness:
    """Return how old values may be, by the options of an alias."""
    given = {name: options[name] for name in FRESHNESS_OPTIONS if name in options}
    return freshness.Freshness(**given)


# Reading ------------------------------------------------------------------------------


def nearest(word: str, words: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the word most like `word`, or "" if none is near."""
    import difflib  # noqa: PLC0415 -- 3 ms that only a mistake need spend

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
    key_prefix = written.get("KEY_PREFIX")
    parsed, given = _read_options(written.get("OPTIONS"), options, place, backend)
    return Settings(
        timeout=_parse(seconds, written.get("TIMEOUT", DEFAULT_TIMEOUT_SECONDS), f"{place}['TIMEOUT']"),
        key_prefix=_parse(text, "" if key_prefix is None else key_prefix, f"{place}['KEY_PREFIX']"),
        version=_parse(whole_number(0), written.get("VERSION", 1), f"{place}['VERSION']"),
        key_function=_read_key_function(written.get("KEY_FUNCTION"), place),
        options=parsed,
        given=given,
    )


def _written_settings(params: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Sort the alias's keys into settings, folding Django's lower-case spellings in."""
    written: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for name, value in params.items():
        if name not in SETTINGS and name not in _LOWER_CASE:
            raise ConfigurationError(
                f"{place} has the key {name!r}, which does not exist.{nearest(str(name), SETTINGS)} "
                f"The keys are {', '.join(SETTINGS)}; what only this backend knows goes into OPTIONS."
            )
        setting = _LOWER_CASE.get(name, name)
        if name in _LOWER_CASE and setting == "OPTIONS":
            options[name] = value
        elif setting in written:
            raise ConfigurationError(f"{place} has {setting} twice, in two spellings; keep one of them.")
        else:
            written[setting] = value
    if options:
        written["OPTIONS"] = _merged(options, written.get("OPTIONS"), place)
    return written


def _merged(beside: dict[str, Any], written: Any, place: str) -> dict[str, Any]:
    """Return OPTIONS with the options that were written beside it."""
    inside = _options_dict(written, place)
    twice = sorted(beside.keys() & inside.keys())
    if twice:
        raise ConfigurationError(f"{place} has {twice[0]!r} twice, in OPTIONS and beside it; keep the one in OPTIONS.")
    return beside | inside


def _options_dict(written: Any, place: str) -> dict[str, Any]:
    if written is None:
        return {}
    if not isinstance(written, Mapping):
        raise ConfigurationError(
            f"{place}['OPTIONS'] is {masking.shown(written)}; expected a dict of option names and values."
        )
    return dict(written)


def _read_options(
    written: Any, known: Mapping[str, Option] | None, place: str, backend: str
) -> tuple[dict[str, Any], frozenset[str]]:
    written = _options_dict(written, place)
    if known is None:
        return written, frozenset(written)
    known = {**FRESHNESS_OPTIONS, **CONTEXT_OPTIONS, **known}
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
        parsed[name] = _parse(known[name].parse, value, where, name)
    return parsed, frozenset(given)


def _read_key_function(written: Any, place: str) -> keys.KeyFunction:
    if not (written is None or isinstance(written, str) or callable(written)):
        raise ConfigurationError(
            f"{place}['KEY_FUNCTION'] is {masking.shown(written)}; expected a callable f(key, key_prefix, version), "
            "its dotted path, or None for the default."
        )
    try:
        return keys.get_key_func(written)
    except ConfigurationError as error:
        raise ConfigurationError(f"{place}: {error}") from error


def _parse(parse: Callable[[Any], Any], value: Any, where: str, name: str = "") -> Any:
    try:
        return parse(value)
    except ValueError as expectation:
        raise ConfigurationError(f"{where} is {masking.shown(value, name)}; expected {expectation}.") from None
