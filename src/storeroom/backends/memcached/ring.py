"""The choice of one of several servers for a key: consistent hashing.

Each server has many points on a circle; a key belongs to the first point after it. A server more or less moves only the
keys next to its points: of n servers, about one key in n.

Source: D. Karger et al., "Consistent Hashing and Random Trees" (STOC 1997).
"""

import hashlib
import zlib
from bisect import bisect
from collections.abc import Iterable, Iterator
from struct import unpack
from typing import Final

__all__ = ["Ring"]

_DIGESTS: Final = 16
"""Of 16 points each: 256 points a server, with which the shares differ by some 6 % (1/sqrt(256))."""


class Ring:
    """The servers, by number. Their names are the same in all processes, in any order."""

    def __init__(self, names: Iterable[str]) -> None:
        circle = sorted((point, name, number) for number, name in enumerate(names) for point in _points(name))
        self._points = [point for point, _, _ in circle]
        self._numbers = [number for _, _, number in circle]
        self._numbers.append(self._numbers[0])  # the circle closes: after the last point comes the first

    def owner(self, storage_key: str) -> int:
        """Return the number of the server that keeps the key."""
        return self._numbers[self._position(storage_key)]

    def owners(self, storage_key: str) -> Iterator[int]:
        """Yield the numbers of all servers: the one that keeps the key, and then the others along the circle."""
        first = self._position(storage_key)
        yield from dict.fromkeys([*self._numbers[first:], *self._numbers[:first]])

    def _position(self, storage_key: str) -> int:
        return bisect(self._points, zlib.crc32(storage_key.encode("utf-8", "surrogatepass")))


def _points(name: str) -> Iterable[int]:
    for number in range(_DIGESTS):
        yield from unpack(">16I", hashlib.blake2b(f"{name} {number}".encode()).digest())
