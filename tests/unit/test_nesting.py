"""Operations in the midst of another one of the same thread, as a finalizer or a signal's handler makes them."""

import asyncio
import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from uuid import uuid4

import pytest

from storeroom import locks
from storeroom.backends.db import DatabaseCache
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.base import BaseCache
from storeroom.engines import background, nesting
from storeroom.engines.flights import Flights, Role, Wait
from storeroom.engines.nesting import Alone, OneByThread
from storeroom.exceptions import KeyNotFoundError, ReentrantUseError, SerializationError, StorageError
from storeroom.near import NearTable, Tolerance
from storeroom.storage.hooks import MISSING
from storeroom.testing.contract.suite import Suite
from storeroom.testing.processes import Child
from storeroom.timeouts import NEVER


class Midst(NamedTuple):
    """A cache, and a function that does work while this thread is in the midst of an operation on its storage."""

    cache: BaseCache
    within: Callable[[Callable[[], Any]], Any]


@pytest.fixture(params=["memory", "memory, bounded", "files", "sqlite"])
def midst(request: pytest.FixtureRequest, tmp_path: Path) -> Midst:
    if request.param == "sqlite":
        database = DatabaseCache("cache", {"OPTIONS": {"url": f"sqlite:///{tmp_path}/cache.db"}})
        database.set("warm", 1)

        def written(work: Callable[[], Any]) -> Any:
            with database._engine._writer:
                return database._engine._by_thread.do(work)

        return Midst(database, written)
    if request.param == "files":
        files = FileBasedCache(str(tmp_path), {})
        files.set("warm", 1)

        def in_turn(work: Callable[[], Any]) -> Any:
            with files._engine.turns.taken():
                return work()

        return Midst(files, in_turn)
    memory = LocMemCache(uuid4().hex, {"OPTIONS": {"max_bytes": 10**6} if "bounded" in request.param else {}})

    def locked(work: Callable[[], Any]) -> Any:
        with memory._engine.lock, memory._engine.alone:
            return work()

    return Midst(memory, locked)


def _do(cache: BaseCache, mode: str, operation: str, *args: Any, **kwargs: Any) -> Any:
    if mode == "sync" or isinstance(cache, DatabaseCache):  # whose twins run in another thread, for which it would wait
        return getattr(cache, operation)(*args, **kwargs)
    return asyncio.run(getattr(cache, f"a{operation}")(*args, **kwargs))


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize(
    ("operation", "args", "key", "left"),
    [
        ("set", ("k", [2]), "k", [2]),
        ("set", ("new", [2]), "new", [2]),
        ("set", ("k", 2), "k", 2),
        ("set_many", ({"k": [3], "new": 4},), "k", [3]),
        ("delete", ("k",), "k", None),
        ("delete_many", (["k"],), "k", None),
        ("clear", (), "k", None),
        ("invalidate_tags", ("tag",), "tagged", None),
        ("set", ("k", 2, 0), "k", None),
    ],
)
def test_a_write_is_made_a_moment_later(
    midst: Midst, mode: str, operation: str, args: tuple[Any, ...], key: str, left: Any
) -> None:
    """Until the operation around it has ended, nothing is changed; then the write is."""
    cache = midst.cache
    cache.set("k", [1])
    cache.set("tagged", [1], tags=["tag"])
    before = cache.get(key)

    def work() -> None:
        _do(cache, mode, operation, *args)
        assert cache.get(key) == before

    midst.within(work)
    assert background.drain()
    assert cache.get(key) == left


def test_tags_and_touch_are_for_later_too(midst: Midst) -> None:
    """Values with tags are stored, and their timeouts changed, as any others."""
    cache = midst.cache
    cache.set("tagged", 1, tags=["tag"], timeout=50)
    cache.set("plain", 1, timeout=50)

    def work() -> None:
        cache.set("one", [1], tags=["tag", "other"])
        cache.set_many({"two": [2]}, tags=(name for name in ["tag"]))
        cache.touch("tagged", 5000)
        cache.touch("plain", 5000)

    midst.within(work)
    assert background.drain()
    assert cache.get_many(["one", "two"]) == {"one": [1], "two": [2]}
    assert min(cache.ttl("tagged") or 0, cache.ttl("plain") or 0) > 1000
    cache.invalidate_tags("tag")
    assert cache.get_many(["one", "two", "tagged"]) == {}


