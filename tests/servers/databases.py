"""PostgreSQL and MariaDB, real ones, each in a folder of its own and on a socket and a free port."""

import contextlib
import getpass
import itertools
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.servers.folders import new_folder
from tests.servers.process import PATIENCE, ServerProcess, free_port, missing
from tests.servers.shared import shared

#: Both refuse to run as root; as root, the first of these users that there is runs them.
STAND_INS = ("postgres", "mysql", "nobody")


class DatabaseServer:
    """A server whose files belong to the user that it runs as."""

    process: ServerProcess

    #: Debian's folders of programs that are not on everybody's PATH.
    FOLDERS = ("usr/sbin", "usr/lib/postgresql/*/bin")

    #: The files of an empty database of each kind, from which this process's servers are copied.
    _empty: ClassVar[dict[type, Path]] = {}
    _laying_out: ClassVar = threading.Lock()

    #: Of tables. One server's name is free on each other, as a test may take it from one for another.
    _numbers: ClassVar = itertools.count(1)

    def __init__(self, *programs: str) -> None:
        found = {name: _found(name, self.FOLDERS) for name in programs}
        lacking = [name for name, path in found.items() if path is None]
        if lacking:
            missing(f"{lacking[0]} is not installed (Debian: postgresql, mariadb-server)")
        self.programs: dict[str, str] = {name: str(path) for name, path in found.items()}
        self.port = free_port()
        self.user = _unprivileged()
        self.folder = self._own_folder()
        self.data = self.folder / "data"
        self.run("cp", "-a", str(self._laid_out()), str(self.data))

    def _laid_out(self) -> Path:
        with self._laying_out:
            if type(self) not in self._empty:
                data = self._own_folder() / "data"
                self.lay_out(data)
                self._empty[type(self)] = data
        return self._empty[type(self)]

    def lay_out(self, data: Path) -> None:
        """Make the files of an empty database."""
        raise NotImplementedError

    def _own_folder(self) -> Path:
        folder = new_folder()
        if self.user:
            shutil.chown(folder, self.user)
        return folder

    def table(self) -> str:
        """Return the name of a table that no other test uses."""
        return f"cache_{next(self._numbers)}"

    def as_user(self, *command: str) -> list[str]:
        """Return a command that runs as the user to whom the files belong."""
        if not self.user:
            return list(command)
        entry = pwd.getpwnam(self.user)
        identity = (f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups")
        return ["setpriv", *identity, "--", *command]

    def run(self, *command: str) -> None:
        """Run a command that ends."""
        subprocess.run(self.as_user(*command), cwd="/", check=True, capture_output=True, timeout=2 * PATIENCE)

    def start(self) -> None:
        self.process.start()

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def accepts(self, path: str) -> bool:
        """Tell whether a socket is listened on."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
            except OSError:
                return False
        return True


class PostgreSQLServer(DatabaseServer):
    """One server; a test has a table of its own."""

    def __init__(self) -> None:
        super().__init__("initdb", "postgres")
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "fsync": "off",  # nothing here outlives the machine
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "dynamic_shared_memory_type": "mmap",  # files in the folder, which are removed with it
            "max_connections": 200,
            "shared_buffers": "32MB",
        }
        options = itertools.chain.from_iterable(("-c", f"{name}={value}") for name, value in settings.items())
        command = self.as_user(self.programs["postgres"], "-D", str(self.data), *options)
        self.process = ServerProcess(command, self.folder / "log", self.answers, self.folder)

    def lay_out(self, data: Path) -> None:
        self.run(
            self.programs["initdb"], "-D", str(data), "-U", "storeroom", "-A", "trust", "-E", "UTF8", "--no-sync",
            "--locale=C",
        )  # fmt: skip

    def answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def url(self, *, by_port: int | None = None) -> str:
        if by_port:
            return f"postgresql://storeroom@127.0.0.1:{by_port}/postgres"
        return f"postgresql://storeroom@:{self.port}/postgres?host={self.folder}"

    def execute(self, statement: str) -> Any:
        """Run a statement of a test; return its rows."""
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else None

    def kill(self) -> None:
        """End it and all it has started as a crash would."""
        self.process.pause()  # lest it starts another meanwhile
        children = _children(self.process.pid)
        self.process.kill()
        for child in children:
            _end(child)

    def stop(self) -> None:
        """Let it end, without waiting for its clients."""
        os.kill(self.process.pid, signal.SIGINT)
        self.process.stop()

    def pause(self) -> None:
        """Let all its processes do nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for process in (self.process.pid, *_children(self.process.pid)):
            with contextlib.suppress(ProcessLookupError):  # one that ends as soon as it may
                os.kill(process, number)


#: Attempts to set MariaDB up: of twenty set up beside others, one of 10.11 ended by a signal of its own.
INSTALLATIONS = 3


class MariaDBServer(DatabaseServer):
    """One server; a test has a table of its own."""

    #: Folder of temporary tables: to set a server up removes those of all others from it, and it is /tmp by default.
    TEMPORARY: ClassVar = "temporary"

    def __init__(self) -> None:
        super().__init__("mariadb-install-db", "mariadbd")
        self.socket = str(self.folder / "socket")
        command = self.as_user(
            self.programs["mariadbd"], "--no-defaults", f"--datadir={self.data}", f"--socket={self.socket}",
            f"--tmpdir={self.folder}/{self.TEMPORARY}", f"--port={self.port}", "--bind-address=127.0.0.1",
            f"--pid-file={self.folder}/pid", "--max-connections=300",
            "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M", "--skip-log-bin",
            "--max-allowed-packet=64M",  # a value is sent as twice as many digits
        )  # fmt: skip
        self.process = ServerProcess(command, self.folder / "log", lambda: self.accepts(self.socket), self.folder)

    def _own_folder(self) -> Path:
        folder = super()._own_folder()
        self.run("mkdir", str(folder / self.TEMPORARY))
        return folder

    def lay_out(self, data: Path) -> None:
        for attempts_left in reversed(range(INSTALLATIONS)):
            try:
                self.run(
                    self.programs["mariadb-install-db"], "--no-defaults", f"--datadir={data}",
                    f"--tmpdir={data.parent}/{self.TEMPORARY}", "--auth-root-authentication-method=normal",
                    "--skip-name-resolve",
                )  # fmt: skip
                break
            except subprocess.CalledProcessError:
                if not attempts_left:
                    raise
                shutil.rmtree(data, ignore_errors=True)

    def url(self, *, by_port: int | None = None) -> str:
        # PyMySQL would read the system's certificates for each connection: that takes longer than most tests.
        if by_port:
            return f"mariadb://root@127.0.0.1:{by_port}/test?ssl_disabled=true"
        return f"mariadb://root@localhost/test?unix_socket={self.socket}&ssl_disabled=true"

    def kill(self) -> None:
        self.process.kill()

    def stop(self) -> None:
        self.process.stop()

    def pause(self) -> None:
        self.process.pause()

    def resume(self) -> None:
        self.process.resume()


def running(server: Any) -> Iterator[Any]:
    """Yield a server while it runs."""
    try:
        server.start()
        yield server
    finally:
        if server.process.is_running:
            server.resume()
            server.stop()
        server.remove()


@pytest.fixture(scope="session")
def postgresql() -> PostgreSQLServer:
    """A server for all tests that need no more than a table."""
    return shared("postgresql", lambda: contextmanager(running)(PostgreSQLServer()))


@pytest.fixture
def postgresql_server() -> Iterator[PostgreSQLServer]:
    """A server of the test's own, which it may mistreat."""
    yield from running(PostgreSQLServer())


@pytest.fixture(scope="session")
def mariadb() -> MariaDBServer:
    """A server for all tests that need no more than a table."""
    return shared("mariadb", lambda: contextmanager(running)(MariaDBServer()))


@pytest.fixture
def mariadb_server() -> Iterator[MariaDBServer]:
    """A server of the test's own, which it may mistreat."""
    yield from running(MariaDBServer())


KINDS = ("sqlite", "postgresql", "mariadb")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of database in turn."""
    return str(request.param)


@pytest.fixture
def new_table(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], tuple[str, str]]:
    """Return the URL of a database of a kind, and the name of a table there that no other test uses."""

    def new_table(kind: str) -> tuple[str, str]:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path}/cache.sqlite3", "t"
        server: PostgreSQLServer | MariaDBServer = request.getfixturevalue(kind)
        return server.url(), server.table()

    return new_table


def _found(name: str, folders: tuple[str, ...]) -> str | None:
    """Return a program's path, the newest version's."""
    found = [path for folder in folders for path in sorted(Path("/").glob(folder), reverse=True)]
    return shutil.which(name, path=os.pathsep.join([*map(str, found), os.environ["PATH"]]))


def _unprivileged() -> str:
    """Return the user to run a server as: "" for this one, unless that is root."""
    if os.geteuid() != 0:
        return ""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in STAND_INS if name in names), getpass.getuser())


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def _end(pid: int) -> None:
    """End a process of the server's, and wait until it has let go of the memory that they share."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        ended, _, _ = select.select([handle], [], [], PATIENCE)
        assert ended, f"process {pid} does not end"
    except ProcessLookupError:
        return
    finally:
        os.close(handle)
