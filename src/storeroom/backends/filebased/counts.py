"""The counters of all processes together: records that each adds to, seldom and at once."""

from collections.abc import Iterator
from importlib import import_module
from struct import Struct
from typing import Any, Final

import lmdb

from storeroom.backends.filebased.slots import Slots
from storeroom.engines.counts import Counters, presented, total

__all__ = ["COUNTS_KEY", "add_counts", "counts_in", "read_counts"]

COUNTS_KEY: Final = b"c"
_FURTHER_KEY: Final = b"c2"
"""Of the counts that older versions do not know: to them the other record has one length."""

_NAMES: Final = ("deletes", "errors", "evictions", "expirations", "hits", "misses", "sets", "unstored")
_RECORD: Final = Struct(">8Q")


def read_counts(transaction: Any) -> dict[str, Any]:
    """Return the counts that processes have added so far, by name."""
    record = transaction.get(COUNTS_KEY)
    numbers = _RECORD.unpack((record or b"").ljust(_RECORD.size, b"\0"))  # that of an older version is shorter
    return dict(zip(_NAMES, numbers, strict=True)) | _further(transaction)


def _further(transaction: Any) -> dict[str, Any]:
    record = transaction.get(_FURTHER_KEY)
    if record is None:
        return {}
    try:
        counted: dict[str, Any] = _json().loads(bytes(record))
    except ValueError:  # damaged
        return {}
    return counted


def counts_in(transaction: Any) -> Iterator[tuple[bytes, bytes]]:
    """Yield the records, where there are any."""
    for key in (COUNTS_KEY, _FURTHER_KEY):
        if (record := transaction.get(key)) is not None:
            yield key, bytes(record)


def add_counts(environment: Any, slots: Slots, counters: Counters) -> int:
    """Add this process's counters to the records, and start them at zero again; return all processes' evictions.

    Raises nothing: where the environment cannot be written to, they go on counting. Zero where nothing was added.
    """
    raw = counters.raw()
    counted = presented(raw)
    if environment is None or not counted or not counters.are_kept:  # the first, if it was closed just now
        return 0
    try:
        with environment.begin(write=True) as transaction:
            slots.skip(transaction.id())
            everybody = total(read_counts(transaction), counted)
            evictions: int = everybody["evictions"]
            _put(transaction, everybody)
    except (lmdb.Error, OSError, ValueError):  # the last two: slots were put in place of these, and removed since
        return 0  # the operation that comes next meets the same error and tells it
    counters.hand_over(raw)
    return evictions


def _put(transaction: Any, counted: dict[str, Any]) -> None:
    transaction.put(COUNTS_KEY, _RECORD.pack(*(counted.pop(name) for name in _NAMES)))
    if counted:
        transaction.put(_FURTHER_KEY, _json().dumps(counted).encode())


def _json() -> Any:
    return import_module("json")  # the first use of a cache need not load it
