"""explain(): each reason, from a run whose truth is known."""

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any

from storeroom.base.explanation import Explanation
from storeroom.exceptions import SerializationError
from storeroom.memos import memo
from storeroom.testing.capabilities import needs
from storeroom.testing.contract.suite import Driver, Suite
from storeroom.transactions import transaction

__all__ = ["ExplainedContract"]

REMEMBERS = {"removals": 1000}


class Unserializable:
    """Nobody can pickle it."""

    def __reduce__(self) -> Any:
        raise TypeError("confidential")


@needs("store")
class ExplainedContract(Suite):
    """Why a key is not there, and all about one that is."""

    async def test_an_entry_that_is_there_is_explained(self, cache: Driver) -> None:
        """A read would find it; its time, its form and its storage key are told, and nothing of its value."""
        await cache.set("k", "confidential" * 10, 1000)
        found: Explanation = await cache.explain("k")
        assert (found.would_hit, found.cause, found.key, found.version) == (True, "hit", "k", 1)
        assert found.storage_key == cache.cache.make_key("k")
        assert found.left is not None
        assert 900 < found.left <= 1000
        assert [tier.state for tier in found.tiers][-1] == "live"
        assert "confidential" not in f"{found} {found!r} {found.as_dict()}"
        assert json.loads(json.dumps(found.as_dict()))["would_hit"] is True
        assert (found.tags, found.lease, found.refusal) == ((), None, "")

    async def test_a_look_leaves_no_trace(self, cache: Driver) -> None:
        """No hit, no miss and no error is counted, and the entry keeps its time."""
        await cache.set("k", 1, None)
        before = await cache.stats()
        found = [await cache.explain(key) for key in ("k", "none") for _ in range(3)]
        after = await cache.stats()
        assert [each.cause for each in found] == ["hit"] * 3 + ["never"] * 3
        assert found[0].left is None
        assert (after.hits, after.misses, after.errors) == (before.hits, before.misses, before.errors)
        assert await cache.ttl("k") is None

    async def test_a_key_that_was_never_set_is_told(self, cache: Driver) -> None:
        """The sentence says whether this process remembers removals at all."""
        found: Explanation = await cache.explain("none")
        assert (found.would_hit, found.cause) == (False, "never")
        assert "OPTIONS['removals'] is 0" in found.reason
        assert {tier.state for tier in found.tiers} == {"absent"}

    async def test_an_expired_entry_is_told(self, drive: Callable[..., Driver]) -> None:
        """An entry whose time is over is told by that, whether or not it lies there still."""
        cache = drive(OPTIONS=REMEMBERS)
        await cache.set("k", 1, self.moment)
        await self.pass_time(self.moment * 1.5)
        found: Explanation = await cache.explain("k")
        assert (found.would_hit, found.cause) == (False, "expired")
        assert found.reason.startswith("It expired ")
        assert found.reason.endswith(" ago.")

    async def test_a_deleted_entry_is_told(self, drive: Callable[..., Driver]) -> None:
        """By delete(), delete_many() or a timeout of zero; set anew, it is there."""
        cache = drive(OPTIONS=REMEMBERS)
        await cache.set_many({"a": 1, "b": 2, "c": 3})
        await cache.delete("a")
        await cache.delete_many(["b"])
        await cache.set("c", 3, 0)
        assert [(await cache.explain(key)).cause for key in "abc"] == ["deleted"] * 3
        await cache.set("a", 1)
        assert (await cache.explain("a")).cause == "hit"

    async def test_a_key_that_expires_after_it_was_deleted_has_expired(self, drive: Callable[..., Driver]) -> None:
        """The last that became of it counts."""
        cache = drive(OPTIONS=REMEMBERS)
        await cache.set("k", 1)
        await cache.delete("k")
        await self.pass_time(0.01)
        await cache.set("k", 1, self.moment)
        await self.pass_time(self.moment * 1.5)
        assert (await cache.explain("k")).cause == "expired"

    async def test_an_invalidated_tag_is_named(self, drive: Callable[..., Driver]) -> None:
        """Of two tags the one that is out of date, and since when; the other is current."""
        cache = drive(OPTIONS=REMEMBERS)
        await cache.set("k", [1], tags=["page", "user:7"])
        found: Explanation = await cache.explain("k")
        assert {tag.name: tag.is_current for tag in found.tags} == {"page": True, "user:7": True}
        await cache.invalidate_tags("user:7")
        await cache.set("other", 1, tags=["user:7"])
        found = await cache.explain("k")
        assert (found.would_hit, found.cause) == (False, "tag")
        assert 'Its tag "user:7" was invalidated ' in found.reason
        outdated = {tag.name: tag.since for tag in found.tags if not tag.is_current}
        assert list(outdated) == ["user:7"]
        assert outdated["user:7"] is not None
        assert (await cache.explain("other")).would_hit

    async def test_an_invalidated_tag_is_named_without_a_memory(self, cache: Driver) -> None:
        """A process that remembers no removal cannot say when."""
        await cache.set("k", 1, tags=["t"])
        await cache.invalidate_tags("t")
        found: Explanation = await cache.explain("k")
        assert (found.cause, [(tag.name, tag.since) for tag in found.tags]) == ("tag", [("t", None)])

    @needs("bounds")
    async def test_an_evicted_entry_is_told(self, drive: Callable[..., Driver]) -> None:
        """Of more entries than there is room for, those that are gone were evicted."""
        cache = drive(OPTIONS={**REMEMBERS, "max_entries": 10})
        for number in range(40):
            await cache.set(f"k{number}", number, None)
        gone = [number for number in range(40) if not await cache.has_key(f"k{number}")]
        assert gone
        assert {(await cache.explain(f"k{number}")).cause for number in gone} == {"evicted"}

    async def test_a_clear_is_told(self, drive: Callable[..., Driver]) -> None:
        """After clear() nobody knows which keys there were; those of another prefix are not concerned."""
        cache, other = drive(OPTIONS=REMEMBERS), drive(KEY_PREFIX="other", OPTIONS=REMEMBERS)
        await other.set("k", 1)
        await cache.set("k", 1)
        await cache.clear()
        assert (await cache.explain("x")).cause == "cleared"
        assert (await other.explain("k")).would_hit
        assert (await other.explain("x")).cause == "never"

    async def test_another_version_is_told(self, drive: Callable[..., Driver]) -> None:
        """A version next to the one asked for, or that of another handle, has the key."""
        cache, other = drive(), drive(VERSION=9)
        await cache.set("a", 1, version=2)
        await other.set("b", 1)
        found = [await cache.explain(key) for key in "ab"]
        assert [each.cause for each in found] == ["version"] * 2
        assert ["Version 2 has it" in found[0].reason, "Version 9 has it" in found[1].reason] == [True, True]
        assert (await cache.explain("a", version=2)).would_hit

    @needs("enumerate", "statistics")
    async def test_a_version_that_is_far_away_is_told(self, cache: Driver) -> None:
        """The versions that the storage lists are looked at, where it tells that there are few."""
        await cache.set("k", 1, version=41)
        found: Explanation = await cache.explain("k")
        assert (found.cause, "Version 41 has it" in found.reason) == ("version", True)

    async def test_an_entry_that_was_moved_is_told(self, drive: Callable[..., Driver]) -> None:
        """incr_version() leaves nothing behind, of an entry with tags neither."""
        cache = drive(OPTIONS=REMEMBERS)
        await cache.set("a", 1)
        await cache.set("b", 1, tags=["t"])
        for key in "ab":
            await cache.incr_version(key)
            assert (await cache.explain(key)).cause == "moved"
            assert (await cache.explain(key, version=2)).would_hit

    async def test_another_prefix_is_told(self, drive: Callable[..., Driver]) -> None:
        """The handle of another prefix on the same storage has the key."""
        cache, other = drive(KEY_PREFIX="a"), drive(KEY_PREFIX="b")
        await other.set("k", 1)
        found: Explanation = await cache.explain("k")
        assert (found.would_hit, found.cause) == (False, "prefix")
        assert "KEY_PREFIX 'b' has it" in found.reason

    @needs("refusal")
    async def test_a_refused_value_is_told(self, cache: Driver) -> None:
        """A value that cannot be stored is told by the kind of its error, and not by its text."""
        with suppress(SerializationError):
            await cache.set("k", Unserializable())
        found: Explanation = await cache.explain("k")
        assert (found.would_hit, found.cause) == (False, "refused")
        assert found.refused_ago is not None
        assert "confidential" not in f"{found}"
        await cache.get_or_set("computed", Unserializable)
        with suppress(SerializationError):
            await cache.add("added", Unserializable())
        with suppress(SerializationError):
            await cache.set_many({"one": 1, "many": Unserializable()})
        assert {(await cache.explain(key)).cause for key in ("computed", "added", "many")} == {"refused"}

    @needs("byte_bounds")
    async def test_a_value_that_is_too_large_is_told(self, drive: Callable[..., Driver]) -> None:
        """The sizes are told; a value that is stored later is there, and the refusal is remembered still."""
        cache = drive(OPTIONS={"max_bytes": 20_000})
        await cache.set_many({"a": bytes(30_000), "b": b""})
        found: Explanation = await cache.explain("a")
        assert (found.cause, "max_bytes" in found.reason) == ("refused", True)
        await cache.set("a", 1)
        found = await cache.explain("a")
        assert (found.cause, bool(found.refusal)) == ("hit", True)

    @needs("objects", "isolation")
    async def test_a_class_that_has_moved_is_named(self, cache: Driver) -> None:
        """A value whose class is not where it was cannot be read, and the class is named."""
        module: Any = ModuleType("storeroom_moved_class")
        module.Basket = type("Basket", (), {"__module__": module.__name__})
        sys.modules[module.__name__] = module
        try:
            await cache.set("k", module.Basket())
            del module.Basket
            found: Explanation = await cache.explain("k")
        finally:
            del sys.modules[module.__name__]
        assert (found.would_hit, found.cause) == (False, "unreadable")
        assert "storeroom_moved_class.Basket has moved or changed" in found.reason or not found.serializer
        await cache.delete("k")

    async def test_a_computation_is_told_with_its_process(self, cache: Driver) -> None:
        """While a value is computed for the first time, there is none, and it is told who computes."""
        seen: list[Explanation] = []

        def compute() -> int:
            seen.append(cache.cache.explain("k"))
            return 1

        async def acompute() -> int:
            seen.append(await cache.explain("k"))
            return 1

        await cache.get_or_set("k", acompute if cache.is_async else compute)
        assert [(each.would_hit, each.cause) for each in seen] == [(False, "computing")]
        lease = seen[0].lease
        assert lease is not None
        assert (lease.is_here, f"process {os.getpid()}" in lease.holder) == (True, True)
        found: Explanation = await cache.explain("k")
        assert (found.would_hit, found.lease) == (True, None)

    async def test_a_stale_value_is_told(self, cache: Driver) -> None:
        """It has expired to get(), and get_or_set() may serve it for some time still."""
        await cache.get_or_set("k", lambda: 1, self.moment, stale_while_revalidate=600)
        await self.pass_time(self.moment * 1.5)
        found: Explanation = await cache.explain("k")
        assert (found.would_hit, found.cause) == (False, "expired")
        assert found.stale_for is not None
        assert 500 < found.stale_for <= 600

    async def test_a_memo_answers_first(self, drive: Callable[..., Driver]) -> None:
        """A miss that a memo remembers, and a value that it has kept."""
        cache, other = drive(), drive()
        async with memo():
            assert await cache.get("k") is None
            await cache.set("there", 1)
            found: Explanation = await cache.explain("k")
            assert (found.would_hit, found.cause, found.tiers[0].name) == (False, "memo", "memo")
            assert (await cache.explain("there")).tiers[0].state == "live"
        await other.set("k", 1)
        assert (await cache.explain("k")).would_hit

    async def test_a_transaction_answers_first(self, cache: Driver) -> None:
        """An entry that a unit of work has removed is missed within it, and there for everybody else."""
        await cache.set("k", 1)
        with transaction():
            await cache.delete("k")
            await cache.set("new", 1)
            found: Explanation = await cache.explain("k")
            assert (found.would_hit, found.cause, found.tiers[0].name) == (False, "transaction", "transaction")
            assert [tier.state for tier in found.tiers][-1] == "live"
            assert (await cache.explain("new")).would_hit
        assert not (await cache.explain("k")).would_hit
