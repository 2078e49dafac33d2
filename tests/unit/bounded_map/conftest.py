"""Each map that a test builds keeps its own invariants."""

import pytest

from storeroom.eviction import BoundedMap


@pytest.fixture
def checked():
    """Return BoundedMap; the maps built by it are checked after the test."""
    built = []

    def build(*args, **settings):
        built.append(BoundedMap(*args, **settings))
        return built[-1]

    yield build
    for bounded in built:
        bounded.check_invariants()
