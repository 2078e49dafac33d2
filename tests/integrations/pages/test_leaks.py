"""Nobody is shown another's page: the leaks of other page caches, and some more. Each test fails without its guard."""

import pytest

from tests.integrations.pages.site import page

FIVE_MINUTES = {"timeout": "5m"}


def test_a_cookie_that_is_set_is_nobody_elses(site, cache):
    """Bob gets neither Alice's page nor her session (RFC 9111 §7.3)."""
    site.begin(cache, **FIVE_MINUTES)
    site.script = page("Set-Cookie: sid=alice")
    site.get()
    site.script = page("Set-Cookie: sid=bob")
    reply = site.get()
    assert (reply.text, reply.header("set-cookie"), reply.was_stored) == ("run 2", "sid=bob", False)


def test_a_condition_opens_no_other_page(site, cache):
    """An ETag of one page is no answer to another URL, which the application guards."""
    site.begin(cache, **FIVE_MINUTES)
    site.script = lambda asked: page('ETag: "a"')(asked) if asked.path == "/page" else page(status=401)(asked)
    site.get()
    assert site.get("/page", 'If-None-Match: "a"').status == 304
    assert site.get("/secret", 'If-None-Match: "a"').status == 401


@pytest.mark.parametrize("line", ["Clear-Site-Data: cache", "Cache-Control: no-cache", "Pragma: no-cache"])
def test_nobody_can_have_pages_made_anew(site, cache, line):
    """A header of a request does not make the application run."""
    site.begin(cache, **FIVE_MINUTES)
    assert site.bodies(3, "/page", line) == ["run 1"] * 3


def test_a_page_is_no_answer_to_another_method(site, cache):
    """POST runs the application, and its answer is not stored."""
    site.begin(cache, **FIVE_MINUTES)
    site.get()
    assert [site.post().text, site.post().text] == ["run 2", "run 3"]


@pytest.mark.parametrize("line", ["X-HTTP-Method-Override: DELETE", "X-Original-URL: /admin", "X-Rewrite-URL: /admin"])
def test_a_request_that_may_be_taken_for_another_one_is_passed_on(site, cache, line):
    """Its answer is not stored as that to the URL that it names."""
    site.begin(cache, **FIVE_MINUTES)
    assert [site.get("/page", line).text, site.get().text, site.get().text] == ["run 1", "run 2", "run 2"]


@pytest.mark.parametrize(
    "line",
    [
        "X-Forwarded-Host: evil.com",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Prefix: /evil",
        "Forwarded: host=evil.com",
        "X-Host: evil.com",
    ],
)
def test_a_forged_address_is_in_nobody_elses_page(site, cache, line):
    """Whoever comes first: a page in which the application may have written its address is for those who sent it."""
    site.begin(cache, **FIVE_MINUTES)
    name = line.partition(":")[0].lower()
    site.script = lambda asked: page(body=str(asked.headers.get(name)).encode())(asked)
    assert site.bodies(2, "/page", line) == [line.partition(": ")[2]] * 2
    assert site.bodies(2) == ["None"] * 2
    assert site.bodies(2, "/page", line) == [line.partition(": ")[2]] * 2
    assert len(site.runs) <= 4
    assert site.bodies(2, "/other") == ["None"] * 2
    assert site.bodies(2, "/other", line) == [line.partition(": ")[2]] * 2


def test_hosts_have_pages_of_their_own(site, cache):
    """Case and port 443 do not count; what is no host is not stored."""
    site.begin(cache, **FIVE_MINUTES)
    assert [site.get(host=host).text for host in ("a.com", "b.com", "A.com:443", "b.com")] == [
        "run 1", "run 2", "run 1", "run 2",
    ]  # fmt: skip
    assert [site.get(host="a/b").text, site.get(host="a/b").text] == ["run 3", "run 4"]


