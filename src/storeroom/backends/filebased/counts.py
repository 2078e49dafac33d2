"""The counters of all processes together: a record that each adds to, seldom and at once."""

from struct import Struct
from typing import Any, Final

import lmdb

from storeroom.backends.filebased.slots import Slots
from storeroom.engines.counts import Counters

__all__ = ["COUNTS_KEY", "add_counts", "read_counts"]

COUNTS_KEY: Final = b"c"
_NAMES: Final = ("deletes", "errors", "evictions", "expirations", "hits", "misses", "sets", "unstored")
_RECORD: Final = Struct(">8Q")


def read_counts(transaction: Any) -> dict[str, int]:
    """Return the counts that processes have added so far, by name."""
    record = transaction.get(COUNTS_KEY)
    numbers = _RECORD.unpack((record or b"").ljust(_RECORD.size, b"\0"))  # that of an older version is shorter
    return dict(zip(_NAMES, numbers, strict=True))


def add_counts(environment: Any, slots: Slots, counters: Counters) -> None:
    """Add this process's counters to the record, and start them at zero again.

    Raises nothing: where the environment cannot be written to, they go on counting.
    """
    counted = counters.as_dict()
    if not any(counted.values()):
        return
    try:
        with environment.begin(write=True) as transaction:
            slots.skip(transaction.id())
            total = read_counts(transaction)
            transaction.put(COUNTS_KEY, _RECORD.pack(*(total[name] + counted[name] for name in _NAMES)))
    except (lmdb.Error, OSError, ValueError):  # the last two: slots were put in place of these, and removed since
        return  # the operation that comes next meets the same error and tells it
    # Subtracted rather than zeroed: other threads go on counting.
    for name in _NAMES:
        setattr(counters, name, getattr(counters, name) - counted[name])
