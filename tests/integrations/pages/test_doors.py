"""The doors: hits, single flight, stale pages, invalidation; by WSGI and by ASGI alike."""

import asyncio
import threading

import pytest

from storeroom.backends.dummy import DummyCache
from storeroom.backends.locmem import LocMemCache
from storeroom.exceptions import ConfigurationError, StorageError
from storeroom.pages import Pages, generations
from storeroom.testing.concurrency import eventually
from tests.handles import put_in_a_process_of_its_own
from tests.integrations.pages.site import AsgiSite, page


def test_a_hit_does_not_run_the_application(site, any_cache, clock):
    """It has the headers and the body of the page, and its age (RFC 9111 §5.1)."""
    site.begin(any_cache, timeout="5m")
    site.script = page("Content-Type: text/plain", "X-A: 1", "X-A: 2", "Connection: close")
    first = site.get()
    clock.advance(30)
    second = site.get()
    assert (first.text, first.header("age")) == ("run 1", None)
    assert (second.text, second.header("age"), second.header("x-a")) == ("run 1", "30", "1, 2")
    assert second.header("connection") is None
    clock.advance("5m")
    assert site.get().text == "run 2"
    assert len(site.runs) == site.closed == 2


def test_a_client_that_has_the_page_is_told_so(site, any_cache):
    """With the fields of RFC 9110 §15.4.5, and without a body."""
    site.begin(any_cache, timeout="5m")
    site.script = page('ETag: W/"1"', "Content-Type: text/plain", "Cache-Control: max-age=60")
    site.get()
    reply = site.get("/page", 'If-None-Match: "1"')
    assert (reply.status, reply.body) == (304, b"")
    assert reply.header("cache-control") == "max-age=60"
    assert reply.header("content-type") is None
    assert site.get("/page", 'If-None-Match: "2"').text == "run 1"


def test_cache_status_tells_the_way_of_an_answer(site, cache, clock):
    """RFC 9211, if it is asked for."""
    site.begin(cache, cache_status="Storeroom", timeout=60, rules={"/never/*": None})
    assert site.get().header("cache-status") == "Storeroom; fwd=uri-miss; ttl=60; stored"
    assert site.get().header("cache-status") == "Storeroom; hit; ttl=60"
    clock.advance(61)
    assert "fwd=uri-miss" in site.get().header("cache-status")
    assert site.get("/never/x").header("cache-status") == 'Storeroom; fwd=bypass; detail="rules"'
    assert site.post().header("cache-status") == "Storeroom; fwd=method"
    site.script = page("Set-Cookie: a=b")
    assert site.get("/other").header("cache-status") == "Storeroom; fwd=uri-miss"
    assert site.get("/other").header("cache-status") == 'Storeroom; fwd=bypass; detail="hit-for-miss"'


@pytest.mark.parametrize("chunks", [[], [b""], [b"run ", b"1"], [b"", b"run 1"]])
def test_a_page_in_parts_is_stored_whole(site, cache, chunks):
    """It is answered in one part, with its length."""
    site.begin(cache, timeout=60)
    site.script = page(body=chunks)
    assert [site.get().body, site.get().body] == [b"".join(chunks)] * 2
    assert site.get().header("content-length") == str(len(b"".join(chunks)))
    assert len(site.runs) == site.closed == 1


@pytest.mark.parametrize("headers", [(), ("Content-Length: 40",)])
def test_a_page_that_is_too_large_passes_through(site, cache, headers):
    """From the first byte over max_body, or by its Content-Length; nothing of it is lost."""
    site.begin(cache, timeout=60, max_body=20)
    site.script = page(*headers, body=[b"0123456789"] * 4)
    assert [site.get().body, site.get().body] == [b"0123456789" * 4] * 2
    assert len(site.runs) == site.closed == 2
    assert site.get(method="HEAD").body == b""


def test_a_stream_of_events_is_sent_as_it_comes(site, cache):
    """Its client waits for no end of it."""
    site.begin(cache, timeout=60)
    site.script = page("Content-Type: text/event-stream", body=[b"data: 1\n\n", b"data: 2\n\n"])
    assert [site.get().body, site.get().body] == [b"data: 1\n\ndata: 2\n\n"] * 2


