"""Writes that follow Django's transactions: by transaction(using=...), and by an option of the cache."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import json, sys, threading
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="for tests only" * 2,
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "a.db"},
        "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": "b.db"},
    },
    CACHES={
        "default": {"BACKEND": "storeroom.backends.locmem.LocMemCache", "OPTIONS": {"transactional": True}},
        "plain": {"BACKEND": "storeroom.backends.locmem.LocMemCache", "LOCATION": "plain"},
        "never": {
            "BACKEND": "storeroom.backends.locmem.LocMemCache", "LOCATION": "n", "OPTIONS": {"transactional": False}
        },
        "second": {
            "BACKEND": "storeroom.backends.locmem.LocMemCache", "LOCATION": "s", "OPTIONS": {"transactional": "other"}
        },
    },
)
django.setup()
import storeroom
from django.core.cache import cache, caches
from django.db import connection, transaction

def outside(read):
    found = []
    thread = threading.Thread(target=lambda: found.append(read()))
    thread.start()
    thread.join()
    return found[0]

class Undo(Exception):
    pass

result = []
"""


def run(program: str, directory: Path) -> Any:
    """Run a program in a Django project; return its `result`."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{PROGRAM}{program}\nprint(json.dumps(result))"],
        cwd=directory, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def test_writes_follow_atomic(tmp_path: Path) -> None:
    """Writes within atomic() are made when it commits and dropped when it is rolled back; others are made at once."""
    program = """
cache.set("now", 1)
result.append(outside(lambda: cache.get("now")))
with transaction.atomic():
    cache.set("k", "committed")
    cache.incr("now")
    result += [cache.get("k"), cache.get("now"), outside(lambda: caches["default"].get_many(["k", "now"]))]
result.append(outside(lambda: caches["default"].get_many(["k", "now"])))
try:
    with transaction.atomic():
        cache.clear()
        cache.set("k", "rolled back")
        result.append(cache.get_many(["k", "now"]))
        raise Undo
except Undo:
    pass
result.append(cache.get_many(["k", "now"]))
with transaction.atomic():
    cache.set("k", "rolled back, too")
    transaction.set_rollback(True)
result.append(cache.get("k"))
"""
    assert run(program, tmp_path) == [
        1, "committed", 2, {"now": 1}, {"k": "committed", "now": 2}, {"k": "rolled back"},
        {"k": "committed", "now": 2}, "committed",
    ]  # fmt: skip


def test_savepoints_are_followed(tmp_path: Path) -> None:
    """Writes within a savepoint are dropped with it, and are not seen any more."""
    program = """
def attempt(key, fails, inner=None):
    try:
        with transaction.atomic():
            cache.set(key, 1)
            cache.incr("n")
            if inner:
                inner()
            if fails:
                raise Undo
    except Undo:
        pass

keys = ["a", "b", "c", "d", "e", "f", "n"]
cache.set("n", 0)
with transaction.atomic():
    cache.set("a", 1)
    attempt("b", fails=False)
    result.append(cache.get_many(keys))
    attempt("c", fails=True)
    result.append(cache.get_many(keys))
    attempt("d", fails=True, inner=lambda: attempt("e", fails=False))
    result.append(cache.get_many(keys))
    cache.clear()
    cache.set("n", 5)
    attempt("f", fails=True, inner=cache.clear)
    with transaction.atomic(savepoint=False):
        cache.set("g", 1)
    result.append(cache.get_many([*keys, "g"]))
    result.append(outside(lambda: caches["default"].get_many([*keys, "g"])))
result.append(cache.get_many([*keys, "g"]))
with transaction.atomic():
    attempt("late", fails=True)
result.append(cache.get("late"))
"""
    assert run(program, tmp_path) == [
        {"a": 1, "b": 1, "n": 1}, {"a": 1, "b": 1, "n": 1}, {"a": 1, "b": 1, "n": 1},
        {"n": 5, "g": 1}, {"n": 0}, {"n": 5, "g": 1}, None,
    ]  # fmt: skip


def test_using_a_database_holds_back_other_caches_too(tmp_path: Path) -> None:
    """transaction(using=…) holds back the writes of other caches for the block, unless a cache's own option differs."""
    program = """
for using in ("default", "other"):
    with storeroom.transaction(using=using):
        caches["plain"].set("before", 1)
        result.append(outside(lambda: caches["plain"].get("before")))
        try:
            with transaction.atomic(using="default"):
                caches["plain"].set("k", using)
                caches["never"].set("k", using)
                cache.set("k", using)
                raise Undo
        except Undo:
            pass
        result.append([caches["plain"].get("k"), caches["never"].get("k"), cache.get("k")])
with transaction.atomic(using="other"):
    caches["second"].set("k", 1)
    caches["plain"].set("k", 1)
    cache.set("k", 1)
    result.append(outside(lambda: [caches[alias].get("k") for alias in ("second", "plain", "default")]))
result.append(caches["second"].get("k"))
"""
    assert run(program, tmp_path) == [
        1, [None, "default", None], 1, ["other", "other", None], [None, 1, 1], 1,
    ]  # fmt: skip


