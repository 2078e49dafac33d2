"""The codec: one value to stored bytes and back, by the rules of its configuration."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Final

from storeroom import storage
from storeroom.config.naming import named
from storeroom.exceptions import DecodeError, SerializationError
from storeroom.serializers.frames import (
    BYTES,
    SCALAR_WRITERS,
    SIGNED,
    TEXT,
    TEXT_BYTE,
    Reader,
    Writer,
    is_plain_integer,
)
from storeroom.serializers.parts import PART_READERS, Part, PartReader, text_in_parts
from storeroom.serializers.signatures import Signer
from storeroom.storage.envelope import FIRST_BYTE, Envelope, pack, unpack
from storeroom.storage.interruptions import raise_if_foreign

__all__ = ["Codec", "OneByOne", "SignedCodec"]

_NOT_SIGNED: Final = "The signature does not hold: another secret, another key, or altered bytes."


class OneByOne(ABC):
    """A codec that has no shorter way for several values than one after the other."""

    __slots__ = ()
    _reads_plain: ClassVar[bool] = False
    """Whether a frame that needs no serializer is read as it is."""

    @abstractmethod
    def dumps(self, value: object, storage_key: str) -> bytes:
        """Return the bytes to store under `storage_key`."""

    @abstractmethod
    def loads(self, data: bytes, storage_key: str) -> Any:
        """Return the value that was stored under `storage_key`; raise DecodeError if the bytes are none of its own."""

    def dumps_many(self, values: Mapping[str, object]) -> list[bytes]:
        """Return the bytes to store of values by storage key, in their order."""
        return [self.dumps(value, storage_key) for storage_key, value in values.items()]

    def loads_many(
        self, storage_keys: Sequence[str], records: Sequence[bytes | None],
        start: int = 0, live: tuple[bytes, bytes] | None = None,
    ) -> tuple[dict[str, Any], int]:  # fmt: skip
        """Return the values by storage key, and how many more there are that cannot be read: see batches.left_of()."""
        given, values = (storage_keys, records, start, live), dict[str, Any]()
        if self._reads_plain:
            values, left = storage.batches.values_of(*given, None)
        else:
            left = storage.batches.left_of(*given)
        values |= (read := self.read_each(left, start) if left else {})
        for storage_key in left.keys() - read.keys():
            values.pop(storage_key, None)
        return values, len(left) - len(read)

    def read_each(self, left: Mapping[str, bytes], start: int) -> dict[str, Any]:
        """Return the values by storage key, without those that cannot be read."""
        values: dict[str, Any] = {}
        for storage_key, data in left.items():
            with suppress(DecodeError):
                values[storage_key] = self.loads(data[start:], storage_key)
        return values


class Codec(OneByOne):
    """Turns values into stored bytes and back. `build_codec` makes one, which threads may share.

    Args:
        write: makes a frame of a value that is no scalar.
        readers: by first byte of a frame.
        compress: makes a compressed frame of a frame; None for no compression.
        compress_min_bytes: shorter frames are left as they are.
        part_readers: by first byte of a frame in parts.
        write_parts: makes the parts of a value that is no scalar; None where it is to be written as one.
    """

    _reads_plain = True
    __slots__ = ("_compress", "_compress_min_bytes", "_part_readers", "_readers", "_write", "_write_parts")

    def __init__(
        self,
        write: Writer,
        readers: Mapping[int, Reader],
        compress: Callable[[bytes], bytes] | None = None,
        compress_min_bytes: int = 0,
        part_readers: Mapping[int, PartReader] = PART_READERS,
        write_parts: Callable[[object], list[Part]] | None = None,
    ) -> None:
        self._write = write
        self._readers = readers
        self._compress = compress
        self._compress_min_bytes = sys.maxsize if compress is None else compress_min_bytes
        self._part_readers = part_readers
        self._write_parts = write_parts

    def dumps(self, value: object, storage_key: str) -> bytes:
        """Return the bytes to store under `storage_key`.

        Raises:
            SerializationError: the value could not be read back. The message names its type and key, never the value.
        """
        if type(value) is str and len(value) + 1 < self._compress_min_bytes and value.isascii():
            return TEXT + value.encode()  # as the writer in the table, without the call
        if type(value) is Envelope:
            return pack(value, Codec.dumps(self, value.value, storage_key))
        try:
            frame = SCALAR_WRITERS.get(type(value), self._write)(value)
        except SerializationError as error:
            named(error, "", storage_key)
            raise
        if len(frame) < self._compress_min_bytes or self._compress is None or is_plain_integer(frame):
            return frame
        compressed = self._compress(frame)
        return compressed if len(compressed) < len(frame) else frame

    def dumps_many(self, values: Mapping[str, object]) -> list[bytes]:
        """Return the bytes to store of values by storage key, in their order."""
        frames: list[Any] = storage.batches.frames_of(values, self._compress_min_bytes)
        if all(frames):
            return frames
        each = zip(frames, values.items(), strict=True)
        return [frame or self.dumps(value, storage_key) for frame, (storage_key, value) in each]

    def loads(self, data: bytes, storage_key: str) -> Any:
        """Return the value that was stored under `storage_key`.

        Raises:
            DecodeError: the bytes are damaged, foreign or forbidden. Nothing else is raised.
        """
        try:
            if data[0] == TEXT_BYTE:  # as the reader in the table, without the call
                return data[1:].decode()
            return self._readers[data[0]](data)
        except DecodeError:
            raise
        except Exception as error:
            # Damaged bytes can make a reader fail in any way.
            raise_if_foreign(error, self._read, data)
            raise self._unreadable(data, len(data), error) from error

    def _unreadable(self, data: bytes, length: int, error: Exception) -> DecodeError:
        first = f"first 0x{data[0]:02x}" if data else "none"
        reason = "unknown to this codec" if data and data[0] not in self._readers else type(error).__name__
        return DecodeError(f"Stored bytes cannot be read ({length} bytes, {first}): {reason}.")

    def parts_of(self, value: object, storage_key: str) -> list[Part]:
        """Return the bytes to store in parts: a beginning, and what is large, uncopied; raise as dumps() does.

        Whoever keeps the parts apart reads them by loads_parts(). Joined, they are read by loads().
        """
        if type(value) is Envelope:
            head, *more = Codec.parts_of(self, value.value, storage_key)
            return [pack(value, bytes(head)), *more]
        if self._compress is None:
            if type(value) is str:
                return text_in_parts(value)
            if type(value) is bytes:
                return [BYTES, value]
            if self._write_parts is not None and type(value) not in SCALAR_WRITERS:
                return self._written_parts(self._write_parts, value, storage_key)
        return [Codec.dumps(self, value, storage_key)]

    def _written_parts(self, write: Callable[[object], list[Part]], value: object, storage_key: str) -> list[Part]:
        try:
            return write(value)
        except SerializationError as error:
            named(error, "", storage_key)
            raise

    def loads_parts(self, head: bytes, parts: Sequence[Any], storage_key: str) -> Any:
        """Return the value of a frame in parts, each in memory of its own, which may become the value's.

        Raises:
            DecodeError: as loads() does.
        """
        try:
            return self._read_parts(head, parts)
        except DecodeError:
            raise
        except Exception as error:
            raise_if_foreign(error, self._read_parts, head, parts)
            raise self._unreadable(head, len(head) + sum(map(len, parts)), error) from error

    def _read_parts(self, head: bytes, parts: Sequence[Any]) -> Any:
        if head[:1] == FIRST_BYTE:
            return unpack(head, lambda inner: self._read_parts(inner, parts))
        if parts and (read := self._part_readers.get(head[0])) is not None:
            return read(head, parts)
        return self._readers[head[0]](b"".join((head, *parts)))

    loads_many = OneByOne.loads_many  # its own, as spans tell what each class reads

    def read_each(self, left: Mapping[str, bytes], start: int) -> dict[str, Any]:
        """Return the values by storage key, without those that cannot be read."""
        try:
            return self._read_all(left, start)
        except Exception as error:  # noqa: BLE001 -- as in loads()
            raise_if_foreign(error, self._read_all, left, start)
        return super().read_each(left, start)

    def _read_all(self, frames: Mapping[str, bytes], start: int) -> dict[str, Any]:
        """Do as read_each() where all can be read."""
        readers, text, behind = self._readers, TEXT_BYTE, start + 1
        return {
            storage_key: data[behind:].decode() if (first := data[start]) == text else readers[first](data[start:])
            for storage_key, data in frames.items()
        }

    def _read(self, data: bytes) -> Any:
        return self._readers[data[0]](data)


class SignedCodec(Codec):
    """A codec that signs all it writes but integers, and reads only signed bytes and integers."""

    __slots__ = ("_signer",)

    def __init__(self, signer: Signer, *codec: Any) -> None:
        super().__init__(*codec)
        self._signer = signer

    def dumps(self, value: object, storage_key: str) -> bytes:
        """Return the bytes to store, signed for `storage_key`."""
        frame = super().dumps(value, storage_key)
        return frame if is_plain_integer(frame) else self._signer.sign(frame, storage_key)

    # One by one, as each is bound to its key: the short ways of other codecs know no signature.
    dumps_many, loads_many = OneByOne.dumps_many, OneByOne.loads_many
    read_each, _reads_plain = OneByOne.read_each, False

    def loads(self, data: bytes, storage_key: str) -> Any:
        """Return the value, if it was signed for `storage_key`."""
        if data[:1] == SIGNED:
            frame = self._signer.verify(data, storage_key)
            if frame is None:
                raise DecodeError(_NOT_SIGNED)
            return super().loads(frame, storage_key)
        if data and is_plain_integer(data):
            return super().loads(data, storage_key)
        raise DecodeError("Stored bytes are not signed, and a secret is set.")

    def parts_of(self, value: object, storage_key: str) -> list[Part]:
        """Return the bytes to store in parts, the first of which has the signature of all."""
        head, *more = super().parts_of(value, storage_key)
        head = bytes(head)
        return [head if is_plain_integer(head) else self._signer.sign(head, storage_key, *more), *more]

    def loads_parts(self, head: bytes, parts: Sequence[Any], storage_key: str) -> Any:
        """Return the value, if all parts were signed for `storage_key`."""
        if head[:1] != SIGNED:
            return self.loads(head + b"".join(parts), storage_key)
        frame = self._signer.verify(head, storage_key, *parts)
        if frame is None:
            raise DecodeError(_NOT_SIGNED)
        return super().loads_parts(frame, parts, storage_key)

    def secret_of(self, data: bytes, storage_key: str) -> tuple[int | None, int]:
        """Return the number of the secret that has signed stored bytes, None for another one; and how many there are.

        The first, 0, is the one that signs now.
        """
        return self._signer.secret_of(data, storage_key)