def test_an_error_of_the_application_is_its_callers(site, cache):
    """As without the cache; nothing is stored."""
    site.begin(cache, timeout=60)

    def fails(asked):
        raise LookupError(f"run {asked.number}")

    site.script = fails
    for number in (1, 2):
        with pytest.raises(LookupError, match=f"run {number}"):
            site.get()
    site.script = page()
    assert site.bodies(2) == ["run 3"] * 2


def slow_page(site, begun, may_end, *lines):
    """Return a script that ends when it may."""
    answer = page(*lines)
    if site.kind == "wsgi":

        def waits(asked):
            begun.set()
            may_end.wait(30)
            return answer(asked)

        return waits

    async def awaits(asked):
        begun.set()
        while not may_end.is_set():
            await asyncio.sleep(0.001)
        return answer(asked)

    return awaits


def test_one_of_many_runs_the_application(site, any_cache):
    """The others wait for its page: threads and tasks."""
    site.begin(any_cache, timeout=60)
    may_end = threading.Event()
    site.script = slow_page(site, threading.Event(), may_end)
    timer = threading.Timer(0.1, may_end.set)
    timer.start()
    replies = site.get_at_once(40)
    timer.join()
    assert {reply.text for reply in replies} == {"run 1"}
    assert len(site.runs) == 1


def test_those_whose_page_is_not_stored_do_not_wait_for_each_other(site, cache, clock):
    """They run the application at the same time (hit-for-miss), and for some seconds nobody waits at all."""
    site.begin(cache, timeout=60, hit_for_miss="10s")
    running, most, lock = 0, 0, threading.Lock()
    may_end = threading.Event()

    def note(change):
        nonlocal running, most
        with lock:
            running += change
            most = max(most, running)
            if most >= 4:
                may_end.set()

    def waits(asked):
        note(1)
        if asked.number > 1:
            may_end.wait(30)
        note(-1)
        return page("Set-Cookie: a=b")(asked)

    async def awaits(asked):
        note(1)
        while asked.number > 1 and not may_end.is_set():
            await asyncio.sleep(0.001)
        note(-1)
        return page("Set-Cookie: a=b")(asked)

    site.script = waits if site.kind == "wsgi" else awaits
    assert len({reply.text for reply in site.get_at_once(5)}) == 5
    assert most >= 4
    site.script = page()
    assert site.bodies(2) == ["run 6"] * 2  # one that may be stored takes the note's position


def test_a_note_that_a_page_is_not_stored_ends(site, cache, clock):
    """After hit_for_miss, requests wait for each other again."""
    site.begin(cache, timeout=60, hit_for_miss="10s", cache_status="S")
    site.script = page("Set-Cookie: a=b")
    assert site.get().header("cache-status") == "S; fwd=uri-miss"
    clock.advance(9)
    assert "hit-for-miss" in site.get().header("cache-status")
    clock.advance(2)
    assert site.get().header("cache-status") == "S; fwd=uri-miss"


def test_a_stale_page_is_served_while_it_is_made_anew(site, any_cache, clock):
    """Nobody waits; one run in the background makes the next page, by the whole application (RFC 5861 §3)."""
    site.begin(any_cache, timeout=60, stale_while_revalidate=30)
    site.get()
    clock.advance(70)
    begun, may_end = threading.Event(), threading.Event()
    site.script = slow_page(site, begun, may_end)
    assert site.get().text == "run 1"
    if site.kind == "wsgi":
        eventually(begun.is_set)
    assert [reply.text for reply in site.get_at_once(5)] == ["run 1"] * 5
    may_end.set()
    site.drain()
    assert site.get().text == "run 2"
    assert len(site.runs) == site.closed == 2
    clock.advance(100)
    assert site.get().text == "run 3"


