"""Entries of Django's backend and django-redis, read while a site moves from them.

Their pickles are not signed: anybody who can write to the server can run code in the program. Hence an option, off by
default. Nothing is ever written in this form.

Formats: django/core/cache/backends/redis.py; django_redis/compressors/.
"""

import pickle
import zlib
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from storeroom.exceptions import DecodeError
from storeroom.serializers import Codec

__all__ = ["ForeignReader"]

_PICKLE: Final = b"\x80"
"""PROTO, with which every pickle of protocol 2 and later begins."""


def _by(*modules: str) -> Callable[[bytes], bytes]:
    """Return the decompress() of the first of these modules that is installed, imported on first use."""

    def expand(data: bytes) -> bytes:
        installed = next(module for module in modules if _is_installed(module))
        return bytes(import_module(installed).decompress(data))

    return expand


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it belongs to
        return False


_EXPANDERS: Final[Mapping[bytes, Callable[[bytes], bytes]]] = {
    b"\x78": zlib.decompress,
    b"\x1f\x8b": _by("gzip"),
    b"\xfd7zXZ\x00": _by("lzma"),
    b"\x04\x22\x4d\x18": _by("lz4.frame"),
    b"\x28\xb5\x2f\xfd": _by("compression.zstd", "backports.zstd", "pyzstd"),
}
"""Magic number -> decompression: RFC 1950, RFC 1952, xz, LZ4 frame, RFC 8878."""


class ForeignReader:
    """A codec that also reads unsigned pickles, compressed or not; `codec` writes, and is the first to read."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.dumps = codec.dumps

    def loads(self, data: bytes, storage_key: str) -> Any:
        """Return the value that was stored under `storage_key`, by either backend.

        Raises:
            DecodeError: the bytes are of neither.
        """
        try:
            return self._codec.loads(data, storage_key)
        except DecodeError:
            if not data.startswith((_PICKLE, *_EXPANDERS)):
                raise
        try:
            return _loads(data)
        except Exception as error:  # a pickle can fail in any way
            raise DecodeError(f"Stored bytes are no pickle that can be read: {type(error).__name__}.") from error


def _loads(data: bytes) -> Any:
    expand = next((expand for magic, expand in _EXPANDERS.items() if data.startswith(magic)), bytes)
    data = expand(data)
    if not data.startswith(_PICKLE):
        raise pickle.UnpicklingError("no pickle")
    return pickle.loads(data)
