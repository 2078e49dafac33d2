"""The SQL of one table, written once as far as the databases agree.

A statement takes its parameters in the order of its text. Lists of keys are cut into chunks,
so that no database's bound on parameters is met.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeVar

from storeroom.backends.db.rows import KEY_BYTES
from storeroom.storage.envelope import LEASED_BYTES

__all__ = ["COLUMNS", "REMOVED", "Grammar", "Statements", "batches", "chunks"]

T = TypeVar("T")

_CHUNK: Final = 500
"""Keys in one statement. SQLite allows 999 parameters before 3.32, and planners slow down on more."""

COLUMNS: Final = ("cache_key", "value", "number", "expires", "size", "growth", "sequence")

_ROW: Final = f"({', '.join('?' * len(COLUMNS))})"

_ON_CONFLICT: Final = (
    "ON CONFLICT (cache_key) DO UPDATE SET growth = excluded.size - $.size, size = excluded.size, "
    "value = excluded.value, number = excluded.number, expires = excluded.expires, sequence = excluded.sequence"
)
_IF_ABSENT: Final = " WHERE $.expires <= ?"

_UNTIL: Final = f" AND (sequence & {2**62 - 1}) <= ?"
"""Takes a position, of an entry or of a lease: see Transaction.columns_of()."""

_IS_ENVELOPE: Final = "value IS NOT NULL AND number IS NOT NULL"

REMOVED: Final = (
    f"size, expires, cache_key, CASE WHEN {_IS_ENVELOPE} THEN CASE WHEN length(cache_key) < {KEY_BYTES} "
    f"THEN substr(value, 1, {LEASED_BYTES}) ELSE value END END"
)
"""The columns of rows that are removed: at last as much of an envelope as tells whether it is over, else NULL."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """The SQL that each database writes in its own way; the defaults are those of most.

    Attributes:
        parameter: stands for one.
        types: of the columns, in the order of COLUMNS.
        begin: begins a transaction that is going to write.
        snapshot: begins one that reads, and sees one moment throughout.
        lock: makes a SELECT lock what it finds.
        skip_locked: the same, and makes it pass over rows that others have locked.
        quote: begins and ends a name.
        returning: whether all writing statements can return columns.
        chains: whether one statement can write to several rows, each in a way of its own.
        create: begins CREATE TABLE.
        table_suffix: ends it.
    """

    parameter: str
    types: tuple[str, ...]
    begin: tuple[str, ...]
    snapshot: tuple[str, ...]
    lock: str = ""
    skip_locked: str = ""
    quote: str = '"'
    returning: bool = True
    chains: bool = False
    create: str = "CREATE TABLE"
    table_suffix: str = ""


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the items, as many at a time as one statement takes."""
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))


def batches(items: Iterable[T], length_of: Callable[[T], int], longest: int, count: int) -> Iterator[list[T]]:
    """Yield the items, up to `count` at a time, and together up to `longest` long unless one alone is longer."""
    batch: list[T] = []
    total = 0
    for item in items:
        length = length_of(item)
        if batch and (len(batch) == count or total + length > longest):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += length
    if batch:
        yield batch


