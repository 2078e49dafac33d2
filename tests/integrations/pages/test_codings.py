"""Pages that are stored compressed."""

import gzip
from random import Random

import pytest

from storeroom.exceptions import ConfigurationError
from storeroom.pages import Pages
from storeroom.serializers.compressors import FORMATS
from tests.integrations.pages.site import page

TEXT = b"a page, " * 500
KIND = "Content-Type: text/html"


def expanded(body, coding):
    return gzip.decompress(body) if coding == "gzip" else FORMATS["zstd"].library().decompress(body)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_page_is_answered_as_its_client_accepts_it(site, any_cache, coding):
    """From one stored form; both say that they differ by it."""
    site.begin(any_cache, timeout=60, compress=coding)
    site.script = page(KIND, 'ETag: "1"', body=TEXT)
    for _ in range(2):
        small, plain = site.get("/page", f"Accept-Encoding: br, {coding};q=0.5"), site.get()
        assert expanded(small.body, coding) == plain.body == TEXT
        assert (small.header("content-encoding"), plain.header("content-encoding")) == (coding, None)
        assert (small.header("etag"), plain.header("etag")) == ('W/"1"', '"1"')
        assert small.header("vary") == plain.header("vary") == "accept-encoding"
        for reply in (small, plain):
            assert reply.header("content-length") == str(len(reply.body))
    head = site.get("/page", f"Accept-Encoding: {coding}", method="HEAD")
    assert head.header("content-length") == str(len(small.body))
    assert site.get("/page", f"Accept-Encoding: {coding}", 'If-None-Match: W/"1"').status == 304
    assert len(site.runs) == 1


@pytest.mark.parametrize("accept", ["", "identity", "gzip;q=0", "gzip;q=0.000", "br", "*;q=0", "gzip-not"])
def test_who_does_not_accept_it_gets_the_page_as_it_was(site, cache, accept):
    """RFC 9110 §12.5.3."""
    site.begin(cache, timeout=60, compress="gzip")
    site.script = page(KIND, body=TEXT)
    for _ in range(2):
        assert site.get("/page", f"Accept-Encoding: {accept}").body == TEXT
    assert gzip.decompress(site.get("/page", "Accept-Encoding: *").body) == TEXT


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (["Content-Type: image/png"], TEXT),
        ([], TEXT),
        ([KIND], b"short"),
        ([KIND, "Content-Encoding: br"], TEXT),
        ([KIND, "Cache-Control: max-age=60, no-transform"], TEXT),
        ([KIND], Random(1).randbytes(600)),
    ],
)
def test_a_page_that_gains_nothing_or_forbids_it_stays_as_it_is(site, cache, headers, body):
    """Images, short pages, those that are compressed already, and no-transform."""
    site.begin(cache, timeout=60, compress="gzip")
    site.script = page(*headers, body=body)
    for _ in range(2):
        assert site.get("/page", "Accept-Encoding: gzip").body == body


def test_parts_and_stale_pages_are_as_they_were(site, any_cache, clock):
    """Ranges are of the page as the application has made it; so is what it validates."""
    site.begin(any_cache, timeout=60, compress="gzip", serves_ranges=True, stale_if_error=60, revalidate_for="1h")
    site.script = page(KIND, 'ETag: "1"', body=TEXT)
    site.get()
    assert site.get("/page", "Range: bytes=0-5", "Accept-Encoding: gzip").body == TEXT[:6]
    clock.advance(61)
    site.script = page(status=503)
    assert site.get().body == TEXT
    clock.advance(6)
    site.script = page(status=304, body=b"")
    assert site.get().body == TEXT
    assert gzip.decompress(site.get("/page", "Accept-Encoding: gzip").body) == TEXT
    assert len(site.runs) == 3


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_page_whose_bytes_are_damaged_is_made_anew(site, cache, clock, coding):
    """It is no page, fresh or stale, and not validated."""
    site.begin(cache, timeout=60, compress=coding, revalidate_for="1h", stale_if_error=60)
    site.script = page(KIND, 'ETag: "1"', body=TEXT)
    for seconds in (0, 61):
        site.get()
        key = "page:https://example.com/page"
        hooks = cache
        entry = hooks._get(cache._storage_key(key, None))
        entry.value = entry.value[:-20]
        clock.advance(seconds)
        ran = len(site.runs)
        assert site.get().body == TEXT
        assert len(site.runs) == ran + 1
        assert "if-none-match" not in site.runs[-1].headers
        site.pages.invalidate(url="/page")


def test_a_coding_that_there_is_not_is_told(cache):
    """At once."""
    with pytest.raises(ConfigurationError, match="compress is 'br'"):
        Pages(cache, compress="br")
