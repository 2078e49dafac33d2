"""Tests of checks, commands, middleware and sessions, run by Django's runner: see test_django_ops.py."""

import io
import os
from typing import Any
from unittest import mock

import pytest
from asgiref.sync import iscoroutinefunction
from django.contrib.sessions.backends.base import UpdateError
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from django.test import AsyncClient, Client, SimpleTestCase, TransactionTestCase, override_settings
from ops_site_settings import CACHES, FOLDER, OURS

from storeroom.exceptions import StorageError
from storeroom.integrations.django import middleware
from storeroom.integrations.django.sessions import SessionStore
from storeroom.testing import FakeClock

HERE = "storeroom.integrations.django"
KEPT = ("default", "files", "database", "redis")


class MiddlewareTests(TransactionTestCase):
    """Requests as units of work, under WSGI and ASGI."""

    @override_settings(MIDDLEWARE=[f"{HERE}.middleware.MemoMiddleware"])
    def test_a_request_reads_an_entry_once(self) -> None:
        """The next request sees what has changed meanwhile."""
        caches["redis"].set("count", 1)
        assert [self.client.get("/memo/").json()["second"] for _ in range(2)] == [1, 2]
        assert caches["redis"].get("count") == 3

    @override_settings(MIDDLEWARE=[f"{HERE}.middleware.MemoMiddleware"])
    async def test_an_asynchronous_request_reads_an_entry_once(self) -> None:
        """Its threads are part of it."""
        await caches["redis"].aset("count", 1)
        assert [(await AsyncClient().get("/amemo/")).json()["second"] for _ in range(2)] == [1, 2]

    @override_settings(MIDDLEWARE=[f"{HERE}.middleware.TransactionMiddleware"])
    def test_writes_follow_the_transaction(self) -> None:
        """A rollback takes them back, a commit makes them."""
        caches["redis"].set("price", 4)
        assert self.client.get("/order/?fails").content == b"4"
        assert self.client.get("/order/").content == b"5"

    @override_settings(MIDDLEWARE=[f"{HERE}.middleware.TransactionMiddleware"])
    async def test_writes_follow_the_transaction_in_an_asynchronous_request(self) -> None:
        """That of the thread of synchronous code."""
        await caches["redis"].aset("price", 4)
        assert (await AsyncClient().get("/aorder/?fails")).content == b"4"
        assert (await AsyncClient().get("/aorder/")).content == b"5"

    def test_without_middleware_nothing_is_held_back(self) -> None:
        """The same views, for comparison."""
        caches["redis"].set_many({"price": 4, "count": 1})
        assert self.client.get("/order/?fails").content == b"5"
        assert self.client.get("/memo/").json() == {"first": 1, "second": 2}

    def test_they_take_both_kinds_of_request(self) -> None:
        """No thread is taken up by an asynchronous one."""

        async def respond(_: object) -> None:
            pass

        for kind in (middleware.MemoMiddleware, middleware.TransactionMiddleware):
            assert (kind.sync_capable, kind.async_capable) == (True, True)
            assert iscoroutinefunction(kind(respond))
            assert not iscoroutinefunction(kind(str))

    def test_a_wrong_setting_ends_the_start(self) -> None:
        """The error names the setting, its value and the expectation."""
        for name, value, kind in (
            ("STOREROOM_MEMO_MAX_ENTRIES", "many", middleware.MemoMiddleware),
            ("STOREROOM_TRANSACTION_DATABASES", "default", middleware.TransactionMiddleware),
            ("STOREROOM_TRANSACTION_DATABASES", ["defualt"], middleware.TransactionMiddleware),
        ):
            with self.subTest(name), override_settings(**{name: value}):
                shown = repr(value[0] if isinstance(value, list) else value)
                with pytest.raises(ImproperlyConfigured, match=f"{name} (is|has) {shown}"):
                    kind(str)


