"""Frames in parts: the large texts, bytes and arrays of a value stay as they are, behind a small beginning.

A frame is one run of bytes, so that a value of 100 MB is copied to make one, and copied again to read it. A storage
that keeps frames in parts gets the beginning, and what is large uncopied; reading, it hands over each part in memory of
its own, which becomes the value's. Joined, the parts are a frame like any other.

Pickle has a place for that: protocol 5 names buffers that are handed over beside the stream. Arrays of numpy offer
theirs. Other texts, bytes and bytearrays of 64 KiB and more are passed to the file that a pickle is written to by
themselves, behind an opcode with their length; here, the opcode of a buffer takes its place.

Sources: PEP 574; save_bytes() and the like in Python's pickle.py, as in Modules/_pickle.c.
"""

import _pickle as pickle  # the C module alone
from collections.abc import Callable, Iterator, Mapping, Sequence
from struct import Struct
from types import NoneType
from typing import Any, Final, TypeAlias

from storeroom.serializers.frames import BUFFERS, BYTES, PICKLE, PICKLE_PROTOCOL, SURROGATES, TEXT
from storeroom.storage.interruptions import raise_if_foreign
from storeroom.storage.trials import Trial, names_in, note_unreadable

__all__ = [
    "PART_READERS", "WHOLE", "Part", "PartReader", "is_large", "pickle_in_parts", "read_buffers", "read_joined",
    "text_in_parts",
]  # fmt: skip

Part: TypeAlias = "bytes | bytearray | memoryview"

PartReader: TypeAlias = Callable[[bytes, Sequence[Any]], object]
"""Makes a value of the beginning of a frame and what follows it, one object or more."""

_LARGE: Final = 2**16
"""Bytes from which on pickle writes a text, or bytes, by themselves (its _FRAME_SIZE_TARGET)."""

_COUNTS: Final = Struct(">IQ")
"""The number of buffers, and the length of the stream."""
_BUFFER: Final = Struct(">cQ")
"""Kind of a buffer, and its length."""

_IS_TEXT, _IS_BYTES, _IS_BYTEARRAY = b"t", b"b", b"a"

_NEXT_BUFFER: Final = b"\x97"

_OPCODES: Final[Mapping[int, Mapping[bytes, bytes]]] = {
    8: {b"\x8d": _IS_TEXT, b"\x8e": _IS_BYTES, b"\x96": _IS_BYTEARRAY},
    4: {b"X": _IS_TEXT, b"B": _IS_BYTES},
}
"""By the bytes of the length that follows an opcode."""

_SMALL: Final = frozenset({dict, list, tuple, set, frozenset, int, float, bool, NoneType})
"""Types whose own bytes are few, or not in a row."""


def is_large(value: Any, size: int) -> bool:
    """Tell whether a value is a text, bytes or an array of more than so many bytes."""
    kind = type(value)
    if kind is str or kind is bytes:
        return len(value) > size
    if kind in _SMALL:
        return False
    try:
        return memoryview(value).nbytes > size
    except (TypeError, ValueError, BufferError):  # it is no array, or one that does not show its bytes
        return False


def text_in_parts(value: str) -> list[Part]:
    """Return the parts of a text's frame."""
    try:
        return [TEXT, value.encode()]
    except UnicodeEncodeError:
        return [SURROGATES, value.encode("utf-8", "surrogatepass")]


class _Sink:
    """The file that a pickle is written to, and what does not go into it."""

    def __init__(self) -> None:
        self.stream: list[bytes] = []
        self.buffers: list[tuple[bytes, Part]] = []

    def write(self, data: Any) -> None:
        """Take a piece of the stream, or what a length was written for just now."""
        last = self.stream[-1] if self.stream else b""
        for width, kinds in _OPCODES.items():
            kind = kinds.get(last[-1 - width : -width])
            if kind is not None and len(data) >= _LARGE and int.from_bytes(last[-width:], "little") == len(data):
                self.stream[-1] = last[: -1 - width] + _NEXT_BUFFER
                self.buffers.append((kind, bytearray(data) if kind == _IS_BYTEARRAY else bytes(data)))
                return
        self.stream.append(bytes(data))

    def keep(self, buffer: pickle.PickleBuffer) -> bool:
        """Take an array's own bytes, uncopied; return True to have pickle copy them."""
        try:
            view = buffer.raw()
        except BufferError:  # it does not lie in a row
            return True
        if view.nbytes < _LARGE:
            return True
        self.buffers.append((_IS_BYTES if view.readonly else _IS_BYTEARRAY, view))
        return False


