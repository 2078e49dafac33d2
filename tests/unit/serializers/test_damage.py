"""Ten thousand damaged, foreign and invented values: each is read as a value or as a DecodeError, quickly."""

import random
import sys
from pathlib import Path

import pytest

from storeroom.exceptions import DecodeError
from storeroom.serializers import build_codec, frames
from tests.unit.serializers.damage import LONGEST, mutate, originals
from tests.unit.serializers.examples import ALLOWED, KEY, LITERALS, OBJECTS, RICH, SCALARS, SECRET

MUTANTS = 10_000


def outcome(codec, data):
    """Read damaged bytes: True for a value, False for a DecodeError; anything else fails the test."""
    try:
        codec.loads(data, KEY)
    except DecodeError:
        return False
    return True


@pytest.fixture
def bounded_memory():
    """Let an allocation of gigabytes that some length asks for fail, instead of the machine."""
    import resource  # POSIX only

    before = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 2 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.slow
@pytest.mark.usefixtures("bounded_memory")
@pytest.mark.skipif(sys.platform != "linux", reason="other systems don't bound address space")
@pytest.mark.parametrize(
    "make",
    [
        build_codec,
        lambda: build_codec(allowed_types=ALLOWED, max_value_bytes=10**6),
        lambda: build_codec("json", compressor="zlib"),
    ],
    ids=["plain", "allowed types", "json"],
)
def test_damaged_bytes_are_a_value_or_a_decode_error(make):
    """Mutated frames read as a value or raise DecodeError, never another exception."""
    chance, codec, whole = random.Random(2024), make(), originals()
    read = sum(outcome(codec, mutate(chance, chance.choice(whole), whole)) for _ in range(MUTANTS))
    assert 0 < read < MUTANTS / 2  # damaged text may still be text


@pytest.mark.slow
def test_damaged_bytes_under_a_secret_are_never_a_value():
    """Under a secret, mutated signed frames always raise DecodeError."""
    chance, codec = random.Random(2025), build_codec(secret=SECRET)
    whole = [codec.dumps(value, KEY) for value in SCALARS + LITERALS + RICH + OBJECTS]
    whole = [data for data in whole if data[:1] == frames.SIGNED and len(data) <= LONGEST]
    for _ in range(MUTANTS):
        original = chance.choice(whole)
        damaged = mutate(chance, original, whole)
        if damaged not in whole and not damaged.lstrip(b"-").isdigit():
            assert not outcome(codec, damaged)


@pytest.mark.slow
@pytest.mark.parametrize("trusted", [True, False])
def test_foreign_bytes_are_a_value_or_a_decode_error(trusted):
    """Random bytes read as a value or raise DecodeError.

    Pickles of a trusted store are left out: a writer of those could do worse than damage them.
    """
    chance, codec = random.Random(2026), build_codec(trusted=trusted)
    for _ in range(MUTANTS):
        data = chance.randbytes(chance.choice((0, 1, 2, 5, 20, 100)))
        if data[:1] != frames.PICKLE:
            outcome(codec, data)
