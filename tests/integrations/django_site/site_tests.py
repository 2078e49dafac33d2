"""The tests of the project: TestCase takes back what a test has cached, and each worker has a cache of its own."""

import asyncio
import gc
import os
import threading
import time
import unittest
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.core.cache import cache, caches
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.http import HttpRequest, HttpResponse
from django.test import LiveServerTestCase, SimpleTestCase, TestCase, TransactionTestCase
from django.urls import path

KIND = os.environ["SITE_KIND"]
ON_SERVER = KIND != "sqlite"
ASKS_OF_IDLENESS = {
    "postgresql": "SHOW idle_in_transaction_session_timeout", "mysql": "SELECT @@idle_transaction_timeout",
}  # fmt: skip
PATIENCE = 60.0


def visit(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(cache.incr("visits")))


urlpatterns = [path("visit", visit)]


def in_thread(work: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(PATIENCE)


class Isolated(TestCase):
    """Either of two tests finds nothing of the other's, whatever wrote it."""

    def check(self, alias: str = "default") -> None:
        this = caches[alias]
        assert this.get("left") is None
        assert this.get_many(["a", "b"]) == {}
        assert this.add("left", self.id(), None)
        this.set_many({"a": 1, "b": 2}, None)
        assert this.incr("a") == 2
        assert this.get_many(["left", "a", "b"]) == {"left": self.id(), "a": 2, "b": 2}

    def test_one(self) -> None:
        """One of two: the other's entries are not there."""
        self.check()

    def test_other(self) -> None:
        """The other of two: the one's entries are not there."""
        self.check()

    def test_one_of_a_second_table(self) -> None:
        """One of two: the other's entries are not there."""
        self.check("small")

    def test_other_of_a_second_table(self) -> None:
        """The other of two: the one's entries are not there."""
        self.check()
        self.check("small")

    async def acheck(self) -> None:
        assert await cache.aget("left") is None
        await cache.aset("left", self.id(), None)
        assert await cache.aget("left") == self.id()
        found = await asyncio.gather(*(cache.aget("left") for _ in range(5)))
        assert set(found) == {self.id()}

    async def test_one_asynchronous(self) -> None:
        """One of two: the other's entries are not there."""
        await self.acheck()

    async def test_other_asynchronous(self) -> None:
        """The other of two: the one's entries are not there."""
        await self.acheck()

    def check_loop(self) -> None:
        cache.get("nothing")
        asyncio.run(self.acheck())
        assert cache.get("left") == self.id()

    def test_one_with_a_loop_of_its_own(self) -> None:
        """One of two: the other's entries are not there."""
        self.check_loop()

    def test_other_with_a_loop_of_its_own(self) -> None:
        """The other of two: the one's entries are not there."""
        self.check_loop()

    def check_thread(self) -> None:
        assert cache.get("left") is None
        in_thread(lambda: cache.set("left", self.id(), None))
        assert cache.get("left") == self.id()
        cache.set("left", "of the test's thread")
        assert in_thread(lambda: cache.get("left")) == "of the test's thread"

    def test_one_with_threads(self) -> None:
        """One of two: the other's entries are not there."""
        self.check_thread()

    def test_other_with_threads(self) -> None:
        """The other of two: the one's entries are not there."""
        self.check_thread()

    def check_everything(self) -> None:
        assert cache.get_or_set("computed", self.id) == self.id()
        with cache.lock("lock", timeout=60, blocking_timeout=0):
            cache.set("tagged", self.id(), tags=["t"])
        cache.invalidate_tags("t")
        assert cache.get("tagged") is None
        cache.set("k", 1, None)
        cache.touch("k", 100)
        cache.incr_version("k")
        assert cache.get("k", version=2) == 1
        cache.clear()
        assert list(cache.keys("*")) == []
        cache.get_or_set("computed", lambda: "other")

    def test_one_with_everything(self) -> None:
        """One of two: the other's entries are not there."""
        self.check_everything()

    def test_other_with_everything(self) -> None:
        """The other of two: the one's entries are not there."""
        self.check_everything()


class OfTheClass(TestCase):
    """Entries of setUpTestData() are there in each test, as they were."""

    @classmethod
    def setUpTestData(cls) -> None:
        cache.set("of the class", "kept", None)
        cache.set("count", 1, None)

    def check(self) -> None:
        assert cache.get("of the class") == "kept"
        assert cache.incr("count") == 2
        cache.delete("of the class")

    def test_one(self) -> None:
        """One of two: the other's entries are not there."""
        self.check()

    def test_other(self) -> None:
        """The other of two: the one's entries are not there."""
        self.check()
        cache.clear()

    def test_third(self) -> None:
        """A third: the entries of the two are not there."""
        self.check()


class OfNoClass(TestCase):
    def test_entries_of_other_classes_are_gone(self) -> None:
        """Entries of the classes before are not found."""
        assert cache.get_many(["of the class", "count", "left", "kept"]) == {}


class AsOutsideOfTests(TestCase):
    """What holds where the program runs holds in its tests."""

    def test_a_rollback_of_the_programs_takes_no_write_back(self) -> None:
        """A block of the program's that is rolled back takes no write of the cache back."""
        with transaction.atomic():
            cache.set("kept", 1)
            transaction.set_rollback(True)
        assert cache.get("kept") == 1

    def test_it_works_after_a_failed_query(self) -> None:
        """A failed query of the program's leaves the cache as it was, within its block and after it."""
        ContentType.objects.create(app_label="a", model="b")
        failed = False
        with transaction.atomic():
            try:
                ContentType.objects.create(app_label="a", model="b")
            except IntegrityError:
                failed = True
                cache.set("after", 1)
                assert cache.get("after") == 1
            transaction.set_rollback(True)
        assert failed
        assert cache.get("after") == 1

    def test_it_takes_no_query_of_djangos(self) -> None:
        """Its statements are none of Django's connection."""
        with self.assertNumQueries(0):
            cache.set("k", 1)
            cache.get("k")

    def test_a_failed_operation_takes_the_others_not_back(self) -> None:
        """An operation that raises takes no earlier one back."""
        cache.set("before", "text")
        with pytest.raises(TypeError):
            cache.incr("before")
        with pytest.raises(ValueError, match="missing"):
            cache.incr("missing")
        assert cache.get("before") == "text"

    def test_a_finalizer_may_use_the_cache(self) -> None:
        """Code that the collector runs in the midst of an operation does not wait for its own thread's connection."""
        found: list[Any] = []

        def finalize(phase: str, _: object) -> None:
            if phase == "stop" and self.is_idle:
                self.is_idle = False
                found.append(cache.get("k"))
                self.is_idle = True

        thresholds, busy, self.is_idle = gc.get_threshold(), cache.stats().busy, True
        gc.callbacks.append(finalize)
        gc.set_threshold(5)
        try:
            for number in range(100):
                cache.set("k", number)
                assert cache.get("k") == number
        finally:
            gc.set_threshold(*thresholds)
            gc.callbacks.remove(finalize)
        assert found
        assert cache.stats().busy == busy

    def test_bounds_hold(self) -> None:
        """A full table evicts."""
        small = caches["small"]
        for number in range(10):
            small.set(f"n{number}", number)
        assert sum(f"n{number}" in small for number in range(10)) <= 3

    @unittest.skipUnless(KIND in ASKS_OF_IDLENESS, "a file ends nobody's transaction")
    def test_a_long_test_does_not_end_its_transaction(self) -> None:
        """No server ends the transaction of a test in which the cache is not used for long."""
        cache.set("k", 1)
        engine, asked = caches["default"]._engine, ASKS_OF_IDLENESS[KIND]
        (told,) = engine.read(lambda session: session.execute(asked, ()).fetchone())
        assert str(told) == "0"

    @unittest.skipUnless(KIND == "postgresql", "it asks PostgreSQL")
    def test_its_connection_stays_open(self) -> None:
        """Operations, one after the other, have the same session of the server."""
        deadline = time.monotonic() + PATIENCE
        while len(self.sessions()) != 1:  # the server may still be closing that of the test before
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for number in range(20):
            cache.set("k", number)
            cache.get("k")
        assert self.sessions() == self.before

    def sessions(self) -> set[int]:
        cache.get("k")
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'storeroom' AND datname = current_database()"
            )
            found = {pid for (pid,) in cursor.fetchall()}
        self.before = found
        return found


