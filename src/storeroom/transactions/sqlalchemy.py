"""Transactions of SQLAlchemy's: those of a Session, or of a Connection.

A Session tells when a transaction or a savepoint begins, has committed, and has ended. A Connection tells
only that it is about to commit, and of errors: whether it has, its state shows afterwards.

Source: https://docs.sqlalchemy.org/en/20/orm/events.html, https://docs.sqlalchemy.org/en/20/core/events.html.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any
from weakref import WeakKeyDictionary, ref

from storeroom.exceptions import TransactionError
from storeroom.transactions.applying import Application
from storeroom.transactions.changes import Segment, Unit

__all__ = ["scope_of"]

_EXPECTED = (
    "expected None for the block's own transaction, the alias of a database of Django's, or a Session or Connection "
    "of SQLAlchemy"
)

_units: "WeakKeyDictionary[Any, _SessionUnit | _ConnectionUnit]" = WeakKeyDictionary()
"""Session or Connection to its unit of work: its listeners stay for as long as it lives."""


def scope_of(using: Any, *, waits: bool) -> "_Scope":
    """Return the scope of a Session or Connection, asynchronous or of a registry, too.

    If it waits, changes are applied at the end of the block, where that can be awaited.

    Raises:
        TypeError: it is neither.
    """
    # This layer imports no framework; a program that has one of its sessions has loaded it.
    if "sqlalchemy" not in sys.modules:
        raise TypeError(f"transaction() is using {using!r}; {_EXPECTED}.")
    sqlalchemy, orm = import_module("sqlalchemy"), import_module("sqlalchemy.orm")
    registered = using() if hasattr(using, "registry") and callable(using) else using
    synchronous = getattr(registered, "sync_session", None) or getattr(registered, "sync_connection", None)
    owner = registered if synchronous is None else synchronous
    if not isinstance(owner, orm.Session | sqlalchemy.Connection):
        raise TypeError(f"transaction() is using {using!r}; {_EXPECTED}.")
    unit = _units.get(owner)
    if unit is None:
        follow = _SessionUnit if isinstance(owner, orm.Session) else _ConnectionUnit
        unit = _units[owner] = follow(sqlalchemy.event, owner)
    return _Scope(unit, owner, waits=waits)


class _Scope:
    """A block of transaction(using=session)."""

    def __init__(self, unit: "_SessionUnit | _ConnectionUnit", owner: Any, *, waits: bool) -> None:
        self._unit, self._owner, self._waits = unit, owner, waits
        self._has_ended = False
        unit.blocks_that_wait += waits

    def unit_in_progress(self) -> Unit | None:
        """Return the unit of work of the session or connection; None for a task that goes on after the block."""
        if self._has_ended:
            return None
        self._unit.settle()
        return self._unit

    def leave(self, error: BaseException | None) -> Sequence[Segment]:
        """Return the committed changes, and those without a transaction in progress, unless an error is on its way."""
        unit, self._has_ended = self._unit, True
        unit.settle()
        unit.blocks_that_wait -= self._waits
        committed = unit.take_committed()
        if not self._owner.in_transaction():
            committed += unit.take() if error is None else []
            unit.drop_from(0)
        elif error is None:
            unit.check_left_open()
        return committed


class _FollowingUnit(Unit):
    """A unit of work whose transaction is somebody else's."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks_that_wait = 0  # blocks at whose end changes are applied, as that can be awaited there
        self._committed: list[Segment] = []

    def segments(self) -> list[Segment]:
        """Return those that are committed and not applied, and those that are not committed."""
        return self._committed + self._segments if self._committed else self._segments

    def current(self) -> Segment:
        """Return the segment that changes go to now: none that is committed."""
        return self._segments[-1] if self._segments else self.begin()

    def settle(self) -> None:
        """Find out the end of the transaction, where nobody tells it."""

    def check_left_open(self) -> None:
        """Raise TransactionError if nobody will tell the end of the transaction."""

    def commit(self) -> None:
        """Apply the changes that are held back, or leave that to the end of the block."""
        self._committed += self.take()
        if not self.blocks_that_wait:
            Application(self.take_committed()).carry_out()

    def take_committed(self) -> list[Segment]:
        """Return the committed segments, to be applied."""
        with self.lock:
            taken, self._committed = self._committed, []
            return taken


