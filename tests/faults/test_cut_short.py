"""Callers that are cut short: cancelled once, at every await, by anyio, or interrupted by an exception.

Each test is a sample of a row of ``make interrupted``, which counts by thousands.
"""

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from storeroom.backends.db import DatabaseCache
from storeroom.backends.filebased import FileBasedCache
from storeroom.base import BaseCache
from storeroom.computing import renewals, stampede, whole
from storeroom.engines import background
from storeroom.exceptions import ComputationTimeoutError
from storeroom.storage.steps import Steps
from storeroom.testing.concurrency import PATIENCE, chance_of, eventually, in_background
from storeroom.testing.isolation import engines_of_its_own
from tests.cut_short_campaign.cancelling import AWAITED, WAYS, cancel
from tests.cut_short_campaign.counts import Counts
from tests.cut_short_campaign.raising import CALLED, interrupt
from tests.faults.interrupting import in_a_fork
from tests.faults.kinds import Site, kinds

#: Seconds within which the next caller is served: less than a lease that was left lasts, and no test of speed.
PROMPT = stampede.LEASE_SECONDS - 0.5

#: Cuts of each operation, in each way: of tasks all at once, of threads one after the other.
TASKS, THREADS = 8, 15

#: Python gives nobody an exception that comes within the callback of a weak reference.
MAY_BE_DROPPED = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

#: The ways to cancel but the plain one "for good", which the contract has, and anyio's are.
SOME_WAYS = [way for way in WAYS if way != "for good"]


def assert_nothing_left(counts: Counts) -> None:
    assert counts.longest < PROMPT, counts
    assert (counts.left, counts.wrong, dict(counts.errors)) == (0, 0, {})


def cancel_some(cache: BaseCache, operation: str, way: str) -> None:
    assert_nothing_left(asyncio.run(cancel(cache, operation, way, TASKS, chance_of(1), lambda _: None)))


def interrupt_some(cache: BaseCache, operation: str) -> None:
    before = sys.getswitchinterval()
    try:
        assert_nothing_left(interrupt(cache, operation, "thread", THREADS, chance_of(2), lambda _: None))
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("way", SOME_WAYS)
@pytest.mark.parametrize("operation", AWAITED)
def test_a_task_that_is_cancelled_leaves_no_lease_and_no_lock(site: Site, operation: str, way: str) -> None:
    """Cancelled at any turn or moment, at every await from then on, or by anyio, a task keeps nobody waiting."""
    cancel_some(site.cache(), operation, way)


@MAY_BE_DROPPED
@kinds("redis")
@pytest.mark.parametrize("operation", CALLED)
def test_a_thread_that_is_interrupted_leaves_no_lease_and_no_lock(site: Site, operation: str) -> None:
    """An exception at any moment of a synchronous operation keeps nobody waiting: on servers."""
    in_a_fork(lambda: interrupt_some(site.cache(), operation))


@pytest.fixture(params=["file", "sqlite"])
def embedded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseCache]:
    """A cache without a server that other processes see."""
    with engines_of_its_own():
        if request.param == "file":
            yield FileBasedCache(str(tmp_path / "cache"), {})
        else:
            yield DatabaseCache("cached", {"OPTIONS": {"url": f"sqlite:///{tmp_path}/cache.sqlite3"}})


@pytest.mark.parametrize("way", SOME_WAYS)
@pytest.mark.parametrize("operation", AWAITED)
def test_a_task_that_is_cancelled_leaves_no_lease_and_no_lock_embedded(
    embedded: BaseCache, operation: str, way: str
) -> None:
    """The same without a server."""
    cancel_some(embedded, operation, way)


@MAY_BE_DROPPED
@pytest.mark.parametrize("operation", CALLED)
def test_a_thread_that_is_interrupted_leaves_no_lease_and_no_lock_embedded(embedded: BaseCache, operation: str) -> None:
    """An exception at any moment of a synchronous operation keeps nobody waiting: without a server."""
    in_a_fork(lambda: interrupt_some(embedded, operation))


def test_looks_for_a_change_that_may_yet_come_hold_nobody_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A lock is given back while more callers than there are threads were cut short, and are still being looked for."""
    monkeypatch.setattr(whole, "_LOOKS", (0.0, 600.0))
    monkeypatch.setattr(background, "PATIENCE_SECONDS", 600.0)
    monkeypatch.setattr(background, "_workers", background._Workers())
    looks: list[int] = []

    def nothing_there() -> Steps[bool]:
        looks.append(1)
        return False
        yield  # it has steps, none of which is made

    with engines_of_its_own():
        cache, many = FileBasedCache(str(tmp_path / "cache"), {}), 2 * background.MAX_WORKERS
        for _ in range(many):
            whole.look_again(nothing_there)
        torn = cache.lock("k", timeout=600)
        assert torn.acquire()
        assert torn._owned
        whole.look_again(partial(torn._withdrawing, torn._owned))
        assert cache.lock("k", timeout=600).acquire(blocking_timeout=PATIENCE)
        eventually(lambda: len(looks) == many)
        background._close()  # the second look comes before the process ends
        assert len(looks) == 2 * many


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="here a newborn thread has a number of its own")
def test_a_newborn_thread_that_gets_its_parents_exception_holds_nobody_up(
    embedded: BaseCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a thread of the package dies at its first instruction, its parent goes on, and the next one is started."""
    bootstrap, born = threading.Thread._bootstrap, list[str]()  # type: ignore[attr-defined]

    def die_once(thread: threading.Thread) -> None:
        if thread.name.startswith("storeroom-") and thread.name not in born:
            born.append(thread.name)
        else:
            bootstrap(thread)

    def works() -> bool:
        return embedded.get_or_set("later", lambda: "value", hard_timeout=PATIENCE) == "value"

    monkeypatch.setattr(threading.Thread, "_bootstrap", die_once)
    monkeypatch.setattr(background, "_workers", background._Workers())
    monkeypatch.setattr(renewals, "_renewals", renewals._Renewals())
    assert in_background(embedded.refresh, "k", lambda: "value").result(PATIENCE) == "value"
    with suppress(ComputationTimeoutError):  # its thread may be born to die
        in_background(embedded.get_or_set, "l", lambda: "value", hard_timeout=1).result(PATIENCE)
    assert in_background(works).result(PATIENCE)
    eventually(lambda: renewals._renewals._has_thread)
    assert set(born) == {"storeroom-leases", "storeroom-background"}
    background._close()
