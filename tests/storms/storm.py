"""One storm: programs under load, faults at random, and the history of both."""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from storeroom import engines
from tests.servers.folders import new_folder
from tests.servers.redis import RedisServer
from tests.storms.groups import GROUPS
from tests.storms.history import Fault, History, Read
from tests.storms.load import KEYS, programs

__all__ = ["storm"]

#: Seconds between two faults.
CALM = (0.5, 4.0)


#: Seconds without an answer after which a server counts as one that hangs by itself, as on a machine that is too busy.
SILENCE = 1.0


def _watch(server: RedisServer, faults: list[Fault], is_over: threading.Event) -> None:
    """Ask a server again and again, and note when it was silent."""
    while not is_over.wait(0.05):
        begun = time.monotonic()
        with contextlib.suppress(OSError):
            server.ask("PING")
        if time.monotonic() - begun > SILENCE:
            faults.append(Fault(f"{server.port} was silent", lambda _: True, begun, time.monotonic()))


@contextlib.contextmanager
def _watching(servers: Sequence[RedisServer]) -> Iterator[list[Fault]]:
    """Yield the times in which servers were silent; all of them are there after the block."""
    silences: list[Fault] = []
    is_over = threading.Event()
    threads = [threading.Thread(target=_watch, args=(server, silences, is_over)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield silences
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def storm(kind: str, seconds: float, seed: int, tell: Callable[[str], object] = print) -> History:
    """Let faults of all kinds in turn happen to a group of servers for so long; return the history."""
    chance, history, is_over = random.Random(seed), History(), threading.Event()
    # In memory: servers of a cluster are silent while they wait for a disk, on which each change of it is noted.
    with GROUPS[kind](new_folder()) as group, _watching(group.servers) as silences:
        running = programs(group.location, group.lag)
        threads = [threading.Thread(target=it.run, args=(history, seed, is_over)) for it in running]
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        try:
            waiting: list[str] = []
            while time.monotonic() < begun + seconds:
                time.sleep(chance.uniform(*CALM))
                if not waiting:
                    waiting = chance.sample(sorted(group.faults), len(group.faults))
                group.faults[waiting.pop()](chance, history.faults)
                fault = history.faults[-1]
                tell(f"{fault.begun:9.2f} s  {fault.what}, for {fault.ended - fault.begun:.1f} s")
            time.sleep(CALM[1])
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
        time.sleep(group.lag)
        for program in running:
            now, found = time.monotonic(), program.cache.get_many(KEYS)
            history.reads += [Read(key, found.get(key, 0), now, time.monotonic(), program.bound) for key in KEYS]
        engines.close_all()
    for fault in silences:
        tell(f"{fault.begun:9.2f} s  {fault.what}, for {fault.ended - fault.begun:.1f} s")
    history.faults += silences
    return history
