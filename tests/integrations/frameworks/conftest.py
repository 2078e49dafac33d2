import pytest

import storeroom
from storeroom.testing import FakeClock
from storeroom.testing.isolation import engines_of_its_own


@pytest.fixture
def clock():
    with FakeClock() as clock:
        yield clock


@pytest.fixture
def alias(request):
    """The alias of a cache of this test alone: the only one."""
    with engines_of_its_own():
        before = storeroom.caches.swap(None)
        memory = {"BACKEND": "storeroom.backends.locmem.LocMemCache", "LOCATION": request.node.nodeid}
        storeroom.configure({"default": memory})
        yield "default"
        storeroom.caches.swap(before)
