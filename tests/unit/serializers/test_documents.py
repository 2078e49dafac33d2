"""JSON and MessagePack: a value that would come back as something else is refused at set, with its path."""

import collections
import datetime as dt
import enum
import json

import pytest

from storeroom.exceptions import ConfigurationError, DecodeError, SerializationError
from storeroom.serializers import build_codec, documents
from tests.unit.serializers.examples import KEY, Color, Markup, Pair


class Number(enum.IntEnum):
    ONE = 1


CHANGED = [
    ({"a": (1, 2)}, "The value['a'] is of type 'tuple'"),
    ([1, [2, {"x": {3}}]], "The value[1][1]['x'] is of type 'set'"),
    ({"when": dt.datetime.combine(dt.date(2024, 1, 1), dt.time())}, "The value['when'] is of type 'datetime.datetime'"),
    ([Number.ONE], "The value[0] is of type"),
    ([Color.RED], "The value[0] is of type"),
    ({"a": [Markup("x")]}, "The value['a'][0] is of type"),
    (Markup("x"), "The value is of type"),
    ((1,), "The value is of type 'tuple'"),
    (Pair(1, 2), "The value is of type"),
    (collections.OrderedDict(a=1), "The value is of type 'collections.OrderedDict'"),
    ({"a": collections.defaultdict(int)}, "The value['a'] is of type 'collections.defaultdict'"),
    ({"a": {1.5: "x"}}, "A key of the value['a'] is of type 'float'"),
    ({None: 1}, "A key of the value is of type 'NoneType'"),
    ({True: 1}, "A key of the value is of type 'bool'"),
    ({Markup("x"): 1}, "A key of the value is of type"),
    ({(1, 2): 1}, "A key of the value is of type 'tuple'"),
    ([bytearray(b"x")], "The value[0] is of type 'bytearray'"),
    ({"x" * 90: (1,)}, "The value['" + "x" * 39 + "] is of type 'tuple'"),
]


@pytest.mark.parametrize(("value", "message"), CHANGED, ids=repr)
@pytest.mark.parametrize("name", ["json", "msgpack"])
def test_a_value_that_would_come_back_changed_is_refused_at_set(name, value, message):
    """A type that JSON or MessagePack would return as another raises SerializationError with its path."""
    if name == "msgpack":
        pytest.importorskip("msgpack")
    with pytest.raises(SerializationError) as caught:
        build_codec(name).dumps(value, KEY)
    assert str(caught.value).startswith(message)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [({1: "a"}, "A key of the value is of type 'int'"), ([b"x"], "The value[0] is of type 'bytes'")],
)
def test_json_has_neither_number_keys_nor_bytes(value, message):
    """The JSON serializer refuses integer keys and bytes with SerializationError."""
    with pytest.raises(SerializationError) as caught:
        build_codec("json").dumps(value, KEY)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("value", [[2**64], [-(2**63) - 1]])
def test_msgpack_has_no_integer_beyond_64_bits(value):
    """The MessagePack serializer refuses an integer that does not fit 64 bits."""
    pytest.importorskip("msgpack")
    with pytest.raises(SerializationError, match=r"The value\[0\] is of type 'int'"):
        build_codec("msgpack").dumps(value, KEY)


@pytest.mark.parametrize("name", ["json", "msgpack"])
def test_a_value_that_contains_itself_is_refused_at_set(name):
    """A circular list or dict raises SerializationError in both formats."""
    if name == "msgpack":
        pytest.importorskip("msgpack")
    codec = build_codec(name)
    ring, table = [1], {}
    ring.append(ring)
    table["self"] = [table]
    for value in (ring, table, [ring, {1, 2}]):
        with pytest.raises(SerializationError):
            codec.dumps(value, KEY)


def test_json_is_read_by_any_reader_of_json():
    """Behind its first byte, a JSON frame is compact UTF-8 that the standard library parses."""
    stored = build_codec("json").dumps({"name": "Grüße", "n": [1, None, True, 1.5]}, KEY)
    assert stored[:1] == b"\x11"
    assert json.loads(stored[1:]) == {"name": "Grüße", "n": [1, None, True, 1.5]}
    assert "Grüße".encode() in stored
    assert b" " not in stored


@pytest.mark.parametrize("stored", [b"\x11", b"\x11{", b"\x11\xff", b"\x11[1]x", b"\x11" + b"[" * 100_000, b"\x11nul"])
def test_damaged_json_is_a_decode_error(stored):
    """Truncated, malformed and far too deeply nested JSON raises DecodeError."""
    with pytest.raises(DecodeError):
        build_codec().loads(stored, KEY)


@pytest.mark.parametrize(
    "stored",
    [
        b"\x12",
        b"\x12\x92\x01",
        b"\x12\x01\x02",
        b"\x12\xc1",
        b"\x12\xdd\xff\xff\xff\xff",
        b"\x12\xc6\xff\xff\xff\xff",
        b"\x12" + b"\x91" * 100_000,
        b"\x12\xa1\xff",
        b"\x12\x81\x90\x01",
    ],
)
def test_damaged_msgpack_is_a_decode_error(stored):
    """Truncated, malformed and far too deeply nested MessagePack raises DecodeError."""
    pytest.importorskip("msgpack")
    with pytest.raises(DecodeError):
        build_codec().loads(stored, KEY)


def missing(monkeypatch, name):
    """Make an import fail as if nothing of that name were installed."""
    monkeypatch.setitem(__import__("sys").modules, name, None)


def test_msgpack_that_is_not_installed_names_the_extra_to_install(monkeypatch):
    """Choosing missing msgpack names the extra to install; reading its frame is a DecodeError."""
    missing(monkeypatch, "msgpack")
    with pytest.raises(ConfigurationError, match=r'python3 -m pip install "msgpack>='):
        build_codec("msgpack")
    with pytest.raises(DecodeError, match="ModuleNotFoundError"):
        build_codec().loads(b"\x12\xc0", KEY)


def test_the_walk_is_not_by_recursion():
    """The check of types passes 5,000 nested lists without RecursionError."""
    value = [1]
    for _ in range(5000):
        value = [value]
    documents.json_serializer().require_exact(value)
