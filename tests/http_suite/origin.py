"""The application that the suite tests a cache with: it forwards each request to the suite's server. Run by uvicorn."""

import asyncio
import os

import h11

from storeroom.backends.locmem import LocMemCache
from storeroom.integrations.asgi import PageCache

_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"te", b"upgrade", b"proxy-connection"}


async def origin(scope, receive, send):
    """Forward a request, on a connection of its own, and the whole answer."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    headers = [(name, value) for name, value in scope["headers"] if name not in _HOP | {b"content-length"}]
    headers += [(b"connection", b"close")] + [(b"content-length", b"%d" % len(body))] * bool(body)
    connection = h11.Connection(h11.CLIENT)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(os.environ["SUITE_PORT"]))
    try:
        writer.write(connection.send(h11.Request(method=scope["method"], target=target, headers=headers)))
        writer.write((connection.send(h11.Data(data=body)) if body else b"") + connection.send(h11.EndOfMessage()))
        answer, data = await _answer(reader, connection)
    finally:
        writer.close()
    dropped = _HOP - {b"connection"} | {b"content-length"}
    kept = [(name.lower(), value) for name, value in answer.headers.raw_items() if name.lower() not in dropped]
    kept = [(name, value) for name, value in kept if (name, value) != (b"connection", b"close")]
    await send({"type": "http.response.start", "status": answer.status_code, "headers": kept})
    await send({"type": "http.response.body", "body": data})


async def _answer(reader, connection):
    answer, data = None, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Response):
            answer = event
        elif isinstance(event, h11.Data):
            data += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return answer, data
        elif isinstance(event, h11.ConnectionClosed):
            raise ConnectionError("The suite's server has closed the connection.")


#: As a cache between others is configured: it validates, and takes the word of requests and of targeted fields.
app = PageCache(
    origin,
    LocMemCache("http-cache-tests", {"OPTIONS": {"MAX_ENTRIES": 10_000}}),
    revalidate_for="1h",
    stale_if_error="1m",
    honours_requests=True,
    targeted=["CDN-Cache-Control", "Surrogate-Control"],
    serves_ranges=True,
    cache_status="Storeroom",
)