class _SessionUnit(_FollowingUnit):
    """The changes of caches in the transactions of a Session."""

    def __init__(self, event: Any, session: Any) -> None:
        super().__init__()
        self._savepoints: dict[int, int] = {}
        self._has_committed = False
        event.listen(session, "after_transaction_create", self._begin)
        event.listen(session, "after_commit", self._note_commit)
        event.listen(session, "after_transaction_end", self._end)

    def _begin(self, _: Any, transaction: Any) -> None:
        if transaction.nested:
            self._savepoints[id(transaction)] = len(self._segments)
            self.begin()

    def _note_commit(self, session: Any) -> None:
        if session.in_nested_transaction():  # a savepoint is released: its changes are the outer one's
            self._savepoints.pop(id(session.get_nested_transaction()), None)
        else:
            self._has_committed = True

    def _end(self, _: Any, transaction: Any) -> None:
        if transaction.nested:
            begins_at = self._savepoints.pop(id(transaction), None)
            if begins_at is not None:
                self.drop_from(begins_at)
            self.begin()
        elif transaction.parent is None:
            has_committed, self._has_committed = self._has_committed, False
            self._savepoints.clear()
            if has_committed:
                self.commit()
            else:
                self.drop_from(0)


class _ConnectionUnit(_FollowingUnit):
    """The changes of caches in the transactions of a Connection."""

    def __init__(self, event: Any, connection: Any) -> None:
        super().__init__()
        self._connection = ref(connection)  # it owns the listeners, and so this object
        self._savepoints: list[int] = []
        self._committing: Any = None
        for name, note in (
            ("begin", lambda _: self.settle()),
            ("savepoint", lambda *_: self._begin()),
            ("rollback_savepoint", lambda *_: self._roll_back()),
            ("release_savepoint", lambda *_: self._savepoints.pop()),
            ("commit", lambda _: self._note_commit()),
            ("rollback", lambda _: self._drop()),
        ):
            event.listen(connection, name, note)
        if not event.contains(connection.engine, "handle_error", _note_error):
            event.listen(connection.engine, "handle_error", _note_error)

    def _begin(self) -> None:
        self._savepoints.append(len(self._segments))
        self.begin()

    def _roll_back(self) -> None:
        self.drop_from(self._savepoints.pop())
        self.begin()

    def _transaction(self) -> Any:
        connection = self._connection()
        return None if connection is None else connection.get_transaction()

    def _note_commit(self) -> None:
        self._committing = self._transaction()

    def _drop(self) -> None:
        self._committing = None
        self._savepoints.clear()
        self.drop_from(0)

    def settle(self) -> None:
        """Apply the changes if the transaction that was about to commit is no more in progress: it has done so."""
        if self._committing is not None and self._transaction() is not self._committing:
            self._committing = None
            self._savepoints.clear()
            self.commit()

    def check_left_open(self) -> None:
        """Raise TransactionError: nobody tells when a Connection has committed."""
        self._drop()
        raise TransactionError(
            "The block of storeroom.transaction(using=connection) ends while the connection's transaction is in "
            "progress, and nobody would tell whether that is committed: writes that were held back are dropped. Enter "
            "transaction() before connection.begin() or engine.begin(), or commit within its block."
        )


def _note_error(context: Any) -> None:
    """Drop the changes that are held back if this was the commit."""
    unit = None if context.connection is None else _units.get(context.connection)
    if isinstance(unit, _ConnectionUnit) and unit._committing is not None:
        unit._drop()
