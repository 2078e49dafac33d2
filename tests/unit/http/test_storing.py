"""The rules for what is stored: a table for each section."""

import pytest

from storeroom.http import Lifetimes, Policy, Refusal, freshened, made, storable, unfit
from tests.unit.http.requests_of import DATE, NOW, headers, request

FIVE_MINUTES = Policy(timeout=300)


@pytest.mark.parametrize(
    ("lines", "refusal"),
    [
        ("Cache-Control: no-store, max-age=60", Refusal.NO_STORE),
        ("Cache-Control: nO-StOrE", Refusal.NO_STORE),
        ("Cache-Control: private, max-age=60", Refusal.PRIVATE),
        ('Cache-Control: private="x-user", max-age=60', Refusal.PRIVATE),
        ("Set-Cookie: sid=1", Refusal.SET_COOKIE),
        ("Vary: *", Refusal.VARY_ALL),
        ("Vary: accept, *", Refusal.VARY_ALL),
        ("Cache-Control: max-age=0", Refusal.STALE),
        ("Cache-Control: max-age=-5", Refusal.STALE),
        ("Cache-Control: max-age='60'", Refusal.STALE),
        ("Cache-Control: max-age=60, max-age=0", Refusal.STALE),
        ("Cache-Control: max-age=0, s-maxage=0", Refusal.STALE),
        ('Cache-Control: x="max-age=60", max-age=0', Refusal.STALE),
        ("Expires: 0", Refusal.STALE),
        (f"Expires: {DATE}", Refusal.STALE),
        ("Cache-Control: no-cache", Refusal.NO_LIFETIME),
        ("Cache-Control: max-age=0, no-store, must-understand", Refusal.STALE),
    ],
)
def test_a_response_that_forbids_it_is_refused_although_there_is_a_timeout(lines, refusal):
    """RFC 9111 §3, §4.1, §4.2.1, §5.2.2: the reason is told."""
    assert storable(request(), 200, headers(lines), FIVE_MINUTES, NOW) is refusal


@pytest.mark.parametrize("status", [100, 206, 304])
def test_answers_that_are_not_whole_are_refused(status):
    """RFC 9111 §3: the status is final, and not of a part."""
    assert storable(request(), status, headers("Cache-Control: max-age=60"), Policy(), NOW) is Refusal.STATUS


@pytest.mark.parametrize("status", [201, 302, 400, 401, 403, 404, 500, 503])
def test_an_error_is_stored_by_its_own_word_alone(status):
    """A configured timeout is for pages: an error page that comes first is not everybody's."""
    assert storable(request(), status, headers(), FIVE_MINUTES, NOW) is Refusal.NO_LIFETIME
    assert isinstance(storable(request(), status, headers("Cache-Control: max-age=9"), Policy(), NOW), Lifetimes)


def test_a_status_that_is_not_understood_is_refused_if_it_has_to_be():
    """RFC 9111 §5.2.2.3: must-understand; no-store beside it is for caches that do not know it."""
    sent = headers("Cache-Control: max-age=9, no-store, must-understand")
    assert storable(request(), 599, sent, Policy(), NOW) is Refusal.STATUS
    assert isinstance(storable(request(), 200, sent, Policy(), NOW), Lifetimes)


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        (["Surrogate-Control: MAX-AGE=60", "Cache-Control: max-age=9"], 60),
        (["Surrogate-Control: max-age=60;storeroom, max-age=5;other", "Cache-Control: max-age=9"], 60),
        (["Surrogate-Control: max-age=60;other", "Cache-Control: max-age=9"], 9),
        (["Surrogate-Control: no-store", "Cache-Control: max-age=9"], Refusal.NO_STORE),
    ],
)
def test_surrogate_control_is_read_by_its_own_grammar(lines, outcome):
    """The W3C's note: a directive may name the cache that it is for."""
    found = storable(request(), 200, headers(*lines), Policy(targeted=("Surrogate-Control",)), NOW)
    assert outcome == (found.fresh if isinstance(found, Lifetimes) else found)


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        (request(method="HEAD"), Refusal.METHOD),
        (request(method="POST"), Refusal.METHOD),
        (request("Cache-Control: no-store"), Refusal.REQUEST_NO_STORE),
        (request("Authorization: Basic x"), Refusal.AUTHORIZATION),
    ],
)
def test_a_request_that_forbids_it_is_refused(asked, refusal):
    """RFC 9111 §3, §3.5, §5.2.1.5."""
    assert storable(asked, 200, headers("Cache-Control: max-age=60"), Policy(), NOW) is refusal


