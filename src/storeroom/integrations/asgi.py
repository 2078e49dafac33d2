"""A page cache for any ASGI application: a hit is answered before the framework.

    app = PageCache(app, timeout="5m", vary_on_cookies=["sessionid"], stale_while_revalidate="1m")

It is pure middleware: contexts, streams and background tasks of the application are as without it. Where an answer is
to be stored the application sees a plain GET without conditions; else the very messages pass through.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final
from urllib.parse import quote

from storeroom.exceptions import StorageError
from storeroom.http import LOOKED_AT, REMOTE_USER, Headers, Request
from storeroom.pages import Pages
from storeroom.pages.looking import Found, Task, inline
from storeroom.pages.making import Answer, KeptStaleError, Making
from storeroom.pages.views import current, foreseeing
from storeroom.storage import unstored
from storeroom.storage.steps import arun

__all__ = ["PageCache"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

DRAIN_SECONDS: Final = 10.0
"""Seconds that the end of the server waits for pages that are made anew."""

_CONDITIONS: Final = frozenset({b"if-none-match", b"if-modified-since", b"range", b"if-range"})
"""Headers that the application does not see where its answer is to be stored: it is then a whole one."""

_log = logging.getLogger("storeroom.pages")


def headers_of(scope: Scope) -> tuple[dict[bytes, bytes], bool]:
    """Return the headers of a scope, and whether the request has none of those that decide about the answer."""
    pairs = scope["headers"]
    found = dict(pairs)
    if len(found) != len(pairs):  # some names are there twice
        found = {}
        for name, value in pairs:
            found[name] = b"%b, %b" % (found[name], value) if name in found else value
        if b"cookie" in found:  # HTTP/2 splits them (RFC 9113 §8.2.3)
            found[b"cookie"] = b"; ".join(value for name, value in pairs if name == b"cookie")
    extensions = scope.get("extensions")
    if ("user" in scope or "session" in scope or (extensions and "tls" in extensions)) and _knows(scope):
        found[REMOTE_USER] = b"scope"
    return found, LOOKED_AT.isdisjoint(found)


def request_of(scope: Scope, found: dict[bytes, bytes], *, is_plain: bool) -> Request:
    """Return the request of a scope."""
    raw_path = scope.get("raw_path")
    path = raw_path.decode("latin-1") if raw_path else _quoted(scope["path"])
    query = scope["query_string"].decode("latin-1")
    return Request(scope["method"], scope.get("scheme", "http"), found.get(b"host", b""), path, query, found, is_plain)


def _knows(scope: Scope) -> bool:
    """Tell whether an application around this one, or the server, knows who asks: a user, a session, a certificate."""
    extensions = scope.get("extensions") or {}
    certificate = "tls" in extensions and extensions["tls"].get("client_cert_name")
    user = scope.get("user")
    is_user = user is not None and getattr(user, "is_authenticated", True)
    return bool(is_user or scope.get("session") or certificate)


def _quoted(path: str) -> str:
    return quote(path, safe="/:;@!$&'()*+,=~")


class PageCache(Pages):
    """Answers requests by stored pages, and lets the wrapped application make the others.

    Args:
        app: an ASGI application.
        cache: an alias, or a cache.
        **options: see ``storeroom.pages.Pages``.

    Raises:
        ConfigurationError: an option is unknown, or its value means nothing.
    """

    def __init__(self, app: App, cache: Any = "default", **options: Any) -> None:
        super().__init__(cache, **options)
        self.app = app
        self._tasks = set[asyncio.Task[None]]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            seen = self._draining(receive) if scope["type"] == "lifespan" else receive
            await self.app(scope, seen, send)
            return
        given, is_plain = headers_of(scope)
        name, path = None, scope.get("raw_path") or scope["path"]
        if scope["method"] == "GET":
            name = scope.get("scheme"), given.get(b"host"), path, scope["query_string"]
            hit = self._hits.again(name, given, self.cache, is_plain)
            if hit is not None:
                record, headers, body = hit
                await send({"type": "http.response.start", "status": record.status, "headers": headers})
                await send({"type": "http.response.body", "body": body})
                return
        request = request_of(scope, given, is_plain=is_plain)
        task = self.task(request)
        if isinstance(task, str):
            await self._pass(scope, receive, send, request, task)
            return
        found = inline(task)
        answer = self.hit(task, found)
        if answer is None:
            await self._otherwise(scope, receive, send, task, found)
            return
        if name is not None and found is not None:
            self._hits.keep(name, given, task, found, answer)
        await self._answer(send, request, answer)

    def foreseen(self, scope: Scope) -> tuple[Mapping[str, Any] | None, Iterable[str]]:
        """Return the options of the view that is likely to answer, and the headers that it declares to read."""
        return None, ()

    async def _otherwise(self, scope: Scope, receive: Receive, send: Send, task: Task, found: Found | None) -> None:
        """Answer by another look, by another's page, or by the application."""
        request = task.request

        def begin(making: Making) -> _Runner:
            return _Runner(self, scope, receive, send, making)

        def refresh(making: Making) -> None:
            running = asyncio.create_task(self._refresh(task, scope, making))
            self._tasks.add(running)  # the loop itself keeps tasks weakly
            running.add_done_callback(self._tasks.discard)

        runner = None
        try:
            answer, reason, runner = await arun(self.answering(task, found, begin, refresh, blocking=False))
            answer = self.shown(answer, request)
            if answer is not None:
                await self._answer(send, request, answer)
            elif runner is None or not runner.making.is_begun:
                await self._pass(scope, receive, send, request, reason)
            if runner is not None:
                await runner.ended()
        finally:
            if runner is not None:
                runner.cancel()

    async def _refresh(self, task: Task, scope: Scope, making: Making) -> None:
        runner = _Runner(self, scope, None, None, making)
        with unstored.Caught() as caught:
            try:
                await arun(self.refreshing(runner, blocking=False))
                if not making.is_through:
                    await runner.ended()
            finally:
                runner.cancel()
                self.end_refresh(making)
        if caught.error is not None:
            _log.error("The application has failed after the page %s was made.", task.url, exc_info=caught.error)

    async def _answer(self, send: Send, request: Request, answer: Answer) -> None:
        status = 304 if answer.is_not_modified else answer.record.status
        body = b"" if answer.is_not_modified or request.method == "HEAD" else answer.body
        headers = self.headers(answer.record, answer, is_not_modified=answer.is_not_modified)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _pass(self, scope: Scope, receive: Receive, send: Send, request: Request, reason: str) -> None:
        """Let the application answer by itself; see what it has changed."""

        async def sees(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = _lower(message["headers"])
                try:
                    await arun(self.changing(request, message["status"], headers))
                except StorageError:
                    _log.exception("Pages that %s %s has changed could not be removed.", request.method, request.path)
                message = {**message, "headers": self.passed_headers(list(message["headers"]), reason)}
            await send(message)

        is_seen = reason == "method" or self.status_name is not None
        await self.app(scope, receive, sees if is_seen else send)

    def _draining(self, receive: Receive) -> Receive:
        """Return a receive of the lifespan that lets pages be made to their end before the application shuts down."""

        async def drained() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown" and self._tasks:
                await asyncio.wait(self._tasks, timeout=DRAIN_SECONDS)
            return message

        return drained


def _lower(headers: Any) -> Headers:
    return [(bytes(name).lower(), bytes(value)) for name, value in headers]


class _Runner:
    """One run of the application, in a task of its own, as it may go on when its page is complete.

    Args:
        pages: the page cache.
        scope: of the request.
        receive: of the client; None if the page is made in the background.
        send: to the client, likewise.
        making: takes the answer.
    """

    def __init__(
        self, pages: PageCache, scope: Scope, receive: Receive | None, send: Send | None, making: Making
    ) -> None:
        self.making = making
        self._pages, self._scope, self._client, self._to_client = pages, scope, receive, send
        self._task: asyncio.Task[None] | None = None
        self._decided: asyncio.Future[None] | None = None
        self._start: Message | None = None
        self._held: list[bytes] = []
        self._size = 0
        self._is_asked = False

    @property
    def function(self) -> Callable[[], Any]:
        """Runs the application until its answer is complete, or passes through."""
        return self.arun

    async def arun(self) -> None:
        """Run the application.

        Raises:
            Exception: its own error, or that its answer was not complete.
        """
        self.making.is_begun = True
        self._decided = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._drive(self._decided))
        try:
            await self._decided
        except asyncio.CancelledError:
            self.cancel()
            raise

    async def _drive(self, decided: "asyncio.Future[None]") -> None:
        current.set(self.making)
        try:
            scope = self._plain_scope()
            await arun(foreseeing(self.making, *self._pages.foreseen(scope)))
            await self._pages.app(scope, self._receive, self._send)
        except BaseException as error:
            if decided.done():
                raise
            decided.set_exception(error if isinstance(error, Exception) else RuntimeError("The application was ended."))
            if not isinstance(error, Exception):
                raise
        else:
            if not decided.done():
                decided.set_exception(RuntimeError("The application has ended before its answer was complete."))

    async def ended(self) -> None:
        """Wait until the application has ended, with all that it does after its answer; raise its error, if any."""
        if self._task is not None:
            await self._task

    def cancel(self) -> None:
        """End the application, if it is still running: its caller was cut short."""
        if self._task is not None and not self._task.done():
            self._task.cancel()

    def _plain_scope(self) -> Scope:
        """Return the scope as the application is to see it: of a GET for a whole answer, in messages that are seen."""
        conditions = self.making.added()
        headers = [pair for pair in self._scope["headers"] if pair[0] not in _CONDITIONS] + conditions
        known = self._scope.get("extensions") or {}
        extensions = {name: value for name, value in known.items() if name == "tls"}
        changed = {"method": "GET", "headers": headers, "extensions": extensions}
        return {**self._scope, **changed, "query_string": self.making.query.encode("latin-1")}

    async def _receive(self) -> Message:
        """Return that there is no content; then wait: a page is made to its end, also if its client has gone."""
        if not self._is_asked:
            self._is_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        if self._decided is not None and not self._decided.done():
            await asyncio.wait([self._decided])
        while self._client is not None and self.making.is_through:
            message = await self._client()
            if message["type"] != "http.request":
                return message
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self.making.is_through:
            await self._through(message)
        elif message["type"] == "http.response.start":
            self._start = message
            headers = _lower(message.get("headers", ()))
            if not self.making.begins(message["status"], headers):
                await self._let_go()
        elif message["type"] == "http.response.body" and self._start is not None:
            await self._hold(message)

    async def _hold(self, message: Message) -> None:
        body = bytes(message.get("body", b""))
        self._held.append(body)
        self._size += len(body)
        start, decided = self._start, self._decided
        if start is None or decided is None or decided.done():
            return
        if not self.making.fits(self._size):
            await self._let_go(more_body=bool(message.get("more_body")))
        elif not message.get("more_body"):
            try:
                self.making.ends(start["status"], _lower(start.get("headers", ())), b"".join(self._held))
            except KeptStaleError as error:
                decided.set_exception(error)
            else:
                decided.set_result(None)

    async def _let_go(self, *, more_body: bool = True) -> None:
        """Let the answer pass through from now on, first of all its beginning."""
        if self._decided is not None and not self._decided.done():
            self._decided.set_result(None)
        if self._start is not None:
            start, reason = self._start, "miss" if self.making.found.reason == "" else self.making.found.reason
            await self._through(
                {**start, "headers": self._pages.passed_headers(list(start.get("headers", ())), reason)}
            )
        if self._held:
            await self._through({"type": "http.response.body", "body": b"".join(self._held), "more_body": more_body})
            self._held.clear()

    async def _through(self, message: Message) -> None:
        if self._to_client is None:
            return
        if message["type"] == "http.response.body" and self.making.request.method == "HEAD":
            message = {**message, "body": b""}
        await self._to_client(message)
