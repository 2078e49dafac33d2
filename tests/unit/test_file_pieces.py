"""A file cache writes a large value in pieces, by transactions of their own, and copies it no more than it has to."""

import array
import asyncio
import pickle
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.filebased.pieces import PIECE
from storeroom.backends.filebased.table import Table
from storeroom.testing import FakeClock

MB = 1_000_000

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "signed": {"secret": "s" * 16},
    "compressed": {"compressor": "zlib"},
}


class Array:
    """Hands its bytes over to pickle as arrays of numpy do, without a copy."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, _: Any) -> Any:
        return Array, (pickle.PickleBuffer(self.data),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Array) and (type(other.data), other.data) == (type(self.data), self.data)

    def __hash__(self) -> int:
        return 0


VALUES: dict[str, Callable[[int], Any]] = {
    "bytes": bytes,
    "text": lambda size: "v" * size,
    "text beyond ASCII": lambda size: "\u00e9" * (size // 2),
    "text with a lone surrogate": lambda size: "v" * size + "\ud800",
    "bytearray": bytearray,
    "array": lambda size: array.array("d", bytes(size - size % 8)),
    "array with buffers": lambda size: [Array(bytearray(size)), Array(bytes(size)), Array(bytearray(9))],
    "objects": lambda size: [f"{number:01000}" for number in range(size // 1000)],
    "some large, some small": lambda size: {"a": [bytes(size), "v" * size], "b": (bytearray(size // 2), 1)},
}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., FileBasedCache]]:
    def make(**options: Any) -> FileBasedCache:
        return FileBasedCache(tmp_path, {"OPTIONS": {"max_entries": None} | options})

    yield make
    make()._check_invariants()
    make()._engine.close()


def pieces(cache: FileBasedCache) -> int:
    """Count all pieces, whosever they are."""
    with cache._engine.begin() as transaction:
        return sum(bytes(key).startswith(PIECE) for key, _ in transaction.cursor())


def peak_of(action: Callable[[], object]) -> int:
    """Return the bytes that Python takes for an action at most, its result included."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_large_value_comes_back_as_it_was(
    make: Callable[..., FileBasedCache], settings: dict[str, Any], value: Callable[[int], Any]
) -> None:
    """Of one piece or of several, with tags or without, under a short key or a long one, and after a touch."""
    cache = make(**settings)
    for size in (300_000, 2_500_000):
        expected = value(size)
        for key, tags in (("k", ()), ("k", ("t",)), ("k" * 600, ("t", "u"))):
            cache.set(key, expected, tags=tags)
            assert cache.touch(key, 60)
            for found in (cache.get(key), cache.get_many([key])[key]):
                assert type(found) is type(expected)
                assert found == expected
    cache._check_invariants()
    cache.delete_many(["k", "k" * 600])
    assert pieces(cache) == 0


def test_what_is_read_may_be_changed_and_is_not_what_is_stored(make: Callable[..., FileBasedCache]) -> None:
    """A bytearray, or an array, belongs to its reader."""
    cache = make()
    cache.set("k", [bytearray(300_000), bytearray(2 * MB)])
    for found in cache.get("k", []):
        found[0] = 1
        found.append(1)
    assert cache.get("k") == [bytearray(300_000), bytearray(2 * MB)]


@pytest.mark.parametrize("settings", [{}, {"secret": "s" * 16}], ids=["plain", "signed"])
@pytest.mark.parametrize(
    ("value", "writing", "reading"),
    [("bytes", 0.1, 1.1), ("text", 1.1, 2.1), ("bytearray", 1.1, 1.1), ("array", 1.1, 2.1), ("objects", 2.7, 2.3)],
)
def test_a_large_value_takes_little_more_memory_than_it_has(
    make: Callable[..., FileBasedCache], settings: dict[str, Any], value: str, writing: float, reading: float
) -> None:
    """Bytes are written from where they lie, and read into one object; other values take one copy more at most."""
    cache, expected = make(**settings), VALUES[value](8 * MB)
    cache.set("k", VALUES[value](300_000))  # imports are no memory of a value
    cache.get("k")
    assert peak_of(lambda: cache.set("k", expected)) < writing * 8 * MB
    assert peak_of(lambda: cache.get("k")) < reading * 8 * MB


