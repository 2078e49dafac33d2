"""The rules for the use of stored answers: a table for each section."""

import pytest

from storeroom.http import Kind, Policy, Record, cache_status, changed, cut, judge, pack, unpack
from storeroom.http.records import generation_of, pass_by, read_varies, varies
from tests.unit.http.requests_of import DATE, NOW, headers, request


def record(*lines, fresh=60.0, revalidate=0.0, error=0.0, **options):
    until = NOW + fresh
    return Record(
        200, headers(*lines), NOW - 10, until, revalidate_until=until + revalidate, error_until=until + error, **options
    )  # fmt: skip


@pytest.mark.parametrize(
    ("stored", "kind", "reason"),
    [
        (record(), Kind.HIT, ""),
        (record(fresh=-1), Kind.MISS, "stale"),
        (record(fresh=-1, revalidate=30), Kind.STALE, ""),
        (record(fresh=-40, revalidate=30), Kind.MISS, "stale"),
        (record(fresh=-1, error=30), Kind.MISS, "stale"),
        (record(fresh=0, validates=True), Kind.MISS, "stale;no-cache"),
    ],
)
@pytest.mark.parametrize("asked", [request(), request(method="HEAD"), request("Accept: x"), request("Cookie: a=1")])
def test_a_stored_answer_is_used_while_it_may_be(stored, kind, reason, asked):
    """RFC 9111 §4, §4.2.4; RFC 5861 §3."""
    verdict = judge(stored, asked, NOW, Policy())
    assert (verdict.kind, verdict.reason, verdict.is_not_modified) == (kind, reason, False)


@pytest.mark.parametrize(
    ("lines", "unmodified"),
    [
        (['If-None-Match: "a"'], True),
        (['If-None-Match: W/"a"'], True),
        (['If-None-Match: "x", "a" , "y"'], True),
        (["If-None-Match: *"], True),
        (['If-None-Match: "x"'], False),
        (["If-None-Match: a"], False),
        (["If-None-Match: "], False),
        ([f"If-Modified-Since: {DATE}"], True),
        (["If-Modified-Since: Fri, 15 Jan 2027 07:59:59 GMT"], False),
        (["If-Modified-Since: yesterday"], False),
        (['If-None-Match: "x"', f"If-Modified-Since: {DATE}"], False),
        (['If-None-Match: "a"', "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT"], True),
    ],
)
@pytest.mark.parametrize("tag", ['"a"', 'W/"a"'])
def test_conditions_are_evaluated_with_the_stored_validators(lines, unmodified, tag):
    """RFC 9111 §4.3.2; RFC 9110 §13.1.2, §13.1.3, §13.2.2."""
    stored = record(f"ETag: {tag}", f"Last-Modified: {DATE}")
    assert judge(stored, request(*lines), NOW, Policy()).is_not_modified is unmodified
    assert not judge(record("X-A: 1"), request("If-None-Match: x"), NOW, Policy()).is_not_modified
    assert judge(record(fresh=-1), request(*lines), NOW, Policy())[:3] == (Kind.MISS, False, "stale")


def test_the_date_of_an_answer_stands_for_its_last_change():
    """RFC 9111 §4.3.2, where it does not tell that."""
    stored = record(f"Date: {DATE}")
    assert judge(stored, request(f"If-Modified-Since: {DATE}"), NOW, Policy()).is_not_modified
    earlier = request("If-Modified-Since: Fri, 15 Jan 2027 07:59:59 GMT")
    assert not judge(stored, earlier, NOW, Policy()).is_not_modified


@pytest.mark.parametrize("lines", [["Range: bytes=0-1"], ["Range: bytes=0-1", 'If-Range: "a"']])
def test_ranges_are_the_applications(lines):
    """RFC 9110 §14.2: passed through, but to HEAD, for which Range means nothing."""
    assert judge(record(), request(*lines), NOW, Policy()).kind is Kind.BYPASS
    assert judge(record(), request(*lines, method="HEAD"), NOW, Policy()).kind is Kind.HIT


