"""Caches whose server is killed, restarted or hangs: misses, policies, the circuit breaker, recovery and the log."""

import asyncio
import logging
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest

from storeroom.backends.locmem import LocMemCache
from storeroom.base import BaseCache
from storeroom.exceptions import KeyNotFoundError, StorageError
from storeroom.storage.outages import FAILURES, PAUSE_SECONDS
from storeroom.testing.concurrency import eventually, in_threads
from tests.faults.kinds import HASTY, MEMCACHED, SHORT, Site, kinds

pytestmark = pytest.mark.slow


def open_breaker(site: Site, cache: Any) -> None:
    """Ask until the cache asks the server no more."""
    while not site.is_down(cache):
        assert cache.get("k") is None


# A server that was killed -------------------------------------------------------------------


def test_outage_is_ten_thousand_quick_misses_and_two_lines_in_the_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """While a server is dead nothing raises and misses take microseconds; soon after its return it is used."""
    cache = site.cache(pause=PAUSE_SECONDS)
    cache.set("k", "v")
    assert cache.get("k") == "v"
    site.kill()
    seconds = []
    with caplog.at_level(logging.WARNING, "storeroom"):
        open_breaker(site, cache)
        for _ in range(10_000):
            begun = time.perf_counter()
            assert cache.get("k", "default") == "default"
            seconds.append(time.perf_counter() - begun)
        assert statistics.quantiles(seconds, n=100)[98] <= 0.002
        assert cache.stats().errors >= 10_000
        site.start()
        begun = time.monotonic()
        while not cache.add("back", 1):
            assert time.monotonic() - begun < PAUSE_SECONDS + 1
            time.sleep(0.005)
    assert cache.get("back") == 1
    assert cache.get("k") in {"v", None}, "no write waits for the disk, so that the last ones may be lost"
    told = [message for message in caplog.messages if re.search(site.named, message)]  # no server of a test before
    assert len(told) == 2, told
    assert re.search(f"{site.named}.* is down", told[0])
    assert re.search(f"{site.named}.* answers again", told[1])


