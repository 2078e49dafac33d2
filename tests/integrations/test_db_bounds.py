"""The bounds of a table hold with any number of writers, which the server's log does not tell of."""

import random
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from storeroom import timeouts
from storeroom.backends.db import DatabaseCache
from storeroom.backends.db.transaction import Transaction
from storeroom.storage.hooks import ABSENT, Swap
from storeroom.testing.concurrency import eventually, in_background, in_threads
from storeroom.testing.isolation import engines_of_its_own
from tests.servers.databases import PostgreSQLServer, kind, mariadb, new_table, postgresql

__all__ = ["kind", "mariadb", "new_table", "postgresql"]

Make: TypeAlias = Callable[..., DatabaseCache]


@pytest.fixture
def make(kind: str, new_table: Callable[[str], tuple[str, str]]) -> Iterator[Make]:
    """Make caches on one new table; each number is an engine of its own, as another process has it."""
    url, table = new_table(kind)

    def make(number: int, **options: Any) -> DatabaseCache:
        settings = {"url": url, "socket_timeout": 20, "max_connections": 2 + number, **options}
        return DatabaseCache(table, {"TIMEOUT": None, "OPTIONS": settings})

    with engines_of_its_own():
        yield make


class Watched:
    """A session that calls a function after each statement."""

    def __init__(self, session: Any, look: Callable[[], object]) -> None:
        self._session, self._look = session, look

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def execute(self, statement: str, parameters: Any = ()) -> Any:
        result = self._session.execute(statement, parameters)
        self._look()
        return result


def watch(cache: DatabaseCache, look: Callable[[], object]) -> None:
    """Call a function after each statement of the cache, in the state in which nothing else is due."""
    engine = cache._engine
    engine._pool.give(Watched(engine._take(), look))
    engine._look_after = engine._earliest = timeouts.now() + 1000


def counted(cache: DatabaseCache) -> tuple[int, int]:
    """Return the entries and bytes that a look at the table finds."""
    engine = cache._engine
    entries, size = engine.read(lambda session: session.execute(engine.statements.recount, ()).fetchone())
    return entries, int(size or 0)


@pytest.mark.parametrize("write", ["set", "add"])
@pytest.mark.parametrize(("bound", "limit"), [("max_entries", 10), ("max_bytes", 2000)])
def test_nobody_sees_more_than_allowed(make: Make, bound: str, limit: int, write: str) -> None:
    """A table that others have filled since this process counted it never holds more than its bound allows."""
    options: dict[str, Any] = {"max_entries": None, bound: limit}
    cache, other, third = (make(number, **options) for number in range(3))
    cache.set("first", "v")
    for number in range(20):
        other.set(f"k{number}", "v")
    seen = list[int]()
    watch(cache, lambda: seen.append(counted(third)[bound == "max_bytes"]))
    getattr(cache, write)("new", "v")
    assert limit * 0.9 < max(seen) <= limit
    assert cache.get("new") == "v"
    cache._check_invariants()


def test_entry_that_is_there_is_written_where_there_is_no_room(make: Make) -> None:
    """An entry that is there already is overwritten in a full table, as it takes no room."""
    cache, other = make(0, max_entries=10), make(1, max_entries=10)
    cache.set("k", "old")
    for number in range(9):
        other.set(f"other {number}", "v")
    cache.set("k", "new")
    assert cache.add("k", "newer") is False
    assert cache.get("k") == "new"
    assert counted(other)[0] == 10


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize("write", ["set", "add"])
def test_room_is_taken_while_a_statement_waits(make: Make, postgresql: PostgreSQLServer, write: str) -> None:
    """A write that found room, and another's commit that took it before the write counts, stay within the bound."""
    cache, other = make(0, max_entries=10), make(1, max_entries=10)
    for number in range(9):
        cache.set(f"k{number}", "v")
    cache._engine._look_after = cache._engine._earliest = timeouts.now() + 1000
    engine = other._engine
    session = engine._take()
    session.execute("BEGIN", ())
    transaction = Transaction(engine.statements, session, timeouts.now(), other._bounds)
    transaction.put([other._row(other._storage_key("last", None), "v")], timeouts.NEVER)
    transaction.save(list)
    written = in_background(getattr(cache, write), "new", "v")
    waiting = f"SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{cache.table_name}%'"
    eventually(lambda: bool(postgresql.execute(waiting)))
    session.execute("COMMIT", ())
    engine._pool.give(session)
    assert written.result(20) in {None, True}
    assert (cache.get("new"), cache.get("last")) == ("v", "v")
    assert counted(other)[0] == 10
    cache._check_invariants()


def write_at_random(cache: DatabaseCache, chance: random.Random, turns: int) -> None:
    """Write and remove a few keys in any order, many times."""
    for turn in range(turns):
        keys = [f"k{n}" for n in chance.sample(range(16), 6)]
        match chance.randrange(6):
            case 0:
                cache.set_many(dict.fromkeys(keys, turn))
            case 1:
                cache.delete_many(keys)
            case 2:
                until = timeouts.now() + 100
                expected = [ABSENT, turn - 1, turn - 2]
                cache._swap_many({cache.make_key(k): Swap(chance.choice(expected), turn, until + len(k)) for k in keys})
            case 3 | 4:
                for key in keys:
                    cache.set(key, turn)
            case _:
                for key in keys:
                    cache.add(key, turn, 0.02)
        if turn % 40 == 20:
            cache.clear()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_writers_at_the_bound_leave_no_error_in_the_log(make: Make, postgresql: PostgreSQLServer) -> None:
    """Single and many writes in any order, removals, swaps and clear() at the bound fail nowhere, and never meet."""
    log = postgresql.process._directory / "log"
    begin = log.stat().st_size
    caches = [make(number, max_entries=12) for number in range(8)]

    in_threads(len(caches), lambda number: write_at_random(caches[number], random.Random(number), 120))
    assert [
        line
        for line in log.read_text(errors="replace")[begin:].splitlines()
        if re.search("ERROR|DETAIL|STATEMENT|CONTEXT", line)
    ] == []
    assert counted(caches[0])[0] <= 12
    caches[0]._check_invariants()
