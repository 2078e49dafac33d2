"""The LMDB environment behind a file cache: opened privately, shared by all handles, replaced when damaged.

Everything lies in one subdirectory of LOCATION, named after the format, so that two
versions of Storeroom with different formats can share a LOCATION without meeting:

====================  ==========================================================
``data.mdb``          the entries (LMDB)
``lock.mdb``          LMDB's reader table and writer mutex, in shared memory
``recency``           one byte a slot, in shared memory: was the entry read lately
``guard``             a lock file for opening; holds the machine's boot number
====================  ==========================================================

Writes are atomic for every process that lives or dies, as the operating system keeps
what was written. They are not synchronised to the disk: a cache need not survive a
power cut. After one, the first process to open the environment verifies all of it
and moves it aside if anything is amiss.
"""

import contextlib
import logging
import mmap
import os
import stat
import struct
from collections.abc import Iterator
from typing import Any, Final

import lmdb

from storeroom import timeouts
from storeroom.backends.filebased.counts import add_counts
from storeroom.engines import Engine
from storeroom.exceptions import StorageError

try:
    import fcntl
except ImportError:  # Windows: opening is not guarded against a second process that opens at the same instant
    fcntl = None  # type: ignore[assignment]

__all__ = ["Environment"]

logger = logging.getLogger("storeroom.filebased")

FORMAT: Final = "storeroom-1"
"""Name of the subdirectory; a change of the record layout changes the number."""

MAP_BYTES: Final = 2**36 if struct.calcsize("P") == 8 else 2**30
"""Address space reserved for the file, and so its greatest size: 64 GiB (1 GiB on 32 bits). It
takes neither memory nor disk until it is used."""

MAX_READERS: Final = 2048
"""Threads, in all processes together, that can read at the same instant. 64 bytes each."""

LOCK_BYTES: Final = 64 * (MAX_READERS + 2)
"""What LMDB makes of lock.mdb for that many readers, with room for its header."""

SLOTS: Final = 2**20
"""Bytes in ``recency``: entries beyond that many share slots, which only blurs who was read lately."""

CHECK_SECONDS: Final = 1.0
"""How often a process looks whether the files are still the ones it opened."""

# The meta page, from LMDB's mdb.c (MDB_page header of 16 bytes, then MDB_meta): magic, format,
# at 40 the page size, at 136 the number of the last page.
_META: Final = struct.Struct("=16xII16xI92xQ")
_MAGIC: Final = 0xBEEFC0DE

_DAMAGE: Final = (
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
    lmdb.BadDbiError,
    lmdb.CursorFullError,
)


