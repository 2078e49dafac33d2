"""Applications whose pages expire at once and take as long to be made anew as the test wants: for real servers.

The folder in the variable SITE_FOLDER tells both sides what happens: for each path a file of as many bytes as there
were runs, and one that lets them end. The first run of a path does not wait.
"""

import asyncio
import os
import time
from pathlib import Path

from storeroom.backends.filebased import FileBasedCache
from storeroom.integrations import asgi, wsgi

FOLDER = Path(os.environ.get("SITE_FOLDER", "."))
FIRST = {"/wait": b"max-age=1", "/stale": b"max-age=1, stale-while-revalidate=600"}


def begun(path):
    """Note a run; return its number and its Cache-Control."""
    with (FOLDER / f"{path[1:]}.runs").open("ab", buffering=0) as runs:
        runs.write(b".")
        number = runs.tell()
    return number, FIRST.get(path, b"no-store") if number == 1 else b"max-age=600"


def may_end(path, number):
    return number == 1 or (FOLDER / f"{path[1:]}.end").exists()


async def asgi_view(scope, receive, send):
    if scope["type"] != "http":
        return
    number, control = begun(scope["path"])
    while not may_end(scope["path"], number):
        await asyncio.sleep(0.01)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", control)]})
    await send({"type": "http.response.body", "body": b"run %d" % number})


def wsgi_view(environ, start_response):
    number, control = begun(environ["PATH_INFO"])
    while not may_end(environ["PATH_INFO"], number):
        time.sleep(0.01)
    start_response("200 OK", [("Cache-Control", control.decode())])
    return [b"run %d" % number]


def cache():
    return FileBasedCache(FOLDER / "cache", {})


def asgi_app():
    return asgi.PageCache(asgi_view, cache())


def wsgi_app():
    return wsgi.PageCache(wsgi_view, cache())
