"""The look for a stored page: the page and the generations in one exchange, and a variant in another one.

Where the storage is in this machine a hit is two or three reads; elsewhere one read of several keys.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from storeroom.exceptions import StorageError
from storeroom.http.records import PASS, RECORD, VARIES, Record, Varies, generation_of, read_varies, unpack
from storeroom.http.requests import Request, forwarded, variant
from storeroom.pages import generations
from storeroom.pages.generations import Generations
from storeroom.pages.options import Plan
from storeroom.storage import tags
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING
from storeroom.storage.inline import WouldWaitError
from storeroom.storage.steps import Steps

__all__ = [
    "GENERATIONS", "PAGE", "PART", "Companions", "Found", "Task", "inline", "judged", "looking", "looking_again",
]  # fmt: skip

PAGE: Final = "page:"
PART: Final = "page-part:"
GENERATIONS: Final = "pages:generations"
"""Beginnings of keys: of whole applications' pages, of those of their parts, and of the list of generations."""

_NOTHING: Final[Mapping[str, Any]] = {}
Companions = dict[str, tuple[Any, tuple[str, ...]]]

MOST_COMPANIONS: Final = 10_000


class Task:
    """A request that the cache has to do with.

    Attributes:
        cache: the cache.
        hooks: of the cache.
        plan: the options for the URL.
        policy: those of the rules.
        request: the request.
        url: the primary key.
        storage_key: of the entry under it.
        generations_key: storage key of the generations.
        companions: by storage key, the marker and the tags' keys of the page that was found there last.
    """

    __slots__ = (
        "cache", "companions", "generations_key", "hooks", "plan", "policy", "request", "storage_key", "url",
    )  # fmt: skip

    def __init__(
        self, cache: Any, plan: Plan, request: Request, url: str, companions: Companions, begin: str = PAGE
    ) -> None:
        self.cache, self.hooks = cache, cache._overlay or cache
        self.plan, self.policy = plan, plan.policy
        self.request, self.url = request, url
        self.companions = companions
        self.storage_key = cache._storage_key(begin + url, None)
        self.generations_key = cache._storage_key(GENERATIONS, None)

    def variant_key(self, marker: Varies, names: tuple[bytes, ...] = ()) -> str:
        """Return the storage key of the page for the request's own headers; by other names than the marker's, if given.

        Those of no page that is stored: the request has more headers that pages differ by than the marker knows.
        """
        values = variant(self.request, names or marker.names, self.policy)
        return f"{self.storage_key} {marker.stamp} {'+' if names else ''}{values}"


class Found(NamedTuple):
    """An entry that was looked for.

    Attributes:
        record: the stored page; None if there is none that is live.
        body: its body.
        entry: as the storage has it; MISSING if there is none.
        storage_key: where the page is, or is to be.
        marker: the entry that tells the headers that the URL's pages differ by, as the storage has it; MISSING if none.
        generations: at the moment of the look.
        reason: for which there is no page, by the words of RFC 9211 §2.2.
    """

    record: Record | None
    body: bytes
    entry: Any
    storage_key: str
    marker: Any
    generations: Generations
    reason: str = ""


def _stored(entry: Any) -> Any:
    """Return the bytes of an entry, out of its envelope; MISSING for a lease without a value, and other things."""
    if type(entry) is Envelope:
        entry = entry.value if entry.has_value else MISSING
    return entry if type(entry) is bytes else MISSING


def inline(task: Task) -> Found | None:
    """Return the page, where the hooks answer at once; None if the steps of looking() are needed."""
    if not task.hooks.async_inline:
        return None
    try:
        written, entry = task.hooks._get_together((task.generations_key, task.storage_key))
        known = generations.read(written) if type(written) is str else None
        if known is None:
            return None
        if type(entry) is bytes and entry[:2] == VARIES:
            return _of_variant(task, known, entry)
        return _current(task, task.storage_key, known, entry, MISSING)
    except (StorageError, WouldWaitError):
        return None


def _of_variant(task: Task, known: Generations, entry: bytes) -> Found | None:
    marker = read_varies(entry)
    lacking = _lacking(task, known, marker, entry)
    if lacking is not None:
        return lacking
    storage_key = task.variant_key(marker)
    return _current(task, storage_key, known, task.hooks._get(storage_key), entry)


