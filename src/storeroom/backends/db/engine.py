"""The engine of a database cache: its sessions in this process, and the operations that run on them."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from storeroom import timeouts
from storeroom.backends.connections import Connections
from storeroom.backends.db import schema
from storeroom.backends.db.brief import UNBOUNDED, BriefWriter
from storeroom.backends.db.database import pause
from storeroom.backends.db.errors import Fault, FullError, OutageError
from storeroom.backends.db.pool import Pool
from storeroom.backends.db.rows import ENDLESS
from storeroom.backends.db.transaction import EXPIRED, Bounds, Transaction
from storeroom.engines.nesting import Alone, OneByThread
from storeroom.exceptions import StorageError
from storeroom.locks import reentrant

if TYPE_CHECKING:
    from storeroom.backends.db.notifications import Notifications

__all__ = ["DatabaseEngine"]

T = TypeVar("T")

_ATTEMPTS: Final = 50
"""The most attempts of an operation that others are in the way of: each time one of them gets on."""

_PAUSE_SECONDS: Final = 0.002
"""The longest pause before the first repetition; it grows with each."""

_BUSY_SECONDS: Final = 0.001
"""The longest pause between two looks at a SQLite file that another process writes to. A writer of many rows leaves
the file alone for as long between its transactions, so that everybody who waits has looked."""

_LOOK_SECONDS: Final = 1.0
"""Between two looks for the work of others: entries that expire early, a file that was replaced."""

_NOTES: Final = 1000
"""Names read lately that are remembered; then some are written down, or forgotten."""

_RENEWED: Final = 50
"""Names that are written down at once: more would hold up a read, or a write that needs room."""

_NOTE_SECONDS: Final = 0.05
"""Between two reads that write names down."""


class DatabaseEngine(BriefWriter):
    """One table, and the sessions that it shares with other tables of its database."""

    def __init__(self, pool: Pool, table: str, options: Mapping[str, Any]) -> None:
        self.database = database = pool.database
        super().__init__(database.name)
        self._pool, self.parts, self.alook = pool, (pool,), pool.alook
        self.spoken = database.spoken
        self.statements = database.statements(table)
        self.notes: dict[bytes, None] = {}
        self._creates = options["create_table"]
        self._patience: float = options["busy_timeout" if database.is_local else "socket_timeout"]
        self._begin_locks()
        self._writers = pool.writers()
        self._is_ready = False
        self._earliest = self._look_after = self._noted_at = 0.0
        self._counts: tuple[int, int] | None = None
        self._notifications: Notifications | None = None

    def _begin_locks(self) -> None:
        self._writer, self._preparing = threading.Lock(), reentrant()
        self._prepares, self._by_thread = Alone(self._preparing), OneByThread()

    # Operations -------------------------------------------------------------------------------

    def read(self, look: Callable[..., T], *args: Any) -> T:
        """Run a single statement on a session: ``look(session, *args)``."""
        pool, database = self._pool, self.database
        if not self._is_ready or not database.is_local or timeouts.now() > self._look_after:
            return self._attempt(self._take, look, args)
        # The same as _attempt() where nothing goes wrong, without its calls (benchmarks: "database get").
        session = None
        try:
            session, _ = pool.take()
            result = look(session, *args)
        except BaseException as error:
            if session is not None:
                pool.discard(session)
            if not isinstance(error, database.errors):
                raise
        else:
            pool.give(session)
            return result
        return self._attempt(self._take, look, args)

    def change(self, name: bytes, work: Callable[..., T], *args: Any, expires_at: float = ENDLESS) -> T:
        """Run ``work(session, *args)``, a single statement on one row, which may give it another expiry."""
        result: T = self._exclusively(self._announced, name, work, *args)
        self._earliest = min(self._earliest, expires_at)
        return result

    def write(self, change: Callable[..., T], *args: Any, bounds: Bounds = UNBOUNDED) -> T:
        """Run ``change(transaction, *args)`` in a transaction, which is saved and committed."""
        result: T = self._counting(self._transact, change, args, bounds)
        return result

    def let_others_write(self) -> None:
        """Between two transactions of a long task, pause until everybody who waits for the file has looked."""
        if self.database.is_local:
            time.sleep(_BUSY_SECONDS)

    def _waits(self) -> dict[str, float]:
        return self._pool.waits

    def _exclusively(self, work: Callable[..., T], *args: Any) -> T:
        """Run ``work(session, *args)``, a single statement or the whole of a transaction."""
        # A server waits for the row of this thread's other change, and SQLite for its file.
        # SQLite's own way to wait for another writer is to sleep; threads of a process need not.
        lock = self._writer if self.database.is_local else None
        result: T = self._by_thread.do(self._attempt, self._take, work, args, lock)
        return result

    def _counting(self, work: Callable[..., T], *args: Any) -> T:
        """Do as _exclusively(), with a transaction that holds the row of counts from one statement to the next."""
        writers = self._writers
        if writers is None:
            return self._exclusively(work, *args)
        result: T = self._by_thread.do(self._in_turn, writers, work, args)
        return result

    def _in_turn(self, writers: Any, work: Callable[..., T], args: tuple[Any, ...]) -> T:
        turn, _ = writers.take()
        try:
            return self._attempt(self._take, work, args)
        finally:
            writers.give_back(turn)

    def _announced(self, session: Any, name: bytes, work: Callable[..., T], *args: Any) -> T:
        """Run a single statement; in a transaction that announces it, where somebody listens."""
        notifications = self._notifications
        if notifications is None:
            return work(session, *args)

        def announced() -> T:
            result = work(session, *args)
            notifications.announce(session, [name])
            return result

        return self.database.within(session, self.statements.grammar.begin, announced)

    def _transact(self, session: Any, change: Callable[..., T], args: tuple[Any, ...], bounds: Bounds) -> T:
        def saved() -> tuple[T, Transaction, float]:
            # The clock is read after the wait for other writers.
            transaction = Transaction(self.statements, session, timeouts.now(), bounds)
            result = change(transaction, *args)
            earliest = self._expire(transaction)
            transaction.save(self._take_notes)
            if self._notifications is not None:
                self._notifications.announce(session, transaction.changed)
            return result, transaction, earliest

        result, transaction, self._earliest = self.database.within(session, self.statements.grammar.begin, saved)
        self._counts = transaction.counts or self._counts
        self.counters.expirations += transaction.expirations
        self.note_evictions(transaction.evictions, min(bounds.max_entries, (self._counts or (0,))[0]))
        return result

    def _expire(self, transaction: Transaction) -> float:
        """Remove some expired entries if there may be any; return the expiry of the entry that expires next."""
        now = transaction.now
        if now < self._earliest and now < self._look_after:
            return min(self._earliest, transaction.expires_at)
        if transaction.expirations:
            return now  # prune(): what it removes is its result
        self._look_after = now + _LOOK_SECONDS
        removed = transaction.expire(EXPIRED)
        return now if removed == EXPIRED else transaction.earliest()

    # Faults -----------------------------------------------------------------------------------

    def _attempt(self, take: Callable[[], Any], work: Callable[..., T], args: tuple[Any, ...], lock: Any = None) -> T:
        """Run ``work(session, *args)``; again where something was in the way, or had to be mended first.

        The lock is held meanwhile, and not while another process is waited for: that may have been stopped.
        """
        mended: set[Fault] = set()
        attempt, deadline = 0, math.inf
        while attempt < _ATTEMPTS:
            session = None
            try:
                if lock is None:
                    session = take()
                    result = work(session, *args)
                else:
                    with lock:
                        session = take()
                        result = work(session, *args)
            except self.database.errors as error:
                fault = self.database.fault(error)
                if fault is Fault.FULL and session is not None:
                    self.database.make_room(session)
                self._put_back(session, is_fit=not fault.ends_session)
                if fault in {Fault.BUSY, Fault.KEPT}:
                    deadline = min(deadline, time.monotonic() + self._patience)
                    self._await_others(error, deadline)
                else:
                    self._mend(fault, error, session, mended, attempt)
                    attempt += 1
            except BaseException:
                self._put_back(session)
                raise
            else:
                self._pool.give(session)
                return result
        raise OutageError("other transactions were in the way all the time")

    def _take(self) -> Any:
        """Return a session on a table that is ready."""
        pool, database = self._pool, self.database
        now = timeouts.now()
        pool.note_use()
        if is_look_due := database.is_local and now > self._look_after and self._is_ready:
            self._look_after = now + _LOOK_SECONDS
            self._earliest = min(self._earliest, now)
        while True:
            session, _ = pool.take()
            try:
                if not database.is_stale(session):
                    if not self._is_ready:
                        self._make_ready(session)
                    if is_look_due:
                        database.settle_room(session)
                    return session
            except BaseException:
                pool.discard(session)
                raise
            self._is_ready = self._is_ready and not database.is_local
            pool.discard(session)

    def _make_ready(self, session: Any) -> None:
        with self._preparing, self._prepares:
            if not self._is_ready:
                make = partial(schema.make_ready, self.database, self.statements, creates=self._creates)
                self._pool.apart(session, make)
                self._is_ready = True

    def _put_back(self, session: Any, *, is_fit: bool = True) -> None:
        """Give a session back after an error; one on which something is under way is closed, and ends that."""
        if session is not None:
            (self._pool.give if is_fit and self.database.is_idle(session) else self._pool.discard)(session)

    def _await_others(self, error: Exception, deadline: float) -> None:
        """Pause, as another process writes; raise OutageError if it has done so for too long."""
        if time.monotonic() > deadline:
            self._fail(Fault.OUTAGE, error)
        pause(_BUSY_SECONDS)

    def _mend(self, fault: Fault, error: Exception, session: Any, mended: set[Fault], attempt: int) -> None:
        """Make another attempt worth while, or raise: see _fail()."""
        if fault is Fault.CONFLICT:
            pause(_PAUSE_SECONDS * (attempt + 1))
        elif fault in mended:
            self._fail(fault, error)
        elif fault is Fault.MISSING:
            self._is_ready = False
        elif fault is Fault.DAMAGED:
            self.database.repair(session)
            self._is_ready = False
        elif fault is not Fault.FULL or session is None:  # there may be room now
            self._fail(fault, error)
        mended.add(fault)

    def _fail(self, fault: Fault, error: Exception) -> NoReturn:
        text = f"{type(error).__name__}: {error}".strip()
        remedy = self.database.remedy(error)
        if fault is Fault.OUTAGE:
            raise OutageError(text, is_broken=self.database.is_broken(error), remedy=remedy) from error
        refusal = f"{self.database.name} refused a statement of the cache ({text})."
        if fault is Fault.FULL:
            raise FullError(f"{refusal} Its disk is full: make room.") from error
        raise StorageError(f"{refusal} {remedy}".strip()) from error

    # Notes of reads ---------------------------------------------------------------------------

    def note(self, name: bytes) -> None:
        """Remember that an entry was read, for the next time that room is needed."""
        self.notes[name] = None
        if len(self.notes) > _NOTES:
            self._write_notes()

    def note_all(self, names: Sequence[bytes]) -> None:
        """Do as note() for several entries."""
        self.notes.update(dict.fromkeys(names[-_NOTES:]))
        while len(self.notes) > _NOTES:
            self._write_notes()

    def _take_notes(self) -> list[bytes]:
        """Return the names read last, which are to be written down."""
        taken = list[bytes]()
        with contextlib.suppress(KeyError):  # no more
            while len(taken) < _RENEWED:
                taken.append(self.notes.popitem()[0])
        return sorted(taken)

    def _write_notes(self) -> None:
        names, now = self._take_notes(), time.monotonic()
        if now - self._noted_at < _NOTE_SECONDS:
            return  # a sample of the reads is enough
        self._noted_at = now
        # The values read are known already: a failure here must not take them away.
        with contextlib.suppress(OutageError, StorageError):
            self.write(Transaction.renew, names)

    # Near tiers -------------------------------------------------------------------------------

    def notifications(self) -> "Notifications | None":
        """Return the channel of the table's changes, and announce those of this process; None if there is none."""
        if self._notifications is None and self.database.can_notify and self.alook is None:
            from storeroom.backends.db.notifications import Notifications  # noqa: PLC0415 -- few programs need it

            with self.lock:
                self._notifications = self._notifications or Notifications(
                    self.database, self.statements.name, self._patience
                )
        return self._notifications

    # The table --------------------------------------------------------------------------------

    def create_table(self) -> bool:
        """Make the table unless it is there: see schema.create()."""
        create = partial(schema.create, self.database, self.statements)
        made: bool = self._attempt(lambda: self._pool.take()[0], self._pool.apart, (create,))
        self._is_ready = True
        return made

    # Tasks ------------------------------------------------------------------------------------

    @property
    def answers_at_once(self) -> bool:
        """Whether a read waits for nobody: nothing is to be made ready or written before, and a session is free."""
        return self.database.is_local and self._is_ready and len(self.notes) < _NOTES and self._pool.has_idle

    async def in_thread(self, too_late: Callable[[Any], Any], hook: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a hook in one of the pool's threads; see in_turn()."""
        result: T = await self._pool.in_thread(partial(copy_context().run, hook, *args, **kwargs), too_late)
        return result

    # The life of a process --------------------------------------------------------------------

    def renew(self) -> None:
        """See NetworkEngine."""
        Connections.close(self._pool)

    def close(self) -> None:
        """Close the channel, and the pool, as its other tables do without it until they are used again."""
        notifications, self._notifications = self._notifications, None
        if notifications is not None:
            notifications.close()
        self._pool.close()

    def after_fork_in_child(self) -> None:
        """Begin without the parent's threads."""
        super().after_fork_in_child()
        notifications, self._notifications = self._notifications, None
        if notifications is not None:
            notifications.abandon()
        self._begin_locks()
        self._writers = self._pool.writers()
        self.notes = {}
        self._counts = None