def pickle_in_parts(value: object, trial: Trial) -> list[Part]:
    """Return the parts of a pickle's frame; raise as pickle does, or what the trial of a new class raises."""
    sink = _Sink()
    pickle.Pickler(sink, PICKLE_PROTOCOL, buffer_callback=sink.keep).dump(value)
    stream = b"".join(sink.stream)
    if names := names_in(stream):
        trial.check(
            stream, names, lambda stream: pickle.loads(stream, buffers=(_copied(*each) for each in sink.buffers))
        )
    if not sink.buffers:
        return [PICKLE, stream]
    table = [_BUFFER.pack(kind, memoryview(buffer).nbytes) for kind, buffer in sink.buffers]
    head = b"".join((BUFFERS, _COUNTS.pack(len(table), len(stream)), *table, stream))
    return [head, *(buffer for _, buffer in sink.buffers)]


def _table_of(head: bytes | memoryview) -> tuple[list[tuple[bytes, int]], int, int]:
    """Return kind and length of each buffer, and where the stream begins and ends."""
    count, length = _COUNTS.unpack_from(head, 1)
    start = 1 + _COUNTS.size + count * _BUFFER.size
    table = list(_BUFFER.iter_unpack(head[1 + _COUNTS.size : start]))
    return table, start, start + length


def read_buffers(head: bytes, buffers: Sequence[Any]) -> object:
    """Return the value of a pickle that a trusted writer has made in parts; raise anything where it is damaged."""
    table, start, end = _table_of(head)
    if [len(buffer) for buffer in buffers] != [length for _, length in table] or end != len(head):
        raise ValueError("buffers of other lengths")
    stream = head[start:end]
    try:
        return pickle.loads(stream, buffers=map(_made, table, buffers))
    except Exception as error:
        raise_if_foreign(error, read_buffers, head, buffers)
        note_unreadable(names_in(stream), error)
        raise


def _copied(kind: bytes, buffer: Any) -> object:
    """Return the object that stood where a buffer stands; one that cannot be changed may be the buffer."""
    if kind == _IS_TEXT:
        return str(buffer, "utf-8", "surrogatepass")
    return bytearray(buffer) if kind == _IS_BYTEARRAY else bytes(buffer)


def _made(entry: tuple[bytes, int], buffer: Any) -> object:
    """Do as _copied() with a buffer in memory of its own, which becomes the object."""
    return buffer if type(buffer) is bytearray and entry[0] == _IS_BYTEARRAY else _copied(entry[0], buffer)


def read_joined(frame: bytes) -> object:
    """Return the value of a frame whose parts were joined."""
    table, _, end = _table_of(frame)
    return read_buffers(frame[:end], list(_cut(memoryview(frame)[end:], [length for _, length in table])))


def _cut(view: memoryview, lengths: Sequence[int]) -> Iterator[memoryview]:
    for length in lengths:
        yield view[:length]
        view = view[length:]


def _only(parts: Sequence[Any]) -> Any:
    (part,) = parts
    return part


PART_READERS: Final[Mapping[int, PartReader]] = {
    BYTES[0]: lambda _, parts: bytes(_only(parts)),
    TEXT[0]: lambda _, parts: str(_only(parts), "utf-8"),
    SURROGATES[0]: lambda _, parts: str(_only(parts), "utf-8", "surrogatepass"),
}
"""By first byte of a frame: those that run no code."""

WHOLE: Final = frozenset((BYTES[0], TEXT[0], SURROGATES[0], PICKLE[0]))
"""First bytes of frames in which one object follows the first byte."""
