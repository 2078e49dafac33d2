"""One engine for each storage of a process: its lock, its counts, and the computations under way."""

from storeroom.engines.engine import (
    Engine,
    close_all,
    shared,
)

__all__ = [
    "Engine",
    "close_all",
    "shared",
]
