"""The page cache as a part of Django: the door that its middleware and its decorator are."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextvars import Context
from types import GeneratorType
from typing import Any

from django import conf
from django.core.cache import caches
from django.http import HttpResponse, HttpResponseBase

from storeroom.engines import background
from storeroom.exceptions import ConfigurationError, StorageError
from storeroom.http import Headers, Record, Request
from storeroom.integrations.django.pages.paths import paths_of
from storeroom.integrations.django.pages.refreshing import Refresh, under_way
from storeroom.integrations.django.pages.requests import asked_of, has_middleware
from storeroom.integrations.django.pages.responses import dress, headers_of, hit_of, response_of, texts
from storeroom.integrations.django.pages.visits import Visit
from storeroom.integrations.wsgi import VARIABLES, variable
from storeroom.pages import Pages
from storeroom.pages.looking import Found, Task, inline
from storeroom.pages.making import Answer, Making
from storeroom.pages.views import current
from storeroom.storage.steps import Steps, arun, run

__all__ = ["Door", "site_options"]

_log = logging.getLogger("storeroom.pages")


def site_options() -> dict[str, Any]:
    """Return the options of all pages of the project: STOREROOM_PAGES in its settings.

    Raises:
        ConfigurationError: it is no dict.
    """
    found = getattr(conf.settings, "STOREROOM_PAGES", {})
    if not isinstance(found, Mapping):
        raise ConfigurationError(f"STOREROOM_PAGES is {found!r}; expected a dict of options of the page cache.")
    return {"declared_cookies": _declared(), "tells_timeout": True, **found}


def _declared() -> list[str]:
    """Return the cookies for which Django itself says ``Vary: Cookie`` where a page depends on them."""
    sessions = has_middleware("django.contrib.sessions.middleware.SessionMiddleware")
    csrf = has_middleware("django.middleware.csrf.CsrfViewMiddleware")
    languages = has_middleware("django.middleware.locale.LocaleMiddleware")
    return (
        [conf.settings.SESSION_COOKIE_NAME] * sessions
        + [conf.settings.CSRF_COOKIE_NAME] * csrf
        + [conf.settings.LANGUAGE_COOKIE_NAME] * languages
    )


class Door(Pages):
    """Answers requests by stored pages, and lets the part of Django behind it make the others.

    Args:
        cache: an alias.
        is_part: whether that part is one view.
        **options: see ``storeroom.pages.Pages``.

    Raises:
        ConfigurationError: an option is unknown, or its value means nothing, or the alias is on a class that is not
            Storeroom's.
    """

    _spelling = VARIABLES, variable, list

    def __init__(self, cache: str, *, is_part: bool, **options: Any) -> None:
        self._caches = caches
        tags = options.get("tags")
        if callable(tags):
            options["tags"] = lambda asked: tags(asked.django)
        super().__init__(cache, is_part=is_part, urls=paths_of, **options)
        self._is_part = is_part
        self._tasks = set[asyncio.Task[None]]()
        if not hasattr(self.cache, "_storage_key"):
            kind = type(self.cache)
            raise ConfigurationError(
                f"CACHES[{cache!r}] is on {kind.__module__}.{kind.__qualname__}, which cannot keep pages; expected a "
                "class of Storeroom's, such as storeroom.backends.locmem.LocMemCache."
            )

    def respond(self, request: Any, get_response: Callable[[Any], Any]) -> Any:
        """Return the response to a request."""
        answer = self._begin_response(request, get_response, is_async=False)
        return run(answer) if type(answer) is GeneratorType else answer

    async def arespond(self, request: Any, get_response: Callable[[Any], Any]) -> Any:
        """See respond()."""
        answer = self._begin_response(request, get_response, is_async=True)
        return await arun(answer) if type(answer) is GeneratorType else answer

    def _begin_response(self, request: Any, get_response: Callable[[Any], Any], *, is_async: bool) -> Any:
        """Return the page that is there at once; else the steps to another response."""
        asked = asked_of(request, is_part=self._is_part)
        name: Any = None
        if asked is not None and asked.method == "GET" and under_way.get() is None and current.get() is None:
            length = request.META.get("CONTENT_LENGTH")
            name = asked.scheme, asked.host, asked.path, asked.query, length, *asked.own.items()
            hit = self._hits.again(name, request.META, self.cache, asked.is_plain)
            if hit is not None:
                return hit_of(*hit)
        task = "bypass;host" if asked is None else self.task(asked)
        visit = Visit(request, asked, get_response, is_async=is_async)
        refresh = under_way.get()
        if refresh is not None:
            return refresh.steps(visit, task.storage_key if isinstance(task, Task) else None)
        if isinstance(task, str) or _is_nested(task):
            return self._passing(visit, task if isinstance(task, str) else "bypass;nested")
        found = inline(task)
        answer = self.hit(task, found)
        if answer is None:
            return self._responding(visit, task, found)
        if answer.is_not_modified or task.request.method == "HEAD":
            return self._response(task.request, answer.record, b"", is_not_modified=answer.is_not_modified)
        if name is not None and found is not None:
            self._hits.keep(name, request.META, task, found, answer)
        return hit_of(answer.record, self.headers(answer.record), answer.body)

    def _response(
        self, asked: Request, record: Record, body: bytes, answer: Answer | None = None, *, is_not_modified: bool,
        made: Any = None,
    ) -> HttpResponse:  # fmt: skip
        headers = self.headers(record, answer, is_not_modified=is_not_modified)
        status = 304 if is_not_modified else record.status
        return response_of(status, headers, b"" if is_not_modified or asked.method == "HEAD" else body, made)

    def _responding(self, visit: Visit, task: Task, found: Found | None) -> Steps[Any]:
        """Answer by another look, by another's page, or by a run."""

        def begin(making: Making) -> Visit:
            visit.making = making
            return visit

        def refresh(making: Making) -> None:
            self._refresh(making, visit)

        answer, reason, runner = yield from self.answering(task, found, begin, refresh, blocking=not visit.is_async)
        is_begun = runner is not None and visit.making.is_begun
        if is_begun and (answer is None or visit.making.page is not None):
            return self._own(visit, answer, reason)
        answer = self.shown(answer, task.request)
        if answer is None:
            return (yield from self._passing(visit, reason))
        unmodified = answer.is_not_modified
        return self._response(task.request, answer.record, answer.body, answer, is_not_modified=unmodified)

    def _own(self, visit: Visit, answer: Answer | None, reason: str) -> Any:
        """Return the response of this request's own run."""
        if visit.error is not None:
            raise visit.error
        if answer is None:
            return self._told(visit.response, reason)
        if answer.is_not_modified or visit.request.method == "HEAD":
            unmodified, made = answer.is_not_modified, visit.response
            return self._response(
                visit.making.request, answer.record, b"", answer, is_not_modified=unmodified, made=made
            )
        if answer.was_stored:
            dress(visit.response, answer.record)
        told = [pair for pair in self.headers(answer.record, answer) if pair[0] == b"cache-status"]
        return _added(visit.response, told)

    def _told(self, response: Any, reason: str) -> Any:
        """Return a response that is passed through; with its way, if that is to be told."""
        if self.status_name is None or not isinstance(response, HttpResponseBase):
            return response
        return _added(response, self.passed_headers([], reason))

    def _passing(self, visit: Visit, reason: str) -> Steps[Any]:
        """Let the view answer by itself; see what it has changed."""
        response = yield visit, "call", ()
        if reason == "method" and visit.asked is not None and isinstance(response, HttpResponseBase):
            request = visit.request
            try:
                yield from self._changing(request, response)
            except StorageError:
                _log.exception("Pages that %s %s has changed could not be removed.", request.method, request.path)
        return self._told(response, reason)

    def _changing(self, request: Any, response: Any) -> Steps[None]:
        """Make the pages absent that a request has changed."""
        asked = asked_of(request, is_part=self._is_part, is_changing=True)
        if asked is not None:
            yield from self.changing(asked, response.status_code, headers_of(response))

    def _refresh(self, making: Making, visit: Visit) -> None:
        """Let a page be made anew in the background."""
        is_async = visit.is_async and hasattr(visit.request, "scope")
        refresh = Refresh(making, visit.request, is_async=is_async)
        if is_async:
            task = asyncio.create_task(arun(self.refreshing(refresh, blocking=False)), context=Context())
            self._tasks.add(task)  # the loop itself keeps tasks weakly
            task.add_done_callback(self._tasks.discard)
        elif not background.submit(lambda: run(self.refreshing(refresh, blocking=True)), Context()):
            self.end_refresh(making)


def _added(response: Any, headers: Headers) -> Any:
    """Return a response with more headers."""
    for name, value in texts(headers).items():
        response.headers[name] = value
    return response


def _is_nested(task: Task) -> bool:
    """Tell whether this very page is being made already, by a page cache around this one."""
    making = current.get()
    return making is not None and making.task.storage_key == task.storage_key
