"""Writes of one entry with nothing beside them, where as far as this process knows nothing else is due."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from storeroom import timeouts
from storeroom.backends.db.database import Database
from storeroom.backends.db.errors import OverfullError
from storeroom.backends.db.fetching import rows_changed
from storeroom.backends.db.rows import COUNTS_NAME, Row
from storeroom.backends.db.statements import Statements
from storeroom.backends.db.transaction import IN_FLIGHT, Bounds, Transaction, columns_of, entries_added
from storeroom.backends.served import NetworkEngine

if TYPE_CHECKING:
    from storeroom.backends.db.notifications import Notifications

__all__ = ["UNBOUNDED", "BriefWriter"]

UNBOUNDED: Final = Bounds()

_IN_A_ROW: Final = 4
"""Entries written over one of the same size, after which the next is tried so first: to try in vain takes a statement,
and so no more than every fifth write does."""

_Written: TypeAlias = tuple[Any, Any, Any]
"""Growth of the row written, None if an entry is present; entries and bytes, None if the counts did not change."""


class BriefWriter(NetworkEngine):
    """The part of a table's engine that writes one entry, in as few statements as there can be."""

    database: Database
    statements: Statements
    _counts: tuple[int, int] | None
    _notifications: "Notifications | None"
    _earliest: float
    _look_after: float
    _written_over = 0
    """Entries in a row that were written over one of the same size."""

    write: Callable[..., Any]
    _exclusively: Callable[..., Any]
    _counting: Callable[..., Any]
    """See DatabaseEngine."""

    def put(self, row: Row, expires_at: float, bounds: Bounds, *, only_absent: bool = False) -> bool:
        """Write an entry, with nothing beside it where nothing is due; return whether it was written."""
        if self._is_brief(row, bounds):
            try:
                return self._put_briefly(row, expires_at, bounds, only_absent)
            except OverfullError:
                pass
        if only_absent:
            return bool(self.write(Transaction.add_many, {row: expires_at}, bounds=bounds))
        before = self._counts
        self.write(Transaction.put, [row], expires_at, bounds=bounds)
        self._note_growth(self._counts is not before)
        return True

    def _is_brief(self, row: Row, bounds: Bounds) -> bool:
        """Tell whether, for all that is known here, nothing is due beside writing and counting."""
        if self._counts is None or self._notifications is not None:
            return False
        entries, size = self._counts
        now, writes = timeouts.now(), IN_FLIGHT if self.statements.grammar.chains else 1
        has_room = bounds.allow(entries + writes, size + writes * row.size)
        return now < self._earliest and now < self._look_after and has_room

    def _put_briefly(self, row: Row, expires_at: float, bounds: Bounds, only_absent: bool) -> bool:
        """Write an entry and count it; return whether it was. Raise OverfullError if more is due after all."""
        columns = columns_of(row, expires_at)
        is_over = self._written_over >= _IN_A_ROW and not only_absent and self._put_over(columns)
        written: _Written = (0, None, None) if is_over else self._put_counting(columns, row.size, bounds, only_absent)
        growth, entries, size = written
        if not is_over:
            self._note_growth(growth)
        if growth is None:
            return False
        self._earliest = min(self._earliest, expires_at)
        if entries is not None:
            self._counts = counts = entries, int(size)
            if not bounds.allow(*counts):  # a transaction has taken all the room meanwhile
                self.write(Transaction.mind_bounds, bounds=bounds)
        elif growth:
            # Somebody has removed the counts while they were waited for.
            self.write(Transaction.count_anew, bounds=bounds)
        return True

    def _note_growth(self, growth: int | None) -> None:
        """Note by how much a write has added to the sizes of all; None if there was none."""
        self._written_over = self._written_over + 1 if growth == 0 else 0

    def _put_over(self, columns: Sequence[Any]) -> bool:
        """Write an entry over one of the same size, which changes no counts; tell whether there was one."""
        name, value, number, expires, size, _, sequence = columns
        terms = value, number, expires, sequence, name, size
        is_changed: bool = self._exclusively(rows_changed, self.statements.put_over, terms) > 0
        if not is_changed:
            self._written_over = 0
        return is_changed

    def _put_counting(self, columns: Sequence[Any], size: int, bounds: Bounds, only_absent: bool) -> Any:
        if not self.statements.grammar.returning:
            raise OverfullError
        terms = (*columns, timeouts.now()) if only_absent else columns, only_absent, size, bounds
        if self.statements.grammar.chains:
            return self._exclusively(self._put_by_one, *terms)
        return self._counting(self._put_by_two, *terms)

    def _put_by_one(
        self, session: Any, parameters: Sequence[Any], only_absent: bool, size: int, bounds: Bounds
    ) -> _Written:
        """Write a row and count it in one statement; raise OverfullError, and write nothing, where there is no room."""
        statement = self.statements.add_one if only_absent else self.statements.put_one
        room = (COUNTS_NAME, bounds.max_entries - IN_FLIGHT, IN_FLIGHT * size, bounds.max_bytes)
        found: _Written | None = session.execute(statement, (*room, *parameters, COUNTS_NAME)).fetchone()
        if found is None:
            raise OverfullError
        return found

    def _put_by_two(
        self, session: Any, parameters: Sequence[Any], only_absent: bool, size: int, bounds: Bounds
    ) -> _Written:
        """Do as _put_by_one(), where a statement writes one row alone."""
        statements = self.statements
        statement = statements.add_many(1) if only_absent else statements.put_many(1)

        def counted() -> _Written:
            written = session.execute(statement, parameters).fetchall()
            growth = written[0][0] if written else None
            if not growth:
                return growth, None, None
            added = (entries_added(growth, size), growth, COUNTS_NAME)
            counts = session.execute(statements.count_up, added).fetchone()
            if counts is None or not bounds.allow(*counts):
                raise OverfullError
            return growth, *counts

        return self.database.within(session, statements.grammar.begin, counted)