@kinds("redis", *MEMCACHED)
def test_each_outage_is_logged_by_two_lines(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """An outage is told of once when it begins and once when it ends, however many threads notice it."""
    cache = site.cache()
    cache.set("k", "v")
    with caplog.at_level(logging.WARNING, "storeroom"):
        for _ in range(2):
            site.kill()
            in_threads(8, lambda _: open_breaker(site, cache))
            site.start()
            eventually(lambda: cache.add("back", 1, timeout=0.001) or not site.is_down(cache))
    logged = [(record.name, record.levelname, "is down" in record.getMessage()) for record in caplog.records]
    assert logged == [("storeroom.outages", "ERROR", True), ("storeroom.outages", "WARNING", False)] * 2


def test_answers_during_an_outage_pretend_nothing(site: Site) -> None:
    """Without a server no write says that it was stored, and operations without an honest answer raise."""
    cache = site.cache()
    cache.set("k", "v")
    site.kill()
    assert cache.set("k", "v") is None
    assert cache.add("k", "v") is False
    assert cache.set_many({"a": 1, "b": 2}) == ["a", "b"]
    assert cache.get_many(["a", "b"]) == {}
    assert cache.touch("k") is False
    assert cache.delete("k") is False
    assert cache.has_key("k") is False
    assert cache.ttl("k") == 0
    assert cache.get_or_set("k", lambda: "computed") == "computed"
    without_answer: list[Callable[[], Any]] = [
        cache.clear,
        lambda: cache.incr("n"),
        lambda: cache.incr_version("k"),
        lambda: cache.invalidate_tags("t"),
        *([cache.keys] if site.lists_keys else []),
    ]
    for operation in without_answer:
        with pytest.raises(StorageError, match=site.named):
            operation()


def test_policy_raise_raises(down: Site) -> None:
    """Under on_error="raise" both APIs raise StorageError where the server is out of reach."""
    cache = down.cache(on_error="raise")
    with pytest.raises(StorageError, match="out of reach"):
        cache.get("k")
    with pytest.raises(StorageError, match="out of reach"):
        asyncio.run(cache.aget("k"))


def test_policy_fallback_keeps_entries_in_the_other_cache(down: Site, memory: BaseCache) -> None:
    """Under on_error="fallback:memory" both APIs read and write the other cache where the server is out of reach."""
    cache = down.cache(on_error="fallback:memory")
    cache.set("k", "in memory")
    assert cache.get("k") == "in memory"
    assert asyncio.run(cache.aget("k")) == "in memory"
    assert cache.get_or_set("l", lambda: "computed") == "computed"
    assert memory.get("l") == "computed"


def test_breaker_stays_open_while_the_server_is_down(down: Site, mode: str, caplog: pytest.LogCaptureFixture) -> None:
    """A look at a server that is still down does not close the circuit breaker, and the log does not tell of it."""
    cache = down.cache()
    open_breaker(down, cache)
    (breaker,) = down.breakers(cache)
    caplog.clear()
    for _ in range(3):
        eventually(lambda: not breaker.refuses)
        assert (cache.get("k") if mode == "sync" else asyncio.run(cache.aget("k"))) is None
        assert breaker.is_open
    assert not caplog.messages


def test_recovery_is_noticed_by_a_program_that_only_counts(down: Site) -> None:
    """A limiter, which asks nothing but incr(), uses the server again: that there is no counter is an answer, too."""
    cache = down.cache()
    open_breaker(down, cache)
    down.start()
    begun = time.monotonic()
    while True:
        try:
            cache.incr("requests")
            break
        except (KeyNotFoundError, StorageError):
            cache.add("requests", 1)
        assert time.monotonic() - begun < 2
        time.sleep(0.005)


# A server that was restarted ----------------------------------------------------------------

OPERATIONS: dict[str, tuple[Any, ...]] = {
    "get": ("n",),
    "get_many": (["n", "m"],),
    "set": ("n", 5),
    "set_many": ({"n": 5, "m": 6},),
    "add": ("m", 5),
    "incr": ("n",),
    "delete": ("n",),
    "clear": (),
}
"""Operation -> its arguments."""


def outcome(cache: BaseCache, operation: str) -> Any:
    """Return an operation's result, or the class of its error, and the entries after it."""
    try:
        result = getattr(cache, operation)(*OPERATIONS[operation])
    except KeyNotFoundError as error:
        result = type(error)
    return result, cache.get_many(["n", "m"])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_restart_between_two_operations_is_not_noticed(site: Site, operation: str) -> None:
    """A connection that the server has closed is found out before use, also by operations that may not be repeated."""
    cache = site.cache()
    memory = LocMemCache(f"{operation} of {site.named}", {"TIMEOUT": None})
    cache.set("n", 1)
    if site.keeps_entries:
        memory.set("n", 1)
    site.restart()
    assert outcome(cache, operation) == outcome(memory, operation)
    assert site.failures(cache) == 0
    assert cache.stats().errors == 0


# A server that hangs ------------------------------------------------------------------------


def get_together(cache: Any, mode: str) -> list[Any]:
    """Return the finds of simultaneous callers, as many as it takes to open the breaker."""
    if mode == "sync":
        return in_threads(FAILURES, lambda _: cache.get("k"))

    async def work() -> list[Any]:
        return await asyncio.gather(*(cache.aget("k") for _ in range(FAILURES)))

    return asyncio.run(work())


def test_hanging_server_is_a_miss_after_the_timeout(site: Site, mode: str) -> None:
    """A few callers of a server that hangs miss when the timeout is over, and all others at once."""
    cache = site.cache(pause=0.3, **HASTY)
    site.cache().set("k", "v")
    eventually(lambda: cache.get("k") == "v")
    with site.paused():
        begun = time.monotonic()
        assert get_together(cache, mode) == [None] * FAILURES
        assert time.monotonic() - begun < SHORT + site.connects_within + 1
        assert site.is_down(cache)
        begun = time.monotonic()
        for _ in range(20):
            assert (cache.get("k") if mode == "sync" else asyncio.run(cache.aget("k"))) is None
        assert time.monotonic() - begun < SHORT
    eventually(lambda: cache.get("k") == "v")


def test_increment_without_a_reply_is_not_sent_again(site: Site) -> None:
    """An increment that a hanging server does not answer raises, and counts once at most when the server goes on."""
    cache = site.cache(**HASTY)
    site.cache().set("n", 0)
    eventually(lambda: cache.get("n") == 0)
    with site.paused(), pytest.raises(StorageError):
        cache.incr("n")
    eventually(lambda: cache.get("n") is not None)
    assert cache.get("n") in {0, 1}


#: Seconds that a server which does not answer is waited for: longer than a machine stands still.
HANGS = 0.6


@kinds("redis", *MEMCACHED)
def test_one_caller_at_a_time_looks_whether_a_hanging_server_is_back(site: Site) -> None:
    """While one caller waits for the probe of a server that is down, the others are answered at once."""
    cache = site.cache(pause=HANGS + 0.1, socket_timeout=HANGS, socket_connect_timeout=HANGS)
    cache.set("k", "v")
    with site.paused():
        get_together(cache, "sync")
        assert site.is_down(cache)
        failures, durations = site.failures(cache), []

        def read(_: int) -> None:
            begun = time.monotonic()
            while time.monotonic() - begun < 2 * HANGS:
                before = time.monotonic()
                assert cache.get("k") is None
                durations.append(time.monotonic() - before)
                time.sleep(0.002)

        in_threads(8, read)
        probes = site.failures(cache) - failures
        assert probes in {1, 2}
        assert sum(seconds > 0.9 * HANGS for seconds in durations) <= probes
        assert statistics.quantiles(durations, n=100)[98] <= 0.01
        assert site.is_down(cache)
    eventually(lambda: cache.get("k") == "v")
    assert not site.is_down(cache)
