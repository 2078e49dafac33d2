"""Tests that leave nothing behind: engines outlive their handles by design, but not a test."""

import contextlib
from collections.abc import Iterator

from storeroom.engines import engine as engines

__all__ = ["engines_of_its_own"]


@contextlib.contextmanager
def engines_of_its_own(*, alone: bool = False) -> Iterator[None]:
    """Close and forget, at the end of the block, every engine that was made within it.

    Args:
        alone: whether those that were there before are hidden meanwhile, for a test of all that this process has: none
            of their storages may be opened then.
    """
    known = engines._engines
    before = dict(known)
    if alone:
        known.clear()
    try:
        yield
    finally:
        for name in known.keys() - (() if alone else before.keys()):
            known.pop(name).close()
        known.update(before)
