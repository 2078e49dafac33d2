"""Removal of many rows in short transactions, so that it holds up no other writer, and no reader.

clear() takes effect at one moment, though its transactions are many: at a position in the sequence
that every row that is there comes before, and rows written later come after. Rows that are made of
others keep their position; renewals are withheld meanwhile by a notice in the row of counts. Leases
go before that moment, so that no computation that is under way then stores its value afterwards.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from storeroom.backends.db.engine import DatabaseEngine
from storeroom.backends.db.statements import batches
from storeroom.backends.db.transaction import NOTICE_SECONDS, Transaction

__all__ = ["STEP", "clear", "remove_expired"]

STEP: Final = 200
"""Rows that one transaction removes: about five milliseconds."""

_EVERY_POSITION: Final = 2**62 - 1
"""The last position there can be, and the mask that leaves the position of a sequence, also of a lease's."""

_Row: TypeAlias = tuple[bytes, int]
"""Name and sequence."""


def clear(
    engine: DatabaseEngine, write: Callable[..., Any], leases: Iterable[_Row], rows: Callable[[], Iterable[_Row]]
) -> None:
    """Remove leases, then all rows that are there at one moment; `write` runs a change in a transaction."""
    _remove(engine, write, leases, _EVERY_POSITION)
    position = write(Transaction.last_position)
    while _remove(engine, write, rows(), position):
        pass  # an entry that was moved meanwhile may have got behind


def _remove(engine: DatabaseEngine, write: Callable[..., Any], rows: Iterable[_Row], position: int) -> bool:
    """Remove the rows that do not come after a position; return whether there were any."""
    statements = engine.statements
    noticed, is_any = time.monotonic(), False
    names = (name for name, sequence in rows if sequence & _EVERY_POSITION <= position)
    for part in batches(names, len, 2**62, STEP):
        is_any = True
        for name in write(Transaction.remove_until, part, position, statements.until_unlocked):
            # Waited for one at a time: a transaction that waits for one row and holds others may end in a deadlock.
            write(Transaction.remove_until, [name], position, statements.until)
        if time.monotonic() > noticed + NOTICE_SECONDS / 2:
            noticed = time.monotonic()
            write(Transaction.give_notice)
        engine.let_others_write()
    return is_any


def remove_expired(engine: DatabaseEngine, write: Callable[..., Any]) -> int:
    """Remove all expired entries; return their number."""
    total = 0
    while removed := write(Transaction.expire, STEP):
        total += removed
        engine.let_others_write()
    return total
