"""A codec returns a value exactly as it was given, refuses it at set, or reads its bytes as damaged."""

import pickle
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storeroom.exceptions import DecodeError, SerializationError
from storeroom.serializers import build_codec
from storeroom.serializers.frames import is_plain_integer
from tests.unit.serializers.examples import (
    JSON_VALUES,
    KEY,
    LITERALS,
    MSGPACK_VALUES,
    OBJECTS,
    PLAIN,
    SCALARS,
    SECRET,
    same,
)

TRUSTED = build_codec(trusted=True)
SIGNED = build_codec(secret=SECRET)
SAFE = build_codec()


def json(**options):
    return build_codec("json", **options)


def msgpack():
    pytest.importorskip("msgpack")
    return build_codec("msgpack")


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (lambda: TRUSTED, PLAIN + OBJECTS),
        (lambda: SIGNED, PLAIN + OBJECTS),
        (lambda: SAFE, PLAIN),
        (json, SCALARS + JSON_VALUES),
        (msgpack, SCALARS + MSGPACK_VALUES),
        (lambda: build_codec("json", secret=SECRET, compressor="zlib", compress_min_bytes=0), SCALARS + JSON_VALUES),
    ],
    ids=["trusted", "signed", "safe", "json", "msgpack", "json signed and compressed"],
)
def test_a_value_comes_back_exactly(make, values):
    """Every value that a codec accepts is read back equal and of the same type, from stored bytes."""
    codec = make()
    for value in values:
        stored = codec.dumps(value, KEY)
        assert type(stored) is bytes
        returned = codec.loads(stored, KEY)
        assert same(returned, value), f"{value!r:.80} came back as {returned!r:.80}"


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
keys = st.text() | st.integers() | st.booleans() | st.tuples(st.integers(), st.text()) | st.dates()
rich = leaves | st.decimals() | st.fractions() | st.datetimes(timezones=st.timezones()) | st.uuids() | st.timedeltas()
rich |= st.complex_numbers() | st.ip_addresses() | st.times() | st.frozensets(keys) | st.binary().map(bytearray)
values = st.recursive(
    rich,
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner) | st.tuples(inner, inner) | st.sets(keys),
    max_leaves=30,
)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(values)
def test_any_plain_value_comes_back_exactly(value):
    """Arbitrary nested plain values come back equal through a trusted, a signed and a safe codec."""
    for codec in (TRUSTED, SIGNED, SAFE):
        assert same(codec.loads(codec.dumps(value, KEY), KEY), value)


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(documents)
def test_any_document_comes_back_exactly(value):
    """Arbitrary nested JSON documents come back equal through the JSON codec."""
    codec = json()
    assert same(codec.loads(codec.dumps(value, KEY), KEY), value)


@pytest.mark.parametrize("codec", [TRUSTED, SIGNED, SAFE, json()], ids=["trusted", "signed", "safe", "json"])
@pytest.mark.parametrize("number", [0, 7, -1, 2**63 - 1, -(2**63)])
def test_an_integer_that_engines_increment_is_bare_digits(codec, number):
    """An integer of 64 bits is stored as plain decimal digits, with no frame, by every codec."""
    assert codec.dumps(number, KEY) == str(number).encode()


def test_an_integer_is_never_compressed():
    """An integer stays bare digits even where the threshold of compression is zero."""
    codec = build_codec(compressor="zlib", compress_min_bytes=0)
    assert codec.dumps(10**18, KEY) == b"1000000000000000000"


@pytest.mark.parametrize("stored", [b"99 ", b"18446744073709551615", b"-5"])
def test_an_integer_is_read_as_engines_write_it(stored):
    """A number is read with the trailing space that Memcached leaves on decrement, and up to its 2**64 - 1."""
    assert SAFE.loads(stored, KEY) == SIGNED.loads(stored, KEY) == int(stored)


def test_a_frame_is_told_from_bytes_of_other_libraries():
    """A frame begins with no byte that begins a number, or a pickle, zlib, LZ4, gzip or JSON of django-redis."""
    firsts = {
        codec.dumps(value, KEY)[0]
        for codec in (TRUSTED, SIGNED, SAFE, build_codec(compressor="zlib"))
        for value in PLAIN
        if type(value) is not int or not -(2**63) <= value < 2**63
    }
    assert firsts <= set(range(0x01, 0x20)) - {0x04, 0x08, 0x09, 0x0A, 0x0D, 0x18, 0x1F}