def test_only_the_hosts_that_are_named_are_stored(site, cache):
    """Others run the application each time, and fill no storage."""
    site.begin(cache, hosts=["example.com"], **FIVE_MINUTES)
    assert [site.get(host="evil.com").text for _ in range(2)] == ["run 1", "run 2"]
    assert site.bodies(2) == ["run 3"] * 2


@pytest.mark.parametrize(
    "path", ["//page", "/page/", "/page;x=1", "/page?", "/page?a=1", "/page?a=1&a=2", "/page?a=2&a=1"]
)
def test_paths_and_queries_are_told_apart(site, cache, path):
    """But for an empty query."""
    site.begin(cache, **FIVE_MINUTES)
    site.get()
    assert site.get(path).text == ("run 1" if path == "/page?" else "run 2")


def test_values_that_vary_are_told_apart(site, cache):
    """('ab', 'c') and ('a', 'bc'); an absent header and an empty one; languages."""
    site.begin(cache, **FIVE_MINUTES)
    site.script = lambda asked: page("Vary: A, B", body=f"{asked.headers.get('a')}|{asked.headers.get('b')}".encode())(
        asked
    )
    asked = [
        ("A: ab", "B: c"),
        ("A: a", "B: bc"),
        ("A: ab",),
        ("A: ab", "B: "),
        (),
        ("A: a,b", "B: c"),
        ("A: a", "B: b,c"),
    ]
    expected = ["ab|c", "a|bc", "ab|None", "ab|", "None|None", "a,b|c", "a|b,c"]
    for _ in range(2):
        assert [site.get("/page", *lines).text for lines in asked] == expected
    assert len(site.runs) == len(asked)


def test_a_page_that_varies_by_more_later_is_told_apart(site, cache):
    """Pages of before are for those whose headers they were made for."""
    site.begin(cache, timeout=300, vary_on=["a"])
    site.get("/page", "A: 1", "B: 1")
    site.script = page("Vary: B")
    assert site.bodies(1, "/page", "A: 2", "B: 1") == ["run 2"]
    assert site.get("/page", "A: 2", "B: 2").text == "run 3"
    assert site.get("/page", "A: 2", "B: 1").text in ("run 2", "run 4")
    assert site.get("/page", "A: 2", "B: 2").text == "run 3"


@pytest.mark.parametrize(
    "header", ["Vary: *", "Cache-Control: private", "Cache-Control: no-store", "Cache-Control: max-age=0"]
)
def test_a_page_that_says_so_is_not_stored(site, cache, header):
    """RFC 9111 §3, §4.1."""
    site.begin(cache, **FIVE_MINUTES)
    site.script = page(header)
    assert site.bodies(3) == ["run 1", "run 2", "run 3"]


def test_a_page_for_somebody_with_a_password_is_his(site, cache):
    """Neither is it stored, nor does he get the page of those without (RFC 9111 §3.5)."""
    site.begin(cache, **FIVE_MINUTES)
    site.script = lambda asked: page(body=asked.headers.get("authorization", "nobody").encode())(asked)
    assert site.get("/page", "Authorization: alice").text == "alice"
    assert site.bodies(2) == ["nobody"] * 2
    assert site.get("/page", "Authorization: bob").text == "bob"


def test_a_cookie_that_nobody_has_named_gets_no_page_of_others(site, cache):
    """A session cookie of a framework that does not send Vary: Cookie."""
    site.begin(cache, vary_on_cookies=["lang"], **FIVE_MINUTES)
    site.script = lambda asked: page(body=asked.headers.get("cookie", "nobody").encode())(asked)
    assert site.get("/page", "Cookie: sid=alice").text == "sid=alice"
    assert site.bodies(2) == ["nobody"] * 2
    assert site.get("/page", "Cookie: sid=bob").text == "sid=bob"
    assert site.get("/page", "Cookie: lang=fr").text == "lang=fr"
    assert site.get("/page", "Cookie: lang=fr; _ga=1").text == "lang=fr"


