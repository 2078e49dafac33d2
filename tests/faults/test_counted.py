"""The counts of caches over a connection: round trips, bytes, waits, and all that an outage leaves."""

import asyncio
import threading
from typing import Any

import pytest

from storeroom.exceptions import StorageError
from storeroom.testing.concurrency import eventually, in_background
from storeroom.testing.contract.suite import Driver
from tests.faults.interrupting import in_a_fork
from tests.faults.kinds import PATIENT, Site, kinds
from tests.faults.test_busy import all_taken
from tests.faults.test_recovery import OLD, write_all
from tests.servers.proxy import Proxy


def grown(before: Any, after: Any, *names: str) -> dict[str, Any]:
    """Return by how much the counts of these names have grown."""
    return {name: getattr(after, name) - getattr(before, name) for name in names}


def test_round_trips_and_bytes_are_counted(site: Site, mode: str) -> None:
    """Each operation of the storage is one round trip, in one bucket of the latency, and its values' bytes count."""
    driver = Driver(site.cache(), mode)
    value = bytes(10_000)

    async def work() -> None:
        await driver.set("k", value)  # connects, and learns whatever has to be known
        before = await driver.stats()
        for _ in range(5):
            await driver.set("k", value)
            assert await driver.get("k") == value
            await driver.get("absent")
        await driver.set_many({"a": value, "b": value})
        await driver.get_many(["a", "b", "absent"])
        await driver.has_key("k")
        after = await driver.stats()
        # The caller's own look is one, where the storage tells its size.
        own = 1 if after.entries is not None else 0
        assert grown(before, after, "round_trips")["round_trips"] == 5 * 3 + 3 + own
        assert sum(after.latency.values()) == after.round_trips
        seconds = [bound for bound, number in after.latency.items() for _ in range(number)]
        assert 0 < after.round_trip_seconds <= sum(seconds)
        moved = grown(before, after, "bytes_read", "bytes_written")
        assert moved == {name: pytest.approx(7 * 10_000, rel=0.01) for name in moved}
        assert {name: (it.hits, it.misses, it.sets) for name, it in after.families.items()} == {
            "k": (5, 0, 6),
            "a": (1, 0, 1),
            "b": (1, 0, 1),
            "absent": (0, 6, 0),
        }
        assert (await driver.stats()).saved_seconds == 0.0

    asyncio.run(work())


def test_hits_of_computed_values_count_for_their_family(site: Site, mode: str) -> None:
    """A hit of get_or_set() saves the mean time of its family's computations."""
    driver = Driver(site.cache(), mode)

    async def work() -> None:
        for _ in range(3):
            await driver.get_or_set("user:1", lambda: 1)
            await driver.get_or_set("user:2", lambda: 1, stale_while_revalidate=60)
            await driver.get_or_set_many(["user:3"], lambda keys: dict.fromkeys(keys, 1))
        family = (await driver.stats()).families["user"]
        assert (family.hits, family.misses, family.computed) == (6, 3, 3)
        assert family.saved_seconds == pytest.approx(2 * family.compute_seconds)
        assert family.hit_ratio == pytest.approx(2 / 3)

    asyncio.run(work())


def test_what_an_outage_drops_and_what_is_made_up_for_is_counted(site: Site, proxy: Proxy, mode: str) -> None:
    """Keys of dropped writes count, and again when their old entries are removed; so do openings of the breaker."""
    cache = site.cache(port=proxy.port)
    driver = Driver(cache, mode)

    async def work() -> None:
        await driver.set_many(OLD)
        proxy.cut_off()
        await write_all(driver)
        assert site.is_down(cache)
        during = await driver.stats()
        assert (during.dropped, during.recovered, during.breaker_openings) == (6, 0, 1)
        proxy.is_refusing = False
        while (await driver.stats()).recovered < 6:
            await driver.get("a")
            await asyncio.sleep(0.005)
        assert (await driver.get_many(OLD)) == {"g": "old"}
        after = await driver.stats()
        assert (after.dropped, after.recovered) == (6, 6)

    asyncio.run(asyncio.wait_for(work(), PATIENT))


def test_waits_for_a_connection_are_counted(site: Site) -> None:
    """A thread that finds all connections in use has waited, for some time; others have not."""
    cache = site.cache(max_connections=2)
    cache.set("k", "v")
    assert cache.stats().connection_waits == 0
    ended = threading.Event()
    with all_taken(site, cache):
        waiting = in_background(lambda: (cache.get("k"), ended.set()))
        eventually(lambda: bool(site.connections(cache)._queue))
    assert waiting.result(PATIENT)[0] == "v"
    assert ended.is_set()
    stats = cache.stats()
    assert (stats.connection_waits, stats.busy) == (1, 0)
    assert stats.connection_wait_seconds > 0


@kinds("redis", "postgresql")
def test_a_child_begins_to_count_anew(site: Site) -> None:
    """A forked child has counted nothing of its parent's work."""
    cache = site.cache()
    cache.set("user:1", 1)

    def child() -> None:
        assert cache.get("user:1") == 1
        stats = cache.stats()
        assert (stats.sets, stats.hits, stats.computed) == (0, 1, 0)
        assert {name: (it.hits, it.sets) for name, it in stats.families.items()} == {"user": (1, 0)}

    in_a_fork(child)


def test_counts_of_all_processes_need_the_server(site: Site, proxy: Proxy) -> None:
    """In an outage the sum of all processes is an error, and operations follow their policy as ever."""
    cache = site.cache(port=proxy.port, shared_stats=True)
    cache.set("k", 1)
    assert cache.stats(scope="all").sets == 1
    proxy.cut_off()
    cache._counters.publish_at = cache._counters.look_at = 0.0
    assert cache.get("k") is None
    cache.set("k", 2)
    with pytest.raises(StorageError):
        cache.stats(scope="all")
