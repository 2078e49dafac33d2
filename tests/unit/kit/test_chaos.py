"""ChaosCache: a cache that misbehaves by plan."""

import asyncio
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

import storeroom
from storeroom import caches
from storeroom.exceptions import ConfigurationError, StorageError
from storeroom.testing import ChaosCache
from storeroom.testing.concurrency import eventually, in_background
from storeroom.testing.isolation import engines_of_its_own


@pytest.fixture(autouse=True)
def engines() -> Iterator[None]:
    with engines_of_its_own():
        yield


def make(*plan: dict[str, Any], seed: int = 1) -> ChaosCache:
    """Return a cache before local memory."""
    storeroom.configure({
        "default": {"BACKEND": "storeroom.testing.ChaosCache", "OPTIONS": {"of": "real", "plan": plan, "seed": seed}},
        "real": {
            "BACKEND": "storeroom.backends.locmem.LocMemCache",
            "LOCATION": uuid.uuid4().hex,
            "KEY_PREFIX": "real",
            "TIMEOUT": "1h",
        },
    })  # fmt: skip
    cache = caches["default"]
    assert isinstance(cache, ChaosCache)
    return cache


def test_without_a_plan_it_is_the_cache_behind_it() -> None:
    """Entries, prefix and timeout are those of the cache behind."""
    cache = make()
    cache.set("k", 1, tags=["t"])
    assert caches["real"].get("k") == cache.get("k") == 1
    assert 3500 < cache.ttl("k") <= 3600
    assert cache.keys() == ["k"]
    assert cache.get_or_set("l", lambda: 2) == 2
    with cache.lock("door"):
        assert cache.lock("door").acquire(blocking=False) is False
    assert cache.incr("n", default=0) == 1
    cache.invalidate_tags("t")
    assert asyncio.run(cache.aget_many(["k", "l"])) == {"l": 2}
    cache.clear()
    assert caches["real"].keys() == []


def test_a_failure_is_raised_before_or_after_the_storage_has_done_its_part() -> None:
    """Under "after" the write is there, and its caller does not know."""
    cache = make({"do": "fail", "on": "set", "times": 1}, {"do": "fail", "on": "set", "when": "after", "times": 1})
    for expected in (None, 2):
        with pytest.raises(StorageError, match=r"set\(\) has failed by the plan"):
            cache.set("k", 2)
        assert cache.get("k") == expected
    cache.set("k", 3)
    assert cache.chaos.acted == [("set", "fail"), ("set", "fail")]


def test_async_operations_fail_by_the_same_plan() -> None:
    """The twins ask the same rules."""
    cache = make({"do": "fail", "on": "read", "error": ConnectionError, "times": 1})
    with pytest.raises(ConnectionError):
        asyncio.run(cache.aget("k"))
    assert asyncio.run(cache.aget("k", "default")) == "default"


def test_what_is_lost_is_answered_as_during_an_outage() -> None:
    """Reads are misses, writes store nothing and say so, counters raise."""
    cache = make({"do": "lose"})
    cache.set("k", 1)
    assert cache.get("k", "default") == "default"
    assert cache.add("k", 1) is False
    assert cache.set_many({"k": 1}) == ["k"]
    with pytest.raises(StorageError, match="no honest answer"):
        cache.incr("k")
    cache.chaos.is_on = False
    assert cache.keys() == []


def test_rules_concern_keys_and_turns() -> None:
    """A rule acts on some keys, from some operation on, and so many times."""
    cache = make({"do": "fail", "on": ["get"], "keys": "*:user:*", "skip": 1, "times": 2})
    failures = []
    for _ in range(5):
        try:
            cache.get("user:1")
            failures.append(False)
        except StorageError:
            failures.append(True)
        cache.get("page")
    assert failures == [False, True, True, False, False]


def test_chances_are_the_same_in_every_run() -> None:
    """The seed decides."""

    def run(seed: int) -> list[bool]:
        cache, failed = make({"do": "fail", "on": "get", "chance": 0.5}, seed=seed), []
        for _ in range(50):
            try:
                cache.get("k")
                failed.append(False)
            except StorageError:
                failed.append(True)
        return failed

    assert run(1) == run(1) != run(2)
    assert 10 < sum(run(1)) < 40


def test_a_delay_and_a_hang_take_time() -> None:
    """A hang ends by release(), or after its seconds; the event loop goes on meanwhile."""
    cache = make({"do": "delay", "on": "get", "seconds": 0.05}, {"do": "hang", "on": "set"})
    begun = time.monotonic()
    cache.get("k")
    assert time.monotonic() - begun >= 0.05
    waiting = in_background(cache.set, "k", 1)
    eventually(lambda: ("set", "hang") in cache.chaos.acted)
    assert not waiting.done()
    cache.chaos.release()
    waiting.result(10)

    async def impatient() -> str:
        slow = make({"do": "hang", "on": "get"})
        try:
            async with asyncio.timeout(0.05):
                await slow.aget("k")
        except TimeoutError:
            return "gave up"
        return "went on"

    assert asyncio.run(impatient()) == "gave up"


def test_a_cancel_ends_the_task_or_interrupts_the_thread() -> None:
    """In a task it is a cancellation, which leaves no lease behind; in a thread a KeyboardInterrupt."""
    cache = make({"do": "cancel", "on": "get", "times": 2})
    with pytest.raises(KeyboardInterrupt):
        cache.get("k")

    async def main() -> str:
        task = asyncio.ensure_future(cache.aget("k"))
        await asyncio.wait([task])
        assert task.cancelled()
        return await cache.aget_or_set("k", lambda: "value")

    assert asyncio.run(main()) == "value"


def test_get_or_set_survives_a_storage_that_fails_now_and_then() -> None:
    """A computed value is returned, whatever the storage does; threads agree in the end."""
    cache = make({"do": "fail", "on": "write", "chance": 0.3}, {"do": "delay", "on": "read", "seconds": 0.001})
    values = []
    threads = [threading.Thread(target=lambda: values.append(cache.get_or_set("k", lambda: "value"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert values == ["value"] * 8


@pytest.mark.parametrize(
    "options",
    [
        {"of": "nowhere"},
        {"of": 3},
        {"of": "default"},
        {"of": "real", "plan": [{"do": "explode"}]},
        {"of": "real", "plan": [{"on": "get"}]},
        {"of": "real", "plan": [{"do": "fail", "on": "gett"}]},
        {"of": "real", "plan": [{"do": "fail", "whenever": 1}]},
        {"of": "real", "plan": {"do": "fail"}},
    ],
)
def test_a_wrong_plan_is_told(options: dict[str, Any]) -> None:
    """A rule, or a cache, that does not exist is a mistake of the configuration."""
    written = {
        "default": {"BACKEND": "storeroom.testing.ChaosCache", "OPTIONS": options},
        "real": {"BACKEND": "storeroom.backends.locmem.LocMemCache"},
    }
    with pytest.raises(ConfigurationError, match=r"'of'|'plan'"):
        use(written)


def use(written: dict[str, Any]) -> None:
    storeroom.configure(written)
    caches["default"].get("k")
