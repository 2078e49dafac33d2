"""The views of the project: they use caches, and say what came of it."""

import asyncio
from typing import Any

from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import include, path

from storeroom.engines import background
from storeroom.testing import FakeClock
from storeroom.timeouts import NEVER

ADA = {"name": "Ada"}
PAGE = "<html><head><title>Shop</title></head><body><h1>Shop</h1><p>A page of a shop.</p></body></html>"


def calls(request: HttpRequest) -> HttpResponse:
    """Call a cache in many ways; which, the query says."""
    cache = caches[request.GET["alias"]]
    cache.get("absent")
    cache.get("absent", "a default")
    cache.set("user:7", ADA, tags=["users", "user:7"])
    cache.get("user:7")
    cache.get_many(["user:7", "user:8"])
    cache.get_or_set("menu", lambda: "made", 60)
    cache.get_or_set("menu", lambda: "made", 60)
    cache.invalidate_tags("users")
    cache.has_key("user:7")
    with FakeClock() as clock:
        cache.get_or_set("price", lambda: 1, 60, stale_while_revalidate=60)
        clock.advance(70)
        cache.get_or_set("price", lambda: 2, 60, stale_while_revalidate=60)
        background.drain()
    return HttpResponse(PAGE)


async def acalls(request: HttpRequest) -> HttpResponse:
    """Do so asynchronously, at once in part."""
    cache = caches[request.GET["alias"]]
    await cache.aget("absent")
    await cache.aset("user:7", ADA, tags=["users"])
    await cache.aget("user:7")
    await cache.aget_many(iter(["user:7", "user:8", "user:8"]))

    async def slow() -> str:
        await asyncio.sleep(0.02)
        return "made"

    both = cache.aget_or_set("menu", slow, 60), cache.aget_or_set("menu", slow, 60)
    await asyncio.gather(*both, cache.aget("user:7"), cache.aget("absent"))
    await cache.aget_or_set("menu", slow, 60)
    return HttpResponse(PAGE)


def memo(request: HttpRequest) -> JsonResponse:
    """Read one key twice; another caller changes it in between."""
    return JsonResponse(_reads())


async def amemo(request: HttpRequest) -> JsonResponse:
    """Do so in a task, and in a thread that it starts."""
    return JsonResponse(await sync_to_async(_reads)())


def _reads() -> dict[str, Any]:
    cache = caches["redis"]
    first = cache.get("count")
    cache._set(cache.make_key("count"), first + 1, NEVER)  # by the hook itself, as another process would
    return {"first": first, "second": cache.get("count")}


def order(request: HttpRequest) -> HttpResponse:
    """Write to a cache in a transaction that is rolled back, or committed."""
    with transaction.atomic():
        caches["redis"].set("price", 5)
        transaction.set_rollback("fails" in request.GET)
    return HttpResponse(str(caches["redis"].get("price")))


async def aorder(request: HttpRequest) -> HttpResponse:
    """Do so in the thread of synchronous code, as Django's transactions have to be."""
    return await sync_to_async(order)(request)


def idle(request: HttpRequest) -> HttpResponse:
    """Call no cache."""
    return HttpResponse(PAGE)


def visit(request: HttpRequest) -> HttpResponse:
    """Count, read, or assign the same again, as the query says."""
    if "count" in request.GET:
        request.session["visits"] = request.session.get("visits", 0) + 1
    if "same" in request.GET:
        request.session["visits"] = request.session["visits"]
    return HttpResponse(str(request.session.get("visits")))


async def avisit(request: HttpRequest) -> HttpResponse:
    """Count."""
    await request.session.aset("visits", await request.session.aget("visits", 0) + 1)
    return HttpResponse(str(await request.session.aget("visits")))


urlpatterns = [
    *(path(f"{view.__name__}/", view) for view in (calls, acalls, memo, amemo, order, aorder, idle, visit, avisit)),
    path("__debug__/", include("debug_toolbar.urls")),
]