@pytest.mark.parametrize("directive", ["public", "s-maxage=60", "must-revalidate"])
def test_an_answer_to_authorization_is_stored_if_it_allows_it(directive):
    """RFC 9111 §3.5."""
    found = storable(
        request("Authorization: x"), 200, headers(f"Cache-Control: max-age=60, {directive}"), Policy(), NOW
    )
    assert isinstance(found, Lifetimes)


@pytest.mark.parametrize(
    ("lines", "fresh"),
    [
        (["Cache-Control: max-age=60"], 60),
        (["Cache-Control: MaX-aGe=60, x=y"], 60),
        (['Cache-Control: max-age="60"'], 60),
        (["Cache-Control: max-age=0060"], 60),
        (["Cache-Control: max-age=99999999999999"], 2**31),
        (["Cache-Control: max-age=60, s-maxage=10"], 10),
        (["Cache-Control: s-maxage=90", "Cache-Control: max-age=5", "Expires: 0"], 90),
        (["Cache-Control: max-age=60", "Expires: 0"], 60),
        (["Cache-Control: max-age=60", "Age: 20"], 40),
        (["Cache-Control: max-age=60", "Date: Fri, 15 Jan 2027 07:59:30 GMT"], 30),
        (["Cache-Control: max-age=60", "Date: Fri, 15 Jan 2027 07:59:30 GMT", "Age: 40"], 20),
        (["Expires: Fri, 15 Jan 2027 08:01:00 GMT", f"Date: {DATE}"], 60),
        (["Expires: Fri, 15 Jan 2027 08:01:00 GMT"], 60),
        (["Expires: Friday, 15-Jan-27 08:01:00 GMT", f"Date: {DATE}"], 60),
        (["Expires: Fri Jan 15 08:01:00 2027", f"Date: {DATE}"], 60),
        (["X-Nothing: 1"], 300),
    ],
)
def test_freshness_is_stated_or_configured(lines, fresh):
    """RFC 9111 §4.2.1, §4.2.3: s-maxage, max-age, Expires, then the timeout; less the age it came with."""
    found = storable(request(), 200, headers(*lines), FIVE_MINUTES, NOW)
    assert isinstance(found, Lifetimes)
    assert found.fresh == fresh
    assert found.is_implicit is (fresh == 300)


@pytest.mark.parametrize("age", ["old", "-1", "1.5", "0, 0", "old, 0", "0;x=1"])
def test_an_age_that_makes_no_sense_is_too_old(age):
    """RFC 9111 §5.1: nothing is stored that may be stale."""
    assert storable(request(), 200, headers("Cache-Control: max-age=60", f"Age: {age}"), Policy(), NOW) is Refusal.STALE


@pytest.mark.parametrize(
    ("directives", "revalidate", "error"),
    [
        ("max-age=1", 30, 40),
        ("max-age=1, stale-while-revalidate=7", 7, 40),
        ("max-age=1, stale-if-error=7", 30, 7),
        ("max-age=1, stale-while-revalidate=0, stale-if-error=0", 0, 0),
        ("max-age=1, must-revalidate", 0, 0),
        ("max-age=1, proxy-revalidate, stale-while-revalidate=7", 0, 0),
        ("s-maxage=1, stale-if-error=7", 0, 0),
    ],
)
def test_stale_use_is_bounded_by_the_page_then_by_the_configuration(directives, revalidate, error):
    """RFC 5861 §3, §4; RFC 9111 §4.2.4, §5.2.2.10 forbid it."""
    policy = Policy(stale_while_revalidate=30, stale_if_error=40)
    found = storable(request(), 200, headers(f"Cache-Control: {directives}"), policy, NOW)
    assert isinstance(found, Lifetimes)
    assert (found.stale_while_revalidate, found.stale_if_error) == (revalidate, error)
    assert found.kept == 1 + max(revalidate, error)


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        (["Cache-Control: no-cache", 'ETag: "1"'], 60),
        (["Cache-Control: no-cache, max-age=9", 'ETag: "1"'], 60),
        (["Cache-Control: max-age=9", 'ETag: "1"'], 69),
        (["Cache-Control: max-age=9", f"Last-Modified: {DATE}"], 69),
        (["Cache-Control: max-age=9"], 9),
    ],
)
def test_an_answer_with_a_validator_is_kept_to_be_validated(lines, kept):
    """RFC 9111 §4.3, §5.2.2.4."""
    found = storable(request(), 200, headers(*lines), Policy(revalidate_for=60), NOW)
    assert isinstance(found, Lifetimes)
    assert (found.kept, found.validates) == (kept, "no-cache" in lines[0])


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        (["CDN-Cache-Control: max-age=60", "Cache-Control: no-store"], 60),
        (["CDN-Cache-Control: max-age=60", "Own-Cache-Control: max-age=5"], 5),
        (["CDN-Cache-Control: no-store", "Cache-Control: max-age=9"], Refusal.NO_STORE),
        (["CDN-Cache-Control: max-age=60", "Expires: 0"], 60),
        (["CDN-Cache-Control: max-age=60;x=1, must-understand=?0"], 60),
        (["CDN-Cache-Control: max-age=1, max-age=60"], 60),
        (["CDN-Cache-Control: ", "Cache-Control: max-age=9"], 9),
        (["CDN-Cache-Control: MAX-AGE=60", "Cache-Control: max-age=9"], 9),
        (["CDN-Cache-Control: max-age=60,", "Cache-Control: max-age=9"], 9),
        (["Other-Cache-Control: max-age=60", "Cache-Control: max-age=9"], 9),
    ],
)
def test_a_targeted_field_takes_the_position_of_cache_control(lines, outcome):
    """RFC 9213 §2.2: the first in the list that is there and means something; Expires goes with Cache-Control."""
    policy = Policy(targeted=("Own-Cache-Control", "CDN-Cache-Control"))
    found = storable(request(), 200, headers(*lines), policy, NOW)
    assert outcome == (found.fresh if isinstance(found, Lifetimes) else found)


