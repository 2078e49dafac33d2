"""Values that the storage refuses: a computed one is returned all the same, and no older one is served for it."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from storeroom.exceptions import SerializationError, ValueTooLargeError
from storeroom.memos import memo
from storeroom.testing.capabilities import needs
from storeroom.testing.concurrency import PATIENCE, Gate, eventually, in_background
from storeroom.testing.contract.suite import Driver, Suite
from storeroom.transactions import transaction

__all__ = ["UnstorableContract"]

BOUND = 65_536
LARGE = bytes(BOUND)


@needs("store")
class UnstorableContract(Suite):
    """Values that cannot be serialized, and values that are too large."""

    @needs("refusal")
    @pytest.mark.parametrize("how", ["plain", "tagged", "stale", "limited"])
    async def test_a_computed_value_that_cannot_be_stored_is_returned(self, cache: Driver, how: str) -> None:
        """Every operation that computes returns the value, counts it, and computes again the next time."""
        more: dict[str, dict[str, Any]] = {
            "plain": {},
            "tagged": {"tags": ["t"]},
            "stale": {"stale_while_revalidate": 100, "stale_if_error": 100},
            "limited": {"hard_timeout": PATIENCE},
        }
        made: list[Any] = []

        def make() -> Any:
            made.append(threading.Lock())
            return made[-1]

        for _ in range(2):
            assert await cache.get_or_set("k", make, **more[how]) is made[-1]
            assert await cache.refresh("k", make, **more[how]) is made[-1]
        assert len(made) == 4
        found = await cache.get_or_set_many(["a", "b", "c"], lambda _: {"a": 1, "b": make(), "c": 3}, **more[how])
        assert found == {"a": 1, "b": made[-1], "c": 3}
        assert await cache.get_many(["k", "a", "b", "c"]) == {"a": 1, "c": 3}
        assert cache.cache.stats().unstored == 5
        assert await cache.get_or_set("k", lambda: 1) == 1

    @needs("refusal")
    async def test_no_older_value_is_served_for_one_that_was_computed(self, cache: Driver) -> None:
        """A value that was computed anew and cannot be stored takes the older one with it, stale or fresh."""
        for tags in ([], ["t"]):
            await cache.set("k", ["old"], timeout=None, tags=tags)
            await cache.refresh("k", threading.Lock, tags=tags)
            assert await cache.get("k", "absent") == "absent"
        stale = {"stale_while_revalidate": 1000}
        await cache.get_or_set("k", lambda: "old", self.moment, **stale)
        await cache.get_or_set_many(["l"], lambda _: {"l": "old"}, self.moment, stale_if_error=1000)
        await self.pass_time(self.moment * 1.5)
        await cache.refresh("k", threading.Lock)
        await cache.get_or_set_many(["l"], lambda _: {"l": threading.Lock()}, stale_if_error=1000)
        assert await cache.get_or_set("k", lambda: "new", **stale) == "new"
        assert await cache.get_or_set_many(["l"], lambda _: {"l": "new"}, **stale) == {"l": "new"}

    @needs("refusal")
    async def test_it_is_an_error_where_that_is_wanted(self, drive: Callable[..., Driver]) -> None:
        """With on_unstorable "raise", the error is raised; the other values of a batch are stored."""
        cache = drive(OPTIONS={"on_unstorable": "raise"})
        await cache.set("k", "old")
        with pytest.raises(SerializationError):
            await cache.refresh("k", threading.Lock)
        with pytest.raises(SerializationError):
            await cache.get_or_set("k", threading.Lock)
        with pytest.raises(SerializationError):
            await cache.get_or_set_many(["a", "b"], lambda _: {"a": 1, "b": threading.Lock()})
        assert await cache.get_many(["k", "a", "b"]) == {"a": 1}
        assert cache.cache.stats().unstored == 0

    @needs("refusal")
    def test_callers_who_wait_get_it_too(self, open_cache: Callable[..., Any]) -> None:
        """The value that cannot be stored reaches all who wait for it, of one computation."""
        cache, lock = open_cache(), threading.Lock()
        gate = Gate(lock)
        callers = [in_background(cache.get_or_set, "k", gate) for _ in range(3)]
        eventually(lambda: cache.engine.flights.followers(cache.make_key("k")) == 2)
        gate.may_end.set()
        assert [caller.result(PATIENCE) for caller in callers] == [lock] * 3
        assert gate.calls == 1
        assert "k" not in cache

    @needs("refusal")
    async def test_transactions_and_memos_return_it(self, cache: Driver) -> None:
        """Within a memo, and within a unit of work, it is returned as well; nothing of before is left."""
        lock = threading.Lock()
        for unit in (memo(), transaction()):
            await cache.set_many({"k": "old", "l": "old"})
            with unit:
                assert await cache.refresh("k", lambda: lock) is lock
                assert await cache.get_or_set_many(["l", "m"], lambda _: {"m": lock}) == {"l": "old", "m": lock}
                assert await cache.get("k") is None
            assert await cache.get_many(["k", "l", "m"]) == {"l": "old"}

    # Too large --------------------------------------------------------------------------------

    @needs("byte_bounds")
    @pytest.mark.parametrize("near", [None, True], ids=["bare", "near"])
    async def test_a_value_that_is_too_large_takes_the_older_one_with_it(
        self, drive: Callable[..., Driver], near: bool | None
    ) -> None:
        """set() raises and removes the older value, with tags too; add() of a key in use changes nothing."""
        cache = drive(OPTIONS={"MAX_ENTRIES": None, "max_bytes": BOUND, "near": near})
        for tags in ([], ["t"]):
            await cache.set("k", "admin", tags=tags)
            assert await cache.get("k") == "admin"
            with pytest.raises(ValueTooLargeError):
                await cache.set("k", LARGE, tags=tags)
            assert await cache.get("k", "absent") == "absent"
        await cache.set("k", "admin")
        with memo():
            assert await cache.get("k") == "admin"
            with pytest.raises(ValueTooLargeError):
                await cache.set("k", LARGE)
            assert await cache.get("k", "absent") == "absent"
        assert await cache.get("k", "absent") == "absent"

    @needs("byte_bounds")
    async def test_set_many_stores_all_others(self, drive: Callable[..., Driver]) -> None:
        """set_many() returns the keys of values that are too large, and stores all others; older ones are gone."""
        cache = drive(OPTIONS={"MAX_ENTRIES": None, "max_bytes": BOUND})
        for tags in ([], ["t"]):
            await cache.set_many(dict.fromkeys("abcde", "old"))
            failed = await cache.set_many({"a": 1, "b": LARGE, "c": 3, "d": LARGE, "e": 5}, tags=tags)
            assert sorted(failed) == ["b", "d"]
            assert await cache.get_many([*"abcde"]) == {"a": 1, "c": 3, "e": 5}

    @needs("byte_bounds")
    async def test_a_transaction_keeps_no_older_value(self, drive: Callable[..., Driver]) -> None:
        """After the commit of a value that is too large the older one is gone, and the others are stored."""
        cache = drive(OPTIONS={"MAX_ENTRIES": None, "max_bytes": BOUND})
        await cache.set_many({"k": "old", "l": "old", "m": "old"})

        async def commit() -> None:
            with transaction():
                await cache.set("k", LARGE)
                await cache.set_many({"l": 1, "m": LARGE, "n": 2})

        with pytest.raises(ValueTooLargeError):
            await commit()
        assert await cache.get_many([*"klmn"]) == {"l": 1, "n": 2}
        with transaction():
            assert await cache.get_or_set("c", lambda: LARGE) == LARGE
            assert await cache.refresh("l", lambda: LARGE) == LARGE
        assert await cache.get_many([*"cln"]) == {"n": 2}

    @needs("byte_bounds")
    async def test_a_computed_value_that_is_too_large_is_returned(self, drive: Callable[..., Driver]) -> None:
        """It is returned, counted, and not stored; refresh() leaves no older one, and batches store the others."""
        cache = drive(OPTIONS={"MAX_ENTRIES": None, "max_bytes": BOUND})
        await cache.set("k", "old")
        assert await cache.refresh("k", lambda: LARGE) == LARGE
        assert await cache.get_or_set("k", lambda: LARGE, tags=["t"]) == LARGE
        found = await cache.get_or_set_many(["a", "b", "c"], lambda _: {"a": 1, "b": LARGE, "c": 3})
        assert found == {"a": 1, "b": LARGE, "c": 3}
        assert await cache.get_many(["k", "a", "b", "c"]) == {"a": 1, "c": 3}
        assert cache.cache.stats().unstored == 3