def test_a_refresh_that_fails_is_tried_again_later(site, cache, clock, caplog):
    """Meanwhile the stale page is served, and nobody tries."""
    site.begin(cache, timeout=60, stale_while_revalidate=300)
    site.get()
    clock.advance(61)
    site.script = lambda asked: 1 / 0
    for _ in range(3):
        assert site.get().text == "run 1"
        site.drain()
    assert len(site.runs) == 2
    assert "cannot be made" in caplog.text
    site.script = page()
    clock.advance(6)
    site.get()
    site.drain()
    assert site.get().text == "run 3"


@pytest.mark.parametrize("failure", [500, 503, "raises"])
def test_a_stale_page_is_served_if_the_application_fails(site, any_cache, clock, failure, caplog):
    """For stale_if_error, and no longer (RFC 5861 §4)."""
    site.begin(any_cache, timeout=60, stale_if_error=60)
    site.get()
    site.script = page(status=failure) if failure != "raises" else lambda asked: 1 / 0
    clock.advance(90)
    assert site.bodies(3) == ["run 1"] * 3
    assert len(site.runs) == 2  # and not once for each request
    clock.advance(6)
    assert site.get().text == "run 1"
    assert len(site.runs) == 3
    clock.advance(60)
    if failure == "raises":
        with pytest.raises(ZeroDivisionError):
            site.get()
    else:
        assert site.get().status == failure


@pytest.mark.parametrize("directive", ["must-revalidate", "proxy-revalidate", "s-maxage=10"])
def test_a_page_that_forbids_it_is_not_served_stale(site, cache, clock, directive):
    """RFC 9111 §4.2.4."""
    site.begin(cache, stale_while_revalidate=60, stale_if_error=60)
    site.script = page(f"Cache-Control: max-age=10, {directive}")
    site.get()
    clock.advance(11)
    site.script = page(status=503)
    assert site.get().status == 503


def test_a_page_is_validated_by_the_application(site, any_cache, clock):
    """Its 304 makes the stored page fresh, with the new fields (RFC 9111 §4.3)."""
    site.begin(any_cache, revalidate_for="1h")
    site.script = page('ETag: "1"', "Cache-Control: max-age=10", "X-A: old")
    site.get()
    clock.advance(11)
    site.script = lambda asked: (
        page("Cache-Control: max-age=20", "X-A: new", status=304, body=b"")(asked)
        if asked.headers.get("if-none-match") == '"1"'
        else page()(asked)
    )
    reply = site.get()
    assert (reply.status, reply.text, reply.header("x-a"), len(site.runs)) == (200, "run 1", "new", 2)
    clock.advance(19)
    assert (site.get().header("x-a"), len(site.runs)) == ("new", 2)


def test_a_page_that_asks_for_it_is_validated_each_time(site, cache):
    """no-cache with a validator (RFC 9111 §5.2.2.4)."""
    site.begin(cache, revalidate_for="1h")
    site.script = lambda asked: (
        page(status=304, body=b"")(asked)
        if "if-none-match" in asked.headers
        else page('ETag: "1"', "Cache-Control: no-cache")(asked)
    )
    assert site.bodies(3) == ["run 1"] * 3
    assert len(site.runs) == 3


def test_pages_go_by_url(site, any_cache):
    """With all that they vary by, and no other page."""
    site.begin(any_cache, timeout=60, vary_on=["accept-language"])
    pages = [("/a",), ("/a", "Accept-Language: fr"), ("/a?x=1",), ("/ab",)]
    for lines in pages:
        site.get(*lines)
    site.pages.invalidate(url="https://example.com/a")
    assert [site.get(*lines).text for lines in pages] == ["run 5", "run 6", "run 3", "run 4"]
    site.pages.invalidate(url="/a?x=1")
    assert [site.get(*lines).text for lines in pages] == ["run 5", "run 6", "run 7", "run 4"]
    Pages(any_cache, hosts=["example.com"]).invalidate(url="/ab")
    assert [site.get(*lines).text for lines in pages] == ["run 5", "run 6", "run 7", "run 8"]