def test_a_value_that_equals_a_scalar_keeps_its_own_type():
    """A subclass of int or str comes back as that subclass, not as the scalar that it equals."""
    for codec in (TRUSTED, SIGNED):
        for value in (OBJECTS[6], OBJECTS[7], OBJECTS[8]):
            assert type(codec.loads(codec.dumps(value, KEY), KEY)) is type(value)


def unpicklable():
    def generator():
        yield 1

    class Local:
        pass

    class Fails:
        def __reduce__(self):
            raise RuntimeError("no")

    return [threading.Lock(), generator(), lambda: 1, Local(), Fails(), Local, memoryview(b"x"), iter(Local, 1)]


@pytest.mark.parametrize("codec", [TRUSTED, SIGNED, SAFE, json()], ids=["trusted", "signed", "safe", "json"])
@pytest.mark.parametrize(
    "wrap", [lambda v: v, lambda v: [v], lambda v: {"a": (1, {"b": v})}], ids=["bare", "list", "deep"]
)
@pytest.mark.parametrize("index", range(8))
def test_a_value_of_this_process_alone_is_refused_at_set(codec, wrap, index):
    """A lock, a generator or a local class raises SerializationError at set, however deep it lies."""
    with pytest.raises(SerializationError) as caught:
        codec.dumps(wrap(unpicklable()[index]), KEY)
    assert isinstance(caught.value, pickle.PickleError)  # as Django's callers expect


def test_the_refusal_names_path_type_and_remedy():
    """The error gives the path to the offending part, its type and the remedy, and has the cause attached."""
    with pytest.raises(SerializationError) as caught:
        TRUSTED.dumps({"connections": [1, threading.Lock()]}, KEY)
    message = str(caught.value)
    assert message.startswith("The value['connections'][1] is of type '_thread.lock' and cannot be stored (TypeError)")
    assert "store plain data made from it" in message.lower()
    assert isinstance(caught.value.__cause__, TypeError)


def test_the_refusal_of_a_value_that_contains_itself_ends():
    """The search for the offending part of a circular value ends, with a SerializationError."""
    value = [threading.Lock()]
    value.insert(0, value)
    with pytest.raises(SerializationError):
        TRUSTED.dumps(value, KEY)


def test_an_error_of_the_value_itself_is_the_cause():
    """An exception raised by the value's own __getstate__ becomes the cause of the error."""

    class Fails:
        def __getstate__(self):
            raise pickle.PickleError("mine")

    with pytest.raises(pickle.PickleError) as caught:
        TRUSTED.dumps(Fails(), KEY)
    assert str(caught.value.__cause__) == "mine"


def test_too_deep_a_value_is_refused_at_set():
    """A list nested 100,000 deep raises SerializationError at set, not RecursionError."""
    value = []
    for _ in range(100_000):
        value = [value]
    for codec in (TRUSTED, SIGNED, SAFE, json()):
        with pytest.raises(SerializationError):
            codec.dumps(value, KEY)


def test_lack_of_memory_is_not_the_values_fault():
    """A MemoryError during serialization passes through unchanged."""

    class Greedy:
        def __reduce__(self):
            raise MemoryError

    with pytest.raises(MemoryError):
        TRUSTED.dumps(Greedy(), KEY)


def test_no_message_shows_a_value():
    """No error of writing or reading quotes a part of the value."""
    private = "4111-1111-1111-1111"
    for codec in (TRUSTED, SIGNED, SAFE, json()):
        for value in (
            [private, threading.Lock()],
            {"card": [private, threading.Lock()]},
            {(private,): threading.Lock()},
        ):
            with pytest.raises(SerializationError) as caught:
                codec.dumps(value, KEY)
            assert private not in str(caught.value)
        for stored in (
            private.encode(),
            b"\x05" + private.encode(),
            b"\x10" + private.encode(),
            b"4" + private.encode(),
        ):
            with pytest.raises(DecodeError) as caught:
                codec.loads(stored, KEY)
            assert private not in str(caught.value) + repr(caught.value.__cause__)


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (b"", "0 bytes, none"),
        (b"\x7f", "unknown to this codec"),
        (b"\x01" + b"s" * 30, "no secret is set"),
        (b"\x0f" + pickle.dumps([]), "neither trusted nor signed"),
        (b"\x05more", "ValueError"),
        (b"\x0b\x00", "error"),
        (b"\x02\xff\xfe", "UnicodeDecodeError"),
        (b"1_000", "ValueError"),
        (b"12:30", "ValueError"),
        (b"-", "ValueError"),
        (b"\x0c\x05", "ValueError"),
        (b"\x13abcdwhat", "unknown to this codec"),
        (b"\x19abcdwhat", "unknown to this codec"),
    ],
)
def test_damage_is_told_with_its_reason(stored, reason):
    """Damaged bytes raise a DecodeError whose message names the reason."""
    with pytest.raises(DecodeError, match=reason):
        SAFE.loads(stored, KEY)


