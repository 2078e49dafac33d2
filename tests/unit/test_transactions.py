"""transaction(): the writes held back, their visibility, their commit; on local memory."""

import asyncio
import contextvars
import itertools
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import storeroom
from storeroom.backends.dummy import DummyCache
from storeroom.backends.locmem import LocMemCache
from storeroom.engines import background
from storeroom.exceptions import ConfigurationError, KeyNotFoundError, ValueTooLargeError, ValueTypeError
from storeroom.testing import FakeClock
from storeroom.testing.concurrency import PATIENCE, Gate, in_background
from storeroom.testing.isolation import engines_of_its_own
from storeroom.transactions.changes import Change, Kind, Unit
from tests.faults.interrupting import cut_short

_numbers = itertools.count()


def fresh(**params: Any) -> LocMemCache:
    return LocMemCache(f"transactions {next(_numbers)}", {"TIMEOUT": None, **params})


@pytest.fixture
def cache():
    with engines_of_its_own():
        yield fresh()


def outside(read: Callable[..., Any], *args: Any) -> Any:
    """Call a function where the transaction of this test is not in progress."""
    return contextvars.Context().run(read, *args)


# Against a replay ---------------------------------------------------------------------------

KEYS = ["a", "b", "c"]


def operations(chance: random.Random) -> tuple[Any, ...]:
    key, other = chance.choice(KEYS), chance.choice(KEYS)
    return chance.choice(
        [
            ("set", key, chance.randrange(5)),
            ("set", key, [1, "text"]),
            ("set", key, 7, chance.choice([None, 100, 0])),
            ("add", key, chance.randrange(5)),
            ("get", key),
            ("delete", key),
            ("incr", key, chance.randrange(1, 5)),
            ("counted", key, chance.randrange(1, 5)),
            ("touch", key, chance.choice([None, 50, 100])),
            ("ttl", key),
            ("has_key", key),
            ("get_many", KEYS),
            ("set_many", {key: 1, other: "x"}),
            ("delete_many", [key, other]),
            ("tagged", key, chance.randrange(5), chance.choice(["s", "t"])),
            ("invalidate_tags", chance.choice(["s", "t"])),
            ("moved", key),
            ("clear",),
            ("keys_listed",),
        ]
    )


def done(cache: LocMemCache, name: str, *args: Any) -> Any:
    """Do an operation; return its result, or the type of its error."""
    special: dict[str, Callable[..., Any]] = {
        "counted": lambda key, delta: cache.incr(key, delta, default=10),
        "tagged": lambda key, value, tag: cache.set(key, value, tags=[tag]),
        "moved": cache.incr_version,
        "keys_listed": lambda: sorted(cache.keys()),
    }
    try:
        result = special.get(name, getattr(cache, name, None))(*args)
    except (KeyNotFoundError, ValueTypeError) as error:
        return type(error)
    return None if name == "invalidate_tags" else result


def replayed(log: list[tuple[Any, ...]]) -> LocMemCache:
    """Return a fresh cache on which the operations were done without any transaction."""
    cache = outside(fresh)
    for operation in log:
        outside(done, cache, *operation)
    return cache


def state(cache: LocMemCache) -> Any:
    found = {version: cache.get_many(KEYS, version) for version in (1, 2, 3)}
    return found, {key: cache.ttl(key) for key in KEYS}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(150))
def test_any_sequence_is_as_if_replayed(seed: int) -> None:
    """Operations in nested blocks have the results of a replay, and the storage those of committed blocks alone."""
    chance = random.Random(seed)
    with engines_of_its_own(), FakeClock():
        cache, committed = fresh(), []
        for _ in range(4):
            before = [operations(chance) for _ in range(chance.randrange(4))]
            for operation in before:
                done(cache, *operation)
            committed += before
            pending: list[Any] = []
            # Beside the cache, one that has done the same without transactions, made anew after a roll-back.
            beside, at_first = replayed(committed), outside(state, replayed(committed))
            block, inner = storeroom.transaction(), []
            block.__enter__()
            for _ in range(15):
                step = chance.random()
                if step < 0.1:
                    inner.append((storeroom.transaction(), list(pending)))
                    inner[-1][0].__enter__()
                elif step < 0.25 and inner:
                    savepoint, kept = inner.pop()
                    fails = chance.random() < 0.5
                    savepoint.__exit__(None, ValueError() if fails else None, None)
                    if fails:
                        pending, beside = kept, replayed(committed + kept)
                else:
                    operation = operations(chance)
                    expected = outside(done, beside, *operation)
                    assert done(cache, *operation) == expected, f"{operation} after {committed} and {pending}"
                    pending.append(operation)
                assert outside(state, cache) == at_first, f"seed {seed}"
            while inner:
                inner.pop()[0].__exit__(None, None, None)
            fails = chance.random() < 0.3
            block.__exit__(None, ValueError() if fails else None, None)
            committed += [] if fails else pending
            assert state(cache) == state(replayed(committed)), f"{committed}"


# Rules, one by one ----------------------------------------------------------------------------


