"""Requests to the whole of Django, as servers make them; and the ways that its pages may be stored."""

import asyncio
import contextvars
import sys
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any, NamedTuple

from django.conf import settings
from django.core.cache import caches
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test import SimpleTestCase, override_settings
from django.utils import timezone, translation
from pages_urls import site

from storeroom.engines import background
from storeroom.testing import FakeClock

OURS = "storeroom.integrations.django.pages.CacheMiddleware"


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def was_stored(self) -> bool:
        return "age" in self.headers


class Wsgi:
    """A WSGI server of several threads."""

    is_async = False

    def open(self) -> None:
        self.handler = WSGIHandler()

    def get(self, path: str, method: str = "GET", host: str = "example.com", **headers: str) -> Reply:
        path, _, query = path.partition("?")
        environ = {
            "REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": query, "HTTP_HOST": host,
            "SERVER_NAME": "localhost", "SERVER_PORT": "80", "wsgi.url_scheme": "http", "wsgi.input": BytesIO(),
            "wsgi.errors": sys.stderr, "wsgi.version": (1, 0),
        }  # fmt: skip
        environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
        got: list[Any] = []
        response = self.handler(environ, lambda *args: got.append(args))
        body = b"".join(response)
        getattr(response, "close", bool)()  # a page that is answered before Django has nothing to close
        status, pairs = got[0][:2]
        return Reply(int(status[:3]), {name.lower(): value for name, value in pairs}, body)

    def get_at_once(self, path: str, count: int) -> list[Reply]:
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(lambda _: self.get(path), range(count)))

    def drain(self) -> None:
        assert background.drain()

    def end(self) -> None:
        self.drain()


class Asgi:
    """An ASGI server, whose loop goes on from request to request."""

    is_async = True

    def open(self) -> None:
        self.loop = asyncio.Runner()
        self.handler = ASGIHandler()

    async def aget(self, path: str, method: str = "GET", host: str = "example.com", **headers: str) -> Reply:
        path, _, query = path.partition("?")
        pairs = [(b"host", host.encode())]
        pairs += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http", "method": method, "scheme": "http", "path": path, "raw_path": path.encode(),
            "query_string": query.encode(), "headers": pairs, "server": ("localhost", 80), "client": ("127.0.0.1", 1),
        }  # fmt: skip
        got: list[Any] = []
        asked: list[Any] = []

        async def receive() -> Any:
            if asked:
                await asyncio.get_running_loop().create_future()
            asked.append(1)
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            got.append(message)

        task = asyncio.create_task(self.handler(scope, receive, send), context=contextvars.Context())
        await task
        start, *rest = got
        found = {name.decode().lower(): value.decode() for name, value in start["headers"]}
        return Reply(start["status"], found, b"".join(message.get("body", b"") for message in rest))

    def get(self, path: str, method: str = "GET", host: str = "example.com", **headers: str) -> Reply:
        return self.loop.run(self.aget(path, method, host, **headers))

    def get_at_once(self, path: str, count: int) -> list[Reply]:
        async def all_of_them() -> list[Reply]:
            return await asyncio.gather(*(self.aget(path) for _ in range(count)))

        return self.loop.run(all_of_them())

    def drain(self) -> None:
        async def drained() -> None:
            while others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others)

        self.loop.run(drained())
        assert background.drain()

    def end(self) -> None:
        self.drain()
        self.loop.close()


class PagesTest(SimpleTestCase):
    """The site behind a server, with a page cache somewhere.

    Attributes:
        path: of the page that the tests ask for.
        in_middleware: whether the page cache is the first middleware, or the view's decorator.
    """

    path: str
    in_middleware: bool
    server: Any = Wsgi

    def setUp(self) -> None:
        self.clock = self.enterContext(FakeClock())
        self.enterContext(self.settings())
        self.client = self.server()
        self.client.open()
        self.addCleanup(self.client.end)
        self.addCleanup(translation.deactivate)
        self.addCleanup(timezone.deactivate)
        for alias in settings.CACHES:
            caches[alias].clear()
        site.begin()

    def settings(self, **options: Any) -> Any:
        middleware = self.middleware()
        pages = {"stale_while_revalidate": 60, "stale_if_error": 600, "cache_status": "S"}
        return override_settings(**{"MIDDLEWARE": middleware, "STOREROOM_PAGES": pages, **options})

    def middleware(self) -> list[str]:
        return [*[OURS] * self.in_middleware, *(path for path in settings.MIDDLEWARE if path != OURS)]

    def get(self, path: str = "", *args: Any, **headers: str) -> Reply:
        return self.client.get(path or self.path, *args, **headers)

    def texts(self, count: int, **headers: str) -> list[str]:
        return [self.get(**headers).text for _ in range(count)]


#: The combinations of server, kind of view, and position.
COMBINATIONS = {
    "WsgiMiddleware": {"server": Wsgi, "path": "/plain/", "in_middleware": True},
    "WsgiDecorator": {"server": Wsgi, "path": "/view/", "in_middleware": False},
    "WsgiAsyncView": {"server": Wsgi, "path": "/aview/", "in_middleware": False},
    "AsgiMiddleware": {"server": Asgi, "path": "/aplain/", "in_middleware": True},
    "AsgiDecorator": {"server": Asgi, "path": "/aview/", "in_middleware": False},
    "AsgiSyncView": {"server": Asgi, "path": "/view/", "in_middleware": False},
}


def everywhere(module: dict[str, Any], *mixins: type) -> None:
    """Define, in a module, a class of tests for each combination and each of some classes."""
    for mixin in mixins:
        for name, values in COMBINATIONS.items():
            made = type(f"{mixin.__name__}{name}", (mixin, PagesTest), {**values, "__module__": module["__name__"]})
            module[made.__name__] = made
