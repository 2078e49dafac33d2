"""The frame of an envelope: there and back, and the facts told by its bytes alone."""

import random
import struct

import pytest

from storeroom.exceptions import DecodeError
from storeroom.serializers import build_codec
from storeroom.storage.envelope import (
    FIRST_BYTE,
    KIND_BYTES,
    LEASED_BYTES,
    Envelope,
    is_leased,
    is_packed,
    pack,
    placeholder,
    unpack,
)
from storeroom.timeouts import NEVER

SECRET = "a secret for tests only"


def envelopes() -> list[Envelope]:
    return [
        Envelope("value", 1000.5),
        Envelope(None, NEVER, 0.0, 1.25, (("\x00tag\x00a", 2**64 - 1), ("\x00tag\x00鍵\ud800", 0))),
        Envelope(["list", {"a": 1}], 1000.0, 3600.0, 0.5, (("t", 1),), leased_until=2000.0),
        placeholder(1234.5),
        Envelope(12345, 1.0, NEVER),
        Envelope("x" * 5000, 1.0),
    ]


def parts(envelope: Envelope) -> tuple:
    return tuple(getattr(envelope, name) for name in Envelope.__slots__)


@pytest.mark.parametrize("secret", [None, SECRET])
@pytest.mark.parametrize("options", [{}, {"serializer": "json"}, {"compressor": "zlib", "compress_min_bytes": 10}])
def test_an_envelope_comes_back_whole(secret, options):
    """An envelope comes back with all its parts, and its bytes alone tell that it is one, and whether it is leased."""
    codec = build_codec(trusted=False, secret=secret, **options)
    for envelope in envelopes():
        data = codec.dumps(envelope, "key")
        assert parts(codec.loads(data, "key")) == parts(envelope)
        assert is_packed(data)
        assert is_packed(data[:KIND_BYTES])
        until = envelope.leased_until
        assert is_leased(data[:LEASED_BYTES], until - 1) is True or not until
        assert is_leased(data, until) is False


def test_no_other_value_is_taken_for_an_envelope():
    """The bytes of any other value are neither those of an envelope nor of a lease."""
    for secret in (None, SECRET):
        codec = build_codec(trusted=False, secret=secret)
        for value in ("text", "\x1a", b"\x1a", 26, -26, None, [FIRST_BYTE], 0.5, {"a": FIRST_BYTE}):
            data = codec.dumps(value, "key")
            assert not is_packed(data)
            assert not is_leased(data, 0)


def test_envelopes_are_equal_if_they_are_the_same_writing():
    """Two envelopes are equal, and hash alike, exactly if they have the same stamp."""
    one = Envelope("value", 1000.0)
    assert one == Envelope("other", 5.0, stamp=one.stamp)
    assert one != Envelope("value", 1000.0)
    assert one != "value"
    assert len({one, Envelope("other", 5.0, stamp=one.stamp)}) == 1


@pytest.mark.parametrize("secret", [None, SECRET])
def test_a_damaged_envelope_is_refused(secret):
    """A truncated or changed envelope raises nothing but DecodeError, and always does under a secret."""
    codec, chance = build_codec(trusted=False, secret=secret), random.Random(7)
    frames = [codec.dumps(envelope, "key") for envelope in envelopes()]
    for _ in range(2000):
        frame = bytearray(chance.choice(frames))
        if chance.random() < 0.5:
            del frame[chance.randrange(len(frame)) :]
        else:
            frame[chance.randrange(len(frame))] ^= 1 << chance.randrange(8)
        try:
            codec.loads(bytes(frame), "key")
        except DecodeError:
            continue
        assert secret is None, "a changed frame was taken for a signed one"


def test_an_envelope_within_an_envelope_is_refused():
    """Unpacking an envelope that holds another raises ValueError."""
    inner = pack(Envelope("value", 1.0), b"frame")
    with pytest.raises(ValueError, match="within an envelope"):
        unpack(pack(Envelope("value", 1.0), inner), lambda frame: frame)


@pytest.mark.parametrize("times", [(float("nan"), 0, 0, 0), (1, -1, 0, 0), (1, 0, float("nan"), 0), (1, 0, 0, -5)])
def test_times_that_mean_nothing_are_refused(times):
    """An envelope with negative or NaN times raises ValueError."""
    frame = FIRST_BYTE + struct.pack(">QddddH", 1, *map(float, times), 0) + b"frame"
    with pytest.raises(ValueError, match="times mean nothing"):
        unpack(frame, lambda frame: frame)