@pytest.mark.parametrize(
    ("prefix", "left"), [("/a/", 2), ("/", 0), ("/a/b", 3), ("https://example.com/", 0), ("https://other.com/", 4)]
)
def test_pages_go_by_prefix(site, any_cache, prefix, left):
    """By one write, whatever their number, from any handle."""
    site.begin(any_cache, timeout=60)
    paths = ["/a/", "/a/b", "/b", "/"]
    before = [site.get(path).text for path in paths]
    Pages(any_cache).invalidate(prefix=prefix)
    after = [site.get(path).text for path in paths]
    assert sum(one == other for one, other in zip(before, after, strict=True)) == left
    assert [site.get(path).text for path in paths] == after


def paths_of(view, args, kwargs):
    """Return the path of a view, as a framework's router does; a star stands for an argument that is not given."""
    return {"item": f"/item/{kwargs.get('name', '*')}/", "both": ["/a/", "/b/"]}[view]


@pytest.mark.parametrize(
    ("how", "gone"),
    [
        ({"view": "item", "name": "x"}, {"/item/x/", "/item/x/?q=1"}),
        ({"view": "item", "kwargs": {"name": "x"}}, {"/item/x/", "/item/x/?q=1"}),
        ({"view": "item", "name": "ä"}, {"/item/%C3%A4/"}),
        ({"view": "item"}, {"/item/x/", "/item/x/?q=1", "/item/%C3%A4/"}),
        ({"view": "both"}, {"/a/", "/b/"}),
    ],
)
def test_pages_go_by_the_name_of_their_view(site, any_cache, how, gone):
    """With any query, and for all arguments that are not given; from any handle that knows the views' paths."""
    site.begin(any_cache, timeout=60)
    paths = ["/item/x/", "/item/x/?q=1", "/item/%C3%A4/", "/item/", "/item/x", "/a/", "/b/"]
    before = {path: site.get(path).text for path in paths}
    Pages(any_cache, urls=paths_of).invalidate(**how)
    assert {path for path in paths if site.get(path).text != before[path]} == gone


def test_a_view_that_cannot_be_found_is_told(cache):
    """Neither is it taken for all pages, nor for none."""
    with pytest.raises(ConfigurationError, match="do not know the paths of views"):
        Pages(cache).invalidate(view="item")
    with pytest.raises(TypeError, match=r"has got \['pk'\], which are arguments of a view"):
        Pages(cache, urls=paths_of).invalidate(pk=7)


def test_more_prefixes_than_are_remembered_are_no_stale_page(site, cache):
    """Pages from before the list go; newer ones stay."""
    site.begin(cache, timeout=60)
    site.get("/a")
    for number in range(150):
        site.pages.invalidate(prefix=f"/x{number}")
    assert site.get("/a").text == "run 2"
    site.pages.invalidate(prefix="/y")
    assert site.get("/a").text == "run 2"


def test_one_invalidation_made_again_and_again_takes_no_other_pages(site, cache):
    """A pattern is remembered once, however often it was invalidated."""
    site.begin(cache, timeout=60)
    site.get("/a")
    for _ in range(150):
        site.get("/x")
        site.pages.invalidate(prefix="/x")
        site.pages.invalidate(url="/home")
    assert (site.get("/a").text, site.get("/x").text) == ("run 1", "run 152")


@pytest.mark.parametrize("text", ["no list", 5])
def test_a_list_that_cannot_be_read_is_begun_anew(site, any_cache, text):
    """Pages are stored all the same."""
    any_cache.set("pages:generations", text)
    site.begin(any_cache, timeout=60)
    assert site.bodies(2) == ["run 1"] * 2
    any_cache.set("pages:generations", text)
    site.pages.invalidate(prefix="/")
    assert site.bodies(2) == ["run 2"] * 2


def test_a_list_whose_numbers_are_used_up_is_begun_anew():
    """No page of before it is live."""
    last = generations.Generations(1, 2**24 - 1, 0, {})
    anew = generations.read(last.after(["^/a"]))
    assert not any(anew.allows(stamp, "https://example.com/b") for stamp in (0, last.current, last.current + 1))


