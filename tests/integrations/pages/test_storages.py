"""Pages on the storages that are asked by an exchange, by both doors: servers, databases, tiers."""

import threading

import pytest

from storeroom.backends.db import DatabaseCache
from storeroom.backends.locmem import LocMemCache
from storeroom.backends.memcached import PyMemcacheCache
from storeroom.backends.redis import RedisCache
from storeroom.exceptions import StorageError
from storeroom.pages import Pages
from storeroom.registry import configure
from storeroom.testing.concurrency import eventually
from tests.integrations.pages.site import page
from tests.integrations.pages.test_doors import slow_page
from tests.servers.memcached import memcached
from tests.servers.redis import redis_databases

__all__ = ["memcached", "redis_databases"]

KINDS = ["redis", "near", "memcached", "sqlite", "tiered", "no-copies"]


@pytest.fixture(params=KINDS)
def cache(request, tmp_path):
    kind = request.param
    if kind in ("redis", "near"):
        options = {"near": {"max_staleness": "1m"}} if kind == "near" else {}
        return RedisCache(request.getfixturevalue("redis_databases").url(), {"OPTIONS": options})
    if kind == "memcached":
        cache = PyMemcacheCache(request.getfixturevalue("memcached").location(), {"KEY_PREFIX": request.node.name})
        cache.clear()
        return cache
    if kind == "sqlite":
        return DatabaseCache("pages", {"OPTIONS": {"url": f"sqlite:///{tmp_path}/pages.sqlite3"}})
    if kind == "no-copies":
        return LocMemCache(request.node.nodeid, {"OPTIONS": {"copy": False}})
    from storeroom.backends.tiered import TieredCache

    configure(
        {
            "default": {"BACKEND": "storeroom.backends.locmem.LocMemCache", "LOCATION": f"{tmp_path}-1"},
            "below": {"BACKEND": "storeroom.backends.filebased.FileBasedCache", "LOCATION": str(tmp_path / "files")},
        }
    )
    return TieredCache("", {"OPTIONS": {"tiers": ["default", "below"]}})


def test_pages_are_stored_found_and_invalidated(site, cache):
    """Hits, variants, each way of invalidation, and a note that is replaced."""
    site.begin(cache, timeout=60, vary_on=["accept-language"], tags=["news"])
    asked = [("/a",), ("/a", "Accept-Language: fr"), ("/b",)]
    first = [site.get(*lines).text for lines in asked]
    assert first == [site.get(*lines).text for lines in asked] == ["run 1", "run 2", "run 3"]
    for number, how in enumerate(
        ({"url": "https://example.com/a"}, {"prefix": "/a"}, {"view": "a"}, {"tags": ["news"]})
    ):
        Pages(cache, urls=lambda view, args, kwargs: f"/{view}").invalidate(**how)
        again = [site.get(*lines).text for lines in asked]
        assert again[:2] == [f"run {4 + 2 * number}", f"run {5 + 2 * number}"]
        assert (again[2] == "run 3") is ("tags" not in how)
        assert [site.get(*lines).text for lines in asked] == again
    site.script = page("Set-Cookie: a=b")
    site.get("/c")
    site.script = page()
    assert site.get("/c").text == site.get("/c").text


@pytest.mark.parametrize("cache", ["redis", "sqlite"], indirect=True)
def test_a_hit_takes_one_exchange(site, cache, monkeypatch):
    """Also of a page that varies and has tags, once it was found."""
    site.begin(cache, timeout=60, vary_on=["accept-language"], tags=["news", "home"])
    for _ in range(2):
        site.get("/a")
    asked, get_many = [], type(cache)._get_many
    hooks = type(cache)

    def counted(self, keys):
        asked.append(keys)
        return get_many(self, keys)

    aget_many = hooks._aget_many

    async def acounted(self, keys):
        asked.append(keys)
        return await aget_many(self, keys)

    with monkeypatch.context() as patch:
        patch.setattr(
            hooks, "_get_many" if site.kind == "wsgi" else "_aget_many", counted if site.kind == "wsgi" else acounted
        )
        assert site.get("/a").text == "run 1"
    assert len(asked) == 1
    cache.invalidate_tags("home")
    assert site.get("/a").text == "run 2"


def test_one_of_many_runs_the_application_and_stale_pages_are_served(site, cache):
    """Single flight, and a page that is made anew in the background."""
    site.begin(cache, timeout=60)
    may_end = threading.Event()
    site.script = slow_page(site, threading.Event(), may_end)
    timer = threading.Timer(0.05, may_end.set)
    timer.start()
    assert {reply.text for reply in site.get_at_once(8)} == {"run 1"}
    timer.join()
    site.begin(cache, timeout=0.2, stale_while_revalidate=60)
    assert site.get("/stale").text == "run 2"

    def is_made_anew():
        text = site.get("/stale").text
        site.drain()
        return text != "run 2"

    eventually(is_made_anew)


def test_a_server_that_is_down_is_in_nobodys_way(site):
    """Pages are the application's; an invalidation says that it was none."""
    for policy in ("miss", "raise"):
        site.begin(RedisCache("redis://127.0.0.1:1", {"OPTIONS": {"on_error": policy}}), timeout=60)
        before = len(site.runs)
        assert site.bodies(2) == [f"run {before + 1}", f"run {before + 2}"]
        for how in ({"url": "https://example.com/page"}, {"prefix": "/"}, {"tags": ["news"]}):
            with pytest.raises(StorageError):
                site.pages.invalidate(**how)
        assert site.post().text == f"run {before + 3}"
