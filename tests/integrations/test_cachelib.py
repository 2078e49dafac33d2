"""cachelib's interface over every storage, and what takes it: Flask-Caching and Flask-Session."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import flask
import flask_caching
import flask_session
import pytest

import storeroom
from storeroom.backends.db import DatabaseCache
from storeroom.backends.memcached import PyMemcacheCache
from storeroom.integrations.cachelib import StoreroomCache
from storeroom.testing.fixtures import fake_clock
from storeroom.testing.isolation import engines_of_its_own
from tests.servers.databases import mariadb, postgresql
from tests.servers.memcached import memcached
from tests.servers.redis import redis_databases

__all__ = ["fake_clock", "mariadb", "memcached", "postgresql", "redis_databases"]

STORAGES = ["locmem", "filebased", "sqlite", "postgresql", "mariadb", "redis", "pymemcache"]


@pytest.fixture(params=STORAGES)
def alias(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An alias on each storage, "default" beside it."""
    settings: dict[str, Any] = {"TIMEOUT": 100}
    if request.param in {"postgresql", "mariadb"}:
        server = request.getfixturevalue(request.param)
        settings |= {"BACKEND": DatabaseCache, "LOCATION": server.table(), "OPTIONS": {"url": server.url()}}
    elif request.param == "redis":
        url = request.getfixturevalue("redis_databases").url()
        settings |= {"BACKEND": "storeroom.backends.redis.RedisCache", "LOCATION": url}
    elif request.param == "pymemcache":
        settings |= {"BACKEND": PyMemcacheCache, "LOCATION": request.getfixturevalue("memcached").location()}
    else:
        embedded = {
            "locmem": {"BACKEND": "storeroom.backends.locmem.LocMemCache", "LOCATION": str(tmp_path)},
            "filebased": {"BACKEND": "storeroom.backends.filebased.FileBasedCache", "LOCATION": str(tmp_path / "f")},
            "sqlite": {"BACKEND": DatabaseCache, "LOCATION": "t", "OPTIONS": {"url": f"sqlite:///{tmp_path}/c.db"}},
        }
        settings |= embedded[request.param]
    with engines_of_its_own():
        before = storeroom.caches.swap(None)
        storeroom.configure(
            {"default": {"BACKEND": "storeroom.backends.dummy.DummyCache"}, "pages": {**settings, "KEY_PREFIX": "cl"}}
        )
        yield "pages"
        storeroom.caches.swap(before)


@pytest.fixture
def cache(alias: str) -> StoreroomCache:
    return StoreroomCache(alias)


def test_values_are_those_of_the_alias(cache: StoreroomCache) -> None:
    """An entry is one and the same by cachelib's methods and by Storeroom's."""
    assert cache.set("a", {"b": [1]}) is True
    assert storeroom.caches["pages"].get("a") == {"b": [1]}
    storeroom.caches["pages"].set("c", 2)
    assert cache.get("c") == 2
    assert cache.cache is storeroom.caches["pages"]


def test_absent_is_none_and_none_is_there(cache: StoreroomCache) -> None:
    """has() tells None from nothing, as Flask-Caching's cache_none asks."""
    cache.set("none", None)
    assert (cache.get("none"), cache.has("none")) == (None, True)
    assert (cache.get("absent"), cache.has("absent")) == (None, False)


def test_many_answer_in_order(cache: StoreroomCache) -> None:
    """Several keys are read, written and removed at once, with cachelib's results."""
    assert cache.set_many({"a": 1, "b": 2}) == ["a", "b"]
    assert cache.get_many("b", "x", "a") == [2, None, 1]
    assert cache.get_dict("a", "x") == {"a": 1, "x": None}
    assert cache.delete_many("a", "x") == ["a", "x"]
    assert cache.get_many("a", "b") == [None, 2]


def test_add_and_delete_tell_what_they_found(cache: StoreroomCache) -> None:
    """add() keeps what is there; both return whether they did anything."""
    assert [cache.add("a", 1), cache.add("a", 2), cache.get("a")] == [True, False, 1]
    assert [cache.delete("a"), cache.delete("a")] == [True, False]


def test_timeouts_are_cachelibs(cache: StoreroomCache) -> None:
    """None is the default, 0 is for ever; numbers, timedeltas and words count."""
    ttl = storeroom.caches["pages"].ttl
    timeouts: list[Any] = [None, 0, timedelta(), 50, 50.5, timedelta(seconds=50), "50s"]
    for number, timeout in enumerate(timeouts):
        cache.set(f"k{number}", number, timeout)
        cache.add(f"a{number}", number, timeout)
    cache.set_many({"m": 1}, 0)
    cache.set("over", 1, -1)
    lasting = [ttl(f"{kind}{number}") for number in range(len(timeouts)) for kind in "ka"]
    assert [left if left is None else round(left, -1) for left in lasting] == [
        100, 100, None, None, None, None, 50, 50, 50, 50, 50, 50, 50, 50,
    ]  # fmt: skip
    assert ttl("m") is None
    assert not cache.has("over")


