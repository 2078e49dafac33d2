"""With a secret, only values that its owner wrote for this very key are read."""

import pickle

import pytest

from storeroom.exceptions import ConfigurationError, DecodeError
from storeroom.serializers import build_codec
from tests.unit.serializers.examples import KEY, SECRET, Basket

OLD, NEW = "the old secret of the shop", "the new secret of the shop"
VALUES = ["text", b"bytes", None, True, 1.5, 2**70, {"a": [1]}, Basket("Ada")]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_changed_bit_anywhere_is_refused(value):
    """A signed value with any one bit flipped raises DecodeError."""
    codec = build_codec(secret=SECRET)
    stored = codec.dumps(value, KEY)
    for position in range(len(stored)):
        for bit in range(8):
            changed = bytearray(stored)
            changed[position] ^= 1 << bit
            with pytest.raises(DecodeError):
                codec.loads(bytes(changed), KEY)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_every_truncation_and_any_addition_is_refused(value):
    """A signed value cut short at any length, or one byte longer, raises DecodeError."""
    codec = build_codec(secret=SECRET)
    stored = codec.dumps(value, KEY)
    for damaged in [stored[:length] for length in range(len(stored))] + [stored + b"\x00"]:
        with pytest.raises(DecodeError):
            codec.loads(damaged, KEY)


@pytest.mark.parametrize("other", ["", "shop:1:baske", "shop:1:basketx", "shop:2:basket", KEY + "\x02"])
def test_a_value_copied_to_another_key_is_refused(other):
    """A value signed for one key raises DecodeError under another."""
    codec = build_codec(secret=SECRET)
    with pytest.raises(DecodeError, match="another key"):
        codec.loads(codec.dumps("text", KEY), other)


def test_key_and_value_cannot_be_cut_differently():
    """A byte moved from the value to the key breaks the signature, which covers where the key ends."""
    codec = build_codec(secret=SECRET)
    signed = codec.dumps("bc", "a")
    moved = signed[:17] + b"\x02c"
    with pytest.raises(DecodeError):
        codec.loads(moved, "a\x02b")


def test_any_text_is_a_key():
    """Signing works for empty, non-ASCII, surrogate and very long keys."""
    codec = build_codec(secret=SECRET)
    for key in ("", "Grüße", "\ud800", "\x00" * 1000):
        assert codec.loads(codec.dumps("text", key), key) == "text"


def test_the_first_secret_signs_and_all_verify():
    """Of a list of secrets, the first signs and each verifies, so that secrets can be rotated."""
    old, new, both = (build_codec(secret=secret) for secret in (OLD, NEW, [NEW, OLD]))
    assert both.loads(old.dumps("text", KEY), KEY) == "text"
    assert both.loads(new.dumps("text", KEY), KEY) == "text"
    assert both.dumps("text", KEY) == new.dumps("text", KEY)
    for reader, writer in ((old, new), (new, old), (old, both)):
        with pytest.raises(DecodeError):
            reader.loads(writer.dumps("text", KEY), KEY)


def test_text_and_bytes_are_the_same_secret():
    """A secret given as text signs like its UTF-8 bytes."""
    assert build_codec(secret=SECRET).dumps(1.5, KEY) == build_codec(secret=SECRET.encode()).dumps(1.5, KEY)


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("value", [v for v in VALUES if not isinstance(v, Basket)], ids=repr)
def test_unsigned_values_are_not_read_under_a_secret(value, trusted):
    """A codec with a secret refuses unsigned values; otherwise an attacker would leave the signature out."""
    signed = build_codec(secret=SECRET, trusted=trusted)
    for unsigned in (build_codec(), build_codec(trusted=True), build_codec(compressor="zlib", compress_min_bytes=0)):
        with pytest.raises(DecodeError, match="not signed"):
            signed.loads(unsigned.dumps(value, KEY), KEY)
    with pytest.raises(DecodeError):
        signed.loads(pickle.dumps(value), KEY)


def test_signed_values_are_not_read_without_a_secret():
    """A codec without a secret refuses signed values and says that no secret is set."""
    stored = build_codec(secret=SECRET).dumps(["x"], KEY)
    for codec in (build_codec(), build_codec(trusted=True)):
        with pytest.raises(DecodeError, match="no secret is set"):
            codec.loads(stored, KEY)


def test_a_signature_within_a_signature_is_refused():
    """A signed frame that is signed a second time raises DecodeError."""
    codec = build_codec(secret=SECRET)
    inner = codec.dumps("text", KEY)
    with pytest.raises(DecodeError):
        codec.loads(codec._signer.sign(inner, KEY), KEY)


def test_integers_stay_bare_for_the_engine():
    """Under a secret, an integer is stored and read as unsigned digits."""
    codec = build_codec(secret=SECRET)
    assert codec.dumps(41, KEY) == b"41"
    assert codec.loads(b"42", KEY) == 42


@pytest.mark.parametrize("secret", ["", b"", "short", "x" * 15, [SECRET, "short"], [], ()])
def test_a_missing_or_short_secret_is_a_configuration_error(secret):
    """An empty or short secret raises ConfigurationError without quoting it."""
    with pytest.raises(ConfigurationError, match=r"^secret ") as caught:
        build_codec(secret=secret)
    assert "short" not in str(caught.value)


@pytest.mark.parametrize("secret", [5, True, {"a": 1}, {SECRET}, [SECRET, None], object()])
def test_a_secret_of_another_type_is_a_configuration_error(secret):
    """A secret that is neither text, bytes nor a list raises ConfigurationError without quoting it."""
    with pytest.raises(ConfigurationError, match=r"^secret is of type .*; expected str, bytes or a list") as caught:
        build_codec(secret=secret)
    assert SECRET not in str(caught.value)


def test_a_secret_is_counted_in_bytes_and_told_how_to_make():
    """A secret needs 16 bytes, not characters, and the error shows a call that makes one."""
    with pytest.raises(ConfigurationError, match=r"secret has 15 bytes; expected at least 16.*token_urlsafe"):
        build_codec(secret="x" * 15)
    build_codec(secret="ä" * 8)


def test_the_secret_shows_nowhere():
    """No repr, stored value or error message contains a secret."""
    codec = build_codec(secret=[SECRET, OLD])
    stored = codec.dumps(["x"], KEY)
    shown = [repr(codec), str(codec), repr(codec._signer), repr(vars(codec._signer)), str(stored)]
    with pytest.raises(DecodeError) as caught:
        codec.loads(stored, "other")
    assert not any(secret in text for text in [*shown, str(caught.value)] for secret in (SECRET, OLD))


def test_a_value_of_another_context_is_not_accepted():
    """A value that was signed in one context, or in none, is refused in another; in the same it is read."""
    codecs = [build_codec(secret=SECRET, signing_context=context) for context in ("", "staging", "production")]
    for writer in codecs:
        stored = writer.dumps(["value"], KEY)
        for reader in codecs:
            if reader is writer:
                assert reader.loads(stored, KEY) == ["value"]
            else:
                with pytest.raises(DecodeError):
                    reader.loads(stored, KEY)
    with pytest.raises(ConfigurationError, match="signing_context is"):
        build_codec(secret=SECRET, signing_context=7)
