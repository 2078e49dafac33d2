"""The form of LOCATION, by backend: a name, a folder, an address or a table."""

import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from storeroom.checks.finding import Finding, Rule
from storeroom.checks.subject import Subject, file_cache
from storeroom.wording import mask_url

__all__ = ["CHECKS"]

WRONG_BACKEND: Final = Rule(
    "storeroom.E003",
    "LOCATION belongs to another backend",
    "The storage that is named is never reached: entries are kept somewhere else, or nowhere.",
)
PATH_OF_MEMORY: Final = Rule(
    "storeroom.W002",
    "Local memory has a path as LOCATION",
    "Local memory takes LOCATION for a mere name. Nothing is written to that path: other processes see "
    "none of the entries, and a restart loses them all.",
)
TABLE_NAME: Final = Rule(
    "storeroom.W003",
    "LOCATION looks like the name of a database table",
    "Only the database cache keeps its entries in a table. This backend takes the name for one of its own "
    "kind, and the table stays empty.",
)
RELATIVE: Final = Rule(
    "storeroom.W015",
    "The cache directory is a relative path",
    "It depends on the folder in which a process happens to start: a worker, a cron job and a shell each "
    "get a cache of their own.",
)

# Django's documentation calls the table "my_cache_table"; most projects follow it.
_TABLE: Final = re.compile(r"\w*(?:cache_table|table_cache|cachetable)\w*|\w+_table", re.IGNORECASE)
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_PATH: Final = re.compile(r"\.{0,2}/|~|[A-Za-z]:\\|\\\\")
_HOST_AND_PORT: Final = re.compile(r"[\w.-]+:\d{2,5}|\[[0-9a-f:]+\]:\d{2,5}", re.IGNORECASE)

_BACKENDS: Final = {
    "redis": "storeroom.backends.redis.RedisCache",
    "memcached": "storeroom.backends.memcached.PyMemcacheCache",
    "db": "storeroom.backends.db.DatabaseCache",
}

_KINDS: Final = {
    **dict.fromkeys(("redis", "rediss", "valkey", "valkeys"), "redis"),
    **dict.fromkeys(("sqlite", "postgresql", "postgres", "mysql", "mariadb"), "database"),
}
"""Scheme, up to a "+", to the kind of location."""

_BELONGS: Final = {
    "redis": ("redis",),
    "memcached": ("memcached",),
    "host and port": ("memcached",),
    "socket": ("redis", "memcached"),
    "database": ("db",),
    "path": ("filebased", "memcached"),  # memcached: a socket is a path too
    "file": (),  # a URL that CACHE_URL takes, and no LOCATION does
}
"""Kind of LOCATION to the families that understand it, the likeliest first."""

_TAKES: Final = {
    "locmem": "a name",
    "filebased": "a directory",
    "redis": 'a URL such as "redis://127.0.0.1:6379/0"',
    "memcached": 'an address such as "127.0.0.1:11211"',
    "db": "the name of a table, or the URL of a database",
}


def _kind(location: str) -> str:
    """Return the kind of a LOCATION by its form: a key of _BELONGS, or "" for a word that may be anything."""
    if location.startswith("unix:"):
        return "socket"
    scheme = _SCHEME.match(location)
    if scheme:
        name = scheme[1].lower().partition("+")[0]
        return _KINDS.get(name, name)
    if _PATH.match(location):
        return "path"
    return "host and port" if _HOST_AND_PORT.fullmatch(location) else ""


def _check_wrong_backend(alias: Subject) -> Iterator[Finding]:
    """Find the address of a server, a path or a URL given to a backend that cannot use it."""
    takes = _TAKES.get(alias.family)
    for location in alias.locations:
        kind = _kind(location)
        families = _BELONGS.get(kind, ())
        if alias.family == "locmem" and kind == "path":
            what = f"LOCATION is {mask_url(location)!r}, and BACKEND is local memory."
            yield PATH_OF_MEMORY.broken(alias.name, what, "Did you mean the file cache?", file_cache(_whole(location)))
        elif takes is not None and kind and alias.family not in families:
            what = f"LOCATION is {mask_url(location)!r}, but {alias.class_name} takes {takes}."
            yield WRONG_BACKEND.broken(alias.name, what, *_mended_location(alias, location, kind, families))


def _mended_location(alias: Subject, location: str, kind: str, families: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    if alias.family == "redis" and kind == "host and port":
        return "Write the address as a URL:", {"LOCATION": f"redis://{location}/0"}
    if kind == "file":
        path = unquote(urlsplit(location).path)
        return "Write the path alone:", {"LOCATION": path} if alias.family == "filebased" else file_cache(path)
    if not families:
        return f"Give it {_TAKES[alias.family]}.", {}
    remedy = "If this LOCATION is meant, so is this backend:"
    if families[0] == "filebased":
        return remedy, file_cache(_whole(location))
    return remedy, {"BACKEND": _BACKENDS[families[0]], "LOCATION": mask_url(location)}


def _check_table_name(alias: Subject) -> Iterator[Finding]:
    if alias.family not in {"locmem", "filebased", "redis", "memcached"}:
        return
    for location in alias.locations:
        if _TABLE.fullmatch(location):
            what = f"LOCATION is {location!r}, but {alias.class_name} takes {_TAKES[alias.family]}."
            mended = {"BACKEND": _BACKENDS["db"], "LOCATION": location}
            yield TABLE_NAME.broken(alias.name, what, "If the table is meant, so is the database cache:", mended)


def _check_relative(alias: Subject) -> Iterator[Finding]:
    if alias.directory is None or alias.context.directory is not None or _TABLE.fullmatch(alias.locations[0]):
        return
    location = alias.locations[0]
    if _whole(location) != location:
        shown = mask_url(location), mask_url(str(alias.directory))
        what = "LOCATION is {!r}; started here, it is {!r}.".format(*shown)
        yield RELATIVE.broken(alias.name, what, "Write the whole path:", {"LOCATION": _whole(location)})


def _whole(path: str) -> str:
    """Return the path itself if it is absolute, else an example of one that is."""
    is_whole = path.startswith("~") or PurePath(path).is_absolute()
    return path if is_whole else f"/var/cache/app/{PurePath(path).name or 'cache'}"


CHECKS: Final = (_check_wrong_backend, _check_table_name, _check_relative)
