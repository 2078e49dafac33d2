"""get_or_set_many(): one read, one computation for all that is missing, one write."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from storeroom.base import BaseCache
from storeroom.engines import background
from storeroom.exceptions import ComputationCycleError
from storeroom.storage.overlay import HOOKS
from storeroom.testing import concurrency
from storeroom.testing.capabilities import needs
from storeroom.testing.concurrency import Gate, eventually, in_background, in_threads
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


_within: ContextVar[bool] = ContextVar("within", default=False)


@contextmanager
def _noted(called: list[str], name: str) -> Iterator[None]:
    """Add the name of a hook that is called, unless it is called within another hook."""
    if _within.get():
        yield
        return
    called.append(name)
    token = _within.set(True)
    try:
        yield
    finally:
        _within.reset(token)


def count_hooks(cache: BaseCache, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which each hook adds its name that is called from now on, but for those within another hook."""
    called: list[str] = []
    hooks = cache._overlay or cache

    def counted(name: str, hook: Callable[..., Any], ahook: Callable[..., Any]) -> None:
        def call(*args: Any) -> Any:
            with _noted(called, name):
                return hook(*args)

        async def acall(*args: Any) -> Any:
            with _noted(called, name):
                return await ahook(*args)

        monkeypatch.setattr(hooks, f"_{name}", call)
        monkeypatch.setattr(hooks, f"_a{name}", acall)

    for name in HOOKS:
        counted(name, getattr(hooks, f"_{name}"), getattr(hooks, f"_a{name}"))
    return called


