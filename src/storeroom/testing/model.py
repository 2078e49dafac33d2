"""Any sequence of operations, held against a plain dict: a Hypothesis state machine.

`machine` makes one for a cache without bounds; the contract runs it, and so may
anybody, under Hypothesis's settings of their choice.
"""
# ruff: noqa: D102 -- a rule is named after the operation that it holds against the dict

import asyncio
import contextlib
import math
from collections.abc import Callable, Coroutine
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from storeroom.base import BaseCache
from storeroom.exceptions import KeyNotFoundError, NotSupportedError, ValueTypeError
from storeroom.testing.clock import FakeClock
from storeroom.testing.contract.suite import Driver, check_invariants, run_to_its_end
from storeroom.testing.isolation import engines_of_its_own
from storeroom.timeouts import DEFAULT_TIMEOUT

__all__ = ["DEFAULT_SECONDS", "CacheMachine", "machine"]

DEFAULT_SECONDS: Final = 3600.5
"""TIMEOUT of the cache under test. Timeouts end on half seconds and time passes in whole ones, so
that no entry is looked at in the very moment in which it expires. And they are long: a server
that goes by its own clock as well must not drop what has not expired by the one that stands still."""

KEYS: Final = ("a", "b", "", "a:1", "鍵", "k" * 2000, "k" * 2000 + "2", 7)
VERSIONS: Final = (None, 1, 2, 3)

keys = st.sampled_from(KEYS)
versions = st.sampled_from(VERSIONS)
timeouts = st.sampled_from([DEFAULT_TIMEOUT, None, 0, -1, 60.5, 600.5, 1800.5, "90000.5"])
values = st.one_of(
    st.integers(-3, 3),
    st.integers(2**62, 2**65),
    st.floats(-8, 8, width=16),
    st.none(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=2), st.none(), max_size=2),
)

ABSENT: Final = object()


