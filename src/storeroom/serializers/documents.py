"""JSON and MessagePack, held to an exact round trip.

Both turn some values into others in silence: a tuple comes back as a list, the key 1 as "1", an enum member as its
value. Here such a value is an error when it is stored, and the error names the type and its position. A text that is
marked as safe for HTML is a text: that is how template engines take what they have put in the cache.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from types import NoneType
from typing import Any, Final, NamedTuple

from storeroom.exceptions import SerializationError
from storeroom.serializers.bounds import MAX_DEPTH, Limits, TooMuchError, require_readable, require_shallow
from storeroom.serializers.frames import is_markup, type_name
from storeroom.serializers.slots import FREE_KEYS, Pace

__all__ = ["json_serializer", "msgpack_serializer"]

_LEAVES: Final = frozenset({NoneType, bool, int, float, str})
_write_json: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class DocumentSerializer:
    """A serializer of dicts, lists, and some exact types.

    Attributes:
        write: returns a value's bytes; TypeError tells of a type that it does not know.
        read: returns the value of such bytes; raises anything if they are damaged.
        count: returns how much is in such bytes, or more; raises anything if it cannot. It may end when it has found
            more members than a number that it is given.
        watch: reads bytes of a large dict with other keys than texts, and raises TooMuchError if that takes too long.
        leaves: types of values.
        keys: types of a dict's keys.
        limits: bounds on what is read; None where nobody else can have written it.
    """

    name: str
    write: Callable[[Any], bytes]
    read: Callable[[bytes], Any]
    count: Callable[[bytes, int], "Counted"]
    watch: Callable[[bytes], Any]
    leaves: frozenset[type]
    keys: frozenset[type]
    limits: Limits | None

    def dumps(self, value: object) -> bytes:
        """Return the bytes; raise SerializationError if `loads` would return another value, or the writer's error."""
        try:
            data = self.write(value)
        except TypeError:
            self._refuse(value)
            raise
        self.require_exact(value)
        if self.limits is not None:
            require_readable(value, data, self._try)
        return data

    def _try(self, data: bytes, stored_bytes: int) -> int:
        """Do as `check` does, and make the value if only that shows whether it takes too long."""
        counted = self.check(data, stored_bytes)
        if counted.longest_map > FREE_KEYS:
            self.watch(data)
        return counted.unchecked

    def loads(self, data: bytes, stored_bytes: int = 0) -> Any:
        """Return the value; raise anything if the bytes are damaged, or beyond the limits.

        Args:
            data: the bytes.
            stored_bytes: the length of the compressed bytes that these come of, if they do.
        """
        if self.limits is None:
            return self.read(data)
        counted = self.check(data, stored_bytes or len(data))
        value = self.watch(data) if counted.longest_map > FREE_KEYS else self.read(data)
        if counted.unchecked:
            require_shallow(value, counted.unchecked, is_tree=True)
        return value

    def check(self, data: bytes, stored_bytes: int) -> "Counted":
        """Raise anything for bytes of a value that would be too large; return what is in them."""
        if self.limits is None or len(data) <= _HARMLESS_BYTES:
            return Counted()
        counted = self.count(data, self.limits.held(stored_bytes) // _MEMBER_BYTES)
        if counted.containers > _FEW_CONTAINERS and _LEAST_BYTES * counted.containers > len(data):
            raise TooMuchError(f"has {counted.containers} containers, of less than {_LEAST_BYTES} bytes each")
        self.limits.require_room(len(data) + counted.held, stored_bytes)
        return counted

    def require_exact(self, value: object) -> None:
        """Refuse a value with anything else in it.

        The serializer has written it before, so it does not contain itself, and the walk ends.
        """
        pending = [value]
        while pending:
            container: Any = pending.pop()
            members: Any
            if type(container) is dict and (
                self.keys.issuperset(map(type, container)) or all(map(self._is_key, map(type, container)))
            ):
                members = container.values()
            elif type(container) is list:
                members = container
            elif self._is_leaf(type(container)):
                continue
            else:
                self._refuse(value)
                continue
            if not self.leaves.issuperset(map(type, members)):
                pending.extend(members)

    def _is_key(self, kind: type) -> bool:
        return kind in self.keys or is_markup(kind)

    def _is_leaf(self, kind: type) -> bool:
        return kind in self.leaves or is_markup(kind)

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
                if self._is_key(type(key)):
                    yield from self._foreign(member, f"{path}[{key!r:.40}]")
                else:
                    yield f"A key of {path.replace('The', 'the', 1)}", type(key)
        elif type(value) is list:
            for index, member in enumerate(value):
                yield from self._foreign(member, f"{path}[{index}]")
        elif not self._is_leaf(type(value)):
            yield path, type(value)


_HARMLESS_BYTES: Final = 500
"""So few bytes hold no more than so many containers."""

_FEW_CONTAINERS: Final = 2**17
"""As many are made in a few hundredths of a second. The collector of garbage goes through more again and again."""

_LEAST_BYTES: Final = 2.5
"""Of a container and its members: a list of one number takes two bytes in MessagePack, and three in JSON."""

_CONTAINER_BYTES: Final = 72  # of memory, as sys.getsizeof() has it, with the garbage collector's part
_MAP_BYTES: Final = 160  # more, of a dict that has members: it has room for five
_MEMBER_BYTES: Final = 16  # in a list that grows; a number beyond the small ones is longer than one byte here, too


class Counted(NamedTuple):
    """The number of containers in some bytes, of those that are dicts with members, of members, and of a dict's."""

    containers: int = 0
    maps: int = 0
    members: int = 0
    longest_map: int = 0

    @property
    def held(self) -> int:
        """The bytes of memory that they take."""
        return _CONTAINER_BYTES * self.containers + _MAP_BYTES * self.maps + _MEMBER_BYTES * self.members

    @property
    def unchecked(self) -> int:
        """The number of containers of which the depth is still to be checked, when the value is there; 0 for none."""
        return self.containers if self.containers > MAX_DEPTH else 0


def _count_json(data: bytes, _: int) -> Counted:
    """Count brackets and commas, in texts too."""
    maps = data.count(b"{")
    containers = data.count(b"[") + maps
    return Counted(containers, maps - data.count(b"{}"), containers + data.count(b","))


def _read_json(data: bytes) -> Any:
    return json.loads(data.decode("utf-8", "surrogatepass"))


def json_serializer(limits: Limits | None = None) -> DocumentSerializer:
    """Return that of JSON as Python's json module writes and reads it, NaN and infinities included."""
    return DocumentSerializer(
        "json",
        lambda value: _write_json(value).encode("utf-8", "surrogatepass"),
        _read_json,
        _count_json,
        _read_json,
        _LEAVES,
        frozenset({str}),
        limits,
    )


_SIMPLE: Final = (
    rb"(?:[\x00-\x7f\xc0\xc2\xc3\xe0-\xff]+"  # small integers, nil, false, true
    rb"|[\xcb\xcf\xd3].{8}|[\xca\xce\xd2].{4}"  # numbers
    rb"|" + b"|".join(b"\\x%02x.{%d}" % (0xA0 + length, length) for length in range(32)) +  # short texts
    rb"|[\xcc\xd0].|[\xcd\xd1]..)"
)  # fmt: skip
_skip_simple: Final = re.compile(rb"(?:" + _SIMPLE + rb"|[\x80-\x9f]+){0,1000}", re.DOTALL).match
_short_containers: Final = re.compile(_SIMPLE + rb"*([\x80-\x9f]*)", re.DOTALL).findall
"""https://github.com/msgpack/msgpack/blob/master/spec.md#formats"""

_is_all_codes: Final = re.compile(rb"[\x00-\x9f\xc0\xc2\xc3\xe0-\xff]*").fullmatch
_NO_SHORT_CONTAINER: Final = bytes(range(128)) + bytes(range(160, 256))

_SHORT_MEMBERS: Final = bytes(128) + bytes(range(0, 32, 2)) + bytes(range(16)) + bytes(96)
"""Table from the first byte of a short map or array to the number of its members."""

_SIZES: Final = {
    0xC4: (1, 0),
    0xC5: (2, 0),
    0xC6: (4, 0),  # bytes
    0xD9: (1, 0),
    0xDA: (2, 0),
    0xDB: (4, 0),  # texts
    0xDC: (2, 1),
    0xDD: (4, 1),  # arrays
    0xDE: (2, 2),
    0xDF: (4, 2),  # maps
}
"""First byte to the number of bytes that tell the length, and the members of a container for each. Extensions are no
plain data, and those that are times take long to compare."""


def _count_msgpack(data: bytes, most: int) -> Counted:
    """Count containers and the members that they lay claim to: the reader makes room for these before it sees them."""
    position = containers = maps = members = longest_map = 0
    while position < len(data) and members <= most:
        skipped = _skip_simple(data, position)
        if skipped is not None and skipped.end() > position:
            found = skipped.group().translate(None, _NO_SHORT_CONTAINER)
            if found and not _is_all_codes(skipped.group()):  # bytes of texts and numbers are among them
                found = b"".join(_short_containers(data, position, skipped.end()))
            containers += len(found)
            maps += len(found.translate(None, _NO_SHORT_MAP))
            members += sum(found.translate(_SHORT_MEMBERS))
            position = skipped.end()
        else:
            size, each = _SIZES[data[position]]
            counted = int.from_bytes(data[position + 1 : position + 1 + size], "big")
            position += 1 + size + (0 if each else counted)
            containers += each > 0
            members += each * counted
            if each == _IN_A_MAP:
                maps += 1
                longest_map = max(longest_map, counted)
        if members >= len(data):
            raise ValueError("more members than bytes")
    return Counted(containers, maps, members, longest_map)


_IN_A_MAP: Final = 2
_NO_SHORT_MAP: Final = bytes(range(0x81)) + bytes(range(0x90, 256))


def _watched(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Make a dict; raise TooMuchError if its keys were chosen to be in each other's way."""
    table: dict[Any, Any] = {}
    if len(pairs) > FREE_KEYS:
        Pace(table).put(len(pairs), lambda start, end: table.update(pairs[start:end]))
        return table
    return dict(pairs)


def msgpack_serializer(limits: Limits | None = None) -> DocumentSerializer:
    """Return that of MessagePack, by the msgpack package; raise ImportError if it is not installed."""
    msgpack = import_module("msgpack")
    read = partial(msgpack.unpackb, strict_map_key=False, unicode_errors="surrogatepass")
    return DocumentSerializer(
        "msgpack",
        partial(msgpack.packb, unicode_errors="surrogatepass"),
        read,
        _count_msgpack,
        partial(read, object_pairs_hook=_watched),
        _LEAVES | {bytes},
        frozenset({str, bytes, int}),
        limits,
    )
