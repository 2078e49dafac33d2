"""One alias of CACHES as the checks see it, read as far as it can be."""

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from storeroom import config
from storeroom.base import BaseCache
from storeroom.checks.context import Context
from storeroom.checks.finding import Finding, Rule
from storeroom.exceptions import ConfigurationError, DeprecatedBackendWarning, InvalidCacheBackendError
from storeroom.registry import aliases, backend_paths
from storeroom.wording import mask_url

__all__ = ["Subject", "check_together", "dotted_path", "file_cache", "read_subject"]

REFUSED: Final = Rule(
    "storeroom.E001", "A setting is wrong", "Storeroom refuses to start with it, rather than guess what is meant."
)
NO_BACKEND: Final = Rule(
    "storeroom.E002", "BACKEND cannot be imported", "There is no such cache: Storeroom refuses to start."
)
REMOVED: Final = Rule(
    "storeroom.W008",
    "BACKEND is a class that Django has removed",
    "MemcachedCache is not in Django since version 4.1, which does not start with it. Storeroom still knows the "
    "name and takes PyMemcacheCache for it.",
)

_FAMILY: Final = re.compile(r"(?:storeroom|django\.core\.cache)\.backends\.(?!base\b)(\w+)")
_SEVERAL_HOSTS: Final = re.compile(r"\w+\+(?:sentinel|cluster)://")

ENOUGH_ENTRIES: Final = 100_000
"""MAX_ENTRIES of a file cache in remedies."""

# A name that was removed is a finding: the interpreter keeps quiet about it.
_without_warnings: Final = partial(warnings.catch_warnings, action="ignore", category=DeprecatedBackendWarning)

# Stands in for an alias whose mistakes are told already.
_RIGHT: Final = {"BACKEND": "storeroom.backends.dummy.DummyCache"}


@dataclass(frozen=True, slots=True)
class Subject:
    """An alias, read for checking."""

    name: str
    written: Mapping[str, Any]  # its dict, as a person wrote it
    backend: str  # dotted path of its class, as written
    family: str  # its module's name ("locmem", "filebased", "redis", …), also of a subclass; "" where it is unknown
    settings: config.Settings | None  # None where something in them is wrong
    alias: aliases.Alias | None  # the cache is built of it; None where something is wrong
    directory: Path | None  # of a file cache, links followed; None of any other cache, and where LOCATION is no path
    entries: Path | None  # the folder in it that the entries are in; None as above
    context: Context

    @property
    def class_name(self) -> str:
        """The class's name alone."""
        return self.backend.rpartition(".")[2]

    @property
    def is_djangos(self) -> bool:
        """Whether it is on a class of Django's own, or django-redis's."""
        return _is_djangos(self.written, self.context)

    @property
    def locations(self) -> list[str]:
        """Each path, name or address in LOCATION; servers may be listed, or be separated by ";" or ","."""
        return _locations(self.written, self.family)

    @property
    def shown_location(self) -> str:
        """LOCATION for people to read, without passwords."""
        return ", ".join(map(mask_url, self.locations))

    @property
    def storage(self) -> tuple[object, ...] | None:
        """The identity of the storage, the same for aliases that share it; None where it is unknown."""
        if self.family in {"", "dummy"}:
            return None
        options = self.written.get("OPTIONS")
        database = options.get("db") if isinstance(options, Mapping) else None
        locations = [str(self.directory)] if self.directory is not None else sorted(self.locations)
        # Django's class and Storeroom's may have the same name or directory, and share nothing there.
        whose = self.backend if self.family in {"locmem", "filebased"} and self.is_djangos else ""
        return (self.family, whose, database, *locations)

    def told(self, question: str) -> Any:
        """Return the answer of the class's optional method `question`(location, settings); None where it has none."""
        alias = self.alias
        if alias is None or alias.settings is None or not hasattr(alias.backend, question):
            return None
        return getattr(alias.backend, question)(alias.location, alias.settings)


def file_cache(location: str) -> dict[str, Any]:
    """Return the settings of a file cache, as a remedy for another."""
    return {
        "BACKEND": "storeroom.backends.filebased.FileBasedCache",
        "LOCATION": location,
        "OPTIONS": {"MAX_ENTRIES": ENOUGH_ENTRIES},
    }


def read_subject(name: str, written: object, context: Context) -> tuple[Subject, list[Finding]]:
    """Read one alias as far as possible; each mistake is a finding."""
    mapping: Mapping[str, Any] = written if isinstance(written, Mapping) else {}
    is_djangos = _is_djangos(mapping, context)
    # Django takes many a mistake for its default, and says nothing.
    backend_class, alias, findings = (None, None, []) if is_djangos else _read(name, written, mapping, context)
    settings = None if alias is None else alias.settings
    if alias is None:  # where only LOCATION is wrong, the other settings are known
        with suppress(ConfigurationError):
            settings = _settings(name, mapping, backend_class)
    path = dotted_path(mapping.get("BACKEND", ""))
    family = _family(path, backend_class)
    directory = _directory(mapping, context) if family == "filebased" and not is_djangos else None
    folder: str | None = getattr(backend_class, "entries_folder", None)
    entries = directory / folder if directory is not None and folder is not None else None
    subject = Subject(name, mapping, path, family, settings, alias, directory, entries, context)
    return subject, [*findings, *_check_removed(subject)]


