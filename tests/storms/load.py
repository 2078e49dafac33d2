"""Programs that write and read while their servers fail: in threads and in tasks, with and without a near tier."""

import asyncio
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from storeroom.backends.redis import RedisCache
from tests.storms.history import History, Read, Write

__all__ = ["KEYS", "Program", "programs"]

#: Keys of each worker: several are written at once, and lie on several servers.
OWN_KEYS = 12

#: Workers of each program.
WORKERS = 3

NAMES = ("sync", "async", "sync near", "async near")
KEYS = [f"{name}:{worker}:{number}" for name in NAMES for worker in range(WORKERS) for number in range(OWN_KEYS)]

PREFIX = "storm"
STALENESS = 0.5

#: Seconds: a server that forks on a busy machine is not down.
TIMEOUT = 2.0

#: Seconds between two operations of a worker.
PAUSE = 0.004


@dataclass
class Program:
    """One program: its cache, and the seconds by which its reads may be behind."""

    name: str
    cache: RedisCache
    bound: float

    def run(self, history: History, seed: int, is_over: threading.Event) -> None:
        """Write and read in all workers until it is over."""
        if self.name.startswith("async"):
            asyncio.run(self._in_tasks(history, seed, is_over))
            return
        threads = [
            threading.Thread(target=self._work, args=(history, number, seed, is_over)) for number in range(WORKERS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work(self, history: History, number: int, seed: int, is_over: threading.Event) -> None:
        worker = _Worker(self, number, seed, history)
        while not is_over.is_set():
            kind, keyed, begun = worker.next()
            done = self.cache.set_many(keyed) if kind == "write" else self.cache.get_many(keyed)
            worker.note(kind, keyed, begun, done)
            time.sleep(PAUSE)

    async def _in_tasks(self, history: History, seed: int, is_over: threading.Event) -> None:
        await asyncio.gather(*(self._task(_Worker(self, number, seed, history), is_over) for number in range(WORKERS)))

    async def _task(self, worker: "_Worker", is_over: threading.Event) -> None:
        while not is_over.is_set():
            kind, keyed, begun = worker.next()
            done = await (self.cache.aset_many(keyed) if kind == "write" else self.cache.aget_many(keyed))
            worker.note(kind, keyed, begun, done)
            await asyncio.sleep(PAUSE)


class _Worker:
    """The choices of one worker, and its notes."""

    def __init__(self, program: Program, number: int, seed: int, history: History) -> None:
        self._own = [f"{program.name}:{number}:{key}" for key in range(OWN_KEYS)]
        self._chance = random.Random(f"{seed} {program.name} {number}")
        self._version, self._bound, self._history = 0, program.bound, history

    def next(self) -> tuple[str, Any, float]:
        if self._chance.random() < 0.3:
            self._version += 1
            return "write", dict.fromkeys(self._chance.sample(self._own, 4), self._version), time.monotonic()
        return "read", self._chance.sample(KEYS, 8), time.monotonic()

    def note(self, kind: str, keyed: Any, begun: float, done: Any) -> None:
        ended, history = time.monotonic(), self._history
        if kind == "write":
            history.writes += [Write(key, keyed[key], begun, ended, key not in done) for key in keyed]
        else:
            history.reads += [Read(key, done.get(key, 0), begun, ended, self._bound) for key in keyed]


def programs(location: str, lag: float) -> Sequence[Program]:
    """Return all programs on a location, on which reads may be so many seconds behind."""
    made = []
    for name in NAMES:
        near = {"near": {"max_staleness": STALENESS}} if name.endswith("near") else {}
        timeouts = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT}
        options = {**timeouts, **near, "client_name": name.replace(" ", "-"), "replica_max_lag": lag or None}
        cache = RedisCache(location, {"TIMEOUT": None, "KEY_PREFIX": PREFIX, "OPTIONS": options})
        made.append(Program(name, cache, lag + (STALENESS if near else 0.0)))
    return made
