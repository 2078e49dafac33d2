"""Room for removals where there is none for anything else: no older value outlives one that found no room.

A removal takes a few pages itself. LMDB changes none in place, and a page that is freed serves the second write after.
So a map that is full to its last page, or a full disk, would keep entries as they are. Against that:

- A process that has met the end of the map leaves `PAGES` of it alone from then on, and refuses a write that would not.
  The removal that comes first finds none of them left, and makes the map larger by as many.
- On a full disk the map ends where the file ends, so that the same holds. The removal that comes first is given the
  blocks of ``ballast``, a file that is there for nothing else, and that is filled again as soon as there is room.
"""

import contextlib
import math
import os
import time
from collections.abc import Callable
from typing import Any, Final

import lmdb

from storeroom.backends.filebased.files import is_full, reserve
from storeroom.exceptions import StorageError

__all__ = ["Room", "is_read"]

PAGES: Final = 24
"""Pages left alone: a removal takes about eight, those of the tree and of LMDB's list of free ones, and the next one,
which comes before the pages freed by it can be used, as many again."""

BALLAST_BYTES: Final = 2**18
"""Room for the first removal of each of some processes."""

_GROWING_SECONDS: Final = 0.5

_STEP_BYTES: Final = 2**14

_NUMBERS: Final = 512
"""Numbers of pages in one page of LMDB's list of those that a transaction has freed, which lie in a row."""

_PAGE: Final = bytes(3000)
"""A value that takes a page of its own."""


class Room:
    """The room of one environment, as this process knows it. All but `leave()` needs the environment to be idle.

    Attributes:
        is_tight: whether writes have to leave some.
        ends_with_file: whether the map does, as the disk is full.
    """

    def __init__(self, directory: str, map_bytes: int) -> None:
        """Note the greatest size of the map."""
        self._directory, self._map_bytes = directory, map_bytes
        self._ballast = os.path.join(directory, "ballast")
        self.is_tight = self.ends_with_file = self._is_lent = False
        self._grown_at = -math.inf

    def open(self, environment: Any) -> None:
        """Find out how much there is in an environment that was opened."""
        self.ends_with_file = False
        self.is_tight = _pages(environment) + PAGES >= environment.info()["map_size"] // _page_bytes(environment)
        self.settle(environment)

    def follow(self, environment: Any) -> bool:
        """Map as much as another process does, if its map is larger; return True, as find() may."""
        before = environment.info()["map_size"]
        if self.ends_with_file and _pages(environment) * _page_bytes(environment) <= before:
            return True
        environment.set_mapsize(0)
        after = environment.info()["map_size"]
        if after < before:  # of a map that nobody has written with yet
            environment.set_mapsize(before)
        self.ends_with_file = False
        if after > before:
            self._grown_at = time.monotonic()
        return True

    @property
    def has_grown(self) -> bool:
        """Whether the map was larger elsewhere a moment ago: other threads may come with an error of before."""
        return time.monotonic() - self._grown_at < _GROWING_SECONDS

    def find(self, environment: Any, error: lmdb.Error, *, frees: bool) -> bool:
        """Look for room for a write that found none; tell whether it is worth another try.

        Args:
            environment: the environment.
            error: the write's.
            frees: whether the write takes nothing for long, so that it may have what others leave.
        """
        is_map_full, is_disk_full = isinstance(error, lmdb.MapFullError), is_full(self._directory)
        if not is_map_full and not is_disk_full:
            return False
        self.is_tight = True
        if frees:
            self._is_lent = self.ends_with_file or is_disk_full
            if is_disk_full:
                with contextlib.suppress(FileNotFoundError):
                    os.truncate(self._ballast, 0)
            pages = PAGES + _pages(environment) // _NUMBERS
            environment.set_mapsize(environment.info()["map_size"] + pages * _page_bytes(environment))
            return True
        if not is_map_full:
            self._end_with_file(environment)
        elif self.ends_with_file and self._fill() and not is_full(self._directory):
            environment.set_mapsize(self._map_bytes)
            self.ends_with_file = False
            return self.follow(environment)
        return False

    @property
    def is_settled(self) -> bool:
        """Whether there is a whole ballast, or none is needed: the first removal finds room."""
        if self._is_lent:
            return False
        if self.ends_with_file:
            return True
        try:
            return os.path.getsize(self._ballast) >= BALLAST_BYTES
        except OSError:
            return False

    def settle(self, environment: Any) -> bool:
        """Take back what a removal on a full disk has left over; return True, as find() may."""
        self._is_lent = False
        if not self._fill():
            self._end_with_file(environment)
        return True

    def leave(self, environment: Any, transaction: Any, abort: Callable[[Any], None]) -> None:
        """Raise MapFullError if a removal would find too little room after this write transaction."""
        trial = environment.begin(parent=transaction, write=True)
        try:
            for number in range(PAGES):
                trial.put(b"r%d" % number, _PAGE)
        finally:
            abort(trial)

    def failure(self, location: str, error: lmdb.Error) -> StorageError:
        """Return the error of an operation that this one has ended."""
        if isinstance(error, lmdb.MapFullError) and not self.ends_with_file:
            return StorageError(
                f"The file cache in {location!r} has reached its greatest size of {self._map_bytes} bytes; "
                "bound it by OPTIONS['max_bytes'], or raise OPTIONS['map_size']."
            )
        # LMDB tells a full disk in two ways, depending on whether the last write went in by half.
        room = " The disk is full: make room." if self.ends_with_file or is_full(self._directory) else ""
        return StorageError(
            f"The file cache in {location!r} failed: {error}.{room} What was stored before is not affected."
        )

    def _end_with_file(self, environment: Any) -> None:
        self.is_tight = self.ends_with_file = True
        environment.set_mapsize(_page_bytes(environment))  # LMDB makes it as large as it has to be

    def _fill(self) -> bool:
        """Give the ballast its size again, or as much as there is room for; return whether it has it."""
        try:
            reserve(self._ballast, BALLAST_BYTES)
        except OSError:
            with contextlib.suppress(OSError):
                for size in range(_STEP_BYTES, BALLAST_BYTES, _STEP_BYTES):
                    reserve(self._ballast, size)
            return False
        return True


def is_read(environment: Any) -> bool:
    """Tell whether this process reads now. A transaction that has ended may still be referred to, by an error."""
    readers = (line.split() for line in environment.readers().splitlines())
    return any(fields[0] == str(os.getpid()) and fields[-1] != "-" for fields in readers)


def _pages(environment: Any) -> int:
    return int(environment.info()["last_pgno"]) + 1


def _page_bytes(environment: Any) -> int:
    return int(environment.stat()["psize"])