@pytest.mark.parametrize(
    ("asked", "status", "content_range", "body"),
    [
        ("bytes=0-0", 206, b"bytes 0-0/10", b"0"),
        ("bytes=2-4", 206, b"bytes 2-4/10", b"234"),
        ("bytes=8-", 206, b"bytes 8-9/10", b"89"),
        ("bytes=8-99", 206, b"bytes 8-9/10", b"89"),
        ("bytes=-3", 206, b"bytes 7-9/10", b"789"),
        ("bytes=-99", 206, b"bytes 0-9/10", b"0123456789"),
        ("bytes=10-", 416, b"bytes */10", b""),
        ("bytes=-0", 416, b"bytes */10", b""),
        ("bytes=4-2", 200, None, b"0123456789"),
        ("bytes=0-1,3-4", 200, None, b"0123456789"),
        ("bytes=-", 200, None, b"0123456789"),
        ("lines=0-1", 200, None, b"0123456789"),
    ],
)
def test_parts_are_cut_out_of_what_is_stored_if_that_is_configured(asked, status, content_range, body):
    """RFC 9110 §14: one range of bytes; the whole answer for anything else."""
    stored = record("X-A: 1", "Content-Length: 10")
    assert judge(stored, request(f"Range: {asked}"), NOW, Policy(serves_ranges=True)).is_part
    found, part = cut(stored, b"0123456789", asked.encode())
    told = dict(found.headers)
    assert (found.status, told.get(b"content-range"), part) == (status, content_range, body)
    assert (told[b"x-a"], told[b"content-length"]) == (b"1", b"%d" % len(body))


@pytest.mark.parametrize(
    ("line", "is_part"),
    [
        ('If-Range: "a"', True),
        ('If-Range: W/"a"', False),
        ('If-Range: "b"', False),
        (f"If-Range: {DATE}", True),
        ("If-Range: Fri, 15 Jan 2027 07:59:59 GMT", False),
    ],
)
def test_a_part_is_of_the_answer_that_the_client_has_begun(line, is_part):
    """RFC 9110 §13.1.5: else it gets the whole new one."""
    stored = record('ETag: "a"', f"Last-Modified: {DATE}")
    asked = request("Range: bytes=0-1", line)
    assert judge(stored, asked, NOW, Policy(serves_ranges=True)).is_part is is_part
    assert judge(stored, asked, NOW, Policy(serves_ranges=True)).kind is Kind.HIT


@pytest.mark.parametrize(
    ("directive", "fresh", "kind"),
    [
        ("no-cache", 60, Kind.MISS),
        ("max-age=0", 60, Kind.MISS),
        ("max-age=9", 60, Kind.MISS),
        ("max-age=10", 60, Kind.HIT),
        ("min-fresh=60", 60, Kind.HIT),
        ("min-fresh=61", 60, Kind.MISS),
        ("max-stale", -10, Kind.HIT),
        ("max-stale=10", -10, Kind.HIT),
        ("max-stale=9", -10, Kind.MISS),
    ],
)
def test_directives_of_a_request_count_if_that_is_configured(directive, fresh, kind):
    """RFC 9111 §5.2.1: by default nobody can have pages made anew."""
    stored, asked = record(fresh=fresh, error=60), request(f"Cache-Control: {directive}")
    assert judge(stored, asked, NOW, Policy(honours_requests=True)).kind is kind
    assert judge(stored, asked, NOW, Policy()).kind is (Kind.HIT if fresh > 0 else Kind.MISS)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("Cookie: _ga=1; lang=fr", Kind.HIT),
        ("Cookie: sid=1", Kind.BYPASS),
        ("Authorization: Basic x", Kind.BYPASS),
    ],
)
def test_a_page_by_timeout_is_not_for_those_who_may_see_another_one(line, kind):
    """One that says itself that it is fresh is for all (RFC 9111 §4)."""
    policy = Policy(vary_on_cookies=("lang",))
    assert judge(record(is_implicit=True), request(line), NOW, policy).kind is kind
    assert judge(record(), request(line), NOW, policy).kind is Kind.HIT


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"ttl": 30.5}, "S; hit; ttl=30"),
        ({"ttl": -0.5}, "S; hit; ttl=-1"),
        ({"reason": "uri-miss", "stored": True}, "S; fwd=uri-miss; stored"),
        ({"reason": "stale", "status": 304, "collapsed": True}, "S; fwd=stale; fwd-status=304; collapsed"),
        ({"reason": "bypass;cookie"}, 'S; fwd=bypass; detail="cookie"'),
    ],
)
def test_cache_status_tells_how_a_request_was_answered(options, text):
    """RFC 9211 §2."""
    assert cache_status("S", **options) == text.encode()
    assert cache_status("S x", **options).startswith(b'"S x"; ')


