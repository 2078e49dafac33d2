"""Handles of one storage as different processes have them."""

from copy import copy

from storeroom.base import BaseCache
from storeroom.engines.flights import Flights


def put_in_a_process_of_its_own(cache: BaseCache) -> None:
    """Let a handle know nothing of the computations of the others: it meets them in the storage alone."""
    engine = copy(cache.engine)
    engine.flights = Flights()
    cache.engine = engine
