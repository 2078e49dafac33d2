"""Computations while something fails: servers that die, a clock that is put right, sources and programs that end."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storeroom import timeouts
from storeroom.backends.filebased import FileBasedCache
from storeroom.base import BaseCache
from storeroom.computing import stampede
from storeroom.storage.envelope import placeholder
from storeroom.storage.hooks import MISSING
from storeroom.testing import FakeClock
from storeroom.testing.concurrency import Gate, eventually, in_background
from storeroom.testing.isolation import engines_of_its_own
from tests.faults.kinds import Site

MOMENT = 0.3
"""Seconds that an entry is fresh for: servers go by a clock of their own."""


# Servers that die in between --------------------------------------------------------------------


@pytest.fixture(scope="module", params=["redis", "pymemcache", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """One kind of server of each backend."""
    return str(request.param)


def is_back(cache: BaseCache) -> bool:
    cache.set("probe", 1)
    return bool(cache.get("probe") == 1)


@pytest.mark.slow
def test_a_server_that_dies_during_a_computation_costs_no_caller_its_value(site: Site) -> None:
    """A value is returned though its server dies while it is computed; the next one after the outage is stored."""
    source, cache = Gate("new"), site.cache()
    leader = in_background(cache.get_or_set, "k", source)
    assert source.begun.wait(10)
    follower = in_background(cache.get_or_set, "k", lambda: "computed by the follower")
    eventually(lambda: cache.engine.flights.followers(cache.make_key("k")) == 1)
    site.kill()
    source.may_end.set()
    assert leader.result(20) == "new"
    assert follower.result(20) in {"new", "computed by the follower"}
    assert cache.get_or_set("k", lambda: "without a server") == "without a server"
    site.start()
    eventually(lambda: is_back(cache))
    assert cache.refresh("k", lambda: "after it") == "after it"
    assert cache.get("k") == "after it"


@pytest.mark.slow
def test_a_server_that_dies_during_a_batch_costs_no_caller_its_values(site: Site) -> None:
    """Values of a batch are returned though the server dies, and none is put back when it is there again."""
    source, cache = Gate("new"), site.cache()
    cache.set("there", "stored")
    leader = in_background(cache.get_or_set_many, ["there", "a", "b"], lambda keys: dict.fromkeys(keys, source()))
    assert source.begun.wait(10)
    follower = in_background(cache.get_or_set_many, ["b", "c"], lambda keys: dict.fromkeys(keys, "the follower's"))
    eventually(lambda: cache.engine.flights.followers(cache.make_key("b")) == 1)
    site.kill()
    source.may_end.set()
    assert leader.result(20) == {"there": "stored", "a": "new", "b": "new"}
    found = follower.result(20)
    assert found["c"] == "the follower's"
    assert found["b"] in {"new", "the follower's"}
    without = cache.get_or_set_many(["a", "d"], lambda keys: dict.fromkeys(keys, "without a server"))
    assert without == {"a": "without a server", "d": "without a server"}
    site.start()
    eventually(lambda: is_back(cache))
    assert cache.get_many(["a", "d"]) == {}
    after = in_background(cache.get_or_set_many, ["a", "d"], lambda keys: dict.fromkeys(keys, "after it"))
    assert after.result(stampede.LEASE_SECONDS + 10) == {"a": "after it", "d": "after it"}
    assert cache.get_many(["a", "d"]) == {"a": "after it", "d": "after it"}


@pytest.mark.slow
def test_a_server_that_dies_during_a_refresh_hangs_nobody(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A stale value is served though the server dies during its refresh, which ends; the next refresh is stored."""
    source, cache = Gate("new"), site.cache()
    options: dict[str, Any] = {"timeout": MOMENT, "stale_while_revalidate": "1h"}
    assert cache.get_or_set("k", lambda: "old", **options) == "old"
    eventually(lambda: not cache.has_key("k"))
    assert cache.get_or_set("k", source, **options) == "old"
    assert source.begun.wait(10)
    site.kill()
    assert cache.get("k", "absent") == "absent"
    with caplog.at_level(logging.ERROR):
        source.may_end.set()
        eventually(lambda: not cache.engine.flights.has_any)
    assert not [record for record in caplog.records if record.exc_info], "a thread has died of it"
    assert cache.get_or_set("k", lambda: "without a server", **options) == "without a server"
    site.start()
    eventually(lambda: is_back(cache))
    assert cache.refresh("k", lambda: "after it", timeout=100) == "after it"
    assert cache.get_or_set("k", lambda: "unused", **options) == "after it"


# A clock that is put right ----------------------------------------------------------------------


@pytest.fixture
def leased(tmp_path: Path) -> Iterator[FileBasedCache]:
    """A cache whose keys other processes compute, too."""
    with engines_of_its_own():
        yield FileBasedCache(str(tmp_path / "cache"), {})


def hold_lease(cache: BaseCache, until: float) -> None:
    """Do as another process would that computes the key "k"."""
    assert cache._lease(cache.make_key("k"), MISSING, placeholder(until), until)


