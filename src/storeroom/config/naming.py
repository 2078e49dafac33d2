"""The alias in errors: the name of a handle's settings in CACHES, and errors of its storage that tell it.

A class gets all of an alias's settings but their name: by Django, and by Storeroom, as their classes are the same.
"""

import sys
from _contextvars import ContextVar
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["alias_of", "building", "named"]

_building: ContextVar[str] = ContextVar("storeroom.alias", default="")


@contextmanager
def building(alias: str) -> Iterator[None]:
    """Let handles that are made within be of this alias."""
    before = _building.set(alias)
    try:
        yield
    finally:
        _building.reset(before)


def alias_of(params: Mapping[str, Any], backend: str) -> str:
    """Return the alias whose settings these are, or "" where that is not known.

    Args:
        params: as a class gets them, without BACKEND and LOCATION. Django copies the dict, and not the ones in it.
        backend: the name of the class.
    """
    if alias := _building.get():
        return alias
    django, conf = sys.modules.get("django.core.cache"), sys.modules.get("django.conf")
    if django is None or conf is None or not conf.settings.configured:
        return ""
    same = [
        alias
        for alias, written in django.caches.settings.items()
        if str(written.get("BACKEND", "")).endswith(f".{backend}")
        and {name: value for name, value in written.items() if name not in {"BACKEND", "LOCATION"}} == params
    ]
    own = [alias for alias in same if django.caches.settings[alias].get("OPTIONS") is params.get("OPTIONS") is not None]
    return str(found[0]) if len(found := own or same) == 1 else ""


def named(error: Exception, alias: str, storage_key: object = None) -> Exception:
    """Let an error's text name the cache, and the key of the entry that it is about, if it does not yet. Return it."""
    text = str(error)
    if isinstance(storage_key, str) and repr(storage_key) not in text:
        text = f"{text} Its key is {storage_key!r}."
    if alias and "CACHES[" not in text:
        text = f"{text} The cache is CACHES[{alias!r}]."
    error.args = (text, *error.args[1:])
    return error
