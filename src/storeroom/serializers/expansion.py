"""Compressed frames within their bounds: none is written that would not be read, and none fills the memory."""

from collections.abc import Callable, Mapping
from typing import Any

from storeroom.serializers.bounds import Limits
from storeroom.serializers.compressors import Format
from storeroom.serializers.frames import Reader

__all__ = ["Expansion"]


class Expansion:
    """Compresses frames, and expands them.

    Args:
        makers: of Storeroom's own serializers, by the prefix of their frames.
        limits: bounds in proportion to the stored bytes; None for a store whose writers are trusted.
        max_bytes: the longest frame that is compressed or expanded.
    """

    def __init__(self, makers: Mapping[bytes, Callable[[], Any]], limits: Limits | None, max_bytes: int) -> None:
        self._makers = {prefix[0]: maker for prefix, maker in makers.items()}
        self._limits = limits
        self._max_bytes = max_bytes

    def compress(self, form: Format, frame: bytes) -> bytes:
        """Return a compressed frame, or the frame itself where it would be too long when it is expanded."""
        if len(frame) > self._max_bytes:
            return frame
        compressed = form.compress(frame)
        limits = self._limits
        if limits is None:
            return compressed
        if len(frame) > limits.expanded(len(compressed)):
            return frame
        maker = self._makers.get(frame[0])
        try:
            if maker is not None:
                maker().check(frame[1:], len(compressed))
        except ValueError:  # it takes too much memory for so few bytes
            return frame
        return compressed

    def read(self, form: Format, readers: Mapping[int, Reader], compressed: bytes) -> object:
        """Return the value of a compressed frame, of which `readers` read the inner one; raise anything if damaged."""
        limits = self._limits
        stored = len(compressed)
        max_bytes = self._max_bytes if limits is None else min(self._max_bytes, limits.expanded(stored))
        frame = form.expand(compressed, max_bytes)
        maker = None if limits is None else self._makers.get(frame[0])
        return readers[frame[0]](frame) if maker is None else maker().loads(frame[1:], stored)
