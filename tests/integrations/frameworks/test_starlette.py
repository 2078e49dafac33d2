"""Starlette and FastAPI: options of routes, dependencies, the lifespan, pages by the names of routes."""

import asyncio
from contextlib import asynccontextmanager
from typing import Annotated

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header
from fastapi.security import APIKeyHeader
from fastapi.testclient import TestClient
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, NoMatchFound, Route

import storeroom
from storeroom.base import BaseCache
from storeroom.integrations.starlette import PageCache, cache, lifespan, paths_of
from storeroom.pages import page

Cache = Annotated[BaseCache, Depends(cache())]


def plain(decorate):
    """Return an application with views of all kinds, each decorated, if at all."""
    app, router, runs = FastAPI(), APIRouter(prefix="/shop"), []

    @app.get("/items/{item_id}", summary="An item")
    @decorate
    async def item(item_id: int, cache: Cache, q: str = "x") -> dict[str, int]:
        runs.append(item_id)
        return {"item": item_id, "run": len(runs)}

    @router.get("/{name}/all")
    @decorate
    def listed(name: str) -> list[int]:
        runs.append(name)
        return [len(runs)]

    app.include_router(router, tags=["shop"])
    return app, runs


def asking(app):
    return TestClient(app, base_url="http://example.com")


def test_routes_have_options_and_are_as_they_were(alias, clock):
    """Coroutine functions and others, also of an included router; the document of the API is the same."""
    app, runs = plain(page(timeout="5m"))
    assert app.openapi() == plain(lambda view: view)[0].openapi()
    client = asking(PageCache(app))
    for path in ("/items/1", "/items/1?q=y", "/shop/a/all"):
        assert client.get(path).json() == client.get(path).json()
    assert runs == [1, 1, "a"]
    clock.advance("6m")
    assert client.get("/items/1").json() == {"item": 1, "run": 4}
    assert client.get("/items/x").status_code == 422
    assert client.get("/openapi.json").headers.get("age") is None


@pytest.mark.parametrize("is_within", [False, True], ids=["around", "middleware"])
def test_an_invalidation_while_dependencies_are_solved_is_seen(alias, is_within):
    """They read data before the view begins: its tags have versions from before them."""
    app, data = FastAPI(), ["old"]

    async def load() -> str:
        read = data[0]
        if read == "old":
            data[0] = "new"
            await storeroom.caches[alias].ainvalidate_tags("data")
        return read

    router = APIRouter()

    @router.get("/page")
    @page(timeout=60, tags=["data"])
    def view(loaded: Annotated[str, Depends(load)]) -> str:
        return loaded

    app.include_router(router)
    if is_within:
        app.add_middleware(PageCache)
    client = asking(app if is_within else PageCache(app))
    assert [client.get("/page").json() for _ in range(3)] == ["old", "new", "new"]


class Headers(BaseModel):
    """Parameters that FastAPI takes as one."""

    x_one: str = "none"
    two: str = Field("none", alias="X-Two")


def told(accept_language: Annotated[str, Header()] = "none") -> str:
    return accept_language


def test_a_page_differs_by_the_headers_that_its_route_declares(alias):
    """A language, and the key of an API: nobody gets another's page, nor one without a key."""
    app = FastAPI(dependencies=[Depends(APIKeyHeader(name="X-Site"))])
    router = APIRouter(dependencies=[Depends(APIKeyHeader(name="X-Shop-Key"))])

    @router.get("/page")
    @page(timeout=60)
    def view(language: Annotated[str, Depends(told)], given: Annotated[Headers, Header()]) -> list[str]:
        return [language, given.x_one, given.two]

    @app.get("/plain")
    @page(timeout=60)
    def plain(given: Annotated[Headers, Header(convert_underscores=False)]) -> str:
        return given.x_one

    app.include_router(router, prefix="/shop")
    client, keys = asking(PageCache(app)), {"X-Site": "1", "X-Shop-Key": "1"}
    answers = {
        frozenset(headers.items()): [client.get("/shop/page", headers={**keys, **headers}).json() for _ in range(2)]
        for headers in ({}, {"Accept-Language": "fr"}, {"Accept-Language": "de"}, {"X-One": "a"}, {"X-Two": "b"})
    }
    expected = [
        ["none"] * 3,
        ["fr", "none", "none"],
        ["de", "none", "none"],
        ["none", "a", "none"],
        ["none", "none", "b"],
    ]
    assert list(answers.values()) == [[each, each] for each in expected]
    assert "age" in client.get("/shop/page", headers=keys).headers
    assert [client.get("/plain", headers={**keys, "x_one": value}).json() for value in "abaa"] == list("abaa")
    for name in keys:
        assert client.get("/shop/page", headers={key: "1" for key in keys if key != name}).status_code in (401, 403)


