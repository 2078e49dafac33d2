"""Nobody waits for long at a database: large tasks go in small transactions, and others get in between."""

import itertools
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from storeroom import timeouts
from storeroom.backends.db import DatabaseCache, comparing, transaction
from storeroom.backends.db.clearing import STEP
from storeroom.backends.db.comparing import _STEP_BYTES, _STEP_ROWS
from storeroom.backends.db.engine import _NOTES, _RENEWED, DatabaseEngine
from storeroom.backends.db.errors import FullError
from storeroom.backends.db.rows import ROW_BYTES, name_of
from storeroom.backends.db.transaction import _BATCH, Transaction
from storeroom.computing import stampede
from storeroom.storage.hooks import MISSING
from storeroom.testing.concurrency import eventually, in_background
from storeroom.testing.isolation import engines_of_its_own
from tests.servers.databases import kind, mariadb, new_table, postgresql

__all__ = ["kind", "mariadb", "new_table", "postgresql"]

Make: TypeAlias = Callable[..., DatabaseCache]

ROWS = 5 * STEP


@pytest.fixture
def make(kind: str, new_table: Callable[[str], tuple[str, str]]) -> Iterator[Make]:
    """Make caches on one new table; each number is an engine of its own, as another process has it."""
    url, table = new_table(kind)

    def make(number: int, **options: Any) -> DatabaseCache:
        settings = {"url": url, "socket_timeout": 20, "max_connections": 2 + number, "max_entries": None, **options}
        return DatabaseCache(table, {"TIMEOUT": None, "OPTIONS": settings})

    with engines_of_its_own():
        yield make


@pytest.fixture
def filled(make: Make) -> DatabaseCache:
    """A cache of ROWS entries, k000 to the last."""
    cache = make(0)
    cache.set_many({f"k{number:03}": f"old {number}" for number in range(ROWS)})
    return cache


LAST = f"k{ROWS - 1:03}"


class Watched:
    """A session that calls a function after each transaction."""

    def __init__(self, session: Any, look: Callable[[], object]) -> None:
        self._session, self._look = session, look

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def execute(self, statement: str, parameters: Any = ()) -> Any:
        result = self._session.execute(statement, parameters)
        if statement == "COMMIT":
            self._look()
        return result


def after_each_transaction(cache: DatabaseCache, look: Callable[[], object]) -> None:
    """Call a function after each transaction of a cache."""
    engine = cache._engine
    engine._pool.give(Watched(engine._take(), look))


def once_within_clear(cache: DatabaseCache, act: Callable[[], object]) -> None:
    """Clear a cache, and have somebody act once after its first step has removed rows."""
    turns = iter([lambda: None, act])  # the first transaction finds out which rows are there

    def look() -> None:
        for turn in itertools.islice(turns, 1):
            turn()

    after_each_transaction(cache, look)
    cache.clear()
    assert next(turns, None) is None, "there was a step"


# clear() and prune() --------------------------------------------------------------------------


def test_clear_goes_step_by_step_and_keeps_what_others_write(make: Make, filled: DatabaseCache) -> None:
    """Others see a clear advance by small steps, write in between, and lose nothing that they have written."""
    other, seen = make(1), list[int]()

    def look() -> None:
        number = len(seen)
        seen.append(sum(key.startswith("k") and key != LAST for key in other.keys()))  # noqa: SIM118 -- no dict
        other.set(f"new{number}", number)
        other.set(LAST, number)

    after_each_transaction(filled, look)
    filled.clear()
    assert max(before - after for before, after in itertools.pairwise(seen)) <= STEP
    assert len(seen) > ROWS // STEP
    assert seen[-1] == 0
    expected = {f"new{number}": number for number in range(len(seen))} | {LAST: len(seen) - 1}
    assert {key: other.get(key) for key in other.keys()} == expected  # noqa: SIM118 -- no dict
    other._check_invariants()


