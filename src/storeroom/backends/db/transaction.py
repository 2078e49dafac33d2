"""Changes of a table within one transaction, its counts, and the room that they need.

Each statement's additions and removals go to the row of counts before the commit; the table is
not counted. From then on that row is locked, so that the bounds hold whatever others write, and
rows that others have locked are passed over, so that no two transactions wait for each other.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from storeroom.backends.db.rows import COUNTS_NAME, ENDLESS, TAG_NAMES, Row, is_over, value_bytes
from storeroom.backends.db.statements import Statements, batches, chunks

__all__ = [
    "EXPIRED",
    "IN_FLIGHT",
    "NOTICE_SECONDS",
    "NO_BOUND",
    "Bounds",
    "Transaction",
    "columns_of",
    "entries_added",
    "kept_position",
]

_ROWS: Final = 100
"""Rows in one upsert: seven parameters each, of which SQLite allows 999 before 3.32."""

_BYTES: Final = 2**21
"""Bytes of values in one upsert, unless one alone has more: servers bound a statement's length."""

EXPIRED: Final = 32
"""Expired entries that a write removes beyond its need: a backlog shrinks, and no write pays for many."""

_VICTIMS: Final = 32
"""Rows that are looked at in one step when bytes have to go."""

_ADD_ATTEMPTS: Final = 3
"""Where an expired entry can vanish between two looks."""

_LARGE_BYTES: Final = 2**20
"""From this max_bytes on up to a hundredth part is evicted at once, and _VICTIMS entries at most."""

NO_BOUND: Final = 2**62
"""More than any table holds; a column of 64 bits holds as much again."""

_LARGE: Final = 4096
"""From this MAX_ENTRIES on a further entry evicts _BATCH, so that few writes pay for it."""

_BATCH: Final = 32
"""Entries evicted at once beyond the need for room: the write that does it takes two milliseconds for them."""

IN_FLIGHT: Final = 16
"""Writes of a single statement that may run at the same time, and find the same room. Each begins only where there is
room for so many of its size, so that they stay within the bounds together; nearer to these a transaction writes."""

_LAST: Final = 2**62
"""The position of the counts in the sequence. Leases and locks, which are never evicted, come after it."""

NOTICE_SECONDS: Final = 10.0
"""The time after each of its notices in which a clear() keeps others from renewing positions: longer than a step."""

_NO_POSITIONS: Final[Mapping[bytes, int | None]] = {}


@dataclass(slots=True)
class Bounds:
    """The most that a handle allows the table to hold."""

    max_entries: int = NO_BOUND
    max_bytes: int = NO_BOUND
    cull_frequency: int | None = None

    def allow(self, entries: int, size: int) -> bool:
        """Tell whether so many entries and bytes are within the bounds."""
        return entries <= self.max_entries and size <= self.max_bytes


