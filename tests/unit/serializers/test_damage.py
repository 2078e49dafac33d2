"""Ten thousand damaged, foreign and invented values: each is read as a value or as a DecodeError, quickly."""

import random
import sys
from pathlib import Path

import pytest

from storeroom.exceptions import DecodeError
from storeroom.serializers import build_codec, frames
from storeroom.serializers.compressors import FORMATS
from tests.unit.serializers.examples import ALLOWED, JSON_VALUES, KEY, LITERALS, OBJECTS, RICH, SCALARS, SECRET

MUTANTS = 10_000
LONGEST = 4096  # of what is mutated: a longer value is damaged no differently, and slowly

INTERESTING = [
    *(
        b"\x00",
        b"\xff",
        b"\x80\x05",
        b".",
        b"(",
        b"\x93R",
        b"b",
        b"r\xff\xff\xff\x7f",
        b"\x96" + b"\xff" * 8,
        b"\x85" * 50,
    ),
    *(
        b"]" * 50,
        b"[" * 50,
        b"{",
        b"\x95" + b"\x00" * 8,
        b"\xdd\xff\xff\xff\xff",
        b"\x0f",
        b"\x10",
        b"\x01",
        b"-",
        b"9" * 50,
    ),
    *(b"\x8c\x02os\x8c\x06system\x93", b"cos\nsystem\n", b"h\x00", b"\x94", b"0", b"1", b"\x91", b"\x90"),
]


def originals():
    """Frames of every kind, and the values within."""
    frames_made = [
        build_codec(allowed_types=ALLOWED).dumps(value, KEY) for value in SCALARS + LITERALS + RICH + OBJECTS
    ]
    frames_made += [build_codec("json").dumps(value, KEY) for value in JSON_VALUES]
    frames_made += [
        frames.MSGPACK + b"\x84\xa1a\x92\x01\xc0\xa1b\xcb?\xf0\x00\x00\x00\x00\x00\x00\xa1c\xc4\x01x\xa1d\x80"
    ]
    short = [frame for frame in frames_made if len(frame) <= LONGEST]
    for compressed in FORMATS.values():
        try:
            short += [compressed.compress(frame) for frame in short[::7]]
        except ImportError:
            continue
    return short


def mutate(chance: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Do to bytes what disks, foreign programs and attackers do."""
    damaged = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        position = chance.randrange(len(damaged) + 1)
        match chance.randrange(7):
            case 0:
                del damaged[position:]
            case 1 if position < len(damaged):
                damaged[position] = chance.randrange(256)
            case 2 if position < len(damaged):
                damaged[position] ^= 1 << chance.randrange(8)
            case 3:
                damaged[position:position] = chance.choice(INTERESTING)
            case 4:
                del damaged[position : position + chance.randrange(1, 9)]
            case 5:
                damaged[position:] = chance.choice(others)[position:]
            case _:
                damaged[position:position] = chance.randbytes(chance.randrange(1, 9))
    return bytes(damaged)


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
    chance, codec, whole = random.Random(2024), make(), originals()
    read = sum(outcome(codec, mutate(chance, chance.choice(whole), whole)) for _ in range(MUTANTS))
    assert 0 < read < MUTANTS / 2  # damaged text may still be text


@pytest.mark.slow
def test_damaged_bytes_under_a_secret_are_never_a_value():
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
    """Pickles of a trusted store apart: whoever can write those could do worse than damage them."""
    chance, codec = random.Random(2026), build_codec(trusted=trusted)
    for _ in range(MUTANTS):
        data = chance.randbytes(chance.choice((0, 1, 2, 5, 20, 100)))
        if data[:1] != frames.PICKLE:
            outcome(codec, data)
