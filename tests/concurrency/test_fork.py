"""A fork in the midst of computations: the child starts with none of them."""

import os
import time
from collections.abc import Callable

import pytest

from storeroom.backends.locmem import LocMemCache
from storeroom.testing.concurrency import Gate, in_background
from tests.contract import test_custom

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


class PrivateDict(test_custom.DictCache):
    """A third party's cache, without an engine: its flights are reset all the same."""

    is_shared = False


@pytest.fixture(params=[LocMemCache, PrivateDict])
def cache(request, tmp_path):
    return request.param(str(tmp_path), {})


def holds_in_a_child(is_so: Callable[[], bool]) -> bool:
    """Fork, and tell whether it holds there; a child that takes ten seconds is ended, and tells that it does not."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if is_so() else 2
        finally:
            os._exit(code)  # whatever happens: the child must not go on with the tests
    deadline = time.monotonic() + 10
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, 9)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.001)
    return ended[1] == 0


def test_a_child_does_not_wait_for_a_leader_that_stayed_in_the_parent(cache):
    """A forked child computes a key whose leader is a thread of the parent."""
    gate = Gate()
    leader = in_background(cache.get_or_set, "k", gate)
    assert gate.begun.wait(10)
    assert holds_in_a_child(lambda: cache.get_or_set("k", lambda: "child's") == "child's")
    gate.may_end.set()
    assert leader.result(10) == "computed"


def test_a_child_that_a_computation_starts_is_no_part_of_it(cache):
    """A child that is forked within a computation may compute the same key."""

    def compute() -> bool:
        return holds_in_a_child(lambda: cache.get_or_set("k", lambda: "child's") == "child's")

    assert cache.get_or_set("k", compute) is True


def test_a_child_counts_no_followers_of_the_parent(cache):
    """A forked child has none of the parent's callers waiting."""
    gate = Gate()
    callers = [in_background(cache.get_or_set, "k", gate) for _ in range(3)]
    assert gate.begun.wait(10)
    assert holds_in_a_child(lambda: cache.engine.flights.followers(cache.make_key("k")) == 0)
    gate.may_end.set()
    assert {caller.result(10) for caller in callers} == {"computed"}
