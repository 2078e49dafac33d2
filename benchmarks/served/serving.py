"""Servers on free ports of this machine, started for a group and ended by their ids."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.served.contenders import NGINX, UNCACHED, Group

__all__ = ["serving"]

PATIENCE: Final = 60.0
"""Seconds after which a server that does not answer is taken for broken."""

THREADS: Final = 8
"""Of each worker of a WSGI server. gunicorn keeps connections open with threads alone, as the others do."""

ROOT: Final = Path(__file__).parents[2]

_NGINX: Final = """\
{user}
worker_processes {workers};
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  proxy_cache_path {folder}/cache keys_zone=pages:1m;
  keepalive_requests 1000000;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{behind};
      proxy_cache pages;
      proxy_cache_valid 200 1h;
    }}
  }}
}}
"""


@contextmanager
def serving(group: Group) -> Iterator[dict[str, int]]:
    """Start the servers of a group; yield the port of each contender, and end them afterwards.

    Raises:
        RuntimeError: one does not start; the message has its log.
    """
    with ExitStack() as stack:
        ports = {name: _free_port() for name in group.names}
        for name, port in ports.items():  # one after the other: together they would take long to answer
            folder = stack.enter_context(TemporaryDirectory(prefix="served-"))
            command = _nginx(group, folder, port, ports[UNCACHED]) if name == NGINX else _command(group, port)
            process = stack.enter_context(_process(command, folder, _environment(group, name, folder)))
            _wait_for(port, process, Path(folder, "log"))
        yield ports


def _environment(group: Group, name: str, folder: str) -> dict[str, str]:
    site = name if group.framework == "fastapi" else f"{group.framework} {name}"
    return {**os.environ, "SITE": site, "SITE_FOLDER": folder, "PYTHONPATH": str(ROOT)}


def _command(group: Group, port: int) -> list[str]:
    number, workers, threads = str(port), str(group.workers), str(THREADS)
    options = {
        "uvicorn": ["benchmarks.served.asgi_sites:make", "--factory", "--port", number, "--no-access-log"],
        "gunicorn": [
            "benchmarks.served.wsgi_sites:make()", "--bind", f"127.0.0.1:{number}", "--worker-class", "gthread",
            "--threads", threads, "--http-parser", "fast",
        ],
        "granian": [
            "benchmarks.served.wsgi_sites:make", "--factory", "--interface", "wsgi", "--port", number,
            "--blocking-threads", threads,
        ],
    }  # fmt: skip
    command = [sys.executable, "-m", group.server, *options[group.server]]
    return [*command, "--workers", workers, "--log-level", "warning"]


def _nginx(group: Group, folder: str, port: int, behind: int) -> list[str]:
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise RuntimeError("nginx is not installed. On Debian and its kin: apt-get install nginx")
    user = "user root;" if os.getuid() == 0 else ""  # its folder is this user's
    text = _NGINX.format(user=user, folder=folder, workers=group.workers, port=port, behind=behind)
    configuration = Path(folder, "nginx.conf")
    configuration.write_text(text, encoding="utf-8")
    return [program, "-p", folder, "-c", str(configuration), "-e", f"{folder}/error.log"]


@contextmanager
def _process(command: list[str], folder: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with Path(folder, "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{process.args!r} does not start:\n{log.read_text(errors='replace')}") from None
            time.sleep(0.05)
        else:
            return