def test_value_computed_in_a_transaction_is_stored_unless_touched(tmp_path: Path) -> None:
    """A value computed within a transaction is stored at its end, so that requests in transactions fill the cache."""
    program = """
with transaction.atomic():
    result.append(cache.get_or_set("k", lambda: "computed"))
    result.append(cache.get_or_set("l", lambda: "computed"))
    outside(lambda: caches["default"].delete("l"))
    result.append(outside(lambda: caches["default"].get("k")))
result.append(cache.get_many(["k", "l"]))
"""
    assert run(program, tmp_path) == ["computed", "computed", None, {"k": "computed"}]


def test_asynchronous_code_writes_through(tmp_path: Path) -> None:
    """Code on the loop is in no transaction, as Django's belong to threads, and code in a thread is in its own."""
    program = """
import asyncio
from asgiref.sync import sync_to_async

@sync_to_async
def work():
    try:
        with transaction.atomic():
            cache.set("sync", 1)
            raise Undo
    except Undo:
        pass

async def main():
    await cache.aset("k", 1)
    await work()
    result.append(await cache.aget_many(["k", "sync"]))

asyncio.run(main())
"""
    assert run(program, tmp_path) == [{"k": 1}]


def test_a_failing_storage_is_logged_when_all_else_is_done(tmp_path: Path) -> None:
    """A storage that fails after the commit is logged, as Django's robust functions are, and the request goes on."""
    program = """
import logging
from storeroom.exceptions import StorageError
errors = []
handler = logging.Handler()
handler.emit = lambda record: errors.append(record)
logging.getLogger("django.db.backends.base").addHandler(handler)
broken = caches["plain"]
def fail(*_):
    raise StorageError("no room")
broken._set_many = fail
with storeroom.transaction(using="default"), transaction.atomic():
    broken.set("k", 1)
    cache.set("k", 1)
    with transaction.atomic():
        cache.set("l", 1)
    transaction.on_commit(lambda: result.append("called"))
(record,) = errors
result += [record.getMessage(), *record.exc_info[1].__notes__, cache.get_many(["k", "l"])]
"""
    called, message, note, stored = run(program, tmp_path)
    assert called == "called"
    assert message == "Error calling storeroom.transaction in on_commit() during transaction (no room)."
    assert note.startswith("The database has committed; 1 of the cache's changes")
    assert stored == {"k": 1, "l": 1}


def test_a_programs_hook_that_raises_keeps_no_write_back(tmp_path: Path) -> None:
    """A function of on_commit() that raises ends Django's list; the cache's writes come before, and it sees them."""
    program = """
def fails():
    result.append(outside(lambda: caches["default"].get_many(["k", "l"])))
    raise Undo

for is_robust in (False, True):
    cache.clear()
    try:
        with transaction.atomic():
            transaction.on_commit(fails, robust=is_robust)
            cache.set("k", 1)
            with transaction.atomic():
                cache.set("l", 2)
            transaction.on_commit(lambda: result.append("next"))
    except Undo:
        result.append("raised")
    result.append(cache.get_many(["k", "l"]))
"""
    both = {"k": 1, "l": 2}
    assert run(program, tmp_path) == [both, "raised", both, both, "next", both]


def test_low_level_savepoints_are_followed(tmp_path: Path) -> None:
    """savepoint_rollback() drops the writes since its savepoint, and no others."""
    program = """
def kept():
    return sorted(cache.get_many(["a", "b", "c", "d", "e"]))

with transaction.atomic():
    first = transaction.savepoint()  # made before anything is written
    cache.set("a", 1)
    transaction.savepoint_rollback(first)
    result.append(kept())
    cache.set("b", 1)
    second = transaction.savepoint()
    cache.set("c", 1)
    with transaction.atomic():
        cache.set("d", 1)
    result.append(kept())
    transaction.savepoint_rollback(second)
    result.append(kept())
    cache.set("d", 2)
    transaction.savepoint_commit(second)
    third = transaction.savepoint()
    cache.set("e", 1)
    transaction.savepoint_rollback(third)
    result.append(kept())
result += [kept(), outside(lambda: caches["default"].get("d"))]
"""
    assert run(program, tmp_path) == [[], ["b", "c", "d"], ["b"], ["b", "d"], ["b", "d"], 2]
