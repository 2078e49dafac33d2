"""Attacks on page caches, beyond the leaks of our peers: docs/pages-security.md. Each test fails without its guard."""

import gzip
import threading

import pytest

from tests.integrations.pages.site import page
from tests.integrations.pages.test_doors import slow_page

FIVE_MINUTES = {"timeout": "5m"}
KEYS = ["Authorization: Basic YQ==", "X-API-Key: alice", "X-Auth-Token: alice", "X-Forwarded-User: alice"]


def whose(line):
    """Return a script whose page is that of the one who has sent this header."""
    name = line.partition(":")[0].lower()
    return lambda asked: page(body=asked.headers.get(name, "nobody").encode())(asked)


class User:
    is_authenticated = True


AROUND = {
    "asgi": [{"user": User()}, {"session": {"id": 7}}, {"extensions": {"tls": {"client_cert_name": "CN=alice"}}}],
    "wsgi": [{"REMOTE_USER": "alice"}, {"SSL_CLIENT_S_DN": "CN=alice"}, {"HTTPS_DN": "CN=alice"}],
}
"""What a server, or an application around the page cache, tells of the one who asks."""


@pytest.mark.parametrize("line", KEYS)
def test_a_page_for_one_who_has_a_key_is_his(site, cache, line):
    """A key to an API, or a user that a proxy names, is as good as Authorization."""
    site.begin(cache, **FIVE_MINUTES)
    site.script = whose(line)
    alice = line.partition(": ")[2]
    assert [site.get("/page", line).text, site.get().text, site.get("/page", line).text] == [alice, "nobody", alice]
    site.script = page("Cache-Control: max-age=60")
    assert site.get("/fresh", line).text != site.get("/fresh", line).text
    site.script = page("Cache-Control: public, max-age=60")
    assert site.get("/public", line).text == site.get("/public").text


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_page_for_one_whom_the_server_knows_is_his(site, cache, number):
    """The server may keep the credentials for itself, as Apache does; or a middleware around has read them."""
    site.begin(cache, **FIVE_MINUTES)
    known = AROUND[site.kind][number]
    for around, text in ((known, "alice"), ({}, "nobody"), (known, "alice"), ({}, "nobody")):
        site.around, site.script = around, page(body=text.encode())
        assert site.get().text == text


def test_a_page_varies_by_the_one_whom_the_server_knows(site, cache):
    """Its Authorization is not there to be seen, and counts all the same (WSGI); others are strangers."""
    site.begin(cache, **FIVE_MINUTES)
    for name in ("alice", "bob", "alice") if site.kind == "wsgi" else ():
        site.around = {"REMOTE_USER": name}
        site.script = page("Cache-Control: public, max-age=60", "Vary: Authorization", body=name.encode())
        assert site.get().text == name
    site.around = {"REMOTE_USER": ""} if site.kind == "wsgi" else {"user": None, "session": {}, "extensions": None}
    assert site.get().text == site.get().text


@pytest.mark.parametrize("line", [*KEYS, "Cookie: sid=alice", "Cookie: renamed_session=alice"])
@pytest.mark.parametrize("options", [{"timeout": 60}, {"timeout": 600, "early": 1e9}])
def test_a_page_is_made_anew_with_nobodys_credentials(site, cache, clock, line, options):
    """Who asks for a stale page lets it be made in the background: not one who would get another page."""
    site.begin(cache, stale_while_revalidate="5m", **options)
    site.script = whose(line)
    site.get()
    clock.advance(90)
    assert site.get("/page", line).text == line.partition(": ")[2]
    site.drain()
    assert {*site.bodies(2)} == {"nobody"}
    site.drain()
    assert {*site.bodies(2)} == {"nobody"}


