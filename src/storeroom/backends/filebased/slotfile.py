"""The file ``slots``: arrays in memory that all processes of a file cache share.

A header of words of eight bytes, and for each slot:

==========  =====  =================================================================
array       bytes  meaning
==========  =====  =================================================================
``kinds``   1      `FREE`, or the queue that the slot's entry is in
``hits``    1      reads since eviction last looked at the entry, up to 2
``ring``    4      main, as a ring of slots: see queues.py
``ghosts``  8      keys evicted lately, by their checksum: see queues.py
cells       64     time of expiry or an earlier one, size, length of the key, key
==========  =====  =================================================================

A read touches ``hits`` alone. Writers change the rest, under LMDB's lock for writers.
"""

import contextlib
import math
import mmap
import os
from typing import Final

from storeroom.backends.filebased.files import identity, reserve
from storeroom.backends.filebased.folder import open_own
from storeroom.exceptions import StorageError

__all__ = [
    "AHEAD", "ATTEMPT", "BACKUP", "BLOCKS", "CELL_BYTES", "EARLIEST", "EVICTED", "FLAGS", "FREE", "GROUPS",
    "IS_REPLACED", "LEAVING", "LEAVING_MAIN", "LOCKED", "LOG", "LOGGED", "MAIN", "NUMBERS", "ROOM", "SHARE", "SMALL",
    "UNUSED", "UNUSED_LIMIT", "VERSION", "SlotFile", "last_attempt",
]  # fmt: skip

FREE: Final = 0
SMALL: Final = 1
MAIN: Final = 2
LOCKED: Final = 3
VERSION: Final = 4
LEAVING: Final = 5
LEAVING_MAIN: Final = 6
"""Kinds of slots. Those of locks, and of the versions of tags, are in no queue; nor are those that have left small, or
main, and are to be evicted next."""

FEWEST: Final = 1024

# Words of the header.
_MAGIC: Final = int.from_bytes(b"slots 2\n", "little")
_COUNT: Final = 1
_OWNER: Final = 2
IS_REPLACED: Final = 3
ATTEMPT: Final = 4
LOGGED: Final = 5
NUMBERS: Final = range(8, 22)
BACKUP: Final = range(24, 38)
_LEAVING_AT: Final = range(38, 46)
EARLIEST: Final = 46
EVICTED: Final = 47
SHARE: Final = 49
ROOM: Final = 57
UNUSED: Final = 58
UNUSED_LIMIT: Final = 59
GROUPS: Final = range(64, 96)
FLAGS: Final = range(96, 128)
LOG: Final = range(128, 512)
BLOCKS: Final = range(512, 1536)
_HEADER_BYTES: Final = BLOCKS.stop * 8

AHEAD: Final = 2 * len(_LEAVING_AT)
"""Entries that may be chosen for the next evictions: half a word of the header each."""

CELL_BYTES: Final = 64
_CELL_WORDS: Final = 8
_FLAG_AT: Final = 17
_SLOT_BYTES: Final = 1 + 1 + 4 + 8 + CELL_BYTES


def last_attempt(path: str, owner: int) -> int | None:
    """Return the number of the last write transaction that was begun; None if the file is another owner's, or none."""
    try:
        with open(open_own(path, os.O_RDONLY), "rb") as file:
            words = memoryview(file.read(_HEADER_BYTES)).cast("Q")
    except (OSError, TypeError):
        return None
    is_whole = len(words) * 8 == _HEADER_BYTES and words[0] == _MAGIC and words[_OWNER] == owner
    return words[ATTEMPT] >> 2 if is_whole else None


