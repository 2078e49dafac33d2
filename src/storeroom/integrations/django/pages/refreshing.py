"""Pages that are made anew in the background: the whole of Django runs once more, as for a request of its own.

So connections are opened and closed, languages and users found, as for any other request. The page cache within it
knows that it is asked for the page, and not for an answer.
"""

import asyncio
import sys
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache
from io import BytesIO
from typing import Any, Final

from django import conf
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler

from storeroom.integrations.django.pages.visits import Visit
from storeroom.integrations.wsgi import CONDITIONS
from storeroom.pages.making import Making
from storeroom.storage.steps import Steps

__all__ = ["Refresh", "under_way"]

_HEADERS: Final = frozenset({b"if-none-match", b"if-modified-since", b"range", b"if-range"})
_DROPPED: Final = frozenset({*CONDITIONS, "CSRF_COOKIE", "CONTENT_LENGTH", "CONTENT_TYPE"})

under_way: ContextVar["Refresh | None"] = ContextVar("storeroom_refresh", default=None)
"""The refresh that this request is run for."""


class Refresh:
    """A run of the whole of Django for one page.

    Args:
        making: takes the page.
        request: Django's, that has found the page stale.
        is_async: whether to run it in the loop of the request.
    """

    def __init__(self, making: Making, request: Any, *, is_async: bool) -> None:
        self.making, self.is_async = making, is_async
        self._error: Exception | None = None
        self._is_done = False
        self._scope = _scope_of(request) if is_async else {}
        self._environ = {} if is_async else _environ_of(request)

    @property
    def function(self) -> Callable[[], Any]:
        """Runs it."""
        return self.arun if self.is_async else self.run

    def run(self) -> None:
        """Run Django as a server does.

        Raises:
            Exception: the view's error, or that it was not come to.
        """
        self.making.is_begun = True
        outer = under_way.set(self)
        try:
            response = _wsgi(tuple(conf.settings.MIDDLEWARE))(self._environ, lambda *_: None)
            try:
                for _ in response:
                    pass
            finally:
                response.close()
        finally:
            under_way.reset(outer)
        self._settle()

    async def arun(self) -> None:
        """See run()."""
        self.making.is_begun = True
        outer = under_way.set(self)
        try:
            await _asgi(tuple(conf.settings.MIDDLEWARE))(self._scope, _Nothing().receive, _ignore)
        finally:
            under_way.reset(outer)
        self._settle()

    def _settle(self) -> None:
        if self._error is not None:
            raise self._error
        if not self._is_done:
            raise RuntimeError(f"A run of {self.making.task.url} in the background did not come to its page.")

    def steps(self, visit: Visit, storage_key: str | None) -> Steps[Any]:
        """Return the response to the request that this is, as it comes through a page cache."""
        if storage_key != self.making.task.storage_key or self._is_done:
            return (yield visit, "call", ())
        visit.making, self._is_done = self.making, True
        try:
            yield visit, "run", ()
        except Exception as error:
            self._error = error
            if visit.response is None:
                raise
        if visit.error is not None:
            raise visit.error
        return visit.response


@lru_cache(maxsize=1)
def _wsgi(_middleware: tuple[str, ...]) -> Any:
    return WSGIHandler()


@lru_cache(maxsize=1)
def _asgi(_middleware: tuple[str, ...]) -> Any:
    return ASGIHandler()


def _environ_of(request: Any) -> dict[str, Any]:
    """Return an environ for the request, without the server's own objects, which are gone then."""
    meta = request.META
    environ = {name: value for name, value in meta.items() if type(value) is str and name not in _DROPPED}
    for name in ("SCRIPT_NAME", "PATH_INFO"):  # Django has decoded them
        environ[name] = environ.get(name, "").encode().decode("latin-1")
    return {
        **environ,
        "REQUEST_METHOD": "GET",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.input": BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }


def _scope_of(request: Any) -> dict[str, Any]:
    headers = [pair for pair in request.scope["headers"] if pair[0].lower() not in _HEADERS]
    return {**request.scope, "method": "GET", "headers": headers, "extensions": {}}


class _Nothing:
    """A client that has sent nothing, and waits."""

    def __init__(self) -> None:
        self._is_asked = False

    async def receive(self) -> dict[str, Any]:
        if self._is_asked:
            await asyncio.get_running_loop().create_future()
        self._is_asked = True
        return {"type": "http.request", "body": b"", "more_body": False}


async def _ignore(_message: Any) -> None:
    """Take an answer that nobody waits for."""
