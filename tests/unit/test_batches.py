"""The functions in C for operations on many entries do as those in Python, which take over where something is odd.

Where none are built, the tests compare the functions in Python with themselves.
"""

import gc
import itertools
import math
import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.filebased.records import HAS_TO_BE_SEEN, entry_key_of
from storeroom.exceptions import StoreroomError
from storeroom.serializers import build_codec
from storeroom.storage import batches
from storeroom.storage.envelope import Envelope, pack
from storeroom.testing import FakeClock
from tests.compiled import ENOUGH, left_behind, where_built

compiled = where_built(batches.IS_COMPILED)

NAMES = ("encoded", "extent", "frames_of", "has_kind", "named", "picked", "renamed", "renewals", "values_of")


class Text(str):
    """A text that is written in another way."""

    __slots__ = ()

    def __format__(self, _: str) -> str:
        return "other"


class Meta(type):
    """A class of classes that compare in any way."""

    def __eq__(cls, other: object) -> bool:
        raise AssertionError("compared")

    __hash__ = type.__hash__


class Odd(metaclass=Meta):
    """One of them."""


KEYS: list[Any] = [
    *(
        "a",
        "b",
        "user:7:profile",
        "",
        "é",
        "鍵",
        "😀",
        "\ud800",
        "nul\x00",
        "\x00lock\x00k",
        "line\nend",
        "a b",
        "#",
        "\x7f",
    ),
    *("k" * 199, "k" * 200, "k" * 201, "k" * 499, "k" * 500, "k" * 501, "é" * 125, "é" * 126, "é" * 250, "é" * 251),
    *("{", "~", "!", "\x1f", "\x80", "ÿ"),
]
ODD_KEYS: list[Any] = [7, 7.0, True, None, ("a", 1), Text("a"), b"a", 2**80]
VALUES: list[Any] = [
    *("text", "", "é", "\ud800", "x" * 300, b"", b"bytes", b"\x1a", b"x" * 300, 0, -1, 7, 2**63 - 1, -(2**63), 2**63),
    *(2**200, -(2**200), True, False, None, 0.0, -0.0, 1.5, float("inf"), float("nan"), Text("t"), [1], {"k": (1, 2)}),
]


def shown(value: Any) -> Any:
    """Return what tells a value, its type and its turn from all others; of an error, its kind."""
    if isinstance(value, dict):
        return [(shown(key), shown(each)) for key, each in value.items()]
    if isinstance(value, list | tuple | range):
        return [shown(each) for each in value]
    if type(value) is float:
        return "float", struct.pack(">d", value)
    if type(value) is Envelope:
        return shown([value.value, value.fresh_until, value.stamp])
    return type(value).__name__, value


def told(function: Callable[..., Any], *args: Any) -> Any:
    """Return what a call returns, or the error that it raises."""
    try:
        return shown(function(*args))
    except (BufferError, TypeError, ValueError, LookupError, StoreroomError) as error:
        return type(error), str(error)


