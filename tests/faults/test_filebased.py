"""The file cache under real faults: damage, loss, full disks, killed processes, forks."""

import contextlib
import logging
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storeroom import engines
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.filebased.pieces import UNDER_WAY
from storeroom.backends.filebased.slotfile import IS_REPLACED
from storeroom.exceptions import StorageError
from storeroom.testing import FakeClock
from storeroom.testing.concurrency import eventually

VALUE = "v" * 100


def make(directory: Path, **options: Any) -> FileBasedCache:
    return FileBasedCache(str(directory), {"TIMEOUT": None, "OPTIONS": {"max_entries": None} | options})


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[FileBasedCache]:
    cache = make(tmp_path)
    cache.set_many({f"key{n}": VALUE for n in range(500)})
    yield cache
    cache._engine.close()


def data_file(tmp_path: Path) -> Path:
    return tmp_path / "storeroom-1" / "data.mdb"


def python(code: str, *args: str) -> "subprocess.Popen[str]":
    """Start another interpreter on this code, its standard output piped."""
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), *args], stdout=subprocess.PIPE, text=True)


# Damage ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 4096, 8192, 20_000])
def test_truncated_file_is_moved_aside_and_the_cache_starts_empty(
    cache: FileBasedCache, tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A truncated file, which would end a process that maps it, is never mapped."""
    cache._engine.close()
    os.truncate(data_file(tmp_path), size)
    with caplog.at_level(logging.WARNING, "storeroom.filebased"):
        assert cache.get("key1") is None
    cache.set("key1", "new")
    assert cache.get("key1") == "new"
    assert data_file(tmp_path).with_suffix(".mdb.damaged").exists()
    assert "damaged" in caplog.text


def test_foreign_file_is_moved_aside(cache: FileBasedCache, tmp_path: Path) -> None:
    """A file that is not LMDB's is replaced, not read."""
    cache._engine.close()
    data_file(tmp_path).write_bytes(random.Random(1).randbytes(50_000))
    assert cache.get("key1") is None
    cache.set("key1", "new")
    assert cache.get("key1") == "new"


@pytest.mark.parametrize("seed", range(8))
def test_flipped_bytes_never_end_the_process_nor_reach_a_caller_as_an_error(tmp_path: Path, seed: int) -> None:
    """With bytes changed at random the cache answers, with values or with misses, and stays usable."""
    make(tmp_path).set_many({f"key{n}": VALUE for n in range(500)})
    engines.close_all()
    chance = random.Random(seed)
    path = data_file(tmp_path)
    with path.open("r+b") as file:
        for _ in range(20 + 60 * seed):
            file.seek(chance.randrange(8192, path.stat().st_size))
            file.write(bytes([chance.randrange(256)]))
    # A process of its own could end of it.
    child = python(
        """
        import sys
        from storeroom.backends.filebased import FileBasedCache
        cache = FileBasedCache(sys.argv[1], {"TIMEOUT": None, "OPTIONS": {"max_entries": 400}})
        hits = sum(cache.get(f"key{n}") is not None for n in range(500))
        cache.set_many({f"new{n}": n for n in range(100)})
        cache.prune(), cache.keys(), cache.touch("new1", 10), cache.incr("new2"), cache.delete("key3")
        print(sum(cache.get(f"new{n}") is not None for n in range(100)))
        cache.clear()
        """,
        str(tmp_path),
    )
    output, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    assert output.strip() == "100"


def test_damaged_record_is_a_counted_miss(cache: FileBasedCache) -> None:
    """An entry whose bytes make no sense reads as a miss, is counted, and can be written again."""
    with cache._engine.begin(write=True) as transaction:
        transaction.put(b"e:1:key1", b"short")
        record = transaction.get(b"e:1:key2")
        transaction.put(b"e:1:key2", record[:20] + b"\x1e foreign")
        transaction.put(b"e:1:key3", record[:20] + b"\x02\xff\xfe")
    before = cache.stats().errors
    assert cache.get("key1") is None
    assert cache.get("key2") is None
    assert cache.get("key3") is None
    assert cache.get_many(["key2", "key3", "key4"]) == {"key4": VALUE}
    assert cache.stats().errors >= before + 3
    cache.set("key2", "again")
    assert cache.get("key2") == "again"


def test_first_opening_after_a_start_of_the_machine_verifies_the_file(
    cache: FileBasedCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first opening after a start of the machine finds damage by a power cut, and keeps an intact file."""
    cache._engine.close()
    guard = tmp_path / "storeroom-1" / "guard"
    guard.write_text("an earlier start")
    assert cache.get("key1") == VALUE
    cache._engine.close()
    guard.write_text("an earlier start")
    data = data_file(tmp_path).read_bytes()
    with data_file(tmp_path).open("r+b") as file:
        for page in range(0, len(data), 4096):
            if b":key400" in data[page : page + 4096]:  # another one than that of key1
                assert b":key1\x00" not in data[page : page + 4096]
                file.seek(page + 8)
                file.write(b"\xff" * 64)
    with caplog.at_level(logging.WARNING, "storeroom.filebased"):
        assert cache.get("key1") is None
    assert "damaged" in caplog.text


OPENING = """
    import os, signal, sys, time
    from storeroom.backends.filebased import FileBasedCache
    cache = FileBasedCache(sys.argv[1], {"OPTIONS": {"max_entries": None}})
    assert cache.get("key1") is not None
    print("lmdb.verify" in sys.modules, flush=True)
    if "killed" in sys.argv:
        cache.set("more", 1)
    if "killed while it writes" in sys.argv:
        signal.setitimer(signal.ITIMER_REAL, 0.05)  # its default is to end the process
        while True:
            cache.set_many(dict.fromkeys(map(str, range(30)), 1))
    if len(sys.argv) > 2:
        os.kill(os.getpid(), 9)
"""


def verifies(tmp_path: Path, *args: str) -> bool:
    """Tell whether a process that opens the cache reads the whole file first."""
    output, _ = python(OPENING, str(tmp_path), *args).communicate(timeout=60)
    return {"True": True, "False": False}[output.strip()]


@pytest.mark.parametrize("end", [(), ("killed",), ("killed without a write",), ("killed while it writes",)])
def test_file_is_as_its_last_user_left_it_however_that_one_ended(
    cache: FileBasedCache, tmp_path: Path, end: tuple[str, ...]
) -> None:
    """An opening costs nothing, after a clean exit as after a kill at any moment."""
    cache._engine.close()
    for _ in range(2):
        assert not verifies(tmp_path, *end)
    assert not verifies(tmp_path)


@pytest.mark.parametrize("change", ["a write", "an older copy", "no slots", "no notes", "another start"])
def test_file_that_something_else_may_have_changed_is_verified(
    cache: FileBasedCache, tmp_path: Path, change: str
) -> None:
    """It is read whole where its last user was killed and the notes do not fit, and no more by the one after."""
    directory, path = tmp_path / "storeroom-1", data_file(tmp_path)
    cache._engine.close()
    older, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    for _ in range(2):
        assert not verifies(tmp_path, "killed")
    time.sleep(0.02)  # the time of a change may lag by a tick of the clock
    if change == "a write":
        path.touch()
    elif change == "an older copy":
        path.write_bytes(older)
        os.utime(path, ns=times)
    elif change == "another start":
        (directory / "slots").write_bytes((directory / "slots").read_bytes()[:16] + bytes(8))
    else:
        (directory / {"no slots": "slots", "no notes": "writer"}[change]).unlink()
    assert verifies(tmp_path)
    assert not verifies(tmp_path)


def test_other_process_notices_that_the_files_were_replaced(cache: FileBasedCache, tmp_path: Path) -> None:
    """A process with the files open opens their replacements about a second after they were moved aside."""
    for name in ("data.mdb", "lock.mdb"):
        (tmp_path / "storeroom-1" / name).replace(tmp_path / "storeroom-1" / f"{name}.damaged")
    cache._engine.check_after = 0.0  # as if a second had passed
    assert cache.get("key1") is None
    cache.set("key1", "new")
    child = python(
        """
        import sys
        from storeroom.backends.filebased import FileBasedCache
        print(FileBasedCache(sys.argv[1], {}).get("key1"))
        """,
        str(tmp_path),
    )
    assert child.communicate(timeout=60)[0].strip() == "new"


def test_directory_removed_while_in_use_is_made_again(cache: FileBasedCache, tmp_path: Path) -> None:
    """``rm -r`` of the directory of a running program empties the cache and nothing more."""
    subprocess.run(["rm", "-r", str(tmp_path / "storeroom-1")], check=True)
    cache._engine.check_after = 0.0  # as if a second had passed
    assert cache.get("key1") is None
    cache.set("key1", "new")
    assert cache.get("key1") == "new"


# Permissions ----------------------------------------------------------------------------


def test_files_are_private(tmp_path: Path) -> None:
    """Directories that the cache makes are 0700 and files 0600, whatever the umask."""
    old_umask = os.umask(0)
    try:
        cache = make(tmp_path / "a" / "b")
        cache.set("key", "value")
    finally:
        os.umask(old_umask)
    for path in (tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "storeroom-1"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in (tmp_path / "a" / "b" / "storeroom-1").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    """Values are trusted as only this user can write them: another user's directory is not used."""
    foreign = tmp_path / "storeroom-1"
    foreign.mkdir(mode=0o700)
    os.chown(foreign, 12345, 12345)
    with pytest.raises(StorageError, match="belongs to user number 12345"):
        make(tmp_path).get("key")


# Room -----------------------------------------------------------------------------------

FULL_DISK = """
import sys
from storeroom.backends.filebased import FileBasedCache
from storeroom.exceptions import StorageError

cache = FileBasedCache(sys.argv[1] + "/first", {"TIMEOUT": None, "OPTIONS": {"max_entries": None}})
stored = 0
try:
    while True:
        cache.set(f"key{stored}", "v" * 1000)
        stored += 1
except StorageError as error:
    print("full:", "The disk is full" in str(error))
print("intact:", all(cache.get(f"key{n}") == "v" * 1000 for n in range(stored)), stored > 100)
try:
    FileBasedCache(sys.argv[1] + "/second", {}).set("key", "value")
except StorageError as error:
    print("second:", "No space" in str(error))
cache.clear()
cache.set("after", "value")
print("after:", cache.get("after"), cache.get("key1"))
"""


def test_full_disk_is_an_error_that_damages_nothing(tmp_path: Path) -> None:
    """On a disk without room a set fails by name, reads go on, and clear() makes room again."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f'mount -t tmpfs -o size=4m tmpfs {disk} && exec {sys.executable} -c "$CODE" {disk}'
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    result = subprocess.run(
        ["unshare", *as_root, "--mount", "sh", "-c", script],
        env=os.environ | {"CODE": FULL_DISK},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stdout.splitlines() == [
        "full: True",
        "intact: True True",
        "second: True",
        "after: value None",
    ], result.stderr
    assert result.returncode == 0


def test_file_at_its_greatest_size_says_which_option_to_raise(tmp_path: Path) -> None:
    """Reaching map_size is an error that names the options that help."""
    cache = make(tmp_path, map_size="256k")

    def fill() -> None:
        for number in range(1000):
            cache.set(f"key{number}", "v" * 1000)

    with pytest.raises(StorageError, match=r"max_bytes.*map_size"):
        fill()
    assert cache.get("key0") == "v" * 1000


def test_value_of_64_mebibytes_is_stored(tmp_path: Path) -> None:
    """Values of at least 64 MiB fit."""
    cache = make(tmp_path)
    value = random.Random(2).randbytes(64 * 2**20)
    cache.set("large", value)
    assert cache.get("large") == value
    cache._engine.close()


def test_formats_of_two_versions_share_a_location(cache: FileBasedCache, tmp_path: Path) -> None:
    """A later format keeps its files in a directory of its own name, so neither disturbs the other."""
    later = tmp_path / "storeroom-2"
    later.mkdir()
    (later / "data.mdb").write_bytes(b"a format of the future")
    assert cache.get("key1") == VALUE
    cache.clear()
    assert (later / "data.mdb").read_bytes() == b"a format of the future"


# Processes ------------------------------------------------------------------------------

WRITER = """
import sys
from storeroom.backends.filebased import FileBasedCache
cache = FileBasedCache(sys.argv[1], {"TIMEOUT": None, "OPTIONS": {"max_entries": 300}})
print("ready", flush=True)
number = 0
while True:
    number += 1
    size = number % 3000 if number % 10 else 300_000 if number % 20 else 2_500_000
    cache.set(f"key{number % 500}", f"{number}:" + "v" * size)
"""

READER = """
import sys
from storeroom.backends.filebased import FileBasedCache
cache = FileBasedCache(sys.argv[1], {"TIMEOUT": None, "OPTIONS": {"max_entries": 300}})
print("ready", flush=True)
while True:
    cache.get_many([f"key{n}" for n in range(500)])
"""


def test_killed_writers_and_readers_leave_no_lock_and_no_bad_value(tmp_path: Path) -> None:
    """SIGKILL at any moment: the next process writes at once, and every value is whole."""
    chance = random.Random(3)
    for _ in range(6):
        children = [python(WRITER, str(tmp_path)), python(READER, str(tmp_path))]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.01, 0.05))  # the moment of death is the point
        for child in children:
            child.send_signal(signal.SIGKILL)
            child.communicate(timeout=10)
    cache = make(tmp_path, max_entries=300)
    cache.set("alive", "yes")
    values = cache.get_many([f"key{n}" for n in range(500)])
    assert 0 < len(values) <= 300
    for key, value in values.items():
        number = int(value.partition(":")[0])
        assert key == f"key{number % 500}"
        assert value == f"{number}:" + "v" * (number % 3000 if number % 10 else 300_000 if number % 20 else 2_500_000)
    assert cache.stats().entries == cache.count() <= 300
    with cache._engine.begin() as transaction:
        assert transaction.stat()["entries"] > 0
    assert "12345678" not in cache._engine._environment.readers()
    cache._check_invariants()
    with FakeClock() as clock:
        clock.advance(61)
        cache.prune()
    with cache._engine.begin() as transaction:
        assert [key for key, _ in transaction.cursor() if key.startswith(UNDER_WAY)] == []
    cache._check_invariants()


def fork_writer(cache: FileBasedCache, seconds: float) -> int:
    """Start a process that writes all the time, for so long; return its number."""
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                cache.set_many(dict.fromkeys(map(str, range(30)), 1))
            status = 0
        os._exit(status)
    return child


@pytest.mark.long
def test_killed_waiting_writers_leave_the_last_one_its_turn(tmp_path: Path) -> None:
    """Of four processes that wait for each other's writes three are killed; the fourth goes on, and comes to its end.

    LMDB's own mutex fails this in one round of ten: who is woken and killed at that moment wakes no other.
    """
    cache, chance = make(tmp_path), random.Random(1)
    for _ in range(40):
        last, *others = [fork_writer(cache, 0.1) for _ in range(4)]
        for child in others:
            time.sleep(chance.uniform(0.01, 0.03))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        patience = time.monotonic() + 10
        while not (ended := os.waitpid(last, os.WNOHANG))[0]:
            if time.monotonic() > patience:
                os.kill(last, signal.SIGKILL)
                os.waitpid(last, 0)
                pytest.fail("the last process waits for ever")
            time.sleep(0.002)
        assert os.waitstatus_to_exitcode(ended[1]) == 0
    cache._check_invariants()


WRITES_FOR_EVER = """
import sys, time
from storeroom.backends.filebased import FileBasedCache
turns = FileBasedCache(sys.argv[1], {})._engine.turns
with turns.taken(), turns.begin(write=True):
    print("ready", flush=True)
    time.sleep(60)
"""


def test_read_waits_for_no_write_that_made_the_slots_anew(tmp_path: Path) -> None:
    """A process reads on while another is writing all the time, though the other has put new slots in place of the old.

    So it does while a thread of its own waits to write.
    """
    cache = make(tmp_path)
    cache.set("k", "v")
    grow = "import sys; from storeroom.backends.filebased import FileBasedCache as F\n"
    grow += "F(sys.argv[1], {'OPTIONS': {'max_entries': None}}).set_many({str(n): n for n in range(2_000)})\n"
    child = python(grow + WRITES_FOR_EVER, str(tmp_path))
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    writer = threading.Thread(target=cache.set, args=("late", 1))
    began = time.monotonic()
    try:
        for _ in range(2):
            cache._engine.check(time.time())  # as a read does once a second
            assert cache.get("k") == "v"
            if writer.ident is None:
                writer.start()
        assert time.monotonic() - began < 10
    finally:
        child.kill()
        child.communicate(timeout=10)
        writer.join()
    assert cache.get("late") == 1


def test_engine_closes_in_silence_when_slots_were_replaced_and_the_folder_removed(tmp_path: Path) -> None:
    """A process whose folder was removed ends without an error, its last counts lost."""
    cache = make(tmp_path)
    cache.set("k", "v")
    slots = cache._engine.queues.slots
    slots.words[IS_REPLACED] = 1  # as another process does, that makes more of them
    shutil.rmtree(tmp_path / "storeroom-1")
    cache._engine.close()


def test_stale_readers_of_killed_processes_are_cleared(tmp_path: Path) -> None:
    """A reader that was killed in mid-read holds no slot once the environment is opened again."""
    cache = make(tmp_path)
    cache.set("key", "value")
    child = python(
        """
        import sys, time
        from storeroom.backends.filebased import FileBasedCache
        cache = FileBasedCache(sys.argv[1], {})
        cache.get("key")
        transaction = cache._engine.begin()
        print("ready", flush=True)
        time.sleep(60)
        """,
        str(tmp_path),
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    assert str(child.pid) in cache._engine._environment.readers()
    child.kill()
    child.communicate(timeout=10)
    cache._engine.close()
    assert cache.get("key") == "value"
    assert str(child.pid) not in cache._engine._environment.readers()


def test_fork_after_first_use_works_in_child_and_parent(cache: FileBasedCache) -> None:
    """A preloaded program may use the cache before it forks; both sides go on, again and again."""
    for number in range(5):
        assert cache.get("key1") == VALUE
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                cache.set(f"child{number}", "written")
                status = 0 if cache.get("key1") == VALUE else 2
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert cache.get(f"child{number}") == "written"


def test_fork_while_threads_read_and_write(cache: FileBasedCache) -> None:
    """A fork in the midst of other threads' work leaves a child that works and a parent that goes on."""
    stop, failures = threading.Event(), []

    def work(number: int) -> None:
        try:
            while not stop.is_set():
                cache.set(f"thread{number}", "x")
                assert cache.get("key1") == VALUE
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(5):
            child = os.fork()
            if child == 0:
                status = 1
                with contextlib.suppress(BaseException):
                    cache.set(f"child{number}", "written")
                    status = 0 if cache.get(f"child{number}") == "written" else 2
                os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert all(cache.get(f"child{number}") == "written" for number in range(5))


def test_environment_opened_by_another_lmdb_version_is_readable(tmp_path: Path) -> None:
    """The file is of LMDB's 0.9 format, which every release of the binding reads."""
    cache = make(tmp_path)
    cache.set("key", "value")
    assert cache._engine._environment.lib_version()[:2] == (0, 9)
    with data_file(tmp_path).open("rb") as file:
        file.seek(20)
        assert int.from_bytes(file.read(4), sys.byteorder) == 1  # MDB_DATA_VERSION of 0.9


def test_who_waits_to_add_counts_holds_up_no_fork(tmp_path):
    """A fork has the turn, and waits for all who hold the environment: nobody does who waits for the turn."""
    cache = FileBasedCache(str(tmp_path / "cache"), {})
    cache.set("k", 1)
    engine = cache.engine
    environment = engine._environment  # one variable is on it, as in a fork
    adding = threading.Thread(target=engine.add_counts, args=(10.0,))
    with engine.turns.threads:
        adding.start()
        eventually(lambda: sys._current_frames()[adding.ident].f_code.co_name == "taken")
        is_idle = engine._let_transactions_end(0.0)
    adding.join()
    engine.begin = environment.begin
    assert is_idle
    assert cache.get("k") == 1
