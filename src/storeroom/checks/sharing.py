"""Sharing of a cache: among processes, aliases, other programs on a server, and users' sessions."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any, Final

from storeroom.checks.finding import Finding, Rule
from storeroom.checks.subject import Subject, file_cache
from storeroom.config import Settings
from storeroom.keys import KeySpace, escaped
from storeroom.registry.fallbacks import fallback_of

__all__ = ["CHECKS", "check_not_shared", "check_pairs"]

_SERVERS: Final = ("redis", "memcached")

NOT_SHARED: Final = Rule(
    "storeroom.W001",
    "Local memory where several processes serve the site",
    "Each process keeps a cache of its own: values are computed once in each, counters and locks hold in one "
    "process only, and a value deleted in one lives on in the others.",
)
COLLIDING: Final = Rule(
    "storeroom.W009",
    "Two aliases share keys",
    "One reads and overwrites what the other stored, and clear() of one empties the other.",
)
NO_PREFIX: Final = Rule(
    "storeroom.W010",
    "No KEY_PREFIX on a server",
    "Every program that uses this server without a prefix makes the same keys: each reads, overwrites and "
    "clears the others' entries.",
)
SESSIONS: Final = Rule(
    "storeroom.W016",
    "Sessions live in a cache that forgets them",
    "This engine keeps sessions in the cache alone: when their entries go, users are logged out and carts are empty.",
)

SESSIONS_IN_OUTAGE: Final = Rule(
    "storeroom.W028",
    "An outage ends all sessions",
    "Whoever asks for a page meanwhile is logged out, and the cookie is removed: the session is not found again when "
    "the server is back. Nobody can log in until then.",
)


def check_not_shared(alias: Subject, caches: Mapping[str, Any]) -> Iterator[Finding]:
    """Find local memory where something says that several processes serve the site.

    Memory that only stands before a shared storage, or in for it, is meant to be each process's own.
    """
    if alias.family != "locmem" or not alias.context.several_processes:
        return
    if alias.name in _helpers(caches) and alias.name not in {"default", alias.context.sessions_alias}:
        return
    what = f"BACKEND is local memory, and {alias.context.several_processes}."
    remedy = "On one machine share a file cache, which is about as fast; for several use a server, such as Redis:"
    yield NOT_SHARED.broken(alias.name, what, remedy, file_cache("/var/cache/app"))


def _helpers(caches: Mapping[str, Any]) -> set[str]:
    """Return the aliases that others name: as one of their tiers, or as their fallback."""
    helpers: set[str] = set()
    for written in caches.values():
        options = written.get("OPTIONS") if isinstance(written, Mapping) else None
        for name, value in options.items() if isinstance(options, Mapping) else ():
            if str(name).lower() == "tiers" and isinstance(value, list | tuple):
                helpers.update(tier for tier in value if isinstance(tier, str))
            elif str(name).lower() == "on_error" and isinstance(value, str):
                helpers.add(value.partition("fallback:")[2])
    return helpers


def _check_no_prefix(alias: Subject) -> Iterator[Finding]:
    is_named = alias.written.get("KEY_PREFIX") or alias.written.get("KEY_FUNCTION") is not None
    # A database table is left out: it is its project's own by its name and by its database.
    if alias.family in _SERVERS and not is_named:
        remedy = "Give each program, and each of its stages, a prefix of its own:"
        yield NO_PREFIX.broken(alias.name, "KEY_PREFIX is empty.", remedy, {"KEY_PREFIX": "shop-production"})


def _check_sessions(alias: Subject) -> Iterator[Finding]:
    if alias.name != alias.context.sessions_alias or alias.family not in {"locmem", "dummy"}:
        return
    loses = "stores nothing" if alias.family == "dummy" else "ends with its process"
    what = f"SESSION_ENGINE keeps sessions in cache {alias.name!r} alone, and {alias.class_name} {loses}."
    remedy = 'Use a cache that lasts, or SESSION_ENGINE "django.contrib.sessions.backends.cached_db":'
    yield SESSIONS.broken(alias.name, what, remedy, file_cache("/var/cache/app-sessions"))


def _check_sessions_in_outage(alias: Subject) -> Iterator[Finding]:
    if alias.name != alias.context.sessions_alias or alias.settings is None or alias.family not in _SERVERS:
        return
    if fallback_of(alias.settings.options) is None:
        what = f"SESSION_ENGINE keeps sessions in cache {alias.name!r} alone, and no other steps in for its server."
        remedy = 'Use SESSION_ENGINE "django.contrib.sessions.backends.cached_db", which reads the database then.'
        yield SESSIONS_IN_OUTAGE.broken(alias.name, what, remedy)


def check_pairs(aliases: Iterable[Subject]) -> Iterator[Finding]:
    """Find two caches in one storage of which one takes the other's keys for its own."""
    for one, other in combinations(aliases, 2):
        if one.settings is None or other.settings is None or not _is_one_storage(one, other):
            continue
        if _owns(one.settings, other.settings):
            yield _colliding(one, one.settings, other, other.settings)
        elif _owns(other.settings, one.settings):
            yield _colliding(other, other.settings, one, one.settings)


def _is_one_storage(one: Subject, other: Subject) -> bool:
    if one.storage is None or one.storage != other.storage:
        return False
    # LOCATION alone does not always tell.
    identity, other_identity = one.told("storage_identity"), other.told("storage_identity")
    return identity is None or other_identity is None or bool(identity == other_identity)


def _owns(owner: Settings, owned: Settings) -> bool:
    """Tell whether `owner` takes a key that `owned` makes for one of its own."""
    made = KeySpace(owned.key_function, owned.key_prefix).make("key", owned.version)
    return made is not None and KeySpace(owner.key_function, owner.key_prefix).owns(escaped(made))


def _colliding(owner: Subject, owner_settings: Settings, owned: Subject, owned_settings: Settings) -> Finding:
    location = f"LOCATION {owner.shown_location!r}" if owner.locations else "no LOCATION, which is one place"
    both = f"{owner.name!r} and {owned.name!r} are both {owner.class_name} with {location}"
    one, other = owner_settings.key_prefix, owned_settings.key_prefix
    if KeySpace(owner_settings.key_function, one).is_opaque:
        what = f"{both}, and from what KEY_FUNCTION of {owner.name!r} makes nobody can tell whose key it is."
        return COLLIDING.broken(owner.name, what, "Give it a place of its own:", _own_location(owner))
    same = f"KEY_PREFIX {one!r}"
    if one != other:
        same = f"keys of KEY_PREFIX {other!r} look like keys of {same}"
    remedy = "Give each a prefix that does not begin like the other's, or a LOCATION of its own:"
    return COLLIDING.broken(owned.name, f"{both}, and {same}.", remedy, {"KEY_PREFIX": owned.name})


def _own_location(alias: Subject) -> dict[str, str] | None:
    """Return another LOCATION; None for a server, where it may be another database or port."""
    locations = {"locmem": alias.name, "filebased": f"{alias.shown_location}-{alias.name}"}
    return {"LOCATION": locations[alias.family]} if alias.family in locations else None


CHECKS: Final = (_check_no_prefix, _check_sessions, _check_sessions_in_outage)
