"""Hits that are answered as the last one was: by the same rules as all others, and by far less work."""

import gc
import subprocess
import sys
import weakref
from unittest.mock import Mock

import pytest

from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.exceptions import StorageError
from storeroom.integrations import asgi, wsgi
from storeroom.pages import looking
from storeroom.registry import caches, configure
from storeroom.transactions import transaction
from tests.integrations.pages.site import page


@pytest.fixture
def looks(monkeypatch):
    """Counts the requests that take the long way."""
    counted = Mock(side_effect=looking.inline)
    for door in (asgi, wsgi):
        monkeypatch.setattr(door, "inline", counted)
    return counted


def warmed(site, cache, **options):
    """Return a site whose next plain GET of the page is answered as the one before."""
    site.begin(cache, **{"timeout": "5m", **options})
    assert site.bodies(4) == ["run 1"] * 4
    assert len(site.pages._hits) == 1
    return site


def test_a_hit_again_is_as_the_long_way_answers(site, any_cache, clock, looks):
    """Status, headers, age, body and count, second for second; but for the look itself."""
    site.script = page("Content-Type: text/plain", "X-A: 1", "X-A: 2", 'ETag: "1"', status=203)
    warmed(site, any_cache)
    for _ in range(5):
        clock.advance(0.7)
        before, hits = looks.call_count, any_cache.stats().hits
        again = site.get()
        assert (looks.call_count, any_cache.stats().hits) == (before, hits + 1)
        site.pages._hits.clear()
        assert again == site.get()
        assert looks.call_count == before + 1
    assert len(site.runs) == 1


@pytest.mark.parametrize(
    ("how", "runs"),
    [
        ({"url": "https://example.com/page"}, 2),
        ({"url": "/page"}, 2),
        ({"prefix": "/pa"}, 2),
        ({"view": "page"}, 2),
        ({"url": "https://example.com/other"}, 1),
        ({"prefix": "/other"}, 1),
    ],
)
def test_what_is_invalidated_is_not_answered_again(site, any_cache, how, runs):
    """At once; and what is not is live still, by the long way first."""
    warmed(site, any_cache, urls=lambda view, args, kwargs: f"/{view}")
    site.pages.invalidate(**how)
    assert site.bodies(4) == [f"run {runs}"] * 4


def test_a_page_with_tags_is_not_answered_again(site, any_cache, looks):
    """Its tags are compared each time."""
    site.begin(any_cache, timeout="5m", tags=["news"])
    assert site.bodies(3) == ["run 1"] * 3
    assert (len(site.pages._hits), looks.call_count) == (0, 3)
    any_cache.invalidate_tags("news")
    assert site.get().text == "run 2"


def test_a_page_that_is_over_is_not_answered_again(site, any_cache, clock):
    """Neither one that its own lifetime ends, nor one that is gone from the storage."""
    warmed(site, any_cache)
    clock.advance("5m")
    assert site.bodies(3) == ["run 2"] * 3
    any_cache.clear()
    assert site.bodies(3) == ["run 3"] * 3


def test_a_page_that_may_be_served_stale_is_not_answered_again(site, any_cache, clock):
    """It has conditions: it is served while it is made anew, once more, and not for ever."""
    site.begin(any_cache, timeout="5m", stale_while_revalidate="1m")
    assert site.bodies(3) == ["run 1"] * 3
    clock.advance("5m")
    assert site.get().text == "run 1"
    site.drain()
    assert site.bodies(3) == ["run 2"] * 3


def test_a_page_that_was_replaced_is_answered_by_the_new_one(site, any_cache):
    """By another door on the same storage, for example."""
    warmed(site, any_cache)
    other = type(site)()
    try:
        other.script = page(body=b"new")
        other.begin(any_cache, timeout="5m")
        other.pages.invalidate(url="/page")
        assert other.get().body == b"new"
    finally:
        other.end()
    assert site.bodies(3) == ["new"] * 3


@pytest.mark.parametrize(
    "line",
    [
        "Cookie: sid=alice",
        "Authorization: Bearer alice",
        "X-Api-Key: alice",
        "X-Forwarded-Host: evil.com",
        "X-HTTP-Method-Override: DELETE",
        "HX-Request: true",
    ],
)
def test_a_request_that_is_not_plain_takes_the_long_way(site, any_cache, line):
    """The page of plain ones is not its page."""
    warmed(site, any_cache)
    assert site.get("/page", line).text == "run 2"
    assert site.get().text in ("run 1", "run 3")  # its entry may tell by now that it differs by the header


def test_who_is_known_around_the_door_is_not_answered_again(site, cache):
    """By a login of the server's, or of an application around this one."""
    warmed(site, cache)
    site.around = {"user": Mock(is_authenticated=True)} if site.kind == "asgi" else {"REMOTE_USER": "alice"}
    assert site.get().text == "run 2"


def test_another_request_is_not_answered_again(site, any_cache):
    """It differs by host, query, path or scheme, or is no GET."""
    warmed(site, any_cache)
    assert site.get(host="example.org").text == "run 2"
    assert site.get("/page?a=1").text == "run 3"
    assert site.get("/page/").text == "run 4"
    site.around = {"scheme": "http"} if site.kind == "asgi" else {"wsgi.url_scheme": "http"}
    assert site.get().text == "run 5"
    site.around = {}
    assert site.get(method="HEAD").body == b""
    assert site.get("/page", 'If-None-Match: "1"').text == site.get().text == "run 1"
    assert site.post().text == "run 6"


