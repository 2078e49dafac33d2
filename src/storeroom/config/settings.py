"""One alias of CACHES, read and checked: from a dict that a person wrote to Settings.

Every mistake is a ConfigurationError that names the place, the value, what was
expected and what to do; nothing is guessed and nothing unknown is ignored. A
backend class declares its OPTIONS as a table of Option, which the configuration
reference and ``storeroom check`` read too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from storeroom import keys, wording
from storeroom.config import freshness
from storeroom.config.parsers import (
    Option,
    boolean,
    finite_size,
    is_none,
    number,
    one_of,
    seconds,
    size,
    staleness,
    text,
    unchecked,
    whole_number,
)
from storeroom.exceptions import ConfigurationError

__all__ = [
    "CODEC_OPTIONS",
    "COMMON_OPTIONS",
    "CONTEXT_OPTIONS",
    "DEFAULT_MAX_ENTRIES",
    "DEFAULT_NEAR_ENTRIES",
    "ENTRY_BOUNDS",
    "FRESHNESS_OPTIONS",
    "MAX_STALENESS",
    "NEAR_OPTIONS",
    "SETTINGS",
    "Option",
    "Settings",
    "boolean",
    "finite_size",
    "freshness_of",
    "near",
    "number",
    "one_of",
    "read_params",
    "seconds",
    "size",
    "staleness",
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
        options = {name: wording.masked(value, name) for name, value in self.options.items()}
        return (
            f"Settings(timeout={self.timeout!r}, key_prefix={self.key_prefix!r}, version={self.version!r}, "
            f"key_function={self.key_function!r}, options={options!r})"
        )


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
    "error_timeout": Option(
        _freshness("error_timeout"),
        0.0,
        "For how long, in seconds or words, a process raises the error of a failed computation again, where there is "
        "no stale value, rather than compute anew.",
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


DEFAULT_NEAR_ENTRIES: Final = 10_000
"""Of a near tier: a few MiB, where most values are small."""

DEFAULT_MAX_STALENESS: Final = 1.0
"""Seconds: what a page that somebody reloads hardly shows, and a hot key is still read thousands of times in."""


MAX_STALENESS: Final = Option(
    staleness,
    DEFAULT_MAX_STALENESS,
    "For how long an entry of the near tier may differ from the storage, in seconds or words, where nothing tells of "
    "the change.",
)

NEAR_OPTIONS: Final[Mapping[str, Option]] = {
    **ENTRY_BOUNDS,
    "max_entries": replace(ENTRY_BOUNDS["max_entries"], default=DEFAULT_NEAR_ENTRIES),
    "copy": Option(
        boolean, True, "Whether values are copied in and out. False keeps the very objects, which nobody must change."
    ),
    "max_staleness": MAX_STALENESS,
}
"""What OPTIONS["near"] takes, which every backend has."""


def near(value: Any) -> Mapping[str, Any] | None:
    """Parse the options of a near tier: a dict of some of NEAR_OPTIONS, True for none of them, None for no tier."""
    expectation = f"a dict of {', '.join(NEAR_OPTIONS)}, or True for their defaults"
    if is_none(value):
        return None
    if isinstance(value, Mapping):
        return _near_options(value, expectation)
    try:
        return _near_options({}, expectation) if boolean(value) else None
    except ValueError:
        raise ValueError(expectation) from None


def _near_options(written: Mapping[str, Any], expectation: str) -> Mapping[str, Any]:
    parsed = {name: option.default for name, option in NEAR_OPTIONS.items()}
    for spelling, value in written.items():
        name = str(spelling).lower()
        if name not in NEAR_OPTIONS:
            hint = wording.nearest(name, NEAR_OPTIONS).strip()
            raise ValueError(f"{expectation}; {spelling!r} is none of them{f' ({hint})' if hint else ''}")
        try:
            parsed[name] = NEAR_OPTIONS[name].parse(value)
        except ValueError as wrong:
            raise ValueError(f"as its {name!r} {wrong}") from None
    return parsed


COMMON_OPTIONS: Final[Mapping[str, Option]] = {
    **FRESHNESS_OPTIONS,
    "near": Option(
        near,
        None,
        "Keeps entries in this process's memory too, where reading them takes no round trip: a dict of the near "
        "tier's own options, or True for their defaults. None for no near tier.",
    ),
    **CONTEXT_OPTIONS,
}
"""The options that every backend has."""


# Reading ------------------------------------------------------------------------------


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
        if name == "REVERSE_KEY_FUNCTION":
            raise ConfigurationError(
                f"{place} has the key {name!r}, of django-redis. Remove it: keys() turns storage keys back by itself, "
                "if KEY_FUNCTION keeps prefix, version and key readable, one after the other."
            )
        if name not in SETTINGS and name not in _LOWER_CASE:
            raise ConfigurationError(
                f"{place} has the key {name!r}, which does not exist.{wording.nearest(str(name), SETTINGS)} "
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
            f"{place}['OPTIONS'] is {wording.shown(written)}; expected a dict of option names and values."
        )
    return dict(written)


def _read_options(
    written: Any, known: Mapping[str, Option] | None, place: str, backend: str
) -> tuple[dict[str, Any], frozenset[str]]:
    written = _options_dict(written, place)
    if known is None:
        return written, frozenset(written)
    known = {**COMMON_OPTIONS, **known}
    parsed = {name: option.default for name, option in known.items()}
    given: set[str] = set()
    for spelling, value in written.items():
        name = str(spelling).lower()
        where = f"{place}['OPTIONS'][{spelling!r}]"
        if name not in known:
            listed = ", ".join(sorted(known)) or "none at all"
            raise ConfigurationError(
                f"{where} is not an option of {backend}.{wording.nearest(name, known)} Its options are: {listed}."
            )
        if name in given:
            raise ConfigurationError(f"{where} is given twice, in two spellings; keep one of them.")
        given.add(name)
        parsed[name] = _parse(known[name].parse, value, where, name)
    return parsed, frozenset(given)


def _read_key_function(written: Any, place: str) -> keys.KeyFunction:
    if not (written is None or isinstance(written, str) or callable(written)):
        raise ConfigurationError(
            f"{place}['KEY_FUNCTION'] is {wording.shown(written)}; expected a callable f(key, key_prefix, version), "
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
        raise ConfigurationError(f"{where} is {wording.shown(value, name)}; expected {expectation}.") from None