class WithoutDatabase(SimpleTestCase):
    def test_it_works_where_queries_are_forbidden(self) -> None:
        """SimpleTestCase forbids the queries of Django's connections alone."""
        cache.set("simple", 1)
        assert cache.get("simple") == 1
        cache.delete("simple")


class Committed(TransactionTestCase):
    """There is no transaction to take anything back."""

    def test_a_write_is_seen_by_others(self) -> None:
        """A write is committed: other threads and connections see it."""
        cache.set("committed", 1)
        assert in_thread(lambda: cache.get("committed")) == 1
        if ON_SERVER:
            with connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM cache_table WHERE size > 0")
                assert cursor.fetchone()[0] >= 1
        cache.delete("committed")

    def test_a_rollback_takes_no_write_back(self) -> None:
        """A rollback of the program's takes no write back."""
        with transaction.atomic():
            cache.set("committed", 1)
            transaction.set_rollback(True)
        assert cache.get("committed") == 1
        cache.delete("committed")

    def test_a_class_within_leaves_nothing_behind(self) -> None:
        """Entries of a TestCase are gone by the first operation after it, be it of another kind."""
        cache.set("outer", 1)
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(OfTheClass).run(result)
        assert result.wasSuccessful(), result.failures + result.errors
        assert cache.get_many(["outer", "of the class", "count"]) == {"outer": 1}
        cache.delete("outer")

    def test_threads_count_together(self) -> None:
        """Increments of many threads are all counted."""
        cache.set("count", 0)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: cache.incr("count"), range(100)))
        assert cache.get("count") == 100
        cache.delete("count")

    def test_createcachetable_may_run_again(self) -> None:
        """The command leaves a table that is there alone."""
        call_command("createcachetable", verbosity=0)
        cache.set("k", 1)
        assert cache.get("k") == 1
        cache.delete("k")


