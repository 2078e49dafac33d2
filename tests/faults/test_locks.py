"""Locks when their server dies: one that could not be asked for was not acquired, whatever the policy."""

import asyncio

import pytest

from storeroom.base import BaseCache
from storeroom.exceptions import StorageError
from storeroom.testing.concurrency import aeventually, eventually
from tests.faults.kinds import MEMCACHED, Site, kinds
from tests.servers.proxy import Proxy


@kinds("redis", *MEMCACHED, "postgresql")
@pytest.mark.parametrize("policy", ["miss", "raise", "fallback:memory"])
def test_lock_has_no_answer_without_its_server(site: Site, policy: str, memory: BaseCache) -> None:
    """Without a server every operation of a lock raises, also of one that was held and may be still."""
    cache = site.cache(on_error=policy)
    held = cache.lock("held", timeout=100)
    assert held.acquire()
    site.kill()
    lock = cache.lock("l", timeout=100, blocking_timeout=10)
    for _ in range(2):  # while the outage is noticed, and when it is known
        for operation in (lock.acquire, lock.__enter__, lock.locked, held.owned, held.extend, held.fence):
            with pytest.raises(StorageError, match="out of reach"):
                operation()
    with pytest.raises(StorageError, match="out of reach"):
        held.release()
    with pytest.raises(StorageError, match="out of reach"):
        asyncio.run(cache.lock("l").aacquire())
    if policy == "miss":  # all other operations follow it as ever
        assert cache.get("k") is None
        assert cache.add("k", 1) is False


@pytest.mark.slow
@kinds("redis")
def test_lock_whose_reply_nobody_waits_for_is_given_back(site: Site, proxy: Proxy) -> None:
    """A lock that the server has granted to a caller that was cancelled meanwhile is released."""
    cache, direct = site.cache(port=proxy.port), site.cache()

    async def main() -> None:
        await cache.aget("k")
        proxy.delay = 0.2
        waiting = asyncio.ensure_future(cache.lock("l").aacquire())
        await aeventually(direct.lock("l").locked)  # its reply is under way
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    eventually(lambda: not direct.lock("l").locked())  # where the loop has ended first, a thread gives it back
