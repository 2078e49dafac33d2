"""The counts of all processes that share a storage at the other end of a connection: one small entry for each.

Each process has a slot, an entry with the name of a lock, so that no bound, no clear() and no listing knows it. It is
claimed by the one that adds it, and written anew every few seconds in which the process uses the storage, by a
background thread, and when the process ends. Reading them all is one read of many keys.
"""

import atexit
import os
import secrets
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from functools import reduce
from importlib import import_module
from typing import Any, Final

from storeroom import timeouts
from storeroom.engines import background
from storeroom.engines.counts import Counters, less, total
from storeroom.engines.stats import CacheStats
from storeroom.exceptions import StorageError, StoreroomError
from storeroom.keys import LOCK_PREFIX
from storeroom.living import Living
from storeroom.storage.hooks import StorageHooks
from storeroom.storage.outages import no_answers

__all__ = [
    "HEARD_SECONDS", "KEEP_SECONDS", "Publisher", "begin_anew", "counted_together", "reset", "share", "stats_apart",
    "stats_of_others",
]  # fmt: skip

KEEP_SECONDS: Final = 86_400.0
"""For how long a process that ended, or does nothing, is counted: a program of each night is there in the morning."""

HEARD_SECONDS: Final = 3600.0
"""For how long the numbers of a process that ended, or does nothing, are told apart: many scrapes long."""

_TURN_SECONDS: Final = 2.0
"""For how long the end of a process, and whoever watches, waits for a write under way."""

_SLOTS: Final = 256
"""Processes that are counted at once; a further one takes the slot of the one that was written the longest ago."""


def share(handle: Any) -> None:
    """Let a handle's counts be written for others to read, under its prefix, and let it read these."""
    handle._publishes = True
    if not Counters.are_shared:
        return
    counters: Counters = handle._counters
    name = _name_of(handle)
    known: Any = next((each for each in counters.publishers if each.name == name), None)
    if known is not None:
        known.handle = handle
    else:
        publisher = Publisher(name, handle)
        counters.publishers.append(publisher)
        _all.add(publisher)
        _publish_at_the_end_of_a_child()
        counters.publish_at = counters.look_at = 0.0


def _name_of(handle: Any) -> str:
    """Return the beginning of the slots' names: a user with the rights for the prefix alone has those for them."""
    kind = "" if handle.engine.counters is handle._counters else "tiered"
    return f"{LOCK_PREFIX}{handle.key_prefix}:\x00stats\x00{kind}"


class Publisher:
    """Writes what this process has counted.

    Attributes:
        name: the beginning of the slots' names.
        handle: one of the storage, the last that was made: it is kept, as the others may be gone when the process ends.
    """

    def __init__(self, name: str, handle: Any) -> None:
        self.name, self.handle = name, handle
        self._token, self._turns = secrets.token_hex(8), dict[int, _Turn]()

    @property
    def id(self) -> str:
        """A text of this process's own, also after a fork."""
        return f"{self._token}-{os.getpid()}"

    def begin(self) -> None:
        """Let a background thread write."""
        if os.getpid() not in self._turns:
            _publish_at_the_end_of_a_child()
        background.submit(self.publish, Context())

    def publish(self) -> None:
        """Write now. Nothing is raised: the next write has all that this one lost."""
        turn = self._turns.setdefault(os.getpid(), _Turn())
        if not turn.lock.acquire(timeout=_TURN_SECONDS):
            return
        try:
            with suppress(StoreroomError), no_answers():
                self._write(self.handle, turn)
        finally:
            turn.lock.release()

    def _write(self, handle: Any, turn: "_Turn") -> None:
        now, counted = timeouts.now(), handle._counted_here()
        if not counted:
            return
        entry = {"id": self.id, "at": now, "counted": counted}
        until = now + KEEP_SECONDS
        if now > turn.due:
            turn.slot = self._claimed(handle, entry, until)
        else:
            handle._set(f"{self.name}{turn.slot}", entry, until)
        turn.due = until

    def _claimed(self, hooks: StorageHooks, entry: Any, until: float) -> int:
        """Return the slot that the entry was added in."""
        first = int(self._token, 16) + os.getpid()
        for number in range(_SLOTS):
            slot = (first + number) % _SLOTS
            if hooks._add(f"{self.name}{slot}", entry, until) is True:
                return slot
        written = dict(_entries(hooks, self.name))
        slot = min(written, key=lambda slot: written[slot]["at"], default=first % _SLOTS)
        hooks._set(f"{self.name}{slot}", entry, until)
        return slot