class Live(LiveServerTestCase):
    """The threads of a live server have the cache of the test."""

    def test_the_servers_entries_are_the_tests(self) -> None:
        """A view reads and counts what the test has written."""
        cache.set("visits", 10)
        with urllib.request.urlopen(f"{self.live_server_url}/visit") as answer:
            assert answer.read() == b"11"
        assert cache.get("visits") == 11
        cache.delete("visits")


class _OfWorker:
    """Tests that several workers run at once: each waits for another, and both have written meanwhile."""

    def test_this_workers_entries_are_its_own(self: Any) -> None:
        """Another worker writes the same key; this one finds its own."""
        folder = os.environ.get("SITE_WORKERS")
        if folder is None:
            self.skipTest("there is one worker alone")
        me = str(os.getpid())
        cache.set("who", me, None)
        Path(folder, me).touch()
        deadline = time.monotonic() + PATIENCE
        while len(list(Path(folder).iterdir())) < 2:
            assert time.monotonic() < deadline, "no other worker came"
            time.sleep(0.01)
        for _ in range(20):
            assert cache.get("who") == me
            cache.set("who", me, None)
            threading.Event().wait(0.002)


class Worker1(_OfWorker, TransactionTestCase):
    pass


class Worker2(_OfWorker, TransactionTestCase):
    pass


class Worker3(_OfWorker, TestCase):
    pass


class Worker4(_OfWorker, TestCase):
    pass
