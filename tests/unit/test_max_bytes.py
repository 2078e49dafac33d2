"""An entry counts for what the documentation says, in each storage that bounds bytes: docs/eviction.md."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.db import DatabaseCache
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache

KEY, VALUE = "k" * 11, "v" * 10
STORAGE_KEY = f":1:{KEY}"

FORM = 1
"""The byte before a stored value that tells its form."""

STORAGES: dict[str, tuple[Callable[[Path, dict[str, Any]], Any], int]] = {
    "files": (lambda folder, options: FileBasedCache(folder, {"OPTIONS": options}), 109 + FORM),
    "SQLite": (
        lambda folder, options: DatabaseCache("t", {"OPTIONS": options | {"url": f"sqlite:///{folder}/c.sqlite3"}}),
        120 + FORM,
    ),
    "local memory": (
        lambda folder, options: LocMemCache(str(folder), {"OPTIONS": options}),
        200 + sys.getsizeof(STORAGE_KEY) - len(STORAGE_KEY) + sys.getsizeof(VALUE) - len(VALUE),
    ),
}
"""How a cache is made, and the bytes that each entry counts for beside its storage key and its value."""


@pytest.mark.parametrize(("make", "beside"), STORAGES.values(), ids=STORAGES)
def test_an_entry_of_24_bytes_counts_as_documented(
    make: Callable[[Path, dict[str, Any]], Any], beside: int, tmp_path: Path
) -> None:
    """Key and value count with their bytes, and each entry with the same more; so much room lets as many stay."""
    each = len(STORAGE_KEY) + len(VALUE) + beside
    cache = make(tmp_path, {"MAX_ENTRIES": None, "max_bytes": 5 * each})
    for number in range(5):
        cache.set(f"{KEY[:-1]}{number}", VALUE)
        assert cache.stats().bytes == each * (number + 1)
    assert (cache.count(), cache.stats().evictions) == (5, 0)
    cache.set(KEY, VALUE)
    assert cache.get(KEY) == VALUE
    assert (cache.stats().evictions >= 1, cache.stats().bytes == each * cache.count() <= 5 * each) == (True, True)
    cache._engine.close()
