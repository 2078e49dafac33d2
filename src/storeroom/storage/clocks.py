"""Clocks that all who share a storage go by, for what must not end too early: locks.

Hosts' clocks differ, and are set. A lock that ends by the clock of the one who asks would have a second owner where
that clock is ahead. A server's own clock is the same for all; on one machine, so is the time since its start.
"""

from _blake2 import blake2b  # the C module alone
from functools import cache
from importlib import import_module
from typing import Final, NamedTuple

from storeroom import timeouts

__all__ = ["SERVER", "Clock", "machine_clock"]

SERVER: Final = 1.0
"""The number of a server's clock; that of a machine's is larger, and another one after each start."""


class Clock(NamedTuple):
    """A clock by its number, and its time in seconds."""

    number: float
    now: float


def machine_clock() -> Clock | None:
    """Return the time since this machine was started; None where the system does not tell one start from another."""
    number = _start()
    return Clock(number, timeouts.uptime()) if number else None


@cache
def _start() -> float:
    try:
        told = import_module("pathlib").Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return 0.0
    return 2.0 + int.from_bytes(blake2b(told, digest_size=6).digest(), "big")