def test_a_block_holds_back_all_caches_and_applies_in_order(cache) -> None:
    """A commit applies the writes of all caches in order, so that a reader of a later one sees the earlier."""
    other, log = fresh(), []
    for one in (cache, other):
        one._set_many = lambda values, expires_at, one=one: log.append((one, dict(values))) or []
    with storeroom.transaction():
        cache.set("a", 1)
        cache.set("b", 1)
        other.set("a", 1)
        cache.set("c", 1)
        cache.set("b", 2)
    assert log == [(cache, {":1:a": 1}), (other, {":1:a": 1}), (cache, {":1:c": 1, ":1:b": 2})]


def test_handles_of_one_storage_share_the_writes_held_back() -> None:
    """Two handles of one storage, such as those of Django's threads, see each other's held-back writes."""
    with engines_of_its_own():
        one, two = LocMemCache("shared", {"VERSION": 1}), LocMemCache("shared", {"VERSION": 2})
        with storeroom.transaction():
            one.set("k", "held", version=2)
            assert two.get("k") == "held"
            two.clear()
            assert one.get("k", version=2) is None


def test_a_memo_and_a_transaction_go_together(cache) -> None:
    """A transaction lies over a memo, whichever began first, and committed writes are remembered."""
    cache.set("k", "old")
    for blocks in ((storeroom.memo(), storeroom.transaction()), (storeroom.transaction(), storeroom.memo())):
        cache.set("k", "old")
        with blocks[0]:
            with blocks[1]:
                assert cache.get("k") == "old"
                cache.set("k", "new")
                assert cache.get("k") == "new"
                assert outside(cache.get, "k") == "old"
            assert cache.get("k") == "new"
        assert cache.get("k") == "new"


def test_a_task_that_goes_on_after_the_block_writes_through(cache) -> None:
    """A task that outlives its block writes to the storage, whether the block committed or failed."""

    async def late(ended: asyncio.Event, key: str) -> None:
        await cache.aset(key, "held")
        await ended.wait()
        await cache.aset(key, "late")

    async def work(key: str, *, fails: bool) -> None:
        ended = asyncio.Event()
        block = storeroom.transaction()
        await block.__aenter__()
        task = asyncio.create_task(late(ended, key))
        await asyncio.sleep(0)
        await block.__aexit__(None, ValueError() if fails else None, None)
        assert cache.get(key) == (None if fails else "held")
        ended.set()
        await task
        assert cache.get(key) == "late"

    asyncio.run(work("a", fails=False))
    asyncio.run(work("b", fails=True))


@pytest.mark.parametrize("fails", [True, False])
def test_a_computation_that_ends_after_the_block_stores_nothing_it_must_not(cache, fails: bool) -> None:
    """A value computed in a block is not stored after the block has committed or failed."""
    gate = Gate("from within")
    block = storeroom.transaction()
    block.__enter__()
    context = contextvars.copy_context()
    computing = in_background(context.run, cache.get_or_set, "k", gate)
    assert gate.begun.wait(PATIENCE)
    block.__exit__(None, ValueError() if fails else None, None)
    gate.may_end.set()
    assert computing.result(PATIENCE) == "from within"
    assert cache.get("k") is None


def test_tasks_of_a_block_are_part_of_it(cache) -> None:
    """Tasks and threads of a block write into it, and concurrent counts of tasks add up."""
    cache.set("n", 0)

    async def main() -> None:
        async with storeroom.transaction():
            await asyncio.gather(*(cache.aincr("n") for _ in range(20)))
            await asyncio.to_thread(cache.set, "k", 1)
            assert outside(cache.get_many, ["n", "k"]) == {"n": 0}
        assert cache.get_many(["n", "k"]) == {"n": 20, "k": 1}

    asyncio.run(main())


def test_an_entry_that_expires_within_the_block_is_not_stored(cache) -> None:
    """An entry that expires before the commit is not stored, and the entry it replaced is removed."""
    with FakeClock() as clock:
        cache.set("k", "old")
        with storeroom.transaction():
            cache.set("k", "new", timeout=10)
            clock.advance(11)
            assert cache.get("k") is None
        assert cache.get("k") is None


def test_an_entry_that_is_gone_is_neither_counted_nor_touched(cache) -> None:
    """A commit does not revive an entry that others deleted meanwhile by its incr() or touch()."""
    cache.set_many({"n": 1, "k": 1})
    with storeroom.transaction():
        cache.incr("n")
        cache.touch("k", 100)
        outside(cache.delete_many, ["n", "k"])
    assert cache.get_many(["n", "k"]) == {}


def test_one_failing_change_keeps_no_other_from_being_made(cache) -> None:
    """A commit makes every change that it can, then raises the first error with the number of failures."""
    broken = fresh(OPTIONS={"max_bytes": 2000})
    with pytest.raises(ValueTooLargeError) as caught, storeroom.transaction():  # noqa: PT012
        broken.set("small", 1)
        broken.set("old", "x" * 3000)
        cache.set("k", 1)
    assert caught.value.__notes__ == [
        "The database has committed; 1 of the cache's changes that were held back could not be made."
    ]
    assert cache.get("k") == 1


