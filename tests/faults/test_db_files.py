"""The database cache in SQLite files that are damaged, replaced, removed, locked, or on a full disk."""

import asyncio
import gc
import inspect
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from storeroom import timeouts
from storeroom.backends.db import DatabaseCache
from storeroom.testing.concurrency import eventually, in_background, in_threads
from storeroom.testing.isolation import engines_of_its_own

Make: TypeAlias = Callable[..., DatabaseCache]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.sqlite3"


@pytest.fixture
def make(path: Path) -> Iterator[Make]:
    """Make caches of a table "t" in the file."""

    def make(**options: Any) -> DatabaseCache:
        return DatabaseCache("t", {"TIMEOUT": None, "OPTIONS": {"url": f"sqlite:///{path}", **options}})

    with engines_of_its_own():
        yield make


def remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


# Damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["get", "set", "get_many", "aget"])
def test_damaged_file_is_put_aside(
    make: Make, path: Path, caplog: pytest.LogCaptureFixture, operation: str, called: Callable[..., Any]
) -> None:
    """A damaged file, whichever operation finds it, is replaced by a new one, and one line in the log tells of it."""
    make().set("k", "v")
    make()._engine.close()
    remove(path)
    path.write_bytes(os.urandom(20_000))
    cache = make()
    arguments: dict[str, tuple[Any, ...]] = {"set": ("k", "new"), "get_many": (["k"],)}
    found = called(getattr(cache, operation), *arguments.get(operation, ("k",)))
    assert not found
    cache.set("k", "new")
    assert cache.get("k") == "new"
    assert Path(f"{path}.damaged").exists()
    assert [record.levelname for record in caplog.records if "is damaged" in record.getMessage()] == ["ERROR"]
    assert cache.stats().errors == 0


@pytest.fixture
def called() -> Callable[..., Any]:
    """Call a method, and run its coroutine if it returns one."""

    def run(method: Callable[..., Any], *args: Any) -> Any:
        result = method(*args)
        return asyncio.run(result) if inspect.iscoroutine(result) else result

    return run


@pytest.mark.parametrize("page", [0, 1, 2, 3, 4, 5])
def test_damaged_page_is_noticed_and_no_value_is_made_up(make: Make, path: Path, page: int) -> None:
    """A page that was overwritten while no process had the file open makes misses, and can be written to again."""
    cache = make(max_entries=None)
    expected = {f"k{number}": f"value {number}" * 20 for number in range(200)}
    cache.set_many(expected)
    cache._engine.close()
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()
    content = bytearray(path.read_bytes())
    assert len(content) > 5 * 4096
    content[page * 4096 : (page + 1) * 4096] = bytes(255 for _ in range(4096))
    path.write_bytes(content)
    reader = make(max_entries=None, max_connections=3)
    for key, value in expected.items():
        assert reader.get(key) in {None, value}
    found = reader.get_many(expected)
    assert found.items() <= expected.items()
    assert reader.set_many(expected) == []
    assert reader.get_many(expected) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel for the locks of a file")
def test_locks_on_the_file_outlive_a_further_connection(make: Make, path: Path) -> None:
    """A connection that is opened and closed beside another leaves the process's locks on the file as they were."""
    cache = make()
    cache.set("k", "v")
    number = str(path.stat().st_ino)

    def locks() -> list[str]:
        fields = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        return [" ".join(each[1:4]) for each in fields if each[-3].rpartition(":")[2] == number]

    held = locks()
    assert held
    # Closing any descriptor of a file drops its process's locks: another would then take the log for nobody's.
    session = cache._engine.database.connect()
    assert locks() == held
    cache._engine.database.close(session)
    assert locks() == held


