"""The OPTIONS of serialization: the forms accepted, and the errors for all others."""

import json
import marshal
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from storeroom.exceptions import ConfigurationError, DecodeError, SerializationError
from storeroom.serializers import build_codec
from storeroom.serializers.options import DEFAULT_COMPRESS_MIN_BYTES, DEFAULT_MAX_VALUE_BYTES
from tests.unit.serializers.examples import KEY, SECRET, Basket


class Reversed:
    """A program's own serializer."""

    def dumps(self, value):
        return json.dumps(value).encode()[::-1]

    def loads(self, data):
        return json.loads(data[::-1])


class DjangoStyle:
    """As Django's RedisSerializer: one optional argument, and integers passed through."""

    def __init__(self, protocol=None):
        self.protocol = pickle.HIGHEST_PROTOCOL if protocol is None else protocol

    def dumps(self, obj):
        return obj if type(obj) is int else pickle.dumps(obj, self.protocol)

    def loads(self, data):
        return pickle.loads(data)


class NeedsArguments:
    def __init__(self, options):
        self.options = options


class Text(Reversed):
    def dumps(self, value):
        return json.dumps(value)


class Accepting:
    """Reads anything."""

    def dumps(self, value):
        return repr(value).encode()

    def loads(self, data):
        return data.decode()


THIS = f"{__name__}."


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Let a dotted path lead to this module, which pytest imports by a name of its own."""
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Reversed.__module__])


@pytest.mark.parametrize("given", [Reversed, Reversed(), THIS + "Reversed"], ids=["class", "object", "path"])
def test_a_serializer_of_the_programs_own(given):
    """A program's own serializer, as class, object or path, is used for all but values with a frame of their own."""
    codec = build_codec(given)
    stored = codec.dumps({"a": 1}, KEY)
    assert stored[:1] == b"\x13"
    assert stored[5:] == b'}1 :"a"{'
    assert codec.loads(stored, KEY) == {"a": 1}
    assert codec.dumps("text", KEY) == b"\x02text"  # text has a frame of its own


def test_a_serializer_in_djangos_style():
    """A serializer with an optional argument that passes integers through works as Django's does."""
    codec = build_codec(DjangoStyle)
    assert codec.loads(codec.dumps(Basket("Ada"), KEY), KEY) == Basket("Ada")
    assert codec.dumps(5, KEY) == b"5"


def test_a_module_is_a_serializer():
    """A module with dumps() and loads(), such as pickle, serves as a serializer."""
    codec = build_codec(pickle)
    assert codec.loads(codec.dumps((1, 2), KEY), KEY) == (1, 2)


def test_a_value_of_another_serializer_is_not_read():
    """A value written by another serializer raises DecodeError, even where this one could read it as something."""
    accepting = build_codec(Accepting)
    assert accepting.loads(accepting.dumps([1], KEY), KEY) == "[1]"
    with pytest.raises(DecodeError, match="another serializer"):
        accepting.loads(build_codec(Reversed).dumps([1], KEY), KEY)
    assert build_codec(pickle).dumps([1], KEY)[:5] != build_codec(marshal).dumps([1], KEY)[:5]
    stored = build_codec(Reversed).dumps([1], KEY)
    for other in (build_codec(DjangoStyle), build_codec(pickle), build_codec(), build_codec(trusted=True)):
        with pytest.raises(DecodeError):
            other.loads(stored, KEY)


def test_a_serializer_that_fails_is_told_at_set_and_a_miss_at_get():
    """The serializer's own error becomes a SerializationError on writing and a DecodeError on reading."""
    codec = build_codec(Reversed)
    with pytest.raises(SerializationError, match=r"The value\['a'\] is of type 'set'"):
        codec.dumps({"a": {1}}, KEY)
    with pytest.raises(DecodeError, match="JSONDecodeError"):
        codec.loads(codec.dumps({"a": 1}, KEY)[:-1], KEY)


