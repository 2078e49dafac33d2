"""Starlette and FastAPI: the page cache that knows their routes, the end of a server, and a cache as a dependency.

::

    app = FastAPI(lifespan=lifespan)

    @app.get("/items/{item_id}")
    @page(timeout="5m", tags=lambda request: ["items"])
    def item(item_id: int, cache: Annotated[BaseCache, Depends(cache("default"))]): ...

    site = PageCache(app)
    site.invalidate(view="item", item_id=7)

FastAPI itself is never imported: its applications and routers are Starlette's, but for routers that are included.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache as kept
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from starlette.routing import Match, NoMatchFound

from storeroom import engines
from storeroom.computing import serving
from storeroom.engines import background
from storeroom.integrations import asgi
from storeroom.integrations.asgi import App, Scope
from storeroom.pages.views import options_of
from storeroom.registry import caches

if TYPE_CHECKING:
    from storeroom.base import BaseCache

__all__ = ["PageCache", "cache", "lifespan", "paths_of"]

DRAIN_SECONDS: Final = 10.0
"""Seconds that the end of the server waits for values that are computed in the background."""

_log = logging.getLogger("storeroom")


class PageCache(asgi.PageCache):
    """The page cache around a Starlette or FastAPI application: it knows the routes.

    So ``invalidate(view=...)`` takes a route's name with its path parameters; the versions of a view's tags are read
    before its dependencies read any data; and a page differs by the headers that a route of FastAPI declares.

    Args:
        app: the application, or middleware around it that has it in its attribute `app`.
        cache: an alias, or a cache.
        **options: see ``storeroom.pages.Pages``.

    Raises:
        ConfigurationError: an option is unknown, or its value means nothing.
    """

    def __init__(self, app: App, cache: Any = "default", **options: Any) -> None:
        self._routed = _routed(app)
        super().__init__(app, cache, **{"urls": paths_of(self._routed), **options})

    def foreseen(self, scope: Scope) -> tuple[Mapping[str, Any] | None, Iterable[str]]:
        """Return the options of the endpoint that the routes lead to, and the headers that its parameters are."""
        route, view = _found(self._routed.routes, dict(scope))
        return options_of(view), set(_headers(getattr(route, "dependant", None)))


def _routed(app: Any) -> Any:
    """Return the first application with routes, from the outside."""
    while not hasattr(app, "routes") and hasattr(app, "app"):
        app = app.app
    if not hasattr(app, "routes"):
        raise TypeError(f"{app!r} has no routes; expected an application of Starlette's or FastAPI's, or middleware "
                        "around one. For others there is storeroom.integrations.asgi.PageCache.")  # fmt: skip
    return app


def _flat(routes: Iterable[Any]) -> Iterator[Any]:
    """Yield the routes; those of routers that FastAPI keeps as they were included, too."""
    for route in routes:
        contexts = getattr(route, "effective_route_contexts", None)
        for found in [route] if contexts is None else contexts():
            yield getattr(found, "starlette_route", None) or found


def _found(routes: Iterable[Any], scope: Scope) -> tuple[Any, Any]:
    """Return the route that a scope leads to, and its endpoint: of a class, its get()."""
    for route in _flat(routes):
        match, child = route.matches(scope)
        if match is Match.FULL:
            inner = getattr(route, "routes", None)  # of a mount, or a host
            if inner:
                return _found(inner, {**scope, **child})
            view = child.get("endpoint")
            return route, getattr(view, "get", view) if isinstance(view, type) else view
    return None, None


def _headers(dependant: Any) -> Iterator[str]:
    """Yield the headers that FastAPI reads for a route: those of its parameters, its dependencies, and keys of APIs."""
    if dependant is None:
        return
    for field in dependant.header_params:
        model = getattr(field.field_info.annotation, "model_fields", None)
        if model is None:
            yield field.alias
        else:
            names = {name: each.alias or name for name, each in model.items()}
            yield from {*names.values(), *(name.replace("_", "-") for name in names)}  # with and without underscores
    scheme: Any = getattr(dependant.call, "model", None)  # of fastapi.security; cookies and the URL count anyway
    if getattr(getattr(scheme, "in_", None), "value", "") == "header":
        yield scheme.name
    for inner in dependant.dependencies:
        yield from _headers(inner)


def paths_of(app: Any) -> Callable[[str, Sequence[Any], Mapping[str, Any]], list[str]]:
    """Return the function that tells the paths of an application's routes by their names: for ``Pages(urls=...)``.

    A star stands for a path parameter that is not given. A route below a mount has the mount's name before its own, as
    in ``url_for()``: "users:detail".

    Raises:
        NoMatchFound: when it is called: no route of that name has those parameters.
    """

    def paths(view: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
        if args:
            raise TypeError(f"Route {view!r} has got {list(args)!r} by position; path parameters have names.")
        found = list(_paths(app.routes, view, kwargs))
        if not found:
            raise NoMatchFound(view, dict(kwargs))
        return found

    return paths


def _paths(routes: Iterable[Any], name: str, given: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for route in _flat(routes):
        own, convertors = getattr(route, "name", None), getattr(route, "param_convertors", {})
        inner = getattr(route, "routes", None)
        if inner:  # a mount, whose last parameter is the path below it; or a host, which has no path
            prefix = f"{own}:" if own else ""
            if name.startswith(prefix):
                path = _filled(getattr(route, "path_format", ""), convertors, {**given, "path": ""}).rstrip("/")
                rest = {key: value for key, value in given.items() if key == "path" or key not in convertors}
                yield from _paths(inner, name.removeprefix(prefix), rest, before + path)
        elif own == name and given.keys() <= convertors.keys():
            yield before + _filled(route.path_format, convertors, given)


def _filled(path: str, convertors: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Return a path with its parameters as they are sent; a star for each that is not given."""
    for name, convertor in convertors.items():
        value = quote(convertor.to_string(given[name])) if name in given else "*"
        path = path.replace(f"{{{name}}}", value)
    return path


def cache(alias: str = "default") -> "Callable[[], Awaitable[BaseCache]]":
    """Return the dependency whose value is the cache of an alias: ``Depends(cache("default"))``.

    It is the same for each call with one alias, so that ``app.dependency_overrides`` can replace it.

    Raises:
        InvalidCacheBackendError: when it is used: there is no such alias.
    """
    return _dependency(alias)


@kept
def _dependency(alias: str) -> "Callable[[], Awaitable[BaseCache]]":
    async def storeroom_cache() -> "BaseCache":  # a coroutine function, as FastAPI runs others in threads
        return caches[alias]

    return storeroom_cache


@asynccontextmanager
async def lifespan(_app: object = None) -> AsyncIterator[None]:
    """Let all that is computed in the background come to its end, and close connections, when the server ends.

    ``FastAPI(lifespan=lifespan)``; in a lifespan of your own: ``async with lifespan(app): yield``.
    """
    try:
        yield
    finally:
        is_done = await serving.drained(DRAIN_SECONDS)
        if not (is_done and await asyncio.to_thread(background.drain, DRAIN_SECONDS)):
            _log.warning("Values are still computed in the background, %d s after the server's end.", DRAIN_SECONDS)
        engines.close_all()
