"""Rows in a database cache's table that hold nonsense, or values that no version of the cache writes."""

import pickle
import random
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from storeroom.backends.db import DatabaseCache
from storeroom.backends.db.transaction import Transaction
from storeroom.testing.isolation import engines_of_its_own
from tests.faults.bomb import Bomb
from tests.servers.databases import kind, mariadb, new_table, postgresql

__all__ = ["kind", "mariadb", "new_table", "postgresql"]

Open: TypeAlias = Callable[..., DatabaseCache]


@pytest.fixture
def open_cache(new_table: Callable[[str], tuple[str, str]], kind: str) -> Iterator[Open]:
    """Open caches of one table of each kind of database in turn."""
    url, table = new_table(kind)

    def open_cache(**options: Any) -> DatabaseCache:
        settings = {"url": url, "socket_timeout": 30, **options}
        return DatabaseCache(table, {"TIMEOUT": None, "OPTIONS": settings})

    with engines_of_its_own():
        yield open_cache


# Rows that hold nonsense ----------------------------------------------------------------------


def mutated(chance: random.Random, payload: bytes) -> bytes:
    changed = bytearray(payload)
    for _ in range(chance.randrange(4)):
        if changed:
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed[: chance.randrange(len(changed) + 1)]) if chance.random() < 0.3 else bytes(changed)


def payload_of(cache: DatabaseCache, key: str) -> bytes:
    """Return the bytes that an entry is stored as."""
    statements = cache._engine.statements
    name = cache.make_key(key).encode()
    return bytes(cache._engine.read(lambda session: session.execute(statements.get, (name,)).fetchone()[0]))


def insert(cache: DatabaseCache, rows: list[tuple[Any, ...]]) -> None:
    """Write rows past the cache."""
    statements = cache._engine.statements
    for start in range(0, len(rows), 500):
        part = rows[start : start + 500]
        statement, values = statements.insert(len(part)), [column for row in part for column in row]
        cache._engine.write(partial(_execute, statement=statement, values=values))


def _execute(transaction: Transaction, statement: str, values: list[Any]) -> None:
    transaction.execute(statement, values)


@pytest.mark.slow
@pytest.mark.parametrize("secret", [None, "a secret of this test alone"])
def test_hostile_bytes_are_counted_misses(open_cache: Open, secret: str | None, tmp_path: Path) -> None:
    """Of 3,000 payloads, mutated, truncated and foreign, none raises, none runs code, and each counts as an error."""
    tmp_path.chmod(0o777)  # so that others may write to SQLite's file, and its values are not trusted
    cache = open_cache(secret=secret, max_entries=None)
    chance = random.Random(20)
    trace = tmp_path / "trace"
    bomb = pickle.dumps(Bomb(trace))
    cache.set("sample", {"a": [1, 2.5, "text"], "b": None})
    cache.set("tagged", {"a": 1}, tags=["t"])
    own = [payload_of(cache, "sample"), payload_of(cache, "tagged")]
    foreign = [bomb, zlib.compress(bomb), b"\x0f" + bomb, b"\x10" + bomb, b"", b"\x80\x05.", b"{}", b"\x1f\x8b"]
    payloads = {f"k{number}": mutated(chance, chance.choice([*own, *foreign])) for number in range(3_000)}
    insert(
        cache,
        [
            (cache.make_key(key).encode(), data, None, 1e15, len(data) + 1, len(data) + 1, 1)
            for key, data in payloads.items()
        ],
    )
    before = cache.stats().errors
    found = cache.get_many(payloads)
    assert cache.stats().errors - before >= 1500
    assert cache.stats().errors - before <= len(payloads) - len(found), "an envelope that is over misses uncounted"
    assert not trace.exists()
    missing = [key for key in payloads if key not in found]
    for key in chance.sample(missing, 200):
        assert cache.get(key, "absent") == "absent"
    for key in ("k1", "k2", "k3"):
        cache.set(key, "again")
        assert cache.get(key) == "again"
    assert not trace.exists()


def test_row_of_another_program_is_a_miss(open_cache: Open) -> None:
    """Rows without a value, with a value and a number, or under a name that is no UTF-8, disturb no operation."""
    cache = open_cache()
    cache.set("k", "v")
    insert(
        cache,
        [
            (b":1:a", None, None, 1e15, 0, 0, 1),
            (b":1:b", b"", 1, 1e15, 5, 5, 1),
            (b":1:c", b"\x02text", 7, 1e15, 5, 5, 1),
            (b":1:\xff\xfe", b"\x02text", None, 1e15, 5, 5, 1),
            (b":1:" + b"x" * 477, b"\xff\xff\xff\xff", None, 1e15, 5, 5, 1),
        ],
    )
    assert cache.get("a", "absent") in {"absent", None}
    assert cache.get("b", "absent") == "absent"
    assert cache.get_many(["a", "b", "k"])["k"] == "v"
    assert {"k", "c"} <= set(cache.keys())
    for key in ("a", "b", "c"):
        assert cache.touch(key, 60) in {True, False}
        with pytest.raises((ValueError, TypeError)):
            cache.incr(key)
        cache.set(key, 1)
        assert cache.incr(key) == 2
    cache.clear()
    assert cache.keys() == []