class Transaction:
    """The table under a transaction that has begun; `save()` before the commit.

    Attributes:
        now: epoch seconds; the same for the whole transaction.
        counts: entries and bytes after save(), expired ones not yet removed included; None if they were not touched.
        expirations: expired entries that were removed.
        evictions: live entries that were removed for room.
        expires_at: the earliest expiry among the entries written.
        changed: names of the rows that were written or removed.
        execute: runs a statement; returns the driver's cursor.
    """

    def __init__(self, statements: Statements, session: Any, now: float, bounds: Bounds) -> None:
        self.now = now
        self.counts: tuple[int, int] | None = None
        self.expirations = self.evictions = 0
        self.expires_at = ENDLESS
        self.changed: set[bytes] = set()
        self.execute = session.execute
        self._statements, self._bounds = statements, bounds
        self._inserted = self._added_entries = self._added_bytes = 0
        self._minds_bounds = False
        self._written: set[bytes] = set()

    # Entries ----------------------------------------------------------------------------------

    def put(
        self, rows: Sequence[Row], expires_at: float, positions: Mapping[bytes, int | None] = _NO_POSITIONS
    ) -> None:
        """Insert or overwrite entries, at these positions in the sequence, else after all others."""
        for part in self._parts(rows, expires_at):
            written = [columns_of(row, expires_at, positions.get(row.name)) for row in part]
            self._note_growth(self._upsert(written, [row.name for row in part]))

    def _parts(self, rows: Iterable[Row], expires_at: float) -> Iterator[list[Row]]:
        """Yield rows for one statement each, which are noted as written."""
        # In one order everywhere, so that two transactions with the same keys do not wait for each other.
        rows = sorted(rows)
        self._note_writing([row.name for row in rows], expires_at)
        return batches(rows, value_bytes, _BYTES, _ROWS)

    def _upsert(self, written: list[tuple[Any, ...]], names: list[bytes]) -> Any:
        statements = self._statements
        cursor = self.execute(statements.put_many(len(written)), list(chain.from_iterable(written)))
        if statements.grammar.returning or cursor.description:  # of MariaDB, and not of MySQL
            return cursor.fetchall()
        return self.execute(statements.growths(len(names)), names).fetchall()

    def add_many(self, rows: Mapping[Row, float]) -> list[bytes]:
        """Insert those entries that are absent or have expired, with the expiry of each. Return the names of these."""
        statements = self._statements
        added: list[bytes] = []
        for part in self._parts(rows, min(rows.values(), default=ENDLESS)):
            written = [columns_of(row, rows[row]) for row in part]
            if not statements.grammar.returning:
                added += [row.name for row, columns in zip(part, written, strict=True) if self._is_added(row, columns)]
                continue
            found = self.execute(statements.add_many(len(part)), (*chain.from_iterable(written), self.now)).fetchall()
            self._note_growth([(growth, size) for growth, size, _ in found])
            added += [bytes(name) for _, _, name in found]
        return added

    def _is_added(self, row: Row, columns: tuple[Any, ...]) -> bool:
        """Do as add_many() for one row, where statements return nothing of the rows they write."""
        statements = self._statements
        for _ in range(_ADD_ATTEMPTS):
            if self.execute(statements.add_many(1), columns).rowcount:
                self._note_growth([(row.size, row.size)])
                return True
            present = self.execute(statements.lock_any, (row.name,)).fetchone()
            if present is not None and present[0] > self.now:
                return False
            if present is not None:
                self._note_growth(self._upsert([columns], [row.name]))
                return True
        return False  # it comes and goes; at the last look it was there

    def _note_writing(self, names: Sequence[bytes], expires_at: float = ENDLESS) -> None:
        self._written.update(names)
        self.changed.update(names)
        self.expires_at = min(self.expires_at, expires_at)

    def replace(self, row: Row, old_size: int) -> None:
        """Give a locked entry another value; it keeps its expiry."""
        self._note_writing([row.name])
        self.execute(self._statements.replace, (row.size, row.value, row.number, row.size, row.name))
        self._added_bytes += row.size - old_size

    def remove(self, names: Collection[bytes]) -> int:
        """Remove entries; return the number of live ones among them."""
        live = 0
        self.changed.update(names)
        for part in chunks(sorted(names)):
            rows = self._remove(part)
            live += sum(
                expires > self.now and not is_over(bytes(name), head, self.now) for _, expires, name, head in rows
            )
            self._note_removal([row[:2] for row in rows])
        return live

    def _note_removal(self, rows: Sequence[tuple[int, float]]) -> None:
        self._added_entries -= sum(size > 0 for size, _ in rows)
        self._added_bytes -= sum(size for size, _ in rows)

    def _remove(self, names: Sequence[bytes]) -> list[tuple[int, float, bytes, bytes | None]]:
        """Remove rows; return size, expires, name and the head of an envelope of each."""
        statements, count = self._statements, len(names)
        if statements.grammar.returning:
            return list(self.execute(statements.delete(count), names).fetchall())
        rows = self.execute(statements.sizes(count), names).fetchall()
        if rows:
            # Not those that others have inserted since, which are not counted here.
            self.execute(statements.delete(len(rows)), [row[2] for row in rows])
        return list(rows)

    def live(self, name: bytes) -> Any:
        """Return value, number, expires, size and sequence of a live entry, locked from now on; or None."""
        return self.execute(self._statements.lock_entry, (name, self.now)).fetchone()

    def all_live(self, names: Sequence[bytes]) -> dict[bytes, tuple[Any, int | None, int]]:
        """Return value, number and sequence of the live entries among these, which are locked from now on, by name."""
        live = {}
        for part in chunks(sorted(names)):
            rows = self.execute(self._statements.lock_entries(len(part)), part).fetchall()
            live.update({bytes(name): columns for name, expires, *columns in rows if expires > self.now})
        return live

    def _note_growth(self, written: Sequence[tuple[int, int]]) -> None:
        for growth, size in written:
            if not growth:
                continue
            self._added_bytes += growth
            self._inserted += growth == size > 0
            self._added_entries += entries_added(growth, size)

    # Clearing: see clearing.py ----------------------------------------------------------------

    def give_notice(self) -> None:
        """Keep all others, for NOTICE_SECONDS, from renewing positions."""
        until = str(self.now + NOTICE_SECONDS).encode()
        if not self.execute(self._statements.give_notice, (until, COUNTS_NAME)).rowcount:
            self.recount()
            self.execute(self._statements.give_notice, (until, COUNTS_NAME))

    def last_position(self) -> int:
        """Give notice; return the position of the last row."""
        self.give_notice()
        (entry,) = self.execute(self._statements.last_entry, ()).fetchone()
        (last,) = self.execute(self._statements.last, ()).fetchone()
        position: int = max(entry or 0, last % _LAST)
        return position

    def remove_until(self, names: Sequence[bytes], position: int, find: Callable[[int], str]) -> list[bytes]:
        """Remove those rows, a chunk at most, that do not come after a position in the sequence.

        The statement `find(count)`, `until` or `until_unlocked`, locks them. Return the names of the others, some of
        which may have been locked; none where a file is locked as a whole.
        """
        statements = self._statements
        if not statements.grammar.lock:
            self.changed.update(names)
            self._note_removal(self.execute(statements.delete_until(len(names)), (*names, position)).fetchall())
            return []
        found = {bytes(name) for (name,) in self.execute(find(len(names)), (*names, position)).fetchall()}
        self.remove(found)
        return [name for name in names if name not in found]

    # Room -------------------------------------------------------------------------------------

    def expire(self, limit: int) -> int:
        """Remove up to `limit` expired entries, the earliest first; return their number."""
        found = self.execute(self._statements.expired, (self.now, limit)).fetchall()
        self.remove([name for name, _ in found])
        self.expirations += sum(size > 0 for _, size in found)
        return len(found)

    def earliest(self) -> float:
        """Return the expiry of the entry that expires next."""
        earliest: float | None = self.execute(self._statements.earliest, ()).fetchone()[0]
        return ENDLESS if earliest is None else earliest

    def renew(self, names: Sequence[bytes]) -> None:
        """Note that these were read, but for those that somebody else has locked, and for all while a clear() runs."""
        statements, position = self._statements, _position()
        notice = self.execute(statements.lock_notice, (COUNTS_NAME,)).fetchone() if names else None
        if notice is not None and notice[0] is not None and float(bytes(notice[0])) > self.now:
            return
        for part in chunks(names):
            if statements.grammar.skip_locked:
                part = [name for (name,) in self.execute(statements.used(len(part)), part).fetchall()]  # noqa: PLW2901
            if part:
                self.execute(statements.renew(len(part)), (position, *part))

    def save(self, lately_read: Callable[[], Sequence[bytes]]) -> None:
        """Write the counts; evict until the bounds hold, once the names that `lately_read` returns are renewed."""
        if not (self._added_entries or self._added_bytes or self._minds_bounds):
            return
        entries, size = self._count_up()
        if not self._bounds.allow(entries + self._spare, size):
            self.renew(lately_read())
            self._make_room(entries, size)
            entries, size = self._count_up()
        self.counts = entries, size

    def count_anew(self) -> None:
        """Make a row of counts of the whole table, and see to the bounds."""
        self.recount()
        self.mind_bounds()

    def mind_bounds(self) -> None:
        """Let save() see to the bounds, though nothing is written."""
        self._minds_bounds = True

    def _count_up(self) -> tuple[int, int]:
        """Bring the counts up to date, which locks them; return entries and bytes."""
        statements = self._statements
        change = (self._added_entries, self._added_bytes, COUNTS_NAME)
        self._added_entries = self._added_bytes = 0
        counts = self.execute(statements.count_up, change)
        if not statements.grammar.returning:
            if not counts.rowcount:
                return self.recount()  # another may insert them before they could be looked at
            counts = self.execute(statements.counts, (COUNTS_NAME,))
        found = counts.fetchone()
        return self.recount() if found is None else (found[0], int(found[1]))

    def recount(self) -> tuple[int, int]:
        """Count the table anew, where somebody has removed the row of counts, or other rows by hand."""
        statements = self._statements
        # Locked before anything is counted, lest the commits of others in between be missing.
        if self.execute(statements.lock_any, (COUNTS_NAME,)).fetchone() is None:
            columns = COUNTS_NAME, None, 0, ENDLESS, 0, 0, _LAST
            # Another may insert it at the same moment; it is locked then, too.
            self.execute(statements.add_many(1), (*columns, self.now) if statements.grammar.returning else columns)
        entries, size = self.execute(statements.recount, ()).fetchone()
        counts = (entries, int(size or 0))
        self._added_entries = self._added_bytes = 0
        self.execute(statements.set_counts, (*counts, COUNTS_NAME))
        return counts

    def _make_room(self, entries: int, size: int) -> None:
        """Evict: expired entries first, then those that were used longest ago."""
        bounds = self._bounds
        if entries > (allowed := bounds.max_entries - self._spare):
            surplus = self._surplus(entries, allowed)
            self._evict(surplus - self.expire(surplus))
        for remove in (lambda _: self.expire(_VICTIMS), self._evict_bytes):
            while (surplus := size + self._added_bytes - bounds.max_bytes) > 0 and remove(surplus):
                pass

    def bound_tags(self, max_tags: int) -> None:
        """Remove the tags' versions that were written longest ago, where there are more than this."""
        statements = self._statements
        (count,) = self.execute(statements.count_tags, TAG_NAMES).fetchone()
        if count > max_tags:
            found = self.execute(statements.oldest_tags, (*TAG_NAMES, count - max_tags)).fetchall()
            self.remove([bytes(name) for (name,) in found])

    @property
    def _spare(self) -> int:
        """Entries fewer than allowed that are left in a large table, so that single statements go on writing."""
        is_large = _LARGE <= self._bounds.max_entries < NO_BOUND
        return IN_FLIGHT if is_large and self._statements.grammar.chains else 0

    def _surplus(self, entries: int, max_entries: int) -> int:
        surplus, frequency = entries - max_entries, self._bounds.cull_frequency
        if frequency is not None:
            before = entries - self._inserted
            return max(surplus, before // frequency if frequency else before)
        return max(surplus, _BATCH) if max_entries >= _LARGE else surplus

    def _evict(self, count: int) -> None:
        while count > 0 and (victims := self._victims(min(count, 1000))):
            self._remove_victims([name for name, _ in victims])
            count -= len(victims)
        if count > 0:
            self.recount()

    def _evict_bytes(self, surplus: int) -> int:
        victims = []
        if self._bounds.max_bytes >= _LARGE_BYTES:
            surplus += self._bounds.max_bytes // 100
        for name, size in self._victims(_VICTIMS):
            if surplus <= 0:
                break
            victims.append(name)
            surplus -= size
        self._remove_victims(victims)
        return len(victims)

    def _remove_victims(self, names: Sequence[bytes]) -> None:
        self.remove(names)
        self.evictions += len(names)

    def _victims(self, count: int) -> list[tuple[bytes, int]]:
        """Return the entries used longest ago; this transaction's own only where nothing else is left."""
        written = self._written
        found = self.execute(self._statements.oldest, (count + min(len(written), _ROWS),)).fetchall()
        rows = [(bytes(name), size) for name, size in found]
        others = [row for row in rows if row[0] not in written]
        return (others or rows)[:count]


def entries_added(growth: int, size: int) -> int:
    """Return the number of entries that a written row adds: a lease has no size, and is no entry yet."""
    return (growth == size > 0) - (growth < 0 == size)


def columns_of(row: Row, expires_at: float, position: int | None = None) -> tuple[Any, ...]:
    """Return the columns of an entry; its position in the sequence is after all others unless one is given."""
    name, value, number, size = row
    sequence = time.time_ns() // 1000 if position is None else position % _LAST  # as _position(), without the call
    # A lock or a lease is never evicted.
    return name, value, number, min(expires_at, ENDLESS), size, size, sequence if size else _LAST + sequence


def kept_position(row: Row, sequence: int) -> int | None:
    """Return the position of a row that takes the place of one; None, after all others, for a value in its lease's."""
    return None if sequence >= _LAST and row.size else sequence


def _position() -> int:
    """Return a position in the sequence after all that were used before, on any host with a clock."""
    return time.time_ns() // 1000
