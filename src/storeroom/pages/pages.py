"""The pages of an alias: found, judged, made, invalidated. The part that the doors have in common."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from storeroom import timeouts
from storeroom.computing.decision import draw
from storeroom.exceptions import ConfigurationError, StorageError
from storeroom.http import Headers, Kind, Record, Request, Verdict, bypass, cache_status, changed, cut, judge, key
from storeroom.http.fields import directives
from storeroom.http.requests import LOOKED_AT
from storeroom.pages import codings, generations, looking, single_flight
from storeroom.pages.codings import shown
from storeroom.pages.hits import Hits
from storeroom.pages.looking import GENERATIONS, PAGE, PART, Companions, Found, Task
from storeroom.pages.making import Answer, Making
from storeroom.pages.options import Plans
from storeroom.registry import caches
from storeroom.storage.envelope import Envelope
from storeroom.storage.outages import no_answers
from storeroom.storage.steps import Steps, arun, run

__all__ = ["Pages"]

Begin = Callable[[Making], Any]
Refresh = Callable[[Making], None]
Urls = Callable[[Any, Sequence[Any], Mapping[str, Any]], str | Iterable[str]]

_CONTROL: Final = b"cache-control"

_UNMADE: Final = Answer(Record(504, [(b"content-length", b"0")], 0.0, 0.0), b"", reason="request")
"""The answer to only-if-cached where there is no page (RFC 9111 §5.2.1.7)."""

_NOT_MODIFIED: Final = frozenset({
    b"cache-control", b"content-location", b"date", b"etag", b"expires", b"last-modified", b"vary",
})  # fmt: skip
"""Fields of an answer of 304 (RFC 9110 §15.4.5)."""


class Pages:
    """The pages of one alias.

    Args:
        cache: an alias, or a cache.
        hosts: the only hosts whose pages are stored; None for all. Give them where the server, or the application,
            takes any: each host that is made up has pages of its own.
        rules: pattern of a path, in which a star stands for any text, to options that differ there, or to None, for
            paths where nothing is stored. The first that fits counts.
        cache_status: the name of this cache in the header Cache-Status, which tells how a request was answered (RFC
            9211); None: the header is not sent.
        urls: tells the path of a view, by its name, positional and named arguments, for invalidate(view=...); or
            several paths. A star in a path stands for any text, as where an argument was not given.
        key_prefix: of pages that others shall not share: another application's at the same URLs.
        is_part: whether these are pages of a part of an application, which the rest of it may change: they are kept
            apart from those of the whole one.
        **options: for all paths: those of ``storeroom.http.Policy``, durations as timeouts; `tags` of the pages, or a
            function of the request; `early` as for get_or_set(); `hit_for_miss`, for how long requests for a page that
            is not to be stored do not wait for each other.

    Raises:
        ConfigurationError: an option is unknown, or its value means nothing.
    """

    _caches: Any = caches
    _spelling: Any = (LOOKED_AT, bytes, list)
    """A door's form of requests and answers: the names of all that decides about an answer, whatever the page differs
    by; functions that return the name of a header, and the headers of an answer."""

    def __init__(
        self, cache: Any = "default", *, hosts: Iterable[str] | None = None,
        rules: Mapping[str, Mapping[str, Any] | None] | None = None, cache_status: str | None = None,
        urls: Urls | None = None, key_prefix: str = "", is_part: bool = False, **options: Any,
    ) -> None:  # fmt: skip
        self._cache, self._urls = cache, urls
        area = f"{key_prefix} " if key_prefix else ""
        self._begin, self._begins = f"{PART if is_part else PAGE}{area}", (f"{PAGE}{area}", f"{PART}{area}")
        self.hosts = None if hosts is None else tuple(host.lower() for host in hosts)
        self.status_name = cache_status
        self._plans = Plans(options, rules or {})
        self._refreshing = set[str]()
        self._companions: Companions = {}
        self._hits = Hits(self._spelling, self.added, are_steady=cache_status is None)

    @property
    def cache(self) -> Any:
        """The cache itself."""
        return self._caches[self._cache] if isinstance(self._cache, str) else self._cache

    # For the doors ----------------------------------------------------------------------------

    def task(self, request: Request) -> Task | str:
        """Return the task that a request is; or the reason for which it is none, by the words of RFC 9211 §2.2."""
        if (reason := bypass(request)) is not None:
            return reason
        plan = self._plans.of(request.path)
        if plan is None:
            return "bypass;rules"
        url = key(request, plan.policy)
        if url is None or (self.hosts is not None and _host_of(url) not in self.hosts):
            return "bypass;host"
        return Task(self.cache, plan, request, url, self._companions, self._begin)

    def verdict(self, task: Task, found: Found) -> Verdict | None:
        """Return how the page that was found is used; None if there is none, or another makes it anew for too long."""
        record = found.record
        if record is None:
            return None
        now = timeouts.now()
        verdict = judge(record, task.request, now, task.policy)
        if verdict.kind is Kind.HIT:
            task.cache._counters.hits += 1
            if task.plan.early and not verdict.is_part and _is_early(found.entry, task.plan.early, now):
                return Verdict(Kind.STALE, verdict.is_not_modified)
        elif verdict.kind is Kind.STALE:
            task.cache._counters.stale += 1
        elif now < record.error_until and task.hooks.flights.is_paused(found.storage_key):
            task.cache._counters.stale += 1
            return Verdict(Kind.HIT, verdict.is_not_modified)
        return verdict

    def hit(self, task: Task, found: Found | None) -> Answer | None:
        """Return the answer of a page that was found, if it is fresh and asked for as a whole."""
        if found is None or (record := found.record) is None:
            return None
        verdict = self.verdict(task, found)
        if verdict is None or verdict.kind is not Kind.HIT or verdict.is_part:
            return None
        page = shown(record, found.body, accepted(task.request)) if record.coding else (record, found.body)
        return None if page is None else Answer(*page, verdict.is_not_modified)

    def answering(
        self, task: Task, found: Found | None, begin: Begin, refresh: Refresh, *, blocking: bool
    ) -> Steps[tuple[Answer | None, str, Any]]:
        """Return the answer; or None, the reason, and the runner of the application, if that was run.

        Args:
            task: the request.
            found: the stored page, if it was looked for.
            begin: makes a runner for a making.
            refresh: lets a page be made anew in the background.
            blocking: whether the caller waits with its whole thread, not as a task.
        """
        try:
            found = found or (yield from looking.looking(task))
        except StorageError:
            found = None
        if found is None:
            return None, "bypass;storage", None
        verdict = self.verdict(task, found)
        if verdict is not None and verdict.kind in (Kind.HIT, Kind.STALE) and found.record is not None:
            if verdict.kind is Kind.STALE:
                self._begin_refresh(task, found, refresh)
            page = shown(found.record, found.body, codings.IDENTITY if verdict.is_part else accepted(task.request))
            if page is not None and verdict.is_part:
                page = cut(*page, task.request.headers[b"range"])
            if page is not None:
                return Answer(*page, verdict.is_not_modified), "", None
            found, verdict = found._replace(record=None, reason="miss;damaged"), None
        reason = found.reason if verdict is None else verdict.reason
        own = _declined(task.request) if verdict is None or verdict.kind is Kind.MISS else reason
        if own:
            return None, own, None
        if task.policy.honours_requests and b"only-if-cached" in task.request.headers.get(_CONTROL, b""):
            return _UNMADE, reason, None
        runner = begin(Making(task, found))
        runner.making.reason = reason
        if found.reason.endswith("hit-for-miss"):
            answer = yield from single_flight.try_out(runner.making, runner)
        else:
            answer = yield from single_flight.obtain(runner.making, runner, reason, blocking=blocking)
        return answer, reason, runner

    def _begin_refresh(self, task: Task, found: Found, refresh: Refresh) -> None:
        """Let the page be made anew in the background, unless somebody does that, or has failed a moment ago."""
        entry, storage_key = found.entry, found.storage_key
        if storage_key in self._refreshing or task.hooks.flights.is_paused(storage_key):
            return
        if type(entry) is Envelope and entry.leased_until > timeouts.now():
            return
        self._refreshing.add(storage_key)
        refresh(Making(task, found))

    def refreshing(self, runner: Any, *, blocking: bool) -> Steps[None]:
        """Make a page anew, as answering() has asked for."""
        current: Making = runner.making
        try:
            yield from single_flight.refresh(current, runner, blocking=blocking)
        finally:
            self.end_refresh(current)

    def end_refresh(self, current: Making) -> None:
        """Let the page be made anew again: this has been done, or cannot be."""
        self._refreshing.discard(current.found.storage_key)

    def shown(self, answer: Answer | None, request: Request) -> Answer | None:
        """Return an answer with its page as the client accepts it."""
        if answer is None or not answer.record.coding:
            return answer
        page = shown(answer.record, answer.body, accepted(request))
        return None if page is None else answer._replace(record=page[0], body=page[1])

    def headers(self, record: Record, answer: Answer | None = None, *, is_not_modified: bool = False) -> Headers:
        """Return the headers of a hit, or of another answer, with its age and its way."""
        headers = record.headers
        if is_not_modified:
            headers = [pair for pair in headers if pair[0] in _NOT_MODIFIED]
        return headers + self.added(record, answer)

    def added(self, record: Record, answer: Answer | None = None) -> Headers:
        """Return the headers of an answer that are not the page's own: its age and its way."""
        now = timeouts.now()
        age = now - record.born
        if record.is_restated or (answer is not None and answer.reason and age < 1):
            added = []
        else:
            added = [(b"age", b"%d" % age)]
        return added if self.status_name is None else [*added, self._status(record.fresh_until - now, answer)]

    def _status(self, ttl: float, answer: Answer | None) -> tuple[bytes, bytes]:
        name = self.status_name or ""
        if answer is None:
            return b"cache-status", cache_status(name, ttl=ttl)
        stored, collapsed = answer.was_stored, answer.is_collapsed
        return b"cache-status", cache_status(name, ttl=ttl, reason=answer.reason, stored=stored, collapsed=collapsed)

    def passed_headers(self, headers: Headers, reason: str) -> Headers:
        """Return the headers of an answer of the application's that is passed through."""
        if self.status_name is None:
            return headers
        return [*headers, (b"cache-status", cache_status(self.status_name, reason=reason))]

    def changing(self, request: Request, status: int, headers: Headers) -> Steps[None]:
        """Make the pages absent that a request has changed, by its method (RFC 9111 §4.4).

        Raises:
            StorageError: they cannot be made so now.
        """
        paths = changed(request, status, headers)
        if paths:
            host = request.host.decode("latin-1")
            yield from self._dropping([f"{request.scheme}://{host}{path}" for path in paths])

    # Invalidation -----------------------------------------------------------------------------

    def invalidate(
        self, *, url: str | None = None, prefix: str | None = None, tags: Sequence[object] = (), view: Any = None,
        args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **arguments: Any,
    ) -> None:  # fmt: skip
        """Make pages absent, for all processes, at once. The cost does not depend on their number.

        Args:
            url: of one page, in all its variants; its query is part of it. A path alone is meant at all hosts.
            prefix: the beginning of paths, or of URLs.
            tags: of pages and other entries of the cache.
            view: the name of a view, whose pages go with any query, at all hosts; those of all arguments that are not
                given.
            args: positional arguments of the view.
            kwargs: its named arguments, where their names are words of this method.
            **arguments: its other named arguments.

        Raises:
            ConfigurationError: a view is given, and no `urls` that know its path.
            StorageError: the server is out of reach, and the pages are live still.
            TypeError: arguments are given without a view.
            ValueError: the URL or the prefix is none.
        """
        run(self._invalidating(url, prefix, tags, self._paths_of(view, args, {**(kwargs or {}), **arguments})))

    async def ainvalidate(
        self, *, url: str | None = None, prefix: str | None = None, tags: Sequence[object] = (), view: Any = None,
        args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **arguments: Any,
    ) -> None:  # fmt: skip
        """See invalidate()."""
        paths = self._paths_of(view, args, {**(kwargs or {}), **arguments})
        await arun(self._invalidating(url, prefix, tags, paths))

    def _paths_of(self, view: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
        """Return the paths of a view with some arguments; none without a view."""
        if view is None:
            if args or kwargs:
                raise TypeError(f"invalidate() has got {[*args, *kwargs]}, which are arguments of a view, and no view.")
            return []
        if self._urls is None:
            raise ConfigurationError(
                f"invalidate(view={view!r}): these pages do not know the paths of views; give Pages(urls=...) a "
                "function that returns a path for a view's name, a list and a dict of arguments."
            )
        found = self._urls(view, args, kwargs)
        return [_checked("path", path) for path in ([found] if isinstance(found, str) else found)]

    def _invalidating(
        self, url: str | None, prefix: str | None, tags: Sequence[object], paths: Iterable[str]
    ) -> Steps[None]:
        patterns = [f"~{path}" for path in paths]
        patterns += [] if prefix is None else [f"^{_checked('prefix', prefix)}"]
        if tags:
            yield self.cache, "invalidate_tags", tuple(tags)
        if url is not None and _checked("url", url).startswith("/"):
            if self.hosts is None:
                patterns.append(f"={url}")
            else:
                yield from self._dropping([f"{way}://{host}{url}" for way in ("http", "https") for host in self.hosts])
        elif url is not None:
            yield from self._dropping([url])
        if patterns:
            cache = self.cache
            with no_answers():
                yield from generations.write(cache._overlay or cache, cache._storage_key(GENERATIONS, None), patterns)

    def _dropping(self, urls: Iterable[str]) -> Steps[None]:
        cache = self.cache
        keys = []
        for url in urls:
            scheme, _, rest = url.partition("://")
            host, slash, path = rest.partition("/")
            path, _, query = f"{slash or '/'}{path}".partition("?")
            plan = self._plans.of(path)
            if plan is not None:
                primary = key(Request("GET", scheme, host.encode("latin-1"), path, query, {}), plan.policy)
                keys += [cache._storage_key(f"{begin}{primary}", None) for begin in self._begins if primary is not None]
        if keys:
            with no_answers():
                yield cache._overlay or cache, "_delete_many", (keys,)


def _checked(name: str, text: str) -> str:
    if not re.match(r"/|https?://[^/]+(/|$)", text) or re.search(r"[\s\x00]", text):
        raise ValueError(f"{name} is {text!r}; expected a path, as '/news/', or a URL, as 'https://example.com/news/'.")
    return text


@lru_cache(maxsize=1024)
def _host_of(url: str) -> str:
    return url.split("/", 3)[2]


def _is_early(entry: Any, early: float, now: float) -> bool:
    """Tell whether to make a page anew before it is stale: see decision.decide()."""
    if type(entry) is not Envelope or not entry.cost:
        return False
    return now - entry.cost * early * math.log(draw()) >= entry.fresh_until


def accepted(request: Request) -> bytes | None:
    """Return the codings that a request accepts."""
    return request.headers.get(b"accept-encoding")


def _declined(request: Request) -> str:
    """Return the reason for which the application's answer is this request's alone, if there is no stored one."""
    if b"range" in request.headers and request.method == "GET":
        return "partial;range"
    return "request;no-store" if "no-store" in directives(request.headers.get(_CONTROL)) else ""
