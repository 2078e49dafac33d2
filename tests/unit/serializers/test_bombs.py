"""Bytes that anybody may have written harm no reader: each of a zoo is refused, at once and in little memory."""

import collections
import datetime as dt
import decimal
import fractions
import ipaddress
import json
import os
import pathlib
import random
import subprocess
import sys
import uuid
import zlib

import pytest

from storeroom.exceptions import DecodeError, SerializationError
from storeroom.serializers import build_codec, pickles
from storeroom.serializers.bounds import MAX_DEPTH, TooMuchError
from storeroom.serializers.slots import Slots
from tests.unit.serializers.examples import KEY
from tests.unit.serializers.zoo import BOMBS, called, led_past_others

SECONDS = 0.1
BYTES = 64 * 2**20
DAY = dt.date(2024, 1, 1)
NOON = dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)

# Each bomb in a process of its own, and up to ten times, of which the shortest counts: others use the processor, too.
# A hundred milliseconds are those of a core that does the ruler's work in four, however fast this one is at the moment.
READER = """
import ctypes, json, os, resource, sys, time
from storeroom.exceptions import DecodeError
from storeroom.serializers import build_codec
from tests.unit.serializers.zoo import BOMBS

codecs = [build_codec(compressor=name) for name in ("zlib", "lzma", "zstd", "lz4")]
for codec in codecs:  # what is loaded once is no bomb's
    for value in ({1, (2, frozenset({3}))}, ["x" * 5000], [{1: (2, 3)}] * 300, [{"a": (n, "b")} for n in range(9000)]):
        assert codec.loads(codec.dumps(value, "k"), "k") == value
for begin in (b"\\x11[1]", b"\\x12\\x91\\x01"):
    assert codec.loads(begin, "k") == [1]

def read(bomb):
    codec = codecs[max(0, bomb[0] - 0x14)]
    try:
        return f"a value of type {type(codec.loads(bomb, 'k')).__name__}"
    except DecodeError:
        return "refused"

def peak():
    return int([line for line in open("/proc/self/status") if line.startswith("VmHWM")][0].split()[1]) * 1024

def ruler():
    begun = time.process_time()
    {(number, "x"): [number] for number in range(20_000)}
    return time.process_time() - begun

def timed(bomb):
    begun = time.process_time()
    return read(bomb), time.process_time() - begun

limit = float(sys.argv[1])
for name, make in BOMBS.items():
    back, forth = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30,) * 2)
        bomb = make()
        open("/proc/self/clear_refs", "w").write("5")  # the peak of memory begins here
        before = peak()
        outcome, seconds = timed(bomb)
        grown = peak() - before
        slow = max(1, min(ruler() for _ in range(3)) / 0.004)
        for _ in range(9 if outcome == "refused" else 0):
            seconds = min(seconds, timed(bomb)[1]) if seconds > limit * slow else seconds
        os.write(forth, json.dumps([outcome, seconds / slow, grown, len(bomb)]).encode())
        os._exit(0)
    os.close(forth)
    said = os.read(back, 1000).decode()
    status = os.waitpid(child, 0)[1]
    print(json.dumps([name, *(json.loads(said) if said else (f"ended by {status}", 0, 0, 0))]), flush=True)
"""


def outcomes():
    found = subprocess.run(
        [sys.executable, "-c", READER, str(SECONDS)], capture_output=True, text=True, timeout=300, check=False
    )
    assert found.returncode == 0, found.stderr
    return {name: told for name, *told in map(json.loads, found.stdout.splitlines())}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or not os.access("/proc/self/clear_refs", os.W_OK), reason="needs /proc")
def test_each_bomb_is_refused_at_once_and_in_little_memory():
    """Of a store that others can write to, each bomb is a DecodeError, within 100 ms and 64 MiB; no reader crashes."""
    found = outcomes()
    assert found.keys() == BOMBS.keys()
    wrong = {name: told for name, told in found.items() if told[0] != "refused" or told[1] > SECONDS or told[2] > BYTES}
    assert not wrong


def within(depth, make):
    value = make(0)
    for _ in range(depth - 1):
        value = make(value)
    return value