def starlette():
    """Return an application with mounts, an endpoint that is a class, and names that occur twice."""

    @page(timeout=60)
    async def shown(request):
        return PlainTextResponse(str(request.path_params))

    class Account(HTTPEndpoint):
        @page(timeout=60, tags=["accounts"])
        async def get(self, request):
            return PlainTextResponse("account")

    inner = [Route("/{path:path}/raw", shown, name="raw"), Route("/", shown, name="index")]
    return Starlette(routes=[
        Route("/news/{year:int}/{slug}", shown, name="news"),
        Route("/news/{year:int}", shown, name="news"),
        Route("/account", Account),
        Mount("/{org}", name="org", routes=inner),
    ])  # fmt: skip


PATHS = ["/news/2026/a b", "/news/2026/c", "/news/2026", "/account", "/me/x/y/raw", "/me/", "/you/"]


@pytest.mark.parametrize(
    ("given", "gone"),
    [
        ({"view": "news", "year": 2026, "slug": "a b"}, {"/news/2026/a b"}),
        ({"view": "news", "year": 2026}, {"/news/2026/a b", "/news/2026/c", "/news/2026"}),
        ({"view": "Account"}, {"/account"}),
        ({"tags": ["accounts"]}, {"/account"}),
        ({"view": "org:raw", "org": "me", "path": "x/y"}, {"/me/x/y/raw"}),
        ({"view": "org:index", "org": "me"}, {"/me/"}),
        ({"view": "org:index"}, {"/me/", "/you/"}),
    ],
)
def test_pages_go_by_the_names_of_their_routes(alias, given, gone):
    """Their path parameters are those of url_for(); for each that is left out all pages go."""
    app = starlette()
    client, site = asking(PageCache(app)), PageCache(app)
    for path in PATHS:
        assert client.get(path).status_code == 200
    site.invalidate(**given)
    assert {path for path in PATHS if "age" not in client.get(path).headers} == gone


def test_a_route_that_is_not_there_is_told():
    """Neither all pages go, nor none."""
    paths = paths_of(starlette())
    for view, given in (("nothing", {}), ("news", {"pk": 1}), ("org:nothing", {"org": "me"})):
        with pytest.raises(NoMatchFound):
            paths(view, (), given)
    with pytest.raises(TypeError, match="path parameters have names"):
        paths("news", (2026,), {})
    with pytest.raises(TypeError, match="has no routes"):
        PageCache(lambda scope, receive, send: None)


def test_a_cache_is_a_dependency(alias):
    """It can be replaced, as other dependencies, and is the same each time."""
    app = FastAPI()

    @app.get("/count")
    async def count(cache: Cache) -> int:
        return await cache.aget_or_set("n", 0) + await cache.aincr("n")

    assert cache() is cache("default") is not cache("other")
    assert asking(app).get("/count").json() == 1
    assert storeroom.caches[alias].get("n") == 1
    app.dependency_overrides[cache()] = _Counter
    assert asking(app).get("/count").json() == 42


class _Counter:
    async def aget_or_set(self, key, value):
        return 20

    async def aincr(self, key):
        return 22


def test_the_end_of_the_server_waits_for_values_that_are_refreshed(alias, clock):
    """Of tasks and of threads; within a lifespan of one's own, too."""
    ended, made = [], []

    @asynccontextmanager
    async def own(app):
        async with lifespan(app):
            yield
            ended.append("own")

    async def run():
        cache, may_go_on = storeroom.caches[alias], asyncio.Event()

        async def slow():
            await may_go_on.wait()
            made.append("task")

        await cache.aset("a", 1, 10)
        await cache.aget_or_set("a", lambda: 1, 10, stale_while_revalidate=60)
        async with own(None):
            await cache.adelete("a")
            await cache.aget_or_set("a", lambda: 1, 10, stale_while_revalidate=60)
            clock.advance(11)
            assert await cache.aget_or_set("a", slow, 10, stale_while_revalidate=60) == 1
            asyncio.get_running_loop().call_later(0.01, may_go_on.set)
        made.append("end")

    asyncio.run(run())
    assert (ended, made) == (["own"], ["task", "end"])