def test_file_of_many_that_begin_at_once_is_made_once(make: Make, path: Path) -> None:
    """Many handles that begin at once make the file and its log alone, readable by this user only."""
    caches = [make(max_connections=2 + number) for number in range(8)]
    together = threading.Barrier(len(caches))

    def write(number: int) -> None:
        together.wait(10)
        caches[number].set(f"k{number}", number)

    in_threads(len(caches), write)
    assert caches[0].count() == 8
    assert {each.name for each in path.parent.iterdir()} == {path.name, f"{path.name}-wal", f"{path.name}-shm"}
    assert {each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == {0o600}


def test_file_that_was_removed_is_made_anew(make: Make, path: Path) -> None:
    """A write after the file was removed makes a new one at once, which other handles read, too."""
    cache = make()
    cache.set("k", "v")
    remove(path)
    cache.set("k", "new")
    assert path.exists()
    assert cache.get("k") == "new"
    assert make(max_connections=3).get("k") == "new"


def test_file_that_was_replaced_is_read_within_a_second(make: Make, path: Path, tmp_path: Path) -> None:
    """A file that was replaced, as by a backup, is read within a second."""
    cache = make()
    cache.set("k", "before")
    cache._engine.close()
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)").connection.close()
    backup = path.read_bytes()
    cache.set("k", "after")
    cache._engine.close()
    remove(path)
    path.write_bytes(backup)
    cache._engine._look_after = timeouts.now() - 1
    assert cache.get("k") == "before"


def test_directory_that_was_removed_is_made_anew(make: Make, path: Path) -> None:
    """A write after the file's directory was removed makes both anew."""
    cache = make(url=f"sqlite:///{path.parent}/deep/cache.sqlite3")
    cache.set("k", "v")
    remove(path.parent / "deep" / "cache.sqlite3")
    (path.parent / "deep").rmdir()
    cache.set("k", "new")
    assert cache.get("k") == "new"


# Others ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_another_writer_is_waited_for_and_not_for_ever(make: Make, path: Path) -> None:
    """While another writes, reads go on and writes give up in the end, without a claim that they were stored."""
    cache = make(busy_timeout=0.2)
    cache.set("k", "v")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert cache.get("k") == "v"
    assert cache.set_many({"k": "late"}) == ["k"]
    assert cache.add("new", 1) is False
    assert cache.touch("k", 60) is False
    other.execute("ROLLBACK")
    other.close()
    eventually(lambda: cache.set_many({"back": 1}) == [])
    assert cache.get_many(["k", "new"]) == {}, "the old value of a write that was dropped does not come back"


@pytest.mark.slow
def test_a_short_transaction_of_another_is_waited_for(make: Make, path: Path) -> None:
    """A write waits for another's short transaction and is then stored."""
    cache = make()
    cache.set("k", "v")
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    setting = in_background(cache.set, "k", "waited")
    threading.Event().wait(0.1)
    other.execute("COMMIT")
    other.close()
    setting.result(10)
    assert cache.get("k") == "waited"


def test_threads_of_a_process_wait_in_turn(make: Make) -> None:
    """Threads of a process wait for each other's writes, and none gives up, however short busy_timeout is."""
    cache = make(busy_timeout=0.05)
    cache.set("n", 0)
    in_threads(8, lambda number: [cache.set(f"k{number}", turn) or cache.incr("n") for turn in range(100)])
    assert cache.get("n") == 800
    assert cache.stats().errors == 0


@pytest.mark.slow
def test_event_loop_goes_on_while_another_writes(make: Make, path: Path) -> None:
    """An event loop stays on time while another writes, even where reads write down which entries were used."""
    cache = make(max_entries=5000)
    keys = [f"k{number}" for number in range(3000)]
    cache.set_many(dict.fromkeys(keys, 1))
    cache._engine.close()
    other = sqlite3.connect(path, isolation_level=None)

    async def read_all() -> None:
        for key in keys:
            assert await cache.aget(key) == 1
            await asyncio.sleep(0)

    async def work() -> float:
        other.execute("BEGIN IMMEDIATE")
        tasks = [asyncio.create_task(cache.aset(f"new{number}", 1)) for number in range(20)]
        tasks.append(asyncio.create_task(read_all()))
        begun = last = time.perf_counter()
        longest = 0.0
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0.001)
            longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
            if other.in_transaction and last - begun > 1.5:
                other.execute("ROLLBACK")
        await asyncio.gather(*tasks)
        return longest

    try:
        assert asyncio.run(work()) < 0.75
    finally:
        other.close()