@pytest.mark.parametrize(
    ("cookie", "stored"),
    [("", True), ("_ga=1; _ga_XY=2", True), ("lang=fr", True), ("sid=1", False), ("lang=fr; sid=1", False)],
)
def test_a_page_by_timeout_is_stored_for_cookies_that_are_named_or_ignored(cookie, stored):
    """A page that does not say that it is fresh may depend on a cookie that nobody has thought of."""
    policy = Policy(timeout=60, vary_on_cookies=("lang",))
    asked = request(f"Cookie: {cookie}") if cookie else request()
    found = storable(asked, 200, headers(), policy, NOW)
    assert isinstance(found, Lifetimes) if stored else found is Refusal.COOKIE
    assert isinstance(storable(asked, 200, headers("Cache-Control: max-age=9"), policy, NOW), Lifetimes)


def test_a_page_with_a_token_against_forged_requests_is_seen():
    """The token is one visitor's own."""
    page = b'<input type="hidden" name="csrfmiddlewaretoken" value="x">'
    assert unfit(request(), [], page, page, Policy()) is Refusal.CSRF
    assert unfit(request(), [(b"x-csrf-token", b"x")], b"", b"", Policy()) is Refusal.CSRF
    assert unfit(request(), [], b"", b"<p>nothing</p>", Policy()) is None
    assert unfit(request(), [], page, page, Policy(stores_tokens=True)) is None


def test_fields_of_a_connection_are_not_stored():
    """RFC 9111 §3.1: nor what Connection lists, nor Age, which is reckoned anew."""
    sent = headers(
        "Connection: close, X-Hop", "X-Hop: 1", "Keep-Alive: 5", "Age: 3", "ETag: x", "Cache-Control: max-age=9"
    )
    times = storable(request(), 200, sent, Policy(), NOW)
    assert isinstance(times, Lifetimes)
    assert made(200, sent, times, Policy(), NOW).headers == headers("ETag: x", "Cache-Control: max-age=9")


def test_browsers_are_told_a_time_of_their_own():
    """A page that is invalidated here does not live on in browsers."""
    policy = Policy(timeout=3600, browser_timeout=0)
    times = storable(request(), 200, headers("Expires: 0", "Cache-Control: s-maxage=9"), policy, NOW)
    assert isinstance(times, Lifetimes)
    record = made(200, headers("Expires: 0", "Cache-Control: s-maxage=9"), times, policy, NOW)
    assert record.headers == headers("Cache-Control: max-age=0")
    assert record.fresh_until == NOW + 9


def test_an_answer_that_was_validated_has_the_new_fields():
    """RFC 9111 §3.2, §4.3.4: all but those that describe the content."""
    sent = headers('ETag: "1"', "X-A: old", "X-B: old", "Content-Encoding: gzip", "Cache-Control: max-age=9")
    times = storable(request(), 200, sent, Policy(), NOW)
    assert isinstance(times, Lifetimes)
    record = made(200, sent, times, Policy(), NOW)
    new = headers("X-A: new", "Content-Encoding: br", "Cache-Control: max-age=7", 'ETag: "2"')
    assert sorted(freshened(record, new)) == sorted(
        headers('ETag: "1"', "X-A: new", "X-B: old", "Content-Encoding: gzip", "Cache-Control: max-age=7")
    )