@pytest.mark.parametrize("line", ["Cache-Control: no-store", "Authorization: x", "X-API-Key: x"])
def test_nobody_takes_a_stale_page_from_the_others(site, cache, clock, line):
    """An answer that is not to be stored, for its request's sake, leaves the stale page where it is."""
    site.begin(cache, stale_while_revalidate=60)
    site.script = page("Cache-Control: max-age=60")
    site.get()
    clock.advance(70)
    site.get("/page", line)
    site.drain()
    site.script = page("Cache-Control: private")
    assert site.get().text == "run 1"


@pytest.mark.parametrize("lines", [(), ("Cookie: sid=alice",)])
def test_those_who_wait_get_no_page_of_another(site, cache, lines):
    """Whether the first one has credentials, or one of those who wait for him."""
    site.begin(cache, **FIVE_MINUTES)
    may_end = threading.Event()
    site.script = slow_page(site, threading.Event(), may_end)
    site.script = _bodies_by_cookie(site, may_end)
    timer = threading.Timer(0.05, may_end.set)
    timer.start()
    askers = [lines, ("Cookie: sid=bob",), ()]
    replies = site.get_at_once(6, askers)
    timer.join()
    assert [reply.text for reply in replies] == ["alice" if lines else "nobody", "bob", "nobody"] * 2


def _bodies_by_cookie(site, may_end):
    inner = slow_page(site, threading.Event(), may_end)

    def body(asked):
        return asked.headers.get("cookie", "sid=nobody").removeprefix("sid=").encode()

    if site.kind == "wsgi":
        return lambda asked: (*inner(asked)[:2], body(asked))

    async def answers(asked):
        return (*(await inner(asked))[:2], body(asked))

    return answers


def test_a_path_is_no_part_of_the_host(site, cache):
    """`GET m/news` at the host a.co is not http://a.com/news."""
    site.begin(cache, **FIVE_MINUTES)
    site.script = lambda asked: page(body=asked.path.encode())(asked)
    assert site.get("m/news", host="a.co").text == "m/news"
    assert site.get("/news", host="a.com").text == "/news"


@pytest.mark.parametrize("host", ["example.com, evil.com", "example.com,evil.com", "example.com@evil.com", "a b", ""])
def test_a_host_that_two_may_read_differently_is_not_stored(site, cache, host):
    """Two lines of Host, a user before the name, or none at all."""
    site.begin(cache, **FIVE_MINUTES)
    assert site.get(host=host).text != site.get(host=host).text


@pytest.mark.parametrize(
    ("line", "name"), [("X_Forwarded_Host: evil.com", "x-forwarded-host"), ("Accept_Language: fr", "accept-language")]
)
def test_an_underscore_is_no_hyphen(site, cache, line, name):
    """Some applications take it for one: behind WSGI all do, and a server that lets it through says so by its variable.

    The page for one who sends it is nobody else's, whether it says by which headers it differs or not.
    """
    spelled = line.partition(":")[0].lower()
    for headers in ((), (f"Vary: {name}",)):
        site.begin(cache, **FIVE_MINUTES)
        site.pages.invalidate(prefix="/")
        site.script = lambda asked, headers=headers: page(
            *headers, body=asked.headers.get(spelled, asked.headers.get(name, "none")).encode()
        )(asked)
        assert site.get("/page", line).text != "none"
        if headers or site.kind == "asgi" or "forwarded" in name:
            assert site.bodies(2) == ["none"] * 2


@pytest.mark.parametrize("query", ["a=1&utm_source=evil", "utm_source=evil&a=1&utm_id=2"])
def test_a_parameter_that_is_ignored_is_in_nobodys_page(site, cache, query):
    """The application does not see it, so that no link and no redirect can have it."""
    site.begin(cache, ignored_parameters=["utm_*"], **FIVE_MINUTES)
    site.around = {"REQUEST_URI": f"/page?{query}"} if site.kind == "wsgi" else {}
    seen, inner = [], site.pages.app

    def app(environ, start_response):
        seen.append(environ["REQUEST_URI"])
        return inner(environ, start_response)

    site.pages.app = app if site.kind == "wsgi" else inner
    site.script = lambda asked: page(body=asked.query.encode())(asked)
    assert site.bodies(2, f"/page?{query}") == ["a=1"] * 2
    assert site.get("/page?a=1").text == "a=1"
    assert len(site.runs) == 1
    assert seen == (["/page?a=1"] if site.kind == "wsgi" else [])


