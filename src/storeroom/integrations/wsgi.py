"""A page cache for any WSGI application: a hit is answered before the framework.

application = PageCache(application, timeout="5m", vary_on_cookies=["sessionid"], stale_while_revalidate="1m")
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import copy_context
from functools import lru_cache
from http.client import responses
from io import BytesIO
from typing import Any, Final
from urllib.parse import quote

from storeroom.engines import background
from storeroom.exceptions import StorageError
from storeroom.http import LOOKED_AT, REMOTE_USER, Headers, Request
from storeroom.pages import Pages
from storeroom.pages.looking import Found, Task, inline
from storeroom.pages.making import Answer, Making
from storeroom.pages.views import current, foreseeing
from storeroom.storage.steps import run

__all__ = ["PageCache"]

Environ = dict[str, Any]
App = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

CONDITIONS: Final = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_RANGE", "HTTP_IF_RANGE")
"""Headers that the application does not see where its answer is to be stored: it is then a whole one."""

_UNSEEN: Final = frozenset({*CONDITIONS, "CONTENT_LENGTH", "wsgi.file_wrapper"})
"""Variables that it does not see then: its answer is that of a request without content, in bytes that this sees."""

_WHOLE: Final = frozenset({"RAW_URI", "REQUEST_URI"})
"""Variables in which servers tell the target as it was sent."""

_log = logging.getLogger("storeroom.pages")


@lru_cache(maxsize=1024)
def variable(name: bytes) -> str:
    """Return the name that a header has in an environ."""
    text = name.decode("latin-1").upper().replace("-", "_")
    return text if text in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{text}"


_IDENTITIES: Final = ("REMOTE_USER", "SSL_CLIENT_S_DN", "HTTPS_DN")
_TOLD: Final = (REMOTE_USER, b"authorization")
"""Variables by which a server tells who has logged in to it, and headers that it may keep for itself."""

# Some servers name the length always.
VARIABLES: Final = frozenset([*map(variable, LOOKED_AT), *_IDENTITIES]) - {"CONTENT_LENGTH"}
_NAMING: Final = ("wsgi.url_scheme", "HTTP_HOST", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "CONTENT_LENGTH")
"""Variables that the key of a page is made of; no request with content has one."""


class EnvironHeaders(Mapping[bytes, bytes]):
    """The headers of an environ, read when they are asked for."""

    def __init__(self, environ: Environ) -> None:
        self._environ = environ

    def __getitem__(self, name: bytes) -> bytes:
        value = self._environ.get(variable(name))
        if value is None and name in _TOLD:
            value = " ".join(filter(None, map(self._environ.get, _IDENTITIES))) or None
        if value is None:
            raise KeyError(name)
        if value == "" and name in (b"content-length", b"content-type"):
            raise KeyError(name)
        return str(value).encode("latin-1")

    def __contains__(self, name: Any) -> bool:
        return (variable(name) in self._environ or name in _TOLD) and super().__contains__(name)

    def __iter__(self) -> Iterator[bytes]:
        return (name for name in LOOKED_AT if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@lru_cache(maxsize=4096)
def _quoted(path: str) -> str:
    return quote(path.encode("latin-1"), safe="/:;@!$&'()*+,=~")


def is_plain(environ: Environ) -> bool:
    """Tell whether a request has none of the headers that decide about the answer: see LOOKED_AT."""
    return VARIABLES.isdisjoint(environ) and environ.get("CONTENT_LENGTH") in (None, "", "0")


def request_of(environ: Environ, *, is_plain: bool) -> Request:
    """Return the request of an environ."""
    path = _quoted(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")) or "/"
    return Request(
        environ["REQUEST_METHOD"], environ["wsgi.url_scheme"], environ.get("HTTP_HOST", "").encode("latin-1"), path,
        environ.get("QUERY_STRING", ""), EnvironHeaders(environ), is_plain,
    )  # fmt: skip


@lru_cache(maxsize=256)
def _line(status: int) -> str:
    return f"{status} {responses.get(status, 'Unknown')}"


def _texts(headers: Headers) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


class PageCache(Pages):
    """Answers requests by stored pages, and lets the wrapped application make the others.

    Args:
        app: a WSGI application.
        cache: an alias, or a cache.
        **options: see ``storeroom.pages.Pages``.

    Raises:
        ConfigurationError: an option is unknown, or its value means nothing.
    """

    _spelling = VARIABLES, variable, _texts

    def __init__(self, app: App, cache: Any = "default", **options: Any) -> None:
        super().__init__(cache, **options)
        self.app = app

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        plain, name = is_plain(environ), None
        if environ["REQUEST_METHOD"] == "GET":
            name = tuple(map(environ.get, _NAMING))
            hit = self._hits.again(name, environ, self.cache, plain)
            if hit is not None:
                record, headers, body = hit
                start_response(_line(record.status), headers)
                return [body]
        request = request_of(environ, is_plain=plain)
        task = self.task(request)
        if isinstance(task, str):
            return self._pass(environ, start_response, request, task)
        found = inline(task)
        answer = self.hit(task, found)
        if answer is None:
            return self._otherwise(environ, start_response, task, found)
        if name is not None and found is not None:
            self._hits.keep(name, environ, task, found, answer)
        return self._answer(start_response, request, answer)

    def foreseen(self, environ: Environ) -> tuple[Mapping[str, Any] | None, Iterable[str]]:
        """Return the options of the view that is likely to answer, and the headers that it declares to read."""
        return None, ()

    def _otherwise(
        self, environ: Environ, start_response: Callable[..., Any], task: Task, found: Found | None
    ) -> Iterable[bytes]:
        """Answer by another look, by another's page, or by the application."""

        def begin(making: Making) -> _Runner:
            return _Runner(self, environ, making)

        def refresh(making: Making) -> None:
            runner = _Runner(self, _kept(environ), making)

            def work() -> None:
                try:
                    run(self.refreshing(runner, blocking=True))
                finally:
                    runner.close()

            if not background.submit(work, copy_context()):
                self.end_refresh(making)

        request = task.request
        answer, reason, runner = run(self.answering(task, found, begin, refresh, blocking=True))
        answer = self.shown(answer, request)
        if answer is not None:
            return self._answer(start_response, request, answer)
        if runner is None or not runner.making.is_begun:
            return self._pass(environ, start_response, request, reason)
        rest: _Rest = runner.rest(is_empty=request.method == "HEAD")
        start_response(rest.status, _texts(self.passed_headers([], reason)) + rest.headers)
        return rest

    def _answer(self, start_response: Callable[..., Any], request: Request, answer: Answer) -> Iterable[bytes]:
        status = 304 if answer.is_not_modified else answer.record.status
        start_response(
            _line(status), _texts(self.headers(answer.record, answer, is_not_modified=answer.is_not_modified))
        )
        return [] if answer.is_not_modified or request.method == "HEAD" else [answer.body]

    def _pass(
        self, environ: Environ, start_response: Callable[..., Any], request: Request, reason: str
    ) -> Iterable[bytes]:
        """Let the application answer by itself; see what it has changed."""

        def sees(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            try:
                run(self.changing(request, int(status[:3]), _bytes(headers)))
            except StorageError:
                _log.exception("Pages that %s %s has changed could not be removed.", request.method, request.path)
            headers = headers + _texts(self.passed_headers([], reason))
            return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

        is_seen = reason == "method" or self.status_name is not None
        return self.app(environ, sees if is_seen else start_response)


def _bytes(headers: Iterable[tuple[str, str]]) -> Headers:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _kept(environ: Environ) -> Environ:
    """Return the environ for a run after its request: without the server's own objects, which are gone then."""
    kept = {name: value for name, value in environ.items() if type(value) is str or name.startswith("wsgi.")}
    return {**kept, "wsgi.input": BytesIO()}


class _Runner:
    """One run of the application.

    Args:
        pages: the page cache.
        environ: of the request.
        making: takes the answer.
    """

    def __init__(self, pages: PageCache, environ: Environ, making: Making) -> None:
        self.making = making
        self._pages, self._environ = pages, environ
        self._status, self._headers = "", list[tuple[str, str]]()
        self._chunks: list[bytes] = []
        self._iterable: Iterable[bytes] = ()
        self._left: Iterator[bytes] = iter(())

    @property
    def function(self) -> Callable[[], Any]:
        """Runs the application until its answer is complete, or passes through."""
        return self.run

    def run(self) -> None:
        """Run the application.

        Raises:
            Exception: its own error, or that of its answer.
        """
        self.making.is_begun = True
        outer = current.set(self.making)
        try:
            environ = self._plain_environ()
            run(foreseeing(self.making, *self._pages.foreseen(environ)))
            self._iterable = self._pages.app(environ, self._start_response)
            if self._is_complete():
                self.close()
                self.making.ends(int(self._status[:3]), _bytes(self._headers), b"".join(self._chunks))
        except BaseException:
            self.close()
            raise
        finally:
            current.reset(outer)

    def _is_complete(self) -> bool:
        """Take the body; return whether all of it is there, or False if it passes through."""
        self._left, is_begun, size = iter(self._iterable), False, sum(map(len, self._chunks))
        for chunk in self._left:
            self._chunks.append(chunk)
            size += len(chunk)
            if self._status and not is_begun:
                is_begun = True
                if not self.making.begins(int(self._status[:3]), _bytes(self._headers)):
                    return False
            if is_begun and not self.making.fits(size):
                return False
        if not self._status:
            raise RuntimeError("The application has returned without a call of start_response().")
        return is_begun or self.making.begins(int(self._status[:3]), _bytes(self._headers))

    def _start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        self._status, self._headers = status, list(headers)
        return self._chunks.append

    def _plain_environ(self) -> Environ:
        """Return the environ as the application is to see it: of a GET for a whole answer."""
        environ = {name: value for name, value in self._environ.items() if name not in _UNSEEN}
        query = environ["QUERY_STRING"] = self.making.query
        for name in _WHOLE & environ.keys():
            environ[name] = environ[name].partition("?")[0] + (f"?{query}" if query else "")
        environ |= {variable(name): value.decode("latin-1") for name, value in self.making.added()}
        return {**environ, "REQUEST_METHOD": "GET", "wsgi.input": BytesIO()}

    def close(self) -> None:
        """Close the application's iterable, if that has not been done."""
        iterable, self._iterable = self._iterable, ()
        close = getattr(iterable, "close", None)
        if close is not None:
            close()

    def rest(self, *, is_empty: bool) -> "_Rest":
        """Return the answer that passes through."""
        chunks: list[bytes] = [] if is_empty else self._chunks
        return _Rest(self._status, self._headers, chunks, iter(()) if is_empty else self._left, self.close)


class _Rest:
    """An answer that passes through: the part that was held back, and the rest as it comes."""

    def __init__(
        self, status: str, headers: list[tuple[str, str]], held: list[bytes], left: Iterator[bytes],
        close: Callable[[], None],
    ) -> None:  # fmt: skip
        self.status, self.headers = status, headers
        self._held, self._left, self.close = held, left, close

    def __iter__(self) -> Iterator[bytes]:
        yield from self._held
        yield from self._left