def _is_djangos(written: Mapping[str, Any], context: Context) -> bool:
    """Tell whether this is a class of Django or django-redis, not Storeroom's that its path may stand for."""
    backend = written.get("BACKEND")
    return context.in_django and isinstance(backend, str) and backend in backend_paths.DJANGO_PATHS


def _read(
    name: str, written: object, mapping: Mapping[str, Any], context: Context
) -> tuple[type[Any] | None, aliases.Alias | None, list[Finding]]:
    """Return the class and the alias, as far as they can be read, and the mistakes."""
    try:
        with _without_warnings():
            alias = aliases.read_alias(name, written, context.directory)
    except InvalidCacheBackendError as error:
        # A class that is not there does not say which options it has; the other settings are known.
        backend_class, findings = None, [NO_BACKEND.broken(name, str(error), "")]
        mistakes = list(_mistakes(name, mapping, None))
    except ConfigurationError as error:
        backend_class, findings = None, []
        with suppress(ConfigurationError), _without_warnings():  # None where not even BACKEND is right
            backend_class = backend_paths.resolve(mapping.get("BACKEND"), "CACHES[...]")
        mistakes = list(_mistakes(name, mapping, backend_class)) or [str(error)]
    else:
        return alias.backend, alias, []
    return backend_class, None, findings + [REFUSED.broken(name, mistake, "") for mistake in mistakes]


def check_together(caches: Mapping[str, Any], context: Context, *, each_is_right: bool) -> Iterator[Finding]:
    """Find mistakes of the configuration as a whole, beside those of single aliases."""
    # Where an alias is wrong, its name still counts: is there a default?
    whole = {
        name: written if each_is_right and not _is_djangos(written, context) else _RIGHT
        for name, written in caches.items()
    }
    try:
        with _without_warnings():
            aliases.read_caches(whole, context.directory)
    except ConfigurationError as error:
        yield REFUSED.broken(None, str(error), "")


def _settings(name: str, written: Mapping[str, Any], backend_class: type[Any] | None) -> config.Settings:
    params = {key: value for key, value in written.items() if key not in {"BACKEND", "LOCATION"}}
    options = backend_class.options if backend_class is not None and issubclass(backend_class, BaseCache) else None
    backend = "this backend" if backend_class is None else backend_class.__name__
    return config.read_params(params, options, alias=name, backend=backend)


def _mistakes(name: str, written: Mapping[str, Any], backend_class: type[Any] | None) -> Iterator[str]:
    """Yield the mistake in each single setting: reading all at once stops at the first."""
    pieces: list[dict[str, Any]] = []
    for key, value in written.items():
        if key == "OPTIONS" and isinstance(value, Mapping):
            pieces += [{"OPTIONS": {name: option}} for name, option in value.items()]
        else:
            pieces.append({key: value})
    for piece in pieces:
        try:
            _settings(name, piece, backend_class)
        except ConfigurationError as error:
            yield str(error)


def _check_removed(subject: Subject) -> Iterator[Finding]:
    if subject.backend.endswith(".memcached.MemcachedCache"):
        mended = {"BACKEND": "storeroom.backends.memcached.PyMemcacheCache"}
        what = f"BACKEND is {subject.backend!r}."
        yield REMOVED.broken(subject.name, what, "Name the class that took its place:", mended)


def _locations(written: Mapping[str, Any], family: str) -> list[str]:
    location = written.get("LOCATION")
    if location is None or location == "":
        return []
    if isinstance(location, list | tuple):
        return list(map(str, location))
    if family not in {"redis", "memcached"} or _SEVERAL_HOSTS.match(str(location)):
        return [str(location)]
    return re.split(r"[;,]\s*", str(location))


def _directory(written: Mapping[str, Any], context: Context) -> Path | None:
    locations = _locations(written, "filebased")
    if not locations or "://" in locations[0]:
        return None
    path = Path(locations[0])
    with suppress(RuntimeError):  # there is no such user
        path = path.expanduser()
    return Path(os.path.realpath(context.base / path))


def dotted_path(backend: object) -> str:
    """Return the path of a BACKEND that may be a class."""
    return f"{backend.__module__}.{backend.__qualname__}" if isinstance(backend, type) else str(backend)


def _family(path: str, backend_class: type[Any] | None) -> str:
    """Return the storage by the module of the class or of one that it inherits from."""
    if path == "django_redis.cache.RedisCache":
        return "redis"
    names = [path] if backend_class is None else [f"{base.__module__}." for base in backend_class.__mro__]
    found = (_FAMILY.match(name) for name in names)
    return next((match[1] for match in found if match), "")