class CacheMachine(RuleBasedStateMachine):
    """The operations as rules; `expected` holds the entries that a cache has to have after them."""

    make_cache: Callable[[], BaseCache]
    mode = "sync"

    def __init__(self) -> None:
        super().__init__()
        self.isolation = contextlib.ExitStack()
        self.isolation.enter_context(engines_of_its_own())
        self.clock = self.isolation.enter_context(FakeClock())
        self.runner = asyncio.Runner() if self.mode == "async" else None
        self.cache = type(self).make_cache()
        self.driver = Driver(self.cache, self.mode)
        self.expected: dict[tuple[str, int], tuple[Any, float]] = {}

    def teardown(self) -> None:
        """Look once more at everything, and give the clock back."""
        try:
            check_invariants(self.cache)
        finally:
            if self.runner is not None:
                self.runner.close()
            self.isolation.close()
            # Hypothesis keeps the machine for a while, and a storage may write once more when its handle goes.
            del self.cache, self.driver

    def do(self, operation: Coroutine[Any, Any, Any]) -> Any:
        """Run an operation of the driver."""
        return self.runner.run(operation) if self.runner is not None else run_to_its_end(operation)

    # The dict -------------------------------------------------------------------------------

    def slot(self, key: object, version: int | None) -> tuple[str, int]:
        """Return the dict's key of an entry."""
        return str(key), 1 if version is None else version

    def live(self, key: object, version: int | None) -> Any:
        """Return the value, or ABSENT."""
        value, expires_at = self.expected.get(self.slot(key, version), (ABSENT, math.inf))
        return value if expires_at > self.clock.now() else ABSENT

    def expect(self, key: object, version: int | None, value: Any, timeout: Any) -> None:
        """Put a value into the dict."""
        seconds = DEFAULT_SECONDS if timeout is DEFAULT_TIMEOUT else math.inf if timeout is None else float(timeout)
        if seconds > 0:
            self.expected[self.slot(key, version)] = (value, self.clock.now() + seconds)
        else:
            self.expected.pop(self.slot(key, version), None)

    # Rules ----------------------------------------------------------------------------------

    @rule(key=keys, value=values, timeout=timeouts, version=versions)
    def set(self, key: Any, value: Any, timeout: Any, version: int | None) -> None:
        self.do(self.driver.set(key, value, timeout, version))
        self.expect(key, version, value, timeout)

    @rule(key=keys, value=values, timeout=timeouts, version=versions)
    def add(self, key: Any, value: Any, timeout: Any, version: int | None) -> None:
        is_free = self.live(key, version) is ABSENT
        assert self.do(self.driver.add(key, value, timeout, version)) is is_free
        if is_free:
            self.expect(key, version, value, timeout)

    @rule(key=keys, value=values, timeout=timeouts, version=versions)
    def get_or_set(self, key: Any, value: Any, timeout: Any, version: int | None) -> None:
        found = self.live(key, version)
        result = self.do(self.driver.get_or_set(key, lambda: value, timeout, version))
        assert result == (value if found is ABSENT else found)
        if found is ABSENT:
            self.expect(key, version, value, timeout)

    @rule(key=keys, version=versions)
    def get(self, key: Any, version: int | None) -> None:
        found = self.do(self.driver.get(key, ABSENT, version))
        expected = self.live(key, version)
        assert found is expected if expected is ABSENT else found == expected

    @rule(key=keys, version=versions)
    def delete(self, key: Any, version: int | None) -> None:
        is_live = self.live(key, version) is not ABSENT
        assert self.do(self.driver.delete(key, version)) is is_live
        self.expected.pop(self.slot(key, version), None)

    @rule(key=keys, version=versions)
    def has_key(self, key: Any, version: int | None) -> None:
        assert self.do(self.driver.has_key(key, version)) is (self.live(key, version) is not ABSENT)

    @rule(key=keys, timeout=timeouts, version=versions)
    def touch(self, key: Any, timeout: Any, version: int | None) -> None:
        value = self.live(key, version)
        assert self.do(self.driver.touch(key, timeout, version)) is (value is not ABSENT)
        if value is not ABSENT:
            self.expect(key, version, value, timeout)

    @rule(key=keys, seconds=st.sampled_from([None, -100.5, 2400.5]), version=versions)
    def expire_at(self, key: Any, seconds: float | None, version: int | None) -> None:
        value = self.live(key, version)
        when = None if seconds is None else self.clock.now() + seconds
        assert self.do(self.driver.expire_at(key, when, version)) is (value is not ABSENT)
        if value is not ABSENT:
            self.expect(key, version, value, seconds)

    @rule(key=keys, version=versions)
    def ttl(self, key: Any, version: int | None) -> None:
        left = self.do(self.driver.ttl(key, version))
        if self.live(key, version) is ABSENT:
            assert left == 0
            return
        _, expires_at = self.expected[self.slot(key, version)]
        if expires_at == math.inf:
            assert left is None
        else:
            assert abs(left - (expires_at - self.clock.now())) < 0.01

    @rule(key=keys, delta=st.sampled_from([1, -1, 0, 2**40]), version=versions, down=st.booleans())
    def incr(self, key: Any, delta: int, version: int | None, down: bool) -> None:
        value = self.live(key, version)
        operation = self.driver.decr if down else self.driver.incr
        try:
            result = self.do(operation(key, delta, version))
        except KeyNotFoundError:
            assert value is ABSENT
        except ValueTypeError:
            assert not isinstance(value, int | float)
        else:
            number = value - delta if down else value + delta
            assert result == number
            assert type(result) is type(number)
            _, expires_at = self.expected[self.slot(key, version)]
            self.expected[self.slot(key, version)] = (number, expires_at)

    @rule(key=keys, delta=st.sampled_from([1, -1]), version=versions)
    def incr_version(self, key: Any, delta: int, version: int | None) -> None:
        value = self.live(key, version)
        try:
            new_version = self.do(self.driver.incr_version(key, delta, version))
        except KeyNotFoundError:
            assert value is ABSENT
        else:
            assert new_version == (version or 1) + delta
            self.expected[self.slot(key, new_version)] = self.expected.pop(self.slot(key, version))

    @rule(many=st.lists(keys, max_size=5), version=versions)
    def get_many(self, many: list[Any], version: int | None) -> None:
        live = {key: self.live(key, version) for key in many}
        expected = {key: value for key, value in live.items() if value is not ABSENT}
        assert self.do(self.driver.get_many(many, version)) == expected

    @rule(many=st.dictionaries(keys, values, max_size=4), timeout=timeouts, version=versions)
    def set_many(self, many: dict[Any, Any], timeout: Any, version: int | None) -> None:
        assert self.do(self.driver.set_many(many, timeout, version)) == []
        for key, value in many.items():
            self.expect(key, version, value, timeout)

    @rule(many=st.lists(keys, max_size=4), version=versions)
    def delete_many(self, many: list[Any], version: int | None) -> None:
        self.do(self.driver.delete_many(many, version))
        for key in many:
            self.expected.pop(self.slot(key, version), None)

    @rule(version=versions, prefix=st.sampled_from(["", "a", "k", "k" * 2000]))
    def list_keys(self, version: int | None, prefix: str) -> None:
        live = {str(key) for key in KEYS if self.live(key, version) is not ABSENT}
        try:
            listed = self.do(self.driver.keys(prefix, version))
            count = self.do(self.driver.count(version))
        except NotSupportedError:
            return
        assert sorted(listed) == sorted(key for key in live if key.startswith(prefix))
        assert count == len(live)

    @rule()
    def clear(self) -> None:
        self.do(self.driver.clear())
        self.expected.clear()

    @rule()
    def prune(self) -> None:
        self.do(self.driver.prune())

    @rule(seconds=st.sampled_from([61, 601, 3000, 150_000]))
    def let_time_pass(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @invariant()
    def everything_is_as_expected(self) -> None:
        """All keys of all versions, after every step."""
        for version in range(5):
            live = {key: self.live(key, version) for key in KEYS}
            expected = {key: value for key, value in live.items() if value is not ABSENT}
            assert self.cache.get_many(KEYS, version) == expected


def machine(make_cache: Callable[[], BaseCache], mode: str = "sync") -> type[CacheMachine]:
    """Return a state machine for a cache.

    Args:
        make_cache: returns a cache of a new, empty storage, with a TIMEOUT of DEFAULT_SECONDS
            and without bounds.
        mode: "sync" or "async", the API to go through.
    """
    return type("Machine", (CacheMachine,), {"make_cache": staticmethod(make_cache), "mode": mode})
