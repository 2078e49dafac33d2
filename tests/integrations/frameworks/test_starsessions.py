"""Sessions of starsessions in a cache: kept for their time, whatever else comes."""

import asyncio

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starsessions import SessionAutoloadMiddleware, SessionMiddleware

import storeroom
from storeroom.exceptions import ConfigurationError
from storeroom.integrations.starsessions import StoreroomStore
from storeroom.testing.isolation import engines_of_its_own
from tests.servers.redis import redis_databases, redis_server

__all__ = ["redis_databases", "redis_server"]

STORAGES = {"memory": "locmem.LocMemCache", "files": "filebased.FileBasedCache"}


@pytest.fixture(params=STORAGES)
def small(request, tmp_path):
    """A cache of 50 entries, the only alias."""
    with engines_of_its_own():
        before = storeroom.caches.swap(None)
        kind = {"BACKEND": f"storeroom.backends.{STORAGES[request.param]}", "LOCATION": str(tmp_path)}
        storeroom.configure({"default": {**kind, "OPTIONS": {"MAX_ENTRIES": 50}}})
        yield storeroom.caches["default"]
        storeroom.caches.swap(before)


async def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return PlainTextResponse(str(request.session["visits"]))


async def leave(request):
    request.session.clear()
    return PlainTextResponse("bye")


def visitor(app=None, **options):
    """Return a browser; of the same site as another, if one is given."""
    sessions = Middleware(SessionMiddleware, store=StoreroomStore(), cookie_https_only=False, **options)
    routes = [Route("/", visits), Route("/leave", leave)]
    return TestClient(app or Starlette(routes=routes, middleware=[sessions, Middleware(SessionAutoloadMiddleware)]))


def test_sessions_outlive_all_entries_of_a_full_cache(small):
    """They are not evicted, not cleared, and count toward no bound."""
    visitors = [visitor(lifetime=3600)]
    visitors += [visitor(visitors[0].app) for _ in range(9)]
    assert [each.get("/").text for each in visitors] == ["1"] * 10
    for number in range(500):
        small.set(f"k{number}", number)
    small.clear()
    assert [each.get("/").text for each in visitors] == ["2"] * 10
    assert list(small.keys()) == []
    assert visitors[0].get("/leave").text == "bye"
    assert [each.get("/").text for each in visitors[:2]] == ["1", "3"]


def test_a_session_ends_with_its_time(small, clock):
    """That of its last request, where it is rolling; and of a browser's, the store's own."""
    fixed, rolling, browsers = visitor(lifetime=100), visitor(lifetime=100, rolling=True), visitor(lifetime=0)
    store = StoreroomStore(browser_session=1000)

    async def kept(session_id):
        return await store.read(session_id, 0)

    asyncio.run(store.write("of a browser", b"data", 0, 0))
    asyncio.run(store.write("over", b"data", 100, 0))
    for each in (fixed, rolling, browsers):
        each.get("/")
    clock.advance(60)
    rolling.get("/")
    clock.advance(60)
    assert asyncio.run(kept("of a browser")) == b"data"
    assert asyncio.run(kept("over")) == b""
    assert [each.get("/").text for each in (fixed, rolling, browsers)] == ["1", "3", "2"]
    clock.advance(1000)
    assert asyncio.run(kept("of a browser")) == b""


def test_sessions_are_kept_on_a_server(redis_databases):
    """In the bytes of any serializer; a session that is gone is empty."""

    async def run(store):
        written = [await store.write("a", b"\xff", 100, 100), await store.read("a", 100)]
        await store.remove("a")
        return [*written, await store.read("a", 100), await store.read("b", 100)]

    with engines_of_its_own():
        before = storeroom.caches.swap(None)
        for serializer in ("pickle", "json", "msgpack"):
            server = {"BACKEND": "storeroom.backends.redis.RedisCache", "LOCATION": redis_databases.url()}
            storeroom.configure({"default": {**server, "OPTIONS": {"serializer": serializer}}})
            assert asyncio.run(run(StoreroomStore())) == ["a", b"\xff", b"", b""]
        storeroom.caches.swap(before)


def test_a_time_that_is_none_is_told():
    """When the store is made."""
    with pytest.raises(ConfigurationError, match="browser_session is 0; expected"):
        StoreroomStore(browser_session=0)
