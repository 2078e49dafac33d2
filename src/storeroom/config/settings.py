"""One alias of CACHES, read and checked: from a dict that a person wrote to Settings.

Every mistake is a ConfigurationError that names the setting, the value, the expectation and the remedy; nothing is
guessed and nothing unknown is ignored.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from storeroom import keys, wording
from storeroom.config.naming import alias_of
from storeroom.config.options import COMMON_OPTIONS
from storeroom.config.parsers import Option, seconds, text, whole_number
from storeroom.exceptions import ConfigurationError
from storeroom.late import field, record

__all__ = ["SETTINGS", "Settings", "read_params"]

SETTINGS: Final = ("BACKEND", "LOCATION", "TIMEOUT", "KEY_PREFIX", "VERSION", "KEY_FUNCTION", "OPTIONS")
"""The keys of one alias, as in Django."""

DEFAULT_TIMEOUT_SECONDS: Final = 300.0
"""Django's default TIMEOUT, in seconds."""

# Django's BaseCache also reads these three beside OPTIONS, in lower case.
_LOWER_CASE: Final = {"timeout": "TIMEOUT", "max_entries": "OPTIONS", "cull_frequency": "OPTIONS"}


@record(frozen=True, slots=True)
class Settings:
    """One alias after reading: every value present, of its right type.

    Attributes:
        timeout: seconds; None for entries that never expire.
        key_prefix: put before each key.
        version: default version of the keys.
        key_function: makes storage keys.
        options: every option of the backend, in lower case, defaults filled in.
        given: the options that were written, the others being defaults.
        alias: its name; "" where that is not known.
    """

    timeout: float | None
    key_prefix: str
    version: int
    key_function: keys.KeyFunction
    options: Mapping[str, Any]
    given: frozenset[str]
    alias: str = field(default="", compare=False)

    def __repr__(self) -> str:
        options = {name: wording.masked(value, name) for name, value in self.options.items()}
        return (
            f"Settings(timeout={self.timeout!r}, key_prefix={self.key_prefix!r}, version={self.version!r}, "
            f"key_function={self.key_function!r}, options={options!r})"
        )


def read_params(
    params: Mapping[str, Any],
    options: Mapping[str, Option] | None,
    *,
    alias: str | None = None,
    backend: str = "this backend",
) -> Settings:
    """Read one alias, without BACKEND and LOCATION.

    Args:
        params: the alias's dict, as Django hands it to a backend class.
        options: those that the backend accepts; None for a foreign class that does not say (its options are passed
            through).
        alias: the alias's name for error messages; None to look for it.
        backend: the backend's name for error messages.

    Raises:
        ConfigurationError: the first mistake.
    """
    if alias is None:
        alias = alias_of(params, backend)
    path = f"CACHES[{alias!r}]" if alias else "CACHES[...]"
    written = _written_settings(params, path)
    key_prefix = written.get("KEY_PREFIX")
    parsed, given = _read_options(written.get("OPTIONS"), options, path, backend)
    return Settings(
        timeout=_parse(seconds, written.get("TIMEOUT", DEFAULT_TIMEOUT_SECONDS), f"{path}['TIMEOUT']"),
        key_prefix=_parse(text, "" if key_prefix is None else key_prefix, f"{path}['KEY_PREFIX']"),
        version=_parse(whole_number(0), written.get("VERSION", 1), f"{path}['VERSION']"),
        key_function=_read_key_function(written.get("KEY_FUNCTION"), path),
        options=parsed,
        given=given,
        alias=alias,
    )


def _written_settings(params: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Sort the alias's keys into settings, folding Django's lower-case spellings in."""
    written: dict[str, Any] = {}
    beside: dict[str, Any] = {}
    for name, value in params.items():
        if name not in SETTINGS and name not in _LOWER_CASE:
            raise _unknown_key(name, path)
        setting = _LOWER_CASE.get(name, name)
        if name in _LOWER_CASE and setting == "OPTIONS":
            beside[name] = value
        elif setting in written:
            raise ConfigurationError(f"{path} has {setting} twice, in two spellings; keep one of them.")
        else:
            written[setting] = value
    if beside:
        inside = _options_dict(written.get("OPTIONS"), path)
        twice = sorted(beside.keys() & inside.keys())
        if twice:
            name = twice[0]
            raise ConfigurationError(f"{path} has {name!r} twice, in OPTIONS and beside it; keep the one in OPTIONS.")
        written["OPTIONS"] = beside | inside
    return written


def _unknown_key(name: str, path: str) -> ConfigurationError:
    if name == "REVERSE_KEY_FUNCTION":
        return ConfigurationError(
            f"{path} has the key {name!r}, of django-redis. Remove it: keys() turns storage keys back by itself, "
            "if KEY_FUNCTION keeps prefix, version and key readable, one after the other."
        )
    return ConfigurationError(
        f"{path} has the key {name!r}, which does not exist.{wording.nearest(str(name), SETTINGS)} "
        f"The keys are {', '.join(SETTINGS)}; a backend's own options go into OPTIONS."
    )


def _options_dict(written: Any, path: str) -> dict[str, Any]:
    if written is None:
        return {}
    if not isinstance(written, Mapping):
        raise ConfigurationError(
            f"{path}['OPTIONS'] is {wording.shown(written)}; expected a dict of option names and values."
        )
    return dict(written)


def _read_options(
    written: Any, known: Mapping[str, Option] | None, path: str, backend: str
) -> tuple[dict[str, Any], frozenset[str]]:
    written = _options_dict(written, path)
    if known is None:
        return written, frozenset(written)
    known = {**COMMON_OPTIONS, **known}
    parsed = {name: option.default for name, option in known.items()}
    given: set[str] = set()
    for spelling, value in written.items():
        name, where = str(spelling).lower(), f"{path}['OPTIONS'][{spelling!r}]"
        if name not in known:
            raise ConfigurationError(
                f"{where} is not an option of {backend}.{wording.nearest(name, known)} Its options are: "
                f"{', '.join(sorted(known))}."
            )
        if name in given:
            raise ConfigurationError(f"{where} is given twice, in two spellings; keep one of them.")
        given.add(name)
        parsed[name] = _parse(known[name].parse, value, where, name)
    return parsed, frozenset(given)


def _read_key_function(written: Any, path: str) -> keys.KeyFunction:
    if not (written is None or isinstance(written, str) or callable(written)):
        raise ConfigurationError(
            f"{path}['KEY_FUNCTION'] is {wording.shown(written)}; expected a callable f(key, key_prefix, version), "
            "its dotted path, or None for the default."
        )
    try:
        return keys.get_key_func(written)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _parse(parse: Callable[[Any], Any], value: Any, where: str, name: str = "") -> Any:
    try:
        return parse(value)
    except ValueError as expectation:
        raise ConfigurationError(f"{where} is {wording.shown(value, name)}; expected {expectation}.") from None
