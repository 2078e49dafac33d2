"""The bytes of values, as codecs write and read them, for the spans in which that happens."""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import wraps
from typing import Any, Final, Self

from storeroom import storage
from storeroom.serializers.codec import Codec, SignedCodec

__all__ = ["Sized", "install", "remove"]


class Sized:
    """A block that adds up the bytes of values that are written or read in its thread or task.

    Attributes:
        bytes: so far.
        is_within: whether a codec is at work: one may turn to another.
    """

    __slots__ = ("_before", "bytes", "is_within")

    def __init__(self) -> None:
        self.bytes = 0
        self.is_within = False
        self._before: Sized | None = None

    def __enter__(self) -> Self:
        self._before = _current.get()
        _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _current.set(self._before)


_current: Final[ContextVar[Sized | None]] = ContextVar("storeroom_sized", default=None)

_plain: Final[list[tuple[Any, str, Any]]] = []
"""The methods of codecs as they were."""


def install() -> None:
    """Let codecs tell of bytes, until remove(): a program without spans pays nothing."""
    for kind in (Codec, SignedCodec):
        for name, size_of in _SIZES.items():
            method = vars(kind)[name]
            _plain.append((kind, name, method))
            setattr(kind, name, _measured(method, size_of))


def remove() -> None:
    """Let codecs be as they were."""
    while _plain:
        setattr(*_plain.pop())


def _size_of_many(_: Any, storage_keys: Any, records: Any, start: int = 0, live: Any = None) -> int:
    frames = storage.batches.left_of(storage_keys, records, start, live)
    return sum(map(len, frames.values())) - start * len(frames)


_SIZES: Final[Mapping[str, Callable[..., int]]] = {
    "dumps": lambda frame, *_: len(frame),
    "dumps_many": lambda frames, *_: sum(map(len, frames)),
    "loads": lambda _, frame, *__: len(frame),
    "loads_many": _size_of_many,
}
"""Method of a codec -> the bytes that it has written or read, by its result and its arguments."""


def _measured(method: Callable[..., Any], size_of: Callable[..., int]) -> Callable[..., Any]:
    """Return the method that adds the bytes that it has written or read."""

    @wraps(method)
    def measured(codec: Any, *given: Any) -> Any:
        sized = _current.get()
        if sized is None or sized.is_within:
            return method(codec, *given)
        sized.is_within = True
        try:
            result = method(codec, *given)
        finally:
            sized.is_within = False
        sized.bytes += size_of(result, *given)
        return result

    return measured
