"""Values in django-redis's own bytes, so that programs on either side read what the other writes.

An integer is its digits. All else is what the serializer makes of it, compressed if there is a compressor. Plain data
in a pickle is read without running code. Instances of other classes are written with Storeroom's signature, and so are
read by Storeroom alone; ``OPTIONS["read_unsigned_pickles"]`` lets any pickle be read and written, as django-redis does.

Formats: django_redis/client/default.py, django_redis/serializers, django_redis/compressors.
"""

import importlib
import json
import lzma
import pickle
import zlib
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from typing import Any, Final

from django.core.serializers.json import DjangoJSONEncoder

from storeroom.exceptions import ConfigurationError, DecodeError, SerializationError
from storeroom.integrations.django_redis.pickles import PlainPickle
from storeroom.serializers import Codec
from storeroom.serializers.codec import OneByOne
from storeroom.serializers.compressors import FORMATS
from storeroom.serializers.frames import type_name
from storeroom.storage.envelope import Envelope, is_packed, pack, unpack
from storeroom.storage.interruptions import raise_if_foreign, value_or

__all__ = ["COMPRESSORS", "SERIALIZERS", "DjangoRedisCodec", "JSONSerializer", "MSGPackSerializer"]

_SIGNED: Final = 1
_MIN_LENGTH: Final = 15
"""Longer bytes alone are compressed; by lzma, those of more than a hundred."""
_MAX_BYTES: Final = 512 * 2**20
"""The longest string of a Redis server."""


class JSONSerializer:
    """JSON by Django's encoder, which writes dates, decimals and UUIDs as text."""

    def dumps(self, value: Any) -> bytes:
        """Return the bytes."""
        return json.dumps(value, cls=DjangoJSONEncoder).encode()

    def loads(self, data: bytes) -> Any:
        """Return the value."""
        return json.loads(data.decode())


class MSGPackSerializer:
    """MessagePack."""

    def dumps(self, value: Any) -> bytes:
        """Return the bytes."""
        packed: bytes = importlib.import_module("msgpack").dumps(value)
        return packed

    def loads(self, data: bytes) -> Any:
        """Return the value."""
        return importlib.import_module("msgpack").loads(data, raw=False)


SERIALIZERS: Final[Mapping[str, Any]] = {
    "django_redis.serializers.pickle.PickleSerializer": None,
    "django_redis.serializers.json.JSONSerializer": JSONSerializer,
    "django_redis.serializers.msgpack.MSGPackSerializer": MSGPackSerializer,
}
"""django-redis's serializers, by their paths; None stands for pickles."""

COMPRESSORS: Final[Mapping[str, str | None]] = {
    "django_redis.compressors.identity.IdentityCompressor": None,
    "django_redis.compressors.zlib.ZlibCompressor": "zlib",
    "django_redis.compressors.gzip.GzipCompressor": "gzip",
    "django_redis.compressors.lzma.LzmaCompressor": "lzma",
    "django_redis.compressors.lz4.Lz4Compressor": "lz4",
    "django_redis.compressors.zstd.ZStdCompressor": "zstd",
}
"""django-redis's compressors, by their paths."""


class _Library:
    """A compressor of django-redis, whose output is bounded here."""

    def __init__(self, name: str) -> None:
        self.name, self._min_length = name, _MIN_LENGTH
        if name == "lzma":
            self._min_length = 100
            self._compress: Callable[[bytes], bytes] = partial(lzma.compress, preset=4)
        elif name == "gzip":
            self._compress = partial(importlib.import_module("gzip").compress, mtime=0)  # the same bytes each time
        else:
            self._compress = FORMATS[name].library().compress

    def compress(self, data: bytes) -> bytes:
        """Return the bytes, compressed if they are long enough."""
        return bytes(self._compress(data)) if len(data) > self._min_length else data

    def decompress(self, data: bytes) -> bytes:
        """Return the bytes within; raise anything if they are not compressed."""
        if self.name == "gzip":
            decompressor = zlib.decompressobj(zlib.MAX_WBITS | 16)
            found = decompressor.decompress(data, _MAX_BYTES)
            if not decompressor.eof:
                raise ValueError("it is truncated, or expands to more than it may")
            return found
        known = FORMATS[self.name]
        return known.expand(known.prefix + data, _MAX_BYTES)