def _current(task: Task, storage_key: str, known: Generations, entry: Any, marker: Any) -> Found | None:
    """Return the page of an entry that was read; the versions of its tags are to be had at once. None if it is made."""
    if type(entry) is Envelope and entry.leased_until:
        return None
    if type(entry) is Envelope and entry.tags:
        get = task.hooks._get
        if not tags.agree(entry, {key: get(key) for key, _ in entry.tags}):
            return Found(None, b"", entry, storage_key, marker, known, "miss;invalidated")
    return judged(task, storage_key, known, entry, marker)


def _lacking(task: Task, known: Generations, marker: Varies, entry: bytes) -> Found | None:
    """Return that there is no page, if the marker is not live, or lacks a header that the request has."""
    if not known.allows(marker.generation, task.url):
        return Found(None, b"", entry, task.storage_key, MISSING, known, "uri-miss")
    own = forwarded(task.request)
    if not set(own) <= set(marker.names):
        key = task.variant_key(marker, tuple(sorted({*marker.names, *own})))
        return Found(None, b"", MISSING, key, entry, known, "vary-miss")
    return None


def judged(task: Task, storage_key: str, known: Generations, entry: Any, marker: Any) -> Found:
    """Return the page of an entry that was read, whose tags are current."""
    stored = _stored(entry)
    reason = "uri-miss" if marker is MISSING else "vary-miss"
    kind = stored[:2] if stored is not MISSING else b""
    if kind == PASS and known.allows(generation_of(stored), task.url):
        reason = "bypass;hit-for-miss"
    elif kind == RECORD:
        try:
            record, body = unpack(stored)
        except ValueError:
            return Found(None, b"", entry, storage_key, marker, known, reason)
        if record.stamp != known.current and not known.allows(record.stamp, task.url):
            reason = "miss;invalidated"
        elif not task.request.is_plain and marker is MISSING and forwarded(task.request):
            reason = "vary-miss"
        else:
            return Found(record, body, entry, storage_key, marker, known)
    return Found(None, b"", entry, storage_key, marker, known, reason)


def looking(task: Task) -> Steps[Found | None]:
    """Return the page, whatever the storage; None if that keeps nothing now.

    The page, the generations, and what went with this URL's page before, in one exchange.
    """
    marker, tag_keys = task.companions.get(task.storage_key, (MISSING, ()))
    keys = [task.storage_key, task.generations_key, *tag_keys]
    if marker is not MISSING:
        keys.append(task.variant_key(read_varies(marker)))
    found = yield task.hooks, "_get_many", (keys,)
    written = found.get(task.generations_key)
    known = generations.read(written) if type(written) is str else None
    if known is None:
        known = yield from generations.begin(task.hooks, task.generations_key)
    if known is None:
        return None
    entry = found.get(task.storage_key, MISSING)
    return (yield from looking_again(task, known, entry, {key: found.get(key, MISSING) for key in keys}))


def looking_again(task: Task, known: Generations, entry: Any, read: Mapping[str, Any] = _NOTHING) -> Steps[Found]:
    """Return the page, after the entry under the primary key was read, and perhaps others."""
    storage_key, marker = task.storage_key, MISSING
    stored = _stored(entry)
    if stored is not MISSING and stored[:2] == VARIES:
        varies = read_varies(stored)
        lacking = _lacking(task, known, varies, entry)
        if lacking is not None:
            return lacking
        marker, storage_key = entry, task.variant_key(varies)
        entry = read[storage_key] if storage_key in read else (yield task.hooks, "_get", (storage_key,))
    tag_keys = tuple(key for key, _ in entry.tags) if type(entry) is Envelope else ()
    if marker is not MISSING or tag_keys:
        if len(task.companions) >= MOST_COMPANIONS:
            task.companions.clear()
        task.companions[task.storage_key] = stored if marker is not MISSING else MISSING, tag_keys
    if tag_keys:
        is_read = all(key in read for key in tag_keys)
        is_current = tags.agree(entry, read) if is_read else (yield from tags.are_current(task.hooks, entry))
        if not is_current:
            return Found(None, b"", entry, storage_key, marker, known, "miss;invalidated")
    return judged(task, storage_key, known, entry, marker)
