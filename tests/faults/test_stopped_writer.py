"""A process is stopped within a write, by Ctrl-Z, a debugger or a paused container: the others wait, and not for long.

The write of each kind of file is real, and so is SIGSTOP.
"""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.sessions.backends import cache as sessions

from storeroom import WriteTimeoutError
from storeroom.backends.db import DatabaseCache
from storeroom.backends.filebased import FileBasedCache
from storeroom.base import BaseCache
from storeroom.engines import close_all
from storeroom.exceptions import StorageError
from storeroom.testing.concurrency import eventually, in_background, in_threads

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system stops no process")

WAIT = 0.3
#: What a busy machine may add to a wait.
SLACK = 2.0

WRITE = {
    "file": """
from storeroom.backends.filebased import FileBasedCache
turns = FileBasedCache(sys.argv[1], {})._engine.turns
with turns.taken(5), turns.begin(write=True):
""",
    "sqlite": """
import sqlite3
session = sqlite3.connect(sys.argv[1] + "/cache.sqlite3", isolation_level=None)
session.execute("BEGIN IMMEDIATE")
if True:
""",
}
REST = """
    print("ready", flush=True)
    sys.stdin.readline()
"""

Make = Callable[..., BaseCache]


@pytest.fixture(params=WRITE)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make(kind: str, tmp_path: Path) -> Iterator[Make]:
    """Make caches of one location, with these options."""

    def make(**options: Any) -> BaseCache:
        if kind == "file":
            return FileBasedCache(tmp_path, {"OPTIONS": {"write_timeout": WAIT, **options}})
        url = f"sqlite:///{tmp_path}/cache.sqlite3"
        return DatabaseCache("cache", {"OPTIONS": {"busy_timeout": WAIT, "url": url, **options}})

    yield make
    close_all()