@pytest.mark.parametrize("cookie", ["_ga=1 sid=alice", "_ga=1,sid=alice", '_ga="1; x"; sid=alice', "_ga=1\tsid=alice"])
def test_a_cookie_is_not_hidden_in_one_that_is_ignored(site, cache, cookie):
    """Python's http.cookies sees two there: whoever sends it could leave his own page for all."""
    site.begin(cache, **FIVE_MINUTES)
    site.script = whose("Cookie: ")
    assert site.get("/page", f"Cookie: {cookie}").text == cookie
    assert site.get().text == "nobody"
    site.script = page("Vary: Cookie", "Cache-Control: max-age=60")
    assert site.get("/vary", f"Cookie: {cookie}").text != site.get("/vary").text


@pytest.mark.parametrize("value", ["GA1.2.345.678", "%3Cscript%3E"])
def test_a_cookie_that_is_ignored_is_in_nobodys_page(site, cache, value):
    """A page that has written it down is its sender's; nobody is kept from a page by it."""
    site.begin(cache, **FIVE_MINUTES)
    shown = value.replace("%3C", "<").replace("%3E", ">")
    site.script = lambda asked: page(body=shown.encode() if "cookie" in asked.headers else b"page")(asked)
    assert site.get("/page", f"Cookie: _ga={value}").text == shown
    assert site.bodies(2) == ["page"] * 2
    assert site.get("/page", f"Cookie: _ga={value}").text == "page"


def test_content_that_nobody_has_announced_is_in_nobodys_page(site, cache):
    """HTTP/2 has no need of Content-Length."""
    site.begin(cache, **FIVE_MINUTES)
    site.content = b"evil"
    site.script = lambda asked: page(body=asked.content or b"page")(asked)
    assert site.bodies(2) == ["page"] * 2


@pytest.mark.parametrize("length", ["3", "500"])
def test_an_answer_that_was_cut_short_is_not_stored(site, cache, length):
    """Its length would take in the next answer of the connection, or be short of it (RFC 9112 §6.3)."""
    site.begin(cache, hit_for_miss=0, **FIVE_MINUTES)
    site.script = page(f"Content-Length: {length}")
    site.get()
    site.script = page()
    assert site.bodies(2) == ["run 2"] * 2


@pytest.mark.parametrize(
    "path",
    ["/static/../account", "/static/%2e%2e/account", "/static/x/..%2f../account", "/static/..%5caccount",
     "/static/%252e%252e/account", "//static/../account"],
)  # fmt: skip
def test_a_rule_for_files_is_not_for_what_is_outside(site, cache, path):
    """Where applications differ in the path that it is, the rules for both have to be the same one."""
    site.begin(cache, rules={"/static/*": {"timeout": "1d"}})
    assert site.get(path).text != site.get(path).text
    assert site.bodies(2, "/static/a..b/x.css") == ["run 3"] * 2
    assert site.bodies(2, "/static//x.css") == ["run 4"] * 2


@pytest.mark.parametrize(
    "path",
    ["//admin/x", "/./admin/x", "/x/../admin/x", "/%2561dmin/x", "/x%2f..%2fadmin/", "/x\\..\\admin/"],
)  # fmt: skip
def test_a_path_that_is_not_to_be_stored_has_no_other_spelling(site, cache, path):
    """Slashes, dots, and what is encoded twice."""
    site.begin(cache, rules={"/admin/*": None}, **FIVE_MINUTES)
    assert site.get(path).text != site.get(path).text
    assert site.bodies(2, "/x/./y") == ["run 3"] * 2