@pytest.mark.parametrize("tags", [["news"], lambda request: [request.path.strip("/")]])
def test_pages_go_by_tag(site, any_cache, tags):
    """With all other entries of the cache that carry it."""
    site.begin(any_cache, timeout=60, tags=tags)
    assert site.bodies(2, "/news") == ["run 1"] * 2
    any_cache.invalidate_tags("news")
    assert site.bodies(2, "/news") == ["run 2"] * 2
    site.pages.invalidate(tags=["news", "other"])
    assert site.bodies(2, "/news") == ["run 3"] * 2


@pytest.mark.parametrize("how", ["url", "prefix", "tags"])
def test_a_page_that_is_invalidated_while_it_is_made_is_not_stored(site, any_cache, how):
    """It may have been made of what was true before."""
    site.begin(any_cache, timeout=60, tags=["news"])

    def invalidates(asked):
        site.pages.invalidate(**{how: {"url": "https://example.com/page", "prefix": "/", "tags": ["news"]}[how]})
        return page()(asked)

    site.get("/other")
    site.script = invalidates
    site.get()
    site.script = page()
    assert site.bodies(2) == ["run 3"] * 2


def test_an_unsafe_method_makes_its_urls_absent(site, any_cache):
    """Before its answer is sent, unless it is an error (RFC 9111 §4.4)."""
    site.begin(any_cache, timeout=60)
    paths = ["/page", "/list?page=1", "/other"]
    for path in paths:
        site.get(path)
    site.script = page("Location: /list?page=1", status=400)
    site.post()
    site.script = page()
    assert [site.get(path).text for path in paths] == ["run 1", "run 2", "run 3"]
    site.script = page("Location: https://example.com/list?page=1", status=303)
    site.post()
    site.script = page()
    assert [site.get(path).text for path in paths] == ["run 6", "run 7", "run 3"]


def test_rules_are_by_the_path(site, cache, clock):
    """The first that fits; the others' options are those for all."""
    site.begin(cache, timeout=60, rules={"/a/never*": None, "/a/*": {"timeout": "1h"}})
    for path in ("/a/never/x", "/a/x", "/x"):
        site.get(path)
    clock.advance("30m")
    assert [site.get(path).text for path in ("/a/never/x", "/a/x", "/x")] == ["run 4", "run 2", "run 5"]


def test_browsers_are_told_another_time(site, cache, clock):
    """A page that goes here does not live on there; it has no age there, either."""
    site.begin(cache, timeout="1h", browser_timeout="10s")
    site.script = page("Cache-Control: max-age=3600")
    site.get()
    clock.advance(30)
    reply = site.get()
    assert (reply.header("cache-control"), reply.header("age"), reply.text) == ("max-age=10", None, "run 1")


def test_parts_of_a_stored_page_are_served_if_that_is_configured(site, any_cache):
    """Without the application; a page that is not there is its own to serve in parts."""
    site.begin(any_cache, timeout=60, serves_ranges=True)
    site.script = page(body=b"0123456789")
    site.get("/page", "Range: bytes=2-3")
    site.get()
    reply = site.get("/page", "Range: bytes=2-3")
    assert (reply.status, reply.body, reply.header("content-range")) == (206, b"23", "bytes 2-3/10")
    assert len(site.runs) == 2


def test_a_page_is_made_anew_early_at_random(site, cache, monkeypatch):
    """By its cost and the option early, before it is stale; the one who asks does not wait."""
    site.begin(cache, timeout=60, early=1)
    assert site.bodies(2) == ["run 1"] * 2
    monkeypatch.setattr("storeroom.pages.pages._is_early", lambda *_: True)
    assert site.get().text == "run 1"
    site.drain()
    monkeypatch.undo()
    assert (site.get().text, len(site.runs)) == ("run 2", 2)


def test_a_storage_that_keeps_nothing_is_in_nobodys_way(site):
    """Each request runs the application."""
    site.begin(DummyCache("", {}), timeout=60)
    assert site.bodies(2) == ["run 1", "run 2"]