@pytest.mark.parametrize("make", [lambda v: [v], lambda v: (v,), lambda v: {"k": v}, lambda v: frozenset([v])])
def test_depth_that_is_written_is_read(make):
    """Containers within each other are stored and read up to the greatest depth, and refused beyond, by name."""
    codec = build_codec()
    # Python's own limit for recursion allows no more than so many to be pickled or compared in the tests' frames.
    value = within(150, make)
    assert codec.loads(codec.dumps(value, KEY), KEY) == value
    deep = build_codec(trusted=True).dumps(within(50, make), KEY)
    assert codec.loads(b"\x10" + deep[1:], KEY) == within(50, make)


@pytest.mark.parametrize(("name", "begin", "end"), [("json", b"[", b"]"), ("msgpack", b"\x91", b"")])
def test_depth_of_a_document_is_bounded(name, begin, end):
    """Lists within each other are read up to 500 of them; one more is a DecodeError."""
    codec, prefix, within = build_codec(name), b"\x11" if end else b"\x12", b"" if end else b"\x90"

    def nested(levels):
        return prefix + begin * (levels - len(within)) + within + end * levels

    assert codec.loads(nested(MAX_DEPTH), KEY)
    with pytest.raises(DecodeError):
        codec.loads(nested(MAX_DEPTH + 1), KEY)
    assert build_codec(name, trusted=True).loads(nested(MAX_DEPTH + 1), KEY)


@pytest.mark.parametrize("name", ["json", "msgpack"])
def test_large_document_of_next_to_nothing_but_lists_is_refused(name):
    """200,000 pairs are stored and read; as many empty lists are refused at set, and in bytes of somebody else."""
    codec, trusted = build_codec(name), build_codec(name, trusted=True)
    pairs = [[1, 2]] * 200_000
    assert codec.loads(codec.dumps(pairs, KEY), KEY) == pairs
    empty = [[[]]] * 100_000
    with pytest.raises(SerializationError, match=r"has 200001 containers, of less than 2.5 bytes each"):
        codec.dumps(empty, KEY)
    assert trusted.loads(trusted.dumps(empty, KEY), KEY) == empty
    with pytest.raises(DecodeError):
        codec.loads(trusted.dumps(empty, KEY), KEY)


@pytest.mark.parametrize(
    ("name", "texts", "value"),
    [
        ("new_path", (b"PurePosixPath", b"a/b"), pathlib.PurePosixPath("a/b")),
        ("new_address", (b"IPv6Network", b"2001:db8::/64"), ipaddress.ip_network("2001:db8::/64")),
    ],
)
def test_text_of_a_path_or_an_address_is_read_once(name, texts, value):
    """However often a stream calls for the same, it makes one object in a value, and another in the next."""
    codec = build_codec()
    data = called(name, *texts, times=100, end=b"e")
    read = codec.loads(data, KEY)[2:]
    assert read == [value] * 100
    assert len({id(each) for each in read}) == 1
    assert codec.loads(data, KEY)[2] is not read[0]


@pytest.mark.parametrize("make", [lambda n: b")" + b"\x85" * (n - 1), lambda n: b"]" * n + b"a" * (n - 1)])
def test_depth_of_a_pickle_is_bounded(make):
    """Tuples and lists within each other are read up to some 500 of them; a few more are a DecodeError."""
    codec = build_codec()
    assert codec.loads(b"\x10\x80\x05" + make(MAX_DEPTH) + b".", KEY)
    with pytest.raises(DecodeError):
        codec.loads(b"\x10\x80\x05" + make(MAX_DEPTH + 2) + b".", KEY)


def test_value_that_its_readers_would_refuse_is_refused_at_set():
    """A value that nests too deep is a SerializationError at set, which names the remedy; a secret stores it."""
    value = []
    for _ in range(MAX_DEPTH + 20):
        value = [value]
    previous = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        for name in ("pickle", "json"):
            with pytest.raises(SerializationError, match=r"nests more than 500 .*OPTIONS\['secret'\]"):
                build_codec(name).dumps(value, KEY)
            assert build_codec(name, secret="a secret of 16 bytes").dumps(value, KEY)
    finally:
        sys.setrecursionlimit(previous)