def test_variants_are_not_answered_again(site, any_cache, looks):
    """A page that differs by a header is found by that header each time."""
    site.script = page("Vary: Accept-Language")
    site.begin(any_cache, timeout="5m")
    for _ in range(3):
        assert site.get("/page", "Accept-Language: en").text == "run 1"
        assert site.get("/page", "Accept-Language: fr").text == "run 2"
    assert (len(site.pages._hits), looks.call_count) == (0, 6)


def test_a_page_that_begins_to_differ_by_a_header_is_not_answered_again(site, any_cache):
    """The entry under its key tells the header then, and is no page."""
    warmed(site, any_cache)
    site.pages.invalidate(url="https://example.com/page")
    site.script = page("Vary: Accept-Language")
    assert site.get("/page", "Accept-Language: en").text == "run 2"
    assert site.get("/page", "Accept-Language: fr").text == "run 3"
    assert site.get("/page").text == "run 4"


def test_pages_stored_compressed_or_made_early_are_not_answered_again(site, cache):
    """The former depend on the codings that a client accepts, the latter on chance."""
    site.script = page("Content-Type: text/html", body=b"x" * 2_000)
    site.begin(cache, timeout="5m", rules={"/early": {"early": 1.0}, "*": {"compress": "gzip"}})
    for path in ("/early", "/page"):
        assert {site.get(path).body for _ in range(3)} == {b"x" * 2_000}
    assert site.get("/page", "Accept-Encoding: gzip").header("content-encoding") == "gzip"
    assert len(site.pages._hits) == 0


def test_headers_that_others_add_are_not_in_the_next_answer(site, any_cache):
    """Each answer has a list of its own."""
    warmed(site, any_cache)
    sent = []
    if site.kind == "asgi":

        async def send(message):
            sent.extend(message.get("headers", ()))
            message.get("headers", []).append((b"x-added", b"1"))

        scope = {
            "type": "http", "method": "GET", "scheme": "https", "path": "/page", "raw_path": b"/page",
            "query_string": b"", "headers": [(b"host", b"example.com")],
        }  # fmt: skip
        for _ in range(2):
            site.loop.run(site.pages(scope, None, send))
    else:

        def start_response(status, headers):
            sent.extend(headers)
            headers.append(("x-added", "1"))

        environ = {
            "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/page", "QUERY_STRING": "",
            "HTTP_HOST": "example.com", "wsgi.url_scheme": "https",
        }  # fmt: skip
        for _ in range(2):
            site.pages(environ, start_response)
    assert len(sent) == len(set(sent)) * 2
    assert not {name for name, _ in sent} & {b"x-added", "x-added"}


def test_what_is_kept_is_bounded(site, cache, monkeypatch):
    """By the number of pages, and by the size of each."""
    monkeypatch.setattr(looking, "MOST_HITS", 3)
    site.begin(cache, timeout="5m")
    for number in range(8):
        site.bodies(2, f"/{number}")
        assert len(site.pages._hits) <= 3
    site.script = page(body=b"x" * looking.LARGEST_HIT)
    site.pages._hits.clear()
    assert len({site.get("/large").body for _ in range(3)}) == 1
    assert len(site.pages._hits) == 0


def test_a_storage_that_fails_is_asked_the_long_way(site, cache, monkeypatch):
    """As for every request: the application answers."""
    warmed(site, cache)
    monkeypatch.setattr(LocMemCache, "_get", Mock(side_effect=StorageError))
    monkeypatch.setattr(LocMemCache, "_get_many", Mock(side_effect=StorageError))
    assert site.get().text == "run 2"


def test_a_transaction_sees_its_own_pages(site, cache):
    """What is kept is the storage's, and a transaction is asked before that."""
    warmed(site, cache)
    with transaction():
        site.pages.invalidate(url="https://example.com/page")
        if site.kind == "wsgi":  # an event loop has a context of its own
            assert site.get().text == "run 2"


def test_other_caches_and_versions_are_asked(site, tmp_path):
    """An alias that is configured anew is another cache, a version other entries; none is held on to."""

    def configured(name):
        backend = "storeroom.backends.locmem.LocMemCache"
        configure({"default": {"BACKEND": backend, "LOCATION": f"{tmp_path}{name}"}})
        return caches["default"]

    before = weakref.ref(configured("a"))
    warmed(site, "default")
    before().version = 2
    assert site.bodies(3) == ["run 2"] * 3
    configured("b")
    gc.collect()
    assert before() is None
    assert site.bodies(3) == ["run 3"] * 3


ANOTHER = """
import sys
from storeroom.backends.filebased import FileBasedCache
from storeroom.pages import Pages
Pages(FileBasedCache(sys.argv[1], {})).invalidate(url="/page")
"""


def test_an_invalidation_by_another_process_counts_at_once(site, tmp_path):
    """What is kept in memory of files is asked for anew after each commit, of whatever process."""
    cache = FileBasedCache(tmp_path / "cache", {})
    warmed(site, cache)
    subprocess.run([sys.executable, "-c", ANOTHER, str(tmp_path / "cache")], check=True)
    assert site.bodies(3) == ["run 2"] * 3
