"""The table of a database cache: made on first use, made anew where its shape is an old one, left alone otherwise."""

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from storeroom.backends.db import DatabaseCache
from storeroom.exceptions import StorageError
from storeroom.testing.concurrency import in_threads
from storeroom.testing.isolation import engines_of_its_own
from tests.servers.databases import PostgreSQLServer, free_port, kind, mariadb, new_table, postgresql

__all__ = ["kind", "mariadb", "new_table", "postgresql"]

Make: TypeAlias = Callable[..., DatabaseCache]

#: The columns that Django's createcachetable makes.
DJANGOS = {
    "sqlite": "cache_key varchar(255) NOT NULL PRIMARY KEY, value text NOT NULL, expires datetime NOT NULL",
    "postgresql": "cache_key varchar(255) NOT NULL PRIMARY KEY, value text NOT NULL, expires timestamptz NOT NULL",
    "mariadb": "cache_key varchar(255) NOT NULL PRIMARY KEY, value longtext NOT NULL, expires datetime(6) NOT NULL",
}


@pytest.fixture
def make(kind: str, new_table: Callable[[str], tuple[str, str]]) -> Iterator[Make]:
    """Make caches in a database of this kind."""
    url, _ = new_table(kind)

    def make(table: str, **options: Any) -> DatabaseCache:
        return DatabaseCache(table, {"TIMEOUT": None, "OPTIONS": {"url": url, "socket_timeout": 20, **options}})

    with engines_of_its_own():
        yield make


@pytest.fixture
def execute(make: Make) -> Callable[[str], Any]:
    """Run a statement past every cache."""
    database = make("other")._engine.database

    def execute(statement: str) -> Any:
        session = database.connect()
        try:
            return session.execute(statement, ()).fetchall() if "SELECT" in statement else session.execute(statement)
        finally:
            database.close(session)

    return execute


@pytest.fixture
def table(request: pytest.FixtureRequest) -> str:
    """A name that no other test has."""
    return "t_" + re.sub(r"\W+", "_", request.node.name)[-45:]


