"""Hits that are answered as the last one was: by what the storage has, and without all else."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

from storeroom import timeouts
from storeroom.exceptions import StorageError
from storeroom.http import Headers, Record, read_varies
from storeroom.http.requests import FORWARDED, are_strange, counted_text
from storeroom.pages.looking import Found, Task
from storeroom.pages.making import Answer
from storeroom.storage import tags
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING
from storeroom.storage.inline import WouldWaitError

__all__ = ["Hits"]

MOST_HITS: Final = 256
LARGEST_HIT: Final = 2**16
"""Hits that are kept, and the bytes of an entry and of a body: 32 MiB at most. Large ones gain little."""


class Hits(dict[Any, tuple[Any, ...]]):
    """The last hit of each of the latest GETs, by the parts that the key of its page is made of.

    Where the page differs by headers these are known by the parts, and the hit is found by their values, too. The next
    one has its headers and bytes, if the storage, which is asked each time, has all that had led to it, to the byte.

    Args:
        spelling: of the door, see Pages.
        added: returns the headers of an answer that are not the page's own.
        are_steady: whether these are the same for a second.
    """

    def __init__(self, spelling: Any, added: Callable[[Record], Headers], *, are_steady: bool) -> None:
        self._looked_at, self._spelt, self._shown = spelling
        self._added, self._are_steady, self._cookie = added, are_steady, self._spelt(b"cookie")
        self._differing: dict[Any, tuple[Any, ...]] = {}

    def again(
        self, name: Any, given: Mapping[Any, Any], cache: Any, is_plain: bool
    ) -> tuple[Record, list[Any], bytes] | None:
        """Return the record, its headers as the door sends them, and the body, if the page is found, fresh and live."""
        if (hit := self.get(name)) is None and (differing := self._differing.get(name)) is not None:
            hit = self.get(name := (name, *self._values(given, *differing)))
        if hit is None or not (is_plain or self._is_for(given, *hit[3:6])):
            return None
        head, keys, page_at, _, _, record, body, last = hit
        if head != cache._head or cache._overlay is not None or not cache.async_inline:  # it was configured anew
            return None
        try:
            found = cache._get_together(keys, last[0])
        except (StorageError, WouldWaitError):
            return None
        now = timeouts.now()
        if not now < record.fresh_until or not (found is last[0] or _are_alike(found, last[0], page_at)):
            self.pop(name, None)
            return None
        cache._counters.hits += 1
        _, told, headers = last
        if told != (age := int(now - record.born)) or found is not last[0] or not self._are_steady:
            headers = self._shown(record.headers + self._added(record))
            last[:] = found, age, headers
        return record, headers.copy(), body

    def _is_for(self, given: Mapping[Any, Any], apart: frozenset[Any], policy: Any, record: Record) -> bool:
        """Tell whether a request has nothing for which it could have another answer than one without it."""
        if not apart.isdisjoint(given):
            return False
        return not record.is_implicit or not are_strange(_bytes_of(given.get(self._cookie)), policy)

    def _values(self, given: Mapping[Any, Any], names: tuple[Any, ...], policy: Any) -> tuple[Any, ...]:
        """Return the values of the headers that a page differs by; the cookies that count, if there is a policy."""
        cookies = None if policy is None else counted_text(_bytes_of(given.get(self._cookie)), policy)
        return cookies, *map(given.get, names)

    def keep(self, name: Any, given: Mapping[Any, Any], task: Task, found: Found, answer: Answer) -> None:
        """Keep a hit, unless the request asks for more than the page, or that may be made anew early."""
        cache, entry, policy = task.cache, found.entry, task.policy
        names = () if found.marker is MISSING else read_varies(found.marker).names
        apart = _apart(self._looked_at, self._spelt, names)
        packed, versions = (entry.value, entry.tags) if type(entry) is Envelope else (entry, ())
        is_own = task.hooks is cache and cache._head is not None and not task.plan.early
        if not is_own or max(len(packed), len(answer.body)) > LARGEST_HIT or not apart.isdisjoint(given):
            return
        read = {task.generations_key: found.generations.text, task.storage_key: found.marker, found.storage_key: entry}
        page_at = len(read) - 1
        with suppress(StorageError, WouldWaitError):
            read |= {key: cache._get(key) for key, _ in versions}
        if any(not tags.is_written(read.get(key), version) for key, version in versions):
            return
        if len(self) + len(self._differing) > MOST_HITS - 2:
            self._differing.clear()
            self.clear()
        if found.record is not None and found.record.coding:
            names = (*names, b"accept-encoding")
        if names:
            by_cookies = policy if b"cookie" in names else None
            differing = tuple(self._spelt(each) for each in names if each != b"cookie"), by_cookies
            self._differing[name] = differing
            name = name, *self._values(given, *differing)
        last = [tuple(read.values()), -1, []]
        self[name] = cache._head, tuple(read), page_at, apart, policy, answer.record, answer.body, last


@lru_cache(maxsize=256)
def _apart(looked_at: frozenset[Any], spelt: Callable[[bytes], Any], names: tuple[bytes, ...]) -> frozenset[Any]:
    """Return the names of which no request has any that is answered by a page that differs by some headers."""
    return looked_at - {spelt(name) for name in FORWARDED if name in names} - {spelt(b"cookie")}


def _are_alike(found: tuple[Any, ...], before: tuple[Any, ...], page_at: int) -> bool:
    """Tell whether entries are as they were to the byte; envelopes are equal by their stamps alone."""
    if [*map(type, found)] != [*map(type, before)] or found != before:
        return False
    return type(found[page_at]) is bytes or bool(found[page_at].value == before[page_at].value)


def _bytes_of(cookie: Any) -> bytes:
    return cookie if type(cookie) is bytes else (cookie or "").encode("latin-1")
