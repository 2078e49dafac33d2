"""A Flask and a Django application, uncached and by each cache. The server calls make(), as in `asgi_sites`.

Django has no middleware of its own here: the fewer there are, the better for its cache, which lies within them.
"""

import os
from collections.abc import Callable
from typing import Any, Final

from benchmarks.served.asgi_sites import caches, folder
from benchmarks.served.content import BODIES, HTML, ROWS, SECONDS

__all__ = ["DJANGO", "FLASK", "make", "urlpatterns"]

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

urlpatterns: list[Any] = []
"""Those of Django: its settings name this module."""


def _flask(kind: str | None = None) -> Any:
    from flask import Flask, jsonify

    app = Flask("site")
    decorate = _flask_caching(app, kind) if kind else lambda view: view

    @app.get("/rows")
    @decorate
    def rows() -> Any:
        return jsonify(ROWS)

    @app.get("/page")
    @decorate
    def page() -> Any:
        return HTML

    return app


def _flask_caching(app: Any, kind: str) -> Decorator:
    from flask_caching import Cache

    decorator: Decorator = Cache(app, config={"CACHE_TYPE": kind, "CACHE_DIR": folder()}).cached(timeout=SECONDS)
    return decorator


def _django(kind: str | None = None) -> Any:
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse, JsonResponse
    from django.urls import path
    from django.views.decorators.cache import cache_page

    backend = {"BACKEND": f"django.core.cache.backends.{kind or 'dummy.DummyCache'}", "LOCATION": folder()}
    settings.configure(
        ALLOWED_HOSTS=["*"], SECRET_KEY="benchmark", ROOT_URLCONF=__name__, CACHES={"default": backend}, USE_I18N=False
    )
    decorate: Any = cache_page(SECONDS) if kind else lambda view: view
    urlpatterns[:] = [
        path("rows", decorate(lambda request: JsonResponse(ROWS, safe=False))),
        path("page", decorate(lambda request: HttpResponse(HTML))),
    ]
    return get_wsgi_application()


def _bare() -> Any:
    headers = {path: [("Content-Length", str(len(body)))] for path, body in BODIES.items()}

    def app(environ: Any, start_response: Any) -> list[bytes]:
        path = environ["PATH_INFO"]
        start_response("200 OK", headers[path])
        return [BODIES[path]]

    return app


def _storeroom(app: Any, alias: str) -> Any:
    import storeroom
    from storeroom.integrations.wsgi import PageCache

    storeroom.configure(caches())
    return PageCache(app, alias, timeout=SECONDS)


FLASK: Final[dict[str, Callable[[], Any]]] = {
    "uncached": _flask,
    "bare application": _bare,
    "Storeroom": lambda: _storeroom(_flask(), "default"),
    "Storeroom, files": lambda: _storeroom(_flask(), "files"),
    "Flask-Caching": lambda: _flask("SimpleCache"),
    "Flask-Caching, files": lambda: _flask("FileSystemCache"),
}
DJANGO: Final[dict[str, Callable[[], Any]]] = {
    "uncached": _django,
    "bare application": _bare,
    "Storeroom": lambda: _storeroom(_django(), "default"),
    "Storeroom, files": lambda: _storeroom(_django(), "files"),
    "Django": lambda: _django("locmem.LocMemCache"),
    "Django, files": lambda: _django("filebased.FileBasedCache"),
}


def make() -> Any:
    """Return the application of this server."""
    framework, _, name = os.environ["SITE"].partition(" ")
    return {"flask": FLASK, "django": DJANGO}[framework][name]()
