"""Files of a file cache that a cleaner of temporary files removes, or that a backup reads, while processes use them."""

import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.filebased.files import is_in_use

WORKER = """
    import os, shutil, sys, time
    from storeroom.backends.filebased import FileBasedCache
    name, directory, habit = sys.argv[1:]
    cache = FileBasedCache(directory, {"TIMEOUT": None, "OPTIONS": {"max_entries": 100_000}})
    rounds, deadline = 0, time.monotonic() + 100
    with open(f"{directory}/{name}", "w") as begun:
        while time.monotonic() < deadline:
            cache.incr("counter", default=0)
            cache.set(f"{name}{rounds % 500}", f"{name}{rounds % 500} " * (rounds % 200 + 1))
            for other in "ab":
                key = f"{other}{rounds * 7 % 500}"
                assert cache.get(key, key).split()[0] == key
            rounds += 1
            begun.write(".")
            begun.flush()
            if rounds % 20 == 0 and os.path.exists(f"{directory}/end"):
                break
            if rounds % 50 == 0 and habit == "copies":
                shutil.copytree(f"{directory}/storeroom-1", f"{directory}/copy", dirs_exist_ok=True)
            if rounds % 50 == 0 and habit == "closes":
                cache._engine.close()
    print(rounds)
"""


def worker(name: str, directory: Path, habit: str = "") -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WORKER), name, str(directory), habit],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_rounds(name: str, directory: Path, rounds: int) -> None:
    deadline = time.monotonic() + 60
    path = directory / name
    while not path.exists() or path.stat().st_size < rounds:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("names", [["lock.mdb"], ["lock.mdb", "writer", "slots", "guard"]], ids=" ".join)
def test_removed_lock_files_are_noticed(tmp_path: Path, names: list[str]) -> None:
    """Two processes, one from before and one from after the removal, lose no entry and no count, and neither ends."""
    processes = [worker("a", tmp_path)]
    wait_for_rounds("a", tmp_path, 100)
    for name in names:
        (tmp_path / "storeroom-1" / name).unlink()
    processes.append(worker("b", tmp_path))
    wait_for_rounds("b", tmp_path, 200)
    wait_for_rounds("a", tmp_path, (tmp_path / "a").stat().st_size + 200)
    assert_nothing_was_lost(tmp_path, *processes)


def assert_nothing_was_lost(tmp_path: Path, *processes: "subprocess.Popen[str]") -> None:
    (tmp_path / "end").touch()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    assert [error for _, error in outputs] == [""] * len(processes)
    cache = FileBasedCache(tmp_path, {})
    assert cache.get("counter") == sum(int(output) for output, _ in outputs)
    assert cache.has_key("a0")
    cache._check_invariants()
    assert not list((tmp_path / "storeroom-1").glob("*.damaged"))


def test_copies_from_within_a_process_disturb_nobody(tmp_path: Path) -> None:
    """One process copies the directory again and again, which drops its locks, while another opens the cache anew."""
    processes = worker("a", tmp_path, "copies"), worker("b", tmp_path, "closes")
    for name in "ab":
        wait_for_rounds(name, tmp_path, 1500)
    assert_nothing_was_lost(tmp_path, *processes)


def test_slots_that_were_removed_are_made_anew(tmp_path: Path) -> None:
    """A process goes on with new slots about a second after the old ones were removed; its entries are there."""
    cache = FileBasedCache(tmp_path, {})
    cache.set("k", [1])
    (tmp_path / "storeroom-1" / "slots").unlink()
    cache._engine.check_after = 0.0  # as if a second had passed
    assert cache.get("k") == [1]
    cache.set("k2", [2])
    assert (tmp_path / "storeroom-1" / "slots").exists()
    cache._check_invariants()


def test_a_copy_made_by_the_same_process_leaves_the_cache_in_use(tmp_path: Path) -> None:
    """A backup closes lock.mdb, which drops this process's locks on it; others still see that it is in use."""
    cache = FileBasedCache(tmp_path / "cache", {})
    cache.set("k", [1])
    shutil.copytree(tmp_path / "cache", tmp_path / "copy")
    code = f"import sys; from {is_in_use.__module__} import is_in_use; print(is_in_use(sys.argv[1]))"
    lock = tmp_path / "cache" / "storeroom-1" / "lock.mdb"
    child = subprocess.run([sys.executable, "-c", code, lock], capture_output=True, text=True, check=True, timeout=60)
    assert child.stdout.strip() == "True"
    assert cache.get("k") == [1]


def test_a_reader_whose_lock_a_copy_has_dropped_takes_it_again(tmp_path: Path) -> None:
    """Others would take the places of a living process for those of a dead one, and write over what it reads."""
    cache = FileBasedCache(tmp_path / "cache", {})
    cache.set("k", [1])
    assert cache.get("k") == [1]
    shutil.copytree(tmp_path / "cache", tmp_path / "copy")
    cache._engine.check_after = 0.0  # as if a second had passed
    assert cache.get("k") == [1]
    code = """
        import sys, lmdb
        print(lmdb.open(sys.argv[1], max_readers=2048, map_size=2**20).reader_check())
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "cache" / "storeroom-1")]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout == "0\n"


def test_a_folder_replaced_before_the_clock_was_put_back_is_noticed(tmp_path: Path) -> None:
    """Files are looked at again at once where the clock shows a time before the last look."""
    cache = FileBasedCache(tmp_path, {})
    cache.set("k", [1])
    shutil.move(tmp_path / "storeroom-1", tmp_path / "old")
    cache._engine.checked_at, cache._engine.check_after = time.time() + 3600, time.time() + 3601
    assert cache.get("k") is None
    cache.set("k", [2])
    assert FileBasedCache(tmp_path, {}).get("k") == [2]
    assert (tmp_path / "storeroom-1" / "data.mdb").exists()


def test_a_forked_child_holds_nothing_of_its_parent(tmp_path: Path) -> None:
    """A child that lives on does not make a cache look used that its parent has closed."""
    cache = FileBasedCache(tmp_path, {})
    cache.set("k", [1])
    reading, writing = os.pipe()
    told, tells = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.write(tells, b".")  # what a fork lets go of is gone now
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    assert os.read(told, 1)
    os.close(told)
    os.close(tells)
    cache._engine.close()
    holds_used = cache.get("k"), cache._engine._holds.is_data_used()
    cache._engine.close()
    assert holds_used == ([1], True)  # by this process itself
    assert (tmp_path / "storeroom-1" / "guard").stat().st_size > 0  # the note of who closed it last
    os.close(writing)
    os.waitpid(child, 0)


def test_files_in_use_stay_young(tmp_path: Path) -> None:
    """Cleaners go by the times of files: an open cache sets them now and then, but for the last write of the data."""
    cache = FileBasedCache(tmp_path, {})
    cache.set("k", [1])
    old = time.time() - 30 * 86400
    for path in (tmp_path / "storeroom-1").iterdir():
        os.utime(path, (old, old))
    cache._engine._holds._touch_at = 0.0  # as if an hour had passed
    cache._engine.check_after = 0.0
    assert cache.get("k") == [1]
    for path in (tmp_path / "storeroom-1").iterdir():
        assert path.stat().st_atime > old + 86400
        assert path.stat().st_mtime > old + 86400 or path.name == "data.mdb"