@pytest.mark.parametrize("given", [Text, json])
def test_a_serializer_that_does_not_return_bytes_is_told_at_set(given):
    """A serializer that returns text in place of bytes raises SerializationError."""
    with pytest.raises(SerializationError, match="TypeError"):
        build_codec(given).dumps({"a": 1}, KEY)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"serializer": "picle"}, ["serializer is 'picle'", "'pickle', 'json', 'msgpack'", "Did you mean 'pickle'?"]),
        ({"serializer": "JSON"}, ["serializer is 'JSON'", "expected"]),
        ({"serializer": ""}, ["serializer is ''", "expected"]),
        (
            {"serializer": "no.such.module"},
            ["serializer is 'no.such.module'", "No module named", "dumps() and loads()"],
        ),
        ({"serializer": "json.missing"}, ["serializer is 'json.missing'", "missing"]),
        ({"serializer": ".relative.path"}, ["serializer is '.relative.path'", "expected"]),
        ({"serializer": "os.path"}, ["serializer is 'os.path'", "dumps() and loads()"]),
        ({"serializer": None}, ["serializer is of type 'NoneType'", "expected"]),
        ({"serializer": 5}, ["serializer is of type 'int'", "expected"]),
        ({"serializer": ["json"]}, ["serializer is of type 'list'", "expected"]),
        ({"serializer": NeedsArguments}, ["serializer is of type 'type'", "options", "expected"]),
        ({"compressor": "zlip"}, ["compressor is 'zlip'", "'zlib', 'lzma', 'zstd', 'lz4'", "Did you mean 'zlib'?"]),
        ({"compressor": "gzip"}, ["compressor is 'gzip'", "compress() and decompress()"]),
        ({"compressor": True}, ["compressor is of type 'bool'", "expected"]),
        ({"compressor": Reversed}, ["compressor is of type 'type'", "compress() and decompress()"]),
        ({"compress_min_bytes": -1}, ["compress_min_bytes is -1", "at least 0"]),
        ({"compress_min_bytes": "1k"}, ["compress_min_bytes is '1k'", "a number of bytes"]),
        ({"compress_min_bytes": True}, ["compress_min_bytes is True", "a number of bytes"]),
        ({"compress_min_bytes": 1.5}, ["compress_min_bytes is 1.5", "a number of bytes"]),
        ({"max_value_bytes": 0}, ["max_value_bytes is 0", "at least 1"]),
        ({"max_value_bytes": None}, ["max_value_bytes is None", "a number of bytes"]),
        ({"allowed_types": "app.models.Basket"}, ["allowed_types is a single value", "a list"]),
        ({"allowed_types": Basket}, ["allowed_types is a single value", "a list"]),
        ({"allowed_types": 5}, ["allowed_types is a single value", "a list"]),
        ({"allowed_types": ["Basket"]}, ["allowed_types contains 'Basket'", "dotted path"]),
        ({"allowed_types": ["a b.C"]}, ["allowed_types contains 'a b.C'", "dotted path"]),
        ({"allowed_types": [5]}, ["allowed_types contains 5", "dotted path"]),
        ({"allowed_types": [type("L", (), {"__qualname__": "f.<locals>.L"})]}, ["allowed_types contains", "top level"]),
    ],
    ids=repr,
)
def test_a_mistake_names_option_value_expectation_and_remedy(options, parts):
    """A wrong option raises ConfigurationError with its name, value, expectation and the nearest name."""
    with pytest.raises(ConfigurationError) as caught:
        build_codec(**options)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"serializer": "json", "compressor": "zlib"},
        {"serializer": "json", "secret": [SECRET, b"x" * 32], "compressor": "lzma", "trusted": True},
        {"compressor": None, "compress_min_bytes": 0, "max_value_bytes": 1, "allowed_types": ()},
        {"allowed_types": [Basket, "app.models.Basket", "app.models.Outer.Inner"]},
        {"allowed_types": {"app.models.Basket"}},
        {"serializer": pickle},
    ],
    ids=repr,
)
def test_valid_options_build_a_codec(options):
    """Valid combinations of options build a codec that returns values intact."""
    codec = build_codec(**options)
    assert codec.loads(codec.dumps([1, "x"], KEY), KEY) == [1, "x"]


def test_the_defaults_are_the_documented_ones():
    """Without options, nothing is compressed, and the thresholds are 1 KiB and 512 MiB."""
    assert (DEFAULT_COMPRESS_MIN_BYTES, DEFAULT_MAX_VALUE_BYTES) == (1024, 512 * 2**20)
    codec = build_codec()
    assert codec.dumps("x" * 5000, KEY) == b"\x02" + b"x" * 5000  # no compression


def test_importing_loads_no_format_and_no_library():
    """Importing storeroom.serializers loads neither json nor any library for compression or rich types."""
    source = Path(__file__).parents[3] / "src"
    code = "import sys; import storeroom.serializers; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-S", "-c", code], env={"PYTHONPATH": str(source)}, capture_output=True, text=True, check=True
    )
    loaded = set(run.stdout.split())
    assert "storeroom.serializers" in loaded
    assert not loaded & {
        "json",
        "msgpack",
        "lz4",
        "zlib",
        "lzma",
        "decimal",
        "uuid",
        "zoneinfo",
        "ipaddress",
        "difflib",
    }
