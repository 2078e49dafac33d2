"""A cache that was used before a fork: parent and child both go on."""

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from storeroom import engines
from storeroom.base import BaseCache
from storeroom.testing.capabilities import needs
from storeroom.testing.concurrency import in_threads
from storeroom.testing.contract.suite import Suite
from storeroom.testing.processes import Child

__all__ = ["ForkContract"]


@needs("store", "fork")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
class ForkContract(Suite):
    """A cache that was used before a fork, as under a server that loads the program first."""

    def test_parent_and_child_both_go_on(self, location: str, open_cache: Callable[..., BaseCache]) -> None:
        """A forked child uses the handle that it inherits, and the parent goes on with its own."""
        cache = open_cache()
        cache.set("k", "before")
        child = Child(_Inherited.of(cache), location, {}, use, "in the child", method="fork")
        assert child.result() == ("before", "in the child", 2)
        cache.set("k", "in the parent")
        assert cache.get("k") == "in the parent"
        assert cache.get_or_set("m", lambda: "computed") == "computed"
        if "processes" not in self.lacks:
            assert cache.get("set") == "in the child"

    def test_a_child_may_be_forked_at_any_moment(self, location: str, open_cache: Callable[..., BaseCache]) -> None:
        """A child forked while other threads use the cache finds none of its locks held."""
        cache = open_cache()
        done = threading.Event()

        def job(number: int) -> list[Any]:
            if number == 0:
                try:
                    inherited = _Inherited.of(cache)
                    children = [Child(inherited, location, {}, use, number, method="fork") for number in range(10)]
                    return [child.result()[1] for child in children]
                finally:
                    done.set()
            turn = 0
            while not done.is_set():
                turn += 1
                cache.set(f"{number} {turn % 10}", ["busy"] * 50)
                cache.get_or_set(f"computed {turn % 10}", lambda: 1, timeout=0.001)
            return []

        cache.set("k", "before")
        assert in_threads(4, job)[0] == list(range(10))
        assert cache.get("k") is not None

    def test_a_child_begins_to_count_anew(self, location: str, open_cache: Callable[..., BaseCache]) -> None:
        """A forked child has counted nothing of its parent's work, and that is never counted twice."""
        cache = open_cache()
        cache.set("user:1", 1)
        cache.get("user:1")
        scope = cache.stats().scope
        counted = Child(_Inherited.of(cache), location, {}, read_and_count, method="fork").result()
        if scope == "process":
            assert counted == (0, 1, {})
        stats = cache.stats()
        assert (stats.sets, stats.hits) == ((1, 2) if scope == "machine" else (1, 1))


class _Inherited(Suite):
    """Not a suite that runs: it hands a forked child the parent's own handle."""

    handle: BaseCache

    @classmethod
    def of(cls, cache: BaseCache) -> type["_Inherited"]:
        return type("Inherited", (cls,), {"handle": cache})

    def make_cache(self, location: str, params: Any) -> BaseCache:
        return self.handle


def use(cache: BaseCache, value: Any) -> tuple[Any, Any, Any]:
    """Do a bit of everything; return what the parent set, what this process set, and a count."""
    before = cache.get("k")
    own, count = f"set by {os.getpid()}", f"counted by {os.getpid()}"
    cache.set(own, value)
    cache.set("set", value)
    cache.set(count, 1)
    cache.get_or_set("computed", lambda: [1])
    return before, cache.get(own), cache.incr(count)


def read_and_count(cache: BaseCache) -> tuple[int, int, dict[str, int]]:
    """Read once, and end as a process of a program does; return the sets and hits, and the sets of families."""
    cache.get("user:1")
    stats = cache.stats()
    engines.close_all()
    return stats.sets, stats.hits, {name: it.sets for name, it in stats.families.items() if it.sets}
