"""The number of entries that a full file cache evicts at once."""

from typing import Final

__all__ = ["batch_of"]

_PART: Final = 50
_AT_ONCE: Final = 128
_FEW: Final = 32
_SMALL: Final = 500
_UNUSED: Final = 0.01
_USED: Final = 0.05
_NARROW: Final = 200
"""A full cache evicts one entry in `_PART` at once, and `_AT_ONCE` at the most, since a page of several costs once; one
whose batch would be shorter than `_FEW`, one in `_FEW`. Each is missed where the oldest of small are used: where more
than `_USED` of them are, one in `_NARROW` goes. A cache of less than `_SMALL` feels each from `_UNUSED` on: there one
less than one in `_PART` goes."""


def batch_of(entries: int, small_used: float) -> int:
    """Return how many of so many entries go at once, where this share of the oldest of small are used."""
    if entries < _SMALL and small_used > _UNUSED:
        return min(_AT_ONCE, entries // _PART - 1)
    if small_used > _USED:
        return min(_AT_ONCE, entries // _NARROW)
    return min(_AT_ONCE, max(entries // _PART, min(_FEW, entries // _FEW)))
