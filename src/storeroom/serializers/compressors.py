"""Compressed frames: four formats by name, or a program's own compressor.

The configuration says which are read (``options``), up to a bound.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any, Final, TypeAlias

from storeroom.exceptions import ConfigurationError, SerializationError
from storeroom.late import record
from storeroom.serializers import frames, plugins
from storeroom.serializers.plugins import Compressor
from storeroom.storage.interruptions import raise_if_foreign
from storeroom.wording import installation

__all__ = ["FORMATS", "CustomFormat", "Format", "StreamFormat", "first_of", "get_format"]

_LZMA_MEMORY_LIMIT: Final = 24 * 2**20
"""Bytes. A header may ask for 4 GiB; the preset that lzma.compress() takes, 6, needs 9 MiB (xz manual)."""

_ZSTD_WINDOW_LOG: Final = 24
"""Power of two of bytes: 16 MiB. A header may ask for 2 GiB; the level that compress() takes, 3, needs 2 MiB."""

_PIECE_BYTES: Final = 2**20
"""Long frames are read in pieces of so many bytes."""


@cache  # Python looks again and again for a module that is not there
def first_of(modules: tuple[str, ...]) -> Any:
    """Return the first of these modules that is installed; raise ImportError if none is."""
    for name in modules[:-1]:
        with suppress(ImportError):
            return import_module(name)
    return import_module(modules[-1])


@record(frozen=True, slots=True)
class StreamFormat:
    """A compressed format that a library reads in pieces, so that its output can be bounded.

    Attributes:
        modules: the first that can be imported is used; each has a function compress().
        extra: to install when none can be imported; None if all are part of Python.
        decompressor_of: makes a decompressor of one stream, given the module.
    """

    prefix: bytes
    modules: tuple[str, ...]
    extra: str | None
    decompressor_of: Callable[[Any], Any]

    def library(self) -> Any:
        """Return the module; raise ImportError if it is not installed."""
        return first_of(self.modules)

    def compress(self, frame: bytes) -> bytes:
        """Return a compressed frame."""
        return self.prefix + bytes(self.library().compress(frame))

    def expand(self, compressed: bytes, max_bytes: int) -> bytes:
        """Return the frame within a compressed one.

        Raise anything when it is damaged, is followed by something or is longer than `max_bytes`, or has no library.
        """
        decompressor = self.decompressor_of(self.library())
        frame: bytes = decompressor.decompress(compressed[len(self.prefix) :], min(max_bytes + 1, _PIECE_BYTES))
        if len(frame) == _PIECE_BYTES:
            frame = b"".join((frame, *self._pieces(decompressor, max_bytes - _PIECE_BYTES)))
        if len(frame) > max_bytes:
            raise ValueError(f"it expands to more than {max_bytes} bytes")
        if not decompressor.eof or decompressor.unused_data:
            raise ValueError("truncated, or followed by something")
        return frame

    def _pieces(self, decompressor: Any, max_bytes: int) -> Iterator[bytes]:
        """Yield the rest, piece by piece: a library that is given room for all of it would join it once more."""
        while piece := decompressor.decompress(getattr(decompressor, "unconsumed_tail", b""), _PIECE_BYTES):
            max_bytes -= len(piece)
            if max_bytes < 0:
                raise ValueError("it expands to more than it may")
            yield piece
            if decompressor.eof:
                return


class CustomFormat:
    """The format of a program's own compressor; its memory cannot be bounded from here."""

    def __init__(self, compressor: Compressor) -> None:
        self._compressor = compressor
        self.prefix = frames.CUSTOM_COMPRESSOR + plugins.fingerprint(compressor)

    def compress(self, frame: bytes) -> bytes:
        """Return a compressed frame."""
        try:
            return self.prefix + self._compressor.compress(frame)
        except Exception as error:
            raise_if_foreign(error, lambda: self.prefix + self._compressor.compress(frame))
            name = frames.type_name(type(self._compressor))
            raise SerializationError(f"The compressor {name!r} failed ({type(error).__name__}).") from error

    def expand(self, compressed: bytes, max_bytes: int) -> bytes:
        """Return the frame within a compressed one; raise anything when it is damaged."""
        if not compressed.startswith(self.prefix):
            raise ValueError("another compressor's")
        frame = self._compressor.decompress(compressed[len(self.prefix) :])
        if len(frame) > max_bytes:
            raise ValueError("it expands to more than it may")
        return frame


def _zstd_decompressor(zstd: Any) -> Any:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})


Format: TypeAlias = StreamFormat | CustomFormat

FORMATS: Final[Mapping[str, StreamFormat]] = {
    "zlib": StreamFormat(frames.ZLIB, ("zlib",), None, lambda zlib: zlib.decompressobj()),
    "lzma": StreamFormat(
        frames.XZ, ("lzma",), None, lambda lzma: lzma.LZMADecompressor(lzma.FORMAT_XZ, _LZMA_MEMORY_LIMIT)
    ),
    # The first is part of Python from 3.14 on.
    "zstd": StreamFormat(frames.ZSTD, ("compression.zstd", "backports.zstd"), "zstd", _zstd_decompressor),
    "lz4": StreamFormat(frames.LZ4, ("lz4.frame",), "lz4", lambda lz4: lz4.LZ4FrameDecompressor()),
}
"""By the name that ``OPTIONS["compressor"]`` gives."""


def get_format(compressor: Any) -> Format | None:
    """Return the format of ``OPTIONS["compressor"]``, if any; raise ConfigurationError where it cannot be used."""
    if compressor is None:
        return None
    chosen = FORMATS.get(compressor) if isinstance(compressor, str) else None
    if chosen is None:
        return CustomFormat(plugins.load("compressor", compressor, tuple(FORMATS), ("compress", "decompress")))
    try:
        chosen.library()
    except ImportError as error:
        remedy = (
            installation(chosen.extra)
            if chosen.extra
            else "This Python was built without it; choose another compressor."
        )
        raise ConfigurationError(
            f"compressor is {compressor!r}, whose module {chosen.modules[-1]!r} cannot be imported ({error}). {remedy}"
        ) from error
    return chosen
