"""One FastAPI application, uncached and by each cache. The server calls make(), which the variable SITE tells the one.

Caches that are decorators are around the routes, those that are middleware around the application.
"""

import os
import tempfile
from collections.abc import Callable
from typing import Any, Final

from benchmarks.served.content import BODIES, HTML, ROWS, SECONDS

__all__ = ["SITES", "make"]

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _application(decorate: Decorator = lambda view: view) -> Any:
    from fastapi import FastAPI
    from fastapi.responses import HTMLResponse

    app = FastAPI(openapi_url=None)

    @app.get("/rows")
    @decorate
    async def rows() -> list[dict[str, Any]]:
        return ROWS

    @app.get("/page", response_class=HTMLResponse)
    @decorate
    async def page() -> str:
        return HTML

    return app


def _bare() -> Any:
    starts = {
        path: {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
        for path, body in BODIES.items()
    }

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send(starts[scope["path"]])
            await send({"type": "http.response.body", "body": BODIES[scope["path"]]})

    return app


def _storeroom(alias: str) -> Any:
    import storeroom
    from storeroom.integrations.asgi import PageCache

    storeroom.configure(caches())
    return PageCache(_application(), alias, timeout=SECONDS)


def caches() -> dict[str, Any]:
    """Return the aliases: memory, and files in a folder that all workers of a server share."""
    return {
        "default": {"BACKEND": "storeroom.backends.locmem.LocMemCache"},
        "files": {"BACKEND": "storeroom.backends.filebased.FileBasedCache", "LOCATION": folder()},
    }


def folder() -> str:
    """Return the folder of this server, which the one who starts it has made."""
    return os.environ.get("SITE_FOLDER") or tempfile.mkdtemp()


def _fastapi_cache2() -> Any:
    from fastapi_cache import FastAPICache
    from fastapi_cache.backends.inmemory import InMemoryBackend
    from fastapi_cache.decorator import cache

    FastAPICache.init(InMemoryBackend())
    return _application(cache(expire=SECONDS))


def _fastapi_cachex() -> Any:
    from fastapi_cachex import BackendProxy, cache
    from fastapi_cachex.backends import MemoryBackend

    BackendProxy.set(MemoryBackend())
    return _application(cache(ttl=SECONDS))


def _cashews() -> Any:
    from cashews import Cache

    cache = Cache()
    cache.setup("mem://")
    return _application(cache(ttl=SECONDS))


def _hishel() -> Any:
    from hishel import AsyncSqliteStorage
    from hishel.asgi import ASGICacheMiddleware

    storage = AsyncSqliteStorage(database_path=f"{folder()}/hishel.sqlite3", default_ttl=SECONDS)
    return ASGICacheMiddleware(_application(), storage, rfc=False)


SITES: Final[dict[str, Callable[[], Any]]] = {
    "uncached": _application,
    "bare application": _bare,
    "Storeroom": lambda: _storeroom("default"),
    "Storeroom, files": lambda: _storeroom("files"),
    "fastapi-cache2": _fastapi_cache2,
    "fastapi-cachex": _fastapi_cachex,
    "cashews": _cashews,
    "hishel": _hishel,
}


def make() -> Any:
    """Return the application of this server."""
    return SITES[os.environ["SITE"]]()