@needs("store")
class BatchesContract(Suite):
    """Many keys at once."""

    async def test_it_takes_one_read_and_one_write(self, cache: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
        """A batch reads once, leases the absent keys at once and writes once; a batch of hits reads once."""
        await cache.set("b", "stored")
        called = count_hooks(cache.cache, monkeypatch)
        await cache.get_or_set_many(["a", "b", "c"], Query())
        assert called == ["get_many", "lease_many", "swap_many"]
        called.clear()
        await cache.get_or_set_many(["a", "b", "c"], Query())
        assert called == ["get_many"]

    async def test_with_tags_it_reads_their_versions_too(self, cache: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
        """The versions of all tags are read at once, before the computation."""
        await cache.set("x", 1, tags=["s", "t"], timeout=1000)
        called = count_hooks(cache.cache, monkeypatch)
        await cache.get_or_set_many(["a", "b"], Query(), tags=["s", "t"], timeout=10)
        assert called == ["get_many", "lease_many", "get_many", "swap_many"]
        called.clear()
        await cache.get_or_set_many(["a", "b"], Query(), tags=["s", "t"], timeout=10)
        assert called == ["get_many", "get_many"]

    @pytest.mark.parametrize("stale", [False, True])
    async def test_what_is_changed_meanwhile_is_not_overwritten(self, cache: Driver, stale: bool) -> None:
        """A key deleted meanwhile stays absent, a key set meanwhile keeps its value; the caller gets both results."""
        options = {"timeout": self.moment, "stale_if_error": "1h"}
        if stale:
            await cache.set("untouched", "old")  # fresh all the time
            await cache.get_or_set_many([*"abc"], lambda keys: dict.fromkeys(keys, "old"), **options)
            await self.pass_time(self.moment)

        def compute(keys: list[str]) -> dict[str, str]:
            cache.cache.delete("a")
            cache.cache.set("b", "set meanwhile")
            return dict.fromkeys(keys, "computed")

        found = await cache.get_or_set_many([*"abc"], compute, **(options | {"timeout": 1000}))
        assert found == {"a": "computed", "b": "set meanwhile", "c": "computed"}
        assert await cache.get_many([*"abc"]) == {"b": "set meanwhile", "c": "computed"}

    async def test_what_is_invalidated_meanwhile_is_not_put_back(self, cache: Driver) -> None:
        """Values computed while their tag is invalidated, or the cache cleared, are returned and not stored."""

        def invalidate(keys: list[str]) -> dict[str, str]:
            cache.cache.invalidate_tags("t")
            return dict.fromkeys(keys, "computed")

        def clear(keys: list[str]) -> dict[str, str]:
            cache.cache.clear()
            return dict.fromkeys(keys, "computed")

        assert await cache.get_or_set_many([*"ab"], invalidate, tags=["t"]) == {"a": "computed", "b": "computed"}
        assert await cache.get_many([*"ab"]) == {}
        assert await cache.get_or_set_many([*"cd"], clear) == {"c": "computed", "d": "computed"}
        assert await cache.get_many([*"cd"]) == {}

    async def test_what_was_not_computed_is_in_nobodys_way(self, cache: Driver) -> None:
        """Keys left out by the function, or lost with its error, are free for add()."""
        query = Query()
        await cache.get_or_set_many(["a", "unknown"], query)
        assert await cache.add("unknown", "added")
        query.error = LookupError("the source is down")
        with pytest.raises(LookupError):
            await cache.get_or_set_many(["b", "c"], query)
        assert await cache.get_many(["b", "c"]) == {}
        assert await cache.add("b", "added")

    async def test_a_timeout_of_zero_stores_nothing(self, cache: Driver) -> None:
        """With a timeout of zero, values are returned and computed again the next time."""
        query = Query()
        assert await cache.get_or_set_many(["a"], query, timeout=0) == {"a": "value of a"}
        assert not await cache.has_key("a")
        assert await cache.get_or_set_many(["a"], query, timeout=0) == {"a": "value of a"}
        assert len(query.asked) == 2

    async def test_a_computation_that_asks_for_its_own_key_gets_an_error(self, cache: Driver) -> None:
        """get_or_set() and get_or_set_many() of a key within its own computation raise ComputationCycleError."""
        one, many = cache.cache.get_or_set, cache.cache.get_or_set_many
        with pytest.raises(ComputationCycleError):
            await cache.get_or_set_many([*"ab"], lambda keys: dict.fromkeys(keys, one("b", "inner")))
        with pytest.raises(ComputationCycleError):
            await cache.get_or_set_many([*"ab"], lambda keys: dict.fromkeys(keys, many([*"bc"], dict.fromkeys)))
        with pytest.raises(ComputationCycleError):
            await cache.get_or_set("a", lambda: many([*"ab"], dict.fromkeys))
        assert await cache.get_or_set_many([*"ab"], dict.fromkeys) == {"a": None, "b": None}

    async def test_many_keys_are_computed_at_once(self, drive: Callable[..., Driver]) -> None:
        """1200 absent keys, more than a storage takes in one step, are computed by one call."""
        cache, query = drive(OPTIONS=self.room_for(2000)), Query()
        keys = [f"key {number}" for number in range(1200)]
        found = await cache.get_or_set_many(keys, query)
        assert found == {key: f"value of {key}" for key in keys}
        assert query.asked == [sorted(keys)]
        assert await cache.get_many(keys) == found

    async def test_what_is_missing_is_computed_by_one_call(self, cache: Driver) -> None:
        """Absent keys are computed by one call and stored; the result has all keys in the order given."""
        query = Query()
        await cache.set("b", "stored")
        found = await cache.get_or_set_many(["a", "b", 3], query)
        assert list(found.items()) == [("a", "value of a"), ("b", "stored"), (3, "value of 3")]
        assert query.asked == [[3, "a"]]
        assert await cache.get_or_set_many(["a", "b", 3], query) == found
        assert len(query.asked) == 1
        assert await cache.get("a") == "value of a"

    async def test_what_is_not_computed_is_absent(self, cache: Driver) -> None:
        """A key left out by the function is absent from the result, and asked for again the next time."""
        query = Query()
        assert await cache.get_or_set_many(["a", "unknown"], query) == {"a": "value of a"}
        assert await cache.get_or_set_many(["a", "unknown"], query) == {"a": "value of a"}
        assert query.asked == [["a", "unknown"], ["unknown"]]

    async def test_no_keys_compute_nothing(self, cache: Driver) -> None:
        """Without keys the function is not called."""
        query = Query()
        assert await cache.get_or_set_many([], query) == {}
        assert query.asked == []

    async def test_timeout_and_version_are_those_of_set_many(self, cache: Driver) -> None:
        """Entries get the timeout and version given; the timeout may be a function of all values computed."""
        await cache.get_or_set_many(["a"], Query(), timeout=100, version=2)
        assert await cache.get("a") is None
        assert await cache.ttl("a", version=2) == pytest.approx(100, rel=0.1)
        await cache.get_or_set_many(["b"], Query(), timeout=lambda values: 200 * len(values))
        assert await cache.ttl("b") == pytest.approx(200, rel=0.1)

    async def test_tags_are_those_of_every_entry(self, cache: Driver) -> None:
        """Every entry carries the tags given, and is absent once one of them is invalidated."""
        query = Query()
        await cache.get_or_set_many(["a", "b"], query, tags=["t"])
        assert len(await cache.get_many(["a", "b"])) == 2
        await cache.invalidate_tags("t")
        assert await cache.get_many(["a", "b"]) == {}
        await cache.get_or_set_many(["a", "b"], query, tags=["t"])
        assert query.asked == [["a", "b"], ["a", "b"]]

    async def test_an_error_is_raised_and_nothing_stored(self, cache: Driver) -> None:
        """The function's error is raised, no absent key is stored, and entries that were there stay."""
        query = Query()
        query.error = LookupError("the source is down")
        await cache.set("b", "stored")
        with pytest.raises(LookupError, match="the source is down"):
            await cache.get_or_set_many(["a", "b"], query)
        query.error = None
        assert await cache.get_or_set_many(["a", "b"], query) == {"a": "value of a", "b": "stored"}

    async def test_stale_values_are_served_if_the_computation_fails(self, cache: Driver) -> None:
        """If the computation fails, stale values are served where every key has one; otherwise the error is raised."""
        query = Query()
        options: dict[str, Any] = {"timeout": self.moment, "stale_if_error": "1h", "retry_pause": 0}
        await cache.get_or_set_many(["a", "b"], query, **options)
        await self.pass_time(self.moment)
        query.error = LookupError("the source is down")
        assert await cache.get_or_set_many(["a", "b"], query, **options) == {"a": "value of a", "b": "value of b"}
        with pytest.raises(LookupError):
            await cache.get_or_set_many(["a", "b", "c"], query, **options)

    async def test_only_what_cannot_be_computed_is_stale(self, cache: Driver) -> None:
        """A key whose computation by another caller fails is served stale, beside keys that were computed."""
        options: dict[str, Any] = {"timeout": self.moment, "stale_if_error": "1h", "retry_pause": 0}
        await cache.get_or_set_many(["a", "b"], lambda keys: dict.fromkeys(keys, "old"), **options)
        await self.pass_time(self.moment)
        begun, query = threading.Event(), Query()

        def fail() -> str:
            begun.set()
            eventually(lambda: cache.cache.engine.flights.followers(cache.cache.make_key("a")) == 1)
            raise LookupError("the source is down")

        other = in_background(lambda: cache.cache.get_or_set("a", fail, **options))
        assert begun.wait(concurrency.PATIENCE)
        found = await cache.get_or_set_many(["a", "b", "c", "unknown"], query, **(options | {"timeout": 1000}))
        assert found == {"a": "old", "b": "value of b", "c": "value of c"}, "of the last one there is nothing"
        assert query.asked == [["b", "c", "unknown"]]
        assert other.result(concurrency.PATIENCE) == "old"

    async def test_a_result_that_is_no_dict_is_refused(self, cache: Driver) -> None:
        """A function that returns no dict raises TypeError."""
        with pytest.raises(TypeError, match="expected a dict"):
            await cache.get_or_set_many(["a"], lambda keys: keys)

    def test_stale_values_are_served_while_new_ones_are_computed(self, open_cache: Callable[..., BaseCache]) -> None:
        """With an early refresh, the old values are returned at once and one computation brings all new ones."""
        cache, query = open_cache(), Query()
        options: dict[str, Any] = {"timeout": 1000, "early": 1e18}
        cache.get_or_set_many(["a", "b"], query, **options)
        assert cache.get_or_set_many(["a", "b"], query, **options) == {"a": "value of a", "b": "value of b"}
        assert background.drain(concurrency.PATIENCE)
        assert query.asked == [["a", "b"], ["a", "b"]]

    def test_threads_that_miss_the_same_keys_compute_once(self, open_cache: Callable[..., BaseCache]) -> None:
        """Of twenty threads that ask for the same absent keys, one computes and all get the result."""
        cache, gate = open_cache(), Gate({"a": 1, "b": 2})

        def job(number: int) -> dict[str, int]:
            if number == 0:
                eventually(lambda: cache.engine.flights.followers(cache.make_key("a")) == 18)
                gate.may_end.set()
            return cache.get_or_set_many(["a", "b"], lambda _: gate())

        assert in_threads(20, job) == [{"a": 1, "b": 2}] * 20
        assert gate.calls == 1

    def test_threads_whose_keys_overlap_compute_each_key_once(self, open_cache: Callable[..., BaseCache]) -> None:
        """Threads whose keys overlap, of batches and of single keys, compute each key once and share the results."""
        cache, computed, lock = open_cache(), list[int](), threading.Lock()

        def compute(keys: list[int]) -> dict[int, str]:
            time.sleep(0.05)  # work that takes its time, for the others to come and wait
            with lock:
                computed.extend(keys)
            return {key: f"value of {key}" for key in keys}

        def job(number: int) -> dict[int, str]:
            if number % 5 == 4:
                return {number: cache.get_or_set(number, lambda: compute([number])[number])}
            return cache.get_or_set_many(range(number, number + 10), compute)

        for number, found in enumerate(in_threads(20, job)):
            assert found == {key: f"value of {key}" for key in found}
            assert len(found) == (1 if number % 5 == 4 else 10)
        assert sorted(computed) == list(range(28))

    def test_those_who_ask_for_one_key_wait_for_a_batch(self, open_cache: Callable[..., BaseCache]) -> None:
        """A caller of one key waits for a batch that computes it, and computes itself if the batch leaves it out."""
        cache, gate = open_cache(), Gate({"a": "from the batch"})
        batch = in_background(cache.get_or_set_many, ["a", "b"], lambda _: gate())
        assert gate.begun.wait(concurrency.PATIENCE)
        one = in_background(cache.get_or_set, "a", lambda: "its own")
        other = in_background(cache.get_or_set, "b", lambda: "its own")
        eventually(lambda: cache.engine.flights.followers(cache.make_key("a")) == 2)
        gate.may_end.set()
        assert batch.result(concurrency.PATIENCE) == {"a": "from the batch"}
        assert one.result(concurrency.PATIENCE) == "from the batch"
        assert other.result(concurrency.PATIENCE) == "its own"

    def lead_delete_and_follow(self, cache: BaseCache, leaders: dict[str, str], query: Query) -> list[dict[str, str]]:
        """Delete "a" while the leader of a batch computes "a" and "b", and let another ask after that.

        Return what both got.
        """
        gate = Gate(leaders)
        leader = in_background(cache.get_or_set_many, ["a", "b"], lambda _: gate())
        assert gate.begun.wait(concurrency.PATIENCE)
        cache.delete("a")
        follower = in_background(cache.get_or_set_many, ["a", "b"], query)
        eventually(lambda: cache.engine.flights.followers(cache.make_key("a")) == 1)
        gate.may_end.set()
        return [leader.result(concurrency.PATIENCE), follower.result(concurrency.PATIENCE)]

    def test_those_who_ask_after_a_delete_get_no_old_value(self, open_cache: Callable[..., BaseCache]) -> None:
        """A follower that asked after a delete computes the deleted key anew, and no other."""
        cache, query = open_cache(), Query()
        found = self.lead_delete_and_follow(cache, {"a": "old", "b": "old"}, query)
        assert found == [{"a": "old", "b": "old"}, {"a": "value of a", "b": "old"}]
        assert query.asked == [["a"]]
        assert cache.get_many([*"ab"]) == {"a": "value of a", "b": "old"}

    def test_those_who_ask_after_a_delete_do_not_hear_that_there_is_nothing(
        self, open_cache: Callable[..., BaseCache]
    ) -> None:
        """A leader that left a deleted key out does not answer for it to a follower that asked after the delete."""
        cache, query = open_cache(), Query()
        assert self.lead_delete_and_follow(cache, {}, query) == [{}, {"a": "value of a"}]
        assert query.asked == [["a"]]
