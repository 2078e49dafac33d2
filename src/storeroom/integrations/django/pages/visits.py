"""A request on its way through the page cache: the run of the view, or of all of Django that lies behind."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from asgiref.sync import iscoroutinefunction, sync_to_async
from django import conf
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpResponseBase
from django.http.multipartparser import MultiPartParserError
from django.template.response import SimpleTemplateResponse, TemplateResponse
from django.utils.module_loading import import_string

from storeroom.http import Refusal
from storeroom.integrations.django.pages.requests import Asked
from storeroom.integrations.django.pages.responses import dress, headers_of, refusal_of
from storeroom.integrations.wsgi import CONDITIONS, variable
from storeroom.pages.making import Making
from storeroom.pages.single_flight import keep
from storeroom.pages.views import current
from storeroom.storage.steps import run

__all__ = ["Visit"]

_ANSWERS = (Http404, PermissionDenied, BadRequest, SuspiciousOperation, MultiPartParserError)
"""Errors of a view that are answers to the request, of a status below 500."""

_RENDERERS = (SimpleTemplateResponse.rendered_content, TemplateResponse.rendered_content)


class Visit:
    """A request, and the part of Django that answers it if no page does.

    Args:
        request: Django's.
        asked: the same as the rules see it.
        get_response: that part: the view, or the next middleware.
        is_async: whether that is to be awaited.

    Attributes:
        making: the page that is made by the run.
        response: its response.
        error: an error of the view's instead of it, which is an answer.
    """

    making: Making

    def __init__(
        self, request: Any, asked: Asked | None, get_response: Callable[[Any], Any], *, is_async: bool
    ) -> None:
        self.request, self.asked, self.is_async = request, asked, is_async
        self._get_response = get_response
        self.response: Any = None
        self.error: Exception | None = None

    @property
    def function(self) -> Callable[[], Any]:
        """Runs that part for a page."""
        return self.arun if self.is_async else self.run

    def call(self) -> Any:
        """Run that part for this request alone."""
        return self._get_response(self.request)

    async def acall(self) -> Any:
        """See call()."""
        return await self._get_response(self.request)

    def run(self) -> None:
        """Run that part, and give its response to the making.

        Raises:
            Exception: the view's own error.
        """
        with self._as_plain():
            try:
                response = self._get_response(self.request)
            except _ANSWERS as error:
                self._take_error(error)
            else:
                self._take(response.render() if _may_be_rendered(response) else response)

    async def arun(self) -> None:
        """See run()."""
        with self._as_plain():
            try:
                response = await self._get_response(self.request)
            except _ANSWERS as error:
                self._take_error(error)
            else:
                if _may_be_rendered(response):
                    render = response.render
                    response = await (render() if iscoroutinefunction(render) else sync_to_async(render)())
                self._take(response)

    @contextmanager
    def _as_plain(self) -> Iterator[None]:
        """Let the request be a GET for a whole answer meanwhile."""
        self.making.is_begun = True
        request, meta, outer = self.request, self.request.META, current.set(self.making)
        method, before = request.method, dict(meta)
        added = {variable(name): value.decode("latin-1") for name, value in self.making.added()}
        changed = {*CONDITIONS, *added, "REQUEST_METHOD"}
        for name in CONDITIONS:
            meta.pop(name, None)
        meta |= added
        if method == "HEAD":
            request.method = meta["REQUEST_METHOD"] = "GET"
        _forget_headers(request)
        try:
            yield
        finally:
            current.reset(outer)
            request.method = method
            for name in changed:
                meta.pop(name, None)
                meta |= {name: before[name]} if name in before else {}
            _forget_headers(request)

    def _take_error(self, error: Exception) -> None:
        self.error = error
        self.making.begins(404, [])

    def _take(self, response: Any) -> None:
        self.response = response
        making = self.making
        if not isinstance(response, HttpResponseBase):
            making.is_through = True
        elif response.streaming or not getattr(response, "is_rendered", True):
            making.refusal, making.is_through = Refusal.STREAMED, True
            if not response.streaming:
                response.add_post_render_callback(self._keep)
        elif self._is_fit(response):
            making.ends(response.status_code, headers_of(response), response.content)

    def _is_fit(self, response: Any) -> bool:
        making = self.making
        making.refusal = None if self.asked is None else refusal_of(self.request, response, self.asked)
        if making.refusal is not None:
            making.status, making.is_through = response.status_code, True
            return False
        return making.begins(response.status_code, headers_of(response)) and making.fits(len(response.content))

    def _keep(self, response: Any) -> None:
        """Store a response that has been rendered after the view had ended."""
        making = self.making
        making.is_through = False
        with self._as_plain():
            if self._is_fit(response):
                run(keep(making, response.status_code, headers_of(response), response.content))
        if making.page is not None and making.was_stored:
            dress(response, making.page[0])


def _forget_headers(request: Any) -> None:
    """Let the request read its headers anew from META."""
    vars(request).pop("headers", None)


def _may_be_rendered(response: Any) -> bool:
    """Tell whether to render a response now, so that others can wait for it: nothing is to be added to it later."""
    if getattr(response, "is_rendered", True) or not hasattr(response, "add_post_render_callback"):
        return False
    is_complete = type(response).rendered_content in _RENDERERS or "accepted_renderer" in vars(response)
    return is_complete and not _adds_to_templates(tuple(conf.settings.MIDDLEWARE))


@lru_cache(maxsize=8)
def _adds_to_templates(middleware: tuple[str, ...]) -> bool:
    return any(hasattr(import_string(path), "process_template_response") for path in middleware)