def test_many_loops_in_many_threads_leave_nothing_behind(make: Make, recwarn: pytest.WarningsRecorder) -> None:
    """Loops of several threads count together, share few workers and leave no warning."""
    cache = make(max_connections=4)
    cache.set("n", 0)

    async def work() -> None:
        await asyncio.gather(*(cache.aincr("n") for _ in range(10)), *(cache.aget("n") for _ in range(10)))

    in_threads(6, lambda _: [asyncio.run(work()) for _ in range(3)])
    assert cache.get("n") == 180
    assert sum(thread.name.startswith("storeroom-db") for thread in threading.enumerate()) <= 4
    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []


def test_cancelled_task_leaves_the_file_in_order(make: Make) -> None:
    """A batch whose task is cancelled is stored as a whole or not at all, and nothing stays locked."""
    cache = make(max_connections=3, max_entries=None)
    chance = random.Random(5)

    async def work() -> None:
        for turn in range(40):
            data = {f"{turn}-{number}": turn for number in range(50)}
            tasks = [asyncio.create_task(operation) for operation in (cache.aset_many(data), cache.aget_many(data))]
            await asyncio.sleep(chance.random() * 0.001)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert len(await cache.aget_many(data)) in {0, 50}

    asyncio.run(work())
    cache._check_invariants()


# Room -----------------------------------------------------------------------------------------

FULL_DISK = """
import sys
import time
from pathlib import Path
from storeroom.backends.db import DatabaseCache
from storeroom.exceptions import StorageError

disk = Path(sys.argv[1])
ballast = disk / "ballast"
ballast.write_bytes(bytes(2**21))
options = {"url": f"sqlite:///{disk}/cache.sqlite3", "max_entries": None}
calm = DatabaseCache("t", {"TIMEOUT": None, "OPTIONS": options})
cache = DatabaseCache("t", {"TIMEOUT": None, "OPTIONS": options | {"on_error": "raise"}})
stored = 0
try:
    while True:
        cache.set(f"key{stored}", "v" * 1000)
        stored += 1
except StorageError as error:
    print("full:", "Its disk is full: make room" in str(error))
print("intact:", all(cache.get(f"key{n}") == "v" * 1000 for n in range(stored)), stored > 20)
print("not stored:", cache.get(f"key{stored}"))
large, errors = "v" * 500_000, calm.stats().errors
begun = time.monotonic()
print("calm:", calm.set("l", large), calm.add("l", large), calm.set_many({"a": large, "b": large}))
print("computed:", calm.get_or_set("l", lambda: large) == large, time.monotonic() - begun < 2)
print("counted:", calm.stats().errors - errors >= 4, calm.get_many(["l", "a", "b"]))
ballast.unlink()
cache.set("after", "value")
print("after:", cache.get("after"), cache.get("key1") == "v" * 1000)
cache._check_invariants()
cache.clear()
print("cleared:", cache.keys())
"""


@pytest.mark.slow
def test_full_disk_is_an_error_that_damages_nothing(tmp_path: Path) -> None:
    """On a full disk writes store nothing, or raise where that is the policy; reads and later writes are in order."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f'mount -t tmpfs -o size=4m tmpfs {disk} && exec {sys.executable} -c "$CODE" {disk}'
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    result = subprocess.run(
        ["unshare", *as_root, "--mount", "sh", "-c", script],
        env=os.environ | {"CODE": FULL_DISK}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.stdout.splitlines() == [
        "full: True", "intact: True True", "not stored: None", "calm: None False ['a', 'b']", "computed: True True",
        "counted: True {}", "after: value True", "cleared: []",
    ], result.stderr  # fmt: skip


NO_ROOM = """
import asyncio, random, sys
from contextlib import suppress
from pathlib import Path
from storeroom.backends.db import DatabaseCache
from storeroom.exceptions import StorageError
from tests.faults import test_file_room
from tests.faults.test_file_room import NEWER, refuse_all