@dataclass(slots=True, eq=False)
class _Turn:
    """The state of one process, of which a forked child has none.

    Attributes:
        slot: its own.
        due: epoch seconds at which the entry in it is over.
        lock: held by the thread that writes.
    """

    slot: int = -1
    due: float = 0.0
    lock: Any = field(default_factory=threading.Lock)


_all: Final = Living[Publisher]()


def _publish_all() -> None:
    for publisher in list(_all):
        publisher.publish()


atexit.register(_publish_all)  # before the engines are closed, which were there first


def _publish_at_the_end_of_a_child() -> None:
    """See to a child of multiprocessing's, which runs none of the functions that atexit knows."""
    process: Any = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        import_module("multiprocessing.util").Finalize(None, _publish_all, exitpriority=0)


def _base_name(name: str, slot: int) -> str:
    """Return the storage key of the counts that a slot had when all were begun anew."""
    return f"{name}from{slot}"


def _entries(hooks: StorageHooks, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield each slot and what is in it; where counts were begun anew, the difference."""
    names = {f"{name}{slot}": slot for slot in range(_SLOTS)}
    bases = {_base_name(name, slot): slot for slot in range(_SLOTS)}
    with no_answers():
        found = hooks._get_many([*names, *bases])
    begun = {bases[key]: entry for key, entry in found.items() if key in bases and _is_sound(entry)}
    for key, slot in names.items():
        entry: Any = found.get(key)
        if _is_sound(entry):
            base: Any = begun.get(slot)
            if base is not None and base["id"] == entry["id"]:
                entry = {**entry, "counted": less(entry["counted"], base["counted"])}
            yield slot, entry


def _is_sound(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.keys() >= {"id", "at", "counted"}


def counted_together(handle: Any, *, with_own: bool = True) -> tuple[dict[str, Any], int]:
    """Return the sum of what all processes have counted, and how many these are.

    Args:
        handle: of the storage.
        with_own: whether this process is one of them, with its counts of now.

    Raises:
        StorageError: the server is out of reach.
    """
    name = _name_of(handle)
    own = next((each.id for each in handle._counters.publishers if each.name == name), "")
    parts: list[Mapping[str, Any]] = []
    for _, entry in _entries(handle, name):
        if entry["id"] != own:
            parts.append(entry["counted"])
    if with_own:
        parts.append(handle._counted_here())
    return reduce(total, parts, {}), len(parts)


def reset(handle: Any) -> None:
    """Let all processes' counts begin at zero: those that run go on counting, from a base that is noted here."""
    name, until = _name_of(handle), timeouts.now() + KEEP_SECONDS
    with no_answers():
        found = handle._get_many([f"{name}{slot}" for slot in range(_SLOTS)])
        for key, entry in found.items():
            handle._set(_base_name(name, int(key.removeprefix(name))), entry, until)


def stats_of_others(cache: Any) -> CacheStats | None:
    """Return the sum of all processes' counts but those of this one, if they come together by entries; else None.

    Raises:
        StorageError: the server is out of reach.
    """
    if not cache._publishes:
        return None
    stats: CacheStats = cache._stats_of_all("all", with_own=False)
    return stats


def begin_anew(cache: Any) -> None:
    """Let the counts of all processes begin at zero."""
    cache._reset_stats()


def stats_apart(cache: Any) -> dict[str, CacheStats] | None:
    """Return the number of each process to its counts, of those heard of within the hour; None if they have one record.

    The counts of this process are written first, so that no other tells less of them later: a program that watches
    would take that for a restart. In an outage there are this process's counts alone.
    """
    if not cache._publishes:
        cache.engine.add_counts(_TURN_SECONDS)
        return None
    name, since = _name_of(cache), timeouts.now() - HEARD_SECONDS
    own = next(each for each in cache._counters.publishers if each.name == name)
    own.publish()
    counted = {own.id: cache._counted_here()}
    with suppress(StorageError):
        counted |= {entry["id"]: entry["counted"] for _, entry in _entries(cache, name) if entry["at"] >= since}
    return {process: cache._counted_stats(numbers, scope="process") for process, numbers in counted.items()}
