"""Folders of runs: a run that was interrupted is cleaned up after, and one that lives is let alone."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import folders
from tests.servers.folders import SERVER, new_folder, remove_leftovers
from tests.servers.process import ServerProcess
from tests.servers.redis_groups import eventually

#: A server's stand-in, whose command line names its folder.
SLEEPER = "import signal, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"

RUN = f"""
import subprocess, sys
from pathlib import Path
from tests.servers.folders import new_folder, note_server

folder = new_folder(Path(sys.argv[1]))
server = subprocess.Popen([sys.executable, "-c", {SLEEPER!r}, f"{{folder}}/socket"])
note_server(folder, server.pid)
print(folder, server.pid, flush=True)
"""

WAIT = "sys.stdin.read()"
FORK = """
import os
if child := os.fork():
    print(child, flush=True)
    sys.stdin.read()
else:
    os.close(0)
    os.close(1)
    __import__("time").sleep(600)
"""


class Run:
    """Another run, with a folder and a server."""

    def __init__(self, directory: Path, work: str) -> None:
        command = [sys.executable, "-c", RUN + work, str(directory)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        folder, server = self.read().split()
        self.folder, self.server = Path(folder), int(server)

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def interrupt(self) -> None:
        """Let it end without cleaning up."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def run_in(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Start a run that uses the test's own directory."""
    runs: list[Run] = []

    def run_in(work: str = WAIT) -> Run:
        runs.append(Run(tmp_path, work))
        return runs[-1]

    yield run_in
    for run in runs:
        with run.process:
            run.process.kill()
        if folders._runs_in(run.server, run.folder):
            os.kill(run.server, signal.SIGKILL)


def is_running(pid: int) -> bool:
    """Tell whether a process runs; one that has ended may not be waited for by anybody."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


needs_proc = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="this system has no /proc")


@needs_proc
def test_an_interrupted_run_is_cleaned_up_after(tmp_path: Path, run_in: Callable[..., Run]) -> None:
    """The folder of a run that was killed is removed, and its server ended."""
    run = run_in()
    run.interrupt()
    assert is_running(run.server)
    assert remove_leftovers([tmp_path]) == [run.folder.parent]
    assert not run.folder.parent.exists()
    eventually(lambda: not is_running(run.server), "the server goes on")


@needs_proc
def test_a_paused_server_is_ended_too(tmp_path: Path, run_in: Callable[..., Run]) -> None:
    """A server that was paused when its run was killed is ended."""
    run = run_in()
    os.kill(run.server, signal.SIGSTOP)
    run.interrupt()
    remove_leftovers([tmp_path])
    eventually(lambda: not is_running(run.server), "the server goes on")


@needs_proc
def test_a_living_run_is_let_alone(tmp_path: Path, run_in: Callable[..., Run]) -> None:
    """The folder and the server of a living run stay, beside a run that was killed."""
    living, interrupted = run_in(), run_in()
    interrupted.interrupt()
    assert remove_leftovers([tmp_path]) == [interrupted.folder.parent]
    assert living.folder.is_dir()
    assert is_running(living.server)


def test_a_run_of_another_container_is_let_alone(
    tmp_path: Path, run_in: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder whose lock is held stays, though its process id means nothing here."""
    run = run_in()
    monkeypatch.setattr(folders, "_is_alive", lambda pid: False)
    assert remove_leftovers([tmp_path]) == []
    assert run.folder.is_dir()


def test_a_folder_that_is_not_locked_yet_is_let_alone(tmp_path: Path) -> None:
    """A folder without a lock stays while its process lives, which is about to lock it."""
    folder = tmp_path / f"{folders.PREFIX}{os.getpid()}-abc"
    folder.mkdir()
    assert remove_leftovers([tmp_path]) == []
    assert folder.is_dir()


def test_a_folder_of_another_name_is_let_alone(tmp_path: Path) -> None:
    """A folder without a process id in its name stays."""
    folder = tmp_path / "storeroom-abc"
    folder.mkdir()
    assert remove_leftovers([tmp_path]) == []
    assert folder.is_dir()


@needs_proc
def test_a_process_that_does_not_name_the_folder_goes_on(tmp_path: Path, run_in: Callable[..., Run]) -> None:
    """A process with a noted id goes on unless its command line names the very folder."""
    run = run_in()
    run.interrupt()
    for named in ("elsewhere/socket", f"{run.folder}0/socket"):
        with stranger(named) as process:
            (run.folder / SERVER).write_text(str(process.pid))
            folders._end_server(run.folder / SERVER)
            assert process.poll() is None
    (run.folder / SERVER).write_text("no number")
    assert remove_leftovers([tmp_path]) == [run.folder.parent]


@contextmanager
def stranger(named: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", SLEEPER, named]) as process:
        yield process
        process.kill()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
def test_a_child_that_outlives_its_run_does_not_keep_the_folder(tmp_path: Path, run_in: Callable[..., Run]) -> None:
    """The lock is not held by a forked child that outlives the run."""
    run = run_in(FORK)
    child = int(run.read())
    try:
        run.interrupt()
        # It lets go of the lock a moment after it has begun.
        eventually(lambda: remove_leftovers([tmp_path]) == [run.folder.parent], "the folder is held")
        assert is_running(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_run_that_ends_removes_its_folder(tmp_path: Path, run_in: Callable[..., Run]) -> None:
    """A run that ends removes its folder, and ends a server that it has not stopped; a child that ends does neither."""
    run = run_in("import os\nif not os.fork(): sys.exit()\nos.wait()\nprint(folder.is_dir(), flush=True)\n" + WAIT)
    assert run.read() == "True\n"
    assert run.process.stdin is not None
    run.process.stdin.close()
    assert run.process.wait() == 0
    assert list(tmp_path.iterdir()) == []
    eventually(lambda: not is_running(run.server), "the server goes on")


def test_a_server_is_noted_while_it_runs(tmp_path: Path) -> None:
    """The id of a server stands in its folder from its start to its end."""
    folder = new_folder(tmp_path)
    server = ServerProcess([sys.executable, "-c", SLEEPER, str(folder)], tmp_path / "log", lambda: True, folder)
    server.start()
    assert (folder / SERVER).read_text() == str(server.pid)
    server.kill()
    assert not (folder / SERVER).exists()
    server.start()
    shutil.rmtree(folder)
    server.stop()
