"""Stored values, and the damage that disks, foreign programs and attackers do to them."""

import random

from storeroom.serializers import build_codec, frames
from storeroom.serializers.compressors import FORMATS
from storeroom.storage.envelope import Envelope
from tests.unit.serializers.examples import ALLOWED, JSON_VALUES, KEY, LITERALS, OBJECTS, RICH, SCALARS

LONGEST = 4096  # of the values mutated: a longer one is damaged no differently, and slowly

ENVELOPES = [
    Envelope("text", 4e9, stamp=1),
    Envelope({"a": [1]}, 4e9, 60.0, 0.5, (("\x00tag\x00:0:red", 2**64 - 1), ("\x00tag\x00:0:\ud800", 5)), 4e9, stamp=2),
    Envelope(None, 0.0, leased_until=4e9, stamp=3),
]

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
    frames_made += [build_codec().dumps(envelope, KEY) for envelope in ENVELOPES]
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
    """Damage bytes as disks, foreign programs and attackers do."""
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