def test_pages_that_vary_by_cookies_do_so_by_those_that_count(site, cache):
    """Cookies of analytics do not; two cookies of one name both do."""
    site.begin(cache)
    site.script = lambda asked: page(
        "Vary: Cookie", "Cache-Control: max-age=60", body=asked.headers.get("cookie", "").encode()
    )(asked)
    assert site.get("/page", "Cookie: sid=1; _ga=2").text == "sid=1; _ga=2"
    assert site.get("/page", "Cookie: _ga=3; sid=1").text == "sid=1; _ga=2"
    assert site.get("/page", "Cookie: sid=1; sid=2").text == "sid=1; sid=2"
    assert site.get("/page", "Cookie: sid=2; sid=1").text == "sid=2; sid=1"


def test_a_token_against_forged_requests_is_nobody_elses(site, cache):
    """A page with one in it is not stored, whatever it says."""
    site.begin(cache, **FIVE_MINUTES)
    site.script = lambda asked: page(body=b'<input name="csrfmiddlewaretoken" value="%d">' % asked.number)(asked)
    assert len({*site.bodies(3)}) == 3


def test_an_error_page_that_comes_first_is_not_everybodys(site, cache):
    """A configured timeout is for pages."""
    site.begin(cache, hit_for_miss=0, **FIVE_MINUTES)
    for status in (500, 404, 302):
        site.script = page(status=status)
        assert site.get().status == status
    site.script = page()
    assert site.bodies(2) == ["run 4"] * 2


def test_head_first_leaves_no_empty_page(site, cache):
    """HEAD shares GET's page, and is answered without the body."""
    site.begin(cache, **FIVE_MINUTES)
    first, second = site.get(method="HEAD"), site.get()
    assert (first.body, first.header("content-length")) == (b"", "5")
    assert (second.text, second.was_stored) == ("run 1", True)
    assert site.get(method="HEAD").header("content-length") == "5"
    assert [asked.method for asked in site.runs] == ["GET"]


def test_a_part_that_comes_first_is_not_the_page(site, cache):
    """Ranges pass through, to a stored page, too (RFC 9110 §14.2)."""
    site.begin(cache, **FIVE_MINUTES)
    site.script = lambda asked: page(status=206, body=b"p")(asked) if "range" in asked.headers else page()(asked)
    part = site.get("/page", "Range: bytes=0-0")
    assert (part.status, site.get().text, site.get().text) == (206, "run 2", "run 2")
    assert site.get("/page", "Range: bytes=0-0").text == "p"


def test_a_condition_that_comes_first_leaves_the_whole_page(site, cache):
    """The application is asked for the whole page; the client has it already, and is told so."""
    site.begin(cache, **FIVE_MINUTES)
    site.script = lambda asked: (
        page(status=304, body=b"")(asked) if "if-none-match" in asked.headers else page('ETag: "a"')(asked)
    )
    assert site.get("/page", 'If-None-Match: "a"').status == 304
    reply = site.get()
    assert (reply.status, reply.text) == (200, "run 1")


def test_a_request_with_content_is_passed_on(site, cache):
    """Content of GET means something to some applications."""
    site.begin(cache, **FIVE_MINUTES)
    lines = () if site.kind == "wsgi" else ("Content-Length: 3",)
    lines = lines or ("Transfer-Encoding: chunked",)
    assert site.bodies(2, "/page", *lines) == ["run 1", "run 2"]


def test_a_header_with_a_line_end_is_not_replayed(site, cache):
    """It would be two headers, of which the second is its writer's."""
    site.begin(cache, **FIVE_MINUTES)
    site.script = page("X-A: b\nSet-Cookie: sid=1")
    site.get()
    assert not site.get().was_stored


