"""Disk space of removed entries, given back to the file system while others use the cache.

An LMDB file never shrinks: pages that are free are used again. Their blocks can be given back all the same, as holes in
the file, which read as zeros and take no room. LMDB writes a page whole before it reads it again.

Source: LMDB's mdb.c. A record of its tree of free pages is named by the transaction that freed them; a writer may use
those of records older than the last transaction, and than every reader's (mdb_page_alloc, mdb_find_oldest). Pages and
nodes are laid out as in MDB_page and MDB_node.
"""

import errno
import os
import struct
import sys
from array import array
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final

__all__ = ["give_back"]

_HEADER: Final = struct.Struct("=QHHHH")  # number, padding, flags, ends of the free room in the page
_NODE: Final = struct.Struct("=HHHH")  # two halves of a number, flags, size of the key
_META: Final = struct.Struct("=40xI36xQ48xQQ")  # size of a page, root of the free pages, last page, transaction
_NONE: Final = 2**64 - 1
_BRANCH: Final = 0x01  # flags of a page
_IS_ASIDE: Final = 0x01  # flag of a node: its data are in pages of their own
_META_BYTES: Final = 16 + 136

_KEEP_SIZE_AND_PUNCH: Final = 0x01 | 0x02  # linux/falloc.h

_UNABLE: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EINVAL})
"""Errors of file systems that have no holes."""


def give_back(path: str, readers: str) -> int | None:
    """Give the blocks of free pages back, while this process is the one that writes. Return bytes, or None if unable.

    Args:
        path: of ``data.mdb``.
        readers: the table of readers, as LMDB writes it.
    """
    if not sys.platform.startswith("linux"):
        return None
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        before = os.fstat(descriptor).st_blocks
        page_bytes, root, last = _meta(descriptor)
        free = array("Q")
        for number, pages in _Tree(descriptor, page_bytes).records(root):
            if number < min([last, *_oldest(readers)]):
                free.extend(pages)
        if not all(_punch(descriptor, start * page_bytes, count * page_bytes) for start, count in _runs(sorted(free))):
            return None
        return max(0, before - os.fstat(descriptor).st_blocks) * 512
    finally:
        os.close(descriptor)


def _meta(descriptor: int) -> tuple[int, int, int]:
    """Return the size of a page, the root of the tree of free pages, and the last transaction."""
    page_bytes = _META.unpack(os.pread(descriptor, _META.size, 0))[0]
    metas = [_META.unpack(os.pread(descriptor, _META.size, position)) for position in (0, page_bytes)]
    _, root, _, last = max(metas, key=lambda meta: int(meta[3]))
    return page_bytes, root, last


def _oldest(readers: str) -> Iterator[int]:
    """Yield the transaction of each reader under way: the third column, but for those that rest."""
    for line in readers.splitlines()[1:]:
        words = line.split()
        if words[2:] and words[2].isdigit():
            yield int(words[2])


class _Tree:
    """The tree of free pages."""

    def __init__(self, descriptor: int, page_bytes: int) -> None:
        self._descriptor, self._page_bytes = descriptor, page_bytes

    def _page(self, number: int, count: int = 1) -> bytes:
        return os.pread(self._descriptor, count * self._page_bytes, number * self._page_bytes)

    def records(self, root: int) -> "Iterator[tuple[int, array[int]]]":
        """Yield each transaction that has freed pages, and their numbers."""
        waiting = [] if root == _NONE else [root]
        while waiting:
            page = self._page(waiting.pop())
            _, _, flags, lower, _ = _HEADER.unpack_from(page)
            for node in struct.unpack_from(f"={(lower - _HEADER.size) // 2}H", page, _HEADER.size):
                low, high, more, key_bytes = _NODE.unpack_from(page, node)
                if flags & _BRANCH:
                    waiting.append(low | high << 16 | more << 32)
                else:
                    start = node + _NODE.size
                    (number,) = struct.unpack_from("=Q", page, start)
                    yield number, self._numbers(page, start + key_bytes, low | high << 16, is_aside=more & _IS_ASIDE)

    def _numbers(self, page: bytes, start: int, size: int, *, is_aside: int) -> "array[int]":
        """Return the numbers in the data of a node: the first word is how many there are."""
        data = page[start : start + size]
        if is_aside:
            (first,) = struct.unpack_from("=Q", page, start)
            count = -(-(size + _HEADER.size) // self._page_bytes)
            data = self._page(first, count)[_HEADER.size : _HEADER.size + size]
        numbers = array("Q", data)
        return numbers[1 : 1 + numbers[0]]


def _runs(pages: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the first of each row of pages, and how many they are.

    >>> list(_runs([3, 4, 5, 9]))
    [(3, 3), (9, 1)]
    """
    start = 0
    for position in range(1, len(pages) + 1):
        if position == len(pages) or pages[position] != pages[position - 1] + 1:
            yield pages[start], position - start
            start = position


def _punch(descriptor: int, offset: int, size: int) -> bool:
    """Make a hole in a file; return whether the file system has such."""
    ctypes: Any = import_module("ctypes")
    library = ctypes.CDLL(None, use_errno=True)
    punch = library.fallocate64 if hasattr(library, "fallocate64") else library.fallocate
    punch.argtypes = ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64
    if punch(descriptor, _KEEP_SIZE_AND_PUNCH, offset, size) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNABLE:
        return False
    raise OSError(number, os.strerror(number))
