"""get_or_set_many(): one read, one computation for all that is missing, one write."""

from collections.abc import Callable
from typing import Any

import pytest

from storeroom import background
from storeroom.base import BaseCache
from storeroom.testing import concurrency
from storeroom.testing.capabilities import needs
from storeroom.testing.concurrency import Gate, in_threads
from storeroom.testing.contract.suite import Driver, Suite

__all__ = ["BatchesContract"]


class Query:
    """A function that returns ``{key: "value of key"}``, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[Any]] = []
        self.error: Exception | None = None

    def __call__(self, keys: list[Any]) -> dict[Any, str]:
        self.asked.append(sorted(keys, key=str))
        if self.error is not None:
            raise self.error
        return {key: f"value of {key}" for key in keys if key != "unknown"}


@needs("store")
class BatchesContract(Suite):
    """Many keys at once."""

    async def test_what_is_missing_is_computed_by_one_call(self, cache: Driver) -> None:
        """And stored; the result has the keys that were given, in their order."""
        query = Query()
        await cache.set("b", "stored")
        found = await cache.get_or_set_many(["a", "b", 3], query)
        assert list(found.items()) == [("a", "value of a"), ("b", "stored"), (3, "value of 3")]
        assert query.asked == [[3, "a"]]
        assert await cache.get_or_set_many(["a", "b", 3], query) == found
        assert len(query.asked) == 1
        assert await cache.get("a") == "value of a"

    async def test_what_is_not_computed_is_absent(self, cache: Driver) -> None:
        """And asked for the next time."""
        query = Query()
        assert await cache.get_or_set_many(["a", "unknown"], query) == {"a": "value of a"}
        assert await cache.get_or_set_many(["a", "unknown"], query) == {"a": "value of a"}
        assert query.asked == [["a", "unknown"], ["unknown"]]

    async def test_no_keys_compute_nothing(self, cache: Driver) -> None:
        """The function is not called."""
        query = Query()
        assert await cache.get_or_set_many([], query) == {}
        assert query.asked == []

    async def test_timeout_and_version_are_those_of_set_many(self, cache: Driver) -> None:
        """The timeout may be a function of all that was computed."""
        await cache.get_or_set_many(["a"], Query(), timeout=100, version=2)
        assert await cache.get("a") is None
        assert await cache.ttl("a", version=2) == pytest.approx(100, rel=0.1)
        await cache.get_or_set_many(["b"], Query(), timeout=lambda values: 200 * len(values))
        assert await cache.ttl("b") == pytest.approx(200, rel=0.1)

    async def test_tags_are_those_of_every_entry(self, cache: Driver) -> None:
        """Stored ones are read as any other."""
        query = Query()
        await cache.get_or_set_many(["a", "b"], query, tags=["t"])
        assert len(await cache.get_many(["a", "b"])) == 2
        await cache.invalidate_tags("t")
        assert await cache.get_many(["a", "b"]) == {}
        await cache.get_or_set_many(["a", "b"], query, tags=["t"])
        assert query.asked == [["a", "b"], ["a", "b"]]

    async def test_an_error_is_raised_and_nothing_stored(self, cache: Driver) -> None:
        """Nor is what was read lost."""
        query = Query()
        query.error = LookupError("the source is down")
        await cache.set("b", "stored")
        with pytest.raises(LookupError, match="the source is down"):
            await cache.get_or_set_many(["a", "b"], query)
        query.error = None
        assert await cache.get_or_set_many(["a", "b"], query) == {"a": "value of a", "b": "stored"}

    async def test_stale_values_are_served_if_the_computation_fails(self, cache: Driver) -> None:
        """If there is one of each."""
        query = Query()
        options: dict[str, Any] = {"timeout": self.moment, "stale_if_error": "1h", "retry_pause": 0}
        await cache.get_or_set_many(["a", "b"], query, **options)
        await self.pass_time(self.moment)
        query.error = LookupError("the source is down")
        assert await cache.get_or_set_many(["a", "b"], query, **options) == {"a": "value of a", "b": "value of b"}
        with pytest.raises(LookupError):
            await cache.get_or_set_many(["a", "b", "c"], query, **options)

    async def test_a_result_that_is_no_dict_is_refused(self, cache: Driver) -> None:
        """By a message that says what was expected."""
        with pytest.raises(TypeError, match="expected a dict"):
            await cache.get_or_set_many(["a"], lambda keys: keys)

    def test_stale_values_are_served_while_new_ones_are_computed(self, open_cache: Callable[..., BaseCache]) -> None:
        """By one computation for all."""
        cache, query = open_cache(), Query()
        options: dict[str, Any] = {"timeout": 1000, "early": 1e12}
        cache.get_or_set_many(["a", "b"], query, **options)
        assert cache.get_or_set_many(["a", "b"], query, **options) == {"a": "value of a", "b": "value of b"}
        assert background.drain(concurrency.PATIENCE)
        assert query.asked == [["a", "b"], ["a", "b"]]

    def test_threads_that_miss_the_same_keys_compute_once(self, open_cache: Callable[..., BaseCache]) -> None:
        """The others get the result."""
        cache, gate = open_cache(), Gate({"a": 1, "b": 2})

        def job(number: int) -> dict[str, int]:
            if number == 0:
                assert gate.begun.wait(concurrency.PATIENCE)
                gate.may_end.set()
            return cache.get_or_set_many(["a", "b"], lambda _: gate())

        assert in_threads(20, job) == [{"a": 1, "b": 2}] * 20
        assert gate.calls == 1
