"""Files and SQLite: disk space of removed entries is given back to the file system."""

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from storeroom.backends.db import DatabaseCache
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.filebased.files import _verify

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="holes in files are made on Linux")

LARGE = os.urandom(50_000)
COUNT = 60


@pytest.fixture
def cache(tmp_path: Path) -> FileBasedCache:
    cache = FileBasedCache(str(tmp_path / "cache"), {"OPTIONS": {"max_entries": 10_000}})
    cache.set_many({f"key {number}": LARGE + str(number).encode() for number in range(COUNT)})
    return cache


def on_disk(cache: FileBasedCache) -> int:
    return Path(cache._dir, "storeroom-1/data.mdb").stat().st_blocks * 512


def test_room_of_removed_entries_is_given_back(cache: FileBasedCache) -> None:
    """The file takes room for what is in it; entries stay, further ones find room, and the file is whole."""
    full = on_disk(cache)
    cache.delete_many([f"key {number}" for number in range(0, COUNT, 2)])
    given = cache.give_back()
    assert given is not None
    assert given > 0.8 * COUNT / 2 * len(LARGE)
    assert on_disk(cache) < 0.6 * full
    cache.set_many({f"new {number}": LARGE for number in range(COUNT)})
    assert all(cache.get(f"key {number}") == LARGE + str(number).encode() for number in range(1, COUNT, 2))
    assert all(cache.get(f"new {number}") == LARGE for number in range(COUNT))
    cache.clear()
    assert (cache.give_back() or 0) > COUNT * len(LARGE)
    assert on_disk(cache) < 10 * len(LARGE)
    assert _verify(f"{cache._dir}/storeroom-1/data.mdb") is None
    cache._check_invariants()


def test_a_reader_under_way_keeps_what_it_reads(cache: FileBasedCache) -> None:
    """Pages that a transaction of any process may still read are left as they are, and given back later."""
    with cache._engine.begin() as transaction:
        frames = dict(transaction.cursor())
        cache.clear()
        assert cache.give_back() == 0
        assert dict(transaction.cursor()) == frames
    assert (cache.give_back() or 0) > 0.8 * COUNT * len(LARGE)


def test_nothing_is_given_back_where_nothing_was_removed(cache: FileBasedCache) -> None:
    """Room that was given back once is none to give back again, but for pages of the bookkeeping."""
    cache.give_back()
    assert (cache.give_back() or 0) < len(LARGE)


def test_sqlite_gives_room_back_unless_others_have_tables_there(tmp_path: Path) -> None:
    """The file gets smaller; one in which a program keeps tables of its own is left as it is."""
    path = tmp_path / "cache.db"
    cache = DatabaseCache(f"sqlite:///{path}", {})
    cache.set_many({f"key {number}": LARGE for number in range(COUNT)})
    cache.delete_many([f"key {number}" for number in range(1, COUNT)])
    assert (cache.give_back() or 0) > COUNT / 2 * len(LARGE)
    assert path.stat().st_size < COUNT / 2 * len(LARGE)
    assert cache.get("key 0") == LARGE
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER)")
    assert cache.give_back() is None