@pytest.fixture
def stop(kind: str, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Stop a process in the midst of a write; return it."""
    children = []

    def stop() -> subprocess.Popen[str]:
        code = f"import sys{WRITE[kind]}{REST}"
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGSTOP)
        return child

    yield stop
    for child in children:
        child.kill()
        child.communicate(timeout=10)


def resume(child: subprocess.Popen[str]) -> None:
    """Let a stopped process end its write."""
    child.send_signal(signal.SIGCONT)
    child.communicate("\n", timeout=10)


def stores(cache: BaseCache, value: str) -> bool:
    """Tell whether a write is carried out: a breaker lets one a second through."""
    try:
        cache.set("k", value)
    except StorageError:
        return False
    return True


def took(work: Callable[[], Any]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def test_a_write_waits_for_its_timeout_and_follows_the_policy(make: Make, stop: Callable[..., Any]) -> None:
    """Writes are dropped and counted, reads go on, and no older value is served for one that was to be replaced."""
    cache = make()
    cache.set_many({"k": "before", "other": "before", "n": 1})
    child = stop()
    assert took(lambda: cache.set("k", "after")) < WAIT + SLACK
    assert cache.set_many({"k": "after"}) == ["k"]
    assert cache.add("new", 1) is False
    assert cache.touch("other", 60) is False
    assert cache.get_or_set("computed", lambda: "value") == "value"
    for operation in (lambda: cache.incr("n"), lambda: cache.invalidate_tags("t"), cache.clear):
        with pytest.raises(StorageError):
            operation()
    assert cache.stats().errors >= 5
    resume(child)
    eventually(lambda: cache.set_many({"back": 1}) == [])
    assert cache.get_many(["k", "other", "back", "n"]) == {"other": "before", "back": 1, "n": 1}


def test_reads_go_on(make: Make, stop: Callable[..., Any], kind: str) -> None:
    """Reads of a process that has the files open wait for nobody; but for keys whose writes were dropped."""
    cache = make(on_error="miss")
    cache.set_many({"k": "before", "other": "before"})
    assert cache.get("k") == "before"
    stop()
    assert took(lambda: cache.get("k")) < SLACK
    cache.set("k", "after")
    assert cache.stats().errors == 1
    if kind == "file":  # a breaker keeps reads from a database that is taken for down
        assert cache.get_many(["k", "other"]) == {"other": "before"}
        assert cache.get("k") is None
        assert cache.has_key("k") is False


def test_raise_names_the_likely_reason(make: Make, stop: Callable[..., Any], kind: str) -> None:
    """Under "raise" the error says that a process may have been stopped."""
    cache = make(on_error="raise")
    cache.set("k", "before")
    child = stop()
    for _ in range(2):
        with pytest.raises(WriteTimeoutError if kind == "file" else StorageError, match=r"stopped|locked"):
            cache.set("k", "after")
    child.kill()
    child.wait(10)
    eventually(lambda: stores(cache, "after"))
    assert cache.get("k") == "after"


def test_a_process_that_opens_the_files_waits_no_longer(make: Make, stop: Callable[..., Any]) -> None:
    """A write within which its process had the files for itself is waited for no longer, by reads and by writes."""
    cache = make()
    cache.set("k", "before")
    close_all()
    child = stop()
    cache = make(on_error="raise")
    with pytest.raises(StorageError):
        cache.set("k", "after")
    assert cache.stats().entries in (None, 0, 1)
    child.kill()
    child.wait(10)
    eventually(lambda: stores(cache, "after"))
    assert cache.get("k") == "after"


def test_threads_wait_at_the_same_time(make: Make, stop: Callable[..., Any]) -> None:
    """Each of many threads waits for its own timeout, and not for those of the others as well."""
    cache = make()
    cache.set("k", 1)
    stop()
    waits = in_threads(12, lambda number: took(lambda: cache.set(f"k{number}", 1)))
    assert max(waits) < WAIT + SLACK


def test_another_alias_answers(make: Make, stop: Callable[..., Any], kind: str) -> None:
    """Under "fallback" another cache takes the write."""
    import storeroom

    storeroom.configure({"default": {"BACKEND": "storeroom.backends.locmem.LocMemCache", "LOCATION": f"fall {kind}"}})
    cache = make(on_error="fallback:default")
    cache.set("k", "before")
    stop()
    cache.set("k", "after")
    assert storeroom.cache.get("k") == "after"


def test_a_word_for_each_family_of_operations(make: Make, stop: Callable[..., Any]) -> None:
    """Writes, counters and clear() each follow their own word."""
    cache = make(on_error={"write": "raise", "count": "none", "whole": "miss"})
    cache.set("n", 1)
    assert cache.get("n") == 1
    child = stop()
    for operation in (lambda: cache.set("k", 1), lambda: cache.add("k", 1), lambda: cache.delete("n")):
        with pytest.raises(StorageError):
            operation()
    assert cache.incr("n") is None
    assert asyncio.run(cache.aincr("n", default=0)) is None
    assert cache.incr_version("n") is None
    cache.clear()
    assert cache.prune() == 0
    resume(child)
    eventually(lambda: stores(cache, "after"))
    assert cache.get("k") == "after"


def test_a_new_session_of_djangos_is_tried_once(make: Make, stop: Callable[..., Any]) -> None:
    """Its key is known by the prefix of Django's class: for False Django would try 10,000 others."""
    key = f"{sessions.SessionStore.cache_key_prefix}0123"
    cache = make()
    assert cache.add(key, {}) is True
    assert cache.add(key, {}) is False, "it is there already"
    stop()
    for work in (lambda: cache.add(f"{key}4", {}), lambda: asyncio.run(cache.aadd(f"{key}4", {}))):
        with pytest.raises(StorageError):
            work()
    assert cache.add("another", 1) is False


async def longest_pause(work: Any) -> float:
    """Return for how long the event loop stood still while it did some work."""
    task = asyncio.ensure_future(work)
    longest, last = 0.0, time.monotonic()
    while not task.done():
        await asyncio.sleep(0.001)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    await task
    return longest


@pytest.mark.parametrize("is_open", [True, False], ids=["open before", "opened now"])
def test_no_event_loop_stands_still(make: Make, stop: Callable[..., Any], is_open: bool) -> None:
    """Asynchronous operations wait in threads; the loop goes on."""
    cache = make(write_timeout=1.5) if isinstance(make(), FileBasedCache) else make(busy_timeout=1.5)
    cache.set("k", 1)
    if not is_open:
        close_all()
    stop()

    async def work() -> None:
        await asyncio.gather(
            cache.aset("k", 2), cache.aget("other"), cache.aset_many({"l": 1}), cache.adelete("m"),
            cache.aget_or_set("n", lambda: 1), cache.aget_many(["o"]),
        )  # fmt: skip

    assert asyncio.run(longest_pause(work())) < 1.0


INTERRUPTED = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process ignores it
sys.path[:0] = {path!r}
from storeroom import configure, cache
configure({{"default": {alias!r}}})
print("ready", flush=True)
try:
    cache.set("k", 1)
    print("written")
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_a_signal_is_answered_and_the_process_ends(kind: str, tmp_path: Path, make: Make, stop: Any) -> None:
    """Ctrl-C ends a wait at once, and the process ends then: it leaves its counts for nobody's turn."""
    make().set("k", 0)
    stop()
    alias = {
        "file": {"BACKEND": "storeroom.backends.filebased.FileBasedCache", "LOCATION": str(tmp_path)},
        "sqlite": {
            "BACKEND": "storeroom.backends.db.DatabaseCache",
            "LOCATION": "cache",
            "OPTIONS": {"url": f"sqlite:///{tmp_path}/cache.sqlite3"},
        },
    }[kind]
    key = "write_timeout" if kind == "file" else "busy_timeout"
    alias.setdefault("OPTIONS", {})[key] = 60
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED.format(path=sys.path, alias=alias)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.5)
    assert child.poll() is None
    begun = time.monotonic()
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=10)[0] == "interrupted\n"
    assert time.monotonic() - begun < SLACK


def test_a_handlers_error_ends_the_wait(make: Make, stop: Callable[..., Any]) -> None:
    """What a signal handler raises reaches a writer that waits, which then writes nothing and leaves nothing locked."""
    cache = make(write_timeout=60) if isinstance(make(), FileBasedCache) else make(busy_timeout=60)
    cache.set("k", "before")
    child = stop()

    def interrupt(*_: object) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(InterruptedError):
            cache.set("k", "after")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert cache.get("k") == "before"
    child.kill()
    child.wait(10)
    eventually(lambda: stores(cache, "after"))
    assert cache.get("k") == "after"


def test_close_waits_for_no_turn(make: Make, stop: Callable[..., Any]) -> None:
    """An engine that is closed, or forgotten, adds its counts only if it gets a turn at once."""
    cache = make()
    cache.set("k", 1)
    cache.get("k")
    stop()
    assert in_background(took, close_all).result(10) < SLACK
