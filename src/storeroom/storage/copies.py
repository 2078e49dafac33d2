"""Copies of values, kept in this process: immutable scalars as they are, everything else as a pickle.

And whether two copies are of one writing of an entry, which their own ``==`` does not know: it may raise, answer with
an array, or be always true.
"""

from _pickle import dumps, loads  # the C module alone
from typing import Any, Final

from storeroom.exceptions import SerializationError
from storeroom.storage.envelope import Envelope
from storeroom.storage.interruptions import raise_if_foreign, value_or
from storeroom.storage.trials import Trial, names_in

__all__ = ["IMMUTABLE", "TRIAL", "alike", "freeze", "pickled", "thaw"]

IMMUTABLE: Final = frozenset({str, int, float, bool, type(None), bytes, complex})
"""Types whose objects are kept as they are: nobody can change them, so nobody can change the cache."""


_HIGHEST: Final = -1  # as dumps() takes it

_EXACT: Final = frozenset({str, int, bool, type(None), bytes, Envelope})
"""Types whose ``==`` tells writings apart: by value, or by an envelope's stamp. Floats are told by their bits, as NaN
equals nothing."""


TRIAL: Final = Trial(loads)
"""Of all pickles that are read without fences, in this process."""


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
    return _Pickled(pickled(value))


def pickled(value: Any, remedy: str = "") -> bytes:
    """Return the pickle of a value; raise SerializationError, with a remedy, if there is none that can be read."""
    try:
        pickle = dumps(value, _HIGHEST)
    except Exception as error:
        # A class's own __reduce__ may raise anything; the caller's mistake is the same.
        raise_if_foreign(error, dumps, value, _HIGHEST)
        raise SerializationError(
            f"A value of type {type(value).__module__}.{type(value).__qualname__} cannot be pickled ({error}); "
            f"cache the data in it rather than the object{remedy}."
        ) from error
    if names := names_in(pickle):
        TRIAL.check(pickle, names)
    return pickle


def thaw(kept: Any) -> Any:
    """Return the value of a copy made by freeze(): a new object each time, if it can be changed."""
    return loads(kept) if type(kept) is _Pickled else kept


def alike(found: Any, expected: Any) -> bool:
    """Tell whether two readings of an entry are of the same writing; the values' own ``==`` is never asked.

    Envelopes are told by their stamps, other values by their bytes. False also for a value that cannot be pickled
    again, unless it is the very same object.

    >>> alike([float("nan")], [float("nan")]), alike(1, True)
    (True, False)
    """
    if found is expected:
        return True
    if type(found) is not type(expected):
        return False
    if type(found) in _EXACT:
        return bool(found == expected)
    one, other = (value_or(None, dumps, value, _HIGHEST) for value in (found, expected))
    return one is not None and one == other