disk, fill = Path(sys.argv[1]), test_file_room.fill
(disk / "large").write_bytes(bytes(2**20))
options = {"url": f"sqlite:///{disk}/cache.sqlite3", "max_entries": None}
calm, other = (DatabaseCache(table, {"TIMEOUT": None, "OPTIONS": options}) for table in ("t", "other"))
loud = DatabaseCache("t", {"TIMEOUT": None, "OPTIONS": options | {"on_error": "raise"}})
test_file_room.fill = lambda _, *args: fill(loud, *args)
for seed in range(4):
    chance = random.Random(seed)
    print(refuse_all(calm, chance, calm.get))
    calm.set("counter", 1, timeout=60)
    calm.set_many(dict.fromkeys(["a", "b", "c", "d"], "old"))
    other.set("a", "old")
    fill(loud, chance, 1000, 100)
    for refused in (lambda: loud.set("a", NEWER * 9), lambda: asyncio.run(loud.aset("b", NEWER * 9))):
        try:
            refused()
        except StorageError as error:
            print("make room" in str(error))
    asyncio.run(calm.aset_many({"c": NEWER * 9, "new": NEWER * 9}))
    for change in (lambda: calm.touch("d", 60), lambda: calm.incr("counter")):
        with suppress(StorageError):
            change()
    print(calm.get_many(["a", "b", "c", "new"]), calm.get("d") == "old", calm.get("counter") in (1, 2), other.get("a"))
    print(asyncio.run(calm.adelete("d")), calm.has_key("d"))
calm._check_invariants()
calm.clear()
print(calm.keys(), other.keys())
(disk / "large").unlink()
calm.set("after", NEWER)
print(calm.get("after") == NEWER)
"""


@pytest.mark.slow
def test_no_older_value_stays_on_a_full_disk(tmp_path: Path) -> None:
    """A value that finds no room takes the older one with it, each time; deletes find room, and other entries stay."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f'mount -t tmpfs -o size=4m,mode=700 tmpfs {disk} && exec {sys.executable} -c "$CODE" {disk}'
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    result = subprocess.run(
        ["unshare", *as_root, "--mount", "sh", "-c", script],
        env=os.environ | {"CODE": NO_ROOM}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    each = ["[]", "True", "True", "{} True True old", "True False"]
    assert result.stdout.splitlines() == [*each * 4, "[] ['a']", "True"], result.stderr


@pytest.mark.slow
def test_three_hundred_thousand_keys_in_one_call(make: Make) -> None:
    """Calls of any number of keys are split into statements that the database allows."""
    cache = make(max_entries=None)
    expected = {f"k{number}": number for number in range(0, 300_000, 1000)}
    cache.set_many(expected)
    every = [f"k{number}" for number in range(300_000)]
    assert cache.get_many(every) == expected
    cache.delete_many(every)
    assert cache.stats().entries == 0


def test_get_many_sees_one_moment(make: Make) -> None:
    """A get_many() of several statements finds a set_many() as a whole or not at all."""
    cache = make(max_entries=None)
    keys = [f"k{number}" for number in range(1200)]
    cache.set_many(dict.fromkeys(keys, 0))
    done = threading.Event()

    def write() -> None:
        turn = 0
        while not done.is_set():
            turn += 1
            cache.set_many(dict.fromkeys(keys, turn))

    writing = in_background(write)
    try:
        for _ in range(10):
            assert len(set(cache.get_many(keys).values())) == 1
    finally:
        done.set()
        writing.result(10)
