"""Classes that stored samples name: they keep their names and their module."""

import dataclasses
import enum
import json


@dataclasses.dataclass
class Basket:
    owner: str
    items: list


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int


class Color(enum.Enum):
    RED = 1


class Markup(str):
    __slots__ = ()


class Table(dict):
    """A dict whose instances may have attributes."""


class Reversed:
    """A serializer and a compressor of a program's own."""

    def dumps(self, value):
        return json.dumps(value).encode()[::-1]

    def loads(self, data):
        return json.loads(data[::-1])

    def compress(self, data):
        return data.replace(b"again and again, ", b"*")[::-1]

    def decompress(self, data):
        return data[::-1].replace(b"*", b"again and again, ")
