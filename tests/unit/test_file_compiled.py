"""The compiled forms of what a new key changes in the file of slots do as those in Python, to each byte.

Where none are built, the tests compare the methods in Python with themselves.
"""

import mmap
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.filebased import FileBasedCache, queues, ring, slotfile, slots
from storeroom.backends.filebased.records import LONGEST_FRAME
from storeroom.eviction.share import PROVEN
from storeroom.testing import FakeClock
from tests.compiled import where_built

compiled = where_built(slots.compiled is not None)

LAYOUT = (
    slotfile._COUNT, slotfile.IS_REPLACED, slotfile.ATTEMPT, slotfile.LOGGED, slotfile.NUMBERS.start,
    slotfile.BACKUP.start, slotfile._LEAVING_AT.start, slotfile.EVICTED, slotfile.ROOM, slotfile.UNUSED,
    slotfile.UNUSED_LIMIT, slotfile.LOG.start, slotfile.LOG.stop, slotfile.BLOCKS.stop, slots.ENTRIES, slots.SIZE,
    slots.IN_SMALL, slots.YOUNG, slots.TAIL, slots.SMALL_HAND, slots.HEAD, slots.END, slots.CHOSEN,
    len(slotfile.NUMBERS), slotfile.FREE, slotfile.SMALL, slotfile.MAIN, slotfile.LEAVING, slotfile.LEAVING_MAIN,
    slots._IN_LOG, PROVEN, queues._WAYS, queues._NUMBERS.bit_length() - 1, slotfile.CELL_BYTES, slots._LENGTH_AT,
    slotfile._FLAG_AT, slots._LONGEST_KEY, LONGEST_FRAME,
)  # fmt: skip
"""The constants in which both forms have to agree."""


