"""The LMDB environment behind a file cache: opened privately, shared by all handles, replaced when damaged.

Everything lies in one subdirectory of LOCATION, named after the format, so that two
versions of Storeroom with different formats can share a LOCATION without meeting:

====================  ==========================================================
``data.mdb``          the entries (LMDB)
``lock.mdb``          LMDB's reader table and writer mutex, in shared memory
``slots``             what eviction and expiry know of the entries, in shared memory
``writer``            a lock file for writing
``guard``             a lock file for opening; holds what ``data.mdb`` looked like when closed
``ballast``           room on the disk for removals: see room.py
====================  ==========================================================

Writes are atomic for every process that lives or dies, as the operating system keeps
what was written. They are not synchronised to the disk: a cache need not survive a
power cut. If the file is not as its last user has closed it, the next process to open
the environment verifies it, and moves it aside if anything is amiss.
"""

import contextlib
import math
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Final

import lmdb

from storeroom import timeouts
from storeroom.backends.filebased.aborting import abort
from storeroom.backends.filebased.counts import add_counts
from storeroom.backends.filebased.damage import DAMAGE, is_damaged, move_aside
from storeroom.backends.filebased.files import ClosingNote, identity, lock_exclusively, origin, reserve
from storeroom.backends.filebased.folder import is_same, open_own, paths_of, share, way_into
from storeroom.backends.filebased.holds import Holds
from storeroom.backends.filebased.queues import Queues
from storeroom.backends.filebased.recovering import RecoveringEngine
from storeroom.backends.filebased.room import Room, is_read
from storeroom.backends.filebased.slots import Slots
from storeroom.backends.filebased.turns import AT_LAST_SECONDS, ReplacedError, TakenError, Turns
from storeroom.backends.ownership import when_given
from storeroom.config.naming import named
from storeroom.exceptions import ReentrantUseError, StorageError
from storeroom.late import logger_of

__all__ = ["Environment"]

logger = logger_of("storeroom.filebased")

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
_FORK_SECONDS: Final = 5.0
"""How long close() and a fork wait for the transactions of other threads: they take microseconds on a quiet machine."""

_PATIENCES: Final = 10
"""So many times as long where the map has to grow: else an operation fails."""

CHECK_SECONDS: Final = 1.0
"""Seconds between two looks of a process whether the files are still the ones it opened."""

_GUARD_PAUSE: Final = 0.001
"""Seconds between two looks whether another process has opened, or closed, the files."""

_CLOSED: Final[Any] = SimpleNamespace(
    hits=b"", is_replaced=False, is_removed=False, miss=lambda _: None, usage=lambda _: None
)
_CLOSED.slots = _CLOSED
"""In place of the queues of a closed environment, for a reader that has just read its last record there."""