class DjangoRedisCodec(OneByOne):
    """Writes as django-redis does, and reads what it, or Storeroom, has written.

    Args:
        serializer: of an option: a class, or an object with ``dumps(value)`` and ``loads(bytes)``; None for pickles.
        compressor: one with ``compress(bytes)`` and ``decompress(bytes)``, or a name of `COMPRESSORS`; None for none.
        protocol: of pickles, at least 4; None for Python's own.
        signed: Storeroom's codec for other objects, with the secret.
        trusted: whether pickles of anything are read and written.
    """

    def __init__(self, serializer: Any, compressor: Any, protocol: int | None, signed: Codec, *, trusted: bool) -> None:
        self.serializer, self._protocol, self._signed, self._is_trusted = serializer, protocol, signed, trusted
        self.compressor = _Library(compressor) if isinstance(compressor, str) else compressor
        self._plain = PlainPickle(protocol)

    def dumps(self, value: Any, storage_key: str) -> bytes:
        """Return the bytes to store; raise SerializationError if they could not be read back."""
        if type(value) is Envelope:
            return pack(value, self.dumps(value.value, storage_key))
        if isinstance(value, int) and not isinstance(value, bool | Enum):
            return b"%d" % value
        return self._written(value, storage_key)

    def _written(self, value: Any, storage_key: str) -> bytes:
        try:
            return self.pressed(self.serialized(value))
        except SerializationError:
            if self.serializer is not None or self._is_trusted:
                raise
            return self._signed.dumps(value, storage_key)

    def serialized(self, value: Any) -> bytes:
        """Return what the serializer makes of a value, integers included; raise SerializationError if it cannot."""
        try:
            if self.serializer is None:
                return pickle.dumps(value, self._protocol) if self._is_trusted else self._plain.dumps(value)
            data: bytes = self.serializer.dumps(value)
        except SerializationError:
            raise
        except Exception as error:
            raise_if_foreign(error, self.serialized, value)
            raise SerializationError(
                f"The value is of type {type_name(type(value))!r} and cannot be stored ({error!r})."
            ) from error
        return data

    def pressed(self, data: bytes) -> bytes:
        """Return the bytes, compressed if that is asked for."""
        return data if self.compressor is None else self.compressor.compress(data)

    def loads(self, data: bytes, storage_key: str) -> Any:
        """Return the value; raise DecodeError if the bytes are damaged, foreign or forbidden."""
        if not data:
            raise DecodeError("Stored bytes are empty.")
        try:
            if data[0] == _SIGNED and self.serializer is None:
                return self._signed.loads(data, storage_key)
            if is_packed(data):
                return unpack(data, lambda inner: self.loads(inner, storage_key))
            return self._read(data)
        except DecodeError:
            raise
        except Exception as error:
            raise_if_foreign(error, self._read, data)
            raise DecodeError(f"Stored bytes cannot be read ({type(error).__name__}: {error}).") from error

    def _read(self, data: bytes) -> Any:
        if data.removeprefix(b"-").isdigit():
            return int(data)
        stored_bytes = len(data)
        if self.compressor is not None:
            data = self._expanded(data)
        if self.serializer is not None:
            return self.serializer.loads(data)
        if self._is_trusted:
            return pickle.loads(data)
        return self._plain.loads(data, stored_bytes)

    def _expanded(self, data: bytes) -> bytes:
        # Short bytes are not compressed, and each library has an error of its own for them.
        found: bytes | None = value_or(None, self.compressor.decompress, data)
        return data if found is None else found


def made(option: Any, known: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Return the object of a dotted path, or class, of a serializer or compressor.

    django-redis's own class where it is installed; else the equal one of `known`.

    Raises:
        ConfigurationError: there is no such class.
    """
    if not isinstance(option, str):
        return option(options=options) if isinstance(option, type) else option
    module, _, name = option.rpartition(".")
    if option in known and (known[option] is None or isinstance(known[option], str)):
        return known[option]
    try:
        return getattr(importlib.import_module(module), name)(options=options)
    except ImportError as error:
        if option in known:
            return known[option]()
        raise ConfigurationError(f"{option!r} cannot be imported ({error}).") from error