@pytest.mark.parametrize("many", [False, True])
def test_an_interrupt_while_the_lease_is_taken_leaves_none_behind(
    leased: FileBasedCache, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    """A lease that Ctrl-C interrupts just after it was written is given back, so that the next caller need not wait."""

    def get(value: str) -> Any:
        return leased.get_or_set_many(["k"], lambda _: {"k": value}) if many else leased.get_or_set("k", lambda: value)

    hook = "_lease_many" if many else "_lease"

    def interrupted(*args: Any) -> None:
        assert getattr(FileBasedCache, hook)(leased, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(leased, hook, interrupted)
        with pytest.raises(KeyboardInterrupt):
            get("never")
    assert in_background(get, "v").result(10) == ({"k": "v"} if many else "v")


def put_back(clock: FakeClock, seconds: float) -> None:
    """Put the clock back, as FakeClock itself refuses to."""
    clock._now -= seconds


def test_a_clock_that_is_put_back_lets_nobody_wait_until_it_is_there_again(leased: FileBasedCache) -> None:
    """The lease of a dead process, which ends in the future of a clock that was put back, keeps nobody waiting."""
    with FakeClock() as clock:
        hold_lease(leased, timeouts.now() + stampede.LEASE_SECONDS)
        put_back(clock, 3600)
        assert in_background(leased.get_or_set, "k", lambda: "mine").result(10) == "mine"
        assert leased.get("k") == "mine"


def test_a_clock_that_is_put_forward_ends_leases_and_stores_nothing_twice(leased: FileBasedCache) -> None:
    """After the clock was put forward two compute, and the first one's value does not replace the second's."""
    with FakeClock() as clock:

        def slow() -> str:
            clock.advance(3600)
            hold_lease(leased, timeouts.now() + stampede.LEASE_SECONDS)  # by another process, which computes
            leased.set("k", "second")
            return "first"

        assert leased.get_or_set("k", slow) in {"first", "second"}
        assert leased.get("k") == "second"


@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_stale_value_is_refreshed_whatever_the_clock_does(leased: FileBasedCache, step: int) -> None:
    """A stale value is fresh again when the clock is put back, and ends or is refreshed when it is put forward."""
    with FakeClock() as clock:
        options: dict[str, Any] = {"timeout": 60, "stale_while_revalidate": 600}
        assert leased.get_or_set("k", lambda: "old", **options) == "old"
        clock.advance(61)
        if step < 0:
            put_back(clock, -step)
        else:
            clock.advance(step)
        expected = "old" if step < 0 else "new"
        assert leased.get_or_set("k", lambda: "new", **options) == expected
        clock.advance(abs(step))
        eventually(lambda: not leased.engine.flights.has_any)
        assert leased.refresh("k", lambda: "newest", **options) == "newest"
        assert leased.get("k") == "newest"


# A source that fails for ever -------------------------------------------------------------------


def test_a_refresh_that_always_fails_is_tried_now_and_then_and_told_in_the_end(
    leased: FileBasedCache, caplog: pytest.LogCaptureFixture
) -> None:
    """A refresh that fails is tried again after a pause; its error is raised once stale values may not be served."""
    source = Gate(ConnectionError("the source is down"))
    source.may_end.set()
    options: dict[str, Any] = {"timeout": 10, "stale_while_revalidate": 100, "retry_pause": 5}
    with FakeClock() as clock, caplog.at_level(logging.WARNING, "storeroom"):
        assert leased.get_or_set("k", lambda: "old", **options) == "old"
        clock.advance(10)
        for second in range(99):
            for _ in range(3):
                assert leased.get_or_set("k", source, **options) == "old"
            eventually(lambda: not leased.engine.flights.has_any)
            assert source.calls <= second // 5 + 1, "it is left alone for a while after each failure"
            clock.advance(1)
        assert 10 <= source.calls <= 20
        clock.advance(2)
        with pytest.raises(ConnectionError, match="the source is down"):
            leased.get_or_set("k", source, **options)
        assert leased.stats().errors >= 10
        assert leased.get_or_set("k", lambda: "new", **options) == "new"
    assert caplog.records


# Programs that end ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "stored"), [(0.1, "2"), (60, "1")])
def test_a_loop_that_ends_cancels_its_refreshes_and_leaves_the_entry_whole(
    tmp_path: Path, seconds: float, stored: str
) -> None:
    """A refresh ends with its loop: nothing hangs or is printed, and the next program finds a value or computes."""
    program = f"""
import asyncio, sys
from storeroom.backends.filebased import FileBasedCache
cache = FileBasedCache(sys.argv[1], {{}})
options = dict(timeout=1000, early=1e18)
async def compute():
    await asyncio.sleep({seconds})
    return 2
async def main():
    assert await cache.aget_or_set("k", lambda: 1, **options) == 1
    assert await cache.aget_or_set("k", compute, **options) == 1
    await asyncio.sleep(0.5)
asyncio.run(main())
"""
    directory = str(tmp_path / "cache")
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, directory],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    with engines_of_its_own():
        cache = FileBasedCache(directory, {})
        assert str(cache.get("k")) == stored
        assert cache.get_or_set("k", lambda: "unused", timeout=1000, stale_while_revalidate=1) in {1, 2}
        assert not [key for key in cache._scan("") if key != cache.make_key("k")]
