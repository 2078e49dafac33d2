"""FastAPI: pages that are answered before the framework, and go by the name of their route."""

import asyncio
import os
from datetime import datetime
from typing import Annotated

from fastapi import Depends, FastAPI

from storeroom.base import BaseCache
from storeroom.integrations.starlette import PageCache, cache, lifespan
from storeroom.pages import page

app = FastAPI(lifespan=lifespan)  # at its end, values that are being computed are stored
Cache = Annotated[BaseCache, Depends(cache("default"))]


@app.get("/items/{item_id}")
@page(timeout="5m", tags=lambda request: ["items"])
async def item(item_id: int, cache: Cache) -> dict[str, int | float]:
    """Return an item. Among all workers this runs once in five minutes for each."""
    return {"item": item_id, "price": await cache.aget(f"price:{item_id}", 9.99), "worker": os.getpid()}


@app.put("/items/{item_id}/price")
async def change(item_id: int, price: float, cache: Cache) -> float:
    """Set a price. The item's page is absent at once, for all workers."""
    await cache.aset(f"price:{item_id}", price, timeout=None)
    await site.ainvalidate(view="item", item_id=item_id)
    return price


@app.get("/news")
@page(timeout=1, stale_while_revalidate="1h")
def news() -> dict[str, str]:
    """Return news that are a second old, or older: nobody waits for the next ones, which are made in the background."""
    return {"looked for at": f"{datetime.now():%H:%M:%S.%f}"}


@app.get("/report")
async def report(cache: Cache) -> int:
    """Return a value that takes long; it is computed once, and the old one is served meanwhile."""

    async def compute() -> int:
        await asyncio.sleep(0.3)
        return await cache.aincr("reports", default=0)

    return await cache.aget_or_set("report", compute, timeout=1, stale_while_revalidate="1h")


site = PageCache(app, cache_status="Storeroom")
