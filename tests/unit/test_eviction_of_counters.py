"""Counters in a full cache: an increment is a look at an entry, and keeps it as a read does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache

BOUNDS: dict[str, Any] = {"TIMEOUT": None, "OPTIONS": {"max_entries": 300}}
BACKENDS: dict[str, Callable[[Path], Any]] = {
    "locmem": lambda folder: LocMemCache(str(folder), BOUNDS),
    "filebased": lambda folder: FileBasedCache(folder, BOUNDS),
}


@pytest.mark.parametrize("delta", [1, -1, 0.5], ids=repr)
@pytest.mark.parametrize("name", BACKENDS)
def test_a_counter_that_is_incremented_alone_outlives_keys_that_come_and_go(
    name: str, delta: Any, tmp_path: Path
) -> None:
    """A counter that is incremented all the time, and never read, is not evicted for more keys than there is room."""
    cache = BACKENDS[name](tmp_path)
    cache.set("counter", 0)
    for number in range(1500):
        cache.set(f"other {number % 400}", number)
        cache.get(f"other {number * 7 % 400}")
        assert cache.incr("counter", delta) == (number + 1) * delta