def test_a_default_timeout_of_its_own(alias: str) -> None:
    """It goes before the alias's TIMEOUT."""
    cache, forever = StoreroomCache(alias, default_timeout=50), StoreroomCache(alias, default_timeout=0)
    cache.set("a", 1)
    forever.set("b", 1)
    cache.inc("n")
    ttl = storeroom.caches[alias].ttl
    assert 40 < ttl("a") <= 50
    assert ttl("b") is None
    assert 40 < ttl("n") <= 50


def test_counters_are_atomic(cache: StoreroomCache) -> None:
    """Threads that count from nothing lose nothing; an absent number is 0."""
    threads = [threading.Thread(target=lambda: [cache.inc("n", 2) for _ in range(25)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.dec("n", 50) == cache.get("n") == 150
    assert cache.dec("m") == -1


def test_clear_removes_the_alias_alone(cache: StoreroomCache) -> None:
    """clear() forgets every entry of its alias."""
    storeroom.caches["default"].set("other", 1)
    cache.set_many({"a": 1, "b": 2})
    assert cache.clear() is True
    assert cache.get_many("a", "b") == [None, None]


def test_a_value_that_is_too_large_is_not_stored() -> None:
    """As cachelib says: set() and add() return False, set_many() leaves the key out; the older value is gone."""
    with engines_of_its_own():
        before = storeroom.caches.swap(None)
        small = {
            "BACKEND": "storeroom.backends.locmem.LocMemCache",
            "LOCATION": "small",
            "OPTIONS": {"MAX_BYTES": 9000},
        }
        storeroom.configure({"default": small})
        cache = StoreroomCache()
        cache.set("a", "old")
        assert cache.set("a", "x" * 10_000) is False
        assert cache.add("b", "x" * 10_000) is False
        assert cache.set_many({"c": 1, "d": "x" * 10_000}) == ["c"]
        assert cache.get_many("a", "b", "c") == [None, None, 1]
        storeroom.caches.swap(before)


@pytest.mark.parametrize("on_error", ["miss", "raise"])
def test_an_outage_answers_as_the_alias_says(on_error: str) -> None:
    """Under "miss" nothing raises; under "raise", the errors that cachelib lets be ignored alone are."""
    away = {
        "BACKEND": "storeroom.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1",
        "OPTIONS": {"on_error": on_error},
    }  # fmt: skip
    with engines_of_its_own():
        before = storeroom.caches.swap(None)
        storeroom.configure({"default": away})
        cache, strict = StoreroomCache(), StoreroomCache(ignore_delete_many_errors=False)
        if on_error == "miss":
            assert (cache.get("a"), cache.inc("a"), cache.has("a")) == (None, None, False)
            assert cache.get_many("a", "b") == [None, None]
        else:
            assert cache.delete_many("a") == []
            for call in (lambda: cache.get("a"), lambda: cache.inc("a"), lambda: strict.delete_many("a")):
                with pytest.raises(storeroom.StorageError):
                    call()
        storeroom.caches.swap(before)


# Flask ------------------------------------------------------------------------------------------


def test_flask_caching_takes_the_class_by_its_path(alias: str) -> None:
    """Views and memoized functions are kept in the alias that CACHE_ARGS or CACHE_OPTIONS name."""
    for options in ({"CACHE_ARGS": [alias]}, {"CACHE_OPTIONS": {"alias": alias}}):
        app = flask.Flask("shop")
        path = "storeroom.integrations.cachelib.StoreroomCache"
        pages = flask_caching.Cache(app, config={"CACHE_TYPE": path, "CACHE_DEFAULT_TIMEOUT": 40, **options})
        calls: list[str] = []

        @app.route("/")
        @pages.cached(timeout=20)
        def view() -> str:
            calls.append("view")  # noqa: B023 -- called within its own turn
            return "page"

        @pages.memoize()
        def load(number: int) -> None:
            calls.append("load")  # noqa: B023

        with app.test_client() as client:
            assert [client.get("/").text for _ in range(3)] == ["page"] * 3
        with app.app_context():
            for _ in range(3):
                load(1)
            pages.delete_memoized(load, 1)
            load(1)
        assert calls == ["view", "load", "load", "load", "load"], "None is not kept, unless cache_none asks"
        assert isinstance(pages.cache, StoreroomCache)
        assert storeroom.caches[alias].get("view//") == "page"
        pages.clear()


def test_flask_session_keeps_its_sessions(alias: str) -> None:
    """SESSION_TYPE "cachelib": each browser has its session, which lasts as long as Flask says."""
    app = flask.Flask("shop")
    app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=StoreroomCache(alias), SECRET_KEY="for this test")
    flask_session.Session(app)

    @app.route("/<name>")
    def view(name: str) -> str:
        before = str(flask.session.get("name"))
        flask.session["name"] = name
        return before

    first, second = app.test_client(), app.test_client()
    assert [first.get("/a").text, second.get("/b").text, first.get("/c").text] == ["None", "None", "a"]
    assert second.get("/d").text == "b"