class Statements:
    """The statements on one table; in the texts below, ? stands for a parameter and $ for the table."""

    def __init__(self, grammar: Grammar, table: str) -> None:
        self.grammar = grammar
        self.name = table
        self.table = self._quoted(table)
        sql, lock, skip_locked = self._sql, grammar.lock, grammar.skip_locked
        # One entry
        self.get = sql("SELECT value, number, expires FROM $ WHERE cache_key = ?")
        self.expiry = sql(f"SELECT expires, {_IS_ENVELOPE} FROM $ WHERE cache_key = ?")
        self.lock_any = sql(f"SELECT expires FROM $ WHERE cache_key = ?{lock}")
        self.lock_entry = sql(
            f"SELECT value, number, expires, size, sequence FROM $ WHERE cache_key = ? AND expires > ?{lock}"
        )
        self.touch = sql(f"UPDATE $ SET expires = ? WHERE cache_key = ? AND expires > ? AND NOT ({_IS_ENVELOPE})")
        self.replace = sql("UPDATE $ SET growth = ? - size, value = ?, number = ?, size = ? WHERE cache_key = ?")
        self.incr = sql(
            "UPDATE $ SET number = number + ? WHERE cache_key = ? AND expires > ? AND number BETWEEN ? AND ? "
            f"AND value IS NULL{self._returned('number')}"
        )
        self.put_over = sql(
            "UPDATE $ SET growth = 0, value = ?, number = ?, expires = ?, sequence = ? WHERE cache_key = ? AND size = ?"
        )
        if grammar.chains:
            self.put_one, self.add_one = sql(_put_one("")), sql(_put_one(_IF_ABSENT))
        # The counts
        self.counts = sql("SELECT number, growth FROM $ WHERE cache_key = ?")
        self.count_up = sql(
            "UPDATE $ SET number = number + ?, growth = growth + ? WHERE cache_key = ?"
            f"{self._returned('number, growth')}"
        )
        self.recount = sql("SELECT count(*), sum(size) FROM $ WHERE size > 0")
        self.lock_notice = sql(f"SELECT value FROM $ WHERE cache_key = ?{lock}")
        self.give_notice = sql("UPDATE $ SET value = ? WHERE cache_key = ?")
        self.set_counts = sql("UPDATE $ SET number = ?, growth = ? WHERE cache_key = ?")
        # The first so many
        self.earliest = sql("SELECT min(expires) FROM $")
        self.expired = sql(f"SELECT cache_key, size FROM $ WHERE expires <= ? ORDER BY expires LIMIT ?{skip_locked}")
        self.oldest = sql(f"SELECT cache_key, size FROM $ WHERE size > 0 ORDER BY sequence LIMIT ?{skip_locked}")
        tags = f"FROM $ WHERE sequence >= {2**62} AND cache_key >= ? AND cache_key < ?"
        self.count_tags = sql(f"SELECT count(*) {tags}")
        self.oldest_tags = sql(f"SELECT cache_key {tags} ORDER BY sequence LIMIT ?{skip_locked}")
        scan = (
            "SELECT cache_key, CASE WHEN length(cache_key) < 480 THEN NULL ELSE value END, expires, "
            f"{_IS_ENVELOPE}, sequence FROM $ WHERE cache_key > ? ORDER BY cache_key LIMIT ?"
        )
        self.scan, self.scan_from = sql(scan), sql(scan.replace(">", ">="))
        # The ends of the sequence: entries, the row of counts, leases and locks
        self.last = sql("SELECT max(sequence) FROM $")
        self.last_entry = sql(f"SELECT max(sequence) FROM $ WHERE sequence < {2**62}")
        self.leases = sql(f"{scan.partition(' WHERE ')[0]} WHERE sequence >= {2**62}")
        self._learn_lists()

    def _learn_lists(self) -> None:
        """Learn the statements on a number of names, or rows."""
        several, lock, skip_locked = self._several, self.grammar.lock, self.grammar.skip_locked
        self.get_many = several("SELECT cache_key, value, number, expires FROM $ WHERE")
        # In one order everywhere, as in Transaction: the order of a plan would be another.
        in_order = f" ORDER BY cache_key{lock}"
        self.lock_entries = several("SELECT cache_key, expires, value, number, sequence FROM $ WHERE", in_order)
        self.sizes = several(f"SELECT {REMOVED} FROM $ WHERE", lock)
        self.growths = several("SELECT growth, size FROM $ WHERE")
        self.delete: Callable[[int], str] = self._deletes()
        self.used = several("SELECT cache_key FROM $ WHERE size > 0 AND", skip_locked)
        self.renew = several("UPDATE $ SET sequence = ? WHERE size > 0 AND")
        self.delete_until = several("DELETE FROM $ WHERE", f"{_UNTIL}{self._returned('size, expires')}")
        self.until = several("SELECT cache_key FROM $ WHERE", f"{_UNTIL}{lock}")
        self.until_unlocked = several("SELECT cache_key FROM $ WHERE", f"{_UNTIL}{skip_locked}")
        self.put_many: Callable[[int], str] = lru_cache(64)(self._put_many)
        self.add_many: Callable[[int], str] = lru_cache(64)(self._add_many)

    def _deletes(self) -> Callable[[int], str]:
        """Return the function from a number of names to the statement that removes the rows of so many."""
        return self._several("DELETE FROM $ WHERE", self._returned(REMOVED))

    def _several(self, text: str, after: str = "") -> Callable[[int], str]:
        """Return the function from a number of names to the statement on the rows of so many; texts in use are kept."""
        return lru_cache(128)(lambda count: self._sql(f"{text} cache_key IN ({', '.join('?' * count)}){after}"))

    def _sql(self, text: str) -> str:
        return text.replace("?", self.grammar.parameter).replace("$", self.table)

    def _returned(self, columns: str) -> str:
        return f" RETURNING {columns}" if self.grammar.returning else ""

    def _quoted(self, name: str) -> str:
        quote = self.grammar.quote
        name = name.replace(quote, 2 * quote)
        return f"{quote}{name.replace('%', '%%') if self.grammar.parameter == '%s' else name}{quote}"

    def insert(self, count: int) -> str:
        """Take the columns of so many rows."""
        return self._sql(f"INSERT INTO $ ({', '.join(COLUMNS)}) VALUES {', '.join([_ROW] * count)}")

    def _put_many(self, count: int) -> str:
        """Take the columns of so many rows; return growth and size of each."""
        return self.insert(count) + self._sql(f" {_ON_CONFLICT} RETURNING growth, size")

    def _add_many(self, count: int) -> str:
        """Take the columns of so many rows, and the present; return growth, size and name of each that is written."""
        return self.insert(count) + self._sql(f" {_ON_CONFLICT}{_IF_ABSENT} RETURNING growth, size, cache_key")

    def create(self) -> list[str]:
        """Return the statements that make the table and its indexes."""
        indexes = [f"CREATE INDEX {name} ON {self.table} ({column})" for name, column in self._indexes()]
        return [f"{self.grammar.create} {self.table} ({self._columns()}){self.grammar.table_suffix}", *indexes]

    def _columns(self) -> str:
        return ", ".join(f"{name} {kind}" for name, kind in zip(COLUMNS, self.grammar.types, strict=True))

    def _indexes(self) -> list[tuple[str, str]]:
        return [(self._quoted(f"{self.name}_{column}"), column) for column in ("expires", "sequence")]


