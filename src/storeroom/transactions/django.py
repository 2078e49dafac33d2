"""Transactions of Django's: ``atomic()``, on whichever connection this thread has.

Django tells when it commits, by ``on_commit()``, and tells nobody of a rollback. It does drop the functions that were
to be called, of a savepoint or of all. So a segment counts while Django means to call the function that applies it.

Source: ``run_on_commit`` and ``savepoint_ids`` of django/db/backends/base/base.py.
"""

from importlib import import_module
from typing import Any, Final

from storeroom.storage.steps import Steps, run
from storeroom.transactions.applying import apply
from storeroom.transactions.changes import Change, Segment, Unit

__all__ = ["DjangoScope"]

_UNIT: Final = "_storeroom_unit"
"""The attribute of a connection that its unit of work is kept in: both live as long, and in one thread."""


class DjangoScope:
    """A block of transaction(using="alias"), or the option of a cache that stands for one."""

    def __init__(self, database: str) -> None:
        self.database = database

    def unit_in_progress(self) -> Unit | None:
        """Return the unit of work of the thread's connection; None outside of atomic()."""
        # This layer imports no framework; a program that names a database of Django's has loaded it.
        connection = import_module("django.db").connections[self.database]
        if not connection.in_atomic_block:
            return None
        unit: Unit | None = vars(connection).get(_UNIT)
        if unit is None:
            unit = vars(connection)[_UNIT] = _ConnectionUnit(connection)
        return unit

    def leave(self, error: BaseException | None) -> Steps[None]:
        """Do nothing: Django's own blocks decide."""
        yield from ()


class _ConnectionUnit(Unit):
    """The changes of caches in the transaction of a connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        super().__init__()

    @property
    def is_open(self) -> bool:
        """Whether a transaction is in progress."""
        return bool(self._connection.in_atomic_block)

    @is_open.setter
    def is_open(self, _: bool) -> None:
        pass

    def segments(self) -> list[Segment]:
        """Return those that Django still means to apply."""
        to_call = {id(function) for _, function, *_ in self._connection.run_on_commit}
        if any(id(segment.savepoint[0]) not in to_call for segment in self._segments):
            self._segments = [segment for segment in self._segments if id(segment.savepoint[0]) in to_call]
        return self._segments

    def begin(self, clears: Change | None = None) -> Segment:
        """Begin a segment that belongs to the savepoints in progress."""
        segment = Segment(clears=clears)

        def application() -> None:
            run(apply([segment]))

        application.__qualname__ = "storeroom.transaction"  # Django's name for it in the log
        segment.savepoint = application, self._savepoints()
        self.segments().append(segment)
        # Robust: an error is logged, and keeps neither other changes nor the program's own functions from being made.
        self._connection.on_commit(application, robust=True)
        return segment

    def current(self) -> Segment:
        """Return the segment that belongs to the savepoints in progress, or begin it."""
        segments = self.segments()
        if segments and segments[-1].savepoint[1] == self._savepoints():
            return segments[-1]
        return self.begin()

    def _savepoints(self) -> tuple[Any, ...]:
        return tuple(self._connection.savepoint_ids)
