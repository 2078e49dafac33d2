"""``python -m benchmarks.pages``: the time of the page cache's own per hit, beside that of the application alone.

CPU time of this process, each side in turns and the fastest of its rounds; a page of 5 kB by a browser's usual headers,
and those that sites have all the time.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import storeroom
from storeroom.integrations import asgi, wsgi

CALLS, ROUNDS = 1_000, 15
BODY = b"some text " * 500
HEADERS = {
    "host": "example.com", "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "accept": "text/html", "accept-encoding": "gzip", "accept-language": "en", "connection": "keep-alive",
}  # fmt: skip
SCRIPTS = "_ga=GA1.2.1234567890.1700000000; _gid=GA1.2.987654321.1700000001; _fbp=fb.1.1700000000000.1234567890"
PROXY = {"x-forwarded-for": "192.0.2.1", "x-forwarded-proto": "https"}
SESSIONS = {"vary_on_cookies": ["sessionid"]}

#: A case -> the cache's options, headers of the page beside the usual ones, headers of the request likewise.
CASES: dict[str, tuple[dict[str, Any], dict[str, str], dict[str, str]]] = {
    "plain": ({}, {}, {}),
    "cookies of scripts": ({}, {}, {"cookie": SCRIPTS}),
    "other cookies, Cache-Control: max-age": ({}, {"cache-control": "max-age=600"}, {"cookie": "sessionid=abcdefgh"}),
    "stale_while_revalidate": ({"stale_while_revalidate": 60}, {}, {}),
    "two tags": ({"tags": ["news", "sport"]}, {}, {}),
    "stored compressed": ({"compress": "gzip"}, {}, {}),
    "Vary: Accept-Encoding": ({}, {"vary": "Accept-Encoding"}, {}),
    "vary_on_cookies, cookies of scripts": (SESSIONS, {}, {"cookie": SCRIPTS}),
    "behind a proxy": ({}, {}, PROXY),
    "the last two, stale_while_revalidate": (
        SESSIONS | {"stale_while_revalidate": 60},
        {},
        PROXY | {"cookie": SCRIPTS},
    ),
}


def asgi_app(lines: dict[str, str]) -> Any:
    """Return an application that answers at once."""
    headers = [(b"content-type", b"text/html"), (b"content-length", b"5000")]
    headers += [(name.encode(), value.encode()) for name, value in lines.items()]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": BODY})

    return app


def wsgi_app(lines: dict[str, str]) -> Any:
    """Return an application that answers at once."""
    headers = [("Content-Type", "text/html"), ("Content-Length", "5000"), *lines.items()]

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", headers)
        return [BODY]

    return app


def in_turns(sides: dict[str, Callable[[], float]]) -> Iterator[tuple[str, float]]:
    """Yield each side and its microseconds per call."""
    best: dict[str, float] = dict.fromkeys(sides, float("inf"))
    for _ in range(ROUNDS):
        for name, measured in sides.items():
            best[name] = min(best[name], measured())
    yield from ((name, seconds / CALLS * 1e6) for name, seconds in best.items())


def asgi_side(app: Any, loop: asyncio.AbstractEventLoop, more: dict[str, str]) -> Callable[[], float]:
    """Return a measurement of an ASGI application."""
    pairs = [(name.encode(), value.encode()) for name, value in (HEADERS | more).items()]
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


def wsgi_side(app: Any, more: dict[str, str]) -> Callable[[], float]:
    """Return a measurement of a WSGI application."""
    environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in (HEADERS | more).items()} | {
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
        sides = {
            "ASGI alone": asgi_side(asgi_app({}), loop, {}),
            "WSGI alone": wsgi_side(wsgi_app({}), {}),
        }
        for number, (case, (options, lines, more)) in enumerate(CASES.items()):
            for alias in ("default", "files"):
                name, own = f"{alias.replace('default', 'memory')}, {case}", {"timeout": 600, **options}
                one = asgi.PageCache(asgi_app(lines), alias, key_prefix=f"a{number}", **own)
                other = wsgi.PageCache(wsgi_app(lines), alias, key_prefix=f"w{number}", **own)
                sides |= {f"ASGI {name}": asgi_side(one, loop, more), f"WSGI {name}": wsgi_side(other, more)}
        for name, microseconds in in_turns(sides):
            print(f"{name:52} {microseconds:6.2f} µs")
        loop.close()


if __name__ == "__main__":
    main()
