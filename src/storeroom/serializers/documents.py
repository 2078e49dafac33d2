"""JSON and MessagePack, held to an exact round trip.

Both turn some values into others in silence: a tuple comes back as a list, the key 1 as "1", an enum member as its
value. Here such a value is an error when it is stored, and the error names the type and its position.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from types import NoneType
from typing import Any, Final

from storeroom.exceptions import SerializationError
from storeroom.serializers.frames import type_name

__all__ = ["JsonSerializer", "MsgpackSerializer"]


@dataclass(frozen=True, slots=True)
class _Domain:
    """The values that a serializer returns as they were: dicts, lists, and these exact types.

    Attributes:
        serializer: its name.
        leaves: types of values.
        keys: types of a dict's keys.
    """

    serializer: str
    leaves: frozenset[type]
    keys: frozenset[type]

    def require_exact(self, value: object) -> None:
        """Refuse a value with anything else in it.

        The serializer has written it before, so it does not contain itself, and the walk ends.
        """
        pending = [value]
        while pending:
            container: Any = pending.pop()
            members: Any
            if type(container) is dict and self.keys.issuperset(map(type, container)):
                members = container.values()
            elif type(container) is list:
                members = container
            elif type(container) in self.leaves:
                continue
            else:
                self.refuse(value)
                continue
            if not self.leaves.issuperset(map(type, members)):
                pending.extend(members)

    def refuse(self, value: object) -> None:
        """Raise a SerializationError that names the first foreign part, if there is one."""
        for path, found in self._foreign(value, "The value"):
            raise SerializationError(
                f"{path} is of type {type_name(found)!r}, which the serializer {self.serializer!r} cannot return "
                "as it was. Convert it first, or use the serializer 'pickle'."
            )

    def _foreign(self, value: Any, path: str) -> Iterator[tuple[str, type]]:
        if type(value) is dict:
            for key, member in value.items():
                if type(key) in self.keys:
                    yield from self._foreign(member, f"{path}[{key!r:.40}]")
                else:
                    yield f"A key of {path.replace('The', 'the', 1)}", type(key)
        elif type(value) is list:
            for index, member in enumerate(value):
                yield from self._foreign(member, f"{path}[{index}]")
        elif type(value) not in self.leaves:
            yield path, type(value)


_JSON: Final = _Domain("json", frozenset({NoneType, bool, int, float, str}), frozenset({str}))
_MSGPACK: Final = _Domain("msgpack", _JSON.leaves | {bytes}, frozenset({str, bytes, int}))


class JsonSerializer:
    """JSON as Python's json module writes and reads it, NaN and infinities included."""

    def dumps(self, value: object) -> bytes:
        """Return compact JSON.

        Raises:
            SerializationError: JSON would return something else.
            ValueError, TypeError, RecursionError: json cannot write it.
        """
        try:
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        except TypeError:
            _JSON.refuse(value)
            raise
        _JSON.require_exact(value)
        return text.encode("utf-8", "surrogatepass")

    def loads(self, data: bytes) -> object:
        """Return the value; raise an error of json if it is damaged."""
        value: object = json.loads(data.decode("utf-8", "surrogatepass"))
        return value


class MsgpackSerializer:
    """MessagePack, by the msgpack package.

    Raises:
        ImportError: it is not installed.
    """

    def __init__(self) -> None:
        self._msgpack = import_module("msgpack")

    def dumps(self, value: object) -> bytes:
        """Return MessagePack.

        Raises:
            SerializationError: MessagePack would return something else.
            ValueError, TypeError, OverflowError: msgpack cannot write it.
        """
        data: bytes
        try:
            data = self._msgpack.packb(value, unicode_errors="surrogatepass")
        except TypeError:
            _MSGPACK.refuse(value)
            raise
        _MSGPACK.require_exact(value)
        return data

    def loads(self, data: bytes) -> object:
        """Return the value; raise an error of msgpack if it is damaged."""
        value: object = self._msgpack.unpackb(data, strict_map_key=False, unicode_errors="surrogatepass")
        return value