def test_clear_removes_entries_of_a_host_whose_clock_is_ahead(
    make: Make, filled: DatabaseCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that was there before is gone after a clear, whatever the clock of its writer says."""
    with monkeypatch.context() as ahead:
        ahead.setattr(transaction, "_position", lambda: 2**55)
        filled.set("k500", "ahead")
        filled.set("new", "ahead")
    make(1).clear()
    assert list(filled.keys()) == []


def test_clear_is_not_escaped_by_an_entry_that_is_read(make: Make, filled: DatabaseCache) -> None:
    """An entry whose reading is written down while a clear runs is removed."""
    other = make(1, max_entries=2 * ROWS)
    names = [name_of(other._storage_key(LAST, None))]
    once_within_clear(filled, lambda: other._write(Transaction.renew, names))
    assert list(other.keys()) == []


def test_reading_is_written_down_when_no_clear_runs_any_more(
    make: Make, filled: DatabaseCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notice of a clear ends by itself, and entries that are read stay longest again."""
    monkeypatch.setattr(transaction, "NOTICE_SECONDS", 0.0)
    filled.clear()
    cache = make(1, max_entries=3)
    for key in "abc":
        cache.set(key, key)
    assert cache.get("a") == "a"
    cache.set("d", "d")
    assert sorted(cache.keys()) == ["a", "c", "d"]


def test_clear_is_not_escaped_by_an_entry_that_is_changed(make: Make) -> None:
    """An entry that is moved, counted up or touched while a clear runs is removed under all its keys."""
    cache, other = make(0), make(1)
    cache.set_many({f"k{number:03}": 1 for number in range(2 * STEP)})
    cache.set_many({"z moved": 1, "z sum": 1, "z fraction": 1.5, "z touched": 1})
    cache.set("z touched with a tag", 1, tags=["t"])

    def change() -> None:
        assert other.incr_version("z moved") == 2
        assert other.incr("z sum") == 2
        assert other.incr("z fraction") == 2.5
        assert other.touch("z touched", 1000) is True
        assert other.touch("z touched with a tag", 1000) is False, "tags are removed first"

    once_within_clear(cache, change)
    assert [key for version in range(3) for key in other.keys(version=version)] == []


def test_clear_removes_a_lease_before_its_moment(make: Make, filled: DatabaseCache) -> None:
    """A computation that is under way when a clear begins stores nothing into the cleared cache."""
    other = make(1)

    def compute() -> str:
        filled.clear()
        return "of before"

    assert other.get_or_set("computed", compute) == "of before"
    assert list(other.keys()) == []
    assert other.get_or_set("computed", lambda: "of now") == "of now"
    assert other.get("computed") == "of now"


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"], indirect=True)
def test_clear_waits_for_a_locked_row_last_and_alone(make: Make, filled: DatabaseCache) -> None:
    """A row that another transaction has locked is passed over, and removed when it is free: no deadlock."""
    other, third = make(1), make(2)
    engine = other._engine
    session = engine._take()
    session.execute("BEGIN", ())
    session.execute(engine.statements.lock_any, (name_of(other._storage_key("k000", None)),))
    clearing = in_background(filled.clear)
    eventually(lambda: not third.has_key("k001"))
    assert third.has_key("k000")
    session.execute("COMMIT", ())
    engine._pool.give(session)
    clearing.result(20)
    assert list(third.keys()) == []
    third._check_invariants()


def test_prune_goes_step_by_step(make: Make) -> None:
    """Expired entries are removed in small transactions, too."""
    cache, other, seen = make(0), make(1), list[int]()
    cache.set_many({f"k{number:03}": number for number in range(ROWS)}, timeout=0.01)
    eventually(lambda: cache.get("k000") is None)
    after_each_transaction(cache, lambda: seen.append(other.stats().entries or 0))
    left = cache.stats().entries or 0  # a slow machine has expired some while it wrote
    assert cache.prune() == left > STEP
    assert max(before - after for before, after in itertools.pairwise([left, *seen])) <= STEP
    assert seen[-1] == 0


# Many keys in one call ------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of a tenth of ROWS."""
    monkeypatch.setattr(comparing, "_STEP_ROWS", ROWS // 10)


MANY = [f"k{number:03}" for number in range(ROWS)]


def test_many_keys_go_step_by_step(make: Make, small: None) -> None:
    """A call with very many keys lets others write between its steps, each of which they see as a whole."""
    cache, other, seen = make(0), make(1), list[int]()

    def look() -> None:
        other.incr("between")
        seen.append((other.stats().entries or 0) - 1)

    steps = list(range(ROWS // 10, ROWS + 1, ROWS // 10))
    other.set("between", 0)  # and makes the table
    after_each_transaction(cache, look)
    cache.set_many(dict.fromkeys(MANY, 1))
    assert seen == steps
    seen.clear()
    cache.delete_many(MANY)
    assert seen == [*steps[-2::-1], 0]
    assert other.get("between") == 2 * len(steps)
    cache._check_invariants()


def test_many_computed_values_go_step_by_step(make: Make, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of very many missing keys are taken, and their values stored, in steps that bound each transaction."""
    monkeypatch.setattr(stampede, "LEASE_SECONDS", 600.0)  # none is renewed meanwhile, however slow the machine is
    cache, other, changed = make(0), make(1), list[int]()
    other.set("other", 1)
    save = Transaction.save
    monkeypatch.setattr(
        Transaction, "save", lambda self, lately: (changed.append(len(self.changed)), save(self, lately))[1]
    )
    values = dict.fromkeys(MANY, "computed")
    assert cache.get_or_set_many(MANY, lambda keys: dict.fromkeys(keys, "computed")) == values
    assert other.get_many(MANY) == values
    assert sum(changed) == 2 * ROWS
    assert max(changed) == ROWS // 10
    cache._check_invariants()


def test_writing_many_keys_pauses_between_two_steps(make: Make, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two steps, and neither before nor after them, others have time to look."""
    cache, pauses = make(0), list[int]()
    monkeypatch.setattr(DatabaseEngine, "let_others_write", lambda _: pauses.append(1))
    cache.set_many(dict.fromkeys(MANY, 1))
    assert len(pauses) == 9
    cache.delete_many(MANY)
    assert len(pauses) == 18
    cache.set_many(dict.fromkeys(MANY[: ROWS // 10], 1))
    assert len(pauses) == 18


@pytest.mark.parametrize(
    ("count", "size", "steps"), [(_STEP_ROWS, 10, 1), (_STEP_ROWS + 1, 10, 2), (3, _STEP_BYTES // 4, 1), (5, 2**20, 2)]
)
def test_few_keys_and_bytes_are_one_step(make: Make, count: int, size: int, steps: int) -> None:
    """Up to 2,000 keys of 4 MiB together are stored in one transaction; more take several."""
    cache, seen = make(0), list[int]()
    cache.set("0", "makes the table")
    after_each_transaction(cache, lambda: seen.append(1))
    cache.set_many({str(number): b"v" * (size - 20) for number in range(count)})
    assert len(seen) == steps
    assert cache.count() == count


def test_steps_before_a_refused_one_stay(make: Make, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a later step finds no room, its keys and those after it are told, and their older values are gone."""
    cache, step, put = make(0), ROWS // 10, Transaction.put
    cache.set_many(dict.fromkeys(MANY, "old"))

    def put_some(self: Transaction, rows: Any, *args: Any) -> None:
        if any(row.name == name_of(cache._storage_key(MANY[4 * step + 1], None)) for row in rows):
            raise FullError("the disk is full")
        put(self, rows, *args)

    monkeypatch.setattr(Transaction, "put", put_some)
    assert cache.set_many(dict.fromkeys(MANY, "new")) == MANY[4 * step :]
    assert cache.get_many(MANY) == dict.fromkeys(MANY[: 4 * step], "new")
    cache._check_invariants()


# A write that needs room ----------------------------------------------------------------------


@pytest.mark.parametrize("bound", [{"max_entries": 5000}, {"max_entries": None, "max_bytes": 2**20}])
def test_write_that_needs_room_does_little_beside(
    make: Make, bound: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new key in a full cache evicts few entries, and writes few readings down, however many there were."""
    cache = make(0, **bound)
    cache.set_many({f"k{number}": b"v" * 100 for number in range(6000)})
    renewed = list[int]()
    renew = Transaction.renew
    monkeypatch.setattr(Transaction, "renew", lambda self, names: (renewed.append(len(names)), renew(self, names))[1])
    evictions, full = cache.stats().evictions, cache.stats().entries
    for turn in range(100):
        for number in range(60):
            cache.get(f"k{5999 - number * 40 - turn % 40}")
        cache.set(f"new{turn}", b"v" * 100)
        evicted, evictions = cache.stats().evictions - evictions, cache.stats().evictions
        assert evicted <= _BATCH
    assert full is not None
    assert full - _BATCH <= (cache.stats().entries or 0) <= full + _BATCH
    assert 0 < max(renewed) <= _RENEWED
    cache._check_invariants()


def test_read_writes_down_few_readings(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that finds too many readings remembered writes a part of them down."""
    cache = make(0, max_entries=3 * _NOTES)
    cache.set_many({f"k{number}": number for number in range(2 * _NOTES)})
    renewed = list[int]()
    monkeypatch.setattr(Transaction, "renew", lambda _, names: renewed.append(len(names)))
    for number in range(2 * _NOTES):
        assert cache.get(f"k{number}") == number
    assert len(cache._engine.notes) <= _NOTES
    assert len(cache.get_many([f"k{number}" for number in range(2 * _NOTES)])) == 2 * _NOTES
    assert renewed
    assert max(renewed) <= _RENEWED
    assert len(cache._engine.notes) <= _NOTES


# A file that another process writes to --------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_writer_looks_often_whether_the_file_is_free(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that waits for another process looks all the time, and not more and more seldom as SQLite does."""
    cache = make(0, busy_timeout=60)
    cache.set("k", "old")
    looks, wait = list[float](), DatabaseEngine._await_others

    def noted(self: DatabaseEngine, error: Exception, deadline: float) -> None:
        looks.append(timeouts.now())
        wait(self, error, deadline)

    monkeypatch.setattr(DatabaseEngine, "_await_others", noted)
    other = sqlite3.connect(cache._engine.database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = in_background(cache.set, "k", "new")
    eventually(lambda: len(looks) > 200)
    other.execute("COMMIT")
    other.close()
    writing.result(20)
    assert cache.get("k") == "new"


# Counts ---------------------------------------------------------------------------------------


def test_entry_that_appears_while_others_are_removed_is_counted(make: Make) -> None:
    """An entry that others write after a removal has looked for it is not removed uncounted."""
    cache, other = make(0), make(1)
    cache.set("k", 1)
    other.get("k")
    engine = cache._engine
    session = engine._take()
    turns = iter([lambda: other.set("late", 1)])

    class Looking(Watched):
        def execute(self, statement: str, parameters: Any = ()) -> Any:
            result = self._session.execute(statement, parameters)
            if statement == engine.statements.sizes(2):
                next(turns)()
            return result

    engine._pool.give(Looking(session, list))
    cache.delete_many(["k", "late"])
    assert cache.get("k") is None
    cache._check_invariants()


# Bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "size"),
    [
        ("k", b"v" * 100, 100),
        ("é" * 50, b"", 0),
        ("k" * 600, b"v" * 10, 10),
        ("n", 5, 8),
        ("n", -(2**63), 8),
    ],
)
def test_bytes_are_those_of_key_and_value_and_a_constant(make: Make, key: str, value: Any, size: int) -> None:
    """An entry counts for its storage key in UTF-8, its value as it is stored, and ROW_BYTES."""
    cache = make(0)
    storage_key = cache._storage_key(key, None)
    frame = size if isinstance(value, int) else len(cache._codec.dumps(value, storage_key))
    cache.set(key, value)
    assert cache.stats().bytes == len(storage_key.encode()) + frame + ROW_BYTES
    assert frame >= size
    assert cache._get(storage_key) is not MISSING