@pytest.fixture
def in_python(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A way to call something that finds no function in C."""

    def call(function: Callable[..., Any], *args: Any) -> Any:
        with monkeypatch.context() as patch:
            for name in NAMES:
                function_of_name = getattr(batches, name)
                patch.setattr(batches, name, getattr(function_of_name, "__wrapped__", function_of_name))
            return told(function, *args)

    return call


def same(name: str, *args: Any) -> None:
    """See that both functions of a name do the same."""
    function = getattr(batches, name)
    assert told(function, *args) == told(getattr(function, "__wrapped__", function), *args), (name, args)


def some(chance: random.Random, *pools: list[Any]) -> list[Any]:
    """Return some of the first pool; now and then, of the others, too."""
    pool = list(itertools.chain(*pools)) if chance.random() < 0.3 else pools[0]
    return chance.sample(pool, chance.randrange(min(len(pool), 12)))


@pytest.mark.slow
def test_keys_and_values_are_put_together_as_in_python():
    """Whatever the keys are, and in whatever they come: each function does as its equal."""
    chance = random.Random(1)
    for _ in range(1000):
        keys = some(chance, KEYS, ODD_KEYS)
        for row in (keys, tuple(keys), dict.fromkeys(keys), dict.fromkeys(keys).keys(), set(keys)):
            same("named", chance.choice([":1:", "", "é:", Text("p")]), row)
            same("extent", row)
        typed = {f":1:{key}": key for key in keys}
        data = {key: chance.choice(VALUES) for key in keys if chance.random() < 0.98}
        values = {key: chance.choice(VALUES) for key in typed if chance.random() < 0.9}
        same("picked", typed, data)
        same("renamed", typed, values)
        same("renamed", {key: typed[key] for key in list(typed)[1:]}, values)
        same("has_kind", values | {"odd": Odd()}, chance.choice([Envelope, str, Odd, bool]))


@pytest.mark.parametrize("has_words", [True, False])
@pytest.mark.parametrize("head", ["", "e", "abcdefghijkl", "é"])
def test_names_are_encoded_as_in_python(head: str, has_words: bool):
    """Each by itself, and together, for every bound."""
    chance = random.Random(2)
    for longest in (0, 1, 199, 200, 239, 500, sys.maxsize):
        for key in KEYS:
            same("encoded", head, [key], longest, has_words)
        for _ in range(100):
            same("encoded", head, some(chance, KEYS), longest, has_words)
            same("encoded", head, dict.fromkeys(some(chance, KEYS[:3])), longest, has_words)


# Frames -------------------------------------------------------------------------------------------------------------

CODECS = {
    "trusted": build_codec(trusted=True),
    "safe": build_codec(),
    "signed": build_codec(secret="s" * 16),
    "compressing": build_codec(trusted=True, compressor="zlib", compress_min_bytes=8),
    "compressing all": build_codec(compressor="zlib", compress_min_bytes=1),
}
PLAIN = CODECS["trusted"]

ODD_FRAMES: list[Any] = [
    *(b"", b"\x02", b"\x02\xff", b"\x02\xed\xa0\x80", b"\x02\xc3", b"\x03", b"\x05x", b"\x06\x06", b"\x07\x00"),
    *(b"\x0b", b"\x0b1234567", b"\x0b123456789", b"\x0c\x01", b"\x0e\xed\xa0\x80", b"\x0e\xff"),
    *(b"-", b"--1", b"-0", b"007", b"1_000", b"12 ", b" 12", b"+1", b"1.5", b"9" * 18, b"9" * 19, b"-" + b"9" * 19),
    *(b"9223372036854775808", b"1" * 5000, b"\x00", b"\x01", b"\x01" + b"s" * 16, b"\x09", b"\x10", b"\x1a", b"\x1b"),
    *(b"\x80\x05.", b"\xff", b"x\x9c", b"h", b"e", b"\x14x", b"\x0f\x80\x05N.", b"\x13abcd", b"{}", b"\x11{}"),
]


def frames(chance: random.Random, codec: Any) -> Iterator[bytes | None]:
    """Yield frames of values, of envelopes, odd ones, and some that were cut or altered."""
    while True:
        value = chance.choice(VALUES[:-3] if chance.random() < 0.9 else VALUES)
        try:
            frame = codec.dumps(value, "key")
        except Exception:  # noqa: BLE001 -- a text of another class is refused by some codecs
            continue
        if chance.random() < 0.05:
            frame = pack(Envelope(value, 1e10), frame)
        if chance.random() < 0.2:
            frame = chance.choice(ODD_FRAMES)
        if frame and chance.random() < 0.1:
            frame = frame[: chance.randrange(len(frame) + 1)]
        if frame and chance.random() < 0.1:
            number = chance.randrange(len(frame))
            frame = frame[:number] + bytes([chance.randrange(256)]) + frame[number + 1 :]
        yield None if chance.random() < 0.1 else frame


#: How records begin that are live at 5.0, over, or damaged.
TIMES = [
    struct.pack(">d", time)
    for time in (0.0, 4.0, 5.0, math.nextafter(5, 6), 6.0, 1e300, math.inf, -1.0, -math.inf, math.nan, -0.0)
] + [b"\x7f\xf0\x00\x00\x00\x00\x00\x01", b"\xff" * 8]


@pytest.mark.slow
@pytest.mark.parametrize("name", CODECS)
def test_hostile_frames_are_read_as_in_python(name: str, in_python: Callable[..., Any]):
    """Values, their turn, and the number of those unread: of thousands of frames, with a time or without."""
    chance, codec = random.Random(3), CODECS[name]
    source = frames(chance, codec)
    for _ in range(100):
        keys = [f"key {number}" for number in range(chance.randrange(12))]
        for start in (0, 3, 8, 20):
            records = [frame and bytes(start) + frame for frame in itertools.islice(source, len(keys))]
            assert told(codec.loads_many, keys, records, start) == in_python(codec.loads_many, keys, records, start)
        timed = [
            None if frame is None else (chance.choice(TIMES) + frame)[: chance.choice([99, 99, 99, 8, 7, 0])]
            for frame in itertools.islice(source, len(keys))
        ]
        live = batches.live_headers(5.0)
        assert told(codec.loads_many, keys, timed, 8, live) == in_python(codec.loads_many, keys, timed, 8, live)


@pytest.mark.parametrize("name", CODECS)
def test_values_are_written_as_in_python(name: str, in_python: Callable[..., Any]):
    """The same bytes, whatever the values are, and whatever is compressed; the same error names the first refused."""
    chance, codec = random.Random(4), CODECS[name]
    for _ in range(400):
        values = {f"key {number}": value for number, value in enumerate(some(chance, VALUES, [len]))}
        expected = in_python(codec.dumps_many, values)
        assert told(codec.dumps_many, values) == expected or (name == "signed" and len(expected) == len(values))
    for shortest in (0, 1, 2, 5, 9, 10, 301, 302, sys.maxsize):
        frames_in_c = batches.frames_of(dict(enumerate(VALUES)), shortest)
        for frame, value in zip(frames_in_c, VALUES, strict=True):
            assert frame is None or (
                frame == PLAIN.dumps(value, "key") and (type(value) is int or len(frame) < shortest)
            )


def test_records_are_renewed_as_in_python():
    """Entries are sorted alike, and their records are the same."""
    chance = random.Random(5)
    source = frames(chance, PLAIN)
    for _ in range(3000):
        all_of = [(entry_key_of(key), frame or b"7") for key, frame in zip(some(chance, KEYS), source, strict=False)]
        olds = [
            chance.choice(
                [None, chance.choice(TIMES) + struct.pack(">QI", 0, 7) + chance.choice([frame, frame, b"\x02longer"])]
            )
            for _, frame in all_of
        ]
        head = chance.choice(TIMES) + bytes(8)
        entry_keys, entry_frames = ([each[part] for each in all_of] for part in (0, 1))
        same("renewals", entry_keys, entry_frames, olds, head, HAS_TO_BE_SEEN)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[FileBasedCache]:
    cache = FileBasedCache(tmp_path, {"OPTIONS": {"max_entries": None}})
    yield cache
    cache._engine.close()


@pytest.mark.slow
def test_hostile_records_of_files_are_read_as_in_python(files: FileBasedCache, in_python: Callable[..., Any]):
    """Values, their turn, counts of errors, and of reads in each slot: damaged headers, hashed keys, large frames."""
    chance, keys = random.Random(6), [key for key in KEYS if key != "\ud800"]
    files.set_many({key: "x" * 300_000 if number % 9 == 0 else number for number, key in enumerate(keys)})
    source = frames(chance, PLAIN)

    def spoil(table: Any) -> None:
        for key in chance.sample(keys, 8):
            entry_key = entry_key_of(files.make_key(key))
            record, frame = table._transaction.get(entry_key), next(source)
            rest = struct.pack(">QI", chance.choice([0, 0, 0, 7]), chance.choice([0, 1, 5, 2**32 - 1]))
            header = chance.choice(times) + rest
            spoilt = chance.choice([record, record[: chance.randrange(30)], header + (frame or b""), header])
            table._transaction.put(entry_key, spoilt)

    def read(hits: bytes) -> Any:
        before = files._engine.queues.slots.hits
        before[: len(hits)] = hits
        errors = files._counters.errors
        found = files.get_many(keys)
        return found, files._counters.errors - errors, bytes(before)

    with FakeClock() as clock:
        moments = clock.now() - 1, clock.now(), math.nextafter(clock.now(), math.inf), clock.now() + 60
        times = [*TIMES, *[struct.pack(">d", moment) for moment in moments] * 3]
        for _ in range(150):
            files._write(spoil)
            hits = bytes(chance.choice([0, 1, 2, 3]) for _ in range(len(files._engine.queues.slots.hits)))
            assert told(read, hits) == in_python(read, hits)


# Memory -------------------------------------------------------------------------------------------------------------

TEXTS = [f"key{number}" for number in range(9)]
TYPED = {f":1:{key}": key for key in TEXTS}
FRAMES = [*map(partial(PLAIN.dumps, storage_key=""), VALUES[:20])]
RECORDS = [struct.pack(">dQI", 6.0, 0, number) + frame for number, frame in enumerate(FRAMES)]
NUMBERED = [f"key {number}" for number in range(len(RECORDS))]
HITS = memoryview(bytearray(5))

#: A way through the file -> a call that takes it.
WAYS: dict[str, Callable[[], Any]] = {
    "named": lambda: batches.named(":1:", TEXTS),
    "named by Python": lambda: batches.named(":1:", [*TEXTS, 7]),
    "renamed": lambda: batches.renamed(TYPED, dict.fromkeys(TYPED, "value")),
    "renamed of others": lambda: told(batches.renamed, TYPED, {":1:other": 1}),
    "picked": lambda: batches.picked(TYPED, dict.fromkeys(TEXTS, "value")),
    "picked by Python": lambda: told(batches.picked, TYPED, {"key1": 1}),
    "extent": lambda: batches.extent(TEXTS),
    "extent by Python": lambda: batches.extent([*TEXTS, 7]),
    "has_kind": lambda: (batches.has_kind({"a": 1}, int), batches.has_kind({"a": 1}, str), batches.has_kind({}, str)),
    "encoded": lambda: batches.encoded("e", [*TEXTS, "é"], 99, True),
    "encoded by Python": lambda: [
        batches.encoded("e", [*TEXTS, odd], 99, True) for odd in ("\ud800", "\x00", "x" * 100)
    ],
    "values_of": lambda: batches.values_of(NUMBERED[:20], FRAMES, 0, None, None),
    "values_of odd ones": lambda: batches.values_of(NUMBERED[:9], [*ODD_FRAMES[:7], None, 7], 0, None, None),
    "values_of live ones": lambda: batches.values_of(NUMBERED, RECORDS, 20, batches.live_headers(5.0), None),
    "values_of files": lambda: batches.values_of(
        [*NUMBERED, "x"], [*RECORDS, None], 20, batches.live_headers(5.0), HITS
    ),
    "values_of read-only files": lambda: told(batches.values_of, NUMBERED, RECORDS, 20, None, memoryview(b"")),
    "values_of wrong terms": lambda: told(batches.values_of, NUMBERED, RECORDS, 3, batches.live_headers(5.0), None),
    "values_of wrong keys": lambda: told(batches.values_of, [7], [b"7"], 0, None, None),
    "frames_of": lambda: batches.frames_of(dict(enumerate(VALUES)), 99),
    "renewals": lambda: batches.renewals(
        [b"ekey"] * len(RECORDS), FRAMES, [*RECORDS[:-1], None], struct.pack(">dQ", 6.0, 0), HAS_TO_BE_SEEN
    ),
    "raw": lambda: batches.raw(b"bytes", 7),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_loses_an_object_or_a_reference(way: str):
    """After hundreds of calls there are as many objects, and as many references to those passed, as before."""
    held = [*TEXTS, *TYPED, *FRAMES, *RECORDS, *NUMBERED, TEXTS, FRAMES, RECORDS, HITS, None, True, HAS_TO_BE_SEEN]
    assert left_behind(WAYS[way], held) < ENOUGH


@compiled
def test_a_collection_in_the_midst_changes_nothing():
    """A finalizer that empties the very lists is met by an error, or by the result of before, and never by a crash."""
    codec = PLAIN

    class Emptied:
        def __init__(self, *rows: Any) -> None:
            self.rows, self.circle = rows, self

        def __del__(self) -> None:
            for row in self.rows:
                row.clear()

    for threshold in range(1, 60):
        keys, records = [f"key {number}" for number in range(50)], [b"\x02text"] * 50
        entry_keys = [b"ekey"] * 50
        olds = [struct.pack(">dQI", 4.0, 0, 7) + b"\x02text"] * 50
        Emptied(keys, records, entry_keys, olds)
        before = gc.get_threshold()
        gc.set_threshold(threshold)
        try:
            told(batches.values_of, keys, records, 0, None, None)
            told(batches.renewals, entry_keys, list(records), olds, struct.pack(">dQ", 6.0, 0), HAS_TO_BE_SEEN)
            told(batches.named, ":1:", keys)
            told(codec.loads_many, keys, records)
        except RuntimeError as error:
            assert "changed meanwhile" in str(error)  # noqa: PT017 -- either is right
        finally:
            gc.set_threshold(*before)


# Whether they are used ----------------------------------------------------------------------------------------------

TELL = "from storeroom.storage import batches; print(batches.IS_COMPILED, hasattr(batches.named, '__wrapped__'))"


@compiled
@pytest.mark.parametrize(("pure", "expected"), [("1", "False False"), ("0", "True True")])
def test_an_environment_variable_switches_them_off(pure: str, expected: str):
    """STOREROOM_PURE=1 leaves the functions in Python; 0 is as none."""
    environment = os.environ | {"STOREROOM_PURE": pure}
    run = subprocess.run([sys.executable, "-c", TELL], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == expected


@compiled
def test_wrong_arguments_are_left_to_python():
    """A function in C that is given anything else answers None, and its equal raises."""
    module: Any = import_module("storeroom.storage._compiled")
    for name in NAMES:
        for args in ((), (None,), (None, None), (7, 7, 7, 7, 7), ([], [], [], [], []), (None,) * 9):
            if name == "extent" and len(args) != 1:
                continue
            assert (
                told(getattr(module, name), *args) in (("NoneType", None), (TypeError, "an integer is required"))
                or args
            )