def test_value_whose_compressed_form_would_be_refused_is_stored_as_it_is():
    """A value that would expand too far from its compressed bytes is stored uncompressed, and read."""
    codec = build_codec(compressor="zlib")
    text = "0" * 2**22
    assert codec.dumps(text, KEY)[0] == 0x02
    assert codec.loads(codec.dumps(text, KEY), KEY) == text
    rows = [[] for _ in range(100_000)]
    assert codec.dumps(rows, KEY)[0] == 0x10
    assert codec.loads(codec.dumps(rows, KEY), KEY) == rows
    generous = build_codec(compressor="zlib", max_expansion=2000)
    assert generous.dumps(text, KEY)[0] == 0x14
    assert generous.loads(generous.dumps(text, KEY), KEY) == text


ROWS = [(n, f"name {n}", "active", DAY + dt.timedelta(n % 900), decimal.Decimal(n)) for n in range(700)]
COMMON = {
    "tuples": ROWS,
    "dicts": [dict(zip("abcde", row, strict=True)) for row in ROWS],
    "long texts": [{"text": f"{n} a text of more than a few words" * 20, "day": DAY} for n in range(700)],
    "UUIDs": [{"id": uuid.UUID(int=n * 3**75 % 2**128), "at": NOON + dt.timedelta(n)} for n in range(700)],
}
OTHERS = {
    "tuples in a dict": {"rows": ROWS, "total": 700},
    "tuples in dicts": [
        {"at": (n, n + 1), "day": DAY, "text": f"the {n}th one here, she said, high" * 5} for n in range(700)
    ],
    "tuples as keys": {(n, f"name {n}"): DAY + dt.timedelta(n) for n in range(2500)},
    "many frames": {"rows": [(n, "x" * (n % 60), [n], DAY + dt.timedelta(n % 900)) for n in range(5000)]},
    "a set of dates": {DAY + dt.timedelta(n) for n in range(3000)},
    "integers": dict.fromkeys(range(100_000)),
    "integers with gaps": {n * 7919 % 2**31: n for n in range(5000)},
    "multiples of a power of two": {n << 32: n for n in range(5000)} | {float(n << 40): n for n in range(1, 900)},
    "a set of multiples": {n << 20 for n in range(9000)},
    "numbers below zero": {-n for n in range(5000)},
    "pairs around zero": {(x, y) for x in range(-40, 40) for y in range(-40, 40)},
    "by the hundred": [{n: {n + m: [m] for m in range(100)}} for n in range(50)],
    "a counter": collections.Counter(n % 3000 for n in range(9000)),
    "in order": collections.OrderedDict(((n, str(n)), n) for n in range(2000)),
    "by default": collections.defaultdict(list, {n / 7: [n] for n in range(2000)}),
    "networks": {ipaddress.ip_network((n << 8, 24)): n for n in range(2000)},
    "interfaces": [ipaddress.ip_interface(f"2001:db8::{n:x}/64") for n in range(300)],
    "scoped": [ipaddress.ip_address("fe80::1%eth0"), ipaddress.ip_address("10.0.0.1")] * 300,
    "fractions": {fractions.Fraction(n, 7) for n in range(2000)},
    "paths": {pathlib.PurePosixPath(f"a/{n}"): n for n in range(2000)},
    "frozensets": {frozenset({n, n + 1}) for n in range(2000)},
    "texts and numbers": {n if n % 2 else str(n): n for n in range(5000)},
    "sets within sets": {frozenset({frozenset({n}), (n, (n,))}) for n in range(500)},
}


@pytest.mark.parametrize("name", COMMON)
def test_common_table_is_made_without_a_watch(name, monkeypatch):
    """Tables of rows with dates are seen to be harmless by their bytes."""
    codec = build_codec()

    def watch(*_):
        raise AssertionError

    monkeypatch.setattr(pickles, "Watch", watch)
    assert codec.loads(codec.dumps(COMMON[name], KEY), KEY) == COMMON[name]


@pytest.mark.parametrize("name", OTHERS)
def test_value_that_is_made_under_watch_is_the_same(name):
    """Keys of every kind are stored and read, in the order that they have."""
    codec = build_codec()
    read = codec.loads(codec.dumps(OTHERS[name], KEY), KEY)
    assert read == OTHERS[name]
    assert type(read) is type(OTHERS[name])
    if isinstance(read, dict):
        assert list(read) == list(OTHERS[name])


