"""Two entries of files that are read together: from memory, until anything is committed."""

from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.filebased import FileBasedCache, transactions
from storeroom.eviction import MOST_HITS
from storeroom.storage.hooks import MISSING, StorageHooks
from storeroom.testing import FakeClock
from storeroom.timeouts import NEVER


@pytest.fixture
def cache(tmp_path: Path) -> Any:
    cache = FileBasedCache(tmp_path, {})
    cache.set_many({"a": "text", "b": b"bytes"}, timeout=None)
    yield cache
    cache._engine.close()


def both(cache: Any, first: str = "a", second: str = "b") -> Any:
    keys = cache._storage_key(first, None), cache._storage_key(second, None)
    found = cache._get_together(keys)
    assert found == StorageHooks._get_together(cache, keys)
    return found


def kept(cache: Any) -> bool:
    """Tell whether the next read looks for nothing in the files."""
    both(cache)
    first = both(cache)
    return all(one is another for one, another in zip(first, both(cache), strict=True))


def test_a_pair_is_kept_from_its_second_read_on(cache: Any) -> None:
    """The first two are counted, as eviction counts no more."""
    slots = cache._engine.queues.slots
    hits = [sum(slots.hits)]
    keys = cache._storage_key("a", None), cache._storage_key("b", None)
    read = []
    for _ in range(4):
        read.append(cache._get_together(keys))
        hits.append(sum(slots.hits))
    assert hits == [0, 2, 2 * MOST_HITS, 2 * MOST_HITS, 2 * MOST_HITS]
    assert read == [("text", b"bytes")] * 4
    assert read[1][1] is read[2][1] is read[3][1]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda cache: cache.set("b", b"new"), ("text", b"new")),
        (lambda cache: cache.set("a", "new"), ("new", b"bytes")),
        (lambda cache: cache.delete("b"), ("text", MISSING)),
        (lambda cache: cache.clear(), (MISSING, MISSING)),
        (lambda cache: FileBasedCache(cache._dir, {}).set("b", b"new"), ("text", b"new")),
        (lambda cache: cache.set("b", 7), ("text", 7)),
        (lambda cache: (cache._engine.close(), cache.set("b", b"new")), ("text", b"new")),
        (lambda cache: cache.set("other", 1), ("text", b"bytes")),
    ],
)
def test_a_change_is_seen_at_once(cache: Any, change: Any, expected: Any) -> None:
    """By this handle, by another one, and after the files were closed and opened."""
    assert kept(cache)
    change(cache)
    assert both(cache) == both(cache) == expected


def test_an_entry_that_expires_is_not_kept_longer(tmp_path: Path) -> None:
    """Not one second, though nothing is committed."""
    with FakeClock() as clock:
        cache = FileBasedCache(tmp_path, {})
        cache.set("a", "text", timeout=None)
        cache.set("b", b"bytes", timeout=0.5)
        assert kept(cache)
        clock.advance(0.5)
        assert both(cache) == ("text", MISSING)


def test_only_short_texts_and_bytes_are_kept(cache: Any) -> None:
    """Nobody can change them, and their number is bounded."""
    cache.set("list", [1])
    cache.set("large", bytes(transactions._LARGEST_TOGETHER))
    for second in ("list", "large", "absent"):
        both(cache, "a", second)
    assert not cache._engine.open_turns.together
    cache.set_many({f"k{number}": b"" for number in range(200)}, timeout=None)
    for number in range(200):
        both(cache, "a", f"k{number}")
    assert 0 < len(cache._engine.open_turns.together) <= transactions._TOGETHER


def test_handles_with_other_secrets_do_not_share_a_pair(tmp_path: Path) -> None:
    """A value that one has verified is nothing to another one."""
    own, other = (FileBasedCache(tmp_path, {"OPTIONS": {"secret": secret}}) for secret in ("s" * 32, "t" * 32))
    own.set_many({"a": "text", "b": b"bytes"}, timeout=None)
    assert kept(own)
    assert both(other) == (MISSING, MISSING)
    assert both(own) == ("text", b"bytes")


def test_files_that_were_removed_are_not_kept(cache: Any) -> None:
    """Within a second, as for every read."""
    with FakeClock() as clock:
        assert kept(cache)
        for path in Path(cache._engine.directory).iterdir():
            path.unlink()
        clock.advance(2)
        assert both(cache) == (MISSING, MISSING)


def test_an_entry_without_end_is_kept(cache: Any) -> None:
    """NEVER is later than any clock."""
    assert cache._get_dated([cache._storage_key("a", None)]) == {cache._storage_key("a", None): ("text", NEVER)}
    assert kept(cache)
