"""Generations of pages: the one entry that every hit reads beside its page, so that many pages go by one write.

It lists the latest invalidations by prefix, or by a path at all hosts, each with a random stamp. A page remembers the
stamp of the latest one when it was begun: it is live unless a later one is for it. One that remembers a stamp which is
not in the list any more is not live, nor is any page if the list is lost: pages become misses, never stale hits. No
clock takes part, and a page that was being made during an invalidation is not live either.
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
"""Invalidations that are remembered one by one; each costs those who read a page from before it a comparison."""

_TRIES: Final = 100


class Generations:
    """The list as it was read.

    Attributes:
        current: the latest stamp.
    """

    __slots__ = ("_order", "_patterns", "current")

    def __init__(self, lines: list[tuple[int, str]]) -> None:
        self.current = lines[-1][0]
        self._patterns = [pattern for _, pattern in lines]
        self._order = {stamp: number for number, (stamp, _) in enumerate(lines)}

    def allows(self, stamp: int, url: str) -> bool:
        """Tell whether a page of this URL that was begun at this stamp is live."""
        if stamp == self.current:
            return True
        number = self._order.get(stamp)
        return number is not None and not any(_matches(pattern, url) for pattern in self._patterns[number + 1 :])


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
    try:
        lines = [(int(stamp, 16), pattern) for stamp, _, pattern in (line.partition(" ") for line in text.split("\n"))]
    except ValueError:
        return None
    return Generations(lines)


def _line(pattern: str) -> str:
    return f"{os.urandom(8).hex()} {pattern}"


def begin(hooks: StorageHooks, storage_key: str) -> Steps[Generations | None]:
    """Return the list, having begun one if there was none; None if the storage does not keep it."""
    if (yield hooks, "_add", (storage_key, text := _line("-"), NEVER)) is True:
        return read(text)
    found = yield hooks, "_get", (storage_key,)
    return read(found) if type(found) is str else None


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
        lines = [*str(found).split("\n"), *map(_line, patterns)][-MOST:]
        if (yield hooks, "_compare_set", (storage_key, found, "\n".join(lines), NEVER)):
            return True
    # Others write without end: without the list no page is live.
    yield hooks, "_delete", (storage_key,)
    return True
