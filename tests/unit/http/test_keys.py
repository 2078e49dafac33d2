"""The rules for keys: two requests have one key where their answers are the same, and nowhere else."""

import pytest

from storeroom.http import TRACKING_PARAMETERS, Policy, Request, bypass, forwarded, key, variant
from tests.unit.http.requests_of import request

PLAIN = Policy()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (request(host="Example.COM"), request()),
        (request(host="example.com:443"), request()),
        (request(method="HEAD"), request()),
        (request("Accept: x", "Cookie: a=1", "X-Forwarded-For: 1.2.3.4"), request()),
        (request("Forwarded: for=1.2.3.4"), request()),
    ],
)
def test_requests_of_one_url_have_one_key(one, other):
    """RFC 9110 §4.2.3: case and default port of a host do not count."""
    assert key(one, PLAIN) == key(other, PLAIN) is not None


@pytest.mark.parametrize(
    "other",
    [
        request(host="example.com:80"),
        request(host="example.com.evil.com"),
        request(url="//page"),
        request(url="/page/"),
        request(url="/PAGE"),
        request(url="/%70age"),
        request(url="/page;x=1"),
        request(url="/page%2Fx"),
        request(query="a=1"),
    ],
)
def test_requests_that_may_have_other_answers_have_other_keys(other):
    """All that an application may make its page of, but for what is in headers that it names in Vary."""
    assert key(other, PLAIN) != key(request(), PLAIN)


@pytest.mark.parametrize(
    "line",
    [
        "X-Forwarded-Host: evil.com",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Prefix: /evil",
        "Forwarded: for=1.2.3.4;host=evil.com",
        "X-Host: evil.com",
    ],
)
def test_an_answer_differs_by_the_headers_that_tell_an_application_its_address(line):
    """Whether it names them in Vary or not; but not by the address of the client."""
    sent = request(line, "X-Forwarded-For: 1.2.3.4")
    names = forwarded(sent)
    assert names == (line.partition(":")[0].lower().encode(),)
    assert variant(sent, names, PLAIN) != variant(request(), names, PLAIN)
    other = request(line.replace("1.2.3.4", "[::1]:80"), "X-Forwarded-For: 4.3.2.1")
    assert variant(sent, names, PLAIN) == variant(other, forwarded(other), PLAIN)


@pytest.mark.parametrize("host", ["", "a b", "a/b", "a?b", "a@b", "a#b", "a\\b", "a,b", "a:b", "a:123456", "ü"])
def test_a_host_that_is_none_has_no_key(host):
    """RFC 9110 §7.2: its answer is not stored."""
    assert key(request(host=host), PLAIN) is None


def test_queries_count_in_order_and_whole():
    """Duplicates and order mean something to some applications."""
    queries = ["a=1", "a=1&a=2", "a=2&a=1", "b=1&a=1", "a=1&b=1", "a=1&b", "a=1&b=", "a=%31", "a=1;b=1"]
    assert len({key(request(query=query), PLAIN) for query in queries}) == len(queries)


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("utm_source=x&a=1&gclid=2", "a=1"),
        ("utm_source=x", ""),
        ("utm=x&my_utm_source=1", "utm=x&my_utm_source=1"),
        ("utm_source=x;admin=1", "utm_source=x;admin=1"),
        ("utm%5Fsource=x", "utm%5Fsource=x"),
        ("a=1&a=2&fbclid=3", "a=1&a=2"),
    ],
)
def test_tracking_parameters_are_left_out_if_asked_for(query, left):
    """A parameter with a semicolon stays: an application may take what follows it for another one."""
    policy = Policy(ignored_parameters=TRACKING_PARAMETERS)
    assert key(request(query=query), policy) == key(request(query=left), PLAIN)


@pytest.mark.parametrize(
    ("names", "one", "other"),
    [
        ((b"a", b"b"), ["A: ab", "B: c"], ["A: a", "B: bc"]),
        ((b"a", b"b"), ["A: x", "B: "], ["A: x"]),
        ((b"a",), ["A: "], []),
        ((b"a",), ["A: -"], []),
        ((b"a", b"b"), ["A: 1:x,1:y"], ["A: x", "B: y"]),
        ((b"cookie",), ["Cookie: sid=1"], ["Cookie: sid=2"]),
        ((b"cookie",), ["Cookie: sid=1; sid=2"], ["Cookie: sid=1; sid=3"]),
        ((b"cookie",), ["Cookie: sid=1; sid=2"], ["Cookie: sid=2; sid=1"]),
        ((b"cookie",), ["Cookie: a=1"], []),
        ((b"accept-language",), ["Accept-Language: fr"], ["Accept-Language: de"]),
    ],
)
def test_answers_that_differ_by_headers_have_a_key_for_each_value(names, one, other):
    """RFC 9111 §4.1: lengths are part of the key, and an absent header is not an empty one."""
    assert variant(request(*one), names, PLAIN) != variant(request(*other), names, PLAIN)


def test_case_and_space_do_not_count_where_they_mean_nothing():
    """RFC 9111 §4.1: in Accept and its kin, and nowhere else."""
    one, other = request("Accept-Language: fr, De;q=0.5", "X: a, b"), request("Accept-Language: fr,de; q=0.5", "X: a,b")
    assert variant(one, (b"accept-language",), PLAIN) == variant(other, (b"accept-language",), PLAIN)
    assert variant(one, (b"x",), PLAIN) != variant(other, (b"x",), PLAIN)


def test_cookies_count_by_name():
    """Those that scripts write for themselves do not, and if names are given, no other ones do."""
    own = request("Cookie: _ga=GA1.2; sid=1; theme=dark")
    assert variant(own, (b"cookie",), PLAIN) == variant(request("Cookie: theme=dark; sid=1"), (b"cookie",), PLAIN)
    named = Policy(vary_on_cookies=("sid",))
    assert variant(own, (b"cookie",), named) == variant(request("Cookie: sid=1"), (b"cookie",), named)
    assert variant(request("Cookie: _ga=1"), (b"cookie",), PLAIN) == variant(request(), (b"cookie",), PLAIN)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (request(), None),
        (request("Range: bytes=0-1", "If-None-Match: x", "Authorization: x"), None),
        (request(method="POST"), "method"),
        (request(method="OPTIONS"), "method"),
        (request("X-HTTP-Method-Override: DELETE"), "bypass;override"),
        (request("X-Original-URL: /admin"), "bypass;override"),
        (request("Upgrade: h2c"), "bypass;upgrade"),
        (request("Content-Length: 4"), "bypass;body"),
        (request("Content-Length: 0"), None),
        (request("Transfer-Encoding: chunked"), "bypass;body"),
        (request("If-Match: x"), "request;precondition"),
        (request("If-Unmodified-Since: x"), "request;precondition"),
    ],
)
def test_requests_that_are_not_the_caches_are_passed_on(asked: Request, reason):
    """RFC 9111 §4: whatever an application may understand as something else than it looks."""
    assert bypass(asked) == reason