@override_settings(MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"])
class SessionTests(SimpleTestCase):
    """Sessions on the caches of the project."""

    def on_each(self) -> Any:
        for alias in KEPT:
            with self.subTest(alias), override_settings(SESSION_CACHE_ALIAS=alias):
                yield caches[alias]

    def writing(self, store: SessionStore) -> int:
        """Return the stamp of the writing that is stored."""
        return store._hooks._get(store._name(store.session_key)).stamp

    def test_a_full_cache_keeps_sessions(self) -> None:
        """Neither other entries nor other sessions evict one, clear() leaves it, and no listing shows its key."""
        for cache in self.on_each():
            keys, count = [], 520 if cache is caches["files"] else 60  # more than one step of its clear()
            for number in range(count):
                store = SessionStore()
                store["visits"] = number
                store.save()
                keys.append(store.session_key)
            cache.set_many({f"page:{number}": "x" * 100 for number in range(100)})
            assert [SessionStore(key).get("visits") for key in keys] == list(range(count))
            listed = " ".join([*cache.keys()])
            assert not any(key in listed for key in keys)
            cache.clear()
            assert cache.get_many([f"page:{number}" for number in range(100)]) == {}
            assert all(SessionStore().exists(key) for key in keys)

    def test_a_session_ends_in_time(self) -> None:
        """It is gone then, and its room with it."""
        for _ in self.on_each():
            with FakeClock() as clock:
                store = SessionStore()
                store["visits"] = 1
                store.set_expiry(100)
                store.save()
                clock.advance(99)
                assert SessionStore(store.session_key)["visits"] == 1
                clock.advance(2)
                assert SessionStore(store.session_key).get("visits") is None
                with pytest.raises(UpdateError):
                    store.save()
                SessionStore.clear_expired()

    def test_an_unchanged_session_is_not_written(self) -> None:
        """Reading writes nothing, nor does assigning the same again; a change within does, if it is saved."""
        for _ in self.on_each():
            store = SessionStore()
            store["cart"] = {"items": [1, "two", True]}
            store.save()
            written = self.writing(store)
            again = SessionStore(store.session_key)
            again["cart"] = {"items": [1, "two", True]}
            again.save()
            assert self.writing(store) == written
            again["cart"]["items"][2] = 1  # equal to True, and another value
            assert SessionStore(store.session_key)["cart"] == store["cart"]
            again.save()
            assert self.writing(store) != written
            assert SessionStore(store.session_key)["cart"]["items"][2] is not True

    def test_requests_write_what_has_changed(self) -> None:
        """A request that reads, or assigns the same, writes nothing."""
        for _ in self.on_each():
            client = Client()
            assert client.get("/visit/?count").content == b"1"
            store = SessionStore(client.cookies["sessionid"].value)
            written = self.writing(store)
            assert [client.get(f"/visit/{query}").content for query in ("", "?same")] == [b"1", b"1"]
            assert self.writing(store) == written
            assert client.get("/visit/?count").content == b"2"
            assert self.writing(store) != written

    def test_time_is_renewed_as_the_setting_says(self) -> None:
        """By SESSION_SAVE_EVERY_REQUEST each time; else by a change, or when half of the time is over."""
        with FakeClock() as clock, override_settings(SESSION_CACHE_ALIAS="files", SESSION_COOKIE_AGE=1000):
            client = Client()
            client.get("/visit/?count")
            store = SessionStore(client.cookies["sessionid"].value)

            def left() -> float:
                return store._hooks._get(store._name(store.session_key)).fresh_until - clock.now()

            clock.advance(400)
            client.get("/visit/?same")
            assert left() == pytest.approx(600, abs=2)
            with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
                client.get("/visit/")
            assert left() == pytest.approx(1000, abs=2)
            clock.advance(600)
            client.get("/visit/")
            assert left() == pytest.approx(400, abs=2)
            client.get("/visit/?same")
            assert left() == pytest.approx(1000, abs=2)

    async def test_asynchronous_requests_have_sessions(self) -> None:
        """By the cache's own asynchronous methods."""
        for alias in KEPT:
            with self.subTest(alias), override_settings(SESSION_CACHE_ALIAS=alias):
                client = AsyncClient()
                assert [(await client.get("/avisit/")).content for _ in range(2)] == [b"1", b"2"]
                store = SessionStore(client.cookies["sessionid"].value)
                assert await store.aexists(store.session_key)
                await store.acycle_key()
                assert await store.aget("visits") == 2
                await store.aflush()
                assert await store.aload() == {}
                await SessionStore.aclear_expired()

    def test_a_session_that_has_ended_is_not_revived(self) -> None:
        """A request that runs while the user logs out elsewhere ends with an error, as with Django's engines."""
        for _ in self.on_each():
            store = SessionStore()
            store["visits"] = 1
            store.save()
            other = SessionStore(store.session_key)
            other["visits"] = 2
            store.flush()
            with pytest.raises(UpdateError):
                other.save()
            assert not SessionStore().exists(other.session_key)

    @override_settings(SESSION_CACHE_ALIAS="down")
    def test_an_outage_ends_a_request_that_needs_a_new_session(self) -> None:
        """Reading finds no session; a new one cannot be stored, which is an error at once."""
        assert SessionStore("a" * 32).load() == {}
        store = SessionStore()
        store["visits"] = 1
        with pytest.raises(StorageError):
            store.save()

    @override_settings(SESSION_CACHE_ALIAS="foreign")
    def test_a_foreign_class_is_refused(self) -> None:
        """The error names alias, class and remedy."""
        with pytest.raises(ImproperlyConfigured, match=r"CACHES\['foreign'\]\['BACKEND'\] is LocMemCache; expected"):
            SessionStore()


def check(*args: str, **overridden: Any) -> str:
    """Return what manage.py check says, with these settings."""
    output = io.StringIO()
    with override_settings(**overridden):
        try:
            call_command("check", *args, "--tag", "caches", stdout=output, stderr=output)
        except SystemCheckError as error:
            output.write(str(error))
    return output.getvalue()


def files(location: Any, **options: Any) -> dict[str, Any]:
    options = {"MAX_ENTRIES": 1000} | options
    return {"default": {"BACKEND": f"{OURS}.filebased.FileBasedCache", "LOCATION": location, "OPTIONS": options}}


class CheckTests(SimpleTestCase):
    """The findings of `storeroom check` as system checks."""

    def test_findings_have_id_alias_and_remedy(self) -> None:
        """The message tells the mistake, the hint the settings to write."""
        caches = files(FOLDER / "checked")
        del caches["default"]["OPTIONS"]
        said = check(CACHES=caches)
        assert "CACHES['default']: (storeroom.W006) MAX_ENTRIES of a file cache is left at 300." in said
        assert 'HINT: Say how much there is room for:\n\t    "default": {\n' in said
        assert "storeroom.W006" not in check(CACHES=caches, SILENCED_SYSTEM_CHECKS=["storeroom.W006"])

    def test_a_wrong_alias_is_an_error_with_key_and_remedy(self) -> None:
        """All mistakes are told at once, and Django's own checks, which make every cache, do not end it before."""
        wrong = {"BACKEND": f"{OURS}.nope.Cache"}
        said = check("--deploy", CACHES={**files(FOLDER / "checked", max_entrys=1), "other": wrong})
        assert "ERRORS:" in said
        assert "CACHES['default']: (storeroom.E001)" in said
        assert "CACHES['default']['OPTIONS']['max_entrys'] is not an option of FileBasedCache" in said
        assert "Did you mean 'max_entries'?" in said
        assert "CACHES['other']: (storeroom.E002)" in said

    def test_servers_are_asked_when_the_site_is_deployed_alone(self) -> None:
        """Nothing is connected to otherwise, and no cache is opened."""
        down = {"default": {**CACHES["down"], "OPTIONS": {}}}
        assert "storeroom.E007" not in check(CACHES=down)
        said = check("--deploy", CACHES=down)
        assert "CACHES['default']: (storeroom.E007) A server is out of reach." in said
        check(CACHES=files(FOLDER / "unopened"))
        assert not (FOLDER / "unopened").exists()

    def test_debug_is_evidence_for_deployed_sites_alone(self) -> None:
        """Django's test runs have DEBUG off, too; a variable with a number of workers counts always."""
        memory = {"default": {"BACKEND": f"{OURS}.locmem.LocMemCache"}}
        assert "storeroom.W001" not in check(CACHES=memory)
        assert check("--deploy", CACHES=memory).count("storeroom.W001") == 1
        with mock.patch.dict(os.environ, WEB_CONCURRENCY="4"):
            assert "WEB_CONCURRENCY is 4" in check(CACHES=memory)
            assert check("--deploy", CACHES=memory).count("storeroom.W001") == 1

    def test_djangos_checks_of_file_caches_look_at_ours(self) -> None:
        """caches.W003 of a relative path; caches.W002, of a deployed site, of one that is, is in or has a folder."""
        assert "caches.W003" in check(CACHES=files("relative"))
        assert "caches.W003" not in check(CACHES=files(FOLDER / "media"))
        for name, value in (
            ("MEDIA_ROOT", FOLDER / "media"),
            ("STATIC_ROOT", str(FOLDER / "media")),
            ("STATICFILES_DIRS", [FOLDER / "media"]),
            ("STATICFILES_DIRS", [("prefix", FOLDER / "media")]),
        ):
            for location, relation in (("media", "is"), ("media/cache", "is inside"), ("", "contains")):
                with self.subTest(name=name, relation=relation):
                    said = check("--deploy", CACHES=files(FOLDER / location), **{name: value})
                    assert f"(caches.W002) The LOCATION of cache 'default' {relation} {name}" in said
        assert "caches.W002" not in check("--deploy", CACHES=files(FOLDER / "elsewhere"), MEDIA_ROOT=FOLDER / "media")

    def test_djangos_class_shares_nothing_with_ours(self) -> None:
        """Two aliases of local memory without a LOCATION share keys only where they are of one package."""
        ours, foreign = {"BACKEND": f"{OURS}.locmem.LocMemCache"}, CACHES["foreign"]
        assert "storeroom.W009" not in check(CACHES={"default": ours, "foreign": foreign})
        assert "storeroom.W009" in check(CACHES={"default": ours, "other": ours})

    def test_kept_sessions_in_memory_are_told(self) -> None:
        """W016 knows this engine, too."""
        memory = {"default": {"BACKEND": f"{OURS}.locmem.LocMemCache"}}
        assert "storeroom.W016" in check(CACHES=memory, SESSION_CACHE_ALIAS="default")


class CommandTests(SimpleTestCase):
    """manage.py storeroom."""

    def run_command(self, *args: str) -> tuple[int, str]:
        output = io.StringIO()
        try:
            call_command("storeroom", *args, stdout=output, stderr=output)
        except CommandError as error:
            return error.returncode, output.getvalue()
        return 0, output.getvalue()

    def test_it_works_on_the_caches_of_the_project(self) -> None:
        """An entry of the project is read, and the project reads one that is set."""
        caches["files"].set("greeting", "hello")
        assert self.run_command("get", "greeting", "--alias", "files") == (0, "hello\n")
        assert self.run_command("set", "answer", "42", "--alias", "files")[0] == 0
        assert caches["files"].get("answer") == 42
        assert self.run_command("get", "absent", "--alias", "files")[0] == 1
        assert caches["default"].get("greeting") is None  # the project's own handles are in force again

    def test_all_commands_are_there(self) -> None:
        """Each tells of itself."""
        from storeroom.cli import COMMANDS

        for name in COMMANDS:
            code, said = self.run_command(name, "--help")
            assert code == 0
            assert f"usage: manage.py storeroom {name}" in said

    def test_check_knows_the_settings(self) -> None:
        """It finds what concerns Django's settings, and names them as the configuration."""
        code, said = self.run_command("check", "--offline")
        assert code == 1
        assert "Configuration: Django's settings.CACHES" in said
        assert "DEBUG is False" in said

    def test_an_alias_on_djangos_class_is_djangos(self) -> None:
        """Its entries are there, as far as its methods go; commands about all caches pass it by."""
        caches["foreign"].set("greeting", "hello")
        assert self.run_command("get", "greeting", "--alias", "foreign") == (0, "hello\n")
        code, said = self.run_command("ttl", "greeting", "--alias", "foreign")
        assert code == 3
        assert "LocMemCache of cache 'foreign' has no ttl()." in said
        assert "foreign" not in self.run_command("stats", "--json")[1]
        assert self.run_command("createcachetable", "--dry-run")[1].startswith("-- database\n")