def test_the_older_value_is_there_until_the_new_one_is_whole(
    make: Callable[..., FileBasedCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a reader nor a writer of another key sees anything of a value that is being written."""
    cache, other, lay, seen = make(), make(), Table.lay, list[tuple[Any, int]]()
    cache.set("k", b"old" * 100_000)

    def noted(table: Table, name: bytes, number: int, group: Any) -> bool:
        seen.append((other.get("k"), other.count()))
        return lay(table, name, number, group)

    monkeypatch.setattr(Table, "lay", noted)
    cache.set("k", b"new" * MB)
    assert seen == [(b"old" * 100_000, 1)] * 2  # and another piece, with the entry
    assert other.get("k") == b"new" * MB


class Stop(BaseException):
    """Comes of a signal's handler, say."""


@pytest.mark.parametrize("step", ["lay", "put_laid"])
def test_a_write_that_is_cut_short_leaves_no_piece(
    make: Callable[..., FileBasedCache], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The older value stays."""
    cache, method, calls = make(), getattr(Table, step), list[int]()
    cache.set("k", "old")

    def stopped(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 1 + (step == "lay"):
            raise Stop
        return method(*args)

    with monkeypatch.context() as patch:
        patch.setattr(Table, step, stopped)
        with pytest.raises(Stop):
            cache.set("k", b"v" * 3 * MB)
    assert (cache.get("k"), pieces(cache)) == ("old", 0)


def test_pieces_of_a_writer_that_was_killed_go_after_a_minute(make: Callable[..., FileBasedCache]) -> None:
    """The next large write removes them, and so does prune(); those of one that is at work stay."""
    cache = make()
    with FakeClock() as clock:
        for remove in (lambda: cache.set("k", b"v" * 3 * MB), cache.prune, cache.clear):
            assert cache._write(Table.lay, b"a killer", 0, [memoryview(b"v")])
            before = pieces(cache)
            clock.advance(50)
            cache.set("another", b"v" * 300_000)
            assert cache._write(Table.lay, b"a killer", 1, [memoryview(b"v")])
            cache.delete("another")
            assert pieces(cache) == before + 1
            clock.advance(61)
            remove()
            assert not cache._write(Table.lay, b"a killer", 2, [memoryview(b"v")])
            cache.delete("k")
            assert pieces(cache) == 0


@pytest.mark.parametrize("times", [1, 99])
def test_a_value_is_stored_though_all_is_cleared_while_it_is_written(
    make: Callable[..., FileBasedCache], monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """The write ends after the clear(), once or each time."""
    cache, other, write, cleared = make(), make(), FileBasedCache._write, list[int]()

    def cleared_between(self: FileBasedCache, change: Any, *args: Any, **how: Any) -> Any:
        if self is cache and change is Table.put_laid and len(cleared) < times:
            cleared.append(1)
            other.clear()
        return write(self, change, *args, **how)

    monkeypatch.setattr(FileBasedCache, "_write", cleared_between)
    cache.set("k", b"v" * 3 * MB)
    assert (cache.get("k"), cache.count()) == (b"v" * 3 * MB, 1)
    assert len(cleared) == min(times, 10)
    cache.delete("k")
    assert pieces(cache) == 0


def test_readers_find_one_of_the_values_that_threads_write(make: Callable[..., FileBasedCache]) -> None:
    """Never a mixture, and never none."""
    cache, values = make(), [bytes([number]) * (2 * MB + number) for number in range(3)]
    cache.set("k", values[0])

    def write(value: bytes) -> None:
        for _ in range(10):
            cache.set("k", value)

    threads = [threading.Thread(target=write, args=(value,)) for value in values]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert cache.get("k") in values
    for thread in threads:
        thread.join()
    assert cache.get("k") in values
    assert pieces(cache) == 3


def test_a_large_value_is_written_without_the_event_loop(make: Callable[..., FileBasedCache]) -> None:
    """aset() of several pieces is done in a thread, and every value is there."""
    cache = make()

    async def use() -> list[Any]:
        await asyncio.gather(*(cache.aset(f"k{number}", b"v" * number * MB) for number in range(1, 4)))
        await cache.aset("tagged", b"v" * 3 * MB, tags=["t"])
        return [await cache.aget(f"k{number}") for number in range(1, 4)] + [await cache.aget("tagged")]

    assert list(map(len, asyncio.run(use()))) == [MB, 2 * MB, 3 * MB, 3 * MB]


def test_code_of_a_program_that_a_method_runs_may_write_a_large_value(make: Callable[..., FileBasedCache]) -> None:
    """A computation, or what pickles a value, calls set() and waits for it, with an event loop around it."""
    cache = make()

    class Odd:
        def __reduce__(self) -> Any:
            cache.set("within", b"w" * 3 * MB)
            return str, ("odd",)

    def compute() -> Any:
        cache.set("beside", b"b" * 3 * MB)
        return "computed"

    assert asyncio.run(cache.aget_or_set("k", compute)) == "computed"
    asyncio.run(cache.aset("odd", Odd()))
    assert (cache.get("k"), cache.get("odd")) == ("computed", "odd")
    assert cache.get_many(["within", "beside"]) == {"within": b"w" * 3 * MB, "beside": b"b" * 3 * MB}


@pytest.mark.parametrize("options", [{}, {"stale_if_error": 60}], ids=["bare", "with conditions"])
def test_a_computed_value_is_written_in_pieces(make: Callable[..., FileBasedCache], options: dict[str, Any]) -> None:
    """It takes no memory but its own, with an event loop or without; one that comes too late leaves no piece."""
    cache, value = make(), b"v" * 3 * MB
    cache.get_or_set("first", lambda: value, **options)
    assert peak_of(lambda: cache.get_or_set("k", lambda: value, **options)) < 0.1 * len(value)
    assert asyncio.run(cache.aget_or_set("another", lambda: value, **options)) == value
    assert [cache.get(key) for key in ("first", "k", "another")] == [value] * 3
    assert pieces(cache) == 12
    assert not cache._compare_set(cache.make_key("k"), "what is not there", b"w" * 3 * MB, 2e9)
    assert cache._compare_set(cache.make_key("k"), cache._get(cache.make_key("k")), b"w" * 2 * MB, 2e9)
    assert (cache.get("k"), pieces(cache)) == (b"w" * 2 * MB, 11)