class SlotFile:
    """The mapped file.

    Attributes:
        kinds, hits, ring, ghosts: see the module.
        dues: when each slot comes due: its entry expires then or later.
        sizes: the bytes of each slot's entry.
        flags: whether the value of each slot's entry may be being computed, as its record tells.
        count: the number of slots: a power of two.
        file: the mapping.
        words, times: the same as words of eight bytes, and as floats.
        numbers: the words of the header that a transaction changes: see slots.py.
        leaving: the slots that were chosen for the next evictions: see queues.py.
        kinds_at, ghosts_at, cells_at: the first byte of each of the arrays.
    """

    def __init__(self, path: str, owner: int) -> None:
        """Map the file; make it if there is none. One of another owner is marked as void."""
        self._path = path
        self._owner = owner
        try:
            self.map()
        except (OSError, ValueError):
            self._make(FEWEST)
        if self.words[_OWNER] != owner:
            self.words[_OWNER] = owner
            self.words[ATTEMPT] = 0

    def map(self) -> None:
        """Map the file that is there; raise OSError or ValueError if there is none, or something else."""
        with open(open_own(self._path, os.O_RDWR), "r+b") as file:
            mapped, status = mmap.mmap(file.fileno(), 0), os.fstat(file.fileno())
        view = memoryview(mapped)
        if len(view) < _HEADER_BYTES or len(view) % 8:
            raise ValueError
        words = view.cast("Q")
        count = words[_COUNT]
        if words[0] != _MAGIC or len(view) != _HEADER_BYTES + count * _SLOT_BYTES:
            raise ValueError
        self.file, self.words, self.times, self.count = mapped, words, view.cast("d"), count
        self._identity = status.st_dev, status.st_ino
        self.numbers = words[NUMBERS.start : NUMBERS.stop]
        self.leaving = view[_LEAVING_AT.start * 8 : _LEAVING_AT.stop * 8].cast("I")
        self.kinds_at = at = _HEADER_BYTES
        self.kinds = view[at : at + count]
        self.hits = view[at + count : at + 2 * count]
        self.ring = view[at + 2 * count : at + 6 * count].cast("I")
        self.ghosts_at = at + 6 * count
        self.ghosts = view[self.ghosts_at : at + 14 * count].cast("Q")
        self.cells_at = at = at + 14 * count
        self.dues, self.sizes = self.times[at >> 3 :: _CELL_WORDS], words[(at >> 3) + 1 :: _CELL_WORDS]
        self.flags = view[at + _FLAG_AT :: CELL_BYTES]
        self.shift = (count // len(BLOCKS)).bit_length() - 1

    def _make(self, count: int) -> None:
        """Put a file of empty slots in the place of the one there may be, and map it; raise OSError without room."""
        partial = f"{self._path}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        reserve(partial, _HEADER_BYTES + count * _SLOT_BYTES)
        header = bytearray(_HEADER_BYTES)
        words, times = memoryview(header).cast("Q"), memoryview(header).cast("d")
        words[0], words[_COUNT], words[_OWNER] = _MAGIC, count, self._owner
        for word in (EARLIEST, *GROUPS, *BLOCKS):
            times[word] = math.inf
        with open(open_own(partial, os.O_RDWR), "r+b") as file:
            file.write(header)
        os.replace(partial, self._path)
        self.map()

    @property
    def is_replaced(self) -> bool:
        """Tell whether another process has made a larger file, which the next write maps."""
        return self.words[IS_REPLACED] != 0

    @property
    def is_removed(self) -> bool:
        """Tell whether something else than that has taken the file away."""
        return identity(self._path) != self._identity and not self.is_replaced

    def replace(self, count: int) -> None:
        """Go on with a new file of so many empty slots, and let all others do so; raise StorageError without room."""
        words = self.words
        words[IS_REPLACED] = 1  # before it is: no process shall go on with the old file
        try:
            self._make(count)
        except OSError as error:
            words[IS_REPLACED] = 0
            raise StorageError(f"The file cache in {self._path!r} cannot grow: {error}. Make room.") from error

    def grow(self, end: int) -> None:
        """Double the slots; main's ring ends at `end`. Raise StorageError if there is no room."""
        old, count, kinds, hits, ring, ghosts = self.file, self.count, self.kinds, self.hits, self.ring, self.ghosts
        words, cells, blocks = self.words, self.cells_at, self.times[BLOCKS.start : BLOCKS.stop].tolist()
        self.replace(2 * count)
        self.file[LOGGED * 8 : BLOCKS.start * 8] = old[LOGGED * 8 : BLOCKS.start * 8]
        self.kinds[:count], self.hits[:count] = kinds, hits
        self.ghosts[:count] = self.ghosts[count:] = ghosts  # a checksum's position gains one bit
        position = max(0, end - count)
        while position < end:
            length = min(end, (position // count + 1) * count) - position
            here, there = position % count, position % (2 * count)
            self.ring[there : there + length] = ring[here : here + length]
            position += length
        self.file[self.cells_at : self.cells_at + CELL_BYTES * count] = old[cells:]
        for number, block in enumerate(BLOCKS[:512]):
            self.times[block] = min(blocks[2 * number : 2 * number + 2])
        for number, group in enumerate(GROUPS):
            self.times[group] = min(self.times[BLOCKS.start + 32 * number :][:32])
        self.words[ATTEMPT] = words[ATTEMPT]  # last: until now the new file is void
