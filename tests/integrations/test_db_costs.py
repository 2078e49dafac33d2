"""Costs of the database cache's operations: their statements, none of which looks at more rows than it needs."""

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from storeroom import timeouts
from storeroom.backends.db import DatabaseCache
from storeroom.testing.isolation import engines_of_its_own
from tests.servers.databases import KINDS, mariadb, new_table, postgresql

__all__ = ["mariadb", "new_table", "postgresql"]

Make: TypeAlias = Callable[..., DatabaseCache]


@pytest.fixture
def make(new_table: Callable[[str], tuple[str, str]]) -> Iterator[Make]:
    """Make caches of a new table in a database of a kind."""

    def make(kind: str, **options: Any) -> DatabaseCache:
        url, table = new_table(kind)
        settings = {"url": url, "socket_timeout": 20, "max_entries": None, **options}
        return DatabaseCache(table, {"TIMEOUT": None, "OPTIONS": settings})

    with engines_of_its_own():
        yield make


class Counting:
    """A session that notes the statements sent."""

    def __init__(self, session: Any) -> None:
        self._session, self.sent = session, list[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def execute(self, statement: str, parameters: Any = ()) -> Any:
        self.sent.append(statement)
        return self._session.execute(statement, parameters)


def sent_by(cache: DatabaseCache, operation: Callable[[DatabaseCache], Any]) -> list[str]:
    """Return the statements of an operation when nothing else is due."""
    engine = cache._engine
    session = engine._take()
    counting = Counting(session)
    engine._look_after = engine._earliest = timeouts.now() + 1000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine._pool, "take", lambda: (counting, True))
        patch.setattr(engine._pool, "give", lambda _: None)
        patch.setattr(engine.database, "is_stale", lambda _: False)
        operation(cache)
    engine._pool.give(session)
    return counting.sent


#: Operation -> its statements on SQLite, PostgreSQL and MariaDB, without BEGIN and COMMIT. Where the number of entries
#: or bytes changes, a row that counts them changes with it: by a statement of its own, but on PostgreSQL. Of MariaDB's
#: writing statements only an INSERT returns something, so that the result of the others is asked for.
STATEMENTS: dict[str, tuple[Callable[[DatabaseCache], Any], tuple[int, int, int]]] = {
    "get": (lambda cache: cache.get("k"), (1, 1, 1)),
    "get_many": (lambda cache: cache.get_many(["k", "n", "absent"]), (1, 1, 1)),
    "has_key": (lambda cache: cache.has_key("k"), (1, 1, 1)),
    "ttl": (lambda cache: cache.ttl("k"), (1, 1, 1)),
    "set": (lambda cache: cache.set("k", "other"), (1, 1, 1)),
    "set of another size": (lambda cache: cache.set("k", "longer than it was"), (2, 1, 3)),
    "set of a new key": (lambda cache: cache.set("new", "value"), (2, 1, 3)),
    "add": (lambda cache: cache.add("new", "value"), (2, 1, 3)),
    "touch": (lambda cache: cache.touch("k", 1000), (1, 1, 1)),
    "incr": (lambda cache: cache.incr("n"), (1, 1, 1)),
    "decr": (lambda cache: cache.decr("n", 5), (1, 1, 1)),
    "delete": (lambda cache: cache.delete("k"), (2, 2, 4)),
    "set_many of 100": (lambda cache: cache.set_many({f"m{n}": n for n in range(100)}), (2, 2, 3)),
    "delete_many of 100": (lambda cache: cache.delete_many([f"x{n}" for n in range(100)]), (1, 1, 1)),
}