def test_an_entry_whose_value_cannot_be_stored_is_removed(cache) -> None:
    """If a commit cannot store a value, the old entry is removed rather than outlive it."""
    broken = fresh(OPTIONS={"max_bytes": 2000})
    broken.set("k", "old")
    with pytest.raises(ValueTooLargeError), storeroom.transaction():
        broken.set("k", "x" * 3000)
    assert broken.get("k") is None


def test_counting_a_value_that_is_no_number_is_told_at_once(cache) -> None:
    """incr() of no number, or of no entry, raises within the block rather than at its commit."""
    cache.set("k", "text")
    with storeroom.transaction():
        cache.set("own", [1])
        for key in ("k", "own"):
            with pytest.raises(ValueTypeError):
                cache.incr(key)
        with pytest.raises(KeyNotFoundError):
            cache.incr("none")


def test_stale_values_are_served_and_refreshed_within(cache) -> None:
    """In a block, a stale value is served once; its refreshed successor is seen there, by others after the commit."""
    with FakeClock() as clock:
        cache.get_or_set("k", lambda: "old", timeout=10, stale_while_revalidate=100)
        clock.advance(11)
        with storeroom.transaction():
            assert cache.get_or_set("k", lambda: "new", timeout=10, stale_while_revalidate=100) == "old"
            assert background.drain()
            assert cache.get_or_set("k", lambda: "newer", timeout=10, stale_while_revalidate=100) == "new"
            assert outside(cache.get, "k") is None
        assert cache.get("k") == "new"


def test_a_dummy_cache_forgets_the_writes_held_back() -> None:
    """A dummy cache shows held-back writes within the block and nothing after it."""
    dummy = DummyCache("", {})
    with storeroom.transaction():
        dummy.set("k", 1)
        assert dummy.get("k") == 1
    assert dummy.get("k") is None


def test_an_option_for_django_needs_django(monkeypatch) -> None:
    """OPTIONS["transactional"] and using= raise where Django is missing, or the value has no meaning."""
    monkeypatch.setattr("storeroom.transactions.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"OPTIONS\['transactional'\] is True, .* Django is not installed"):
        fresh(OPTIONS={"transactional": True})
    with pytest.raises(TypeError, match="Django is not installed"), storeroom.transaction(using="default"):
        pass
    with pytest.raises(ConfigurationError, match="expected True, False, None, or the alias"):
        fresh(OPTIONS={"transactional": 1.5})


def test_transaction_that_begins_before_any_cache_is_loaded_holds_back(tmp_path):
    """A program may enter its first transaction before it has made, or imported, a cache."""
    code = (
        "import storeroom\n"
        "storeroom.configure({'default': {'BACKEND': 'storeroom.backends.locmem.LocMemCache'}})\n"
        "transaction = storeroom.transaction()\n"
        "transaction.__enter__()\n"
        "storeroom.cache.set('k', 1)\n"
        "transaction.__exit__(ValueError, ValueError(), None)\n"
        "print(storeroom.cache.get('k'))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert run.stdout.split() == ["None"]


# Code of the values -------------------------------------------------------------------------


class Telling:
    """A value that runs a function when it is freed, or pickled."""

    def __init__(self, tell: Callable[[], object]) -> None:
        self._tell = tell

    def __reduce__(self) -> Any:
        return str, ()

    def __del__(self) -> None:
        self._tell()


@pytest.mark.parametrize("ends", ["record", "drop", "take"])
def test_a_value_is_freed_when_the_unit_of_works_lock_is_free(ends: str) -> None:
    """A change that is replaced, dropped or applied lets go of its value where other threads may go on."""
    unit, slot, found = Unit(), ("storage", "key"), []

    def tell() -> None:
        found.append(in_background(unit.lock.acquire, timeout=PATIENCE).result(PATIENCE))

    unit.begin()
    unit.record(slot, lambda _: Change(Kind.SWAP, None, None, expected=Telling(tell)))  # type: ignore[arg-type]
    if ends == "record":
        unit.record(slot, lambda _: Change(Kind.DELETE, None, None))  # type: ignore[arg-type]
    elif ends == "drop":
        unit.drop_from(0)
    else:
        unit.take()
        unit.take()
    assert found == [True]


def test_counts_of_many_threads_are_held_whole(cache: LocMemCache) -> None:
    """A count that another thread is faster with is made anew, though no lock is held while it is made."""
    with storeroom.transaction():
        cache.set("n", 0)
        jobs = [
            in_background(contextvars.copy_context().run, lambda: [cache.incr("n") for _ in range(50)])
            for _ in range(4)
        ]
        for job in jobs:
            job.result(PATIENCE)
        assert cache.get("n") == 200
    assert cache.get("n") == 200


def test_a_write_that_is_cut_short_keeps_the_one_before(cache: LocMemCache) -> None:
    """Wherever a second write of a key is cut short within a unit of work, one of the two is made at its end."""
    for at in itertools.count():
        cache.set("k", "old")
        with storeroom.transaction():
            cache.set("k", "first")
            cut, where = cut_short(lambda: cache.set("k", "second"), at)
        assert cache.get("k") in {"first", "second"}, where
        if not cut:
            break