def test_a_storage_that_fails_is_in_nobodys_way(site, cache, monkeypatch):
    """Whatever the alias's policy."""

    def fails(*args):
        raise StorageError("out of reach")

    site.begin(cache, timeout=60)
    for hook in ("_get", "_get_many", "_add", "_set", "_set_many", "_compare_set"):
        monkeypatch.setattr(cache, hook, fails)
    assert site.bodies(2) == ["run 1", "run 2"]


def test_bytes_that_are_no_page_are_a_miss(site, cache):
    """Another version's, or damaged ones."""
    site.begin(cache, timeout=60)
    for value in (b"", b"\x50\x01", b"\x50\x09abc", "text", 7, None, [1]):
        cache.set("page:https://example.com/page", value)
        before = len(site.runs)
        assert site.get().text == f"run {before + 1}"


def test_processes_agree_on_the_one_that_runs_the_application(tmp_path):
    """By a lease in the storage; the other waits for its page."""
    from storeroom.backends.filebased import FileBasedCache
    from tests.integrations.pages.site import WsgiSite

    one, other = WsgiSite(), WsgiSite()
    begun, may_end = threading.Event(), threading.Event()
    one.begin(FileBasedCache(tmp_path / "cache", {}), timeout=60)
    away = FileBasedCache(tmp_path / "cache", {})
    put_in_a_process_of_its_own(away)
    other.begin(away, timeout=60)
    one.script = slow_page(one, begun, may_end)
    got = []
    threads = [threading.Thread(target=lambda site=site: got.append(site.get().text)) for site in (one, other)]
    threads[0].start()
    eventually(begun.is_set)
    threads[1].start()
    may_end.set()
    for thread in threads:
        thread.join(30)
    assert (got, len(other.runs)) == (["run 1"] * 2, 0)


def test_the_application_sees_a_plain_get(site, cache):
    """Without conditions, and without ways to send what the cache does not see."""
    site.begin(cache, timeout=60)
    seen = []
    inner = site.pages.app

    if site.kind == "asgi":

        async def app(scope, receive, send):
            seen.append(scope["extensions"])
            assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
            await inner(scope, receive, send)

    else:

        def app(environ, start_response):
            seen.append({name: environ[name] for name in environ if name == "wsgi.file_wrapper"})
            return inner(environ, start_response)

    site.pages.app = app
    site.get("/page", 'If-None-Match: "x"', "Accept: y")
    assert seen == [{}]
    assert site.runs[0].headers == {"host": "example.com", "accept": "y"}


def test_two_doors_read_each_others_pages(any_cache):
    """A record is plain bytes."""
    from tests.integrations.pages.site import WsgiSite

    sites = [kind().begin(any_cache, timeout=60) for kind in (AsgiSite, WsgiSite)]
    sites[0].script = page("X-A: 1")
    assert [(reply.text, reply.header("x-a")) for reply in (site.get() for site in sites)] == [("run 1", "1")] * 2
    assert len(sites[1].runs) == 0
    sites[0].end()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"timout": 5}, "no option 'timout'. Did you mean 'timeout'?"),
        ({"timeout": "5 lightyears"}, "timeout is '5 lightyears'; expected a duration"),
        ({"tags": "news"}, "tags is 'news'; expected a list of names"),
        ({"max_body": "1"}, "max_body is '1'"),
        ({"rules": {"/a": {"stale_if_error": -1}}}, r"rules\['/a'\]: stale_if_error is -1"),
    ],
)
def test_a_mistake_in_the_options_is_told(options, told):
    """At once, with the rule that it is in."""
    with pytest.raises(ConfigurationError, match=told):
        Pages(LocMemCache("", {}), **options)


@pytest.mark.parametrize("options", [{"url": "news"}, {"prefix": "/a b"}, {"prefix": "/a\n- /"}, {"url": "ftp://x/"}])
def test_what_is_no_url_is_told(options, cache):
    """It would make no page absent."""
    with pytest.raises(ValueError, match="expected a path"):
        Pages(cache).invalidate(**options)