def test_a_value_is_copied_at_once(midst: Midst) -> None:
    """The value is as it was when it was set, and a wrong one is refused there."""
    value = [1]

    def work() -> None:
        midst.cache.set("k", value)
        value.append(2)
        with pytest.raises(SerializationError):
            midst.cache.set("wrong", threading.Lock())

    midst.within(work)
    assert background.drain()
    assert midst.cache.get("k") == [1]


def test_writes_keep_their_order(midst: Midst) -> None:
    """Of many writes of a key, the last one is left."""

    def work() -> None:
        for number in range(50):
            midst.cache.set("k", number)
            midst.cache.set_many({"l": number})

    midst.within(work)
    assert background.drain()
    assert midst.cache.get_many(["k", "l"]) == {"k": 49, "l": 49}


def test_an_answer_that_is_needed_is_an_error(midst: Midst) -> None:
    """Operations whose result matters raise at once, and say why; nothing is changed."""
    cache = midst.cache
    cache.set_many({"n": 1, "k": 1})
    lock = cache.lock("l", timeout=5)

    def work() -> None:
        for operation in (
            lambda: cache.add("new", 1),
            lambda: cache.incr("n"),
            lambda: cache.incr("m", default=1),
            lambda: cache.incr_version("k"),
            lambda: lock.acquire(blocking=False),
        ):
            with pytest.raises(ReentrantUseError, match="finalizer"):
                operation()

    midst.within(work)
    assert cache.get_many(["n", "k", "new", "m"]) == {"n": 1, "k": 1}
    assert lock.acquire(blocking=False)
    lock.release()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_computation_is_made_and_returned(midst: Midst, mode: str) -> None:
    """get_or_set() computes for its caller; a value that is stored is returned."""
    cache = midst.cache
    cache.set("k", 1)

    def work() -> None:
        assert _do(cache, mode, "get_or_set", "k", lambda: 2) == 1
        assert _do(cache, mode, "get_or_set", "new", lambda: 3) == 3
        assert _do(cache, mode, "get_or_set_many", ["k", "n1"], lambda keys: dict.fromkeys(keys, 4)) == {
            "k": 1,
            "n1": 4,
        }

    midst.within(work)
    assert cache.get_or_set("new", lambda: 5) in {3, 5}


def test_a_computation_of_another_thread_is_not_waited_for(midst: Midst) -> None:
    """Its leader may have to wait for the operation that is under way here."""
    cache = midst.cache
    leader = threading.Thread(target=cache.get_or_set, args=("slow", lambda: 1))

    def work() -> None:
        leader.start()
        before = time.monotonic()
        while not cache._engine.flights.has_any and time.monotonic() < before + 10:  # type: ignore[attr-defined]
            time.sleep(0.001)
        before = time.monotonic()
        assert cache.get_or_set("slow", lambda: 2) in {1, 2}
        assert time.monotonic() - before < 1

    midst.within(work)
    leader.join(10)
    assert cache.get_or_set("slow", lambda: 3) in {1, 2}


def test_a_thread_that_holds_a_lock_of_ours_waits_for_nobody() -> None:
    """Whatever it is in the midst of: another cache's steps as well."""
    flights, role, parts = Flights(), list[Role](), list[str]()
    thread = threading.Thread(target=lambda: role.append(flights.join(["k"], Wait(), blocking=True)))
    thread.start()
    thread.join()
    by_thread = OneByThread()
    for within in (LocMemCache(uuid4().hex, {})._engine.lock, locks.reentrant()):
        assert not locks.holds_any()
        with within:
            assert locks.holds_any()
            parts.append(copy_context().run(flights.join, ["k"], Wait(), blocking=True).part)
    parts.append(by_thread.do(lambda: flights.join(["k"], Wait(), blocking=True)).part)
    assert parts == ["alone"] * 3
    follower = flights.join(["k"], Wait(), blocking=True)
    assert follower.part == "follows"
    follower.wait.is_over = True
    flights.land(role[0].flight, StorageError())


