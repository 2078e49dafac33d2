"""JSON and MessagePack, held to an exact round trip.

Both turn some values into others in silence: a tuple comes back as a list, the key 1 as "1", an enum member as its
value. Here such a value is an error when it is stored, and the error names the type and its position.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from types import NoneType
from typing import Any, Final

from storeroom.exceptions import SerializationError
from storeroom.serializers.frames import type_name

__all__ = ["json_serializer", "msgpack_serializer"]

_LEAVES: Final = frozenset({NoneType, bool, int, float, str})
_write_json: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class DocumentSerializer:
    """A serializer of dicts, lists, and some exact types.

    Attributes:
        write: returns a value's bytes; TypeError tells of a type that it does not know.
        loads: returns the value of such bytes; raises anything if they are damaged.
        leaves: types of values.
        keys: types of a dict's keys.
    """

    name: str
    write: Callable[[Any], bytes]
    loads: Callable[[bytes], Any]
    leaves: frozenset[type]
    keys: frozenset[type]

    def dumps(self, value: object) -> bytes:
        """Return the bytes; raise SerializationError if `loads` would return another value, or the writer's error."""
        try:
            data = self.write(value)
        except TypeError:
            self._refuse(value)
            raise
        self.require_exact(value)
        return data

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
                self._refuse(value)
                continue
            if not self.leaves.issuperset(map(type, members)):
                pending.extend(members)

    def _refuse(self, value: object) -> None:
        """Raise a SerializationError that names the first foreign part, if there is one."""
        for path, found in self._foreign(value, "The value"):
            raise SerializationError(
                f"{path} is of type {type_name(found)!r}, which the serializer {self.name!r} cannot return "
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


def json_serializer() -> DocumentSerializer:
    """Return that of JSON as Python's json module writes and reads it, NaN and infinities included."""
    return DocumentSerializer(
        "json",
        lambda value: _write_json(value).encode("utf-8", "surrogatepass"),
        lambda data: json.loads(data.decode("utf-8", "surrogatepass")),
        _LEAVES,
        frozenset({str}),
    )


def msgpack_serializer() -> DocumentSerializer:
    """Return that of MessagePack, by the msgpack package; raise ImportError if it is not installed."""
    msgpack = import_module("msgpack")
    return DocumentSerializer(
        "msgpack",
        partial(msgpack.packb, unicode_errors="surrogatepass"),
        partial(msgpack.unpackb, strict_map_key=False, unicode_errors="surrogatepass"),
        _LEAVES | {bytes},
        frozenset({str, bytes, int}),
    )
