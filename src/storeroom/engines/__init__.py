"""One engine for each storage of a process: its lock, its counts, and the computations under way.

A cache object is a light handle. The costly part behind it (a table, an environment, a pool)
is an Engine, found by its kind and location with shared(), and made whole after a fork. Its
Flights are computations that callers wait for together, and its Counters are read as CacheStats.
"""

from typing import TYPE_CHECKING

from storeroom.engines.counts import Counters
from storeroom.engines.engine import Engine, close_all, shared
from storeroom.late import names_of

if TYPE_CHECKING:
    from storeroom.engines.flights import Flights
    from storeroom.engines.stats import CacheStats

__all__ = ["CacheStats", "Counters", "Engine", "Flights", "close_all", "shared"]


if not TYPE_CHECKING:
    __getattr__, __dir__ = names_of(__name__, {"CacheStats": "stats", "Flights": "flights"})
