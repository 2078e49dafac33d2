"""CACHES as a whole, read and checked: from a dict that a person wrote to an Alias for each of its items.

Everything is checked at once and nothing is opened: a mistake shows at start, not at the first use of its alias.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from itertools import combinations
from typing import Any, Final

from storeroom import config, wording
from storeroom.base import BaseCache
from storeroom.exceptions import ConfigurationError
from storeroom.keys import KeySpace, escaped
from storeroom.registry import backend_paths
from storeroom.registry.alias import Alias, copied

__all__ = ["DEFAULT_ALIAS", "Alias", "backend_class", "read_alias", "read_caches"]

_CODEC_OPTIONS: Final = frozenset({*config.CODEC_OPTIONS, "allowed_types"})

DEFAULT_ALIAS: Final = "default"

_NAMING: Final = ("on_error", "tiers")
"""OPTIONS that may name another alias."""


def read_caches(caches: object, directory: str | None = None) -> dict[str, Alias]:
    """Read a CACHES dict.

    Args:
        caches: alias to its dict.
        directory: the base of a relative LOCATION that is a path; the current directory if it is None.

    Raises:
        ConfigurationError: something is wrong; with several mistakes the message lists the first of each alias.
    """
    if not isinstance(caches, Mapping):
        hint = " A URL becomes one by {'default': storeroom.config_from_url(url)}." if isinstance(caches, str) else ""
        raise ConfigurationError(
            f"CACHES is {wording.shown(caches)}; expected a dict of aliases, such as "
            f"{{'default': {{'BACKEND': 'storeroom.backends.locmem.LocMemCache'}}}}.{hint}"
        )
    if "BACKEND" in caches and not isinstance(caches["BACKEND"], Mapping):
        raise ConfigurationError("CACHES is the dict of one cache; expected one of aliases: {'default': that dict}.")
    aliases: dict[str, Alias] = {}
    mistakes = [] if DEFAULT_ALIAS in caches else [_missing_default(caches)]
    for name, written in caches.items():
        try:
            aliases[name] = read_alias(name, written, directory)
        except ConfigurationError as mistake:
            mistakes.append(mistake)
    mistakes = mistakes or [
        *_collisions(aliases.values()),
        *_overlaps(aliases.values()),
        *_wrong_fallbacks(aliases),
        *_misplaced(aliases),
    ]
    if len(mistakes) > 1:
        listed = "".join(f"\n- {mistake}" for mistake in mistakes)
        raise ConfigurationError(f"CACHES has {len(mistakes)} mistakes:{listed}") from mistakes[0]
    if mistakes:
        raise mistakes[0]
    return aliases


def _missing_default(caches: Mapping[Any, Any]) -> ConfigurationError:
    there = f"only {', '.join(map(repr, caches))}" if caches else "no alias at all"
    return ConfigurationError(
        f"CACHES has no alias {DEFAULT_ALIAS!r}: there is {there}.{_misspelt(DEFAULT_ALIAS, caches)} "
        "Add it: it is what storeroom.cache stands for."
    )


def _misspelt(wanted: str, names: Iterable[object]) -> str:
    """Return " Is it 'x'?" for a name that may be a misspelling of the one that is missing, or ""."""
    near = next((name for name in names if wording.nearest(str(name), [wanted])), None)
    return "" if near is None else f" Is it {near!r}?"


def read_alias(name: object, written: object, directory: str | None) -> Alias:
    """Read one alias: see read_caches()."""
    if not isinstance(name, str):
        raise ConfigurationError(f"CACHES has an alias that is {wording.shown(name)}; expected a string.")
    where = f"CACHES[{name!r}]"
    if not isinstance(written, Mapping):
        hint = " A URL becomes one by storeroom.config_from_url(url)." if isinstance(written, str) else ""
        raise ConfigurationError(f"{where} is {wording.shown(written)}; expected a dict with BACKEND in it.{hint}")
    backend = backend_class(name, written)
    params = copied(written)
    del params["BACKEND"]
    location = _location(params.pop("LOCATION", ""), where)
    if location and isinstance(location, str) and getattr(backend, "location_is_path", False):
        location = _absolute(location, directory, where)
    settings = None
    if issubclass(backend, BaseCache):
        settings = config.read_params(params, backend.options, alias=name, backend=backend.__name__)
        _check_location(backend, location, settings, where)
        _check_codec(settings, where)
    return Alias(name, backend, location, params, settings)


def backend_class(name: str, written: Mapping[str, Any]) -> type[Any]:
    """Return the class that one alias's BACKEND names.

    Raises:
        ConfigurationError: there is no BACKEND, or no handle can be built of it; an InvalidCacheBackendError where it
            cannot be imported.
    """
    where = f"CACHES[{name!r}]"
    if "BACKEND" not in written:
        hint = _misspelt("BACKEND", (name for name in written if name not in config.SETTINGS))
        paths = ", ".join(backend_paths.available_paths())
        raise ConfigurationError(
            f"{where} has no BACKEND.{hint} Add it: the dotted path of a class; Storeroom has: {paths}."
        )
    backend = backend_paths.resolve(written["BACKEND"], where)
    if issubclass(backend, BaseCache):  # judged when it was made
        return backend
    try:
        import_module("inspect").signature(backend).bind("location", {})
    except ValueError:  # a class written in C need not tell
        return backend
    except TypeError as error:
        raise ConfigurationError(
            f"{where}['BACKEND'] is {backend.__qualname__}, which cannot be built as "
            f"{backend.__qualname__}(location, params): {error}. Expected a class whose __init__ takes these two."
        ) from error
    return backend


def _location(location: Any, where: str) -> Any:
    if isinstance(location, os.PathLike):
        location = os.fspath(location)
    are_addresses = isinstance(location, list | tuple) and all(isinstance(address, str) for address in location)
    if not isinstance(location, str) and not are_addresses:
        raise ConfigurationError(
            f"{where}['LOCATION'] is {wording.shown(location)}; expected a string (a path, a name or an address), "
            "a path object or a list of addresses."
        )
    return location


def _absolute(location: str, directory: str | None, where: str) -> str:
    """Return the whole path, so that a later chdir() does not move the cache."""
    try:
        config.require_path(location)
        whole = os.path.join(directory or os.getcwd(), location)
        if not location.startswith("~") and os.path.normpath(whole) == whole:  # as in most
            return whole
        path = import_module("pathlib").Path
        return str(path(directory or path.cwd(), path(location).expanduser()))
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}['LOCATION'] {str(error).removeprefix('LOCATION ')}") from None
    except RuntimeError as error:
        raise ConfigurationError(
            f"{where}['LOCATION'] is {location!r}, and there is no such user; expected a path, or ./~ for a name "
            "that begins with a tilde."
        ) from error


def _check_location(backend: type[Any], location: Any, settings: config.Settings, where: str) -> None:
    """Let the class check LOCATION, if it can; its error begins with "LOCATION is", or with "is"."""
    check = getattr(backend, "check_location", None)
    try:
        if check is not None:
            check(location, settings)
    except ConfigurationError as error:
        raise type(error)(f"{where}['LOCATION'] {str(error).removeprefix('LOCATION ')}") from error


def _check_codec(settings: config.Settings, where: str) -> None:
    """Build the codec that the options describe: a wrong one is told now and not by the first value."""
    given = {name: settings.options[name] for name in settings.given & _CODEC_OPTIONS}
    if not given:
        return
    from storeroom.serializers import build_codec  # noqa: PLC0415 -- only where a codec is configured

    try:
        build_codec(**given)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}['OPTIONS']: {error}") from error


def _collisions(aliases: Iterable[Alias]) -> Iterator[ConfigurationError]:
    """Yield a mistake for each alias whose storage keys are those of another under different settings."""
    first: dict[Any, tuple[Alias, config.Settings]] = {}
    for alias in aliases:
        # A class that keeps its entries in other aliases' storages has no LOCATION to share.
        if alias.settings is None or not alias.backend.keeps_entries or hasattr(alias.backend, "check_aliases"):
            continue
        other, settings = first.setdefault(_storage(alias, alias.settings), (alias, alias.settings))
        differing = _differences(settings, alias.settings)
        if differing:
            yield ConfigurationError(
                f"CACHES[{other.name!r}] and CACHES[{alias.name!r}] have the same LOCATION "
                f"{wording.masked(alias.location)!r}, KEY_PREFIX {settings.key_prefix!r} and VERSION "
                f"{settings.version}, so that each overwrites the other's keys, but differ in {', '.join(differing)}. "
                "Give one of them another LOCATION or KEY_PREFIX, or both the same settings."
            )


def _overlaps(aliases: Iterable[Alias]) -> Iterator[ConfigurationError]:
    """Yield a mistake for each two aliases whose prefixes differ, and of which one takes the other's keys for its own.

    Prefix "a:1" makes the keys that begin with "1:" under prefix "a", for example.
    """
    known: dict[Any, list[tuple[Alias, config.Settings]]] = {}
    for alias in aliases:
        # Where entries are kept apart by the prefix itself, none meet.
        is_apart = getattr(alias.backend, "clears_by_prefix", True) or hasattr(alias.backend, "check_aliases")
        if alias.settings is not None and not is_apart:
            known.setdefault(_storage(alias, alias.settings)[:2], []).append((alias, alias.settings))
    for together in known.values():
        for pair in combinations(together, 2):
            meeting = ((one, two) for one, two in (pair, pair[::-1]) if _owns_keys_of(one[1], two[1]))
            (owner, one), (owned, other) = next(meeting, (pair[0], pair[0]))
            if one.key_prefix != other.key_prefix:
                yield ConfigurationError(
                    f"CACHES[{owner.name!r}] and CACHES[{owned.name!r}] have the same LOCATION "
                    f"{wording.masked(owner.location)!r}, and keys of KEY_PREFIX {other.key_prefix!r} are keys of "
                    f"KEY_PREFIX {one.key_prefix!r}, too: each would read and clear entries of the other. Give one of "
                    f"them another LOCATION, or a KEY_PREFIX that does not begin with {one.key_prefix!r} and a number."
                )


def _owns_keys_of(owner: config.Settings, owned: config.Settings) -> bool:
    """Tell whether the first takes a key that the second makes for one of its own; False where that is unknown."""
    space = KeySpace(owner.key_function, owner.key_prefix)
    made = KeySpace(owned.key_function, owned.key_prefix).make("key", owned.version)
    return made is not None and not space.is_opaque and space.owns(escaped(made))


def _storage(alias: Alias, settings: config.Settings) -> tuple[Any, ...]:
    """Return the identity of a storage and of the keys in it: the same for aliases that overwrite each other's."""
    location = tuple(alias.location) if isinstance(alias.location, list) else alias.location
    if isinstance(location, str) and getattr(alias.backend, "location_is_path", False):
        location = os.path.realpath(location)
    identify = getattr(alias.backend, "storage_identity", None)
    if identify is not None:  # one name in several databases
        location = location, identify(alias.location, settings)
    return alias.backend, location, settings.key_prefix, settings.version, settings.key_function


def _differences(one: config.Settings, other: config.Settings) -> list[str]:
    differing = ["TIMEOUT"] if one.timeout != other.timeout else []
    names = {**one.options, **other.options}
    return differing + [f"OPTIONS[{name!r}]" for name in names if one.options.get(name) != other.options.get(name)]


def _wrong_fallbacks(aliases: Mapping[str, Alias]) -> Iterable[ConfigurationError]:
    given = [alias.settings.options for alias in aliases.values() if alias.settings is not None]
    if all(options.keys().isdisjoint(_NAMING) for options in given):
        return ()
    wrong: Iterable[ConfigurationError] = import_module("storeroom.registry.fallbacks").wrong_fallbacks(aliases)
    return wrong


def _misplaced(aliases: Mapping[str, Alias]) -> Iterator[ConfigurationError]:
    """Yield a mistake for each alias that refers to others and cannot, as its class's ``check_aliases`` tells."""
    for alias in aliases.values():
        check = getattr(alias.backend, "check_aliases", None)
        try:
            if check is not None:
                check(alias.name, aliases)
        except ConfigurationError as error:
            yield type(error)(f"CACHES[{alias.name!r}]: {error}")
