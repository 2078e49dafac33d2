"""A Redis server that is full: what a command takes of it, when it never waits for the next one.

Eight programs in Python do not fill a server on the cores that they leave to it, and a server that waits between two
commands spends more time on each. redis-benchmark comes with Redis, and fills it by many connections at once.
"""

import csv
import selectors
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from benchmarks.scale.loads import LoadEffort, Spent, median_of
from benchmarks.scale.measuring import Figures, value_of

__all__ = ["COMMANDS", "CONNECTIONS", "LISTENERS", "READ", "TOLD", "WRITE", "measure"]

CONNECTIONS: Final = 50
LISTENERS: Final = 8
"""Near tiers that hear of every write."""

READ, WRITE, TOLD = "reads", "writes", f"writes, told to {LISTENERS} near tiers"

KEY: Final = "key:__rand_int__"
"""In its place redis-benchmark writes a number of twelve digits."""

COMMANDS: Final[Mapping[str, Sequence[str]]] = {
    READ: ("GET", KEY),
    WRITE: ("SET", KEY, value_of(1, 1), "PX", "86400000"),
    TOLD: ("SET", KEY, value_of(1, 1), "PX", "86400000"),
}
"""As Storeroom sends them."""


def measure(url: str, effort: LoadEffort, look: Callable[[], Sequence[Spent]]) -> dict[str, Figures]:
    """Return what a read and a write take of one server, and how many it carries a second."""
    _fill(url, effort.entries)
    rounds = [{name: _round(name, url, effort, look) for name in COMMANDS} for _ in range(effort.rounds)]
    return {name: median_of([each[name] for each in rounds]) for name in COMMANDS}


def _fill(url: str, entries: int) -> None:
    import redis

    with redis.Redis.from_url(url) as client, client.pipeline(transaction=False) as pipeline:
        for number in range(entries):
            pipeline.set(f"key:{number:012}", value_of(number, entries))
        pipeline.execute()


def _round(name: str, url: str, effort: LoadEffort, look: Callable[[], Sequence[Spent]]) -> Figures:
    with ExitStack() as stack:
        if name == TOLD:
            stack.enter_context(_listening(_port(url)))
        (before,) = look()
        rate = _filled(COMMANDS[name], _port(url), effort)
        (after,) = look()
    return {"rate": rate, "server": (after.seconds - before.seconds) / (after.commands - before.commands)}


def _port(url: str) -> str:
    return url.rpartition(":")[2].partition("/")[0]


def _filled(command: Sequence[str], port: str, effort: LoadEffort) -> float:
    """Let redis-benchmark send a command for about two seconds; return how many the server has done in one."""
    options = [
        "-p",
        port,
        "-c",
        str(CONNECTIONS),
        "-n",
        str(effort.entries * 3 // 2),
        "-r",
        str(effort.entries),
        "--csv",
    ]
    done = subprocess.run(
        ["redis-benchmark", *options, *command], capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode:
        raise RuntimeError(f"redis-benchmark: exit code {done.returncode}: {done.stderr}")
    (figures,) = csv.DictReader(done.stdout.splitlines())
    return float(figures["rps"])


@contextmanager
def _listening(port: str) -> Iterator[None]:
    """Let connections hear of every write, as near tiers do, and throw away all that they hear."""
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for _ in range(LISTENERS):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", int(port)), timeout=10))
            connection.sendall(b"HELLO 3\r\nCLIENT TRACKING ON BCAST PREFIX key:\r\n")
            told = b""
            while not told.endswith(b"+OK\r\n"):
                told += connection.recv(65_536) or _refused(told)
            selector.register(connection, selectors.EVENT_READ, connection.recv)
        ended = threading.Event()
        thread = threading.Thread(target=_drain, args=(selector, ended))
        thread.start()
        stack.callback(thread.join)
        stack.callback(ended.set)
        yield


def _refused(told: bytes) -> bytes:
    raise RuntimeError(f"the server does not tell of changes: {told!r}")


def _drain(selector: selectors.BaseSelector, ended: threading.Event) -> None:
    while not ended.is_set():
        for key, _ in selector.select(timeout=0.1):
            key.data(1 << 20)
