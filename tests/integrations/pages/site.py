"""A site behind a page cache, by either door: its pages are scripted, its runs are counted."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any, NamedTuple
from urllib.parse import unquote

from storeroom.engines import background
from storeroom.integrations import asgi, wsgi


class Reply(NamedTuple):
    status: int
    pairs: list[tuple[str, str]]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def header(self, name: str) -> str | None:
        return ", ".join(value for found, value in self.pairs if found == name) or None

    @property
    def was_stored(self) -> bool:
        return self.header("age") is not None


class Asked(NamedTuple):
    """A request as the site sees it."""

    method: str
    path: str
    headers: dict[str, str]
    number: int
    query: str = ""
    content: bytes = b""


def page(*lines: str, body: Any = None, status: int = 200) -> Callable[[Asked], Any]:
    """Return a script that always answers the same; its body tells the number of the run, if none is given."""
    pairs = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return lambda asked: (status, pairs, f"run {asked.number}".encode() if body is None else body)


class Site:
    """The site, with what the doors have in common; `script` makes its answers.

    The server, or an application around it, adds `around` to each scope or environ, and `content` to each request.
    """

    def __init__(self) -> None:
        self.script: Callable[[Asked], Any] = page()
        self.runs: list[Asked] = []
        self.closed = 0
        self.pages: Any = None
        self.around: dict[str, Any] = {}
        self.content = b""

    def asked(self, method: str, path: str, headers: dict[str, str], query: str, content: bytes) -> Asked:
        self.runs.append(Asked(method, path, headers, len(self.runs) + 1, query, content))
        return self.runs[-1]

    def get(self, path: str = "/page", *lines: str, method: str = "GET", host: str = "example.com") -> Reply:
        raise NotImplementedError

    def post(self, path: str = "/page", *lines: str) -> Reply:
        return self.get(path, *lines, method="POST")

    def bodies(self, count: int, path: str = "/page", *lines: str) -> list[str]:
        """Return the bodies of some requests in a row."""
        return [self.get(path, *lines).text for _ in range(count)]

    def get_at_once(self, count: int, askers: Any = ((),)) -> list[Reply]:
        """Return the answers to requests that come at the same time, with the lines of one asker after the other."""
        raise NotImplementedError

    def drain(self) -> None:
        """Wait until no page is made in the background."""


class AsgiSite(Site):
    kind = "asgi"

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()

    def begin(self, cache: Any, **options: Any) -> "AsgiSite":
        self.pages = asgi.PageCache(self.app, cache, **options)
        return self

    async def app(self, scope, receive, send):
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        query, content = scope["query_string"].decode(), (await receive())["body"] if self.content else b""
        answer = self.script(self.asked(scope["method"], scope["path"], headers, query, content))
        status, pairs, body = await answer if inspect.isawaitable(answer) else answer
        sent = [(name.encode(), value.encode()) for name, value in pairs]
        await send({"type": "http.response.start", "status": status, "headers": sent})
        chunks = [body] if isinstance(body, bytes) else body
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        self.closed += 1

    async def aget(self, path, *lines, method="GET", host="example.com"):
        path, _, query = path.partition("?")
        headers = [(b"host", host.encode())]
        headers += [(n.strip().lower().encode(), v.strip().encode()) for n, _, v in (x.partition(":") for x in lines)]
        scope = {
            "type": "http", "method": method, "scheme": "https", "path": path, "raw_path": path.encode(),
            "query_string": query.encode(), "headers": headers, "extensions": {"http.response.pathsend": {}},
            **self.around,
        }  # fmt: skip
        got: list[Any] = []

        async def send(message):
            got.append(message)

        async def receive():
            return {"type": "http.request", "body": self.content, "more_body": False}

        await self.pages(scope, receive, send)
        start, *rest = got
        pairs = [(name.decode().lower(), value.decode()) for name, value in start["headers"]]
        return Reply(start["status"], pairs, b"".join(message["body"] for message in rest))

    def get(self, path: str = "/page", *lines: str, method: str = "GET", host: str = "example.com") -> Reply:
        return self.loop.run(self.aget(path, *lines, method=method, host=host))

    def get_at_once(self, count, askers=((),)):
        async def all_of_them():
            return await asyncio.gather(*(self.aget("/page", *askers[n % len(askers)]) for n in range(count)))

        return self.loop.run(all_of_them())

    def drain(self):
        async def drained():
            while self.pages._tasks:
                await asyncio.wait(self.pages._tasks)

        self.loop.run(drained())

    def end(self):
        self.drain()
        self.loop.close()


class _Body:
    """An iterable whose close() is counted."""

    def __init__(self, site: Site, chunks: Any) -> None:
        self._site, self._chunks = site, chunks

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)

    def close(self) -> None:
        self._site.closed += 1


class WsgiSite(Site):
    kind = "wsgi"

    def begin(self, cache: Any, **options: Any) -> "WsgiSite":
        self.pages = wsgi.PageCache(self.app, cache, **options)
        return self

    def app(self, environ, start_response):
        headers = {n[5:].lower().replace("_", "-"): v for n, v in environ.items() if n.startswith("HTTP_")}
        query, content = environ["QUERY_STRING"], environ["wsgi.input"].read()
        asked = self.asked(environ["REQUEST_METHOD"], environ["PATH_INFO"], headers, query, content)
        status, pairs, body = self.script(asked)
        start_response(f"{status} Status", pairs)
        return _Body(self, [body] if isinstance(body, bytes) else body)

    def get(self, path: str = "/page", *lines: str, method: str = "GET", host: str = "example.com") -> Reply:
        path, _, query = path.partition("?")
        environ = {
            "REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": unquote(path, "latin-1"), "QUERY_STRING": query,
            "HTTP_HOST": host, "wsgi.url_scheme": "https", "wsgi.file_wrapper": list, "CONTENT_LENGTH": "",
            "wsgi.input": BytesIO(self.content), **self.around,
        }  # fmt: skip
        for line in lines:
            name, _, value = line.partition(":")
            environ["HTTP_" + name.upper().replace("-", "_")] = value.strip()
        got: list[Any] = []
        iterable = self.pages(environ, lambda *args: got.append(args))
        try:
            body = b"".join(iterable)
        finally:
            if hasattr(iterable, "close"):
                iterable.close()
        status, pairs = got[-1][:2]
        return Reply(int(status[:3]), [(name.lower(), value) for name, value in pairs], body)

    def get_at_once(self, count, askers=((),)):
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(lambda n: self.get("/page", *askers[n % len(askers)]), range(count)))

    def drain(self):
        assert background.drain()

    def end(self):
        self.drain()
