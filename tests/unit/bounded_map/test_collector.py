"""Large maps are kept from the garbage collector, which would look at a million entries at once."""

import gc
import random
import sys
import sysconfig
import weakref
from types import FrameType

import pytest

from storeroom.eviction import BoundedMap, bounded_map
from tests.unit.bounded_map.maps import fill, put

pytestmark = pytest.mark.skipif(
    sys.implementation.name != "cpython" or bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="entries are kept from the collector of CPython with a GIL alone",
)


class Node:
    """An object that refers to the map that it is kept in."""

    def __init__(self, bounded: BoundedMap) -> None:
        self.bounded = bounded


@pytest.fixture(scope="module", params=["one dict", "shards"])
def large(request):
    """Return a map of more entries than a collector should look at, half of them in the heap of deadlines."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "shards":
            patch.setattr(bounded_map, "LARGE", 10_050)
        yield filled()


def filled():
    bounded, deadlines = BoundedMap(12_000), random.Random(1)
    for number in range(10_100):
        put(bounded, str(number), number, expires_at=deadlines.choice([1e9, 1e8 - number]))
    return bounded


def test_nothing_of_a_large_map_is_tracked(large):
    """A collection looks at no entry of a large map, and at none of what holds them."""
    some = [large.entries[str(number)] for number in range(10_000, 10_100)]
    assert {type(holder) for holder in gc.get_referrers(*some) if holder is not some} <= {FrameType}
    ours = set(map(id, large.entries.values()))
    assert ours.isdisjoint(map(id, gc.get_objects()))


def test_a_small_map_is_left_to_the_collector():
    """The entries of a small map are tracked: it needs no help."""
    bounded = BoundedMap(None)
    fill(bounded, 100)
    assert all(map(gc.is_tracked, bounded.entries.values()))


@pytest.mark.parametrize("remove", ["delete", "overwrite", "expire", "clear"])
def test_an_object_that_refers_to_a_large_map_is_garbage_once_it_is_removed(large, remove):
    """An object in a cycle through the map, over a number, is freed after its entry has gone or has another value."""
    put(large, "k", 1)
    put(large, "k", node := Node(large))
    seen = weakref.ref(node)
    del node
    match remove:
        case "delete":
            large.delete("k")
        case "overwrite":
            put(large, "k", 2)
        case "expire":
            large.touch(large.entries["k"], 1.0)
            large.sweep(1.0)
        case "clear":
            large.clear()
    large.let_go()
    assert seen() is None
    large.check_invariants()
