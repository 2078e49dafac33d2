"""From a value to the bytes that a store keeps, and back.

Writing: a value becomes a frame (frames.py), which is compressed if it is long and that
helps, and signed if there is a secret. Reading goes by the frame's first byte, not by
the options, so that a cache stays warm when they change.

What stored bytes may do when they are read depends on who could have written them:

- the store is trusted, a directory private to the user: whatever pickle can do;
- a secret is set: the same, once the signature holds; unsigned bytes are not read;
- otherwise: become plain data (pickles.py), and nothing else.

One exception: an integer of up to 64 bits is bare digits, unsigned even where a secret
is set, because engines increment it in place.

``docs/decisions/0010-serialization.md`` tells why.
"""

from storeroom.serializers.codec import Codec
from storeroom.serializers.options import DEFAULT_COMPRESS_MIN_BYTES, DEFAULT_MAX_VALUE_BYTES, build_codec
from storeroom.serializers.plugins import Compressor, Serializer

__all__ = [
    "DEFAULT_COMPRESS_MIN_BYTES",
    "DEFAULT_MAX_VALUE_BYTES",
    "Codec",
    "Compressor",
    "Serializer",
    "build_codec",
]
