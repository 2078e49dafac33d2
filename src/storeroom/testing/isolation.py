"""Tests that leave nothing behind: engines outlive their handles by design, but not a test."""

import contextlib
from collections.abc import Iterator

from storeroom.engines import engine as engines

__all__ = ["engines_of_its_own"]


@contextlib.contextmanager
def engines_of_its_own() -> Iterator[None]:
    """Close and forget, at the end of the block, every engine that was made within it."""
    known = engines._engines
    before = set(known)
    try:
        yield
    finally:
        for name in known.keys() - before:
            known.pop(name).close()
