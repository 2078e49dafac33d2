"""Writes that meet a broken connection or an outage: none is dropped in silence, and no old value comes back."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from storeroom.backends import recovery
from storeroom.exceptions import StorageError
from storeroom.testing.concurrency import eventually
from storeroom.testing.contract.suite import Driver
from tests.faults.kinds import Site, kinds
from tests.servers.proxy import Proxy

OLD = dict.fromkeys("abcdefg", "old")


async def write_all(driver: Any) -> None:
    """Change or remove each entry but g."""
    await driver.set("a", "new")
    await driver.delete("b")
    await driver.set_many({"c": "new", "d": "new"})
    await driver.delete_many(["e"])
    await driver.set("f", "new", 0)


# One broken connection ----------------------------------------------------------------------

REPEATED: dict[str, Callable[[Any], Coroutine[Any, Any, Any]]] = {
    "set": lambda driver: driver.set("a", "new"),
    "set_many": lambda driver: driver.set_many({"a": "new"}),
    "delete": lambda driver: driver.delete("a"),
    "delete_many": lambda driver: driver.delete_many(["a"]),
    "touch": lambda driver: driver.touch("a", 0),
    "invalidate_tags": lambda driver: driver.invalidate_tags("t"),
}


def test_write_that_meets_a_broken_connection_is_carried_out(site: Site, proxy: Proxy, mode: str) -> None:
    """A write whose reply is lost with its connection is repeated on a new one, and no failure counts."""
    cache, other = site.cache(port=proxy.port, on_error="raise"), site.cache()
    driver = Driver(cache, mode)

    async def work() -> None:
        for name, write in REPEATED.items():
            other.set("a", "old", tags=["t"])
            assert await driver.get("a") == "old"
            proxy.breaks = 1
            await write(driver)
            assert proxy.breaks == 0, "nothing was lost"
            assert other.get("a") == ("new" if name.startswith("set") else None), name

    asyncio.run(work())
    assert site.failures(cache) == 0


@kinds("redis", "postgresql", "mariadb")
def test_write_that_would_count_twice_is_not_repeated(site: Site, proxy: Proxy) -> None:
    """An increment whose reply is lost with its connection raises: it may have been counted."""
    cache = site.cache(port=proxy.port)
    cache.set("n", 1)
    assert cache.get("n") == 1
    proxy.breaks = 1
    with pytest.raises(StorageError):
        cache.incr("n")
    assert site.cache().get("n") in {1, 2}


# An outage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("near", [None, {"max_entries": 100}], ids=["", "near"])
def test_old_values_do_not_come_back_after_an_outage(
    site: Site, proxy: Proxy, mode: str, near: dict[str, Any] | None
) -> None:
    """Entries that were written or deleted in an outage are gone when the server answers again; others are there."""
    cache = site.cache(port=proxy.port, **({"near": near} if near else {}))
    driver, other = Driver(cache, mode), site.cache()
    other.set_many(OLD)

    async def work() -> None:
        assert await driver.get_many(OLD) == OLD
        proxy.cut_off()
        await write_all(driver)
        assert site.is_down(cache)
        proxy.is_refusing = False
        while site.is_down(cache):
            assert await driver.get_many([*"abcdef"]) == {}
            await asyncio.sleep(0.005)
        assert await driver.get_many(OLD) == {"g": "old"}
        assert other.get_many(OLD) == {"g": "old"}
        await driver.set("a", "newest")
        assert [await driver.get("a"), other.get("a")] == ["newest", "newest"]

    asyncio.run(work())


@kinds("redis", "postgresql")
def test_old_values_do_not_come_back_in_a_cache_that_has_another(site: Site, proxy: Proxy, memory: Any) -> None:
    """Writes that a fallback has taken are made up for at the server as well, those of a policy that raises too."""
    falling, raising = (site.cache(port=proxy.port, on_error=policy) for policy in ("fallback:memory", "raise"))
    falling.set_many(OLD)
    proxy.cut_off()
    falling.set("a", "new")
    with pytest.raises(StorageError):
        raising.delete("b")
    proxy.is_refusing = False
    other = site.cache()
    eventually(lambda: falling.get("c") == "old" and other.get_many([*"abc"]) == {"c": "old"})
    assert falling.get_many([*"abc"]) == {"c": "old"}


@kinds("redis")
def test_keys_beyond_the_bound_are_told(
    site: Site, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log tells when more writes are dropped than are remembered, and how many once the server is back."""
    monkeypatch.setattr(recovery, "MOST_DROPPED", 3)
    cache = site.cache(port=proxy.port)
    cache.set_many(OLD)
    proxy.cut_off()
    with caplog.at_level(logging.ERROR, "storeroom.outages"):
        cache.delete_many(list(OLD))
        proxy.is_refusing = False
        assert cache.get_many(OLD) == dict.fromkeys("defg", "old")
    assert [message.split(" ")[:5] for message in caplog.messages] == [
        ["More", "than", "3", "keys", "were"],
        ["After", "the", "outage", "the", "old"],
    ]
    assert "4 further" in caplog.messages[1]