class Environment(Engine):
    """One LMDB environment, opened on first use, and again after a fork, damage or loss.

    Attributes:
        begin: starts a transaction; LMDB's own method once the environment is open.
        recency: one byte a slot; 1 after a read of the slot's entry.
        check_after: epoch second from which `check()` is due.
        hand: where this process looks next for something to evict.
    """

    def __init__(self, location: str, map_bytes: int) -> None:
        """Note where the environment lies; nothing is opened yet."""
        super().__init__()
        self.location = location
        self.directory = os.path.join(location, FORMAT)
        self.map_bytes = map_bytes
        self.hand = b""
        self._held: Any = None
        self._forget()

    def _forget(self) -> None:
        """Let go of the environment without closing it: transactions of other threads may be in it."""
        self._environment: Any = None
        self._identity: tuple[int, int] | None = None
        self.begin = self._open_and_begin
        self.recency: Any = bytearray(SLOTS)
        self.check_after = 0.0

    def before_fork(self) -> None:
        """Take the kept read transaction out of the environment.

        The child will drop its copy of the environment, and of a kept transaction it would
        free the reader slot, which is the parent's. Of one in Python's hands it does not.
        """
        self._held = self._environment.begin() if self._environment is not None else None

    def after_fork_in_parent(self) -> None:
        """Give the read transaction back."""
        self._held = None

    def after_fork_in_child(self) -> None:
        """Leave the parent's environment to the parent: the next use opens one of this process's own."""
        super().after_fork_in_child()
        self._held = None
        self._forget()

    def close(self) -> None:
        """Close the environment; the next use opens it again."""
        with self.lock:
            environment = self._environment
            self._forget()
        if environment is not None:
            add_counts(environment, self.counters)
            environment.close()

    def add_counts(self) -> None:
        """Add this process's counters to those of all."""
        if self._environment is not None:
            add_counts(self._environment, self.counters)

    # Opening --------------------------------------------------------------------------------

    def _open_and_begin(self, *, write: bool = False) -> Any:
        with self.lock:
            if self._environment is None:
                try:
                    self._open()
                except OSError as error:
                    raise StorageError(
                        f"The file cache in {self.location!r} cannot be opened: {error}. "
                        "Its LOCATION must be a directory that this user can write to, on a disk with room."
                    ) from error
        return self.begin(write=write)

    def _open(self) -> None:
        make_private(self.directory)
        with self._guard() as boot_note:
            if self._is_damaged(boot_note):
                self._move_aside()
            try:
                environment = self._open_environment()
            except _DAMAGE as error:
                logger.warning("The file cache in %r is damaged: %s", self.location, error)
                self._move_aside()
                environment = self._open_environment()
            self.recency = _map_recency(self._path("recency"))
            boot_note.write(_boot_number())
        environment.reader_check()
        self._environment = environment
        self._identity = _identity(self._path("data.mdb"))
        self.check_after = timeouts.now() + CHECK_SECONDS
        self.begin = environment.begin

    def _open_environment(self) -> Any:
        # LMDB would grow lock.mdb sparsely; on a full disk the first touch would then kill the process.
        _reserve(self._path("lock.mdb"), LOCK_BYTES)
        try:
            return lmdb.open(
                self.directory,
                map_size=self.map_bytes,
                sync=False,
                metasync=False,
                readahead=False,
                max_readers=MAX_READERS,
                # One finished read transaction is kept for the next: a third of the cost of a read.
                max_spare_txns=1,
                mode=0o600,
            )
        except lmdb.Error as error:
            if isinstance(error, _DAMAGE):
                raise
            raise StorageError(
                f"The file cache in {self.location!r} cannot be opened: {error}. LMDB needs a local disk with room, "
                "and address space for OPTIONS['map_size']; network file systems do not work."
            ) from error

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    @contextlib.contextmanager
    def _guard(self) -> Iterator["_BootNote"]:
        """Keep other processes from opening, and from moving aside, at the same time."""
        descriptor = os.open(self._path("guard"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield _BootNote(descriptor)
        finally:
            os.close(descriptor)

    # Damage ---------------------------------------------------------------------------------

    def _is_damaged(self, boot_note: "_BootNote") -> bool:
        """Look at the file before LMDB maps it: a truncated one would end the process."""
        path = self._path("data.mdb")
        try:
            size = os.path.getsize(path)
        except FileNotFoundError:
            return False
        if size == 0:
            return False  # created by a process that died before it wrote: LMDB begins anew
        fault = _find_fault(path, size)
        if fault is None and boot_note.read() != _boot_number():
            # The machine has been started since: what was not yet on the disk may be lost in part.
            from lmdb.verify import verify  # noqa: PLC0415 -- once after a start of the machine

            errors = verify(path)
            fault = str(errors[0]) if errors else None
        if fault is not None:
            logger.warning("The file cache in %r is damaged: %s", self.location, fault)
        return fault is not None

    def _move_aside(self) -> None:
        """Rename the files, over those of an earlier damage, so that a new environment takes their place."""
        for name in ("data.mdb", "lock.mdb", "recency"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(self._path(name), self._path(f"{name}.damaged"))
        logger.warning(
            "The damaged files were renamed to *.damaged in %r and the cache starts empty.", self.directory
        )

    def recover(self, error: lmdb.Error, *, is_last: bool = False) -> None:
        """Mend what can be mended after a failed operation, which may then be tried once more.

        Raises:
            StorageError: nothing can be done here; the message says what can.
        """
        environment = self._environment
        if is_last:
            raise self._failure(error) from error
        if isinstance(error, lmdb.BadRslotError):
            return  # the kept read transaction was a forked process's, too: LMDB has let go of it
        if isinstance(error, lmdb.ReadersFullError) and environment is not None:
            environment.reader_check()
        elif isinstance(error, lmdb.MapResizedError) and environment is not None:
            with self.lock:
                environment.set_mapsize(0)
        elif isinstance(error, _DAMAGE):
            self._replace_damaged(error)
        elif isinstance(error, lmdb.MapFullError):
            raise StorageError(
                f"The file cache in {self.location!r} has reached its greatest size of {self.map_bytes} bytes; "
                "bound it by OPTIONS['max_bytes'], or raise OPTIONS['map_size']."
            ) from error
        elif "closed" not in str(error):
            raise self._failure(error) from error

    def _failure(self, error: lmdb.Error) -> StorageError:
        return StorageError(
            f"The file cache in {self.location!r} failed: {error}. What was stored before is not affected."
        )

    def _replace_damaged(self, error: lmdb.Error) -> None:
        with self.lock:
            if self._environment is None:
                return  # another thread has done it
            with self._guard():
                if _identity(self._path("data.mdb")) == self._identity:
                    logger.warning("The file cache in %r is damaged: %s", self.location, error)
                    self._move_aside()
            self._forget()

    def check(self, now: float) -> None:
        """Open anew on the next use if the files were moved aside or removed meanwhile."""
        self.check_after = now + CHECK_SECONDS
        with self.lock:
            if self._identity is not None and _identity(self._path("data.mdb")) != self._identity:
                self._forget()


class _BootNote:
    """The content of the guard file: on which start of the machine the environment was last opened."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self) -> bytes:
        return os.pread(self._descriptor, 128, 0) if hasattr(os, "pread") else b""

    def write(self, boot_number: bytes) -> None:
        if self.read() != boot_number:
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, boot_number)


def _boot_number() -> bytes:
    """Return what tells one start of the machine from the next; empty where the system does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return file.read(128)
    except OSError:
        return b""


def make_private(directory: str) -> None:
    """Create the directory and its parents, for this user only.

    Values are trusted because nobody else can write here; so a directory of another
    user is refused.

    Raises:
        StorageError: the directory belongs to somebody else.
        OSError: it cannot be created.
    """
    missing = []
    while not os.path.isdir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
    directory = missing[0] if missing else directory
    status = os.stat(directory)
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        raise StorageError(
            f"The cache directory {directory!r} belongs to user number {status.st_uid}, but this process runs as "
            f"{os.geteuid()}: it will not trust values that others can write. Run both as one user, give each a "
            "LOCATION of its own, or change the owner."
        )
    if stat.S_IMODE(status.st_mode) != 0o700:
        os.chmod(directory, 0o700)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _find_fault(path: str, size: int) -> str | None:
    """Say what is wrong with the meta pages, or with the size they promise; None if nothing."""
    with open(path, "rb") as file:
        head = file.read(_META.size)
        if len(head) < _META.size:
            return f"it has only {size} bytes"
        magic, _, page_bytes, _ = _META.unpack(head)
        if magic != _MAGIC or not 512 <= page_bytes <= 65536:
            return "it does not begin like an LMDB file"
        file.seek(page_bytes)
        second = file.read(_META.size)
    if len(second) < _META.size or _META.unpack(second)[0] != _MAGIC:
        return "its second meta page is not one"
    last_page = max(_META.unpack(head)[3], _META.unpack(second)[3])
    if size < (last_page + 1) * page_bytes:
        return f"it has {size} bytes where {(last_page + 1) * page_bytes} were written"
    return None


def _reserve(path: str, size: int) -> None:
    """Make the file at least this long, with all its blocks on the disk.

    Raises:
        OSError: there is no room.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
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


def _map_recency(path: str) -> mmap.mmap:
    _reserve(path, SLOTS)
    descriptor = os.open(path, os.O_RDWR)
    try:
        return mmap.mmap(descriptor, SLOTS)
    finally:
        os.close(descriptor)
