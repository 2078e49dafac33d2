"""Many storages in one process, at once and one after the other: descriptors, threads and memory stay bounded."""

import asyncio
import gc
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import clear_cache

import pytest

from storeroom import caches, configure
from storeroom.backends.db import DatabaseCache
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.base import BaseCache
from storeroom.engines import close_all
from storeroom.engines import engine as engines
from storeroom.testing.concurrency import eventually, in_threads
from storeroom.testing.isolation import engines_of_its_own
from tests.faults.kinds import MEMCACHED, Site, kinds

#: The bound, here: so few engines have files or connections open.
OPEN = 2

#: Calls of configure(), of which any that left something behind would be noticed.
HUNDREDS: Final = 200

#: Caches that are used before what is left is counted.
_ROUND: Final = 10
#: Configurations, for each of which an object that is left would be noticed.
MORE = 8


def files(folder: Path, number: int) -> BaseCache:
    return FileBasedCache(folder / f"cache{number}", {})


def files_with_near_tier(folder: Path, number: int) -> BaseCache:
    return FileBasedCache(folder / f"cache{number}", {"OPTIONS": {"near": {}}})


def database(folder: Path, number: int) -> BaseCache:
    return DatabaseCache("cache", {"OPTIONS": {"url": f"sqlite:///{folder}/cache{number}.sqlite3"}})


def table(folder: Path, number: int) -> BaseCache:
    return DatabaseCache(f"cache{number}", {"OPTIONS": {"url": f"sqlite:///{folder}/cache.sqlite3"}})


