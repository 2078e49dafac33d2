"""The WSGI door's own part: start_response(), write(), close(), the environ."""

import sys

import pytest

from storeroom.backends.locmem import LocMemCache
from storeroom.integrations.wsgi import PageCache

ENVIRON = {
    "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/page", "QUERY_STRING": "", "HTTP_HOST": "example.com",
    "wsgi.url_scheme": "https",
}  # fmt: skip


@pytest.fixture
def cache(request):
    return LocMemCache(request.node.nodeid, {})


class Body:
    """An iterable that notes its end."""

    def __init__(self, chunks) -> None:
        self.chunks, self.closed = chunks, 0

    def __iter__(self):
        return iter(self.chunks)

    def close(self):
        self.closed += 1


def get(pages, **environ):
    """Return status, headers and body."""
    got = []
    iterable = pages({**ENVIRON, **environ}, lambda *args: got.append(args))
    try:
        text = b"".join(iterable)
    finally:
        if hasattr(iterable, "close"):
            iterable.close()
    return got[-1][0], got[-1][1], text


def test_a_generator_may_begin_its_answer_late(cache):
    """start_response() is called by the first step of the iteration."""
    runs = []

    def app(environ, start_response):
        runs.append(environ)
        start_response("200 OK", [])
        yield b"page"

    pages = PageCache(app, cache, timeout=60)
    assert [get(pages)[2], get(pages)[2], len(runs)] == [b"page", b"page", 1]


def test_what_is_written_is_part_of_the_page(cache):
    """By the callable that start_response() returns; the length is that of all."""

    def app(environ, start_response):
        start_response("200 OK", [])(b"pa")
        return [b"ge"]

    pages = PageCache(app, cache, timeout=60)
    for _ in range(2):
        status, headers, text = get(pages)
        assert (status, dict(headers)["content-length"], text) == ("200 OK", "4", b"page")


def test_an_error_page_takes_the_answers_position(cache):
    """start_response() with exc_info, before anything is sent (PEP 3333)."""

    def app(environ, start_response):
        start_response("200 OK", [("X-A", "1")])
        try:
            _ = 1 / 0
        except ZeroDivisionError:
            start_response("404 Not Found", [("X-B", "2")], sys.exc_info())
        return [b"not found"]

    status, headers, text = get(PageCache(app, cache, timeout=60))
    assert (status, headers, text) == ("404 Not Found", [("X-B", "2")], b"not found")


@pytest.mark.parametrize("at", [0, 1])
def test_an_error_in_the_body_closes_it_once(cache, at):
    """And is the caller's."""

    def chunks():
        yield from [b"page"] * at
        raise LookupError

    bodies = []

    def app(environ, start_response):
        start_response("200 OK", [])
        bodies.append(Body(chunks()))
        return bodies[-1]

    with pytest.raises(LookupError):
        get(PageCache(app, cache, timeout=60))
    assert [body.closed for body in bodies] == [1]


@pytest.mark.parametrize("headers", [[], [("Set-Cookie", "a=b")], [("Content-Type", "text/event-stream")]])
def test_the_body_is_closed_once(cache, headers):
    """Whether it is stored, passes through, or is answered without the cache's doing."""
    bodies = []

    def app(environ, start_response):
        start_response("200 OK", headers)
        bodies.append(Body([b"pa", b"ge"]))
        return bodies[-1]

    pages = PageCache(app, cache, timeout=60)
    for environ in ({}, {}, {"REQUEST_METHOD": "HEAD"}, {"REQUEST_METHOD": "POST"}):
        assert get(pages, **environ)[2] in (b"page", b"")
    assert {body.closed for body in bodies} == {1}


def test_an_application_that_answers_nothing_is_an_error(cache):
    """Without start_response() there is no answer."""
    with pytest.raises(RuntimeError, match="start_response"):
        get(PageCache(lambda environ, start_response: [], cache, timeout=60))


def test_paths_are_told_apart_as_the_application_sees_them(cache):
    """With SCRIPT_NAME before; a question mark in a path is no query."""
    runs = []

    def app(environ, start_response):
        runs.append(environ["PATH_INFO"])
        start_response("200 OK", [])
        return [b"page"]

    pages = PageCache(app, cache, timeout=60)
    asked = [
        {"PATH_INFO": "/a?b"}, {"PATH_INFO": "/a", "QUERY_STRING": "b"}, {"SCRIPT_NAME": "/a", "PATH_INFO": ""},
        {"SCRIPT_NAME": "/s", "PATH_INFO": "/a"}, {"PATH_INFO": "/s/a"}, {"PATH_INFO": ""},
    ]  # fmt: skip
    for environ in asked:
        get(pages, **environ)
    assert runs == ["/a?b", "/a", "", "/a", ""]
