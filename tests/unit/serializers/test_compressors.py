"""Long frames shrink; reading them is bounded and knows every format."""

import os
import sys
import zlib

import pytest

from storeroom.exceptions import ConfigurationError, DecodeError, SerializationError
from storeroom.serializers import build_codec, compressors
from storeroom.serializers.compressors import FORMATS
from tests.unit.serializers.examples import KEY, SECRET

LONG = "the same words again and again, " * 200
FIRST_BYTES = {"zlib": 0x14, "lzma": 0x15, "zstd": 0x16, "lz4": 0x17}


@pytest.fixture(params=FORMATS)
def name(request):
    try:
        FORMATS[request.param].library()
    except ImportError:
        pytest.skip(f"{request.param} is not installed")
    return request.param


@pytest.mark.parametrize("value", [LONG, LONG.encode(), [LONG], {"a": LONG}, 10**3000])
def test_a_long_value_shrinks_and_comes_back(name, value):
    """A long value is stored compressed and read back equal, by a trusted codec or one that names it, too."""
    codec = build_codec(compressor=name)
    stored = codec.dumps(value, KEY)
    assert stored[0] == FIRST_BYTES[name]
    assert len(stored) < len(build_codec().dumps(value, KEY))
    assert codec.loads(stored, KEY) == value
    assert build_codec(trusted=True).loads(stored, KEY) == value  # reading goes by the frame
    assert build_codec(read_compressors=[name]).loads(stored, KEY) == value
    with pytest.raises(DecodeError):
        build_codec().loads(stored, KEY)


def test_a_value_that_does_not_shrink_is_left_as_it_is(name):
    """Random bytes are stored without compression, because it would not make them shorter."""
    value = os.urandom(5000)
    assert build_codec(compressor=name).dumps(value, KEY) == b"\x03" + value


def test_the_threshold_is_the_length_of_the_frame():
    """A frame of exactly compress_min_bytes is compressed; one a byte shorter is not."""
    at, below = "x" * 99, "x" * 98
    codec = build_codec(compressor="zlib", compress_min_bytes=100)
    assert codec.dumps(at, KEY)[0] == FIRST_BYTES["zlib"]
    assert codec.dumps(below, KEY) == b"\x02" + below.encode()


def test_compressed_values_are_signed_and_verified_before_they_expand(name):
    """The signature encloses the compressed frame, so that it is verified before anything expands."""
    codec = build_codec(compressor=name, secret=SECRET)
    stored = codec.dumps(LONG, KEY)
    assert stored[0] == 0x01
    assert stored[17] == FIRST_BYTES[name]
    assert codec.loads(stored, KEY) == LONG


def test_a_bomb_does_not_expand_beyond_the_bound(name):
    """A frame that expands beyond max_value_bytes raises DecodeError; one that just fits is read."""
    bomb = build_codec(compressor=name, max_value_bytes=2**30, trusted=True).dumps("0" * 4_000_000, KEY)
    assert len(bomb) < 100_000
    with pytest.raises(DecodeError):
        build_codec(max_value_bytes=3_900_000, trusted=True).loads(bomb, KEY)
    with pytest.raises(DecodeError):
        build_codec(max_value_bytes=4_000_000, trusted=True).loads(bomb, KEY)  # the frame is a byte longer
    assert len(build_codec(max_value_bytes=4_000_001, trusted=True).loads(bomb, KEY)) == 4_000_000


def test_a_value_beyond_the_bound_is_stored_without_compression(name):
    """A frame longer than max_value_bytes is stored as it is, so that it can be read again."""
    codec = build_codec(compressor=name, max_value_bytes=len(LONG))
    stored = codec.dumps(LONG, KEY)  # its frame is one byte longer
    assert stored == b"\x02" + LONG.encode()
    assert codec.loads(stored, KEY) == LONG


def test_truncation_and_trailing_bytes_are_decode_errors(name):
    """A compressed frame cut short at any byte, or followed by further bytes, raises DecodeError."""
    codec = build_codec(compressor=name)
    stored = codec.dumps(LONG, KEY)
    for damaged in (*(stored[:length] for length in range(1, len(stored))), stored + b"\x00", stored + stored[1:]):
        with pytest.raises(DecodeError):
            codec.loads(damaged, KEY)


def test_compressed_frames_are_not_nested(name):
    """A compressed frame within another raises DecodeError: a short one could expand a thousandfold each time."""
    once = FORMATS[name].compress(b"\x02text")
    codec = build_codec(compressor=name)
    assert codec.loads(once, KEY) == "text"
    with pytest.raises(DecodeError):
        codec.loads(FORMATS[name].compress(once), KEY)


def test_nothing_compressed_is_a_decode_error(name):
    """A compressed frame with nothing in it raises DecodeError."""
    with pytest.raises(DecodeError):
        build_codec(compressor=name).loads(FORMATS[name].compress(b""), KEY)


@pytest.fixture
def nothing_found_before():
    """Let each library be looked for again, before the test and after it."""
    compressors.first_of.cache_clear()
    yield
    compressors.first_of.cache_clear()


@pytest.mark.usefixtures("nothing_found_before")
@pytest.mark.parametrize("extra", ["lz4", "zstd"])
def test_a_library_that_is_not_installed_names_the_extra_to_install(monkeypatch, extra):
    """Choosing a missing compressor names the extra to install; reading its frame is a DecodeError."""
    for module in FORMATS[extra].modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=rf'python3 -m pip install ".+" \(Storeroom.s extra .{extra}.\)'):
        build_codec(compressor=extra)
    with pytest.raises(DecodeError):
        build_codec().loads(bytes([FIRST_BYTES[extra]]) + b"x", KEY)


@pytest.mark.usefixtures("nothing_found_before")
def test_a_python_without_lzma_says_so(monkeypatch):
    """On a Python built without lzma, choosing it raises ConfigurationError with that reason."""
    monkeypatch.setitem(sys.modules, "lzma", None)
    with pytest.raises(ConfigurationError, match="built without it"):
        build_codec(compressor="lzma")


class Level9:
    """A program's own compressor."""

    def compress(self, data):
        return zlib.compress(data, 9)

    def decompress(self, data):
        return zlib.decompress(data)


class Broken(Level9):
    def compress(self, data):
        raise OSError("no")


class Wordy(Level9):
    def compress(self, data):
        return "text"


@pytest.mark.parametrize("given", [Level9, Level9(), f"{__name__}.Level9"], ids=["class", "object", "path"])
def test_a_compressor_of_the_programs_own(given):
    """A program's own compressor, as class, object or path, serves both ways; other codecs raise DecodeError."""
    sys.modules.setdefault(__name__, sys.modules[Level9.__module__])
    codec = build_codec(compressor=given)
    stored = codec.dumps(LONG, KEY)
    assert stored[0] == 0x19
    assert codec.loads(stored, KEY) == LONG
    with pytest.raises(DecodeError):
        codec.loads(stored[:-1], KEY)
    with pytest.raises(DecodeError):
        build_codec(compressor=Broken).loads(stored, KEY)  # the frame of another compressor
    with pytest.raises(DecodeError):
        build_codec().loads(stored, KEY)


@pytest.mark.parametrize("cls", [Broken, Wordy])
def test_a_compressor_that_fails_is_told_at_set(cls):
    """A compressor that raises, or returns something other than bytes, is named in a SerializationError."""
    with pytest.raises(SerializationError, match=cls.__name__):
        build_codec(compressor=cls).dumps(LONG, KEY)