def memory(folder: Path, number: int) -> BaseCache:
    return LocMemCache(f"{folder} {number}", {})


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Few engines may be open, or unused; those of tests before do not count."""
    close_all()
    monkeypatch.setattr(engines, "_engines", {})
    monkeypatch.setattr(engines, "MAX_OPEN", OPEN)
    monkeypatch.setattr(engines, "_many", 0)
    with engines_of_its_own():
        yield


def taken() -> tuple[int, int]:
    """Return the descriptors and the threads of this process."""
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def use(cache: BaseCache, number: int) -> None:
    cache.set("k", number)
    assert cache.get("k") == number
    assert asyncio.run(cache.aget("k")) == number


def check_is_flat(open_cache: Callable[[int], BaseCache]) -> None:
    """Use one cache after the other; raise AssertionError if the later ones take more than the first ones did."""
    counted = []
    for number in range(8 * OPEN):
        use(open_cache(number), number)
        counted.append((*taken(), len(engines._engines)))
    first, later = counted[: 4 * OPEN], counted[4 * OPEN :]
    for before, now in zip(zip(*first, strict=True), zip(*later, strict=True), strict=True):
        assert min(now) <= max(before)  # they rise until unused ones are looked for, and fall again


@pytest.mark.parametrize("make", [files, files_with_near_tier, database, table])
def test_caches_one_after_the_other_take_no_more_than_a_few(few: None, tmp_path: Path, make: Any) -> None:
    """Engines that no handle uses are closed and forgotten, whatever they had open."""
    check_is_flat(lambda number: make(tmp_path, number))


@kinds("redis", "pymemcache", "postgresql", "mariadb")
def test_configurations_one_after_the_other_leave_nothing_at_a_server(few: None, site: Site) -> None:
    """Connections and threads of configurations before are closed, those of near tiers among them."""
    check_is_flat(lambda number: site.cache(socket_timeout=20 + number, near={}))


def check_keeps_no_objects(open_cache: Callable[[int], BaseCache]) -> None:
    """Use one cache after the other; raise AssertionError if objects of each are still there long after it."""
    counted = []
    for number in range(4 * _ROUND):
        cache = open_cache(number)
        cache.set("k", number)
        assert cache.get("k") == number
        del cache
        if number % _ROUND == _ROUND - 1:
            clear_cache()  # of the URLs parsed last, which the standard library remembers
            gc.collect()
            counted.append(len(gc.get_objects()))
    _, second, third, fourth = counted
    assert min(third - second, fourth - third) < _ROUND  # not even one of each; threads of others may come and go


@pytest.mark.parametrize("make", [files, files_with_near_tier, database, table])
def test_caches_one_after_the_other_keep_no_objects(few: None, tmp_path: Path, make: Any) -> None:
    """Of engines that no handle uses nothing is left in memory."""
    check_keeps_no_objects(lambda number: make(tmp_path, number))


def test_bounds_one_after_the_other_keep_no_objects(few: None, tmp_path: Path) -> None:
    """Local memory of one name, opened with other bounds each time, keeps its entries alone."""
    check_keeps_no_objects(lambda number: LocMemCache(str(tmp_path), {"OPTIONS": {"max_entries": 100 + number}}))


def objects_left() -> int:
    """Return how many objects there are when no engine is left: of those that nobody uses some are kept."""
    close_all()
    engines._engines.clear()
    clear_cache()
    gc.collect()
    return len(gc.get_objects())


@pytest.mark.slow
@kinds("redis", *MEMCACHED, "postgresql", "mariadb")
def test_configurations_one_after_the_other_leave_no_object_behind(few: None, site: Site) -> None:
    """A program that is configured anew over and over again does not grow, by an object each time at the most."""
    numbers = itertools.count()

    def objects_after_more() -> int:
        for number in itertools.islice(numbers, MORE):
            use(site.cache(socket_timeout=20 + number, near={}), number)
        return objects_left()

    objects_after_more()  # some things are made once
    before, _ = objects_after_more(), objects_after_more()
    eventually(lambda: objects_left() - before < MORE)  # threads may be about to end


@pytest.mark.long
@pytest.mark.slow
@kinds("redis", *MEMCACHED, "postgresql", "mariadb")
def test_hundreds_of_configurations_take_no_more_than_the_first(
    site: Site, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that calls configure() again and again has as many descriptors, threads and objects after it all."""
    monkeypatch.setattr(engines, "_engines", {})  # those of tests before do not count
    monkeypatch.setattr(engines, "_many", 2 * engines.MAX_OPEN)
    before, counted, objects = caches.swap(None), list[tuple[int, ...]](), list[int]()
    cache = site.cache()
    alias = {"BACKEND": type(cache), "LOCATION": "cache", "TIMEOUT": 60}
    options = {"url": site.server.url()} if kind in ("postgresql", "mariadb") else {}
    if not options:
        scheme = "redis://" if kind == "redis" else ""
        alias["LOCATION"] = f"{scheme}127.0.0.1:{site.server.port}"
    try:
        for number in range(HUNDREDS):
            timeouts = {"socket_timeout": 20 + number / 1000, "socket_connect_timeout": 20}
            near = {"near": {}} if number % 3 == 0 else {}
            configure({"default": {**alias, "KEY_PREFIX": f"many{number}", "OPTIONS": {**options, **timeouts, **near}}})
            caches["default"].set("k", number)
            assert caches["default"].get("k") == number
            counted.append((*taken(), len(engines._engines)))
            if number % 100 == 99:
                objects.append(objects_left())
    finally:
        caches.swap(before)
        close_all()
    first, last = counted[: HUNDREDS // 2], counted[-HUNDREDS // 3 :]
    for then, now in zip(zip(*first, strict=True), zip(*last, strict=True), strict=True):
        assert max(now) - max(then) < HUNDREDS // 10  # on a busy machine some end a moment later
    assert objects[-1] - objects[0] < HUNDREDS - 100  # not even one of each


def test_memory_that_no_handle_uses_is_kept(few: None, tmp_path: Path) -> None:
    """Local memory is the storage itself: its entries wait for the next handle."""
    for number in range(10 * OPEN):
        memory(tmp_path, number).set("k", number)
    assert [memory(tmp_path, number).get("k") for number in range(10 * OPEN)] == list(range(10 * OPEN))


@pytest.mark.parametrize("make", [files, database])
def test_of_many_caches_in_use_few_have_files_open(few: None, tmp_path: Path, make: Any) -> None:
    """The cache used least recently closes its files, and opens them again when it is used; nothing is lost."""
    before, _ = taken()
    caches = [make(tmp_path, number) for number in range(4 * OPEN)]
    for number, cache in enumerate(caches):
        cache.set("k", number)
    assert [cache.get("k") for cache in caches] == list(range(4 * OPEN))
    assert taken()[0] <= before + 9 * OPEN
    assert sum(engine.opened > 0 for engine in engines._engines.values()) == OPEN
    close_all()
    assert taken()[0] <= before


def test_aliases_in_one_place_share_what_is_open(few: None, tmp_path: Path) -> None:
    """Tables of one file share connections, and each remains a cache of its own."""
    caches = [table(tmp_path, 0)]
    use(caches[0], 0)
    before = taken()
    caches += [table(tmp_path, number) for number in range(1, 4 * OPEN)]
    for number, cache in enumerate(caches):
        use(cache, number)
    assert taken() == before
    assert [cache.get("k") for cache in caches] == list(range(4 * OPEN))
    caches[1].clear()
    assert [cache.count() for cache in caches[:3]] == [1, 0, 1]
    child = os.fork()
    if not child:
        os._exit([cache.get("k") for cache in caches[:3]] == [0, None, 2])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert caches[2].get("k") == 2
    for file in tmp_path.iterdir():
        file.unlink()
    for number, cache in enumerate(caches):
        use(cache, number)


def test_a_cache_in_use_is_not_closed(few: None, tmp_path: Path) -> None:
    """An environment within a transaction stays open, whatever else is opened meanwhile; it rests later."""
    first, *others = [files(tmp_path, number) for number in range(4 * OPEN)]
    first.set("k", 0)
    engine: Any = first.engine
    with engine.begin() as transaction:
        environment = engine._environment
        for number, cache in enumerate(others):
            cache.set("k", number)
        assert engine._environment is environment
        assert transaction.stat(engine.main_database)["entries"]
    del transaction, environment
    for cache in others:
        cache.get("k")
    assert engine._environment is None
    assert first.get("k") == 0


@pytest.mark.parametrize("make", [files, database])
def test_threads_at_more_caches_than_may_be_open_lose_nothing(few: None, tmp_path: Path, make: Any) -> None:
    """Caches that close one another all the time answer every thread as if they did not."""
    caches = [make(tmp_path, number) for number in range(2 * OPEN)]
    for cache in caches:
        cache.set("n", 0)

    def count(thread: int) -> None:
        for turn in range(20):
            cache = caches[(thread + turn) % len(caches)]
            cache.incr("n")
            assert cache.get("n") > 0

    in_threads(4, count)
    assert sum(cache.get("n") for cache in caches) == 80
