"""Changes of a database cache that depend on the value stored: counted, moved, or replaced where it is as expected.

No value is made while a row is locked, as that can run a program's own code, which may use this cache. It is made of
the bytes before, and the transaction looks whether these are still there; if not, it is made anew.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from storeroom import timeouts
from storeroom.backends.db import rows as layout
from storeroom.backends.db.engine import DatabaseEngine
from storeroom.backends.db.errors import FullError
from storeroom.backends.db.fetching import fetch_one
from storeroom.backends.db.rows import Row, from_column, name_of, value_bytes
from storeroom.backends.db.statements import batches
from storeroom.backends.db.transaction import Bounds, Transaction, kept_position
from storeroom.backends.kept_bounds import KeptBounds
from storeroom.backends.network import NetworkCache
from storeroom.exceptions import DecodeError, ValueTooLargeError
from storeroom.storage.counters import numeric
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import ABSENT, LOOK, MISSING, Swap
from storeroom.storage.writings import Writing, swap_all

__all__ = ["ComparingCache"]

T = TypeVar("T")

_INT64: Final = range(-(2**63), 2**63)

_STEP_ROWS: Final = 2000
"""Rows that one transaction of a call with many keys changes: ten milliseconds in a file, twenty if as many go."""

_STEP_BYTES: Final = 2**22
"""Bytes of values that it writes, unless one alone has more: as long."""


class ComparingCache(KeptBounds, NetworkCache, abstract=True):
    """The rows of a database cache, and the hooks that compare them."""

    _engine: DatabaseEngine
    _bounds: Bounds

    def _write(self, change: Callable[..., T], *args: Any) -> T:
        self._see_to_bounds()
        return self._engine.write(change, *args, bounds=self._bounds)

    def _free(self, change: Callable[..., T], *args: Any) -> T:
        """Do as _write() for a change that removes: on a full disk it needs room for the log, and is given some."""
        try:
            return self._write(change, *args)
        except FullError:
            database = self._engine.database
            if not database.lend_room():
                raise
            try:
                return self._write(change, *args)
            finally:
                database.has_lent = False
                self._engine.read(database.settle_room)

    def _in_steps(self, items: Iterable[T], length_of: Callable[[T], int] = lambda _: 0) -> Iterator[list[T]]:
        """Yield the items, as many at a time as one transaction changes; between two let others write."""
        for number, part in enumerate(batches(items, length_of, _STEP_BYTES, _STEP_ROWS)):
            if number:
                self._engine.let_others_write()
            yield part

    # Values ---------------------------------------------------------------------------------

    def _row(self, storage_key: str, value: Any) -> Row:
        frame = self._codec.dumps(value, storage_key)
        self._counters.bytes_written += len(frame)
        return self._made(storage_key, frame)

    def _rows(self, values: Mapping[str, Any]) -> list[Row]:
        """Do as _row() for several entries."""
        frames = self._codec.dumps_many(values)
        self._counters.bytes_written += sum(map(len, frames))
        return list(map(self._made, values, frames))

    def _made(self, storage_key: str, frame: bytes) -> Row:
        row = layout.make_row(storage_key, frame)
        max_bytes = self._bounds.max_bytes
        if row.size > max_bytes:
            raise ValueTooLargeError(
                f"The value of key {storage_key!r} takes {row.size} bytes, more than OPTIONS['max_bytes'] "
                f"({max_bytes}) allows for the whole cache; raise max_bytes or store less."
            )
        return row

    def _decoded(self, storage_key: str, name: bytes, value: Any, number: int | None) -> Any:
        return number if value is None else self._loaded(storage_key, _frame(storage_key, name, value))

    def _decoded_all(self, names: Mapping[bytes, str], rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
        """Return the values in name, value and number of rows, by the storage keys of their names."""
        numbers = {names[name]: number for name, value, number, _ in rows if value is None}
        frames = {
            names[name]: value
            if type(value) is bytes and len(name) < layout.KEY_BYTES
            else _frame(names[name], name, value)
            for name, value, _, _ in rows
            if value is not None
        }
        self._counters.bytes_read += sum(map(len, frames.values()))
        values: dict[str, Any]
        values, unread = self._codec.loads_many(list(frames), list(frames.values()))
        self._counters.errors += unread
        return numbers | values

    def _loaded(self, storage_key: str, frame: bytes) -> Any:
        self._counters.bytes_read += len(frame)
        try:
            return self._codec.loads(frame, storage_key)
        except DecodeError:
            self._counters.errors += 1
            return MISSING

    def _found_frame(self, storage_key: str) -> bytes | None:
        """Return the frame of a live entry as it is now, without a lock; None if there is none."""
        name = name_of(storage_key)
        row = self._engine.read(fetch_one, self._engine.statements.get, (name,))
        return None if row is None or row[2] <= timeouts.now() else _frame(storage_key, name, *row[:2])

    # Hooks ----------------------------------------------------------------------------------

    def _incr(self, storage_key: str, delta: float) -> float:
        # A plain integer is counted by the database, as long as the sum is one too.
        if type(delta) is int and delta in _INT64:
            engine, name = self._engine, name_of(storage_key)
            low, high = _INT64.start - min(delta, 0), _INT64.stop - 1 - max(delta, 0)
            parameters = (delta, name, timeouts.now(), low, high)
            counted = engine.change(name, engine.database.incr, engine.statements, parameters)
            if counted is not None:
                return counted
        frame = self._found_frame(storage_key)
        while True:
            total = numeric(storage_key, MISSING if frame is None else self._loaded(storage_key, frame)) + delta
            found = self._write(self._replace_within, storage_key, frame, self._row(storage_key, total))
            if found == frame:
                return total
            frame = found

    def _replace_within(self, transaction: Transaction, storage_key: str, frame: bytes, row: Row) -> bytes | None:
        """Give an entry another value if it has this frame; return the one that it had, None if it was absent."""
        columns = transaction.live(row.name)
        found = None if columns is None else _frame(storage_key, row.name, *columns[:2])
        if found == frame:
            transaction.replace(row, columns[3])
        return found

    def _rename(self, storage_key: str, new_storage_key: str) -> Any:
        frame = self._found_frame(storage_key)
        while frame is not None and (value := self._loaded(storage_key, frame)) is not MISSING:
            if type(value) is Envelope:
                return LOOK
            # A signature is bound to its key, so that the value is written anew.
            found = self._write(self._move_within, storage_key, frame, self._row(new_storage_key, value))
            if found == frame:
                return True
            frame = found
        return False

    def _move_within(self, transaction: Transaction, storage_key: str, frame: bytes, row: Row) -> bytes | None:
        """Do as _replace_within() under another name, and remove the entry."""
        columns = transaction.live(name := name_of(storage_key))
        found = None if columns is None else _frame(storage_key, name, *columns[:2])
        if found == frame:
            transaction.remove([name])
            transaction.put([row], from_column(columns[2]), {row.name: columns[4]})
        return found

    def _compare_delete(self, storage_key: str, expected: Any) -> bool:
        return self._swapped({storage_key: Swap(expected, MISSING, timeouts.NEVER)})[storage_key]

    def _compare_set(self, storage_key: str, expected: Any, value: Any, expires_at: float) -> bool:
        return self._swapped({storage_key: Swap(expected, value, expires_at)})[storage_key]

    def _swap_many(self, swaps: Mapping[str, Swap]) -> dict[str, bool]:
        return self._swapped(swaps) if swaps else {}

    def _swapped(self, swaps: Mapping[str, Swap]) -> dict[str, bool]:
        rows = {key: self._row(key, swap.value) for key, swap in swaps.items() if swap.value is not MISSING}
        others = {key: swap for key, swap in swaps.items() if swap.expected is not ABSENT}
        made = dict.fromkeys(swaps, False)
        try:
            # Apart, as each locks its rows in their order, so that no two transactions wait for each other.
            for keys in self._in_steps([key for key in swaps if key not in others], lambda key: value_bytes(rows[key])):
                added = set(self._write(Transaction.add_many, {rows[key]: swaps[key].expires_at for key in keys}))
                made |= {key: rows[key].name in added for key in keys}
            attempt = partial(self._swap_in_steps, others, rows, made)
            made |= swap_all(others, attempt, self._codec.dumps, self._loaded)
        except FullError as error:
            self._without_room(error, len(swaps) - sum(made.values()))
        return made

    def _swap_in_steps(
        self, swaps: Mapping[str, Swap], rows: Mapping[str, Row], made: dict[str, bool],
        writings: Mapping[str, Writing], doubtful: dict[str, bytes],
    ) -> dict[str, bool]:  # fmt: skip
        """Make the swaps of entries that are as expected, and note which: see swap_all()."""
        write = self._write if rows else self._free
        for keys in self._in_steps(writings, lambda key: value_bytes(rows.get(key))):
            part, unclear = {key: writings[key] for key in keys}, dict[str, bytes]()
            made |= write(_swap_within, swaps, rows, part, unclear)
            doubtful |= unclear
        return made


def _frame(storage_key: str, name: bytes, value: Any, number: int | None = None) -> bytes:
    """Return the frame in the columns of a row; b"", which no codec reads, where they hold something else."""
    if value is None:
        return b"" if number is None else b"%d" % number
    try:
        return layout.frame_of(storage_key, name, value)
    except TypeError:
        return b""


def _swap_within(
    transaction: Transaction, swaps: Mapping[str, Swap], rows: Mapping[str, Row],
    writings: Mapping[str, Writing], doubtful: dict[str, bytes],
) -> dict[str, bool]:  # fmt: skip
    """Make the swaps of entries that are as expected: see swap_all()."""
    doubtful.clear()  # of an attempt that failed
    names = {key: name_of(key) for key in writings}
    found = transaction.all_live(list(names.values()))
    made, doomed, puts = dict.fromkeys(writings, False), list[bytes](), defaultdict[float, list[Row]](list)
    for key, writing in writings.items():
        there = found.get(names[key])
        frame = None if there is None else _frame(key, names[key], *there[:2])
        is_expected = writing.is_in(frame)
        if frame is not None and is_expected is None:
            doubtful[key] = frame
        if not is_expected:
            continue
        made[key] = True
        if swaps[key].value is MISSING:
            doomed.append(names[key])
        else:
            puts[swaps[key].expires_at].append(rows[key])
    transaction.remove(doomed)
    for expires_at, written in puts.items():
        transaction.put(written, expires_at, {row.name: kept_position(row, found[row.name][2]) for row in written})
    return made