@pytest.mark.parametrize(
    ("method", "status", "lines", "paths"),
    [
        ("POST", 200, [], ["/page?q"]),
        ("DELETE", 204, [], ["/page?q"]),
        ("M-SEARCH", 302, ["Location: /other"], ["/page?q", "/other"]),
        ("PUT", 200, ["Content-Location: other?x=1"], ["/page?q", "/other?x=1"]),
        ("POST", 201, ["Location: https://EXAMPLE.com/new"], ["/page?q", "/new"]),
        ("POST", 201, ["Location: https://elsewhere.com/new"], ["/page?q"]),
        ("POST", 201, ["Location: http://example.com/new"], ["/page?q"]),
        ("POST", 201, ["Location: http://[x"], ["/page?q"]),
        ("POST", 400, [], []),
        ("POST", 500, [], []),
        ("GET", 200, [], []),
        ("OPTIONS", 200, [], []),
    ],
)
def test_unsafe_methods_change_urls(method, status, lines, paths):
    """RFC 9111 §4.4: the target, Location and Content-Location of the same origin, unless it is an error."""
    assert changed(request(method=method, query="q"), status, headers(*lines)) == paths


def test_a_record_is_bytes_and_back():
    """All of it, with an empty body or without headers, too."""
    for lines in ((), ("A: b:c", "A:", 'ETag: "x"')):
        stored = record(
            *lines, revalidate=3, error=4, kept_until=NOW + 9, is_implicit=True, validates=True, stamp=2**64 - 1
        )
        for body in (b"", b"a\nb:\0c"):
            found, text = unpack(pack(stored, body))
            assert text == body
            assert {name: getattr(found, name) for name in Record.__slots__} == {
                name: getattr(stored, name) for name in Record.__slots__
            }


@pytest.mark.parametrize("value", ["a\nb: c", "a\rb", "a\0b"])
def test_a_header_with_a_line_end_is_not_stored(value):
    """RFC 9110 §5.5: it would be two headers."""
    with pytest.raises(ValueError, match="line end"):
        pack(Record(200, [(b"x", value.encode())], NOW, NOW), b"")


@pytest.mark.parametrize("stored", [b"", b"P\x01", b"\x50\x01" + b"\0" * 30, pack(record("A: b"), b"")[:58], b"x" * 90])
def test_bytes_that_are_no_record_are_told(stored):
    """They may be another program's, or damaged."""
    with pytest.raises(ValueError, match="no stored page"):
        unpack(stored)


def test_entries_beside_records_are_read_back():
    """The headers that a URL's answers differ by, and the note that they are not stored; no two are alike."""
    stored = varies((b"a", b"b"), 2**64 - 10)
    assert (read_varies(stored).names, read_varies(stored).generation) == ((b"a", b"b"), 2**64 - 10)
    assert read_varies(stored).stamp != read_varies(varies((b"a", b"b"))).stamp
    assert generation_of(pass_by(0x0A0A)) == 0x0A0A
    assert pass_by() != pass_by()
