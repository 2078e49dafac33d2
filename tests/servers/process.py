"""A server's process, as tests treat it: started, killed, stopped for a while, and ended by its id."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.servers.folders import forget_server, note_server

#: Seconds after which a server that does not start or end is taken for broken.
PATIENCE = 30.0


class ServerProcess:
    """A process of this test run.

    Args:
        command: names the folder, so that a later run knows the process for one of ours.
        directory: where it runs, and where its log is.
        is_ready: tells whether it answers.
        folder: of this server alone, from new_folder().
    """

    def __init__(self, command: list[str], directory: Path, is_ready: Callable[[], bool], folder: Path) -> None:
        self._command, self._directory, self._is_ready, self._folder = command, directory, is_ready, folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Launch it and wait until it answers."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Let it begin, as one of several that begin at the same time."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        note_server(self._folder, self.pid)

    def wait_until_ready(self) -> None:
        """Wait until it answers.

        Raises:
            RuntimeError: it has ended, or does not answer; the message has its log.
        """
        assert self._process is not None
        deadline = time.monotonic() + PATIENCE
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log_text = self.log()
                self.kill()
                raise RuntimeError(f"{self._command[0]} does not start:\n{log_text}")
            time.sleep(0.01)

    def log(self) -> str:
        """Return the end of its log."""
        return (self._directory / "log").read_text(errors="replace")[-3000:]

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._ended()

    def _ended(self) -> None:
        self._process = None
        forget_server(self._folder)

    def stop(self) -> None:
        """Let it end by itself, as an administrator would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()
            self._ended()

    def pause(self) -> None:
        """Let it do nothing, its connections staying open."""
        os.kill(self.pid, signal.SIGSTOP)
        # Its threads may go on for a moment. A second pause is told as the first was, and waits for nothing.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)


_ports: set[int] = set()


def free_port() -> int:
    """Return a TCP port that nobody listens on now, another each time: servers that start together do not meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    if port in _ports:
        return free_port()
    _ports.add(port)
    return port


def binary(name: str, where_from: str) -> str:
    """Return the path of a server's program.

    Where it is missing the test is skipped, but not in continuous integration: there it fails.
    """
    found = shutil.which(name)
    if found is None:
        missing(f"{name} is not installed ({where_from})")
    return found


def missing(complaint: str) -> Any:
    """Skip the test, or fail it in continuous integration."""
    if os.environ.get("CI"):
        pytest.fail(f"{complaint}, and continuous integration leaves nothing out")
    pytest.skip(complaint)
