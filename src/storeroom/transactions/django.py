"""Transactions of Django's: ``atomic()``, on whichever connection this thread has.

Django tells when it commits, by ``on_commit()``, and tells nobody of a rollback. It does drop the functions that were
to be called, of a savepoint or of all. So a segment counts while Django means to call the function that applies it.

Source: ``run_on_commit``, ``savepoint_ids`` and ``savepoint_state`` of django/db/backends/base/base.py.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final

from storeroom.transactions.applying import Application
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

    def leave(self, error: BaseException | None) -> Sequence[Segment]:
        """Return none: Django's own blocks decide."""
        return ()


class _SavepointsBefore(set[str]):
    """The savepoints that changes are dropped with, of those that Django has made on a connection until now.

    It counts them, and its low-level API keeps no note of the ones in progress. Of those made before a change, one that
    can still be rolled back is around it.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count

    def __contains__(self, sid: object) -> bool:
        """Tell whether the changes go if this one is rolled back."""
        number = str(sid).rpartition("x")[2]
        return number.isdecimal() and int(number) <= self._count


class _ConnectionUnit(Unit):
    """The changes of caches in the transaction of a connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        super().__init__()
        self._run_hooks = connection.run_and_clear_commit_hooks
        connection.run_and_clear_commit_hooks = self._run_own_hooks_first

    def _run_own_hooks_first(self) -> None:
        """Let Django run the functions of on_commit(), this unit's before the program's: one that raises ends that."""
        segments, self._segments = self.segments(), []
        if segments:
            own = {id(segment.savepoint[0]) for segment in segments}
            others = [hook for hook in self._connection.run_on_commit if id(hook[1]) not in own]
            self._connection.run_on_commit = [(set(), _application(segments), True), *others]
        self._run_hooks()

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
        application = _application([segment])
        segment.savepoint = application, self._savepoints()
        self.segments().append(segment)
        # Robust: an error is logged, and keeps neither other changes nor the program's own functions from being made.
        self._connection.on_commit(application, robust=True)
        self._connection.run_on_commit[-1] = _SavepointsBefore(self._connection.savepoint_state), application, True
        return segment

    def current(self) -> Segment:
        """Return the segment that belongs to the savepoints in progress, or begin it."""
        segments = self.segments()
        if segments and segments[-1].savepoint[1] == self._savepoints():
            return segments[-1]
        return self.begin()

    def _savepoints(self) -> tuple[Any, ...]:
        return self._connection.savepoint_state, *self._connection.savepoint_ids


def _application(segments: Sequence[Segment]) -> Callable[[], None]:
    def application() -> None:
        Application(segments).carry_out()

    application.__qualname__ = "storeroom.transaction"  # Django's name for it in the log
    return application
