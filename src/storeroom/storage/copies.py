"""Copies of values, kept in this process: immutable scalars as they are, everything else as a pickle."""

from pickle import HIGHEST_PROTOCOL, dumps, loads
from typing import Any, Final

from storeroom.exceptions import SerializationError

__all__ = ["IMMUTABLE", "freeze", "thaw"]

IMMUTABLE: Final = frozenset({str, int, float, bool, type(None), bytes, complex})
"""Types whose objects are kept as they are: nobody can change them, so nobody can change the cache."""


class _Pickled(bytes):
    """A pickle, told by its type from bytes that are the value itself."""


def freeze(value: Any) -> Any:
    """Return a copy of the value that cannot be changed; raise SerializationError if it cannot be pickled.

    >>> kept = freeze([1])
    >>> thaw(kept) is thaw(kept)
    False
    """
    if type(value) in IMMUTABLE:
        return value
    try:
        return _Pickled(dumps(value, HIGHEST_PROTOCOL))
    except Exception as error:
        # A class's own __reduce__ may raise anything; the caller's mistake is the same.
        raise SerializationError(
            f"A value of type {type(value).__module__}.{type(value).__qualname__} cannot be pickled ({error}); "
            "cache the data in it rather than the object."
        ) from error


def thaw(kept: Any) -> Any:
    """Return the value of a copy made by freeze(): a new object each time, if it can be changed."""
    return loads(kept) if type(kept) is _Pickled else kept
