"""The ASGI door's own part: tasks, streams, cancellation, the lifespan."""

import asyncio

import pytest

from storeroom.backends.locmem import LocMemCache
from storeroom.integrations.asgi import PageCache
from storeroom.testing.concurrency import aeventually

START = {"type": "http.response.start", "status": 200, "headers": [(b"X-A", b"1")]}
EVENTS = {**START, "headers": [(b"content-type", b"text/event-stream")]}


def body(text, *, more=False):
    return {"type": "http.response.body", "body": text, "more_body": more}


def scope(path="/page", **others):
    return {
        "type": "http", "method": "GET", "scheme": "https", "path": path, "raw_path": path.encode(),
        "query_string": b"", "headers": [(b"host", b"example.com")], **others,
    }  # fmt: skip


async def receive():
    return {"type": "http.request", "body": b"", "more_body": False}


@pytest.fixture
def cache(request):
    return LocMemCache(request.node.nodeid, {})


class Client:
    """Takes the messages of an answer."""

    def __init__(self) -> None:
        self.messages = []

    async def send(self, message):
        self.messages.append(message)

    @property
    def text(self):
        return b"".join(message.get("body", b"") for message in self.messages)


def test_work_after_the_answer_is_done_and_its_error_is_told(cache):
    """The client has its answer before; the server sees the error, as without the cache."""
    may_go_on = asyncio.Event()

    async def app(scope, receive, send):
        await send(START)
        await send(body(b"page"))
        await may_go_on.wait()
        raise LookupError("in a background task")

    async def run():
        pages, client = PageCache(app, cache, timeout=60), Client()
        request = asyncio.create_task(pages(scope(), receive, client.send))
        await aeventually(lambda: client.text == b"page")
        assert not request.done()
        may_go_on.set()
        with pytest.raises(LookupError, match="background"):
            await request
        again = Client()
        await pages(scope(), receive, again.send)
        assert again.text == b"page"

    asyncio.run(run())


def test_a_stream_reaches_its_client_while_it_runs_and_learns_of_its_end(cache):
    """Events pass through one by one; the application is told that its client has gone."""

    async def app(scope, receive, send):
        assert (await receive())["type"] == "http.request"
        await send(EVENTS)
        for number in range(3):
            await send(body(b"%d" % number, more=True))
        assert (await receive())["type"] == "http.disconnect"
        await send(body(b""))

    async def run():
        pages, client, gone = PageCache(app, cache, timeout=60), Client(), asyncio.Event()
        first = [True]

        async def leaves():
            if first.pop() if first else False:
                return {"type": "http.request", "body": b""}
            await gone.wait()
            return {"type": "http.disconnect"}

        request = asyncio.create_task(pages(scope(), leaves, client.send))
        await aeventually(lambda: client.text == b"012")
        gone.set()
        await request

    asyncio.run(run())


def test_a_caller_that_is_cancelled_ends_its_run_and_delays_nobody(cache):
    """The next one runs the application anew."""
    begun, ended, runs = asyncio.Event(), asyncio.Event(), []

    async def app(scope, receive, send):
        runs.append(scope)
        begun.set()
        if len(runs) == 1:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
        await send(START)
        await send(body(b"page"))

    async def run():
        pages, first, second = PageCache(app, cache, timeout=60), Client(), Client()
        leader = asyncio.create_task(pages(scope(), receive, first.send))
        await begun.wait()
        follower = asyncio.create_task(pages(scope(), receive, second.send))
        await asyncio.sleep(0)
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        await follower
        await ended.wait()
        assert (second.text, len(runs)) == (b"page", 2)

    asyncio.run(run())


def test_the_end_of_the_server_waits_for_pages_that_are_made(cache):
    """A page that is made anew in the background is made to its end before the application shuts down."""
    told = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            told.append((await receive())["type"])
            return
        await asyncio.sleep(0)
        told.append("made")
        await send(START)
        await send(body(b"page"))

    async def run():
        pages = PageCache(app, cache, stale_while_revalidate=60, timeout=0.001)
        await pages(scope(), receive, Client().send)
        await asyncio.sleep(0.002)
        await pages(scope(), receive, Client().send)

        async def shutdown():
            return {"type": "lifespan.shutdown"}

        await pages({"type": "lifespan"}, shutdown, Client().send)

    asyncio.run(run())
    assert told == ["made", "made", "lifespan.shutdown"]


def test_an_answer_that_is_not_complete_is_an_error(cache):
    """It is not stored."""

    async def app(scope, receive, send):
        await send(START)
        await send(body(b"pa", more=True))

    async def run():
        pages = PageCache(app, cache, timeout=60)
        with pytest.raises(RuntimeError, match="before its answer was complete"):
            await pages(scope(), receive, Client().send)

    asyncio.run(run())
    assert not cache.has_key("page:https://example.com/page")


@pytest.mark.parametrize("kind", ["websocket", "other"])
def test_what_is_no_request_passes_through(cache, kind):
    """The very scope and callables."""
    seen = []

    async def app(*given):
        seen.append(given)

    given = {"type": kind}, receive, Client().send
    asyncio.run(PageCache(app, cache, timeout=60)(*given))
    assert seen == [given]


def test_headers_that_are_sent_twice_are_one(cache):
    """Lines of cookies, as HTTP/2 splits them, are joined as cookies are (RFC 9113 §8.2.3)."""
    runs = []

    async def app(scope, receive, send):
        runs.append(scope)
        await send({**START, "headers": [(b"vary", b"cookie, a"), (b"cache-control", b"max-age=9")]})
        await send(body(b"page"))

    async def run():
        pages = PageCache(app, cache)
        for pairs in (
            [(b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"a", b"1"), (b"a", b"2")],
            [(b"cookie", b"a=1; b=2"), (b"a", b"1, 2")],
        ):
            await pages(scope(headers=[(b"host", b"example.com"), *pairs]), receive, Client().send)

    asyncio.run(run())
    assert len(runs) == 1


def test_a_server_that_tells_no_raw_path_is_served(cache):
    """The path is quoted; a question mark in it is no query."""
    runs = []

    async def app(scope, receive, send):
        runs.append(scope["path"])
        await send(START)
        await send(body(scope["path"].encode()))

    async def run():
        pages = PageCache(app, cache, timeout=60)
        for path, query in (("/a?b", b""), ("/a", b"b"), ("/ä", b""), ("/a?b", b"")):
            given = scope(query_string=query)
            del given["raw_path"]
            await pages({**given, "path": path}, receive, Client().send)

    asyncio.run(run())
    assert runs == ["/a?b", "/a", "/ä"]
