"""The files of the environment, before LMDB maps them: private, with all their blocks, and whole."""

import contextlib
import os
import struct
from _blake2 import blake2b  # the C module alone
from collections.abc import Callable
from importlib import import_module
from typing import Final

from storeroom.backends.filebased.folder import open_own

try:
    import fcntl
except ImportError:  # Windows: opening is not guarded against a second process that opens at the same instant
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "ClosingNote", "find_fault", "identity", "is_full", "is_in_use", "last_transaction", "lock_exclusively", "origin",
    "reserve",
]  # fmt: skip

VERIFY_BYTES: Final = 2**30
"""Files up to this size are verified whole where they are in doubt: seconds. Of larger ones LMDB
checks the head of each page as it reads it, and what it finds damaged is moved aside then."""

# The meta page, from LMDB's mdb.c (MDB_page header of 16 bytes, then MDB_meta): magic, format,
# at 40 the page size, at 136 the numbers of the last page and of the transaction.
_META: Final = struct.Struct("=16xII16xI92xQQ")
_MAGIC: Final = 0xBEEFC0DE
_PAGE_BYTES: Final = range(512, 65536 + 1)


def lock_exclusively(descriptor: int) -> bool:
    """Take the lock on the open file, unless another process holds it; closing the file lets go of it."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class ClosingNote:
    """The content of the guard file: what ``data.mdb`` looked like when its last user closed it.

    A file that looks otherwise was left by a process that was killed, was changed by
    something else than LMDB, or is from before the machine was started.
    """

    def __init__(self, descriptor: int) -> None:
        """Read and write it through the open guard file, locked."""
        self._descriptor = descriptor

    def is_of(self, path: str) -> bool:
        """Tell whether the file is as it was noted; where nobody can tell who uses it, none is looked at."""
        if fcntl is None:
            return True
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        return os.read(self._descriptor, 256) == _appearance(path)

    def write(self, path: str) -> None:
        """Note what the file looks like, now that nobody has it open.

        Raises:
            OSError: the file is gone, or there is no room for the note.
        """
        # A whole second: no write leaves that, while two within a tick of the clock leave the same time.
        modified = os.stat(path).st_mtime_ns // 10**9 * 10**9
        os.utime(path, ns=(modified, modified))
        self.erase()
        os.write(self._descriptor, _appearance(path))

    def erase(self) -> None:
        """Note that the file is in use."""
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)


def _appearance(path: str) -> bytes:
    status = os.stat(path)
    return b"%s %d %d %d" % (_boot_number(), status.st_ino, status.st_size, status.st_mtime_ns)


def _boot_number() -> bytes:
    """Return what tells one start of the machine from the next; empty where the system does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return file.read(128).strip()
    except OSError:
        return b""


def origin(path: str) -> int:
    """Return a number that tells this file, since this start of the machine, from any other."""
    known = b"%s %d" % (_boot_number(), os.stat(path).st_ino)
    return int.from_bytes(blake2b(known, digest_size=8).digest(), "big")


def identity(path: str) -> tuple[int, int] | None:
    """Return what tells the file from any other that takes its name; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_in_use(lock_path: str) -> bool:
    """Tell whether another process has the environment open: LMDB then holds a lock on the first byte."""
    if fcntl is None:
        return False
    with contextlib.suppress(FileNotFoundError), open(lock_path, "r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
        except OSError:
            return True
    return False


def last_transaction(path: str) -> int:
    """Return the number of the last transaction that was committed to a file without faults."""
    with open(path, "rb") as file:
        first = _META.unpack(file.read(_META.size))
        file.seek(first[2])
        second = _META.unpack(file.read(_META.size))
    number: int = max(first[4], second[4])
    return number


def find_fault(path: str, is_in_doubt: Callable[[], bool]) -> str | None:
    """Say what is wrong with the file; None if it can be mapped. One that is in doubt is read whole."""
    with open(path, "rb") as file:
        head = file.read(_META.size)
        if len(head) < _META.size or _META.unpack(head)[0] != _MAGIC:
            return "it does not begin like an LMDB file"
        _, _, page_bytes, last_page, _ = _META.unpack(head)
        if page_bytes not in _PAGE_BYTES:
            return f"its page size would be {page_bytes} bytes"
        file.seek(page_bytes)
        second = file.read(_META.size)
    if len(second) < _META.size or _META.unpack(second)[0] != _MAGIC:
        return "its second meta page is not one"
    size, promised = os.path.getsize(path), (max(last_page, _META.unpack(second)[3]) + 1) * page_bytes
    # What was not yet on the disk when the machine stopped may be lost in part, and a byte changed within a page
    # may send LMDB beyond the map, which ends the process.
    if size <= VERIFY_BYTES and is_in_doubt():
        return _verify(path)
    if size < promised:
        # LMDB does not write pages that it freed at once, so this need not be damage. What is, reads as zeros
        # from now on, which LMDB tells from a page.
        os.truncate(path, promised)
    return None


def is_full(directory: str) -> bool:
    """Tell whether the disk has no room for a few pages more."""
    try:
        return bool(import_module("shutil").disk_usage(directory).free < 64 * 1024)
    except OSError:
        return False


def _verify(path: str) -> str | None:
    """Walk the whole file without LMDB; say what is wrong with it, or None."""
    from lmdb.verify import VerifyError, verify  # noqa: PLC0415 -- only where the file is in doubt

    try:
        problems = verify(path)  # type: ignore[no-untyped-call]  # a typed library, but for this module
    except VerifyError as error:
        return str(error)
    return str(problems[0]) if problems else None


def reserve(path: str, size: int) -> None:
    """Make the file at least this long, with all its blocks on the disk.

    Raises:
        StorageError: others may have written it.
        OSError: there is no room.
    """
    descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
    try:
        missing = size - os.fstat(descriptor).st_size
        if missing <= 0:
            return
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:
            os.lseek(descriptor, 0, os.SEEK_END)
            os.write(descriptor, bytes(missing))
    finally:
        os.close(descriptor)
