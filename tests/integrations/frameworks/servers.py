"""The applications of examples/ on real servers, by the very commands of examples/README.md."""

import os
import re
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import httpx2

from tests.servers.folders import new_folder
from tests.servers.process import ServerProcess, free_port

ROOT = Path(__file__).parents[3]


@cache
def commands() -> dict[str, list[str]]:
    """Return the commands by application, for this interpreter."""
    rows = re.findall(
        r"^\| \[(\w+)\.py\].*\| `(.+)` \|$", (ROOT / "examples/README.md").read_text("utf-8"), re.MULTILINE
    )
    return {name: [sys.executable, *(() if "python" in line else ("-m",)), *shlex.split(line.removeprefix("python "))]
            for name, line in rows}  # fmt: skip


#: Options by server: an address of the tests, and the folder, by which a later run knows a process for one of ours.
OPTIONS = {
    "uvicorn": ["--port", "{port}", "--app-dir", "{folder}"],
    "granian": ["--port", "{port}", "--working-dir", "{folder}", "--no-ws"],
    "gunicorn": ["--bind", "127.0.0.1:{port}", "--pid", "{folder}/pid"],
    "celery": ["--pidfile", "{folder}/pid", "--loglevel", "INFO"],
}


class Site:
    """An application on its server."""

    def __init__(self, name: str, url: str, **variables: str) -> None:
        self.folder, self.port, self.url = new_folder(), free_port(), url
        command = commands()[name]
        options = [option.format(port=self.port, folder=self.folder) for option in OPTIONS[command[2]]]
        variables = {"CACHE_URL": url, "PYTHONPATH": str(ROOT), **variables}
        environment = ["env", *(f"{variable}={value}" for variable, value in variables.items())]
        is_ready = partial(self.has_said, "ready.") if command[2] == "celery" else self.answers
        self.process = ServerProcess([*environment, *command, *options], self.folder, is_ready, self.folder)

    def has_said(self, text: str) -> bool:
        return text in (self.folder / "log").read_text(errors="replace")

    def answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 5).close()
        except OSError:
            return False
        return True

    def client(self) -> httpx2.Client:
        """Return a client whose requests have connections of their own, so that each may reach another worker."""
        none = httpx2.Limits(max_keepalive_connections=0)
        return httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", limits=none, timeout=20, trust_env=False)


@contextmanager
def running(name: str, url: str, **variables: str) -> Iterator[Site]:
    site = Site(name, url, **variables)
    site.process.start()
    try:
        yield site
    finally:
        site.process.stop()


def script(url: str, *arguments: str) -> list[str]:
    """Return the command of the script, for subprocess.run() with environment(url)."""
    return [*commands()["script"][:3], *arguments]


def environment(url: str) -> dict[str, str]:
    return {**os.environ, "CACHE_URL": url, "PYTHONPATH": str(ROOT)}