def _put_one(condition: str) -> str:
    """Return the statement that writes one row and counts it, within bounds.

    It takes the name of the counts, the most entries there may be before, the bytes to be had for, and the most bytes
    with these; the parameters of put_many(1) or add_many(1); and the name once more. It returns the growth of the row
    written, None if an entry is present, and the counts, None if they did not change; no row where there is no room.
    Others may take the room while it runs: the counts then are beyond the bounds, and its caller has to make room.
    """
    number = (
        "counts.number + CASE WHEN put.growth = put.size THEN 1 WHEN put.growth < 0 AND put.size = 0 THEN -1 ELSE 0 END"
    )
    return (
        "WITH room AS (SELECT 1 FROM $ WHERE cache_key = ? AND number <= ? AND growth + ? <= ?), "
        f"put AS (INSERT INTO $ ({', '.join(COLUMNS)}) SELECT {_ROW[1:-1]} FROM room "
        f"{_ON_CONFLICT}{condition} RETURNING growth, size), "
        f"counted AS (UPDATE $ AS counts SET number = {number}, growth = counts.growth + put.growth FROM put "
        "WHERE counts.cache_key = ? AND put.growth <> 0 RETURNING counts.number, counts.growth) "
        "SELECT put.growth, counted.number, counted.growth FROM room LEFT JOIN put ON true "
        "LEFT JOIN counted ON true"
    )