class Environment(RecoveringEngine):
    """One LMDB environment, opened on first use, and again after a fork, damage or loss.

    Attributes:
        begin: starts a transaction; LMDB's own method once the environment is open.
        queues: the order of eviction, while the environment is open.
        checked_at, check_after: epoch seconds between which `check()` is not due.
        main_database: the handle of the whole tree, once the environment is open.
        is_tight: whether writes leave room for removals: see room.py.
    """

    can_be_forgotten = True

    def __init__(self, location: str, map_bytes: int, group: int | None = None) -> None:
        """Note where the environment lies, and the group that shares it; nothing is opened yet."""
        super().__init__()
        self.location = location
        self.directory = os.path.join(location, FORMAT)
        self.map_bytes = map_bytes
        self.room = Room(self.directory, map_bytes)
        self.group = group
        share(self.directory, group)
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
        self._holds: Any = None
        self.begin = self._open_and_begin
        self.opened = 0
        self._turns: Turns | None = None
        self.check_after = self.checked_at = 0.0
        self.is_tight = False
        self.bounds = {}

    @property
    def turns(self) -> Turns:
        """Whose turn it is to write; the environment is opened for it if it is not open."""
        return self._turns or self._opened()

    @property
    def open_turns(self) -> Turns | None:
        """The turns, if the environment is open."""
        return self._turns

    def before_fork(self) -> None:
        """Let the transactions of all threads end, and no new one begin.

        What a child inherits must be idle: LMDB's binding keeps the environment of a transaction, and opens no other.
        """
        environment = self._environment
        if environment is None:
            return
        self._is_our_turn = self.turns.threads.acquire(timeout=_FORK_SECONDS)
        is_idle = self._let_transactions_end(_FORK_SECONDS)
        # Of the kept read transaction a child would free the reader slot, which is the parent's.
        # Of one in Python's hands it does not.
        try:
            self._held = environment.begin()
        except lmdb.MapResizedError:
            if is_idle:
                environment.set_mapsize(0)
                self._held = environment.begin()

    def _let_transactions_end(self, seconds: float = PATIENCE_SECONDS) -> bool:
        """Wait, the lock being held, until no thread is in a transaction: each holds a reference. Return whether."""
        self.begin = self._open_and_begin  # which waits for the lock
        patience = time.monotonic() + seconds
        while self._references() > self._idle_references:
            if time.monotonic() > patience:
                return False
            time.sleep(0.0002)
        return True

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
        if self._holds is not None:
            self._holds.close()
        self._forget()

    def close(self) -> None:
        """Close the environment; the next use opens it again."""
        with self.lock, self.alone:
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
            if environment is not None and not (self.alone.is_under_way or self.turns.alone.is_under_way):
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
        turns, holds = self.turns, self._holds
        self._forget()
        # Under the lock: LMDB's binding refuses a second environment until the first is closed.
        with contextlib.suppress(ReentrantUseError, ReplacedError, TakenError), turns.taken(AT_LAST_SECONDS):
            try:
                if not holds.are_replaced():
                    add_counts(environment, self.queues.slots, self.counters)
            finally:
                self.queues = _CLOSED  # of which a writer, whose turn it is not, has none in hand
                environment.close()
        environment.close()  # else its turn will never come
        holds.close()
        with (
            contextlib.suppress(OSError, StorageError, TakenError),
            self._guard(AT_LAST_SECONDS) as closing_note,
        ):  # else the next to open it verifies it
            if not holds.is_used():
                closing_note.write(self._path("data.mdb"))

    def _leave(self, turns: Turns) -> None:
        """Let go, the lock being held, of an environment whose files are no longer those that others use."""
        environment, holds = self._environment, self._holds
        # A thread that waits for its turn has this lock. It is in no transaction, and finds the environment closed.
        is_ours = turns.threads.acquire(timeout=PATIENCE_SECONDS)
        is_idle = self._let_transactions_end()
        self._forget()
        self.queues = _CLOSED
        if is_idle:
            environment.close()
            holds.close()
        else:  # the last transaction closes it
            weakref.finalize(environment, holds.close)
        if is_ours:
            turns.threads.release()

    def add_counts(self, seconds: float = 0.0) -> int:
        """Add this process's counters to those of all; return the evictions of all, or 0 if nothing was added."""
        if self._environment is not None:  # with no variable on it: a fork has the turn, and waits for all who hold it
            with contextlib.suppress(ReplacedError, TakenError), self.turns.taken(seconds):
                return add_counts(self._environment, self.queues.slots, self.counters)
        return 0

    def _open_and_begin(self, **how: bool) -> Any:
        self._opened()
        return self.begin(**how)

    def _opened(self) -> Turns:
        with self.lock, self.alone:
            if self._turns is None:
                try:
                    self._turns = when_given(self._open, self.group, paths_of(self.directory))
                except OSError as error:
                    remedy = "Its LOCATION must be a directory that this user can write to, on a disk with room."
                    told = f"The file cache in {self.location!r} cannot be opened: {error}. {remedy}"
                    raise named(StorageError(told), self.alias) from error
            elif self._environment is not None:
                self.begin = self._environment.begin  # it was kept from being put back: see _let_transactions_end()
            turns = self._turns
        self.note_opening()
        return turns

    def _open(self) -> Turns:
        holds = Holds(self.directory)
        with self._guard() as closing_note:
            turns = Turns(self._path("writer"))
            turns.join(holds.is_used)
            if is_damaged(self.directory, self.location, closing_note, turns, holds):
                move_aside(self.directory)
            self._make_lock(turns, holds)
            with turns.taken():  # LMDB looks at its table in a write transaction
                environment = self._open_undamaged(turns, holds)
                self.main_database = environment.open_db()
            self.room.open(environment)
            self.is_tight = self.room.is_tight
            holds.take()
            self.queues = Queues(Slots(self._path("slots"), origin(self._path("data.mdb"))))
            closing_note.erase()
        environment.reader_check()
        self._environment, self._holds = environment, holds
        self._identity = identity(self._path("data.mdb"))
        self.checked_at = timeouts.now()
        self.check_after = self.checked_at + CHECK_SECONDS
        turns.begin = environment.begin
        self._idle_references = self._references()  # with one variable on it, as where it is compared
        self.begin = environment.begin
        return turns

    def _make_lock(self, turns: Turns, holds: Holds) -> None:
        # LMDB would grow lock.mdb sparsely; on a full disk the first touch would then kill the process.
        reserve(self._path("lock.mdb"), LOCK_BYTES)
        turns.agree_on(holds.number_of_lock(), holds.is_data_used)

    def _open_undamaged(self, turns: Turns, holds: Holds) -> Any:
        try:
            return self._open_environment(holds)
        except DAMAGE as error:
            logger.warning("The file cache in %r is damaged: %s", self.location, error)
            move_aside(self.directory)
            self._make_lock(turns, holds)
            return self._open_environment(holds)

    def _open_environment(self, holds: Holds) -> Any:
        try:
            return lmdb.open(
                way_into(holds.folder, self.directory),
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
            if isinstance(error, DAMAGE):
                raise
            raise StorageError(
                f"The file cache in {self.location!r} cannot be opened: {error}. LMDB needs a local disk with room, "
                "and address space for OPTIONS['map_size']; network file systems do not work."
            ) from error

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    @contextlib.contextmanager
    def _guard(self, seconds: float = 0.0) -> Iterator[ClosingNote]:
        """Keep other processes from opening, and from moving aside, at the same time.

        Raises:
            TakenError: another one has been at it for so many seconds, or has been stopped within it.
        """
        deadline = time.monotonic() + seconds
        while True:
            descriptor = open_own(self._path("guard"), os.O_RDWR | os.O_CREAT)
            try:
                if lock_exclusively(descriptor):
                    if is_same(descriptor, self._path("guard")):  # else it was removed while others had it
                        yield ClosingNote(descriptor)
                        return
                elif time.monotonic() >= deadline:
                    raise TakenError("another process opens the files")
            finally:
                os.close(descriptor)
            time.sleep(_GUARD_PAUSE)

    def recover(self, error: lmdb.Error, *, is_last: bool = False, frees: bool = False) -> bool:
        """Mend what can be mended after a failed operation, which may then be tried again; for the last time, if True.

        The operation `frees`, if it may have the room that others leave.

        Raises:
            StorageError: nothing can be done here; the message says what can.
        """
        import_module("traceback").clear_frames(error.__traceback__)  # they hold on to the transaction
        is_size = isinstance(error, lmdb.MapResizedError | lmdb.MapFullError)
        if isinstance(error, TakenError) or "closed" in str(error) or (is_size and self._has_followed(error)):
            return is_last  # nothing was done yet: another thread had it rest, say, perhaps not for the first time
        if is_last:
            raise self.room.failure(self.location, error) from error
        if isinstance(error, ReplacedError):
            with self.lock, self.alone:
                if self._turns is not None and self._turns.is_outdated:
                    self._leave(self._turns)
            return True
        if isinstance(error, lmdb.BadRslotError):
            return True  # the kept read transaction was a forked process's, too: LMDB has let go of it
        if isinstance(error, lmdb.ReadersFullError) and (environment := self._environment) is not None:
            environment.reader_check()
        elif isinstance(error, DAMAGE):
            self._replace_damaged(error)
        elif not self._while_idle(partial(self.room.find, error=error, frees=frees)):
            raise self.room.failure(self.location, error) from error
        return True

    def _has_followed(self, error: lmdb.Error) -> bool:
        """Follow a map that has grown elsewhere; tell whether that may have mended the error."""
        # One that was resized may have been followed by another thread; one that is full has to be larger then.
        return self._while_idle(self.room.follow) and (isinstance(error, lmdb.MapResizedError) or self.room.has_grown)

    def _while_idle(self, work: Callable[[Any], bool]) -> bool:
        """Return the result of ``work(environment)``, which changes its map; False if it is never idle, True if closed.

        No thread may be in a transaction then: what it reads would not be mapped for a moment, which ends the process.
        """
        with self.lock, self.alone:
            environment, turns = self._environment, self._turns
            if environment is None or turns is None:
                return True
            with turns.threads, turns.alone:
                is_idle = any(self._let_transactions_end() or not is_read(environment) for _ in range(_PATIENCES))
                is_done = is_idle and work(environment)
                self.begin, self.is_tight = environment.begin, self.room.is_tight
                return is_done

    def leave_room(self, transaction: Any) -> None:
        """See Room.leave()."""
        self.room.leave(self._environment, transaction, partial(abort, self))

    def settle_room(self) -> None:
        """See to it that a removal will find room on the disk."""
        if not self.room.is_settled:
            with contextlib.suppress(ReentrantUseError):
                self._while_idle(self.room.settle)

    def _replace_damaged(self, error: lmdb.Error) -> None:
        with self.lock, self.alone:
            if self._environment is None:
                return  # another thread has done it
            with self._guard():
                if identity(self._path("data.mdb")) == self._identity:
                    logger.warning("The file cache in %r is damaged: %s", self.location, error)
                    move_aside(self.directory)
            self._forget()

    def check(self, now: float) -> None:
        """Open anew on the next use if the files were moved aside or removed meanwhile."""
        self.check_after, self.checked_at = now + CHECK_SECONDS, math.inf if self.has_given_up else now
        with contextlib.suppress(ReentrantUseError), self.lock, self.alone:
            if self._turns is not None:
                self.note_use()
                self._holds.refresh()
                if self._holds.are_replaced() or self.queues.slots.is_removed:
                    self._leave(self._turns)
        self.settle_room()
        if self.queues.slots.is_replaced and (turns := self._turns) is not None and not turns.alone.is_under_way:
            # A read comes by here, and waits for no write: then the slots are looked at the next time.
            with contextlib.suppress(lmdb.Error), turns.taken(), turns.begin(write=True) as transaction:
                self.queues.slots.skip(transaction.id())
