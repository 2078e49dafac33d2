"""The LMDB environment behind a file cache: opened privately, shared by all handles, replaced when damaged.

Everything lies in one subdirectory of LOCATION, named after the format, so that two
versions of Storeroom with different formats can share a LOCATION without meeting:

====================  ==========================================================
``data.mdb``          the entries (LMDB)
``lock.mdb``          LMDB's reader table and writer mutex, in shared memory
``slots``             what eviction and expiry know of the entries, in shared memory
``writer``            a lock file for writing
``guard``             a lock file for opening; holds what ``data.mdb`` looked like when closed
====================  ==========================================================

Writes are atomic for every process that lives or dies, as the operating system keeps
what was written. They are not synchronised to the disk: a cache need not survive a
power cut. If the file is not as its last user has closed it, the next process to open
the environment verifies it, and moves it aside if anything is amiss.
"""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Final

import lmdb

from storeroom import timeouts
from storeroom.backends.filebased.counts import add_counts
from storeroom.backends.filebased.files import (
    ClosingNote,
    find_fault,
    identity,
    is_full,
    is_in_use,
    last_transaction,
    lock_exclusively,
    make_private,
    origin,
    reserve,
)
from storeroom.backends.filebased.queues import Queues
from storeroom.backends.filebased.slotfile import last_attempt
from storeroom.backends.filebased.slots import Slots
from storeroom.backends.filebased.turns import Turns
from storeroom.engines import Engine
from storeroom.exceptions import StorageError

__all__ = ["Environment"]

logger = logging.getLogger("storeroom.filebased")

FORMAT: Final = "storeroom-1"
"""Name of the subdirectory; a change of the record layout changes the number."""

MAP_BYTES: Final = 2**36 if sys.maxsize > 2**32 else 2**30
"""Address space reserved for the file, and so its greatest size: 64 GiB (1 GiB on 32 bits). It
takes neither memory nor disk until it is used."""

MAX_READERS: Final = 2048
"""Threads, in all processes together, that can read at the same instant. 64 bytes each."""

LOCK_BYTES: Final = 64 * (MAX_READERS + 2)
"""What LMDB makes of lock.mdb for that many readers, with room for its header."""

PATIENCE_SECONDS: Final = 1.0
"""How long a fork or close() waits for the transactions of other threads: they take microseconds as a rule."""

CHECK_SECONDS: Final = 1.0
"""How often a process looks whether the files are still the ones it opened."""

_DAMAGE: Final = (
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
    lmdb.BadDbiError,
    lmdb.CursorFullError,
    lmdb.IncompatibleError,
)


_CLOSED: Final[Any] = SimpleNamespace(hits=b"", is_replaced=False, miss=lambda _: None, usage=lambda _: None)
_CLOSED.slots = _CLOSED
"""In place of the queues of a closed environment, for a reader that has just read its last record there."""