@pytest.mark.parametrize("operation", STATEMENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_operation_takes_so_many_statements(make: Make, kind: str, operation: str) -> None:
    """Each operation sends the known number of statements on each database, and one alone needs no transaction."""
    cache = make(kind)
    cache.set_many({"k": "value", "n": 1})
    run, counts = STATEMENTS[operation]
    sent = sent_by(cache, run)
    work = [text for text in sent if not text.startswith(("BEGIN", "COMMIT"))]
    assert len(work) == counts[KINDS.index(kind)], work
    begins = len(sent) - len(work)
    assert begins in {0, 2}
    if len(work) == 1 and not operation.startswith(("set", "delete")):
        assert begins == 0, "one statement needs no transaction"


@pytest.mark.parametrize("operation", ["set", "set of another size", "set of a new key", "add"])
def test_postgresql_is_asked_once_for_a_write(make: Make, operation: str) -> None:
    """On PostgreSQL a write is one statement, without a transaction around it."""
    cache = make("postgresql", max_entries=300, max_bytes="1MB")
    cache.set_many({"k": "value", "n": 1})
    sent = sent_by(cache, STATEMENTS[operation][0])
    assert len(sent) == 1, sent
    cache._check_invariants()


@pytest.mark.parametrize("kind", KINDS)
def test_writes_over_entries_of_the_same_size_become_updates(make: Make, kind: str) -> None:
    """After four sets over entries of the same size the next are one UPDATE, until one finds none; all are counted."""
    cache = make(kind, max_entries=300, max_bytes="1MB")
    cache.set_many({"k": "longer", "l": 1})
    with_growth, without = {"sqlite": (4, 3), "postgresql": (1, 1), "mariadb": (5, 3)}[kind]
    # A number takes 8 bytes, as a text of 7 does, and none of the others.
    expected = {
        "7 bytes": with_growth,
        "another": without,
        5: without,
        "7 of it": without,
        -5: without,
        6: 1,
        "seven..": 1,
    }
    for value, count in expected.items():
        sent = sent_by(cache, lambda cache, value=value: cache.set("k", value))
        assert (len(sent), cache.get("k")) == (count, value)
        cache._check_invariants()
    assert sent[0].startswith("UPDATE")
    assert len(sent_by(cache, lambda cache: cache.set("l", 2))) == 1
    assert len(sent_by(cache, lambda cache: cache.set("new", "value"))) == 1 + with_growth
    assert len(sent_by(cache, lambda cache: cache.set("l", 3))) == without
    assert cache.get_many(["k", "l", "new"]) == {"k": "seven..", "l": 3, "new": "value"}
    cache._check_invariants()


def worked_with(cache: DatabaseCache, text: str) -> list[Any]:
    """Return the results of operations on one row, often enough that their statements are prepared."""
    found: list[Any] = []
    for number in range(24):  # over one of the same size, at last by an UPDATE
        cache.set("k", f"{text}{number % 3}")
        found.append(cache.get("k"))
    for number in range(12):
        cache.set("k", f"{text}{number % 3}" * (1 + number // 10))
        cache.set("n", number)
        found += [cache.incr("n", 2**40), cache.incr("n", -5), cache.touch("k", 1000), cache.touch("absent", 1000)]
        found += [cache.add("k", 1), cache.add(f"new {number}", number), cache.delete(f"new {number}")]
        found += [cache.get("k"), cache.get("n"), cache.get("absent"), cache.get(f"new {number}")]
    return found


@pytest.mark.parametrize("name", ["usual", "50%s off"])
def test_prepared_statements_answer_as_cursors_do(make: Make, name: str) -> None:
    """Statements on one row give the same with and without a cursor of psycopg's, also when the server forgets them."""
    cache = make("postgresql", max_entries=300, max_bytes="1MB")
    cache = DatabaseCache(f"{name} {cache.table_name}", {"TIMEOUT": None, "OPTIONS": dict(cache.settings.options)})
    cache.set("k", "value")
    session = cache._engine._take()
    session.prepare_threshold = None
    cache._engine._pool.give(session)
    expected = worked_with(cache, "value")
    assert not any(isinstance(known, bytes) for known in session.known.values())
    session.prepare_threshold = 5
    for forget in ("", "DEALLOCATE ALL", "ROLLBACK"):
        if forget == "ROLLBACK":
            session.execute("BEGIN")
            cache._engine.database.rollback(session)
        elif forget:
            session.execute(forget)
        assert worked_with(cache, "value") == expected
        assert sum(isinstance(known, bytes) for known in session.known.values()) == 6
    cache._check_invariants()


def statements_of(cache: DatabaseCache) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """Return the statements that operations are made of, with parameters."""
    texts = cache._engine.statements
    name, now, sequence = b":1:k5", timeouts.now(), 0
    found = {
        "get": (texts.get, (name,)),
        "get_many": (texts.get_many(3), (name, b":1:k6", b":1:k7")),
        "expiry": (texts.expiry, (name,)),
        "touch": (texts.touch, (1e15, name, now)),
        "incr": (texts.incr, (1, name, now, 0, 10)),
        "expired": (texts.expired, (now, 32)),
        "earliest": (texts.earliest, ()),
        "oldest": (texts.oldest, (10,)),
        "renew": (texts.renew(2), (sequence, name, b":1:k6")),
        "delete": (texts.delete(2), (name, b":1:k6")),
        "counts": (texts.counts, (b"\x00counts",)),
        "count_up": (texts.count_up, (1, 1, b"\x00counts")),
        "scan": (texts.scan, (name, 10)),
    }
    if texts.grammar.chains:
        room, row, bounds = (b"\x00counts", 10, 5, 10), (name, b"v", None, 1e15, 5, 5, 1), (b"\x00counts",)
        found |= {
            "put_one": (texts.put_one, room + row + bounds),
            "add_one": (texts.add_one, (*room, *row, now, *bounds)),
        }
    return found


#: A database -> its statement that learns of a table, and the words of its plans where it reads the whole table.
PLANS = {
    "sqlite": ("ANALYZE", r"SCAN (?!.*USING (COVERING )?INDEX)"),
    "postgresql": ("ANALYZE {}", r"Seq Scan"),
    "mariadb": ("ANALYZE TABLE {}", r"\bALL\b"),
}


def plan_of(cache: DatabaseCache, kind: str, statement: str, parameters: tuple[Any, ...]) -> str:
    session = cache._engine._take()
    rows = session.execute(f"EXPLAIN {'QUERY PLAN ' * (kind == 'sqlite')}{statement}", parameters).fetchall()
    cache._engine._pool.give(session)
    return "\n".join(" ".join(map(str, row)) for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_statement_reads_the_whole_table(make: Make, kind: str) -> None:
    """No statement reads a table of 20,000 rows as a whole, by the plans of each database."""
    cache = make(kind)
    cache.set_many({f"k{number}": f"value {number}" for number in range(20_000)}, timeout=1000)
    analyze, whole = PLANS[kind]
    session = cache._engine._take()
    session.execute(analyze.format(cache._engine.statements.table))  # plans depend on a table's statistics
    cache._engine._pool.give(session)
    for name, (statement, parameters) in statements_of(cache).items():
        plan = plan_of(cache, kind, statement, parameters)
        assert not re.search(whole, plan), f"{name}: {statement}\n{plan}"


def steps_of(cache: DatabaseCache, operation: Callable[[], Any]) -> int:
    """Return how many instructions of its virtual machine SQLite takes, in units of ten."""
    session, steps = cache._engine._take(), 0

    def step() -> None:
        nonlocal steps
        steps += 1

    session.connection.set_progress_handler(step, 10)
    cache._engine._pool.give(session)
    operation()
    session.connection.set_progress_handler(None, 0)
    return steps


@pytest.mark.slow
@pytest.mark.parametrize("max_entries", [None, 20_000])
def test_work_does_not_grow_with_the_table(make: Make, max_entries: int | None) -> None:
    """Operations take as many of SQLite's steps in a large table as in a small one, also when a full one evicts."""

    def steps(rows: int) -> dict[str, int]:
        bound = None if max_entries is None else rows
        cache = make("sqlite", max_entries=bound, busy_timeout=5.0 + rows / 1000)
        cache.clear()
        cache.set_many({f"k{number}": f"value {number}" for number in range(rows)}, timeout=1000)
        return {
            "get": steps_of(cache, lambda: cache.get_many([f"k{number}" for number in range(0, rows, rows // 50)])),
            "set": steps_of(cache, lambda: [cache.set(f"k{number}", "other") for number in range(50)]),
            "new": steps_of(cache, lambda: [cache.set(f"new{number}", number) for number in range(50)]),
            "incr": steps_of(cache, lambda: [cache.incr("new49") for _ in range(50)]),
            "delete": steps_of(cache, lambda: [cache.delete(f"new{number}") for number in range(50)]),
        }

    few, many = steps(100), steps(20_000)
    for name, count in many.items():
        assert count <= 1.3 * few[name] + 10, f"{name}: {few[name]} at 100 rows, {count} at 20,000"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_expired_rows_go_as_writes_come(make: Make, kind: str) -> None:
    """Writes remove expired rows in small batches, so that nobody has to call prune() and no write pays for all."""
    cache = make(kind)
    cache.set_many({f"gone{number}": number for number in range(300)}, timeout=0.01)
    cache.set("kept", 1)
    cache._engine._look_after = 0
    deadline = timeouts.now() + 20
    while (entries := cache.stats().entries or 0) > 1:
        assert timeouts.now() < deadline
        cache.set("kept", 1)
        cache._engine._look_after = 0
        left = cache.stats().entries or 0
        assert entries - left <= 32
    assert cache.stats().expirations == 300
    cache._check_invariants()
