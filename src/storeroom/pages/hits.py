"""Hits that are answered as the last one was.

Request, plan, key, record and headers come out the same for the same GET, and are most of a hit. The memory of them
decides nothing: the storage is asked each time, and all that had led to the answer has to be there as it was.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final, NamedTuple

from storeroom import timeouts
from storeroom.exceptions import StorageError
from storeroom.http import FORWARDED, LOOKED_AT, Headers, Policy, Record, are_strange, counted_text, read_varies
from storeroom.pages.looking import Found, Task
from storeroom.pages.making import Answer
from storeroom.storage import tags
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING
from storeroom.storage.inline import WouldWaitError

__all__ = ["Hits", "Spelling"]

MOST_HITS: Final = 256
LARGEST_HIT: Final = 2**16
"""Hits that are kept, and the bytes of an entry and of a body: 32 MiB at most. Large ones gain little."""


class Spelling(NamedTuple):
    """The form in which a door has requests and answers.

    Attributes:
        looked_at: names of all that decides about an answer, whatever the page differs by: see http.LOOKED_AT.
        name: returns a header's name.
        headers: returns the headers of an answer as a list.
    """

    looked_at: frozenset[Any] = LOOKED_AT
    name: Callable[[bytes], Any] = bytes
    headers: Callable[[Headers], list[Any]] = list


class Hit:
    """A page that has answered.

    Attributes:
        head: the beginning of the cache's keys.
        keys: of the generations, the page, before it those of its URL that it differs by, behind it the tags' versions.
        values: the entries under them.
        page_at: which of them is the page.
        record: the page as it was shown.
        body: likewise.
        policy: the options.
        apart: names that no request has that it is for, but for cookies that do not count.
        told: the age for which the headers were made, and these.
    """

    __slots__ = ("apart", "body", "head", "keys", "page_at", "policy", "record", "told", "values")

    def __init__(
        self, task: Task, answer: Answer, apart: frozenset[Any], read: Mapping[str, Any], page_at: int
    ) -> None:
        self.head, self.keys, self.values, self.page_at = task.cache._head, tuple(read), tuple(read.values()), page_at
        self.record, self.body, self.policy, self.apart = answer.record, answer.body, task.policy, apart
        self.told: tuple[int, list[Any]] = (-1, [])


class Differing(NamedTuple):
    """The headers that the hits of a URL differ by."""

    names: tuple[Any, ...]
    cookie: Any
    policy: Policy

    def of(self, given: Mapping[Any, Any]) -> tuple[Any, ...]:
        """Return their values, but of the cookies the part that counts."""
        values = tuple(map(given.get, self.names))
        value = given.get(self.cookie)
        counted = None if value is None else counted_text(_bytes_of(value), self.policy)
        return values if counted is None else (*values, counted)


class Hits(dict[Any, Any]):
    """The last hit of each of the latest GETs, by the parts that the key of its page is made of.

    Where the page differs by headers these are there, and the hit is found by their values, too.

    Args:
        spelling: the door's.
        added: returns the headers that an answer has beside the page's own.
        are_steady: whether these are the same for a second.
    """

    def __init__(self, spelling: Spelling, added: Callable[[Record], Headers], *, are_steady: bool) -> None:
        super().__init__()
        self._spelling, self._added, self._are_steady = spelling, added, are_steady
        self._cookie = spelling.name(b"cookie")

    def again(
        self, name: Any, given: Mapping[Any, Any], cache: Any, is_plain: bool
    ) -> tuple[Record, list[Any], bytes] | None:
        """Return the record, its headers as the door sends them, and the body, if the page is found, fresh and live."""
        hit = self.get(name)
        if type(hit) is Differing:
            name = name, hit.of(given)
            hit = self.get(name)
        if hit is None or not (is_plain or self._is_for(hit, given)):
            return None
        if hit.head != cache._head or cache._overlay is not None or not cache.async_inline:  # it was configured anew
            return None
        try:
            found = cache._get_together(hit.keys, hit.values)
        except (StorageError, WouldWaitError):
            return None
        record, now = hit.record, timeouts.now()
        if not now < record.fresh_until or not (found is hit.values or _are_alike(found, hit)):
            self.pop(name, None)
            return None
        cache._counters.hits += 1
        told, age = hit.told, int(now - record.born)
        if told[0] != age or not self._are_steady:
            hit.told = told = age, self._spelling.headers(record.headers + self._added(record))
        return record, told[1].copy(), hit.body

    def _is_for(self, hit: Hit, given: Mapping[Any, Any]) -> bool:
        """Tell whether a request has nothing for which it could have another answer than one without it."""
        if not hit.apart.isdisjoint(given):
            return False
        cookie = given.get(self._cookie)
        return cookie is None or not hit.record.is_implicit or not are_strange(_bytes_of(cookie), hit.policy)

    def keep(self, name: Any, given: Mapping[Any, Any], task: Task, found: Found, answer: Answer) -> None:
        """Keep a hit, unless the request asks for more than the page, or that may be made anew early."""
        cache, entry, marker = task.cache, found.entry, found.marker
        packed, versions = (entry.value, entry.tags) if type(entry) is Envelope else (entry, ())
        names = () if marker is MISSING else read_varies(marker).names
        apart = _apart(self._spelling, names)
        is_own = task.hooks is cache and cache._head is not None and not task.plan.early
        if not is_own or max(len(packed), len(answer.body)) > LARGEST_HIT or not apart.isdisjoint(given):
            return
        read = {task.generations_key: found.generations.text, task.storage_key: marker, found.storage_key: entry}
        page_at = len(read) - 1
        with suppress(StorageError, WouldWaitError):
            read |= {key: cache._get(key) for key, _ in versions}
            if (type(entry) is Envelope and entry.leased_until) or not all(
                tags.is_written(read[key], version) for key, version in versions
            ):
                return
            if len(self) > MOST_HITS - 2:
                self.clear()
            if found.record is not None and found.record.coding:
                names = (*names, b"accept-encoding")
            if names:
                spelt = tuple(map(self._spelling.name, names))
                cookie = self._cookie if self._cookie in spelt else None
                differing = Differing(tuple(each for each in spelt if each != cookie), cookie, task.policy)
                self[name], name = differing, (name, differing.of(given))
            self[name] = Hit(task, answer, apart, read, page_at)


@lru_cache(maxsize=256)
def _apart(spelling: Spelling, names: tuple[bytes, ...]) -> frozenset[Any]:
    """Return the names that no request has that is answered by a page that differs by some headers."""
    return spelling.looked_at - {spelling.name(name) for name in (*names, b"cookie") if name in (*FORWARDED, b"cookie")}


def _are_alike(found: tuple[Any, ...], hit: Hit) -> bool:
    """Tell whether entries are as they were to the byte; envelopes are equal by their stamps alone."""
    if tuple(map(type, found)) != tuple(map(type, hit.values)) or found != hit.values:
        return False
    entry, before = found[hit.page_at], hit.values[hit.page_at]
    if type(entry) is not bytes and entry is not before and entry.value != before.value:
        return False
    hit.values = found
    return True


def _bytes_of(value: Any) -> bytes:
    return value if type(value) is bytes else value.encode("latin-1")
