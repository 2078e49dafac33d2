"""Generations of pages: the one entry that every hit reads beside its page, so that many pages go by one write.

It lists the latest invalidations by prefix, by view, or by a path at all hosts: each pattern, with the number of its
last one. A page remembers the number of when it was begun: it is live unless a pattern with a higher one is for it. The
list has a random name, which goes into the numbers: if it is lost no page is live, and a new one does not take old
pages for its own. Pages of before a pattern that is listed no more are not live either: misses, never stale hits. No
clock takes part, and a page that was being made during an invalidation is not live.
"""

import os
import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from storeroom.storage.hooks import MISSING, StorageHooks
from storeroom.storage.steps import Steps
from storeroom.timeouts import NEVER

__all__ = ["Generations", "begin", "read", "write"]

MOST: Final = 100
"""Patterns that are remembered one by one; each costs those who read a page from before it a comparison."""

_NUMBER_BITS: Final = 24
"""Of the 64 bits of a stamp, those of a number; the others are the list's name. Beyond that a new list is begun."""

_TRIES: Final = 100


class Generations:
    """The list as it was read.

    Attributes:
        current: the stamp of a page that is begun now: the list's name, and the latest number.
        text: the entry.
    """

    __slots__ = ("_floor", "_latest", "_name", "_patterns", "current", "text")

    def __init__(self, name: int, latest: int, floor: int, patterns: dict[str, int], text: str = "") -> None:
        self.text, self._name, self._latest, self._floor, self._patterns = text, name, latest, floor, patterns
        self.current = (name << _NUMBER_BITS) + latest

    def allows(self, stamp: int, url: str) -> bool:
        """Tell whether a page of this URL that was begun at this stamp is live."""
        if stamp == self.current:
            return True
        begun = stamp - (self._name << _NUMBER_BITS)
        if not self._floor <= begun <= self._latest:
            return False
        return not any(number > begun and _matches(pattern, url) for pattern, number in self._patterns.items())

    def after(self, patterns: list[str]) -> str:
        """Return the text of the list after one more invalidation."""
        latest, kept = self._latest, dict(self._patterns)
        for pattern in patterns:
            latest += 1
            kept.pop(pattern, None)  # the order is that of the numbers
            kept[pattern] = latest
        if latest >> _NUMBER_BITS:
            return _new()
        numbers = list(kept.values())[:-MOST]
        lines = [f"{number:x} {pattern}" for pattern, number in kept.items()][-MOST:]
        return "\n".join((f"{self._name:x} {latest:x} {max((self._floor, *numbers)):x}", *lines))


def _new() -> str:
    return f"{int.from_bytes(os.urandom(5), 'big') | 1:x} 0 0"


def _matches(pattern: str, url: str) -> bool:
    kind, text = pattern[0], pattern[1:]
    if text.startswith("/"):
        url = url[url.index("/", url.index("://") + 3) :]
    if kind == "~":
        return _form(text).fullmatch(unquote(url.partition("?")[0])) is not None
    return url == text if kind == "=" else url.startswith(text)


@lru_cache(maxsize=256)
def _form(text: str) -> re.Pattern[str]:
    """Return a pattern for decoded paths, in which a star stands for any text."""
    return re.compile(".*".join(re.escape(unquote(part)) for part in text.split("*")), re.DOTALL)


@lru_cache(maxsize=16)
def read(text: str) -> Generations | None:
    """Return the list in an entry; None if it is none."""
    head, *lines = text.split("\n")
    try:
        name, latest, floor = (int(number, 16) for number in head.split(" "))
        patterns = {pattern: int(number, 16) for number, _, pattern in (line.partition(" ") for line in lines)}
    except ValueError:
        return None
    return Generations(name, latest, floor, patterns, text)


def begin(hooks: StorageHooks, storage_key: str) -> Steps[Generations | None]:
    """Return the list, having begun one if there was none; None if the storage does not keep it."""
    if (yield hooks, "_add", (storage_key, text := _new(), NEVER)) is True:
        return read(text)
    found = yield hooks, "_get", (storage_key,)
    known = read(found) if type(found) is str else None
    if known is None and (yield hooks, "_compare_set", (storage_key, found, text, NEVER)):  # it was no list
        return read(text)
    return known


def write(hooks: StorageHooks, storage_key: str, patterns: list[str]) -> Steps[bool]:
    """Make all pages that match one of the patterns absent. Return whether there were any pages before.

    Args:
        hooks: of the cache.
        storage_key: of the list.
        patterns: "=" and a whole path or URL, "^" and the beginning of one, or "~" and a path with stars, each for any
            text, to go with any query. A path is one at all hosts.

    Raises:
        StorageError: the storage cannot be written now.
    """
    for _ in range(_TRIES):
        found = yield hooks, "_get", (storage_key,)
        if found is MISSING:  # no page is live without it
            return False
        known = read(found) if type(found) is str else None
        if known is None:
            break
        if (yield hooks, "_compare_set", (storage_key, found, known.after(patterns), NEVER)):
            return True
    # Others write without end, or it is no list: without one no page is live.
    yield hooks, "_delete", (storage_key,)
    return True
