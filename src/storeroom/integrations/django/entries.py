"""A cache's entries as the admin's pages tell of them: a search among its keys, and one entry with its value."""

import heapq
import re
import reprlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import translate
from importlib import import_module
from typing import Any, Final

from django import conf

from storeroom.base import BaseCache, explaining
from storeroom.base.explanation import Explanation, seconds_in_words
from storeroom.exceptions import NotSupportedError
from storeroom.storage.hooks import MISSING
from storeroom.storage.steps import run

__all__ = ["Found", "Look", "is_of_session", "look", "search", "shown"]

MOST_SHOWN: Final = 200
"""Keys on a page."""

_SESSIONS: Final = ("django.contrib.sessions.cache", "django.contrib.sessions.cached_db")
_SPECIAL: Final = re.compile(r"[*?\[]")


def shown(text: str) -> str:
    r"""Return a text that a page can hold as it is, with the escapes of Python for all that cannot be seen.

    >>> shown("user:7"), shown("line\n\ud800")
    ('user:7', 'line\\n\\ud800')
    """
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def is_of_session(key: str) -> bool:
    """Tell whether a key is that of a session of Django's, by which the session can be taken over."""
    return key.startswith(_session_prefixes())


def _session_prefixes() -> tuple[str, ...]:
    engine = import_module(conf.settings.SESSION_ENGINE)
    own = getattr(getattr(engine, "SessionStore", None), "cache_key_prefix", None)
    return (*_SESSIONS, own) if own else _SESSIONS


# Searching ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """The keys that a search has found.

    Attributes:
        keys: the first ones, sorted.
        number: of all.
        lack: the reason why the storage cannot list its keys; "" if it can.
    """

    keys: list[str]
    number: int
    lack: str = ""


def search(cache: BaseCache, text: str, family: str, version: int | None, *, with_sessions: bool) -> Found:
    """Return the keys that begin with a text, or match it where it has ``*``, ``?`` or ``[…]`` in it.

    Args:
        cache: the cache.
        text: the beginning, or the pattern.
        family: the name of a family of keys, as in `stats()`; then keys of others are left out. "" for any.
        version: of the keys; None for the cache's own.
        with_sessions: whether keys of sessions are told; they are not counted otherwise, either.
    """
    try:
        # django-redis's keys() and clear() are others: a pattern, and the whole database.
        keys: Iterable[str] = BaseCache.keys(cache, _SPECIAL.split(text or family)[0], version=version)
    except NotSupportedError as error:
        return Found([], 0, str(error))
    if _SPECIAL.search(text):
        matches = re.compile(translate(text)).match
        keys = (key for key in keys if matches(key))
    families: Any = cache._families
    if family and families is not None:
        keys = (key for key in keys if families.name_of(key) == family)
    if not with_sessions:
        of_sessions = _session_prefixes()
        keys = (key for key in keys if not key.startswith(of_sessions))
    found = list(keys)
    return Found(heapq.nsmallest(MOST_SHOWN, found), len(found))


# One entry ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Look:
    """An entry, as a page tells of it.

    Attributes:
        told: all that is known of it.
        type: the name of the value's type; "" where a read would find none.
        value: the value as Python shows it; None where it is not to be told, or there is none.
    """

    told: Explanation
    type: str = ""
    value: str | None = None

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield labels and texts."""
        told = self.told
        yield "Found", f"{'yes' if told.would_hit else 'no'}: {told.reason}"
        if self.type:
            yield "Type", self.type
        if told.would_hit:
            yield "Timeout left", "it never expires" if told.left is None else seconds_in_words(told.left)
        if told.size is not None:
            yield "Size", f"{told.size:,} bytes"
        for label, text in told.rows():
            if label != "tag":
                yield label[:1].upper() + label[1:], shown(text)


def look(cache: BaseCache, key: str, version: int | None, *, with_value: bool) -> Look:
    """Return all that is known of an entry. Nothing is counted by it, and no entry is kept for longer.

    Raises:
        InvalidCacheKey: a validate_key() of the program's own refuses the key.
    """
    told = cache.explain(key, version)
    if not told.would_hit:
        return Look(told)
    value = run(explaining.seen_value(cache, key, version))
    if value is MISSING:
        return Look(told)
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return Look(told, name, _text(value) if with_value else None)


def _text(value: Any) -> str:
    """Return a value as Python shows it, up to some ten thousands of characters; also where its repr() fails."""
    writer = reprlib.Repr()
    writer.maxlevel = 8
    writer.maxdict = writer.maxlist = writer.maxtuple = writer.maxset = writer.maxfrozenset = writer.maxdeque = 200
    writer.maxstring = writer.maxother = writer.maxlong = 20_000
    if sys.version_info >= (3, 12):
        writer.indent = "    "
    return writer.repr(value)[:_MOST_CHARACTERS]


_MOST_CHARACTERS: Final = 50_000
