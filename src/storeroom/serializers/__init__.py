"""From a value to the bytes that a store keeps, and back.

Writing: a value becomes a frame (``frames``), which is compressed if it is long and that helps (``compressors``), and
signed if there is a secret (``signatures``). Reading goes by the frame's first byte, not by the options, so that a
cache stays warm when they change. ``options`` makes the ``codec`` that does both.

The possible writers of the bytes decide how they are read: ``docs/decisions/0010-serialization.md``.
"""

from storeroom.serializers.codec import Codec
from storeroom.serializers.options import build_codec
from storeroom.serializers.plugins import Compressor, Serializer

__all__ = ["Codec", "Compressor", "Serializer", "build_codec"]