def test_table_of_djangos_createcachetable_is_made_anew(
    make: Make, kind: str, table: str, execute: Callable[[str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A table of Django's is replaced by an empty one of Storeroom's, and the log tells of it."""
    execute(f"CREATE TABLE {table} ({DJANGOS[kind]})")
    execute(f"CREATE INDEX {table}_expires ON {table} (expires)")
    cache = make(table)
    cache.set("k", "v")
    assert cache.get("k") == "v"
    assert make(table).create_table() is False
    assert [record for record in caplog.records if "made anew" in record.getMessage()] != []
    cache._check_invariants()


def test_table_of_another_version_is_made_anew(make: Make, table: str, execute: Callable[[str], Any]) -> None:
    """A table whose columns are another version's is made anew, also for handles that have used it."""
    cache = make(table)
    cache.set("k", "v")
    execute(f"ALTER TABLE {table} ADD COLUMN hits integer")
    other = make(table, max_connections=3)
    assert other.get("k") is None
    other.set("k", "new")
    assert cache.get("k") == "new"


def test_table_of_somebody_else_is_left_alone(make: Make, table: str, execute: Callable[[str], Any]) -> None:
    """A table that is no cache's is refused by every operation, with its columns, and keeps its rows."""
    execute(f"CREATE TABLE {table} (cache_key integer, name integer)")
    execute(f"INSERT INTO {table} VALUES (1, 2)")
    with pytest.raises(StorageError, match="the columns cache_key, name, so it is no table of a cache"):
        make(table).set("k", "v")
    with pytest.raises(StorageError, match="Give the cache another LOCATION"):
        make(table).create_table()
    assert [tuple(row) for row in execute(f"SELECT * FROM {table}")] == [(1, 2)]


def test_table_is_not_made_where_that_is_not_allowed(make: Make, table: str) -> None:
    """With create_table=False a missing table is an error, and create_table() makes it."""
    careful = make(table, create_table=False)
    with pytest.raises(StorageError, match=r"OPTIONS\['create_table'\] is False. Make it with"):
        careful.get("k")
    assert careful.create_table() is True, "it is made on request"
    careful.set("k", "v")
    assert careful.get("k") == "v"


def test_table_that_was_dropped_is_made_again(make: Make, table: str, execute: Callable[[str], Any]) -> None:
    """A table that was dropped misses, and the next write makes it again."""
    cache = make(table)
    cache.set("k", "v")
    execute(f"DROP TABLE {table}")
    assert cache.get("k") is None
    cache.set("k", "new")
    assert cache.get("k") == "new"
    cache._check_invariants()


def test_table_that_was_emptied_is_counted_again(make: Make, table: str, execute: Callable[[str], Any]) -> None:
    """A table that was emptied past the cache, its row of counts included, is counted again."""
    cache = make(table, max_entries=10)
    cache.set_many({f"k{number}": number for number in range(10)})
    execute(f"DELETE FROM {table}")
    cache.set("k", "v")
    cache.set("l", "v")
    assert cache.stats().entries == 2
    cache._check_invariants()
    cache.set_many({f"k{number}": number for number in range(20)})
    assert cache.stats().entries == 10


@pytest.mark.slow
def test_counts_that_vanished_are_made_once_by_many(make: Make, table: str, execute: Callable[[str], Any]) -> None:
    """Counts that vanished are made once, and writes of others at that moment are counted, too."""
    caches = [make(table, max_connections=2 + number) for number in range(6)]
    caches[0].set("k", "v")
    for turn in range(60):
        execute(f"DELETE FROM {table} WHERE sequence = {2**62}")
        together = threading.Barrier(len(caches))

        def write(number: int, turn: int = turn, together: threading.Barrier = together) -> None:
            together.wait(10)
            caches[number].set(f"{turn} {number}", "v" * number)
            caches[number].delete(f"{turn - 1} {number}")

        in_threads(len(caches), write)
        caches[0]._check_invariants()


def test_threads_make_the_table_once(make: Make, table: str) -> None:
    """Engines that use a table for the first time at the same moment make it once."""
    caches = [make(table, max_connections=2 + number) for number in range(8)]
    together = threading.Barrier(len(caches))

    def first_use(number: int) -> Any:
        together.wait(10)
        caches[number].set(f"k{number}", number)
        return caches[number].get(f"k{number}")

    assert in_threads(8, first_use) == list(range(8))
    assert caches[0].count() == 8
    caches[0]._check_invariants()


@pytest.mark.parametrize("name", ["two words", 'with "quotes"', "with `ticks`", "100% é", "SELECT", "a.b", "{x} %s"])
def test_table_may_have_any_name(make: Make, kind: str, name: str) -> None:
    """A table may have any name, with quotes, spaces, signs and words of SQL."""
    cache = make(name)
    cache.clear()
    cache.set_many({"k": "v", "n": 1})
    assert (cache.get("k"), cache.incr("n"), cache.add("k", 1), cache.touch("k", 60)) == ("v", 2, False, True)
    assert sorted(cache.keys()) == ["k", "n"]
    assert cache.delete("k") is True
    cache._check_invariants()
    assert make(name).create_table() is False


@pytest.mark.parametrize(("unlogged", "persistence"), [(True, "u"), (False, "p")])
def test_table_is_unlogged_by_option(postgresql: PostgreSQLServer, unlogged: bool, persistence: str) -> None:
    """With unlogged=True PostgreSQL's table is unlogged, and with unlogged=False it is not."""
    table = postgresql.table()
    cache = DatabaseCache(table, {"OPTIONS": {"url": postgresql.url(), "unlogged": unlogged}})
    cache.set("k", "v")
    assert cache.get("k") == "v"
    # Source: https://www.postgresql.org/docs/current/catalog-pg-class.html
    assert postgresql.execute(f"SELECT relpersistence FROM pg_class WHERE relname = '{table}'") == [(persistence,)]
    assert ("UNLOGGED" in cache.create_statements()[0]) is unlogged


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_table_of_a_server_out_of_reach_is_not_made_in_silence(scheme: str) -> None:
    """create_table() raises where the server is out of reach, whatever the policy."""
    cache = DatabaseCache("t", {"OPTIONS": {"url": f"{scheme}://user@127.0.0.1:{free_port()}/db"}})
    with pytest.raises(StorageError, match="out of reach"):
        cache.create_table()


def test_user_without_the_right_to_make_a_table_is_told(postgresql: PostgreSQLServer) -> None:
    """A user without the right to make the table gets PostgreSQL's own words in an error."""
    postgresql.execute("DROP ROLE IF EXISTS reader")
    postgresql.execute("CREATE ROLE reader LOGIN")
    url = postgresql.url().replace("storeroom@", "reader@")
    cache = DatabaseCache(postgresql.table(), {"OPTIONS": {"url": url}})
    with pytest.raises(StorageError, match="permission denied"):
        cache.set("k", "v")
    with pytest.raises(StorageError, match="permission denied"):
        cache.create_table()
