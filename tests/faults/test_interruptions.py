"""Operations that a signal handler's exception cuts short: each has been made, or has not, and all goes on."""

import itertools
import queue
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.connections import Connections
from storeroom.backends.db import DatabaseCache
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.engines import background
from storeroom.exceptions import StorageError
from storeroom.storage.interruptions import raise_if_foreign, raise_met
from storeroom.testing.concurrency import in_background
from storeroom.testing.isolation import engines_of_its_own
from storeroom.transactions import transaction
from tests.cut_short_campaign.processes import counted
from tests.cut_short_campaign.storages import ALIASES
from tests.faults.interrupting import (
    OPERATIONS,
    Interrupted,
    assert_whole,
    by_signal,
    by_thread,
    cut_in,
    cut_short,
    in_a_fork,
    points,
)
from tests.faults.kinds import Site, kinds

_numbers = itertools.count()


def cut_everywhere(cache: Any, most: int, check: Callable[[str], None]) -> None:
    """Cut each operation short, at its points, or at so many of them; look at the cache after each."""
    for name, operation in OPERATIONS.items():
        operation(cache, 0)
        numbers = itertools.count()
        for at in points(lambda: operation(cache, next(numbers)), most):  # noqa: B023 -- it is called at once
            _, where = cut_short(lambda: operation(cache, next(numbers)), at)  # noqa: B023 -- as above
            check(f"{name}, cut short at {where}")


@pytest.mark.parametrize("options", [{"max_entries": 20}, {"max_bytes": 5000}, {"cull_frequency": 3}], ids=str)
def test_local_memory_is_whole_after_any_exception(options: dict[str, Any]) -> None:
    """Wherever a change of local memory is cut short, the next finds entries, queues and sizes in order."""
    with engines_of_its_own():
        cache = LocMemCache(f"interrupted {next(_numbers)}", {"OPTIONS": {"max_entries": 20, **options}})
        for number in range(60):
            cache.set(f"k{number}", number, timeout=30 + number)

        def check(case: str) -> None:
            cache.set(f"new{next(_numbers) % 50}", case)
            cache._check_invariants()
            assert len(cache.keys()) <= 20, case

        cut_everywhere(cache, 40, check)