@pytest.mark.parametrize("line", ["Cookie: sid=alice", "X-API-Key: alice"])
@pytest.mark.parametrize(
    "path",
    ["/account/x.css", "/account;x.css", "/account%00.css", "/account%0ax.css", "/account%3fx.css", "/account%23.css"],
)  # fmt: skip
def test_an_account_that_looks_like_a_file_is_nobody_elses(site, cache, line, path):
    """Web cache deception: whatever the application makes of the end of a path."""
    site.begin(cache, rules={"*.css": {"timeout": "1h"}})
    site.script = whose(line)
    assert site.get(path, line).text == line.partition(": ")[2]
    assert site.get(path).text == "nobody"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (["X-CSRF-Token: abc"], b"page"),
        ([], b'{"csrfToken": "abc"}'),
        ([], b'<input type="hidden" name="_xsrf" value="abc">'),
        (["Content-Encoding: gzip"], gzip.compress(b'<input name="csrf_token" value="abc">', mtime=0)),
    ],
)
def test_a_token_is_seen_wherever_it_is(site, cache, headers, body):
    """In a header, in other spellings, in a page that the application has compressed."""
    site.begin(cache, **FIVE_MINUTES)
    site.script = page("Cache-Control: max-age=60", *headers, body=body)
    assert not [site.get(), site.get()][1].was_stored


@pytest.mark.parametrize("more", ["HX-Boosted: true", "HX-History-Restore-Request: true", "HX-Target: menu"])
def test_a_whole_page_for_a_script_is_no_part(site, cache, more):
    """Applications answer some requests of htmx with a part, and others with the whole page."""
    site.begin(cache, **FIVE_MINUTES)
    name = more.partition(":")[0].lower()
    site.script = lambda asked: page(body=b"whole" if name in asked.headers else b"part")(asked)
    asked = [("HX-Request: true",), ("HX-Request: true", more)]
    assert [site.get("/page", *lines).text for lines in asked * 2] == ["part", "whole"] * 2


@pytest.mark.parametrize(
    "name", ["X-Original-Host", "X-HTTP-Host-Override", "X-Script-Name", "X-Forwarded-Protocol", "X-Url-Scheme"]
)
def test_addresses_are_forged_by_less_known_headers_too(site, cache, name):
    """Of gateways, and of recipes for applications behind a proxy."""
    site.begin(cache, **FIVE_MINUTES)
    site.script = lambda asked: page(body=str(asked.headers.get(name.lower())).encode())(asked)
    assert [site.get("/page", f"{name}: evil").text, site.get().text] == ["evil", "None"]


def test_fields_of_one_connection_are_not_replayed(site, cache):
    """Nor those that Connection names (RFC 9110 §7.6.1)."""
    site.begin(cache, **FIVE_MINUTES)
    site.script = page("Connection: close, X-Own", "X-Own: 1", "Keep-Alive: timeout=5", "Proxy-Authenticate: Basic")
    site.get()
    reply = site.get()
    assert reply.was_stored
    assert {name for name, _ in reply.pairs} == {"content-length", "age"}


def test_an_error_about_a_part_is_not_the_page(site, cache):
    """A range that there is not, in a request that comes first (RFC 9110 §14.2)."""
    site.begin(cache, **FIVE_MINUTES)
    fresh = "Cache-Control: max-age=60"
    site.script = lambda asked: page(fresh, status=416)(asked) if "range" in asked.headers else page(fresh)(asked)
    assert site.get("/page", "Range: bytes=99-").status == 416
    assert site.bodies(2) == ["run 2"] * 2


@pytest.mark.parametrize("pair", [("X-A\nSet-Cookie", "1"), ("X-A", "b\rSet-Cookie: c"), ("X-A", "b\0c")])
def test_no_header_becomes_two(site, cache, pair):
    """Line ends in names, and those that other readers take for one."""
    site.begin(cache, **FIVE_MINUTES)
    site.script = lambda asked: (200, [pair], b"page")
    assert not [site.get(), site.get()][1].was_stored
