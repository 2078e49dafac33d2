"""Entries of Django's backend and django-redis, read while a site moves from them.

Their pickles are not signed: anybody who can write to the server can run code in the program. Hence an option, off by
default. Nothing is ever written in this form.

Formats: django/core/cache/backends/redis.py; django_redis/compressors/.
"""

import pickle
from collections.abc import Mapping
from typing import Any, Final

from storeroom.exceptions import DecodeError
from storeroom.serializers import Codec
from storeroom.serializers.codec import OneByOne
from storeroom.serializers.compressors import first_of
from storeroom.storage.interruptions import raise_if_foreign

__all__ = ["ForeignReader"]

_PICKLE: Final = b"\x80"
"""PROTO, with which every pickle of protocol 2 and later begins."""


_LIBRARIES: Final[Mapping[bytes, tuple[str, ...]]] = {
    b"\x78": ("zlib",),
    b"\x1f\x8b": ("gzip",),
    b"\xfd7zXZ\x00": ("lzma",),
    b"\x04\x22\x4d\x18": ("lz4.frame",),
    b"\x28\xb5\x2f\xfd": ("compression.zstd", "backports.zstd", "pyzstd"),
}
"""Magic number -> modules with a decompress(): RFC 1950, RFC 1952, xz, LZ4 frame, RFC 8878."""


class ForeignReader(OneByOne):
    """A codec that also reads unsigned pickles, compressed or not; `codec` writes, and is the first to read."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def dumps(self, value: object, storage_key: str) -> bytes:
        """Return the bytes to store under `storage_key`."""
        return self._codec.dumps(value, storage_key)

    def loads(self, data: bytes, storage_key: str) -> Any:
        """Return the value that was stored under `storage_key`; raise DecodeError if neither backend wrote it."""
        try:
            return self._codec.loads(data, storage_key)
        except DecodeError:
            if not data.startswith((_PICKLE, *_LIBRARIES)):
                raise
        try:
            return _loads(data)
        except Exception as error:  # a pickle can fail in any way
            raise_if_foreign(error, _loads, data)
            raise DecodeError(f"Stored bytes are no pickle that can be read: {type(error).__name__}.") from error


def _loads(data: bytes) -> Any:
    modules = next((modules for magic, modules in _LIBRARIES.items() if data.startswith(magic)), None)
    if modules is not None:
        data = first_of(modules).decompress(data)
    if not data.startswith(_PICKLE):
        raise pickle.UnpicklingError("no pickle")
    return pickle.loads(data)