def test_a_near_tier_learns_of_a_write_that_is_made_later(tmp_path: Path) -> None:
    """It keeps no value from before the write."""
    cache = FileBasedCache(str(tmp_path), {"OPTIONS": {"near": True}})
    cache.set("k", 1)
    with cache._engine.turns.taken():
        cache.set("k", 2)
        assert cache.get("k") == 1
    assert background.drain()
    assert cache.get("k") == 2


@pytest.mark.parametrize("change", ["set", "delete", "clear"])
def test_a_read_by_a_near_tier_goes_on_whatever_changes_meanwhile(change: str, tmp_path: Path) -> None:
    """Wherever a finalizer changes the key that is read, the read goes on, and the tier keeps no older value."""
    cache = FileBasedCache(str(tmp_path), {"OPTIONS": {"near": True}})
    changes = {"set": lambda: cache.set("k", "new"), "delete": lambda: cache.delete("k"), "clear": cache.clear}

    def read() -> object:
        return cache.get_many(["k", "l"])

    cut = 0
    for at in range(1000):
        cache.set_many({"k": "old", "l": "old"})
        left = at

        def look(_frame: object, event: str, argument: object) -> None:
            nonlocal left
            if event in {"call", "c_return"} and argument is not sys.setprofile:
                left -= 1
                if left < 0:
                    sys.setprofile(None)
                    changes[change]()

        sys.setprofile(look)
        try:
            read()
        finally:
            sys.setprofile(None)
        if left >= 0:
            break
        cut += 1
        assert background.drain()
        assert cache.get("k", None) == ("new" if change == "set" else None), at
    assert cut > 50


def test_a_near_table_is_changed_later_in_its_own_midst() -> None:
    """An entry that has changed is dropped as soon as that can be done, and nothing is kept meanwhile."""
    table = NearTable(Tolerance(100, None, None, copy=True, max_staleness=1.0, max_tags=50))
    ticket = table.begin(["k", "l"])
    table.fill(ticket, {"k": (1, NEVER)})
    with table.lock, table.alone:
        table.fill(ticket, {"l": (2, NEVER)})
        table.drop(["k"])
        table.drop_all()
    table.end(ticket)
    assert background.drain()
    assert [table.get("k"), table.get("l")] == [MISSING, MISSING]
    table.check_invariants()


def test_a_flight_of_ones_own_thread_is_not_followed() -> None:
    """Between two steps of a computation its own thread asks for the key, and computes alone: a wait would not end."""
    flights = Flights()
    role = flights.join(["k"], Wait(), blocking=True, flies=True)
    assert copy_context().run(flights.join, ["k"], Wait(), blocking=True).part == "alone"
    parts: list[str] = []

    def other() -> None:
        follower = flights.join(["k"], Wait(), blocking=True)
        parts.append(follower.part)
        follower.wait.is_over = True

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert parts == ["follows"]
    flights.land(role.flight, StorageError())


class _Cut(BaseException):
    """What a signal's handler may raise."""


def test_work_that_was_cut_short_is_in_nobodys_way() -> None:
    """A note that an exception has left behind is told from work that is under way."""
    lock = threading.RLock()
    alone = Alone(lock)
    with lock:
        alone.__enter__()  # and never left
    with lock, alone:
        assert alone.is_under_way
        with pytest.raises(ReentrantUseError), lock, alone:
            pass
    assert not alone.is_under_way
    by_thread = OneByThread()

    def cut() -> None:
        raise _Cut

    with suppress(_Cut):
        by_thread.do(cut)
    assert by_thread.do(int) == 0
    with pytest.raises(ReentrantUseError):
        by_thread.do(by_thread.do, int)
    assert by_thread.do(int) == 0