@pytest.fixture
def in_python(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Switches the compiled forms off, or on again."""
    module = slots.compiled

    def switch(is_off: bool) -> None:
        for each in (slots, queues, ring):
            monkeypatch.setattr(each, "compiled", None if is_off else module)

    return switch


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[FileBasedCache]]:
    """Two caches that are alike."""

    def open_in(name: str) -> FileBasedCache:
        return FileBasedCache(tmp_path / name, {"OPTIONS": {"max_entries": BOUND, "max_bytes": 60_000}})

    caches = [open_in("compiled"), open_in("python")]
    yield caches
    for cache in caches:
        cache._engine.close()


BOUND = 150


def steps(seed: int) -> Iterator[Callable[[FileBasedCache], object]]:
    """Yield operations on any keys, most of them new: long and short, tagged, expiring, cut short."""
    chance = random.Random(seed)
    for number in range(1500):
        earlier = f"k{max(0, number - 30)}"
        key = f"k{number if chance.random() < 0.7 else chance.randrange(number + 1)}"
        if chance.random() < 0.05:
            key *= chance.choice([5, 10, 200])
        value, timeout = "v" * chance.choice([1, 10, 100, 3000]), chance.choice([None, 5, 300, 300])
        tags = ["t"] if chance.random() < 0.03 else []
        yield chance.choices(
            [
                lambda cache, key=key, value=value, timeout=timeout, tags=tags: cache.set(
                    key, value, timeout, tags=tags
                ),
                lambda cache, key=earlier: cache.get(key),
                lambda cache, key=key: cache.delete(key),
                lambda cache, key=key: cache.set_many({f"{key}-{each}": each for each in range(5)}),
                lambda cache, number=number: fail(cache, number),
            ],
            [20, 14, 1, 1, 1],
        )[0]


def fail(cache: FileBasedCache, number: int) -> None:
    """Put new entries in a transaction that is not committed."""

    def change(table: Any) -> None:
        for each in range(1 + number % 3):
            table.put(b"e:1:failed%d-%d" % (number, each), b"\x1a" * 60, 2e9, cache._bounds)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        cache._write(change)


def bytes_of(cache: FileBasedCache) -> bytes:
    """Return the file of slots, without the number of its tree's file."""
    file = bytes(cache._engine.queues.slots.file)
    return file[:16] + file[24:]


@pytest.mark.parametrize("seed", range(4))
def test_both_forms_change_the_same_bytes(
    pair: list[FileBasedCache], in_python: Callable[[bool], None], seed: int
) -> None:
    """After each of any operations the files of slots are alike, and so are the answers and the counts."""
    with FakeClock() as clock:
        for number, step in enumerate(steps(seed)):
            answers = []
            for cache, is_off in zip(pair, (False, True), strict=True):
                in_python(is_off)
                answers.append(step(cache))
            assert answers[0] == answers[1]
            assert bytes_of(pair[0]) == bytes_of(pair[1]), number
            clock.advance(0.05)
        stats = [cache.stats() for cache in pair]
    assert [(each.evictions, each.expirations, each.entries) for each in stats[:1]] == [
        (each.evictions, each.expirations, each.entries) for each in stats[1:]
    ]
    assert stats[0].evictions > 100
    for cache in pair:
        cache._check_invariants()


@compiled
def test_the_layout_is_the_same() -> None:
    """A constant that is changed in one form only is found."""
    assert slots.compiled.LAYOUT == LAYOUT


@compiled
def test_the_compiled_forms_do_the_ordinary_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most new keys of a full cache go to them alone."""
    done = Counter[str]()

    class Noted:
        def __getattr__(self, name: str) -> Any:
            def call(*args: Any) -> Any:
                answer = getattr(module, name)(*args)
                done[name] += answer is True if name == "begin" else answer > 0
                return answer

            return call

    module, bound = slots.compiled, 300
    cache = FileBasedCache(tmp_path, {"OPTIONS": {"max_entries": bound}})
    for number in range(8 * bound):
        if number == 3 * bound:
            for each in (slots, queues, ring):
                monkeypatch.setattr(each, "compiled", Noted())
        cache.set(f"k{number}", number)
        if number < 4 * bound:
            cache.get(f"k{number - bound // 5}")
    assert min(done["begin"], done["enter"]) > 4.5 * bound
    assert done["let_go"] > 0.8 * bound
    assert min(done["bury"], done["promote"], done["set_kind"]) > 0.05 * bound
    cache._engine.close()


@compiled
def test_what_is_no_file_of_slots_is_refused(tmp_path: Path) -> None:
    """A function that is called with anything else raises, and touches nothing."""
    module, key, wrong = slots.compiled, b"e:1:k", (TypeError, ValueError, OverflowError)
    cache = FileBasedCache(tmp_path, {})
    cache.set("k", 1)
    file = cache._engine.queues.slots.file
    short, before = bytearray(20_000), bytes(file)
    for bad in (b"", bytes(20_000), bytearray(8), short, None, memoryview(file)[:-1], mmap.mmap(-1, 4096)):
        for call in (
            lambda bad=bad: module.begin(bad, 1),
            lambda bad=bad: module.enter(bad, key, 1, 1.0, 1.0),
            lambda bad=bad: module.let_go(bad, -1, set(), len),
            lambda bad=bad: module.bury(bad, [1], set(), len),
            lambda bad=bad: module.promote(bad, [1]),
            lambda bad=bad: module.set_kind(bad, [1], 1),
        ):
            with pytest.raises((*wrong, BufferError)):
                call()
    for call in (
        lambda: module.begin(file),
        lambda: module.begin(file, "1"),
        lambda: module.begin(file, -1),
        lambda: module.enter(file, key, 1, 1.0),
        lambda: module.enter(file, "k", 1, 1.0, 1.0),
        lambda: module.enter(file, key, None, 1.0, 1.0),
        lambda: module.enter(file, key, -1, 1.0, 1.0),
        lambda: module.enter(file, key, 1, "1", 1.0),
        lambda: module.let_go(file, -1, [], len),
        lambda: module.let_go(file, None, set(), len),
        lambda: module.bury(file, (), set(), len),
        lambda: module.bury(file, [0], [], len),
        lambda: module.bury(file, [None], set(), len),
        lambda: module.bury(file, [-1], set(), len),
        lambda: module.promote(file, (1,)),
        lambda: module.promote(file, ["1"]),
        lambda: module.set_kind(file, [1], None),
        lambda: module.set_kind(file, {1}, 1),
    ):
        with pytest.raises(wrong):
            call()
    assert bytes(file) == before
    cache._engine.close()


class FailingError(Exception):
    """An error of a test's own."""


@compiled
def test_an_eviction_that_fails_changes_nothing(tmp_path: Path) -> None:
    """An error of LMDB's delete is raised as it is; a record that is not there is left to Python."""
    cache = FileBasedCache(tmp_path, {"OPTIONS": {"max_entries": BOUND}, "TIMEOUT": None})
    for number in range(3 * BOUND):
        cache.set(f"k{number}", number)
        cache.get(f"k{number - BOUND // 5}")
    used = cache._engine.queues.slots
    while not used.numbers[slots.CHOSEN] or used.hits[used.leaving[used.numbers[slots.CHOSEN] - 1]]:
        cache.set(f"more {random.random()}", 1)
    before, freed, module = bytes(used.file), set[int](), slots.compiled

    def failing(_key: bytes) -> int:
        raise FailingError

    with pytest.raises(FailingError):
        module.let_go(used.file, -1, freed, failing)
    assert module.let_go(used.file, -1, freed, lambda _key: False) == 0
    assert module.bury(used.file, [0] * 129, freed, bool) == 0  # more than go at once
    assert module.bury(used.file, [used.count], freed, bool) == 0
    assert bytes(used.file) == before
    with pytest.raises(FailingError):
        module.bury(used.file, [0], freed, failing)
    with pytest.raises(LookupError):
        module.bury(used.file, [0], freed, lambda _key: False)
    used.words[slotfile.ATTEMPT] = 0  # all is made anew
    cache._engine.close()


@compiled
def test_nothing_leaks(tmp_path: Path) -> None:
    """The references to what is handed over, and the objects there are, stay the same over hundreds of calls."""
    cache = FileBasedCache(tmp_path, {"OPTIONS": {"max_entries": BOUND}, "TIMEOUT": None})
    for number in range(2 * BOUND):
        cache.set(f"k{number}", number)
        cache.get(f"k{number - BOUND // 5}")
    file, key, freed, module = cache._engine.queues.slots.file, b"e:1:leaks or does not", set[int](), slots.compiled
    chosen, counts = [1000, 1001], list[list[int]]()
    words = cache._engine.queues.slots.words
    for _ in range(3):
        for _ in range(300):
            module.begin(file, 1)
            module.begin(file, words[slotfile.ATTEMPT] // 4 + 1)
            module.enter(file, key, 100, 2e9, 1e9)
            module.let_go(file, -1, freed, bool)
            module.bury(file, chosen, freed, bool)
            module.promote(file, chosen)
            module.set_kind(file, chosen, 0)
            freed.clear()
        counts.append([sys.getrefcount(each) for each in (file, key, freed, bool, chosen, chosen[0])])
    assert counts[0] == counts[1] == counts[2]
    words[slotfile.ATTEMPT] = 0  # all is made anew
    cache._engine.close()