class Environment(Engine):
    """One LMDB environment, opened on first use, and again after a fork, damage or loss.

    Attributes:
        begin: starts a transaction; LMDB's own method once the environment is open.
        queues: the order of eviction, while the environment is open.
        check_after: epoch second from which `check()` is due.
        main_database: the handle of the whole tree, once the environment is open.
    """

    can_be_forgotten = True

    def __init__(self, location: str, map_bytes: int) -> None:
        """Note where the environment lies; nothing is opened yet."""
        super().__init__()
        self.location = location
        self.directory = os.path.join(location, FORMAT)
        self.map_bytes = map_bytes
        self.queues: Any = _CLOSED
        self.main_database: Any = None
        self._held: Any = None
        self._is_our_turn = False
        self._idle_references = 0
        self._forget()

    def _forget(self) -> None:
        """Let go of the environment without closing it: transactions of other threads may be in it."""
        self._environment: Any = None
        self._identity: tuple[int, int] | None = None
        self.begin = self._open_and_begin
        self.opened = 0
        self._turns: Turns | None = None
        self.check_after = 0.0

    @property
    def turns(self) -> Turns:
        """Whose turn it is to write; the environment is opened for it if it is not open."""
        return self._turns or self._opened()

    def before_fork(self) -> None:
        """Let the transactions of all threads end, and no new one begin.

        What a child inherits must be idle: LMDB's binding keeps the environment of an
        unfinished transaction alive, and then refuses to open it anew.
        """
        environment = self._environment
        if environment is None:
            return
        self._is_our_turn = self.turns.threads.acquire(timeout=PATIENCE_SECONDS)
        self._let_transactions_end()
        # Of the kept read transaction a child would free the reader slot, which is the parent's.
        # Of one in Python's hands it does not.
        self._held = environment.begin()

    def _let_transactions_end(self) -> None:
        """Wait, the lock being held, until no thread is in a transaction: each holds a reference."""
        self.begin = self._open_and_begin  # which waits for the lock
        patience = time.monotonic() + PATIENCE_SECONDS
        while self._references() > self._idle_references and time.monotonic() < patience:
            time.sleep(0.0002)

    def _references(self) -> int:
        """Count who holds the environment."""
        return sys.getrefcount(self._environment)

    def after_fork_in_parent(self) -> None:
        """Go on as before."""
        self._held = None
        if self._is_our_turn:
            self._is_our_turn = False
            self.turns.threads.release()
        if self._environment is not None:
            self.begin = self._environment.begin

    def after_fork_in_child(self) -> None:
        """Leave the parent's environment to the parent: the next use opens one of this process's own."""
        super().after_fork_in_child()
        self._held = None
        self._is_our_turn = False
        if self._turns is not None:
            # A thread that waited for its turn is gone, but not its frame, which holds on to the turns.
            del self._turns.begin
        self._forget()

    def close(self) -> None:
        """Close the environment; the next use opens it again."""
        with self.lock:
            environment = self._environment
            if environment is None:
                return
            # LMDB's writer mutex stays locked if a transaction is ended by another thread than its own.
            self._let_transactions_end()
            self._close(environment)

    def rest(self) -> None:
        """Close the environment unless a thread is using it."""
        if not self.lock.acquire(blocking=False):
            return
        try:
            environment = self._environment
            if environment is not None and not self.turns.threads.locked():
                self.begin = self._open_and_begin  # which waits for the lock
                if self._references() > self._idle_references:
                    self.begin = environment.begin
                else:
                    self._close(environment)
        except (lmdb.Error, OSError, StorageError):
            logger.warning("The file cache in %r could not be closed.", self.location, exc_info=True)
        finally:
            self.lock.release()

    def _close(self, environment: Any) -> None:
        turns = self.turns
        self._forget()
        # Under the lock: LMDB's binding refuses a second environment until the first is closed.
        with turns.taken():
            try:
                add_counts(environment, self.queues.slots, self.counters)
            finally:
                self.queues = _CLOSED  # of which a writer, whose turn it is not, has none in hand
                environment.close()
        with contextlib.suppress(OSError), self._guard() as closing_note:  # else the next to open it verifies it
            if not is_in_use(self._path("lock.mdb")):
                closing_note.write(self._path("data.mdb"))

    def add_counts(self) -> None:
        """Add this process's counters to those of all."""
        environment = self._environment
        if environment is not None:
            with self.turns.taken():
                add_counts(environment, self.queues.slots, self.counters)

    def _open_and_begin(self, **how: bool) -> Any:
        self._opened()
        return self.begin(**how)

    def _opened(self) -> Turns:
        with self.lock:
            if self._turns is None:
                try:
                    self._turns = self._open()
                except OSError as error:
                    raise StorageError(
                        f"The file cache in {self.location!r} cannot be opened: {error}. "
                        "Its LOCATION must be a directory that this user can write to, on a disk with room."
                    ) from error
            turns = self._turns
        self.note_opening()
        return turns

    def _open(self) -> Turns:
        make_private(self.directory)
        turns = Turns(self._path("writer"))
        with self._guard() as closing_note:
            turns.join(lambda: is_in_use(self._path("lock.mdb")))
            if self._is_damaged(closing_note, turns):
                self._move_aside()
            with turns.taken():  # LMDB looks at its table in a write transaction
                environment = self._open_undamaged()
                self.main_database = environment.open_db()
            self.queues = Queues(Slots(self._path("slots"), origin(self._path("data.mdb"))))
            closing_note.erase()
        environment.reader_check()
        self._environment = environment
        self._identity = identity(self._path("data.mdb"))
        self.check_after = timeouts.now() + CHECK_SECONDS
        turns.begin = environment.begin
        self._idle_references = self._references()  # with one variable on it, as where it is compared
        self.begin = environment.begin
        return turns

    def _open_undamaged(self) -> Any:
        try:
            return self._open_environment()
        except _DAMAGE as error:
            logger.warning("The file cache in %r is damaged: %s", self.location, error)
            self._move_aside()
            return self._open_environment()

    def _open_environment(self) -> Any:
        # LMDB would grow lock.mdb sparsely; on a full disk the first touch would then kill the process.
        reserve(self._path("lock.mdb"), LOCK_BYTES)
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
    def _guard(self) -> Iterator[ClosingNote]:
        """Keep other processes from opening, and from moving aside, at the same time."""
        descriptor = os.open(self._path("guard"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            lock_exclusively(descriptor)
            yield ClosingNote(descriptor)
        finally:
            os.close(descriptor)

    def _is_damaged(self, closing_note: ClosingNote, turns: Turns) -> bool:
        """Look at the file before LMDB maps it: of a truncated one, a read would end the process."""
        path = self._path("data.mdb")
        try:
            is_new = os.path.getsize(path) == 0  # made by a process that died before it wrote
        except FileNotFoundError:
            is_new = True
        # A file that others have open is as whole as they need it, and moves under our eyes.
        if is_new or is_in_use(self._path("lock.mdb")):
            return False
        fault = find_fault(path, lambda: not (closing_note.is_of(path) or self._was_only_killed(path, turns)))
        if fault is not None:
            logger.warning("The file cache in %r is damaged: %s", self.location, fault)
        return fault is not None

    def _was_only_killed(self, path: str, turns: Turns) -> bool:
        """Tell whether the file is as its last writer left it, which was killed since this start of the machine.

        No other way to end leaves a page half written: a commit is of new pages, until its last write.
        """
        attempt = last_attempt(self._path("slots"), origin(path))
        return (
            attempt is not None
            and attempt - last_transaction(path) in {0, 1}
            and turns.were_last_at(os.stat(path).st_mtime)
        )

    def _move_aside(self) -> None:
        """Rename the files, over those of an earlier damage, so that a new environment takes their place."""
        for name in ("data.mdb", "lock.mdb", "slots"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(self._path(name), self._path(f"{name}.damaged"))
        logger.warning("The damaged files were renamed to *.damaged in %r and the cache starts empty.", self.directory)

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
        # LMDB tells a full disk in two ways, depending on whether the last write went in by half.
        room = " The disk is full: make room." if is_full(self.directory) else ""
        return StorageError(
            f"The file cache in {self.location!r} failed: {error}.{room} What was stored before is not affected."
        )

    def _replace_damaged(self, error: lmdb.Error) -> None:
        with self.lock:
            if self._environment is None:
                return  # another thread has done it
            with self._guard():
                if identity(self._path("data.mdb")) == self._identity:
                    logger.warning("The file cache in %r is damaged: %s", self.location, error)
                    self._move_aside()
            self._forget()

    def check(self, now: float) -> None:
        """Open anew on the next use if the files were moved aside or removed meanwhile."""
        self.check_after = now + CHECK_SECONDS
        with self.lock:
            if self._environment is not None:
                self.note_use()
            if self._identity is not None and identity(self._path("data.mdb")) != self._identity:
                self._forget()
        if self.queues.slots.is_replaced:
            turns = self.turns
            # A read comes by here, and waits for no write: then the slots are looked at the next time.
            with contextlib.suppress(BlockingIOError), turns.taken(waits=False), turns.begin(write=True) as transaction:
                self.queues.slots.skip(transaction.id())
