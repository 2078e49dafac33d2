"""clear() in steps: others write in between, and nothing that was there before it gets away."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends import filebased
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.filebased.table import Table
from storeroom.backends.locmem import LocMemCache, contents
from storeroom.base import BaseCache
from storeroom.eviction import BoundedMap
from storeroom.exceptions import KeyNotFoundError
from storeroom.testing import FakeClock

_STEP = 5
_KEYS = [f"key{number}" for number in range(3 * _STEP)]
_LONG = [f"{number} long" + 600 * "x" for number in range(2 * _STEP)]


class _Cut(BaseException):
    """What a signal handler may raise."""


@pytest.fixture(params=["files", "memory"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Open a cache by its prefix; all share a storage, which is cleared in small steps."""
    monkeypatch.setattr(filebased, "LOOKS", _STEP)
    monkeypatch.setattr(contents, "PART", _STEP)
    caches: list[BaseCache] = []

    def open_cache(prefix: str) -> BaseCache:
        kind = FileBasedCache if request.param == "files" else LocMemCache
        params = {"KEY_PREFIX": prefix, "TIMEOUT": None, "OPTIONS": {"max_entries": None}}
        caches.append(kind(str(tmp_path), params))
        return caches[-1]

    yield open_cache
    caches[0]._engine.close()


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Let something be done after each step."""

    def do(work: Callable[[], None]) -> None:
        for kind, name in ((Table, "clear_from"), (BoundedMap, "delete_many")):
            step = getattr(kind, name)

            def stepped(*args: Any, step: Any = step) -> Any:
                try:
                    return step(*args)
                finally:
                    steps.append(threading.Thread(target=work))
                    steps[-1].start()

            monkeypatch.setattr(kind, name, stepped)

    steps: list[threading.Thread] = []
    do.steps = steps  # type: ignore[attr-defined]
    return do


def test_others_write_between_the_steps(opened: Any, between: Any) -> None:
    """A thread that writes waits for a step alone; entries, long keys and tags of this cache go, and no others."""
    mine, others = opened("a"), [opened("a:b"), opened("b")]
    for cache in (mine, *others):
        cache.set_many(dict.fromkeys(_KEYS + _LONG, 1))
        cache.set("tagged", 1, tags=["t"])
    between(lambda: [cache.incr("written", default=0) for cache in others])
    mine.clear()
    for step in between.steps:
        step.join()
    assert mine.keys() == []
    for cache in others:
        assert sorted(cache.keys()) == sorted([*_KEYS, *_LONG, "tagged", "written"])
        assert cache.get("written") == len(between.steps) > len(_KEYS) / _STEP
        assert cache.get("tagged") == 1
    mine._check_invariants()


def test_entry_that_is_moved_meanwhile_does_not_get_away(opened: Any, between: Any) -> None:
    """An entry that would move to where clear() has been is gone; one of another cache moves."""
    mine, other = opened("a"), opened("b")
    outcomes = []

    def move() -> None:
        for cache in (mine, other):
            try:
                outcomes.append((cache is mine, cache.decr_version(_KEYS[-1], version=3)))
            except KeyNotFoundError:
                outcomes.append((cache is mine, None))

    for cache in (mine, other):
        cache.set_many(dict.fromkeys(_KEYS, 1))
        cache.set_many(dict.fromkeys(_KEYS, 1), version=3)
    between(move)
    mine.clear()
    for step in between.steps:
        step.join()
    assert {version for is_mine, version in outcomes if is_mine} == {None}
    assert (False, 2) in outcomes
    assert [mine.keys(version=version) for version in (1, 2, 3)] == [[], [], []]
    assert other.keys(version=2) == [_KEYS[-1]]


def test_clear_that_is_cut_short_keeps_nobody_from_moving_entries(opened: Any, monkeypatch: Any) -> None:
    """What was cleared is gone, all else is whole, and the notice of a clear() that was under way ends."""
    mine, other = opened("a"), opened("b")
    for cache in (mine, other):
        cache.set_many(dict.fromkeys(_KEYS, 1))

    def cut(_: float) -> None:
        raise _Cut

    with FakeClock() as clock:
        with monkeypatch.context() as patched:
            patched.setattr("time.sleep", cut)
            with pytest.raises(_Cut):
                mine.clear()
        assert 0 < mine.count() < len(_KEYS)
        mine._check_invariants()
        clock.advance(11)
        assert mine.incr_version(mine.keys()[0]) == 2
        mine.clear()
        assert mine.count() == mine.count(version=2) == 0
        assert other.count() == len(_KEYS)
