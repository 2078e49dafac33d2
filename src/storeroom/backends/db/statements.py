"""The SQL of one table, written once for what the databases have in common.

Every statement takes the parameters that its name promises, in the order in which they
stand in the text. Lists of keys are cut into chunks, so that no database's bound on
parameters is met.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeVar

__all__ = ["CHUNK", "COLUMNS", "Grammar", "Statements", "chunks", "rows_of"]

T = TypeVar("T")

CHUNK: Final = 500
"""Keys in one statement. SQLite allows 999 parameters before 3.32, and planners slow down on more."""

COLUMNS: Final = ("cache_key", "value", "number", "expires", "size", "growth", "sequence")

_IS_ENVELOPE: Final = "value IS NOT NULL AND number IS NOT NULL"

_OVERWRITTEN: Final = ("value", "number", "expires", "sequence")


@dataclass(frozen=True, slots=True)
class Grammar:
    """How one database writes what the others write differently.

    Attributes:
        mark: stands for a parameter.
        quote: begins and ends a name.
        types: of the columns, in the order of COLUMNS.
        skip_locked: makes a SELECT lock what it finds and pass over what others have locked.
        lock: makes a SELECT lock what it finds.
        begin: begins a transaction that is going to write.
        snapshot: begins one that reads, and sees one moment throughout.
        returning: whether writing statements can return columns.
        chains: whether one statement can write to several rows, each in a way of its own.
        table_suffix: ends CREATE TABLE.
    """

    mark: str
    quote: str
    types: tuple[str, ...]
    skip_locked: str
    lock: str
    begin: str
    snapshot: tuple[str, ...]
    returning: bool
    chains: bool = False
    table_suffix: str = ""


def chunks(items: Sequence[T], length: int = CHUNK) -> Iterator[Sequence[T]]:
    """Yield the items, so many at a time."""
    return (items[start : start + length] for start in range(0, len(items), length))


class Statements:
    """The statements on one table."""

    def __init__(self, grammar: Grammar, table: str, *, unlogged: bool = False) -> None:
        self.grammar = grammar
        self.name = table
        self.table = self._quoted(table)
        mark, here = grammar.mark, self.table
        self._unlogged = "UNLOGGED " if unlogged else ""
        # For each length of a list there is a text; a cache keeps those in use.
        self._listed: Callable[[str, int], str] = lru_cache(256)(self._make_listed)
        self._upserts: Callable[[int, bool], str] = lru_cache(64)(self._make_upsert)
        self.get = f"SELECT value, number, expires FROM {here} WHERE cache_key = {mark}"
        self.expiry = f"SELECT expires, {_IS_ENVELOPE} FROM {here} WHERE cache_key = {mark}"
        self.touch = (
            f"UPDATE {here} SET expires = {mark} WHERE cache_key = {mark} AND expires > {mark} AND NOT ({_IS_ENVELOPE})"
        )
        self.counts = f"SELECT number, growth FROM {here} WHERE cache_key = {mark}"
        self.lock_entry = (
            f"SELECT value, number, expires, size FROM {here} WHERE cache_key = {mark} AND expires > {mark}"
            f"{grammar.lock}"
        )
        self.lock_any = f"SELECT expires FROM {here} WHERE cache_key = {mark}{grammar.lock}"
        self.incr = (
            f"UPDATE {here} SET number = number + {mark} WHERE cache_key = {mark} AND expires > {mark} "
            f"AND number BETWEEN {mark} AND {mark} AND value IS NULL"
            + (" RETURNING number" if grammar.returning else "")
        )
        self.count_up = (
            f"UPDATE {here} SET number = number + {mark}, growth = growth + {mark} WHERE cache_key = {mark}"
            + (" RETURNING number, growth" if grammar.returning else "")
        )
        self.recount = f"SELECT count(*), sum(size) FROM {here} WHERE size > 0"
        self.set_counts = f"UPDATE {here} SET number = {mark}, growth = {mark} WHERE cache_key = {mark}"
        if grammar.chains:
            self.put_one = self._make_put_one(only_absent=False)
            self.add_one = self._make_put_one(only_absent=True)
        self.replace = (
            f"UPDATE {here} SET growth = {mark} - size, value = {mark}, number = {mark}, size = {mark} "
            f"WHERE cache_key = {mark}"
        )
        self.earliest = f"SELECT min(expires) FROM {here}"
        self.expired = (
            f"SELECT cache_key, size FROM {here} WHERE expires <= {mark} ORDER BY expires LIMIT {mark}"
            f"{grammar.skip_locked}"
        )
        self.oldest = (
            f"SELECT cache_key, size FROM {here} WHERE size > 0 ORDER BY sequence LIMIT {mark}{grammar.skip_locked}"
        )
        self.scan = (
            "SELECT cache_key, CASE WHEN length(cache_key) < 480 THEN NULL ELSE value END, expires, "
            f"{_IS_ENVELOPE} FROM {here} WHERE cache_key > {mark} ORDER BY cache_key LIMIT {mark}"
        )
        self.scan_from = self.scan.replace(f"cache_key > {mark}", f"cache_key >= {mark}")
        self.columns = f"SELECT {', '.join(COLUMNS)} FROM {here} LIMIT 0"

    def _quoted(self, name: str) -> str:
        quote = self.grammar.quote
        return (
            f"{quote}{name.replace(quote, 2 * quote).replace('%', '%%' if self.grammar.mark == '%s' else '%')}{quote}"
        )

    # Statements on several rows ---------------------------------------------------------------

    def get_many(self, count: int) -> str:
        """Take so many names."""
        return self._listed(f"SELECT cache_key, value, number, expires FROM {self.table} WHERE cache_key IN", count)

    def lock_entries(self, count: int) -> str:
        """Take so many names; lock their rows."""
        return f"{self.get_many(count)}{self.grammar.lock}"

    def sizes(self, count: int) -> str:
        """Take so many names; lock their rows."""
        text = self._listed(f"SELECT size, expires FROM {self.table} WHERE cache_key IN", count)
        return f"{text}{self.grammar.lock}"

    def growths(self, count: int) -> str:
        """Take so many names."""
        return self._listed(f"SELECT growth, size FROM {self.table} WHERE cache_key IN", count)

    def delete(self, count: int) -> str:
        """Take so many names; return size and expires of each where that is possible."""
        text = self._listed(f"DELETE FROM {self.table} WHERE cache_key IN", count)
        return f"{text} RETURNING size, expires" if self.grammar.returning else text

    def used(self, count: int) -> str:
        """Take so many names; return those that are nobody's at the moment, and lock them."""
        text = self._listed(f"SELECT cache_key FROM {self.table} WHERE size > 0 AND cache_key IN", count)
        return f"{text}{self.grammar.skip_locked}"

    def renew(self, count: int) -> str:
        """Take a place in the sequence, and so many names."""
        return self._listed(f"UPDATE {self.table} SET sequence = {self.grammar.mark} WHERE cache_key IN", count)

    def _make_listed(self, text: str, count: int) -> str:
        return f"{text} ({', '.join([self.grammar.mark] * count)})"

    # Writing ----------------------------------------------------------------------------------

    def insert(self, count: int) -> str:
        """Take the columns of so many rows."""
        row = f"({', '.join([self.grammar.mark] * len(COLUMNS))})"
        return f"INSERT INTO {self.table} ({', '.join(COLUMNS)}) VALUES {', '.join([row] * count)}"

    def upsert(self, count: int, *, only_absent: bool) -> str:
        """Take the columns of so many rows, and the present where only the absent and expired are written.

        Returns growth and size of each that was written.
        """
        return self._upserts(count, only_absent)

    def _make_upsert(self, count: int, only_absent: bool) -> str:
        return f"{self.insert(count)} {self._on_conflict(only_absent)} RETURNING growth, size"

    def add_many(self, count: int) -> str:
        """Take the columns of so many rows, and the present; return name, growth and size of each that was written."""
        return f"{self.insert(count)} {self._on_conflict(only_absent=True)} RETURNING cache_key, growth, size"

    def _on_conflict(self, only_absent: bool) -> str:
        here = self.table
        changes = [f"growth = excluded.size - {here}.size", "size = excluded.size"]
        changes += [f"{column} = excluded.{column}" for column in _OVERWRITTEN]
        condition = f" WHERE {here}.expires <= {self.grammar.mark}" if only_absent else ""
        return f"ON CONFLICT (cache_key) DO UPDATE SET {', '.join(changes)}{condition}"

    def _make_put_one(self, *, only_absent: bool) -> str:
        """Return what writes one row and counts it, within bounds.

        It takes the name of the counts, max_entries, the row's size and max_bytes; what upsert(1) does; and once
        more max_entries, max_bytes and the name. It returns one row: the growth of what was written, None if
        an entry is present, and the counts, None if they did not change. It returns no row where the bounds have
        no room, and it fails where others take the room while it runs, by the constraint that `growth` is not NULL:
        a statement that has written a row has no other way to undo it.
        """
        here, mark = self.table, self.grammar.mark
        columns, row = ", ".join(COLUMNS), ", ".join([mark] * len(COLUMNS))
        number = (
            "counts.number + CASE WHEN put.growth = put.size THEN 1 WHEN put.growth < 0 AND put.size = 0 "
            "THEN -1 ELSE 0 END"
        )
        growth = "counts.growth + put.growth"
        return (
            f"WITH room AS (SELECT 1 FROM {here} WHERE cache_key = {mark} AND number < {mark} "
            f"AND growth + {mark} <= {mark}), "
            f"put AS (INSERT INTO {here} ({columns}) SELECT {row} FROM room {self._on_conflict(only_absent)} "
            f"RETURNING growth, size), "
            f"counted AS (UPDATE {here} AS counts SET number = {number}, growth = CASE "
            f"WHEN {number} <= {mark} AND {growth} <= {mark} THEN {growth} END FROM put "
            f"WHERE counts.cache_key = {mark} AND put.growth <> 0 RETURNING counts.number, counts.growth) "
            "SELECT put.growth, counted.number, counted.growth FROM room LEFT JOIN put ON true "
            "LEFT JOIN counted ON true"
        )

    # The table itself -------------------------------------------------------------------------

    def create(self) -> list[str]:
        """Return what makes the table and its indexes."""
        columns = ", ".join(f"{name} {kind}" for name, kind in zip(COLUMNS, self.grammar.types, strict=True))
        indexes = [
            f"CREATE INDEX {self._quoted(f'{self.name}_{column}')} ON {self.table} ({column})"
            for column in ("expires", "sequence")
        ]
        return [f"CREATE {self._unlogged}TABLE {self.table} ({columns}){self.grammar.table_suffix}", *indexes]

    def drop(self) -> str:
        """Return what removes the table."""
        return f"DROP TABLE {self.table}"


def rows_of(rows: Sequence[Sequence[Any]]) -> list[Any]:
    """Return the parameters of several rows, one after the other."""
    return [column for row in rows for column in row]