def test_a_job_that_fails_keeps_no_other_from_being_done(caplog: pytest.LogCaptureFixture) -> None:
    """Its error is logged."""
    done: list[int] = []

    def fail() -> None:
        raise StorageError

    with ExitStack() as stack:
        stack.enter_context(nesting._turn)
        nesting.later(fail)
        nesting.later(lambda: done.append(1))
    nesting.later(lambda: done.append(2))
    assert background.drain()
    assert done == [1, 2]
    assert "failed" in caplog.text


def test_where_no_thread_can_be_had_a_write_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the process a write that cannot be made is told, and not forgotten silently."""
    monkeypatch.setattr(background, "submit", lambda *_: False)
    cache = LocMemCache(uuid4().hex, {})
    with cache._engine.lock, cache._engine.alone, pytest.raises(ReentrantUseError):
        cache.set("k", 1)
    assert not nesting._jobs


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_jobs_of_a_parent_are_not_done_in_a_child() -> None:
    """A child begins without the jobs, and without the turn, of its parent."""
    with nesting._turn:
        nesting._jobs.append(int)
        child = os.fork()
        if not child:
            os._exit(len(nesting._jobs) + nesting._turn.locked())
        nesting._jobs.clear()
    assert os.waitpid(child, 0)[1] == 0


class _Circle:
    cache: ClassVar[BaseCache | None] = None
    runs: ClassVar[int] = 0

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        if (cache := _Circle.cache) is not None:
            _Circle.runs += 1
            copy_context().run(_use, cache, _Circle.runs)


def _use(cache: BaseCache, number: int) -> None:
    cache.set(f"own{number % 5}", [number])
    cache.get("k1")
    cache.delete(f"k{number % 7}")
    cache.get_or_set(f"g{number % 9}", lambda: [number])


def sweep(cache: BaseCache, pipe: Any) -> int:
    """Let the collector run at each object that an operation makes, of those that are made under a lock among them."""
    _Circle.cache = cache
    operations: dict[str, Callable[[int], Any]] = {
        "set": lambda number: cache.set(f"k{number % 40}", [number]),
        "set with tags": lambda number: cache.set(f"t{number % 9}", number, tags=["a"]),
        "set_many": lambda number: cache.set_many({f"k{number % 40}": number, f"m{number}": [1]}),
        "add": lambda number: cache.add(f"a{number % 30}", [1]),
        "incr": lambda number: cache.incr(f"n{number % 3}", default=0),
        "get_or_set": lambda number: cache.get_or_set(f"g{number % 9}", lambda: [number]),
        "touch": lambda number: cache.touch(f"k{number % 40}", 50),
        "delete_many": lambda number: cache.delete_many([f"k{number % 40}", f"a{number % 30}"]),
        "prune": lambda _: cache.prune(),
        "keys": lambda _: list(cache.keys()),
    }
    for name, operation in operations.items():
        pipe.send(name)
        for moment in range(1, 91):
            gc.set_threshold(0)
            _Circle()
            gc.set_threshold(moment, 1000, 1000)
            with suppress(KeyNotFoundError, ReentrantUseError):
                operation(moment)
    gc.set_threshold(0)
    gc.collect()
    _Circle.cache = None
    assert background.drain()
    cache._check_invariants()  # type: ignore[attr-defined]
    cache.set("k", 7)
    assert cache.get("k") == 7
    return _Circle.runs


class _Memory(Suite):
    def make_cache(self, location: str, params: Any) -> BaseCache:
        return LocMemCache(location, params)


class _Files(Suite):
    def make_cache(self, location: str, params: Any) -> BaseCache:
        return FileBasedCache(location, params)


@pytest.mark.slow
@pytest.mark.parametrize("suite", [_Memory, _Files])
@pytest.mark.parametrize("options", [{"max_entries": 30}, {"max_bytes": 9000}])
def test_the_collector_may_run_at_each_object(suite: type[Suite], options: dict[str, int], tmp_path: Path) -> None:
    """A finalizer that uses the cache, at whatever object the collector looks for garbage: nothing hangs or is torn."""
    # Of 900: some come within another one, or while a thread of the background has the turn.
    assert Child(suite, str(tmp_path), {"OPTIONS": options}, sweep, talks=True).told(20) >= 500
