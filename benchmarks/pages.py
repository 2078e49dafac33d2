"""``python -m benchmarks.pages``: the time of the page cache's own per hit, beside that of the application alone.

CPU time of this process, each side in turns and the fastest of its rounds; a page of 5 kB by a browser's usual headers.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import storeroom
from storeroom.integrations import asgi, wsgi

CALLS, ROUNDS = 3_000, 15
BODY = b"x" * 5_000
HEADERS = {
    "host": "example.com", "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "accept": "text/html", "accept-encoding": "gzip", "accept-language": "en", "connection": "keep-alive",
}  # fmt: skip


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """Answer at once."""
    headers = [(b"content-type", b"text/html"), (b"content-length", b"5000")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    """Answer at once."""
    start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", "5000")])
    return [BODY]


def in_turns(sides: dict[str, Callable[[], float]]) -> Iterator[tuple[str, float]]:
    """Yield each side and its microseconds per call."""
    best: dict[str, float] = dict.fromkeys(sides, float("inf"))
    for _ in range(ROUNDS):
        for name, measured in sides.items():
            best[name] = min(best[name], measured())
    yield from ((name, seconds / CALLS * 1e6) for name, seconds in best.items())


def asgi_side(app: Any, loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return a measurement of an ASGI application."""
    pairs = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
    scope = {
        "type": "http", "method": "GET", "scheme": "https", "path": "/news", "raw_path": b"/news",
        "query_string": b"page=1", "headers": pairs,
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        """Take a message."""

    async def calls() -> float:
        begun = time.process_time()
        for _ in range(CALLS):
            await app(scope, receive, send)
        return time.process_time() - begun

    return lambda: loop.run_until_complete(calls())


def wsgi_side(app: Any) -> Callable[[], float]:
    """Return a measurement of a WSGI application."""
    environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in HEADERS.items()} | {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/news", "QUERY_STRING": "page=1",
        "wsgi.url_scheme": "https", "CONTENT_LENGTH": "", "SERVER_NAME": "example.com",
    }  # fmt: skip

    def start_response(*args: Any) -> None:
        """Take the beginning of an answer."""

    def calls() -> float:
        begun = time.process_time()
        for _ in range(CALLS):
            app(environ, start_response)
        return time.process_time() - begun

    return calls


def main() -> None:
    """Print the microseconds of each door on memory and on files."""
    with tempfile.TemporaryDirectory() as folder:
        storeroom.configure(
            {
                "default": {"BACKEND": "storeroom.backends.locmem.LocMemCache"},
                "files": {"BACKEND": "storeroom.backends.filebased.FileBasedCache", "LOCATION": folder},
            }
        )
        loop = asyncio.new_event_loop()
        sides = {"ASGI alone": asgi_side(asgi_app, loop), "WSGI alone": wsgi_side(wsgi_app)}
        for alias in ("default", "files"):
            sides[f"ASGI {alias.replace('default', 'memory')}"] = asgi_side(
                asgi.PageCache(asgi_app, alias, timeout=600), loop
            )
            sides[f"WSGI {alias.replace('default', 'memory')}"] = wsgi_side(
                wsgi.PageCache(wsgi_app, alias, timeout=600)
            )
        for name, microseconds in in_turns(sides):
            print(f"{name:12} {microseconds:6.2f} µs")
        loop.close()


if __name__ == "__main__":
    main()
