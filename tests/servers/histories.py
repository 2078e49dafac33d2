"""Histories of several processes on one cache, and whether each read in them is explained.

Each process writes, reads and counts at random, and notes for every operation when it
began and ended, by a clock that all processes of the machine share. A read is explained
by a write if that began before the read ended, and if no write that came entirely after it
was over for longer than the bound before the read began.
"""

import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["KEYS", "Operation", "act", "unexplained"]

KEYS = [f"key {number}" for number in range(4)]
COUNTER = "counter"


@dataclass(frozen=True)
class Operation:
    """One operation of a process.

    Attributes:
        process: its number.
        kind: "write", "read" or "count".
        key: of the entry.
        value: written (None by a delete), read (None for a miss) or counted to.
        begun: seconds.
        ended: seconds.
    """

    process: int
    kind: str
    key: str
    value: Any
    begun: float
    ended: float


def act(cache: Any, number: int, seed: int, seconds: float) -> list[Operation]:
    """The job of one process: operate for some seconds; return the operations."""
    chance = random.Random(seed + number)
    history = []
    end = time.monotonic() + seconds
    turn = 0
    while time.monotonic() < end:
        turn += 1
        key = chance.choice(KEYS)
        draw = chance.random()
        begun = time.monotonic()
        if draw < 0.08:
            kind, value = "write", f"{number}:{turn}"
            cache.set(key, value, timeout=60)
        elif draw < 0.10:
            kind, value = "write", None
            cache.delete(key)
        elif draw < 0.14:
            kind, key, value = "count", COUNTER, cache.incr(COUNTER)
        else:
            kind, value = "read", cache.get(key)
        history.append(Operation(number, kind, key, value, begun, time.monotonic()))
        if chance.random() < 0.5:
            time.sleep(chance.random() * 0.003)
    return history


class Overwritten:
    """The moments from which values are overwritten for certain: looked for once for each write."""

    def __init__(self, writes: Mapping[str, list[Operation]]) -> None:
        """Take the writes of each key."""
        self._writes = writes
        self._moments: dict[tuple[Operation, int | None], float] = {}

    def staleness(self, read: Operation, write: Operation, process: int | None = None) -> float:
        """Return the seconds for which the value had been overwritten for certain when the read began; at least 0.

        With a process, by that one's writes alone.
        """
        if (write, process) not in self._moments:
            later = (other for other in self._writes[read.key] if other.begun > write.ended)
            ends = (other.ended for other in later if process in {None, other.process})
            self._moments[write, process] = min(ends, default=math.inf)
        return max(0.0, read.begun - self._moments[write, process])


def unexplained(
    history: Iterable[Operation], bound: float, note: Callable[[float], object] = lambda _: None
) -> list[str]:
    """Return a sentence for each fault of a history; none, if all is explained.

    Args:
        history: of all processes. Every written value is another.
        bound: seconds for which a process may read a value that others have overwritten. Its own writes count at once.
        note: called with the staleness of each read.
    """
    history = list(history)
    writes: dict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        if operation.kind == "write":
            writes[operation.key].append(operation)
    overwritten = Overwritten(writes)
    wrong = []
    for read in history:
        if read.kind != "read":
            continue
        there = writes[read.key]
        before = [Operation(-1, "write", read.key, None, float("-inf"), float("-inf"))] if read.value is None else []
        causes = before + [write for write in there if write.value == read.value and write.begun <= read.ended]
        if not causes:
            wrong.append(f"{read} reads what nobody has written")
            continue
        stale = min(overwritten.staleness(read, write) for write in causes)
        note(stale)
        if stale > bound:
            wrong.append(f"{read} is stale by {stale:.3f} s")
        if min(overwritten.staleness(read, write, read.process) for write in causes) > 0:
            wrong.append(f"{read} does not see what its own process has written")
    counted = sorted(operation.value for operation in history if operation.kind == "count")
    if counted != list(range(1, len(counted) + 1)):
        wrong.append(f"{len(counted)} were counted, but the counts are {counted[-5:]} in the end: some are lost")
    return wrong
