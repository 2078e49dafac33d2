"""Two hundred clients at the moment when a page expires, on real servers: one run of the view in all."""

import asyncio
import os
import socket
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from storeroom.testing.concurrency import eventually
from tests.servers.folders import new_folder
from tests.servers.process import ServerProcess, free_port

CLIENTS = 200
MODULE = "tests.integrations.pages.expiring"
SERVERS = {
    "uvicorn": ["uvicorn", f"{MODULE}:asgi_app", "--factory", "--lifespan", "off", "--no-access-log", "--port"],
    # Three processes, which know of each other by the storage alone.
    "gunicorn": [
        "gunicorn", f"{MODULE}:wsgi_app()", "--preload", "--workers", "3", "--worker-class", "gthread",
        "--threads", "24", "--bind",
    ],
}  # fmt: skip


@pytest.fixture(scope="module", params=SERVERS)
def server(request):
    """The port of a server, and the folder by which its application is told when to end."""
    port, folder = free_port(), new_folder()
    root = str(Path(__file__).parents[3])
    command = [sys.executable, "-m", *SERVERS[request.param]]
    command.append(str(port) if request.param == "uvicorn" else f"127.0.0.1:{port}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SITE_FOLDER", str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))))
        process = ServerProcess(command, folder, partial(answers_on, port), folder)
        process.start()
    yield port, folder
    process.stop()


def answers_on(port):
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True


async def get(port, path):
    """Return the body of an answer, by a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n\r\n")[2].decode()


async def at_once(port, path):
    return await asyncio.wait_for(asyncio.gather(*(get(port, path) for _ in range(CLIENTS))), 60)


def runs(folder, path):
    return (folder / f"{path[1:]}.runs").stat().st_size


def expire(port, path):
    """Have a page stored, and wait until it is stale."""
    assert asyncio.run(get(port, path)) == "run 1"
    time.sleep(1.05)  # max-age counts whole seconds


def test_one_run_answers_all_who_come_at_an_expiry(server):
    """They wait for its page, in all processes."""
    port, folder = server
    expire(port, "/wait")

    async def all_of_them():
        clients = asyncio.create_task(at_once(port, "/wait"))
        while runs(folder, "/wait") < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert not clients.done()
        (folder / "wait.end").touch()
        return await clients

    assert set(asyncio.run(all_of_them())) == {"run 2"}
    assert runs(folder, "/wait") == 2


def test_nobody_waits_for_a_page_that_may_be_stale(server):
    """All are answered while the one run goes on, which ends when they are gone."""
    port, folder = server
    expire(port, "/stale")
    assert set(asyncio.run(at_once(port, "/stale"))) == {"run 1"}
    eventually(lambda: runs(folder, "/stale") == 2)
    (folder / "stale.end").touch()
    eventually(lambda: asyncio.run(get(port, "/stale")) == "run 2")
    assert runs(folder, "/stale") == 2
