"""For tests: a contract that any backend can be held to, and a clock that obeys.

A backend's author subclasses one class and fills in one factory; pytest then runs every
behaviour that Storeroom promises, through the synchronous and the asynchronous API::

    # test_my_cache.py
    from my_package import MyCache
    from storeroom.testing import CacheContract


    class TestMyCache(CacheContract):
        lacks = {"bounds": "the server evicts by itself"}

        def make_cache(self, location, params):
            return MyCache(location, params)

`FakeClock` and `ChaosCache` are for anybody's tests of code that caches, under any test runner.
"""

import sys
from typing import TYPE_CHECKING, Any

from storeroom.testing.clock import FakeClock

if TYPE_CHECKING:
    from storeroom.testing.chaos import ChaosCache
    from storeroom.testing.contract import CacheContract

__all__ = ["CacheContract", "ChaosCache", "FakeClock"]

if sys.modules.get("pytest"):
    # So that a failing assert of the contract shows its values, as in a test's own file.
    sys.modules["pytest"].register_assert_rewrite("storeroom.testing.contract", "storeroom.testing.model")


def __getattr__(name: str) -> Any:
    # Loaded on demand: it needs pytest, which FakeClock does not.
    if name == "CacheContract":
        from storeroom.testing.contract import CacheContract  # noqa: PLC0415 -- see above

        return CacheContract
    if name == "ChaosCache":
        from storeroom.testing.chaos import ChaosCache  # noqa: PLC0415 -- few tests need it

        return ChaosCache
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
