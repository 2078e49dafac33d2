"""Renews the leases of this process while their leaders compute, so that they can be short.

One thread looks after all of them, a few times within the time of a lease; most computations end before its first look.
It knows them weakly: one whose leader was torn out of it is not renewed, and ends by itself. A computation that takes
longer than its flight is waited for is given up in the same way.
"""

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Final, NamedTuple
from weakref import ref

from storeroom import timeouts
from storeroom.computing.work import Work
from storeroom.engines import threads
from storeroom.engines.flights import Flight
from storeroom.late import logger_of
from storeroom.locks import reentrant
from storeroom.storage.steps import run
from storeroom.storage.unstored import Caught

__all__ = ["renewed"]

_LOOKS: Final = 3
"""Looks within the time of a lease: see leases.HELD_SHARE."""

_IDLE_LOOKS: Final = 6
"""Looks without a lease after which the thread ends."""

_NOTHING: Final = nullcontext()

_log = logger_of("storeroom")


class _Held(NamedTuple):
    work: "ref[Work]"
    flight: Flight
    seconds: float


class _Renewals:
    """The thread, and the leases that it renews."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin without a thread, as in a child process."""
        self._lock = reentrant()
        self._has_thread = False
        self.held: dict[int, _Held] = {}

    def add(self, work: Work, flight: Flight, seconds: float) -> None:
        with self._lock:
            self.held[id(work)] = _Held(ref(work), flight, seconds)
        if not self._has_thread:
            with suppress(RuntimeError):  # the system allows no further one: the leases end by themselves
                threads.start("storeroom-leases", self._look, seconds)

    def _look(self, seconds: float) -> None:
        with self._lock:
            if self._has_thread:
                return
            self._has_thread = True  # here, as who starts it may be cut short
        idle = 0
        while True:
            seconds = min((held.seconds for held in list(self.held.values())), default=seconds)
            time.sleep(seconds / _LOOKS)
            idle = 0 if self.held else idle + 1
            for number, held in list(self.held.items()):
                if not _renew(held):
                    self.held.pop(number, None)
            with self._lock:
                if idle >= _IDLE_LOOKS and not self.held:
                    self._has_thread = False
                    return


def _renew(held: _Held) -> bool:
    """Renew the leases of one computation. Return whether that goes on."""
    work, left = held.work(), held.flight.until - time.monotonic()
    if work is None or held.flight.is_forsaken:
        return False
    until = min(timeouts.now() + min(held.seconds, left), held.flight.leased_until())
    with Caught() as caught:
        return run(work.renew_leases(until, held.seconds))
    _log.warning("The lease of key %r cannot be renewed.", work.storage_keys[0], exc_info=caught.error)
    return True


_renewals = _Renewals()


def renewed(work: Work, flight: Flight, seconds: float) -> AbstractContextManager[None]:
    """Renew the work's leases, which last for so many seconds, within the block, if other processes see them."""
    return _renewed(work, flight, seconds) if work.hooks.is_shared else _NOTHING


@contextmanager
def _renewed(work: Work, flight: Flight, seconds: float) -> Iterator[None]:
    _renewals.add(work, flight, seconds)
    try:
        yield
    finally:
        _renewals.held.pop(id(work), None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renewals.reset)