def test_the_page_of_one_who_may_not_see_it_stored_is_his(site, cache):
    """no-store in a request keeps its answer out of the storage (RFC 9111 §5.2.1.5)."""
    site.begin(cache, **FIVE_MINUTES)
    assert site.get("/page", "Cache-Control: no-store").text == "run 1"
    assert site.bodies(2) == ["run 2"] * 2
    assert site.get("/page", "Cache-Control: no-store").text == "run 2"


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("Content-Encoding: gzip", "Accept-Encoding: gzip"),
        ("Content-Language: fr", "Accept-Language: fr"),
        ("Access-Control-Allow-Origin: https://a.com", "Origin: https://a.com"),
    ],
)
def test_an_answer_that_was_made_for_a_header_is_for_those_who_sent_it(site, cache, header, line):
    """It shows in the answer, also if that does not say Vary."""
    site.begin(cache, **FIVE_MINUTES)
    name = line.partition(":")[0].lower()
    site.script = lambda asked: page(*([header] if name in asked.headers else []))(asked)
    assert site.bodies(2, "/page", line) == ["run 1"] * 2
    assert site.get().text == "run 2"
    assert site.get().header(header.partition(":")[0].lower()) is None


@pytest.mark.parametrize("line", ["X-Requested-With: XMLHttpRequest", "HX-Request: true", "Turbo-Frame: menu"])
def test_a_part_for_a_script_is_no_page(site, cache, line):
    """An application that answers scripts with a fragment seldom says so in Vary."""
    site.begin(cache, **FIVE_MINUTES)
    name = line.partition(":")[0].lower()
    site.script = lambda asked: page(body=b"part" if name in asked.headers else b"page")(asked)
    assert [site.get("/page", line).text, site.get().text, site.get("/page", line).text] == ["part", "page", "part"]
    assert len(site.runs) <= 3


def test_a_nonce_is_for_one_answer(site, cache):
    """Whoever has read it once could run a script in another's page."""
    site.begin(cache, **FIVE_MINUTES)
    site.script = page("Content-Security-Policy: script-src 'nonce-abc'")
    assert site.bodies(2) == ["run 1", "run 2"]


def test_a_rule_holds_for_a_path_however_it_is_written(site, cache):
    """A path of which nothing is to be stored cannot be asked for under another spelling."""
    site.begin(cache, rules={"/admin*": None}, **FIVE_MINUTES)
    for path in ("/admin/x", "/%61dmin/x", "/admin%2Fx"):
        assert site.get(path).text != site.get(path).text


def test_an_answer_to_one_who_asks_oddly_keeps_nobody_from_the_page(site, cache):
    """A note that an answer was not stored ends with the next one that may be."""
    site.begin(cache, **FIVE_MINUTES)
    site.script = lambda asked: page(status=400)(asked) if asked.headers.get("accept") == "odd" else page()(asked)
    assert site.get("/page", "Accept: odd").status == 400
    assert site.bodies(3) == ["run 2"] * 3


def test_a_path_that_looks_like_a_file_is_stored_for_nobody_with_a_session(site, cache):
    """An application may answer /account/x.css with the account of whoever asks."""
    site.begin(cache, rules={"*.css": {"timeout": "1h"}})
    site.script = lambda asked: page(body=asked.headers.get("cookie", "nobody").encode())(asked)
    assert site.get("/account/x.css", "Cookie: sid=alice").text == "sid=alice"
    assert site.get("/account/x.css").text == "nobody"


@pytest.mark.parametrize("value", ["evil.com", ""])
def test_a_forged_address_gets_no_variant_of_others(site, cache, value):
    """The page varies by another header, and is stored for those who send no address."""
    site.begin(cache, timeout=300, vary_on=["a"])
    site.script = lambda asked: page(body=str(asked.headers.get("x-forwarded-host")).encode())(asked)
    for _ in range(2):
        assert site.get("/page", "A: 1").text == "None"
        assert site.get("/page", "A: 1", f"X-Forwarded-Host: {value}").text == value
