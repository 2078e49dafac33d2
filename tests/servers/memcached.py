"""Memcached, a real one."""

import itertools
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.servers.folders import new_folder
from tests.servers.process import ServerProcess, binary, free_port
from tests.servers.shared import shared

#: pylibmc comes built for few systems, and is compiled with libmemcached on others. In CI it is there.
needs_pylibmc = pytest.mark.skipif(
    find_spec("pylibmc") is None and not os.environ.get("CI"), reason="pylibmc is not installed"
)

#: Items of a few MiB fit, as the contract has some; memory for all tests of a run.
OPTIONS = ["-m", "256", "-I", "16m", "-c", "2048"]


class MemcachedServer:
    """One server, on a socket or on a port."""

    def __init__(self, directory: Path, *options: str, by_port: bool = False) -> None:
        program = binary("memcached", "Debian: memcached")
        as_root = ["-u", "root"] if os.geteuid() == 0 else []
        self.folder = new_folder()
        self.port = free_port() if by_port else 0
        self.socket = str(self.folder / "memcached.sock")
        self.location = f"127.0.0.1:{self.port}" if by_port else f"unix:{self.socket}"
        where = ["-l", "127.0.0.1", "-p", str(self.port), "-U", "0"] if by_port else ["-s", self.socket]
        named = ["-P", str(self.folder / "memcached.pid")]  # the command line names the folder
        command = [program, *as_root, *where, *named, *(options or OPTIONS)]
        self.process = ServerProcess(command, directory, self.answers, self.folder)

    def start(self) -> "MemcachedServer":
        # Memcached does not replace the socket of one that was killed.
        Path(self.socket).unlink(missing_ok=True)
        self.process.start()
        return self

    def stop(self) -> None:
        # It has nothing to lose, and takes a second to end by itself.
        self.process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def connect(self) -> socket.socket:
        """Return a connection of the test's own."""
        if self.port:
            return socket.create_connection(("127.0.0.1", self.port), timeout=1)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(1)
        try:
            connection.connect(self.socket)
        except OSError:
            connection.close()
            raise
        return connection

    def ask(self, command: bytes) -> bytes:
        """Send a command by a connection of its own; return the reply, up to its end."""
        with self.connect() as connection:
            connection.sendall(command + b"\r\nquit\r\n")
            reply = b""
            while part := connection.recv(65_536):
                reply += part
        return reply

    def accepts(self) -> bool:
        """Tell whether it lets anybody connect; what it says may need TLS."""
        try:
            self.connect().close()
        except OSError:
            return False
        return True

    def answers(self) -> bool:
        try:
            return self.ask(b"version").startswith(b"VERSION")
        except OSError:
            return False


class Servers:
    """Some servers, and a prefix for each test."""

    def __init__(self, servers: list[MemcachedServer]) -> None:
        self.servers = servers
        self._next = itertools.count(1)

    def location(self) -> str:
        """Return LOCATION, of empty servers.

        A single one has another name each time: what a test before has left, counts and what this process knows of the
        server for a second still, are not the next one's.
        """
        for server in self.servers:
            assert server.ask(b"flush_all") == b"OK\r\n"
        first, *others = self.servers
        if others or first.port:
            return ",".join(server.location for server in self.servers)
        name = Path(f"{first.socket}.{next(self._next)}")
        name.symlink_to(first.socket)
        return f"unix:{name}"


@contextmanager
def running(directory: Path, count: int = 1, *options: str, by_port: bool = False) -> Iterator[Servers]:
    """Yield so many servers while they run."""
    with ExitStack() as stack:
        servers = []
        for number in range(count):
            server = MemcachedServer(directory / str(number), *options, by_port=by_port)
            stack.callback(server.stop)
            servers.append(server.start())
        yield Servers(servers)


@pytest.fixture(scope="session")
def memcached(tmp_path_factory: pytest.TempPathFactory) -> Servers:
    """One server for all tests that need no more."""
    return shared("memcached", lambda: running(tmp_path_factory.mktemp("memcached")))


@pytest.fixture(scope="session")
def three_memcached(tmp_path_factory: pytest.TempPathFactory) -> Servers:
    """Three that share the keys."""
    return shared("three memcached", lambda: running(tmp_path_factory.mktemp("three-memcached"), 3))