@pytest.mark.parametrize("is_set", [False, True])
def test_keys_that_were_chosen_are_told_from_others(is_set):
    """Integers that a dict leads past each other are refused; squares, multiples and random numbers are not."""
    chance = random.Random(5)
    for numbers in (
        [n * n for n in range(20_000)],
        [n << 44 for n in range(20_000)],
        [chance.getrandbits(60) for _ in range(60_000)],
        list(range(0, 10**7, 1000)),
    ):
        Slots(is_set=is_set).add(numbers)
    if not is_set:
        with pytest.raises(TooMuchError, match="chosen"):
            Slots(is_set=False).add(led_past_others(20_000))


def test_msgpack_that_is_no_plain_data_or_too_large_is_refused():
    """Extensions are refused, and dicts of a pair are weighed as dicts; a large dict of integers is read."""
    codec = build_codec("msgpack", compressor="zlib")
    with pytest.raises(DecodeError):
        codec.loads(b"\x12" + b"\xdc\x02\x00" + b"\xd4\x05\x00" * 512, KEY)
    pairs = [{1: 2}] * 30_000
    assert codec.loads(codec.dumps(pairs, KEY), KEY) == pairs
    with pytest.raises(DecodeError):
        codec.loads(b"\x14" + zlib.compress(b"\x12\xdd\x00\x01\x86\xa0" + b"\x81\x01\x02" * 100_000), KEY)
    integers = {n * 7919: "x" for n in range(100_000)}
    assert codec.loads(codec.dumps(integers, KEY), KEY) == integers
    with pytest.raises(SerializationError, match=r"were chosen to be in each other's way.*OPTIONS\['secret'\]"):
        codec.dumps(dict.fromkeys(led_past_others(20_000)), KEY)


def test_objects_of_hardly_any_bytes_are_counted():
    """40,000 dates, or a text of as many letters that are opcodes, are stored; as many empty OrderedDicts are not."""
    codec = build_codec()
    for value in ([DAY + dt.timedelta(n % 900) for n in range(40_000)], [DAY, "R" * 300_000]):
        assert codec.loads(codec.dumps(value, KEY), KEY) == value
    with pytest.raises(SerializationError, match=r"more than 32768 objects, of less than 8 bytes each"):
        codec.dumps([collections.OrderedDict() for _ in range(40_000)], KEY)


def test_bytearray_among_references_is_stored():
    """The first objects of a large table may be of a kind that has no hash."""
    codec = build_codec()
    value = {"bytes": bytearray(b"abc"), "rows": [{"price": decimal.Decimal(n)} for n in range(1000)]}
    assert codec.loads(codec.dumps(value, KEY), KEY) == value


def test_large_value_that_shares_frozensets_is_read():
    """A frozenset keeps its hash, so that one in two, sixty times, is made as fast as any other."""
    value = frozenset({1})
    for _ in range(60):
        value = frozenset({value, (value,)})
    assert hash(build_codec().loads(build_codec().dumps(value, KEY), KEY)) == hash(value)


@pytest.mark.parametrize(
    "value",
    [
        [{"id": n, "name": f"name {n}", "tags": ["x", "y"]} for n in range(3000)],
        [(n, f"name {n}", DAY + dt.timedelta(n % 900), decimal.Decimal(n)) for n in range(2000)],
        {(n, n + 1): {"set": {n, n + 1}} for n in range(2000)},
        {uuid.UUID(int=n * 3**75 % 2**128) for n in range(3000)},
        [{"columns": ["a", "b"]}] * 20_000,
        {2**k for k in range(4000)},
        "x" * 500_000,
    ],
    ids=["dicts", "tuples", "tuples as keys", "UUIDs", "shared", "powers of two", "text"],
)
@pytest.mark.parametrize("options", [{}, {"compressor": "zlib"}], ids=["plain", "compressed"])
def test_large_value_of_any_shape_is_stored_and_read(value, options):
    """Tables of rows, large sets, and containers that share their parts, stay within the bounds."""
    codec = build_codec(**options)
    assert codec.loads(codec.dumps(value, KEY), KEY) == value
