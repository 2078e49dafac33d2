"""Hits that are answered as the last one was: by the same rules as all others, and by far less work."""

import gc
import random
import subprocess
import sys
import weakref
from unittest.mock import Mock

import pytest

from storeroom import timeouts
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.exceptions import StorageError
from storeroom.integrations import asgi, wsgi
from storeroom.pages import hits, looking
from storeroom.registry import caches, configure
from storeroom.storage.envelope import Envelope
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


TEXT = "Content-Type: text/plain"
LONG = b"some text " * 200
COOKIES = "Cookie: _ga=GA1.2.3.4; _ga_AB12=GS1.1; _fbp=fb.1.2"
#: Options, lines and body of the page, and two kinds of requests for it, of which each is to have its own answer.
WAYS = {
    "cookies that scripts write": ({}, [TEXT], None, ["_"], [COOKIES]),
    "any cookie": ({}, ["Cache-Control: max-age=300"], None, ["_"], ["Cookie: sid=1"]),
    "tags": ({"tags": ["news", "sport"]}, [TEXT], None, ["_"], [COOKIES]),
    "served stale": ({"stale_while_revalidate": "1m", "stale_if_error": "1h"}, [TEXT], None, ["_"], [COOKIES]),
    "kept for a validator": ({"revalidate_for": "1h"}, [TEXT, 'ETag: "1"'], None, ["_"], [COOKIES]),
    "a header": ({}, ["Vary: Accept-Language"], None, ["Accept-Language: en"], ["Accept-Language: fr", COOKIES]),
    "named cookies": (
        {"vary_on_cookies": ["sid"], "tags": ["a"]}, [TEXT], None, [COOKIES], [f"{COOKIES}; sid=alice"],
    ),
    "all cookies": ({}, ["Vary: Cookie", "Cache-Control: max-age=300"], None, [COOKIES], ["Cookie: sid=alice"]),
    "a proxy's headers": (
        {}, [TEXT], None, ["X-Forwarded-Proto: https"], ["X-Forwarded-Proto: http", "X-Forwarded-Host: a", COOKIES],
    ),
    "compressed": ({"compress": "gzip"}, [TEXT], LONG, ["Accept-Encoding: gzip, br"], ["Accept-Encoding: br", COOKIES]),
    "all of it": (
        {"compress": "gzip", "tags": ["a"], "stale_while_revalidate": 60, "vary_on_cookies": ["sid"]},
        [TEXT, "Vary: Accept-Language"], LONG,
        ["Accept-Encoding: gzip", COOKIES, "X-Forwarded-Proto: https"], ["Accept-Language: fr", "Cookie: sid=1"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_what_a_site_has_all_the_time_is_answered_again(site, any_cache, clock, looks, way):
    """Two kinds of requests in turns, each as the long way answers it."""
    options, lines, body, *askers = WAYS[way]
    site.script = page(*lines, body=body)
    site.begin(any_cache, **{"timeout": "5m", **options})
    for asker in askers * 3:  # by then the headers are known that it differs by
        site.get("/page", *asker)
    runs = len(site.runs)
    for _ in range(3):
        for asker in askers:
            site.get("/page", *asker)
        clock.advance(0.7)
        before, hits = looks.call_count, any_cache.stats().hits
        again = [site.get("/page", *asker) for asker in askers]
        assert (looks.call_count, any_cache.stats().hits) == (before, hits + 2)
        for asker, reply in zip(askers, again, strict=True):
            site.pages._hits.clear()
            assert reply == site.get("/page", *asker)
        assert looks.call_count == before + 2
    assert len(site.runs) == runs
    site.pages.invalidate(tags=options["tags"]) if "tags" in options else site.pages.invalidate(prefix="/pa")
    for asker in askers:
        site.get("/page", *asker)
    assert len(site.runs) > runs


class Forgetful(hits.Hits):
    """Keeps nothing, so that each hit goes the long way."""

    def keep(self, *args):
        pass


LINES = (
    *("Accept-Language: en", "Accept-Language: fr", "Accept-Encoding: gzip", "Accept-Encoding: gzip;q=0, br"),
    *("Cookie: _ga=1", "Cookie: _ga=1; _gid=2", "Cookie: sid=alice", "Cookie: sid=bob; _ga=2", "Cookie: _ga=1,sid=eve"),
    *("Authorization: alice", "X-Api-Key: a", "X-Forwarded-Proto: http", "X-Forwarded-Host: evil.com"),
    *('If-None-Match: "1"', "Cache-Control: no-cache", "Range: bytes=0-1", "HX-Request: true"),
    *("X-HTTP-Method-Override: PUT", "Content-Length: 0"),
)  # fmt: skip
SITES = (
    ({"tags": ["a"], "vary_on_cookies": ["sid"], "stale_while_revalidate": 60}, [TEXT]),
    ({"compress": "gzip", "honours_requests": True}, [TEXT, "Vary: Accept-Language", 'ETag: "1"']),
    ({"stale_if_error": 60, "serves_ranges": True}, ["Cache-Control: max-age=60", "Vary: Cookie"]),
    ({"declared_cookies": ["sid"], "cache_status": "Storeroom"}, [TEXT]),
)


@pytest.mark.parametrize("number", range(len(SITES)))
@pytest.mark.parametrize("seed", range(2))
def test_whoever_asks_has_the_answer_of_the_long_way(site, any_cache, tmp_path, clock, number, seed):
    """Random requests of all kinds to two sites, of which one keeps no hits, amid times and invalidations."""
    chosen, (options, lines) = random.Random(seed), SITES[number]
    other = type(site)()
    other_cache = type(any_cache)(tmp_path / "other" if hasattr(any_cache, "_dir") else f"{tmp_path}", {})
    for each, its in ((site, any_cache), (other, other_cache)):
        each.script = _telling(lines)
        each.begin(its, **{"timeout": "5m", **options})
    other.pages._hits = Forgetful(other.pages._spelling, other.pages.added, are_steady=True)
    most = 0
    try:
        for _ in range(250):
            step = chosen.random()
            seconds, path = chosen.choice((0.3, 1, 70)), chosen.choice(("/a", "/b"))
            asked = chosen.sample(LINES, chosen.choice((0, 0, 1, 1, 2)))
            asked = list({line.partition(":")[0]: line for line in asked}.values())
            replies = []
            for each in (site, other):
                if step < 0.1 and each is site:
                    clock.advance(seconds)
                elif 0.1 <= step < 0.14:
                    each.pages.invalidate(**chosen_of(step, path))
                replies.append((each.get(path, *asked), len(each.runs)))
                each.drain()
            assert replies[0] == replies[1], asked
            most = max(most, len(site.pages._hits))
        assert most > len(other.pages._hits) == 0
    finally:
        other.end()


def _telling(lines):
    """Return a script whose pages tell what was asked, so that nobody's is another's."""
    pairs = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]

    def script(asked):
        told = {name: asked.headers.get(name) for name in ("accept-language", "x-forwarded-host")}
        return 200, pairs, f"{told} {asked.path} run {asked.number} {'text ' * 120}".encode()

    return script


def chosen_of(step, path):
    """Return one of the ways of invalidation."""
    return {"url": path} if step < 0.12 else {"prefix": path} if step < 0.13 else {"tags": ["a"]}


@pytest.mark.parametrize("how", ["renewed", "removed", "changed", "leased"])
def test_a_tag_or_an_envelope_that_has_changed_is_looked_at(site, cache, looks, how):
    """The version of a tag, to the byte; an envelope with the same stamp, too."""
    site.begin(cache, timeout="5m", tags=["news"], stale_while_revalidate="1m")
    assert site.bodies(3) == ["run 1"] * 3
    ((_, keys, page_at, *_, last),) = site.pages._hits.values()
    key, entry, version_key = keys[page_at], last[0][page_at], keys[-1]
    if how == "renewed":
        version, _ = last[0][-1].split(" ")
        cache._set(version_key, f"{version} {timeouts.now() + 1e6!r}", timeouts.now() + 1e6)
    elif how == "removed":
        cache._delete(version_key)
    elif how == "leased":
        cache._set(key, entry.leased(timeouts.now() + 60), entry.kept_until)
    else:
        changed = Envelope(
            entry.value.replace(b"run", b"RUN"), entry.fresh_until, 60.0, 0.0, entry.tags, 0.0, entry.stamp
        )
        assert changed == entry
        cache._set(key, changed, entry.kept_until)
    before = looks.call_count
    expected = {"renewed": "run 1", "removed": "run 2", "changed": "RUN 1", "leased": "run 1"}[how]
    assert site.get().text == expected
    assert looks.call_count == before + 1


def test_what_others_store_under_its_key_is_no_page(site, cache):
    """Whatever that makes of a comparison."""
    warmed(site, cache)
    ((_, keys, *_),) = site.pages._hits.values()
    cache._set(keys[0], [1], timeouts.now() + 60)
    assert site.bodies(2) == ["run 2"] * 2


def test_pages_begun_before_an_invalidation_of_others_are_answered_again(site, any_cache, looks):
    """From their next hit on: the list of generations is another one then, and stays."""
    warmed(site, any_cache)
    site.pages.invalidate(prefix="/other")
    before = looks.call_count
    assert site.bodies(5) == ["run 1"] * 5
    assert looks.call_count == before + 1


def test_pages_that_may_be_made_early_are_not_answered_again(site, cache):
    """That is chance."""
    site.begin(cache, timeout="5m", early=1.0)
    assert site.bodies(3) == ["run 1"] * 3
    assert len(site.pages._hits) == 0


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


def test_a_page_that_is_over_is_not_answered_again(site, any_cache, clock):
    """Neither one that its own lifetime ends, nor one that is gone from the storage."""
    warmed(site, any_cache)
    clock.advance("5m")
    assert site.bodies(3) == ["run 2"] * 3
    any_cache.clear()
    assert site.bodies(3) == ["run 3"] * 3


def test_a_page_that_is_stale_is_not_answered_again(site, any_cache, clock):
    """It is served while it is made anew, once more, and not for ever."""
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


def test_a_page_that_begins_to_differ_by_a_header_is_not_answered_again(site, any_cache):
    """The entry under its key tells the header then, and is no page."""
    warmed(site, any_cache)
    site.pages.invalidate(url="https://example.com/page")
    site.script = page("Vary: Accept-Language")
    assert site.get("/page", "Accept-Language: en").text == "run 2"
    assert site.get("/page", "Accept-Language: fr").text == "run 3"
    assert site.get("/page").text == "run 4"


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
    monkeypatch.setattr(hits, "MOST_HITS", 3)
    site.begin(cache, timeout="5m")
    for number in range(8):
        site.bodies(2, f"/{number}")
        assert len(site.pages._hits) <= 3
    site.script = page(body=b"x" * hits.LARGEST_HIT)
    site.pages._hits.clear()
    assert len({site.get("/large").body for _ in range(3)}) == 1
    assert len(site.pages._hits) == 0


def test_a_storage_that_fails_is_asked_the_long_way(site, cache, monkeypatch):
    """As for every request: the application answers."""
    warmed(site, cache)
    for hook in ("_get", "_get_together"):
        monkeypatch.setattr(LocMemCache, hook, Mock(side_effect=StorageError))
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
