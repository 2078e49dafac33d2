"""A file cache whose file grows beyond this process's map, by another process whose map is larger."""

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.filebased.slotfile import IS_REPLACED
from storeroom.backends.filebased.turns import TakenError, Turns
from storeroom.exceptions import StorageError, ValueTypeError
from storeroom.testing.concurrency import in_background

_MEGABYTE = 2**20

_GROWER = """
    import sys
    from storeroom.backends.filebased import FileBasedCache
    cache = FileBasedCache(sys.argv[1], {"TIMEOUT": None, "KEY_PREFIX": "other", "OPTIONS": {"max_entries": None}})
    cache.set("warm", 1)
    print("ready", flush=True)
    for number, line in enumerate(sys.stdin):
        cache._engine._environment.set_mapsize(int(line))
        for part in range(9):
            cache.set(f"{number} {part}", b"x" * 100_000)
        print("grown", flush=True)
"""

_USER = """
    import os, sys, threading
    from concurrent.futures import ThreadPoolExecutor
    from storeroom.backends.filebased import FileBasedCache
    cache = FileBasedCache(sys.argv[1], {"TIMEOUT": None, "OPTIONS": {"max_entries": None, "map_size": 2**20}})
    cache.set_many({f"key{n}": "v" * 50 for n in range(1000)})
    is_over = threading.Event()

    def work(operation):
        while not is_over.is_set():
            operation()

    with ThreadPoolExecutor() as pool:
        names = [f"key{n}" for n in range(1000)]
        works = [pool.submit(work, operation) for operation in (
            lambda: cache.get("key1"), lambda: cache.get_many(names), cache.keys, cache.count, cache.stats,
            lambda: cache.set("key2", 2), lambda: cache.touch("key3"), cache.prune,
        )]
        print("ready", flush=True)
        sys.stdin.readline()
        is_over.set()
    for each in works:
        each.result()
    assert cache.get("key1") == "v" * 50
    print("well", flush=True)
"""


class _Process:
    def __init__(self, code: str, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(directory)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)

    def hear(self, line: str) -> None:
        """Wait for a line."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        heard = self._process.stdout.readline()
        assert heard.strip() == line, self._process.stderr.read()

    def end(self) -> None:
        self._process.communicate()


@pytest.fixture
def grower(tmp_path: Path) -> Iterator[_Process]:
    process = _Process(_GROWER, tmp_path)
    process.hear("ready")
    yield process
    process.end()


def test_threads_at_work_follow_a_file_that_grows(grower: _Process, tmp_path: Path) -> None:
    """Nobody notices, whatever transactions are under way: the process neither fails nor ends by a signal."""
    user = _Process(_USER, tmp_path)
    try:
        user.hear("ready")
        for size in range(2, 8):
            grower.tell(str(size * _MEGABYTE))
            grower.hear("grown")
        user.tell("end")
        user.hear("well")
    finally:
        user.end()


def _forked(cache: FileBasedCache) -> int:
    child = os.fork()
    if not child:
        os._exit(0 if cache.get("key") == 1 else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _checked(cache: FileBasedCache) -> Any:
    cache._engine.check_after = 0.0
    cache._engine.queues.slots.words[IS_REPLACED] = 1  # for a check that has to write
    return cache.get("key")


_OPERATIONS: list[tuple[Callable[[Any], Any], object]] = [
    (lambda cache: cache.get("key"), 1),
    (lambda cache: cache.get_many(["key"]), {"key": 1}),
    (lambda cache: cache.has_key("key"), True),
    (lambda cache: cache.keys(), ["key"]),
    (lambda cache: cache.count(), 1),
    (lambda cache: cache.stats().entries > 1, True),
    (lambda cache: cache.lock("lock", timeout=9).acquire(), True),
    (_forked, 0),
    (_checked, 1),
    (lambda cache: cache.incr("key"), 2),
    (lambda cache: cache._engine.close(), None),
    (lambda cache: cache.set("key", 3), None),
    (lambda cache: cache.clear(), None),
]


def test_each_kind_of_transaction_follows_a_file_that_grows(grower: _Process, tmp_path: Path) -> None:
    """Whatever meets the larger file first maps it."""
    options = {"max_entries": None, "map_size": _MEGABYTE // 2}
    cache = FileBasedCache(str(tmp_path), {"TIMEOUT": None, "OPTIONS": options})
    cache.set("key", 1)
    for size, (operation, expected) in enumerate(_OPERATIONS, 2):
        grower.tell(str(size * _MEGABYTE))
        grower.hear("grown")
        assert operation(cache) == expected, size
    cache._engine.close()


def test_error_that_is_kept_holds_nobody_up(grower: _Process, tmp_path: Path) -> None:
    """An error refers to the transaction in which it was raised; that one has ended all the same."""
    options = {"max_entries": None, "map_size": _MEGABYTE // 2}
    cache = FileBasedCache(str(tmp_path), {"TIMEOUT": None, "OPTIONS": options})
    cache.set("key", "no number")
    with pytest.raises(ValueTypeError) as kept:
        cache.incr("key")
    grower.tell(str(4 * _MEGABYTE))
    grower.hear("grown")
    assert cache.get("key") == "no number"
    assert kept.tb is not None
    cache._engine.close()


_UNDONE: dict[str, Callable[[FileBasedCache], Any]] = {
    "an error of the call": lambda cache: cache.incr("absent"),
    "the same, asynchronously": lambda cache: asyncio.run(cache.aincr("absent")),
    "a map that is full": lambda cache: cache.set("large", b"x" * 2 * _MEGABYTE),
    "a map that is full, again": lambda cache: cache.set_many({"large": b"x" * 2 * _MEGABYTE}),
}
"""Writes whose transaction is undone."""


def test_write_that_is_undone_waits_for_no_reader(tmp_path: Path) -> None:
    """Threads that read all the time keep no thread from ending its write with an error."""
    cache = FileBasedCache(tmp_path, {"TIMEOUT": None, "OPTIONS": {"max_entries": None, "map_size": _MEGABYTE}})
    names = [f"key{number}" for number in range(100)]
    cache.set_many(dict.fromkeys(names, "v" * 50))
    is_over = threading.Event()

    def read() -> None:
        while not is_over.is_set():
            assert len(cache.get_many(names)) == 100

    def write() -> None:
        for work in _UNDONE.values():
            with pytest.raises((ValueError, StorageError)):
                work(cache)

    readers = [in_background(read) for _ in range(3)]
    try:
        in_background(write).result(60)  # without an end, once
    finally:
        is_over.set()
    for reader in readers:
        reader.result(60)
    cache._check_invariants()
    cache._engine.close()


def test_process_that_looks_in_vain_does_not_wait_for_itself(tmp_path: Path) -> None:
    """The turn that is left to a hungry process is left by those that have had one, not by itself."""
    one, other = Turns(str(tmp_path / "writer")), Turns(str(tmp_path / "writer"))
    for turns in (one, other):
        turns.join(lambda: True)
    left = list[Turns]()
    for turns in (one, other):
        turns._leave_the_next = partial(left.append, turns)  # type: ignore[method-assign]
    one.take()
    for _ in range(3):
        with pytest.raises(TakenError):
            other.take()
        other.give()
        other.note_hunger()
    assert left == []
    one.give()
    assert left == [one]
