"""Starlette: a stream that passes through, and sessions that are not evicted."""

import asyncio
import os
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starsessions import SessionAutoloadMiddleware, SessionMiddleware

from storeroom.integrations.starlette import PageCache, lifespan
from storeroom.integrations.starsessions import StoreroomStore
from storeroom.pages import page


@page(timeout="5m")
async def front(request: Request) -> Response:
    """Answer with a page, which is the same for all."""
    return PlainTextResponse(f"made by worker {os.getpid()}")


async def events(request: Request) -> Response:
    """Send events one by one: no page cache holds them back."""

    async def numbers() -> AsyncIterator[str]:
        for number in range(3):
            yield f"data: {number}\n\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(numbers(), media_type="text/event-stream")


async def visits(request: Request) -> Response:
    """Count a visitor's requests in his session: such an answer sets a cookie, and is never stored as a page."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return PlainTextResponse(f"{request.session['visits']} {os.getpid()}")


app = Starlette(
    routes=[Route("/", front), Route("/events", events), Route("/visits", visits)],
    middleware=[
        Middleware(SessionMiddleware, store=StoreroomStore(), lifetime=86_400, cookie_https_only=False),
        Middleware(SessionAutoloadMiddleware, paths=["/visits"]),
    ],
    lifespan=lifespan,
)
site = PageCache(app)
