"""From a value to the bytes that a store keeps, and back.

Writing: a value becomes a frame (``frames``), which is compressed if it is long and that helps (``compressors``), and
signed if there is a secret (``signatures``). Reading goes by the frame's first byte, not by the options, so that a
cache stays warm when they change. ``options`` makes the ``codec`` that does both.

The power of stored bytes over their reader depends on their possible writers:

- the store is trusted, a directory private to the user: all that pickle can do;
- a secret is set: the same, once the signature holds; unsigned bytes are not read;
- otherwise: they become plain data (``pickles``, ``documents``), and do nothing else.

One exception: an integer of up to 64 bits is bare digits, unsigned even where a secret is set, because engines
increment it in place. ``docs/decisions/0010-serialization.md`` gives the reasons.
"""

from storeroom.serializers.codec import Codec
from storeroom.serializers.options import build_codec
from storeroom.serializers.plugins import Compressor, Serializer

__all__ = ["Codec", "Compressor", "Serializer", "build_codec"]
