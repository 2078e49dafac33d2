"""Counters that come into being by being counted, or are computed while they are counted.

Of two clients that count an absent key, one creates it. A number whose successor somebody computes is counted all the
same: that takes the lease away, as every write does.
"""

from contextlib import suppress
from typing import Any

from storeroom.exceptions import StorageError, ValueTypeError
from storeroom.storage.conditions import TRIES, add_over, is_live
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING, StorageHooks
from storeroom.storage.steps import Steps
from storeroom.timeouts import AT_ONCE

__all__ = ["count", "numeric", "recount"]


def count(hooks: StorageHooks, storage_key: str, delta: float, start: float, expires_at: float) -> Steps[float]:
    """Add delta to the number stored, or store start + delta until then. Return the new number.

    Raises:
        ValueTypeError: the value is not a number, or has tags or may become stale.
        StorageError: the storage stores nothing now.
    """
    is_kept = expires_at != AT_ONCE
    step = ("_count", (storage_key, delta, start, expires_at)) if is_kept else ("_incr", (storage_key, delta))
    for _ in range(TRIES):
        total: float | None = None
        with suppress(KeyError):
            try:
                total = yield hooks, *step
            except ValueTypeError:
                total = yield from recount(hooks, storage_key, delta)
        if total is not None:
            return total
        # An envelope may be in the way that counts as absent: a tag was invalidated, or somebody computes.
        if not is_kept or (yield from add_over(hooks, storage_key, start + delta, expires_at)):
            return start + delta
    raise StorageError(
        f"The counter {storage_key!r} could not be created in {TRIES} attempts: the storage keeps nothing now. "
        "Look whether it is full."
    )


def recount(hooks: StorageHooks, storage_key: str, delta: float) -> Steps[float]:
    """Add delta to an entry that `_incr` has found to be no number, a moment ago. Return the new number.

    It may have been the lease of somebody who has stored a number since, or who computes another one still.

    Raises:
        KeyError: there is no live entry.
        ValueTypeError: the entry is no number, or has tags or may become stale.
    """
    for _ in range(TRIES):
        found = yield hooks, "_get", (storage_key,)
        if type(found) is not Envelope:
            numeric(storage_key, found)
            with suppress(ValueTypeError):
                counted: float = yield hooks, "_incr", (storage_key, delta)
                return counted
            continue
        if not (yield from is_live(hooks, found)):
            raise KeyError(storage_key)
        if found.has_conditions:
            break
        total = numeric(storage_key, found.value) + delta
        if (yield hooks, "_compare_set", (storage_key, found, total, found.fresh_until)):
            return total
    raise ValueTypeError(
        f"The value of key {storage_key!r} has tags, or may become stale or be refreshed early; incr() and decr() "
        "need a number in an entry without such conditions."
    )


def numeric(storage_key: str, value: Any) -> float:
    """Return the value of an entry to be counted. Raise KeyError for MISSING, ValueTypeError if it is no number."""
    if value is MISSING:
        raise KeyError(storage_key)
    if not issubclass(type(value), int | float):  # isinstance() would ask the value itself
        raise ValueTypeError(
            f"The value of key {storage_key!r} is not a number; incr() and decr() need an int or a float."
        )
    number: float = value
    return number