def test_a_large_map_in_parts_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Likewise where entries move from one dict into many."""
    monkeypatch.setattr("storeroom.eviction.bounded_map.LARGE", 30)
    with engines_of_its_own():
        cache = LocMemCache(f"interrupted {next(_numbers)}", {"OPTIONS": {"max_entries": 45}})
        for number in range(40):
            cache.set(f"k{number}", number)
        for at in itertools.count():
            cut, where = cut_short(lambda: cache.set(f"n{next(_numbers)}", 1), at)
            cache._check_invariants()
            assert len(cache.keys()) == len(cache._bounded.entries), where
            if not cut:
                break


@pytest.mark.parametrize("kind", ["files", "SQLite"])
def test_embedded_storages_are_whole_after_any_exception(kind: str, tmp_path: Path) -> None:
    """Wherever a write is cut short, no transaction stays open and no turn taken: others write at once."""
    with engines_of_its_own():
        options: dict[str, Any] = {"max_entries": 30, "on_error": "raise", "busy_timeout": 0.5}
        if kind == "files":
            cache: Any = FileBasedCache(tmp_path, {"OPTIONS": {"max_entries": 30}})
        else:
            cache = DatabaseCache(f"sqlite:///{tmp_path}/cache.sqlite3", {"OPTIONS": options})

        def check(case: str) -> None:
            if kind == "files":
                turns = cache.engine.turns
                assert repr(turns.threads).startswith("<unlocked"), case
                assert not turns._notes[1], case
            else:
                sessions = filter(None, cache.engine._pool._slots)
                assert not any(session.connection.in_transaction for session in sessions), case
            cache.set("check", case)
            assert cache.get("check") == case
            cache._check_invariants()

        cut_everywhere(cache, 25, check)
        if kind == "SQLite":
            assert_whole(cache.engine._pool)


@pytest.mark.slow
@pytest.mark.filterwarnings(  # PyMySQL's, of a result that is half made
    "ignore:Exception ignored in. <function MySQLResult.__del__:pytest.PytestUnraisableExceptionWarning"
)
def test_servers_get_no_connection_in_mid_command(site: Site) -> None:
    """Wherever an exchange is cut short, no slot is lost, and the next one gets its own reply."""
    cache = site.cache(max_connections=2)
    cache.set("check", "before")
    connections: Connections[Any] = site.connections(cache)

    def check(case: str) -> None:
        assert cache.get("check") == "before", case
        cache.set("checked", case)
        assert cache.get_many(["check", "checked"]) == {"check": "before", "checked": case}

    cut_everywhere(cache, 8, check)
    assert site.failures(cache) == 0
    assert background.drain(10)  # it removes what a transaction that was torn has written
    assert_whole(connections)


#: Files in which Python's code connects, logs in, asks and closes, and at how many of their instructions to raise.
DRIVERS = {"postgresql": (r"/psycopg/conninfo\.py$", 80)}
OTHERS = r"/(pymysql|pymemcache|redis|pylibmc)/|/(socket|pymemcache_client|mysql)\.py$", 40


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of objects that are half made
def test_no_driver_keeps_an_exception_to_itself(site: Site, kind: str) -> None:
    """Wherever a signal's handler raises while a driver connects, asks and closes, the exception comes out."""
    cache = site.cache(max_connections=2)
    cache.set("check", "before")
    connections: Connections[Any] = site.connections(cache)

    def operation() -> None:
        cache.set("k", 1)
        connections.close()

    files, most = DRIVERS.get(kind, OTHERS)
    connections.close()
    count = cut_in(files, operation, sys.maxsize)
    for at in range(0, count, max(1, count // most)):
        connections.close()
        cut_in(files, operation, at)
        assert cache.get("check") == "before", at
    assert site.failures(cache) == 0
    assert_whole(connections)


def test_an_exception_of_an_outer_caller_is_not_met_by_a_driver() -> None:
    """An error that comes while a program handles a limit's exception is no other for that."""

    def limit(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGINT, limit)
    try:
        try:
            by_signal()
        except Interrupted:
            with pytest.raises(StorageError):
                raise_met_by(StorageError("refused"))
        with pytest.raises(Interrupted):
            raise_met_by(None)
    finally:
        signal.signal(signal.SIGINT, before)


def raise_met_by(error: Exception | None) -> None:
    """Raise an error as a driver does: of its own, or of what it has met."""

    def connect() -> None:
        if error is not None:
            raise error
        try:
            by_signal()
        except Interrupted:
            raise StorageError("bad value") from None

    try:
        connect()
    except StorageError as found:
        raise_met(found)
        raise


def test_an_error_of_pythons_own_modules_is_the_functions() -> None:
    """An error that C raises without arguments, as of a queue that is empty, is served for by the stale value."""
    with engines_of_its_own():
        cache = LocMemCache(f"interrupted {next(_numbers)}", {})
        cache.get_or_set("k", lambda: "old", timeout=0.001, stale_if_error=600)
        time.sleep(0.002)
        assert cache.get_or_set("k", queue.SimpleQueue().get_nowait, timeout=600, stale_if_error=600) == "old"


@pytest.mark.slow
@kinds("redis", "pymemcache", "postgresql", "mariadb")
def test_timeouts_of_gevent_leave_all_in_order(site: Site, kind: str) -> None:
    """Greenlets whose timeouts end operations in the midst leave no connection, no lease and no lock behind."""
    job = "mixed", "all operations", "gevent", 60
    counts, complaint = counted(job, ALIASES[kind](site.server), seed=1)
    assert not complaint
    assert (counts.cut >= 60, counts.left, counts.wrong, dict(counts.errors)) == (True, 0, 0, {})


def test_what_was_committed_is_in_the_cache_or_absent() -> None:
    """Wherever the application of a transaction's writes is cut short, no old value outlives it."""
    with engines_of_its_own():
        cache = LocMemCache(f"interrupted {next(_numbers)}", {})
        ended = []

        def unit() -> None:
            with transaction():
                cache.set_many({"a": "new", "b": "new"})
                cache.delete("c")
                cache.incr("n")
                ended.append(True)

        for at in itertools.count():
            assert background.drain(10)  # it removes what the unit before, which was torn, has written
            cache.set_many({"a": "old", "b": "old", "c": "old", "n": 1})
            ended.clear()
            cut, where = cut_short(unit, at)
            found = cache.get_many(["a", "b", "c", "n"])
            is_applied = not {"old"} & set(found.values()) and found.get("n") in {2, None}
            # Nothing of Storeroom's runs before its own __exit__() has begun.
            assert is_applied or not ended or where.endswith(("__exit__ call", "unit c_return")), where
            if not cut:
                break


def hold(cache: Any, key: str) -> None:
    with cache.lock(key, timeout=600):
        pass


COMPUTING: dict[str, Callable[[Any, str], object]] = {
    "get_or_set": lambda cache, key: cache.get_or_set(key, lambda: "value", 600),
    "get_or_set_many": lambda cache, key: cache.get_or_set_many([key], lambda keys: dict.fromkeys(keys, "value"), 600),
    "refresh": lambda cache, key: (cache.set(key, "old", 600), cache.refresh(key, lambda: "value", 600)),
    "lock": hold,
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of generators entered by no handler
@pytest.mark.parametrize("operation", COMPUTING)
@pytest.mark.parametrize("comes", [by_signal, by_thread])
def test_no_exception_is_taken_for_the_storages_or_the_functions(
    comes: Callable[[], None], operation: str, tmp_path: Path
) -> None:
    """An exception of a handler's, or that another thread sets, comes out anywhere, and leaves no lease and no lock."""
    in_a_fork(lambda: cut_computing(comes, operation, tmp_path))


def cut_computing(comes: Callable[[], None], operation: str, tmp_path: Path) -> None:
    """Cut an operation short, at each of its points."""
    with engines_of_its_own():
        cache, call = FileBasedCache(tmp_path, {}), COMPUTING[operation]
        call(cache, "warm")
        for at in points(lambda: call(cache, "counted"), 150):
            key = f"k{at}"
            _, where = cut_short(lambda: call(cache, key), at, comes)  # noqa: B023 -- it is called at once
            if operation == "lock":
                assert cache.lock(key, timeout=600).acquire(blocking_timeout=2), where
            else:
                future = in_background(cache.get_or_set, key, lambda: "value")
                wait([future], 4)  # a lease that was left behind would end after five seconds
                assert future.done(), where
                assert future.result() in {"value", "old"}, where


@pytest.mark.parametrize("comes", [by_signal, by_thread])
@pytest.mark.parametrize("options", [{"stale_if_error": 600}, {"error_timeout": 600}], ids=str)
def test_an_exception_within_a_computation_is_no_error_of_its(
    comes: Callable[[], None], options: dict[str, Any]
) -> None:
    """It reaches the caller in place of a stale value, and is not raised again: the next caller computes."""
    in_a_fork(lambda: cut_a_computation(comes, options))


def cut_a_computation(comes: Callable[[], None], options: dict[str, Any]) -> None:
    """Let an exception come within a computation."""

    def compute() -> str:
        comes()
        return "".join(str(number) for number in range(100))

    def interrupt(*_: object) -> None:
        raise Interrupted

    with engines_of_its_own():
        cache = LocMemCache(f"interrupted {next(_numbers)}", {})
        cache.get_or_set("k", lambda: "old", timeout=0.001, **options)
        time.sleep(0.002)
        before = signal.signal(signal.SIGINT, interrupt)
        try:
            with pytest.raises(Interrupted):
                cache.get_or_set("k", compute, timeout=600, **options)
        finally:
            signal.signal(signal.SIGINT, before)
        assert cache.get_or_set("k", lambda: "new", timeout=600, **options) == "new"


class Slow:
    """A value whose pickling and unpickling run code of its own."""

    def __reduce__(self) -> Any:
        return _made, (sum(range(50)),)


def _made(_: int) -> Slow:
    return Slow()


@pytest.mark.parametrize("kind", ["memory", "files", "unsigned SQLite"])
def test_an_exception_within_pickling_reaches_the_caller(kind: str, tmp_path: Path) -> None:
    """A signal's handler that raises while a value is pickled or read is not taken for an unreadable value."""
    with engines_of_its_own():
        if kind == "memory":
            cache: Any = LocMemCache(f"interrupted {next(_numbers)}", {})
        elif kind == "files":
            cache = FileBasedCache(tmp_path, {})
        else:
            allowed = {"allowed_types": [Slow], "on_error": "raise"}
            cache = DatabaseCache(f"sqlite:///{tmp_path}/cache.sqlite3", {"OPTIONS": allowed})

        def work() -> None:
            cache.set("k", [Slow()])
            cache.get("k")
            cache.get_many(["k"])
            cache.get_or_set("k", list)

        work()
        for at in itertools.count():
            if not cut_short(work, at)[0]:  # which asserts that the exception came out
                break
            assert cache.get("k") is not None
        assert cache.stats().errors == 0


def test_an_exception_that_another_thread_sets_is_told_by_trying_again() -> None:
    """An error in bytes that can be read, by no statement of the value's own, is the caller's; others are a miss."""
    calls: list[int] = []

    def read(fails: int, error: type[Exception]) -> None:
        calls.append(1)
        if len(calls) <= fails:
            next(iter(()), None)
            {}[error]

    for fails, is_foreign in ((1, True), (2, False)):
        calls.clear()
        try:
            read(fails, ValueError)
        except KeyError as error:
            if is_foreign:
                with pytest.raises(KeyError):
                    raise_if_foreign(error, read, fails, ValueError)
            else:
                raise_if_foreign(error, read, fails, ValueError)
