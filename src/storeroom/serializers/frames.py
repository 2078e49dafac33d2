"""The first byte of a stored value, its meanings, and the values that need no serializer.

======  =====================================================================
byte    rest
======  =====================================================================
0-9 -   no frame: the value is a decimal integer, as engines increment them
0x01    16-byte signature, then a frame                     (signatures.py)
0x02    text in UTF-8          0x0e  text with lone surrogates
0x03    bytes
0x05    none: None             0x06  none: True             0x07  none: False
0x0b    float: IEEE 754 binary64, big-endian
0x0c    integer beyond 64 bits: two's complement, big-endian
0x0f    pickle of any objects; read only where every writer is trusted
0x10    pickle of plain data                                (pickles.py)
0x11    JSON in UTF-8          0x12  MessagePack            (documents.py)
0x13    4-byte fingerprint, then the bytes of a custom serializer
0x14    zlib    0x15  xz       0x16  Zstandard    0x17  LZ4 (compressors.py)
0x19    4-byte fingerprint, then the bytes of a custom compressor
0x1a    conditions of the entry, then a frame               (entry.py)
0x1b    the frame lies elsewhere; read by no codec          (backends/filebased/records.py)
0x1d    pickle of any objects whose buffers follow it; read as 0x0f  (parts.py)
======  =====================================================================

All are control characters, so that a frame is told from the values that Django and django-redis write to the same
server: digits, 0x80 (pickle), 0x78 (zlib), JSON. Unused for the same reason: 0x04 (LZ4's magic number), 0x08 and 0x18
(zlib with a small window), 0x09, 0x0a and 0x0d (white space before JSON), 0x1f (gzip). A byte is never given a second
meaning: tests/wire_formats keeps a sample of each that must stay readable.
"""

import struct
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Final, TypeAlias

__all__ = [
    "PICKLE_PROTOCOL",
    "SCALAR_READERS",
    "SCALAR_WRITERS",
    "TEXT_BYTE",
    "Reader",
    "Writer",
    "is_markup",
    "is_plain_integer",
    "type_name",
]

Writer: TypeAlias = Callable[..., bytes]
"""Makes a frame of a value."""

Reader: TypeAlias = Callable[[bytes], object]
"""Makes a value of a frame, first byte included; raises anything if it can't."""

SIGNED: Final = b"\x01"
TEXT: Final = b"\x02"
BYTES: Final = b"\x03"
NONE: Final = b"\x05"
TRUE: Final = b"\x06"
FALSE: Final = b"\x07"
FLOAT: Final = b"\x0b"
BIG_INTEGER: Final = b"\x0c"
SURROGATES: Final = b"\x0e"
PICKLE: Final = b"\x0f"
SAFE_PICKLE: Final = b"\x10"
JSON: Final = b"\x11"
MSGPACK: Final = b"\x12"
CUSTOM_SERIALIZER: Final = b"\x13"
ZLIB: Final = b"\x14"
XZ: Final = b"\x15"
ZSTD: Final = b"\x16"
LZ4: Final = b"\x17"
CUSTOM_COMPRESSOR: Final = b"\x19"
BUFFERS: Final = b"\x1d"

TEXT_BYTE: Final = TEXT[0]
"""For the comparison that every hit on a text makes."""

PICKLE_PROTOCOL: Final = 5
"""The highest of every supported Python; fixed, so that all of them read each other's values."""

_FIRST_UNFRAMED: Final = 0x20
"""The control characters end here; "-" and the digits come later."""

_FLOAT: Final = struct.Struct(">d")


def is_plain_integer(frame: bytes) -> bool:
    """Tell whether a writer's result is an unframed integer, which must reach the engine as it is."""
    return frame[0] >= _FIRST_UNFRAMED


def type_name(cls: type) -> str:
    """Return the name of a class in errors: its dotted path, without "builtins".

    >>> type_name(dict), type_name(struct.Struct)
    ('dict', '_struct.Struct')
    """
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


_MARKUP: Final = frozenset({("django.utils.safestring", "SafeString"), ("markupsafe", "Markup")})


def is_markup(cls: type) -> bool:
    """Tell whether instances of a class are texts that need no escaping: where only plain data is kept, plain texts."""
    return (cls.__module__, cls.__qualname__) in _MARKUP and issubclass(cls, str)


def _write_text(value: str) -> bytes:
    try:
        return TEXT + value.encode()
    except UnicodeEncodeError:
        return SURROGATES + value.encode("utf-8", "surrogatepass")


def _write_integer(value: int) -> bytes:
    if -(2**63) <= value < 2**63:
        return b"%d" % value
    return BIG_INTEGER + value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


SCALAR_WRITERS: Final[Mapping[type, Writer]] = {
    str: _write_text,
    bytes: lambda value: BYTES + value,
    int: _write_integer,
    float: lambda value: FLOAT + _FLOAT.pack(value),
    bool: lambda value: TRUE if value else FALSE,
    NoneType: lambda _: NONE,
}
"""By exact type: a subclass is left to the serializer, which keeps its type."""


def _read_integer(data: bytes) -> int:
    # Memcached leaves a space behind a number that decr made shorter (protocol.txt), and int() takes it.
    # It takes underscores too, which no engine writes.
    if b"_" in data:
        raise ValueError("not a decimal integer")
    try:
        return int(data)
    except ValueError:
        raise ValueError("not a decimal integer") from None  # int() would show the value


def _read_big_integer(frame: bytes) -> int:
    value = int.from_bytes(frame[1:], "big", signed=True)
    if -(2**63) <= value < 2**63:
        raise ValueError("truncated integer")
    return value


def _constant(value: object) -> Reader:
    def read(frame: bytes) -> object:
        if len(frame) != 1:
            raise ValueError("more than a constant")
        return value

    return read


SCALAR_READERS: Final[Mapping[int, Reader]] = {
    TEXT_BYTE: lambda frame: frame[1:].decode(),
    SURROGATES[0]: lambda frame: frame[1:].decode("utf-8", "surrogatepass"),
    BYTES[0]: lambda frame: frame[1:],
    FLOAT[0]: lambda frame: _FLOAT.unpack(frame[1:])[0],
    BIG_INTEGER[0]: _read_big_integer,
    NONE[0]: _constant(None),
    TRUE[0]: _constant(True),
    FALSE[0]: _constant(False),
    **dict.fromkeys(b"-0123456789", _read_integer),
}
"""By first byte."""
