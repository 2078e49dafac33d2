"""Counters that come into being by being counted: of two clients that count an absent key, one creates it."""

from typing import Any

from storeroom.exceptions import StorageError, ValueTypeError
from storeroom.storage.conditions import TRIES, add_over, has
from storeroom.storage.hooks import MISSING, StorageHooks
from storeroom.storage.steps import Steps
from storeroom.timeouts import AT_ONCE

__all__ = ["count", "numeric"]


def count(hooks: StorageHooks, storage_key: str, delta: float, start: float, expires_at: float) -> Steps[float]:
    """Add delta to the number stored, or store start + delta until then. Return the new number.

    Raises:
        ValueTypeError: the value is not a number, or has tags or may become stale.
        StorageError: the storage stores nothing now.
    """
    is_kept = expires_at != AT_ONCE
    step = ("_count", (storage_key, delta, start, expires_at)) if is_kept else ("_incr", (storage_key, delta))
    for _ in range(TRIES):
        try:
            total: float | None = yield hooks, *step
        except (KeyError, ValueTypeError) as error:
            if isinstance(error, ValueTypeError) and (yield from has(hooks, storage_key)):
                raise
            total = None
        if total is not None:
            return total
        # An envelope may be in the way that counts as absent: a tag was invalidated, or somebody computes.
        if not is_kept or (yield from add_over(hooks, storage_key, start + delta, expires_at)):
            return start + delta
    raise StorageError(
        f"The counter {storage_key!r} could not be created in {TRIES} attempts: the storage keeps nothing now. "
        "Look whether it is full."
    )


def numeric(storage_key: str, value: Any) -> float:
    """Return the value of an entry to be counted. Raise KeyError for MISSING, ValueTypeError if it is no number."""
    if value is MISSING:
        raise KeyError(storage_key)
    if not isinstance(value, int | float):
        raise ValueTypeError(
            f"The value of key {storage_key!r} is not a number; incr() and decr() need an int or a float."
        )
    return value