@pytest.mark.parametrize(
    "stored",
    [
        pickle.dumps([1], 2),
        pickle.dumps("x", 0),
        b'{"a": 1}',
        b"\x78\x9c\x03\x00\x00\x00\x00\x01",
        b"\x1f\x8b",
        b"plain",
    ],
)
def test_bytes_of_other_libraries_are_not_read(stored):
    """Pickles, JSON, zlib and gzip written by other libraries raise DecodeError."""
    for codec in (TRUSTED, SIGNED, SAFE):
        with pytest.raises(DecodeError):
            codec.loads(stored, KEY)


def test_a_class_that_is_gone_is_a_decode_error():
    """A stored object of a class that no longer exists raises DecodeError, caused by the AttributeError."""
    stored = TRUSTED.dumps(OBJECTS[0], KEY).replace(b"Basket", b"Gasket")
    with pytest.raises(DecodeError) as caught:
        TRUSTED.loads(stored, KEY)
    assert isinstance(caught.value.__cause__, AttributeError)


def test_a_truncated_pickle_is_a_decode_error():
    """A pickle cut short at any length raises DecodeError."""
    for value in LITERALS + OBJECTS:
        stored = TRUSTED.dumps(value, KEY)
        for length in (0, 1, 2, 3, len(stored) // 2, len(stored) - 2, len(stored) - 1):
            with pytest.raises(DecodeError):
                TRUSTED.loads(stored[:length], KEY)


def test_values_written_before_an_option_changed_are_still_read():
    """A value is read by its frame, so a new serializer, compressor or trust keeps the cache warm."""
    value = {"a": ["x" * 3000]}
    writers = [
        SAFE,
        json(),
        *(build_codec(compressor=name, compress_min_bytes=0) for name in ("zlib", "lzma")),
    ]
    others = ["zlib", "lzma"]
    readers = [build_codec(read_compressors=others), json(read_compressors=others), TRUSTED]
    readers.append(build_codec("json", compressor="zlib", read_compressors=["lzma"]))
    for writer in writers:
        for reader in readers:
            assert reader.loads(writer.dumps(value, KEY), KEY) == value


def test_plain_integers_and_frames_are_told_apart():
    """Bytes that begin with a digit or a minus are a plain integer; a frame is none."""
    assert is_plain_integer(b"12")
    assert is_plain_integer(b"-1")
    assert not is_plain_integer(b"\x02text")


@pytest.mark.parametrize(
    "codec",
    [TRUSTED, SAFE, SIGNED, build_codec(compressor="zlib", compress_min_bytes=5)],
    ids=["trusted", "safe", "signed", "compressing"],
)
def test_many_values_are_written_as_each_by_itself(codec):
    """dumps_many() returns the bytes that dumps() returns, in the order of the values, and names one it refuses."""
    values = {f"{KEY}:{number}": value for number, value in enumerate([*PLAIN, "text", "a" * 1000, "\ud800", ""])}
    assert codec.dumps_many(values) == [codec.dumps(value, key) for key, value in values.items()]
    with pytest.raises(SerializationError, match="the-refused-one"):
        codec.dumps_many({**values, "the-refused-one": lambda: None})


@pytest.mark.parametrize("codec", [TRUSTED, SAFE, SIGNED], ids=["trusted", "safe", "signed"])
def test_many_frames_are_read_as_each_by_itself(codec):
    """loads_many() returns the values that loads() returns, by key, and tells how many cannot be read."""
    frames = {f"{KEY}:{number}": codec.dumps(value, f"{KEY}:{number}") for number, value in enumerate(PLAIN)}
    damaged = {"empty": b"", "cut": codec.dumps("text", "cut")[:1] + b"\xff", "foreign": b"\x80\x05.", "other": b"\x09"}
    keys, stored = [*frames, *damaged, "absent"], [*frames.values(), *damaged.values(), None]
    read, unread = codec.loads_many(keys, stored)
    assert (list(read), unread) == (list(frames), len(damaged))
    assert all(same(value, codec.loads(frames[key], key)) for key, value in read.items())
    behind, unread = codec.loads_many(keys, [frame and b"\x02header" + frame for frame in stored], 7)
    assert (list(behind), unread) == (list(frames), len(damaged))
    assert all(same(value, read[key]) for key, value in behind.items())
