"""set_many() and delete_many() of very many keys in files: in steps, between which others write."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.filebased import FileBasedCache, transactions
from storeroom.backends.filebased.transactions import LOOKS
from storeroom.exceptions import StorageError
from storeroom.testing.concurrency import in_background

_STEP = 5
_KEYS = [f"key{number}" for number in range(3 * _STEP)]


class _Cut(BaseException):
    """What a signal handler may raise."""


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Any]:
    cache = FileBasedCache(str(tmp_path), {"TIMEOUT": None, "OPTIONS": {"max_entries": None, "map_size": "3MB"}})
    cache.set("other", 1)
    yield cache
    cache._engine.close()


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], list[Any]]:
    """Let another thread do something after each step; return the list of its results."""
    monkeypatch.setattr(transactions, "LOOKS", _STEP)

    def do(work: Callable[[], Any]) -> list[Any]:
        results: list[Any] = []
        caller = threading.get_ident()

        def in_between(_: float) -> None:
            if threading.get_ident() == caller:  # what an earlier test has left in the background may sleep, too
                results.append(in_background(work).result(20))

        monkeypatch.setattr("time.sleep", in_between)
        return results

    return do


def test_others_write_between_the_steps(cache: Any, between: Any) -> None:
    """Others see each step as a whole, and need not wait for the next one."""
    seen = between(lambda: (cache.incr("other"), cache.count())[1])
    cache.set_many(dict.fromkeys(_KEYS, 1))
    assert seen == [1 + _STEP, 1 + 2 * _STEP]
    seen.clear()
    cache.delete_many(_KEYS)
    assert seen == [1 + 2 * _STEP, 1 + _STEP]
    assert cache.get("other") == 5
    cache._check_invariants()


def test_of_a_call_that_is_cut_short_whole_steps_remain(cache: Any, between: Any, monkeypatch: Any) -> None:
    """Its first keys are stored, or removed, and the others are as they were."""

    def cut(_: float) -> None:
        raise _Cut

    between(int)
    cache.set_many(dict.fromkeys(_KEYS, "old"))
    with monkeypatch.context() as patched:
        patched.setattr("time.sleep", cut)
        with pytest.raises(_Cut):
            cache.set_many(dict.fromkeys(_KEYS, "new"))
        assert [cache.get(key) for key in _KEYS] == ["new"] * _STEP + ["old"] * 2 * _STEP
        with pytest.raises(_Cut):
            cache.delete_many(_KEYS)
    assert [cache.get(key) for key in _KEYS] == [None] * _STEP + ["old"] * 2 * _STEP
    cache._check_invariants()


def test_no_older_value_stays_where_a_later_step_finds_no_room(cache: Any, between: Any) -> None:
    """The steps before are stored; of the refused one and those after it, the older values are gone."""
    seen = between(int)
    cache.set_many(dict.fromkeys(_KEYS, "old"))
    seen.clear()
    values = dict.fromkeys(_KEYS, "new") | dict.fromkeys(_KEYS[_STEP + 1 : 2 * _STEP], "v" * 900_000)
    with pytest.raises(StorageError, match="map_size"):
        cache.set_many(values)
    assert [cache.get(key) for key in _KEYS] == ["new"] * _STEP + [None] * 2 * _STEP
    cache._check_invariants()


@pytest.mark.parametrize(("count", "size", "steps"), [(LOOKS, 10, 1), (LOOKS + 1, 10, 2), (3, 2**20, 1), (5, 2**20, 2)])
def test_few_keys_and_bytes_are_one_step(tmp_path: Path, monkeypatch: Any, count: int, size: int, steps: int) -> None:
    """Up to 500 keys of 4 MiB together are stored at once, for all who read; more take several steps."""
    cache: Any = FileBasedCache(str(tmp_path), {"TIMEOUT": None, "OPTIONS": {"max_entries": None}})
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    cache.set_many({str(number): b"v" * (size - 20) for number in range(count)})
    assert len(pauses) == steps - 1
    assert cache.count() == count
    cache._engine.close()
