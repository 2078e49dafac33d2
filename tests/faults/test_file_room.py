"""A file cache without room, in its map or on its disk: no older value outlives one that was refused."""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.filebased import FileBasedCache
from storeroom.exceptions import StorageError
from storeroom.testing.concurrency import in_background
from storeroom.testing.isolation import engines_of_its_own

OLD = 8
NEWER = "none" * 5000

Make = Callable[..., Any]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make caches in one directory, whose map ends soon."""

    def make(size: str = "512k") -> FileBasedCache:
        return FileBasedCache(tmp_path, {"TIMEOUT": None, "OPTIONS": {"max_entries": None, "map_size": size}})

    with engines_of_its_own():
        yield make


def fill(cache: Any, chance: random.Random, *sizes: int) -> None:
    """Fill a storage until it refuses a value of each size."""
    for size in sizes:
        with suppress(StorageError):
            for _ in range(20_000):
                cache.set(f"filler {chance.getrandbits(60)}", "v" * size)


def refuse_all(cache: Any, chance: random.Random, read: Callable[[str], Any]) -> list[str]:
    """Set newer values that find no room, by each way, the room filled up in between; return the keys of older ones."""
    cache.clear()
    for number in range(OLD):
        cache.set(f"old{number}", "admin" * chance.choice([1, 50, 300, 2000]))
    fill(cache, chance, chance.choice([100, 1000, 3000]), 500, 100)
    ways: list[Callable[[str], Any]] = [
        lambda key: cache.set(key, NEWER),
        lambda key: cache.set_many({key: NEWER, f"{key} other": NEWER}),
        lambda key: cache.refresh(key, lambda: NEWER),
        lambda key: cache.set(key, NEWER, tags=["t"]),
    ]
    kept = []
    for number in range(OLD):
        key = f"old{number}"
        with suppress(StorageError):
            ways[number % len(ways)](key)
        if read(key) not in {None, NEWER}:
            kept.append(key)
        if chance.random() < 0.5:
            fill(cache, chance, 1000, 100)
    for key in cache.keys()[:20]:
        cache.delete(key)
        if read(key) is not None:
            kept.append(key)
    return kept


@pytest.mark.parametrize("seed", range(6))
def test_no_older_value_stays_in_a_full_map(make: Make, seed: int) -> None:
    """However the map was filled, a value that is refused takes the older one with it, and deletes are carried out."""
    cache = make(["256k", "512k"][seed % 2])
    assert refuse_all(cache, random.Random(seed), cache.get) == []
    cache._check_invariants()


def test_full_map_grows_no_further(make: Make) -> None:
    """The room for removals is left alone by all that comes later: the file does not grow with each of them."""
    cache, chance = make(), random.Random(0)
    fill(cache, chance, 1000, 100)
    assert refuse_all(cache, chance, cache.get) == []
    before = cache._engine._environment.info()["last_pgno"]
    assert before <= (512 + 256) // 4
    for _ in range(2):
        assert refuse_all(cache, chance, cache.get) == []
    assert cache._engine._environment.info()["last_pgno"] == before
    cache._engine.close()
    assert refuse_all(make(), chance, cache.get) == []
    assert cache._engine._environment.info()["last_pgno"] == before


def test_full_map_can_be_cleared(make: Make) -> None:
    """clear(), and touch() of what is there, find room, too; afterwards there is room for all."""
    cache = make("256k")
    cache.set("first", 1)
    fill(cache, random.Random(0), 1000, 10)
    assert cache.touch("first", 100) is True
    cache.clear()
    cache.set("after", NEWER)
    assert cache.get("after") == NEWER


def test_refusal_holds_nobody_up(make: Make) -> None:
    """A write that finds a full map ends at once: it does not wait for a transaction that it holds on to itself."""
    cache = make("256k")
    fill(cache, random.Random(0), 1000)
    begun = time.monotonic()
    for number in range(5):
        with pytest.raises(StorageError, match=r"max_bytes.*map_size"):
            cache.set(f"k{number}", "v" * 200_000)
    assert time.monotonic() - begun < 4  # 5 s and more it took once


def test_threads_at_work_bear_a_map_that_is_changed(make: Make) -> None:
    """Reads and writes of other threads go on while one finds no room, time and again."""
    cache, is_over = make(), threading.Event()
    cache.set_many({f"k{number}": number for number in range(100)})

    def work() -> None:
        while not is_over.is_set():
            assert cache.get("k1") in {1, None}
            assert set(cache.get_many([f"k{number}" for number in range(100)]).values()) <= set(range(100))
            cache.touch("k2")
            cache.keys()

    threads = [in_background(work) for _ in range(3)]
    try:
        assert refuse_all(cache, random.Random(1), cache.get) == []
    finally:
        is_over.set()
    for thread in threads:
        thread.result(20)


# The disk -----------------------------------------------------------------------------------

FULL_DISK = """
import os, random, shutil, sys
from contextlib import suppress
from pathlib import Path
from storeroom.backends.filebased import FileBasedCache
from storeroom.exceptions import StorageError
from tests.faults.test_file_room import NEWER, fill, refuse_all

def make(name):
    return FileBasedCache(sys.argv[1] + name, {"TIMEOUT": None, "OPTIONS": {"max_entries": None}})

def cut(*_):
    os._exit(7)

def in_child(work):
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

(Path(sys.argv[1]) / "large").write_bytes(bytes(2**20))
for seed in range(3):
    cache, chance = make(f"/{seed}"), random.Random(seed)
    print(refuse_all(cache, chance, cache.get))
    cache._check_invariants()
    # Others find no room first, some of them die when the ballast has gone, and all the same nothing older is read.
    def refuse():
        with suppress(StorageError):
            make(f"/{seed}").set("mine", NEWER)
    def die():
        truncate = os.truncate
        os.truncate = lambda *args: (truncate(*args), cut())
        refuse()
    for work in (die, refuse):
        with suppress(StorageError):
            cache.set("mine", "old")
        fill(cache, chance, 500, 100)
        in_child(work)
        if work is refuse:
            print(cache.get("mine") in (None, NEWER))
    if seed < 2:
        cache.clear()
        cache._engine.close()
        shutil.rmtree(f"{sys.argv[1]}/{seed}")
(Path(sys.argv[1]) / "large").unlink()
cache.set("after", NEWER * 30)
print(cache.get("after") == NEWER * 30)
"""


def test_no_older_value_stays_on_a_full_disk(tmp_path: Path) -> None:
    """On a disk without room likewise, whoever else uses the cache, and is killed there; with room all goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f'mount -t tmpfs -o size=3m tmpfs {disk} && exec {sys.executable} -c "$CODE" {disk}'
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    result = subprocess.run(
        ["unshare", *as_root, "--mount", "sh", "-c", script],
        env=os.environ | {"CODE": FULL_DISK}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.stdout.splitlines() == ["[]", "True"] * 3 + ["True"], result.stderr
